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

    `catalog` is all that exists; `issuer` is the one whose tokens a hosted server accepts.
    """
    try:
        text = read_text(file)
        data = parse_text(file, text)
    except CapabilityError as error:
        raise PolicyError(error.problems) from None
    try:
        model = _File.model_validate(data)
    except ValidationError as error:
        raise PolicyError([_problem(file, text, item) for item in error.errors(include_url=False)]) from None
    reader = _Reader(file, text, catalog, issuer)
    policy = reader.policy(model)
    if reader.problems:
        raise PolicyError(reader.problems)
    return policy


def _problem(file: Path, text: str, item: Any) -> Problem:
    path: YamlPath = item["loc"]
    if item["type"] == "extra_forbidden":
        key = str(path[-1])
        if key in _KEYS:
            return Problem(str(file), find_line(text, path), "known-key", MISPLACED_KEY.format(key))
        close = find_similar(key, _KEYS)
        meant = f"did you mean {close[0]!r}?" if close else "leave it out"
        return Problem(str(file), find_line(text, path), "known-key", f"unknown key {shorten(key)!r}: {meant}")
    rule, message = explain_error(item, path)
    where = shorten(".".join(str(part) for part in path), 200)
    return Problem(str(file), find_line(text, path), rule, shorten(message, 400) + (f" (at {where})" if where else ""))


class _Reader:
    """Builds the policy from a checked model, and collects what does not fit the existing tools."""

    def __init__(self, file: Path, text: str, catalog: Catalog, issuer: str | None) -> None:
        self.problems: list[Problem] = []
        self._file, self._text, self._issuer = file, text, issuer
        self._tools, self._itwin = catalog.every_tool, catalog.entities["itwin"]
        self._toolsets = sorted({tool.toolset for tool in catalog.every_tool.values()})

    def policy(self, model: _File) -> Policy:
        """Build the policy from the checked file. Entries that do not fit are added to `problems`."""
        default = self._rule(model.default, ("default",)) if model.default is not None else None
        callers = tuple(self._rule(one, ("callers", index)) for index, one in enumerate(model.callers))
        self._check_reached(callers)
        return Policy(self._file.name, default, callers)

    def _check_reached(self, callers: Sequence[Rule]) -> None:
        """Report each entry whose callers are all named by earlier entries: it would never count."""
        first: dict[tuple[str | None, str, str], str] = {}
        for index, rule in enumerate(callers):
            by_subject = [] if rule.subject is None else [(rule.issuer, "subject", rule.subject)]
            named = by_subject or [(rule.issuer, "group", group) for group in rule.groups]
            if named and first.keys() >= set(named):
                places = " and ".join(sorted({first[one] for one in named}))
                message = f"never counts, for the first entry does: all its callers are named before ({places})"
                self._report(("callers", index), "caller", message)
            for one in named:
                first.setdefault(one, rule.place("entry"))

    def _rule(self, entry: _Entry, path: YamlPath) -> Rule:
        places = {"entry": self._place(path)}
        for key in ("itwins", "tools", "create-itwins", "writes-per-hour"):
            places[key] = self._place((*path, key))
        itwins = self._itwins(entry.itwins, (*path, "itwins"))
        allow = dict(self._words(entry.tools.allow, (*path, "tools", "allow")))
        deny = dict(self._words(entry.tools.deny, (*path, "tools", "deny")))
        rule = Rule(
            places,
            itwins,
            create_itwins=entry.create_itwins if entry.create_itwins is not None else itwins is None,
            allow=allow,
            deny={**dict(self._same_writes(deny, allow)), **deny},
            writes_per_hour=entry.writes_per_hour,
            **self._named(entry, path),
        )
        approved = [
            self._pre_approval(one, rule, (*path, "pre-approved", index))
            for index, one in enumerate(entry.pre_approved)
        ]
        return replace(rule, pre_approved=tuple(approved))

    def _named(self, entry: _Entry, path: YamlPath) -> dict[str, Any]:
        if not isinstance(entry, _Caller):
            return {}
        if (entry.subject is None) == (entry.groups is None):
            self._report(path, "caller", "an entry names its callers by either 'subject' or 'groups'")
        if self._issuer is not None and entry.issuer != self._issuer:
            only = f"this server takes tokens of {self._issuer!r} alone (ITWIN_MCP_AUTH_ISSUER)"
            self._report((*path, "issuer"), "caller", f"{shorten(entry.issuer)!r} names no caller: {only}")
        return {"issuer": entry.issuer, "subject": entry.subject, "groups": frozenset(entry.groups or ())}

    def _itwins(self, given: Any, path: YamlPath) -> frozenset[str] | None:
        if given == ALL:
            return None
        if not isinstance(given, list):
            self._report(path, "type", f"must be {ALL!r}, or a list of ids")
            return frozenset()
        found = set[str]()
        for index, text in enumerate(given):
            known = extract_id(text, self._itwin) if isinstance(text, str) else None
            if known is None:
                what = repr(shorten(text)) if isinstance(text, str) else "this"
                self._report((*path, index), "itwin", f"{what} is neither the id of an iTwin nor a link to one")
            else:
                found.add(known)
        return frozenset(found)

    def _words(self, given: Sequence[str], path: YamlPath) -> Iterator[tuple[str, str]]:
        for index, word in enumerate(given):
            here = (*path, index)
            toolset = word.removeprefix(TOOLSET)
            if word.startswith(TOOLSET):
                if toolset not in self._toolsets:
                    self._unknown(here, "toolset", toolset, self._toolsets)
            elif word not in (ALL, READ_ONLY) and word not in self._tools:
                self._unknown(here, "tool", word, self._tools)
            yield word, self._place(here)

    def _same_writes(self, deny: Mapping[str, str], allow: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        """Yield each tool that can do what a denied one does, and why, except those that are allowed by name.

        These are the tools that send every write of the denied one, and those that it is `alike` to in `x-confirm`,
        with the destructive tools that send every write of those.
        """
        sent = {name: _writes_of(tool) for name, tool in self._tools.items()}
        for denied, place in deny.items():
            changed = sent.get(denied, frozenset())
            for name in sent.keys() - allow.keys():
                if changed and changed <= sent[name]:
                    yield name, f"{place} denies {denied}, which sends the same"
                elif self._tools[name].annotations.destructive and any(
                    sent[other] <= sent[name] for other in self._alike(denied)
                ):
                    yield name, f"{place} denies {denied}, which does the same"

    def _alike(self, denied: str) -> Iterator[str]:
        """Return the tools that name this one in `alike`, and those that it names."""
        for name, tool in self._tools.items():
            named = tool.confirm.alike if tool.confirm is not None else frozenset()
            if denied in named:
                yield name
            elif name == denied:
                yield from named & self._tools.keys()

    def _pre_approval(self, given: _PreApproved, rule: Rule, path: YamlPath) -> PreApproval:
        for index, name in enumerate(given.tools):
            here = (*path, "tools", index)
            tool = self._tools.get(name)
            if name in (ALL, READ_ONLY) or name.startswith(TOOLSET):
                self._report(
                    here, "pre-approved", f"{name!r} is no tool: what is approved beforehand is named one by one"
                )
            elif tool is None:
                self._unknown(here, "tool", name, self._tools)
            elif not rule.allows(tool)[0]:
                self._report(here, "pre-approved", f"{name!r} is not allowed in this entry ({rule.allows(tool)[1]})")
            elif tool.annotations.read_only:
                self._report(here, "pre-approved", f"{name!r} changes nothing: it needs no approval, leave it out")
            elif not tool.writes:
                why = "changes nothing on the platform, and a policy approves nothing on this machine: leave it out"
                self._report(here, "pre-approved", f"{name!r} {why}")
            elif tool.confirm is None:
                why = "asks nobody, so that there is nothing to approve: leave it out; writes-per-hour bounds it"
                self._report(here, "pre-approved", f"{name!r} {why}")
        itwins = self._itwins(given.itwins, (*path, "itwins")) or frozenset()
        for one in sorted(itwins - (rule.itwins if rule.itwins is not None else itwins)):
            self._report((*path, "itwins"), "pre-approved", f"{one} is none of the iTwins of this entry")
        return PreApproval(self._place(path), frozenset(given.tools), itwins, given.per_hour)

    def _place(self, path: YamlPath) -> str:
        return f"{self._file.name}:{find_line(self._text, path)}"

    def _unknown(self, path: YamlPath, noun: str, name: str, known: Iterable[str]) -> None:
        self._report(path, noun, f"there is no {noun} {shorten(name)!r}: {suggest(known, name)}")

    def _report(self, path: YamlPath, rule: str, message: str) -> None:
        self.problems.append(Problem(str(self._file), find_line(self._text, path), rule, message))


def _writes_of(tool: Tool) -> frozenset[str]:
    return frozenset(operation.key for operation in tool.operations if operation.method != "GET")
