"""Reads a policy file as strictly as a capability file, and reports every problem with its line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from itwin_mcp.capability.catalog import Catalog, Tool
from itwin_mcp.capability.documents import YamlPath, find_line, parse_text, read_text
from itwin_mcp.capability.schema_errors import MISPLACED_KEY, explain_error
from itwin_mcp.errors import CapabilityError, PolicyError, Problem
from itwin_mcp.executor.names import extract_id
from itwin_mcp.executor.policy.rules import ALL, READ_ONLY, TOOLSET, Policy, PreApproval, Rule
from itwin_mcp.text import find_similar, shorten, suggest

Words = Annotated[list[str], Field(min_length=1)]


class _Closed(BaseModel):
    """The base of all parts of the file: strict types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Tools(_Closed):
    allow: list[str]
    deny: list[str] = []


class _PreApproved(_Closed):
    tools: Words
    itwins: Words
    per_hour: int = Field(alias="per-hour", ge=1)


class _Entry(_Closed):
    itwins: Any
    """`all`, or a list of ids and links."""
    tools: _Tools
    create_itwins: bool | None = Field(default=None, alias="create-itwins")
    writes_per_hour: int | None = Field(default=None, alias="writes-per-hour", ge=0)
    pre_approved: list[_PreApproved] = Field(default=[], alias="pre-approved")


class _Caller(_Entry):
    issuer: str = Field(min_length=1)
    subject: str | None = Field(default=None, min_length=1)
    groups: Words | None = None


class _File(_Closed):
    version: Literal[1] = Field(alias="itwin-mcp-policy")
    default: _Entry | None = None
    callers: list[_Caller] = []


_MODELS: Sequence[type[_Closed]] = (_File, _Caller, _Tools, _PreApproved)
_KEYS = sorted({field.alias or name for model in _MODELS for name, field in model.model_fields.items()})


def read_policy(file: Path, catalog: Catalog, issuer: str | None = None) -> Policy:
    """Read a policy file. Raises PolicyError with every problem in it.

    `catalog` has all existing tools; `issuer` is the issuer whose tokens a hosted server accepts.
    """
    try:
        text = read_text(file)
        data = parse_text(file, text)
    except CapabilityError as error:
        raise PolicyError(error.problems) from None
    try:
        model = _File.model_validate(data)
    except ValidationError as error:
        raise PolicyError([_build_problem(file, text, item) for item in error.errors(include_url=False)]) from None
    reader = _Reader(file, text, catalog, issuer)
    policy = reader.build_policy(model)
    if reader.problems:
        raise PolicyError(reader.problems)
    return policy


def _build_problem(file: Path, text: str, item: Any) -> Problem:
    path: YamlPath = item["loc"]
    if item["type"] == "extra_forbidden":
        rule, key = "known-key", str(path[-1])
        similar = find_similar(key, _KEYS)
        advice = f"did you mean {similar[0]!r}?" if similar else "leave it out"
        message = MISPLACED_KEY.format(key) if key in _KEYS else f"unknown key {shorten(key)!r}: {advice}"
    else:
        rule, message = explain_error(item, path)
        where = shorten(".".join(str(part) for part in path), 200)
        message = shorten(message, 400) + (f" (at {where})" if where else "")
    return Problem(str(file), find_line(text, path), rule, message)


