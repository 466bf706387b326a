"""Writes a capability file for chosen operations of an OpenAPI definition."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

from itwin_mcp.capability.commented_yaml import Commented, write_yaml
from itwin_mcp.capability.openapi_import.definition import ApiOperation, Definition, as_text
from itwin_mcp.capability.openapi_import.drafts import Draft, DraftReader, NotExpressible
from itwin_mcp.capability.openapi_import.entity_guesses import EntityGuesser
from itwin_mcp.capability.openapi_import.job_patterns import find_handle_header, find_id, find_states, write_wait
from itwin_mcp.capability.openapi_import.page_patterns import find_paging
from itwin_mcp.capability.openapi_import.schemas import write_path
from itwin_mcp.capability.openapi_import.security_schemes import choose_authentication
from itwin_mcp.capability.openapi_import.wording import (
    describe,
    make_kebab,
    make_singular,
    make_unique,
)
from itwin_mcp.errors import SettingsError
from itwin_mcp.settings import PLATFORM_ORIGIN
from itwin_mcp.text import suggest

_BASE_URI = re.compile(r"https?://[^/{}\s?#@\\]+(/[^{}\s?#\\]*)?")
_VERBS = {"post": "create", "put": "replace", "patch": "update", "delete": "delete"}
MIN_DESCRIPTION = 20
_PAGE_ARGUMENTS = ("limit", "cursor", "fields")
_NAMESPACE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Choice:
    """The operations to import: by id or `METHOD /path`, by tag, and by the beginning or pattern of their path."""

    operations: Sequence[str] = ()
    tags: Sequence[str] = ()
    paths: Sequence[str] = ()
    everything: bool = False

    def names(self, operation: ApiOperation) -> bool:
        """Return whether an operation is chosen by its own name."""
        return operation.id in self.operations or operation.label in self.operations

    def takes(self, operation: ApiOperation) -> bool:
        """Return whether an operation is chosen. A deprecated one is imported only if it is chosen by its name."""
        by_path = any(operation.path == path or _matches(operation.path, path) for path in self.paths)
        return self.everything or self.names(operation) or by_path or bool({*self.tags} & {*operation.tags})


@dataclass(frozen=True, slots=True)
class UsedNames:
    """The names that other files use, which a new file must not use again."""

    tools: Collection[str] = ()
    namespaces: Collection[str] = ()
    entities: Collection[str] = ()


@dataclass(slots=True)
class ImportedFile:
    """The capability file, its tools, and what it cannot say: pairs of an operation and a sentence."""

    text: str = ""
    tools: list[str] = field(default_factory=list)
    namespace: str = ""
    report: list[tuple[str, str]] = field(default_factory=list)

    def add(self, subject: str, text: str) -> None:
        """Add to the report, each sentence once."""
        if (subject, text) not in self.report:
            self.report.append((subject, text))


def _matches(path: str, wanted: str) -> bool:
    """Return whether a path begins with the segments of another, or matches its pattern with `*`."""
    return fnmatchcase(path, wanted) if "*" in wanted else path.startswith(f"{wanted.rstrip('/')}/")


def choose_operations(definition: Definition, choice: Choice) -> list[ApiOperation]:
    """Return the chosen operations.

    Raises:
        SettingsError: A name, tag or path of the choice matches nothing.
    """
    names = {operation.id or operation.label for operation in definition.operations}
    labels = {operation.label for operation in definition.operations}
    for name in choice.operations:
        if name not in names | labels:
            raise SettingsError(f"There is no operation {name!r}: {suggest(names, name)}")
    tags = {tag for operation in definition.operations for tag in operation.tags}
    for tag in choice.tags:
        if tag not in tags:
            raise SettingsError(f"There is no tag {tag!r}: {suggest(tags, tag)}")
    paths = {operation.path for operation in definition.operations}
    for path in choice.paths:
        if path not in paths and not any(_matches(each, path) for each in paths):
            raise SettingsError(f"No path begins with {path!r}: {suggest(paths, path)}")
    return [operation for operation in definition.operations if choice.takes(operation)]


def import_operations(
    definition: Definition,
    choice: Choice,
    taken: UsedNames,
    *,
    namespace: str | None = None,
    base_uri: str | None = None,
) -> ImportedFile:
    """Return a capability file that makes a tool from each chosen operation.

    Raises:
        SettingsError: The choice or the namespace cannot be used, no server is known, or nothing can be expressed.
    """
    importer = _Importer(definition, taken, namespace, base_uri)
    chosen = choose_operations(definition, choice)
    for operation in chosen:
        if operation.deprecated and not choice.names(operation):
            importer.file.add(operation.label, "is not imported: it is deprecated, and not chosen by its name")
    return importer.run([operation for operation in chosen if not operation.deprecated or choice.names(operation)])


class _Importer:
    def __init__(self, definition: Definition, taken: UsedNames, namespace: str | None, base_uri: str | None) -> None:
        self._definition = definition
        self._taken = taken
        self.file = ImportedFile()
        if namespace is not None and not _NAMESPACE.fullmatch(namespace):
            raise SettingsError(f"The namespace {namespace!r} must be small letters and digits with dashes between.")
        if namespace is not None and {namespace, f"{namespace}-api"} & {*taken.namespaces}:
            raise SettingsError(f"The namespace {namespace!r} is used by our own files: choose another one.")
        free = make_kebab(definition.title)[:40].strip("-") or "api"
        while {free, f"{free}-api"} & {*taken.namespaces}:
            free = f"my-{free}"
        self._namespace = self.file.namespace = namespace or free
        base = base_uri or definition.find_server()
        if base is None:
            raise SettingsError("The definition names no server with a whole URL: give it with --base-uri.")
        if not _BASE_URI.fullmatch(base):
            raise SettingsError(f"{base!r} is not an HTTP URL without query, user and braces.")
        parts = urlsplit(base)
        self._origin, self._base_path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
        self._is_platform = self._origin.lower() == PLATFORM_ORIGIN
        self._reader = DraftReader(definition, self.file.add)

    def run(self, operations: Sequence[ApiOperation]) -> ImportedFile:
        drafts = self._read_drafts(operations)
        if not drafts:
            reasons = "; ".join(f"{subject}: {text}" for subject, text in self.file.report) or "no operation was chosen"
            raise SettingsError(f"Nothing can be imported. {reasons}.")
        for draft in drafts:
            self._find_paging(draft)
        guesser = EntityGuesser(
            self._reader.received, self._base_path, self._namespace, self._taken.entities, is_platform=self._is_platform
        )
        guesser.guess(drafts)
        for draft in drafts:
            self._find_job(draft, drafts)
        for draft in drafts:
            self._avoid_added_arguments(draft)
        for label in self._definition.unserved:
            self.file.add(label, "is not imported: a capability file has no such method")
        if self._definition.has_webhooks:
            self.file.add("webhooks", "are not received: a capability file only sends requests")
        self.file.tools = [draft.tool for draft in drafts]
        self.file.text = write_yaml(self._build_file(drafts, guesser.entities), self._write_heading())
        return self.file

    # --- drafts -------------------------------------------------------------------------------------------------

    def _read_drafts(self, operations: Sequence[ApiOperation]) -> list[Draft]:
        drafts: list[Draft] = []
        names: set[str] = set()
        tools: set[str] = set(self._taken.tools)
        for operation in operations:
            name = make_unique(make_kebab(operation.id) or _name_operation(operation), names)
            tool = name if name not in tools else f"{self._namespace}-{name}"[:60].strip("-")
            tool = make_unique(tool, tools)
            try:
                draft = self._reader.read(operation, name, tool)
            except NotExpressible as error:
                self.file.add(operation.label, f"is not imported: {error}")
                continue
            names.add(name)
            tools.add(tool)
            drafts.append(draft)
            if tool != name:
                self.file.add(operation.label, f"is called {tool!r}, because {name!r} is the name of another tool")
        return drafts

    def _find_paging(self, draft: Draft) -> None:
        if draft.operation.method != "get" or draft.answer is None:
            return
        segment = f"{self._base_path}{draft.path}".rstrip("/").rpartition("/")[2]
        draft.page = find_paging(
            self._reader.received,
            draft.answer,
            draft.parameters,
            segment,
            lambda text: self.file.add(draft.operation.label, text),
        )
        if draft.page is None:
            return
        draft.comments.append(draft.page.comment)
        for name in draft.page.driven:
            draft.drop_argument(name)
        for name in draft.page.driven - {draft.page.page.get(role) for role in ("size", "skip", "token")}:
            del draft.inputs[name]
        # The engine follows the pages, and reports the total.
        draft.output["properties"].pop("_links", None)
        for role in ("next", "count"):
            _remove_output(draft.output, draft.page.page.get(role))

    def _find_job(self, draft: Draft, drafts: Sequence[Draft]) -> None:
        """Make the tool wait, if the operation plainly starts a job whose state another one shows."""
        if draft.operation.method == "get" or draft.status not in ("201", "202"):
            return
        reader = self._reader.received
        own = find_states(reader, draft.answer) if draft.answer is not None else None
        if draft.status == "201" and (own is None or own.unknown):
            return
        header = find_handle_header(draft.response)
        polls = [
            (poll, states)
            for poll in drafts
            if poll.operation.method == "get" and poll.answer is not None and _has_slot_after(poll, draft)
            if (states := find_states(reader, poll.answer)) is not None
        ]
        body = find_id(reader, draft.answer, own.path if own is not None else None) if draft.answer else None
        if len(polls) != 1 or (header is None and body is None):
            if draft.status == "202":
                why = "no chosen operation shows its state" if not polls else "it is not plain where its state is"
                self.file.add(draft.operation.label, f"answers 202 (accepted), but {why}: the tool does not wait")
            return
        poll, states = polls[0]
        slot = poll.path.rpartition("{{")[2].rstrip("}")
        place = {"header": header} if header is not None else {"body": write_path(*(body or ())) or "$.id"}
        handle = {**place, "as": poll.bindings[slot], **({"in": slot} if poll.path.count("{{") > 1 else {})}
        api = f"{self._namespace}-api"
        subject = make_singular(make_kebab(poll.path.rpartition("/{{")[0].rpartition("/")[2] or self._namespace))
        subject = f"The {subject.replace('-', ' ')}"
        draft.wait = write_wait(states, handle, f"{api}.{poll.name}", poll.tool, subject)
        draft.output = poll.output
        draft.comments.append("Waits until the job has ended. The states are sorted by their names.")
        if states.unknown:
            draft.comments.append(f"In no list, and so awaited: {', '.join(states.unknown)}.")

    def _avoid_added_arguments(self, draft: Draft) -> None:
        """Rename arguments that are called like those which the engine adds to the tool."""
        added = [*(_PAGE_ARGUMENTS if draft.page is not None else ()), *(["wait"] if draft.wait is not None else ())]
        added += ["filePath"] if draft.file is not None else []
        for name in ("clear", *added):
            if name in draft.arguments:
                draft.rename_argument(name, f"{name}Value")
                self.file.add(draft.operation.label, f"its input {name!r} is the argument '{name}Value'")

    # --- the file -----------------------------------------------------------------------------------------------

    def _write_heading(self) -> str:
        title = " ".join(f"{self._definition.title} {self._definition.version}".split())
        return (
            f"Imported from {self._definition.name} ({title}) by `itwin-mcp capability import-openapi`.\n"
            "Comments with `review:` mark guesses: check them against the API, then remove the comment.\n"
            "`itwin-mcp capability words` explains the keys that begin with `x-`."
        )

    def _build_file(self, drafts: Sequence[Draft], entities: dict[str, dict[str, Any]]) -> dict[str, Any]:
        title = describe(self._definition.title, "API", 60).rstrip(".")
        description = describe(self._definition.description, f"The {title} API, as a capability.", 200)
        if len(description) < MIN_DESCRIPTION:
            description = f"{description.rstrip('.')}: operations of the {title} API."
        authentication, keys = choose_authentication(
            self._definition,
            [draft.operation for draft in drafts],
            self._namespace,
            is_platform=self._is_platform,
            has_authorization_header=any(draft.needs_bearer for draft in drafts),
            report=self.file.add,
        )
        file: dict[str, Any] = {
            "ikanos": "1.0.0-beta5",
            "info": {"display": title, "description": description, "version": "0.1.0", "tags": [self._namespace]},
        }
        if entities:
            file["x-entities"] = {
                kind: Commented(entity, f"review: guessed from the list {entity['list']!r}.")
                for kind, entity in entities.items()
            }
        if keys:
            file["binds"] = [{"namespace": f"{self._namespace}-environment", "keys": keys}]
        consumes: dict[str, Any] = {
            "type": "http",
            "namespace": f"{self._namespace}-api",
            "description": description,
            "baseUri": f"{self._origin}{'' if self._folds_base(drafts) else self._base_path}",
        }
        if authentication is not None:
            consumes["authentication"] = authentication
        consumes["resources"] = self._build_resources(drafts)
        exposes = {
            "type": "mcp",
            "transport": "stdio",
            "namespace": self._namespace,
            "description": description,
            "x-toolset": self._namespace,
            "tools": {draft.tool: self._build_tool(draft) for draft in drafts},
        }
        file["capability"] = {"consumes": [consumes], "exposes": [exposes]}
        return file

    def _folds_base(self, drafts: Sequence[Draft]) -> bool:
        """Return whether the path of the server is written into each path, because one of them is only `/`."""
        return bool(self._base_path) and any(draft.path == "/" for draft in drafts)

    def _build_resources(self, drafts: Sequence[Draft]) -> dict[str, Any]:
        folds = self._folds_base(drafts)
        if folds:
            self.file.add("GET /", f"the path / means {self._base_path} here, without a slash at its end")
        resources: dict[str, Any] = {}
        names: dict[str, str] = {}
        for draft in drafts:
            path = f"{self._base_path if folds else ''}{draft.path}"
            path = path.rstrip("/") if folds and draft.path == "/" else path
            if path not in names:
                names[path] = make_unique(_name_path(path, self._namespace), resources)
                resources[names[path]] = {
                    "description": f"Requests to {path.replace('{{', '{').replace('}}', '}')}.",
                    "path": path,
                    "operations": {},
                }
            resources[names[path]]["operations"][draft.name] = self._build_operation(draft)
        return resources

    def _build_operation(self, draft: Draft) -> Any:
        operation: dict[str, Any] = {
            "method": draft.operation.method.upper(),
            "description": _describe_operation(draft.operation, self._definition.title),
        }
        doc = as_text((draft.operation.node.get("externalDocs") or {}).get("url"))
        if doc.startswith("https://"):
            operation["x-doc"] = doc
        if draft.inputs:
            operation["inputParameters"] = draft.inputs
        if draft.body is not None:
            operation["body"] = draft.body
        if draft.file is not None:
            operation["x-body"] = draft.file
        if draft.page is not None:
            operation["x-page"] = dict(draft.page.page)
        if draft.wait is not None:
            operation["x-wait"] = draft.wait
        comment = "\n".join(f"review: {comment}" for comment in draft.comments)
        return Commented(operation, comment) if comment else operation

    def _build_tool(self, draft: Draft) -> dict[str, Any]:
        tool: dict[str, Any] = {
            "display": draft.tool.replace("-", " ").capitalize(),
            "description": _describe_operation(draft.operation, self._definition.title),
        }
        method = draft.operation.method
        if method != "get":
            tool["hints"] = {
                "readOnly": False,
                "destructive": method == "delete",
                "idempotent": method in ("put", "delete"),
            }
        if draft.arguments:
            tool["inputParameters"] = draft.arguments
        tool["call"] = f"{self._namespace}-api.{draft.name}"
        if draft.bindings:
            tool["with"] = {name: f"{self._namespace}.{argument}" for name, argument in draft.bindings.items()}
        tool["outputParameters"] = [draft.output]
        return tool


def _remove_output(output: dict[str, Any], path: str | None) -> None:
    """Remove the output that is read at a path such as `$.meta.next`, and an object that becomes empty by that."""
    first, _, others = (path or "").removeprefix("$.").partition(".")
    child = output["properties"].get(first)
    if child is None:
        return
    if others and child["type"] == "object":
        _remove_output(child, f"$.{others}")
    if not others or not child.get("properties", True):
        del output["properties"][first]


def _has_slot_after(poll: Draft, started: Draft) -> bool:
    """Return whether an operation reads one of the things that another creates: its path has one more slot."""
    return re.fullmatch(re.escape(started.path.rstrip("/")) + r"/\{\{[^{}]*\}\}", poll.path) is not None


def _describe_operation(operation: ApiOperation, title: str) -> str:
    """Return the summary, with more words if it has less than the 20 characters that a description should have."""
    label = f"Send {operation.label}".replace("{{", "{").replace("}}", "}")
    text = describe(operation.summary or operation.description, f"{label}.")
    more = describe(operation.description, "") if operation.summary and len(text) < MIN_DESCRIPTION else ""
    if len(more) > 1 and more != text:
        text = f"{text} {more}"
    if len(text) < MIN_DESCRIPTION:
        text = f"{text.rstrip('.')}, in {describe(title, 'this API', 60).rstrip('.')}."
    return text if len(text) >= MIN_DESCRIPTION else f"{label}, in this API."


def _name_operation(operation: ApiOperation) -> str:
    """Return a name for an operation without an id, such as `list-pets` for GET /pets."""
    words = [segment for segment in operation.path.split("/") if segment and "{" not in segment]
    is_item = operation.path.rstrip("/").endswith("}")
    verb = _VERBS.get(operation.method, "get" if is_item else "list")
    return make_kebab(
        "-".join([verb, *words[:-1], make_singular(words[-1]) if words and is_item else "".join(words[-1:])])
    )


def _name_path(path: str, fallback: str) -> str:
    words = [make_kebab(segment) for segment in path.split("/") if segment and "{{" not in segment]
    name = "-".join(word for word in words if word)[:50].strip("-") or fallback
    return f"{name}-item" if path.endswith("}}") else name
