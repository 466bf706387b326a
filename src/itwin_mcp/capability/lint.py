"""The lint rules of the format, and of those who govern many capability files, for `capability check`.

They apply to files that are sound: a broken rule is a warning, or an error where a file would put its readers at risk.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from itwin_mcp.capability.documents import Document, YamlPath
from itwin_mcp.errors import Problem

MIN_DESCRIPTION = 20
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]", "::1")
_SCRIPT = re.compile(r"<\s*script\b|\bjavascript\s*:", re.IGNORECASE)
_EVAL = re.compile(r"\beval\s*\(|\bnew\s+Function\s*\(")
_TOKEN = re.compile(r"\beyJ[\w-]{10,}\.|\b(?:sk|pk|ghp|gho|xox[abp])[-_][A-Za-z0-9_-]{16,}|\bAKIA[A-Z0-9]{16}\b")
_PLACEHOLDER = re.compile(r"\b(?:TODO|FIXME|TBD|lorem ipsum)\b", re.IGNORECASE)
_SEMVER = re.compile(r"\d+\.\d+\.\d+([-+][\w.+-]+)?")
_KEBAB = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_SECRETS = ("token", "password", "value")
_ADDRESSES = re.compile(r"(?:^|[-_a-z])(?:callback|webhook|redirect)(?:-?(?:url|uri))?$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Finding:
    """A broken lint rule. An error makes `check` fail."""

    problem: Problem
    is_error: bool


@dataclass(frozen=True, slots=True)
class _Node:
    """A mapping of the file, and its path. Sections may be at the top of a file or under `capability`."""

    path: YamlPath
    value: Mapping[str, Any]


def lint_document(document: Document) -> list[Finding]:
    """Return the broken lint rules of a file, in its order."""
    linter = _Linter(document)
    linter.check()
    return sorted(linter.findings, key=lambda finding: finding.problem)


class _Linter:
    def __init__(self, document: Document) -> None:
        self._document = document
        self._data: Mapping[str, Any] = document.data if isinstance(document.data, dict) else {}
        self.findings: list[Finding] = []

    def check(self) -> None:
        self._check_texts(self._data, ())
        self._check_info()
        self._check_namespaces()
        for consumes in self._list_section("consumes"):
            self._check_consumes(consumes)
        for aggregate in self._list_section("aggregates"):
            for flow in _list_named(aggregate, "flows"):
                self._check_description(flow, "flow")
                self._check_semantics(flow)
        for exposes in self._list_section("exposes"):
            self._check_exposes(exposes)

    def _warn(self, path: YamlPath, rule: str, message: str, *, is_error: bool = False) -> None:
        self.findings.append(Finding(self._document.make_problem(path, rule, message), is_error))

    def _list_section(self, name: str) -> Iterator[_Node]:
        """Yield the entries of a section that are not imports."""
        capability = self._data.get("capability")
        places: list[tuple[YamlPath, Any]] = [((name,), self._data.get(name))]
        if isinstance(capability, dict):
            places.append((("capability", name), capability.get(name)))
        for path, entries in places:
            for index, entry in enumerate(entries if isinstance(entries, list) else ()):
                if isinstance(entry, dict) and "from" not in entry:
                    yield _Node((*path, index), entry)

    # --- texts, names and descriptions --------------------------------------------------------------------------

    def _check_texts(self, value: Any, path: YamlPath) -> None:
        """Report scripts, code and tokens in the texts that people and models read."""
        if isinstance(value, dict):
            for key, child in value.items():
                self._check_texts(child, (*path, key))
        elif isinstance(value, list):
            for index, child in enumerate(value):
                self._check_texts(child, (*path, index))
        elif isinstance(value, str) and path and path[-1] in ("description", "display", "content", "note", "hint"):
            if _SCRIPT.search(value):
                self._warn(path, "no-script", "the text contains a script: remove it", is_error=True)
            if _EVAL.search(value):
                self._warn(path, "no-eval", "the text contains code that is evaluated: remove it", is_error=True)
            if _TOKEN.search(value):
                self._warn(path, "no-secret", "the text contains what looks like a token: remove it", is_error=True)
            if _PLACEHOLDER.search(value):
                self._warn(path, "placeholder", "the text is a placeholder: say what callers must know")

    def _check_info(self) -> None:
        info = self._data.get("info")
        if isinstance(info, dict):
            version = info.get("version")
            if isinstance(version, str) and not _SEMVER.fullmatch(version):
                self._warn(("info", "version"), "semver", f"{version[:40]!r} is not a version such as 1.0.0")

    def _check_namespaces(self) -> None:
        """Report namespaces that two sections use: other engines of the format refuse the file."""
        first: dict[str, str] = {}
        for section in ("binds", "consumes", "aggregates", "exposes"):
            for node in self._list_section(section):
                namespace = node.value.get("namespace")
                if not isinstance(namespace, str):
                    continue
                if first.setdefault(namespace, section) != section:
                    message = f"the namespace {namespace!r} is also in `{first[namespace]}`: rename one"
                    self._warn((*node.path, "namespace"), "namespaces-unique", message)
                if not _KEBAB.fullmatch(namespace):
                    message = f"the namespace {namespace!r} is not in small letters with dashes"
                    self._warn((*node.path, "namespace"), "kebab-case", message)

    def _check_description(self, node: _Node, kind: str) -> None:
        description = node.value.get("description")
        if not isinstance(description, str) or not description.strip():
            self._warn(node.path, "description", f"the {kind} has no description: say what it is for")
        elif len(description) < MIN_DESCRIPTION and kind == "tool":
            message = f"the description has less than {MIN_DESCRIPTION} characters: say when to use the {kind}"
            self._warn((*node.path, "description"), "description", message)

    # --- sections -----------------------------------------------------------------------------------------------

    def _check_consumes(self, consumes: _Node) -> None:
        if consumes.value.get("type", "http") != "http":
            return
        self._check_description(consumes, "API")
        self._check_base_uri(consumes)
        self._check_authentication(_child(consumes, "authentication"))
        for resource in _list_named(consumes, "resources"):
            path = resource.value.get("path")
            if isinstance(path, str) and "?" in path:
                message = "the path contains a query: declare its parameters in `inputParameters`"
                self._warn((*resource.path, "path"), "path-without-query", message)
            if isinstance(path, str) and len(path) > 1 and path.endswith("/"):
                self._warn((*resource.path, "path"), "trailing-slash", "the path ends with a slash: remove it")
            for operation in _list_named(resource, "operations"):
                self._check_kebab(operation, "operation")

    def _check_base_uri(self, consumes: _Node) -> None:
        base = consumes.value.get("baseUri")
        if not isinstance(base, str):
            return
        path = (*consumes.path, "baseUri")
        parts = urlsplit(base)
        host = parts.netloc.rpartition("@")[2].lower()
        name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
        if base.endswith("/"):
            self._warn(path, "trailing-slash", "the base URI ends with a slash: remove it")
        if parts.scheme == "http" and name not in _LOOPBACK:
            self._warn(path, "https", f"{host} is called without encryption: use https")
        if name == "example.com" or name.endswith(".example.com"):
            self._warn(path, "example-host", "example.com is a placeholder: write the host of the API")

    def _check_authentication(self, authentication: _Node) -> None:
        kind = authentication.value.get("type")
        for key in _SECRETS:
            secret = authentication.value.get(key)
            if isinstance(secret, str) and secret and "{{" not in secret:
                message = f"the {key} is in the file: bind an environment variable, and write {{{{NAME}}}}"
                self._warn((*authentication.path, key), "no-secret", message)
        if kind == "basic":
            self._warn(authentication.path, "basic-authentication", "basic authentication sends the password each time")
        server = authentication.value.get("authorizationServerUri")
        if kind == "oauth2" and isinstance(server, str) and not server.startswith(("https://", "{{")):
            message = "the authorization server must be called by https"
            self._warn((*authentication.path, "authorizationServerUri"), "https", message, is_error=True)
        if kind == "oauth2" and not authentication.value.get("scopes"):
            self._warn(authentication.path, "oauth2-scopes", "the key 'scopes' is missing: ask only for what is needed")

    def _check_semantics(self, flow: _Node) -> None:
        """Report a flow that is said to change nothing, but calls an operation that does."""
        semantics = flow.value.get("semantics")
        if not isinstance(semantics, dict) or semantics.get("safe") is not True:
            return
        methods = self._read_methods()
        calls = [flow.value.get("call"), *(step.value.get("call") for step in _list_named(flow, "steps"))]
        for call in calls:
            if methods.get(str(call), "GET") in ("PUT", "PATCH", "DELETE"):
                message = f"the flow is `safe`, but {call!r} is a {methods[str(call)]}: remove `safe`"
                self._warn((*flow.path, "semantics"), "semantics", message)

    def _read_methods(self) -> Mapping[str, str]:
        return {
            f"{consumes.value.get('namespace')}.{operation.path[-1]}": str(operation.value.get("method", "GET"))
            for consumes in self._list_section("consumes")
            for resource in _list_named(consumes, "resources")
            for operation in _list_named(resource, "operations")
        }

    def _check_exposes(self, exposes: _Node) -> None:
        kind = exposes.value.get("type")
        authentication = _child(exposes, "authentication")
        self._check_authentication(authentication)
        if authentication.value and exposes.value.get("transport") == "stdio":
            message = "authentication does not apply to stdio: a client that starts the server is trusted"
            self._warn(authentication.path, "stdio-authentication", message)
        address = exposes.value.get("address")
        if isinstance(address, str) and "example.com" in address:
            self._warn((*exposes.path, "address"), "example-host", "example.com is a placeholder")
        if kind == "mcp":
            for tool in _list_named(exposes, "tools"):
                self._check_tool(tool)
        elif kind == "rest":
            for resource in _list_named(exposes, "resources"):
                self._check_description(resource, "resource")
                path = resource.value.get("path")
                if isinstance(path, str) and ("?" in path or (len(path) > 1 and path.endswith("/"))):
                    message = "the path must have no query and no slash at its end"
                    self._warn((*resource.path, "path"), "path-without-query", message)

    def _check_tool(self, tool: _Node) -> None:
        self._check_kebab(tool, "tool")
        if "ref" not in tool.value or "description" in tool.value:
            self._check_description(tool, "tool")
        method = self._read_methods().get(str(tool.value.get("call")), "GET")
        if method in ("PUT", "PATCH", "DELETE") and not tool.value.get("hints"):
            message = f"the tool calls a {method} and has no `hints`: say what it changes"
            self._warn(tool.path, "hints", message)
        for name in _list_named(tool, "inputParameters"):
            if _ADDRESSES.search(str(name.path[-1])):
                message = f"the input {name.path[-1]!r} may be an address that the API calls: limit it by `x-schema`"
                self._warn(name.path, "address-input", message)

    def _check_kebab(self, node: _Node, kind: str) -> None:
        if not _KEBAB.fullmatch(str(node.path[-1])):
            self._warn(node.path, "kebab-case", f"the {kind} {node.path[-1]!r} is not in small letters with dashes")


def _child(node: _Node, key: str) -> _Node:
    value = node.value.get(key)
    return _Node((*node.path, key), value if isinstance(value, dict) else {})


def _list_named(node: _Node, key: str) -> Iterator[_Node]:
    """Yield the mappings in a map of names."""
    for name, value in _child(node, key).value.items():
        if isinstance(value, dict):
            yield _Node((*node.path, key, name), value)