class _Reader:
    """Builds the policy from a checked model, and collects the problems of entries that do not fit the tools."""

    def __init__(self, file: Path, text: str, catalog: Catalog, issuer: str | None) -> None:
        self.problems: list[Problem] = []
        self._file, self._text, self._issuer = file, text, issuer
        self._tools, self._itwin = catalog.every_tool, catalog.entities["itwin"]
        self._toolsets = sorted({tool.toolset for tool in catalog.every_tool.values()})

    def build_policy(self, model: _File) -> Policy:
        """Build the policy from the checked file. Entries that do not fit are added to `problems`."""
        default = self._build_rule(model.default, ("default",)) if model.default is not None else None
        callers = tuple(self._build_rule(entry, ("callers", index)) for index, entry in enumerate(model.callers))
        self._check_reached(callers)
        return Policy(self._file.name, default, callers)

    def _check_reached(self, callers: Sequence[Rule]) -> None:
        """Report each entry that never applies, because earlier entries name all its callers."""
        first: dict[tuple[str | None, str, str], str] = {}
        for index, rule in enumerate(callers):
            identities = [(rule.issuer, "group", group) for group in rule.groups]
            if rule.subject is not None:
                identities = [(rule.issuer, "subject", rule.subject)]
            if identities and first.keys() >= set(identities):
                places = " and ".join(sorted({first[identity] for identity in identities}))
                message = f"never counts, for the first entry does: all its callers are named before ({places})"
                self._report(("callers", index), "caller", message)
            for identity in identities:
                first.setdefault(identity, rule.place("entry"))

    def _build_rule(self, entry: _Entry, path: YamlPath) -> Rule:
        keys = ("itwins", "tools", "create-itwins", "writes-per-hour")
        places = {"entry": self._place(path), **{key: self._place((*path, key)) for key in keys}}
        itwins = self._read_itwins(entry.itwins, (*path, "itwins"))
        allow = dict(self._read_words(entry.tools.allow, (*path, "tools", "allow")))
        deny = dict(self._read_words(entry.tools.deny, (*path, "tools", "deny")))
        rule = Rule(
            places,
            itwins,
            create_itwins=entry.create_itwins if entry.create_itwins is not None else itwins is None,
            allow=allow,
            deny={**dict(self._find_equivalents(deny, allow)), **deny},
            writes_per_hour=entry.writes_per_hour,
            **self._read_callers(entry, path),
        )
        pre_approved = [
            self._read_pre_approval(item, rule, (*path, "pre-approved", index))
            for index, item in enumerate(entry.pre_approved)
        ]
        return replace(rule, pre_approved=tuple(pre_approved))

    def _read_callers(self, entry: _Entry, path: YamlPath) -> dict[str, Any]:
        if not isinstance(entry, _Caller):
            return {}
        if (entry.subject is None) == (entry.groups is None):
            self._report(path, "caller", "an entry names its callers by either 'subject' or 'groups'")
        if self._issuer is not None and entry.issuer != self._issuer:
            only = f"this server takes tokens of {self._issuer!r} alone (ITWIN_MCP_AUTH_ISSUER)"
            self._report((*path, "issuer"), "caller", f"{shorten(entry.issuer)!r} names no caller: {only}")
        return {"issuer": entry.issuer, "subject": entry.subject, "groups": frozenset(entry.groups or ())}

    def _read_itwins(self, value: Any, path: YamlPath) -> frozenset[str] | None:
        """Return the ids in `all` (None) or a list of ids and links. Report anything else."""
        if value == ALL:
            return None
        if not isinstance(value, list):
            self._report(path, "type", f"must be {ALL!r}, or a list of ids")
            return frozenset()
        itwins = set[str]()
        for index, text in enumerate(value):
            identifier = extract_id(text, self._itwin) if isinstance(text, str) else None
            if identifier is None:
                label = repr(shorten(text)) if isinstance(text, str) else "this"
                self._report((*path, index), "itwin", f"{label} is neither the id of an iTwin nor a link to one")
            else:
                itwins.add(identifier)
        return frozenset(itwins)

    def _read_words(self, words: Sequence[str], path: YamlPath) -> Iterator[tuple[str, str]]:
        """Yield each word of `allow` or `deny` with its line. Report unknown tools and toolsets."""
        for index, word in enumerate(words):
            word_path = (*path, index)
            toolset = word.removeprefix(TOOLSET)
            if word.startswith(TOOLSET):
                if toolset not in self._toolsets:
                    self._report_unknown(word_path, "toolset", toolset, self._toolsets)
            elif word not in (ALL, READ_ONLY) and word not in self._tools:
                self._report_unknown(word_path, "tool", word, self._tools)
            yield word, self._place(word_path)

    def _find_equivalents(self, deny: Mapping[str, str], allow: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        """Yield each tool that has the effect of a denied tool, and why, except those that are allowed by name.

        These are the tools that send every write of the denied one, and those that `x-confirm` declares as `alike`,
        with the destructive tools that send every write of those.
        """
        keys = {
            name: frozenset(operation.key for operation in tool.operations if operation.method != "GET")
            for name, tool in self._tools.items()
        }
        for denied, place in deny.items():
            denied_keys = keys.get(denied, frozenset())
            for name in keys.keys() - allow.keys():
                if denied_keys and denied_keys <= keys[name]:
                    yield name, f"{place} denies {denied}, which sends the same"
                elif self._tools[name].annotations.destructive and any(
                    keys[other] <= keys[name] for other in self._find_alike(denied)
                ):
                    yield name, f"{place} denies {denied}, which does the same"

    def _find_alike(self, denied: str) -> Iterator[str]:
        """Yield the tools that name this one in `alike`, and those that it names."""
        for name, tool in self._tools.items():
            alike = tool.confirm.alike if tool.confirm is not None else frozenset()
            if denied in alike:
                yield name
            elif name == denied:
                yield from alike & self._tools.keys()

    def _read_pre_approval(self, item: _PreApproved, rule: Rule, path: YamlPath) -> PreApproval:
        for index, name in enumerate(item.tools):
            tool_path = (*path, "tools", index)
            tool = self._tools.get(name)
            is_group = name in (ALL, READ_ONLY) or name.startswith(TOOLSET)
            if tool is None and not is_group:
                self._report_unknown(tool_path, "tool", name, self._tools)
            elif problem := _explain_unapprovable(rule, tool):
                self._report(tool_path, "pre-approved", f"{name!r} {problem}")
        itwins = self._read_itwins(item.itwins, (*path, "itwins")) or frozenset()
        for itwin in sorted(itwins - (rule.itwins if rule.itwins is not None else itwins)):
            self._report((*path, "itwins"), "pre-approved", f"{itwin} is none of the iTwins of this entry")
        return PreApproval(self._place(path), frozenset(item.tools), itwins, item.per_hour)

    def _place(self, path: YamlPath) -> str:
        return f"{self._file.name}:{find_line(self._text, path)}"

    def _report_unknown(self, path: YamlPath, noun: str, name: str, candidates: Iterable[str]) -> None:
        self._report(path, noun, f"there is no {noun} {shorten(name)!r}: {suggest(candidates, name)}")

    def _report(self, path: YamlPath, rule: str, message: str) -> None:
        self.problems.append(Problem(str(self._file), find_line(self._text, path), rule, message))


def _explain_unapprovable(rule: Rule, tool: Tool | None) -> str | None:
    """Return why a policy entry cannot approve a tool beforehand; None if it can. A group of tools is None."""
    if tool is None:
        return "is no tool: what is approved beforehand is named one by one"
    allowed, place = rule.allows(tool)
    reasons = (
        (not allowed, f"is not allowed in this entry ({place})"),
        (tool.annotations.read_only, "changes nothing: it needs no approval, leave it out"),
        (
            not tool.writes,
            "changes nothing on the platform, and a policy approves nothing on this machine: leave it out",
        ),
        (
            tool.confirm is None,
            "asks nobody, so that there is nothing to approve: leave it out; writes-per-hour bounds it",
        ),
    )
    return next((reason for applies, reason in reasons if applies), None)
