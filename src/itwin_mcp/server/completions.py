"""`completion/complete`: values from the platform for the arguments of prompts and resource templates.

The meaning of an argument is derived, so that it is declared only once. A template's variable has an `x-entity`. An
argument of a prompt either has choices of its own (`x-schema`), or means the same as the argument of that name in the
tools that the prompt quotes, or else in any tool: an entity, or an enum. A prefix is allowed: `toITwinId` means
`iTwinId`. Values come from the tools that list the entity.
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

from itwin_mcp.capability.catalog import Catalog, Tool, ToolArgument
from itwin_mcp.capability.entities import Entity
from itwin_mcp.capability.entity_declarations import ListingTool
from itwin_mcp.errors import CallError
from itwin_mcp.executor.context import Caller
from itwin_mcp.executor.names import require_id
from itwin_mcp.executor.outcome import Failure, Result
from itwin_mcp.executor.pipeline import Executor

logger = logging.getLogger(__name__)

MAX_VALUES = 100
MAX_SECONDS = 5.0
REMEMBERED_SECONDS = 60.0
MAX_REMEMBERED = 500
MAX_CHARACTERS = 255

_IN_AN_ID = re.compile(r"[0-9a-fA-F-]{4,}")
_AN_ID = re.compile(r"[0-9a-fA-F]{8}[0-9a-fA-F-]*")
"""Text that can only start an id. A shorter part of an id could be a year in a name, and is searched as text."""


@dataclass(frozen=True, slots=True)
class _Query:
    """One request: the names of all arguments, what was typed, and the values of the other arguments."""

    names: Sequence[str]
    typed: str
    others: Mapping[str, str]
    needs_ids: bool
    """Whether only ids are valid, as in a URI."""
    caller: Caller


class Completions:
    """The completions of one server. Answers are cached for a minute, per caller."""

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
        """Return up to a hundred values that match what was typed; none, and a log line, if the platform fails."""
        name, typed = params.argument.name, params.argument.value.strip()[:MAX_CHARACTERS]
        others = dict((params.context.arguments if params.context is not None else None) or {})
        others.pop(name, None)
        if isinstance(params.ref, t.PromptReference):
            entity, choices, names = self._resolve_in_prompt(params.ref.name, name)
            ids = False
        else:
            entity, names = self._resolve_in_template(params.ref.uri, name)
            choices, ids = (), True
        if entity is None:
            fitting = [choice for choice in choices if typed.lower() in choice.lower()]
            return _build_result(fitting, len(fitting), more=False)
        query = _Query(names, typed, others, ids, self._caller())
        found: t.CompleteResult | None = None
        try:
            with anyio.move_on_after(MAX_SECONDS):
                found = await self._complete(entity, query)
        except CallError as error:
            logger.warning("No completions for %s: %s", name, error.code)
            return _build_result([], 0, more=False)
        if found is None:
            logger.warning("No completions for %s: the platform took longer than %g s", name, MAX_SECONDS)
        return found or _build_result([], 0, more=False)

    # --- what an argument means ---------------------------------------------------------------------------------

    def _resolve_in_prompt(self, prompt_name: str, name: str) -> tuple[Entity | None, Sequence[str], Sequence[str]]:
        prompt = self._catalog.prompts.get(prompt_name)
        names = [argument for argument, _, _, _ in prompt.arguments] if prompt is not None else []
        if prompt is None or name not in names:
            raise MCPError(t.INVALID_PARAMS, "There is no such prompt, or it has no such argument.")
        if name in prompt.choices:
            return None, prompt.choices[name], names
        quoted = [tool for tool in self._catalog.reachable.values() if tool.name in prompt.quoted]
        for tools in (quoted, self._catalog.reachable.values()):
            for fits in (str.__eq__, _has_prefix_before):
                for one in (one for tool in tools for one in tool.arguments if fits(name, one.name)):
                    choices = _list_choices(one)
                    if one.entity is not None or choices:
                        return one.entity, choices, names
        return None, (), names

    def _resolve_in_template(self, uri: str, name: str) -> tuple[Entity | None, Sequence[str]]:
        resource = next((one for one in self._catalog.resources if one.uri == uri), None)
        if resource is None or name not in resource.variables:
            raise MCPError(t.INVALID_PARAMS, "There is no such resource template, or it has no such variable.")
        return resource.entities.get(name), resource.variables

    # --- values -------------------------------------------------------------------------------------------------

    async def _complete(self, entity: Entity, query: _Query) -> t.CompleteResult:
        found: t.CompleteResult | None = None
        if query.typed and not _AN_ID.fullmatch(query.typed):
            found = await self._complete_from_list(entity, query, searches=True)
        if found is None or (not found.completion.values and _IN_AN_ID.fullmatch(query.typed)):
            found = await self._complete_from_list(entity, query, searches=False)
        return found

    async def _complete_from_list(self, entity: Entity, query: _Query, *, searches: bool) -> t.CompleteResult:
        source = self._choose_source(entity, query, searches=searches)
        given = await self._fill_arguments(source, query) if source is not None else None
        if source is None or given is None:
            return _build_result([], 0, more=False)
        searched = searches and source.search is not None
        if searches and source.search is not None:
            given[source.search] = query.typed
        answer = await self._call(source.tool, given, query.caller)
        values = list(self._match(entity, answer.get(source.items) or (), query))
        page = answer.get("page") or {}
        complete = page.get("complete", True)
        total = page.get("total") if searched or not query.typed else None
        return _build_result(values, len(values) if complete else total, more=not complete)

    def _choose_source(self, entity: Entity, query: _Query, *, searches: bool) -> ListingTool | None:
        usable = []
        for source in entity.sources:
            missing = [name for name in source.within if name not in query.names]
            tool = self._catalog.reachable.get(source.tool)
            if tool is not None and all(self._find_recent(_find_entity(tool, name)) for name in missing):
                usable.append(source)
        if any(set(source.within) <= set(query.names) for source in usable):
            usable = [source for source in usable if set(source.within) <= set(query.names)]
        searching = [source for source in usable if source.search is not None]
        return next(iter(searching if searches and searching else usable), None)

    async def _fill_arguments(self, source: ListingTool, query: _Query) -> dict[str, Any] | None:
        """Return the arguments that a source needs, or None if one is unknown."""
        given: dict[str, Any] = {}
        for name in source.within:
            entity = _find_entity(self._catalog.reachable[source.tool], name)
            text = query.others.get(name)
            if text is None and name not in query.names:
                found: str | None = await self._find_latest(entity, query.caller)
            else:
                found = self._resolve_id(entity, name, text, query.caller) if text else None
            if found is None:
                return None
            given[name] = found
        return given

    def _find_recent(self, entity: Entity) -> ListingTool | None:
        """Return the tool that lists what the caller used last, for a container that a call need not name."""
        first = entity.sources[0] if entity.recent is not None and entity.sources else None
        return first if first is not None and first.tool in self._catalog.reachable else None

    async def _find_latest(self, entity: Entity, caller: Caller) -> str | None:
        """Return the one that the caller used last, for lists in a container that the prompt does not name."""
        source = self._find_recent(entity)
        if source is None:
            return None
        recent = await self._call(source.tool, {}, caller)
        return next((str(one["id"]) for one in recent.get(source.items) or () if one["id"] is not None), None)

    def _resolve_id(self, entity: Entity, name: str, text: str, caller: Caller) -> str | None:
        """Return the id in another argument: it may be an id, a link, or a name that was offered before."""
        offered = self._ids.get((caller.key, entity.kind, text))
        if offered is not None:
            return offered
        try:
            return require_id(text, entity, name)
        except CallError:
            return None

    async def _call(self, name: str, arguments: dict[str, Any], caller: Caller) -> dict[str, Any]:
        tool = self._catalog.reachable[name]
        if any(one.name == "limit" for one in tool.arguments):
            arguments = arguments | {"limit": MAX_VALUES}
        key = (caller.key, name, json.dumps(arguments, sort_keys=True))
        cached = self._answers.get(key)
        if cached is not None and cached[0] > self._clock():
            return cached[1]
        outcome = await self._executor.call(tool, arguments, caller=caller)
        if isinstance(outcome, Failure):
            raise outcome.error
        assert isinstance(outcome, Result)
        answer = dict(outcome.answer)
        self._answers[key] = (self._clock() + REMEMBERED_SECONDS, answer)
        _trim(self._answers)
        return answer

    def _match(self, entity: Entity, items: Iterable[Mapping[str, Any]], query: _Query) -> Iterator[str]:
        """Yield what matches: the name of a thing, or its id if a part of the id was typed.

        A name is offered only if it is unique and can be shown; then its id is remembered for other arguments.
        """
        typed = query.typed.lower()
        labelled = [(str(item.get("id") or ""), _find_label(item, entity), item) for item in items]
        labels = [label for _, label, _ in labelled]
        for identity, label, item in labelled:
            texts = [label, *(str(item[key]) for key in ("number", "description") if item.get(key))]
            named = any(typed in text.lower() for text in texts)
            if not identity or not (named or typed in identity.lower()):
                continue
            if query.needs_ids or not named or not _is_presentable(label) or labels.count(label) > 1:
                yield identity
            else:
                self._ids[query.caller.key, entity.kind, label] = identity
                _trim(self._ids)
                yield label


def _find_label(item: Mapping[str, Any], entity: Entity) -> str:
    return next((str(item[key]) for key in entity.labels if item.get(key) is not None), "")


def _find_entity(tool: Tool, name: str) -> Entity:
    """Return what an argument of a listing tool names; the linker lets no other be needed."""
    entity = next(argument.entity for argument in tool.arguments if argument.name == name)
    assert entity is not None
    return entity


def _is_presentable(text: str) -> bool:
    """Return whether a name can be offered: other people wrote it, and it is inserted into the user's prompt."""
    return bool(text.strip()) and len(text) <= MAX_CHARACTERS and text.isprintable()


def _list_choices(argument: ToolArgument) -> Sequence[str]:
    items = argument.schema.get("items")
    found = argument.schema.get("enum") or (items.get("enum") if isinstance(items, dict) else None) or ()
    return [choice for choice in found if isinstance(choice, str)]


def _has_prefix_before(name: str, other: str) -> bool:
    """Return whether a name is another with a prefix, as `toITwinId` and `iTwinId`."""
    return len(other) > 3 and name != other and name.endswith(other[0].upper() + other[1:])


def _trim(kept: OrderedDict[Any, Any]) -> None:
    while len(kept) > MAX_REMEMBERED:
        kept.popitem(last=False)


def _build_result(values: Sequence[str], total: int | None, *, more: bool) -> t.CompleteResult:
    shown = list(dict.fromkeys(values))
    return t.CompleteResult(
        completion=t.Completion(values=shown[:MAX_VALUES], total=total, has_more=more or len(shown) > MAX_VALUES)
    )
