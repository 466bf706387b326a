"""`completion/complete`: what may stand in an argument of a prompt or a resource template, from the platform.

What an argument names is derived, not declared twice. A template's variable has its `x-entity`; a prompt's argument
has choices of its own (`x-schema`), or means what the argument of that name (or that its name ends with: `toITwinId`)
means in the tools that the prompt quotes, or else in any tool: an entity, or an enum. Values come from the tools that
list the entity.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anyio
import mcp.types as t
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError

from itwin_mcp.capability.catalog import Catalog, ToolArgument
from itwin_mcp.errors import CallError
from itwin_mcp.executor.conversation import Caller
from itwin_mcp.executor.executor import Executor
from itwin_mcp.executor.names import entity_id

logger = logging.getLogger(__name__)

MOST_VALUES = 100
MOST_SECONDS = 5.0
REMEMBERED_SECONDS = 60.0
MOST_REMEMBERED = 500
MOST_CHARACTERS = 255

_LABELS = ("displayName", "name", "index", "deviceName")
_IN_AN_ID = re.compile(r"[0-9a-fA-F-]{4,}")
_AN_ID = re.compile(r"[0-9a-fA-F]{8}[0-9a-fA-F-]*")
"""What can only be the beginning of an id; a shorter part of one may as well be a year in a name, and is searched."""


@dataclass(frozen=True, slots=True)
class Source:
    """A tool that lists an entity: what it must be given, its argument that searches, and where its items are."""

    tool: str
    items: str
    within: tuple[str, ...] = ()
    search: str | None = None


SOURCES: Mapping[str, tuple[Source, ...]] = {
    "itwin": (Source("list-recent-itwins", "iTwins"), Source("list-itwins", "iTwins", search="search")),
    "imodel": (Source("list-imodels", "iModels", ("iTwinId",), "search"),),
    "named-version": (Source("list-named-versions", "namedVersions", ("iModelId",), "search"),),
    "changeset": (Source("list-changesets", "changesets", ("iModelId",)),),
    "briefcase": (Source("list-briefcases", "briefcases", ("iModelId",)),),
    "changeset-group": (Source("list-changeset-groups", "changesetGroups", ("iModelId",)),),
    "user": (Source("list-imodel-users", "users", ("iModelId",)),),
    "share": (Source("list-shares", "shares", ("iModelId",)),),
    "export": (Source("list-exports", "exports"),),
    "repository": (
        Source("list-repositories", "repositories", ("iTwinId",)),
        Source("list-global-repositories", "repositories"),
    ),
    "resource": (
        Source("list-repository-resources", "resources", ("iTwinId", "repositoryId"), "search"),
        Source("list-global-repository-resources", "resources", ("repositoryId",), "search"),
    ),
}
"""Of several, the first that can be asked with what the prompt or template has; with a text, one that searches."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """One argument under completion: what names it could hold, what was typed, and the arguments beside it."""

    names: Sequence[str]
    typed: str
    beside: Mapping[str, str]
    ids: bool
    """Whether only ids may stand there, as in a URI."""
    caller: Caller


class Completions:
    """Completions for one server; what is remembered for a minute is kept by caller."""

    def __init__(
        self,
        catalog: Catalog,
        executor: Executor,
        caller: Callable[[], Caller],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._catalog = catalog
        self._executor = executor
        self._caller = caller
        self._clock = clock
        self._answers: OrderedDict[tuple[str, ...], tuple[float, dict[str, Any]]] = OrderedDict()
        self._ids: OrderedDict[tuple[str, str, str], str] = OrderedDict()

    async def complete(self, _: ServerRequestContext[Any], params: t.CompleteRequestParams) -> t.CompleteResult:
        """The values that fit what was typed, a hundred at most; where the platform fails, none and a log line."""
        name, typed = params.argument.name, params.argument.value.strip()[:MOST_CHARACTERS]
        beside = dict((params.context.arguments if params.context is not None else None) or {})
        beside.pop(name, None)
        if isinstance(params.ref, t.PromptReference):
            entity, choices, names = self._in_prompt(params.ref.name, name)
            ids = False
        else:
            entity, names = self._in_template(params.ref.uri, name)
            choices, ids = (), True
        if entity is None:
            fitting = [choice for choice in choices if typed.lower() in choice.lower()]
            return _result(fitting, len(fitting), more=False)
        asked = _Asked(names, typed, beside, ids, self._caller())
        found: t.CompleteResult | None = None
        try:
            with anyio.move_on_after(MOST_SECONDS):
                found = await self._from_platform(entity, asked)
        except CallError as error:
            logger.warning("No completions for %s: %s", name, error.code)
            return _result([], 0, more=False)
        if found is None:
            logger.warning("No completions for %s: the platform took longer than %g s", name, MOST_SECONDS)
        return found or _result([], 0, more=False)

    # --- what an argument means ---------------------------------------------------------------------------------

    def _in_prompt(self, prompt_name: str, name: str) -> tuple[str | None, Sequence[str], Sequence[str]]:
        prompt = self._catalog.prompts.get(prompt_name)
        names = [argument for argument, _, _, _ in prompt.arguments] if prompt is not None else []
        if prompt is None or name not in names:
            raise MCPError(t.INVALID_PARAMS, "There is no such prompt, or it has no such argument.")
        if name in prompt.choices:
            return None, prompt.choices[name], names
        quoted = [tool for tool in self._catalog.reachable.values() if tool.name in prompt.quoted]
        for tools in (quoted, self._catalog.reachable.values()):
            for fits in (str.__eq__, _ends_with):
                for one in (one for tool in tools for one in tool.arguments if fits(name, one.name)):
                    choices = _choices(one)
                    if one.entity is not None or choices:
                        return one.entity, choices, names
        return None, (), names

    def _in_template(self, uri: str, name: str) -> tuple[str | None, Sequence[str]]:
        resource = next((one for one in self._catalog.resources if one.uri == uri), None)
        if resource is None or name not in resource.variables:
            raise MCPError(t.INVALID_PARAMS, "There is no such resource template, or it has no such variable.")
        return resource.entities.get(name), resource.variables

    # --- values -------------------------------------------------------------------------------------------------

    async def _from_platform(self, entity: str, asked: _Asked) -> t.CompleteResult:
        found: t.CompleteResult | None = None
        if asked.typed and not _AN_ID.fullmatch(asked.typed):
            found = await self._listed(entity, asked, searches=True)
        if found is None or (not found.completion.values and _IN_AN_ID.fullmatch(asked.typed)):
            found = await self._listed(entity, asked, searches=False)
        return found

    async def _listed(self, entity: str, asked: _Asked, *, searches: bool) -> t.CompleteResult:
        source = self._source(entity, asked, searches=searches)
        given = await self._given(source, asked) if source is not None else None
        if source is None or given is None:
            return _result([], 0, more=False)
        searched = searches and source.search is not None
        if searches and source.search is not None:
            given[source.search] = asked.typed
        answer = await self._ask(source.tool, given, asked.caller)
        values = list(self._values(entity, answer.get(source.items) or (), asked))
        page = answer.get("page") or {}
        complete = page.get("complete", True)
        total = page.get("total") if searched or not asked.typed else None
        return _result(values, len(values) if complete else total, more=not complete)

    def _source(self, entity: str, asked: _Asked, *, searches: bool) -> Source | None:
        usable = [
            source
            for source in SOURCES.get(entity, ())
            if source.tool in self._catalog.reachable
            and all(name in asked.names or name == "iTwinId" for name in source.within)
        ]
        if any(set(source.within) <= set(asked.names) for source in usable):
            usable = [source for source in usable if set(source.within) <= set(asked.names)]
        searching = [source for source in usable if source.search is not None]
        return next(iter(searching if searches and searching else usable), None)

    async def _given(self, source: Source, asked: _Asked) -> dict[str, Any] | None:
        """The arguments that a source needs; None where they are not known."""
        given: dict[str, Any] = {}
        for name in source.within:
            entity = "itwin" if name == "iTwinId" else "imodel" if name == "iModelId" else "repository"
            text = asked.beside.get(name)
            if text is None and name == "iTwinId" and name not in asked.names:
                found: str | None = await self._latest_itwin(asked.caller)
            else:
                found = self._id(entity, name, text, asked.caller) if text else None
            if found is None:
                return None
            given[name] = found
        return given

    async def _latest_itwin(self, caller: Caller) -> str | None:
        """The iTwin that the caller used last, where nothing says in which one to look; one more request."""
        if "list-recent-itwins" not in self._catalog.reachable:
            return None
        recent = await self._ask("list-recent-itwins", {}, caller)
        return next((str(one["id"]) for one in recent.get("iTwins") or () if one["id"] is not None), None)

    def _id(self, entity: str, name: str, text: str, caller: Caller) -> str | None:
        """The id of what an argument beside names: an id, a link, or a name that was offered before."""
        offered = self._ids.get((caller.key, entity, text))
        if offered is not None:
            return offered
        try:
            return entity_id(text, entity, name)
        except CallError:
            return None

    async def _ask(self, name: str, arguments: dict[str, Any], caller: Caller) -> dict[str, Any]:
        tool = self._catalog.reachable[name]
        if any(one.name == "limit" for one in tool.arguments):
            arguments = arguments | {"limit": MOST_VALUES}
        key = (caller.key, name, json.dumps(arguments, sort_keys=True))
        kept = self._answers.get(key)
        if kept is not None and kept[0] > self._clock():
            return kept[1]
        answer = await self._executor.call(tool, arguments, caller=caller)
        self._answers[key] = (self._clock() + REMEMBERED_SECONDS, answer)
        _trim(self._answers)
        return answer

    def _values(self, entity: str, items: Iterable[Mapping[str, Any]], asked: _Asked) -> Iterator[str]:
        """What fits: the name of a thing, or its id for whoever typed a part of that."""
        typed = asked.typed.lower()
        labelled = [(str(item.get("id") or ""), _label(item), item) for item in items]
        labels = [label for _, label, _ in labelled]
        for identity, label, item in labelled:
            texts = [label, *(str(item[key]) for key in ("number", "description") if item.get(key))]
            named = any(typed in text.lower() for text in texts)
            if not identity or not (named or typed in identity.lower()):
                continue
            if asked.ids or not named or not _sayable(label) or labels.count(label) > 1:
                yield identity
            else:
                self._ids[asked.caller.key, entity, label] = identity
                _trim(self._ids)
                yield label


def _label(item: Mapping[str, Any]) -> str:
    return next((str(item[key]) for key in _LABELS if item.get(key) is not None), "")


def _sayable(text: str) -> bool:
    """Whether a name can be offered as it is: other people's words, put into a person's prompt."""
    return bool(text.strip()) and len(text) <= MOST_CHARACTERS and text.isprintable()


def _choices(argument: ToolArgument) -> Sequence[str]:
    items = argument.schema.get("items")
    found = argument.schema.get("enum") or (items.get("enum") if isinstance(items, dict) else None) or ()
    return [choice for choice in found if isinstance(choice, str)]


def _ends_with(name: str, other: str) -> bool:
    """Whether a name is another with a word before it: `toITwinId` and `iTwinId`."""
    return len(other) > 3 and name != other and name.endswith(other[0].upper() + other[1:])


def _trim(kept: OrderedDict[Any, Any]) -> None:
    while len(kept) > MOST_REMEMBERED:
        kept.popitem(last=False)


def _result(values: Sequence[str], total: int | None, *, more: bool) -> t.CompleteResult:
    shown = list(dict.fromkeys(values))
    return t.CompleteResult(
        completion=t.Completion(values=shown[:MOST_VALUES], total=total, has_more=more or len(shown) > MOST_VALUES)
    )
