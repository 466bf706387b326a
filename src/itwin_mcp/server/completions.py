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
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import mcp.types as t
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError

from itwin_mcp.capability.catalog import Catalog, Tool
from itwin_mcp.capability.entities import Entity
from itwin_mcp.capability.parameters import list_choices
from itwin_mcp.errors import CallError
from itwin_mcp.executor.context import Caller
from itwin_mcp.executor.names import require_id
from itwin_mcp.executor.outcome import Failure, Result
from itwin_mcp.executor.pipeline import Executor

if TYPE_CHECKING:
    from itwin_mcp.capability.entity_declarations import ListingTool

logger = logging.getLogger(__name__)

MAX_VALUES = 100
"""The most values that the protocol allows in one answer."""
MAX_SECONDS = 5.0
"""The time after which a completion ends without values."""
CACHE_SECONDS = 60.0
MAX_CACHED = 500
MAX_CHARACTERS = 255
"""The longest text that is searched, and the longest name that is offered."""

_PART_OF_ID = re.compile(r"[0-9a-fA-F-]{4,}")
_START_OF_ID = re.compile(r"[0-9a-fA-F]{8}[0-9a-fA-F-]*")
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
        get_caller: Callable[[], Caller],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._catalog = catalog
        self._executor = executor
        self._get_caller = get_caller
        self._clock = clock
        self._answers: OrderedDict[tuple[str, ...], tuple[float, dict[str, Any]]] = OrderedDict()
        self._ids: OrderedDict[tuple[str, str, str], str] = OrderedDict()
        """The ids of offered names, by caller, kind of entity and name."""

    async def complete(self, _: ServerRequestContext[Any], params: t.CompleteRequestParams) -> t.CompleteResult:
        """Return up to a hundred values that match what was typed; none, and a log line, if the platform fails."""
        name, typed = params.argument.name, params.argument.value.strip()[:MAX_CHARACTERS]
        others = dict((params.context.arguments if params.context is not None else None) or {})
        others.pop(name, None)
        if isinstance(params.ref, t.PromptReference):
            entity, choices, names = self._resolve_in_prompt(params.ref.name, name)
        else:
            entity, choices, names = self._resolve_in_template(params.ref.uri, name)
        if entity is None:
            matches = [choice for choice in choices if typed.lower() in choice.lower()]
            return _build_result(matches, len(matches), more=False)
        needs_ids = isinstance(params.ref, t.ResourceTemplateReference)
        query = _Query(names, typed, others, needs_ids, self._get_caller())
        try:
            with anyio.fail_after(MAX_SECONDS):
                return await self._complete(entity, query)
        except TimeoutError:
            logger.warning("No completions for %s: the platform took longer than %g s", name, MAX_SECONDS)
        except CallError as error:
            logger.warning("No completions for %s: %s", name, error.code)
        return _build_result([], 0, more=False)

    # --- what an argument means ---------------------------------------------------------------------------------

    def _resolve_in_prompt(self, prompt_name: str, name: str) -> tuple[Entity | None, Sequence[str], Sequence[str]]:
        """Return the entity that an argument names or its choices, and the names of all the prompt's arguments."""
        prompt = self._catalog.prompts.get(prompt_name)
        names = [argument for argument, _, _, _ in prompt.arguments] if prompt is not None else []
        if prompt is None or name not in names:
            raise MCPError(t.INVALID_PARAMS, "There is no such prompt, or it has no such argument.")
        if name in prompt.choices:
            return None, prompt.choices[name], names
        quoted = [tool for tool in self._catalog.reachable.values() if tool.name in prompt.quoted]
        for tools in (quoted, self._catalog.reachable.values()):
            for fits in (str.__eq__, _has_prefix_before):
                for argument in (item for tool in tools for item in tool.arguments if fits(name, item.name)):
                    choices = [choice for choice in list_choices(argument.schema) if isinstance(choice, str)]
                    if argument.entity is not None or choices:
                        return argument.entity, choices, names
        return None, (), names

    def _resolve_in_template(self, uri: str, name: str) -> tuple[Entity | None, Sequence[str], Sequence[str]]:
        """Return the same of a variable, which has no choices."""
        resource = next((resource for resource in self._catalog.resources if resource.uri == uri), None)
        if resource is None or name not in resource.variables:
            raise MCPError(t.INVALID_PARAMS, "There is no such resource template, or it has no such variable.")
        return resource.entities.get(name), (), resource.variables

    # --- values -------------------------------------------------------------------------------------------------

    async def _complete(self, entity: Entity, query: _Query) -> t.CompleteResult:
        """Search by name, and list without a search if nothing or an id was typed: the platform searches no ids."""
        result: t.CompleteResult | None = None
        if query.typed and not _START_OF_ID.fullmatch(query.typed):
            result = await self._complete_from_list(entity, query, searches=True)
        if result is None or (not result.completion.values and _PART_OF_ID.fullmatch(query.typed)):
            result = await self._complete_from_list(entity, query, searches=False)
        return result

    async def _complete_from_list(self, entity: Entity, query: _Query, *, searches: bool) -> t.CompleteResult:
        source = self._choose_source(entity, query, searches=searches)
        arguments = await self._fill_arguments(source, query) if source is not None else None
        if source is None or arguments is None:
            return _build_result([], 0, more=False)
        if searches and source.search is not None:
            arguments[source.search] = query.typed
        answer = await self._call(source.tool, arguments, query.caller)
        values = list(self._match(entity, answer.get(source.items) or (), query))
        page = answer.get("page") or {}
        complete = page.get("complete", True)
        # The platform counts what it lists: that is the number of matches only if it searched for the typed text.
        total = page.get("total") if not query.typed or source.search in arguments else None
        return _build_result(values, len(values) if complete else total, more=not complete)

    def _choose_source(self, entity: Entity, query: _Query, *, searches: bool) -> ListingTool | None:
        """Return the first usable source of those that fit best.

        A source fits if the prompt or template names the containers that it lists in, then if it can search.
        """
        names = set(query.names)
        usable = [source for source in entity.sources if self._is_usable(source, names)]
        return min(
            usable,
            key=lambda source: (not names.issuperset(source.within), searches and source.search is None),
            default=None,
        )

    def _is_usable(self, source: ListingTool, names: Set[str]) -> bool:
        """Return whether a source is served and each of its containers is named or can be the one last used."""
        tool = self._catalog.reachable.get(source.tool)
        return tool is not None and all(
            name in names or self._find_recent(_find_entity(tool, name)) is not None for name in source.within
        )

    async def _fill_arguments(self, source: ListingTool, query: _Query) -> dict[str, Any] | None:
        """Return the ids of the containers that a source lists in, or None if one is unknown."""
        arguments: dict[str, Any] = {}
        for name in source.within:
            entity = _find_entity(self._catalog.reachable[source.tool], name)
            text = query.others.get(name)
            if text is None and name not in query.names:
                identity = await self._find_last_used(entity, query.caller)
            else:
                identity = self._resolve_id(entity, name, text, query.caller) if text else None
            if identity is None:
                return None
            arguments[name] = identity
        return arguments

    def _find_recent(self, entity: Entity) -> ListingTool | None:
        """Return the tool that lists the entities that the caller used last, if there is one and it is served."""
        source = entity.sources[0] if entity.recent is not None and entity.sources else None
        return source if source is not None and source.tool in self._catalog.reachable else None

    async def _find_last_used(self, entity: Entity, caller: Caller) -> str | None:
        """Return the id of the entity that the caller used last."""
        source = self._find_recent(entity)
        if source is None:
            return None
        recent = await self._call(source.tool, {}, caller)
        return next((str(item["id"]) for item in recent.get(source.items) or () if item["id"] is not None), None)

    def _resolve_id(self, entity: Entity, name: str, text: str, caller: Caller) -> str | None:
        """Return the id in another argument, which may be an id, a link, or a name that was offered before."""
        offered = self._ids.get((caller.key, entity.kind, text))
        if offered is not None:
            return offered
        try:
            return require_id(text, entity, name)
        except CallError:
            return None

    async def _call(self, name: str, arguments: dict[str, Any], caller: Caller) -> dict[str, Any]:
        """Return the answer of a listing tool, from the cache if it is there. Raises CallError."""
        tool = self._catalog.reachable[name]
        if any(argument.name == "limit" for argument in tool.arguments):
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
        self._answers[key] = (self._clock() + CACHE_SECONDS, answer)
        _trim(self._answers)
        return answer

    def _match(self, entity: Entity, items: Iterable[Mapping[str, Any]], query: _Query) -> Iterator[str]:
        """Yield a completion for each matching item: its name, or its id if a part of the id was typed.

        A name is offered only if it is unique and can be shown; then its id is remembered for other arguments.
        """
        typed = query.typed.lower()
        items = list(items)
        labels = [next((str(item[key]) for key in entity.labels if item.get(key) is not None), "") for item in items]
        counts = Counter(labels)
        for item, label in zip(items, labels, strict=True):
            identity = str(item.get("id") or "")
            texts = [label, *(str(item[key]) for key in ("number", "description") if item.get(key))]
            is_named = any(typed in text.lower() for text in texts)
            if not identity or not (is_named or typed in identity.lower()):
                continue
            if query.needs_ids or not is_named or not _is_presentable(label) or counts[label] > 1:
                yield identity
            else:
                self._ids[query.caller.key, entity.kind, label] = identity
                _trim(self._ids)
                yield label


def _find_entity(tool: Tool, name: str) -> Entity:
    """Return the entity of a listing tool's argument. The linker checks that each container argument has one."""
    entity = next(argument.entity for argument in tool.arguments if argument.name == name)
    assert entity is not None
    return entity


def _is_presentable(text: str) -> bool:
    """Return whether a name can be offered: other people wrote it, and it is inserted into the user's prompt."""
    return bool(text.strip()) and len(text) <= MAX_CHARACTERS and text.isprintable()


def _has_prefix_before(name: str, other: str) -> bool:
    """Return whether a name is another name with a prefix: `toITwinId` is `iTwinId` with `to`."""
    return len(other) > 3 and name != other and name.endswith(other[0].upper() + other[1:])


def _trim(cache: OrderedDict[Any, Any]) -> None:
    while len(cache) > MAX_CACHED:
        cache.popitem(last=False)


def _build_result(values: Sequence[str], total: int | None, *, more: bool) -> t.CompleteResult:
    shown = list(dict.fromkeys(values))
    return t.CompleteResult(
        completion=t.Completion(values=shown[:MAX_VALUES], total=total, has_more=more or len(shown) > MAX_VALUES)
    )
