"""Names next to ids (`x-take`): read once for a whole answer, and remembered per caller for minutes."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

import anyio

from itwin_mcp.capability.expressions import ABSENT, evaluate
from itwin_mcp.capability.operations import NamesPlan, Operation
from itwin_mcp.capability.tool_actions import NameSource, Output, Steps
from itwin_mcp.errors import CallError
from itwin_mcp.executor.bounded_cache import store_entry
from itwin_mcp.executor.element_lookup import find_elements
from itwin_mcp.executor.limits import measure
from itwin_mcp.executor.sending import Run
from itwin_mcp.text import clean, shorten

SECONDS = 300.0
"""How long the name of an id, or that it has no name, is cached."""
SECONDS_REFUSED = 60.0
"""How long a caller sends no further request for names after one failed."""
MAX_SECONDS = 5.0
"""How long an answer waits for its names; without them, they are null."""
MAX_REQUESTS = 25
"""The maximum of requests for names in one call. Only `save-list`, which reads page by page, sends several."""
MAX_REMEMBERED = 10_000
MAX_TEXT = 80
"""Characters of each part of a name."""
_NULL_BYTES = len("null")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

_Scope: TypeAlias = tuple[str, str, str]
"""Who shares cached names: the caller, their policy entry, and the operation that reads the names."""


@dataclass(frozen=True, slots=True)
class _NameSlot:
    """The member of an object in the answer that receives the name of an `id`."""

    object: dict[str, Any]
    member: str
    id: str
    source: NameSource


class ThingNames:
    """Fills in names next to ids. A name that cannot be read is null; the call never fails because of it."""

    def __init__(self) -> None:
        self._names: OrderedDict[tuple[_Scope, str], tuple[str | None, float]] = OrderedDict()
        self._blocked: OrderedDict[_Scope, float] = OrderedDict()

    async def fill(self, run: Run, output: Output, answer: Any, *, room: int | None = None) -> bool:
        """Fill in the names in an answer that operations read, with one request for each operation.

        `room` is the maximum size of all names in bytes. Return False if some did not fit.
        """
        slots = list(_iterate_slots(output, answer))
        ids: dict[str, tuple[Operation, list[str]]] = {}
        for slot in slots:
            if (operation := slot.source.operation) is not None:
                ids.setdefault(operation.key, (operation, []))[1].append(slot.id)
        names = {key: await self._find_names(run, *wanted) for key, wanted in ids.items()}
        fits = True
        for slot in slots:
            if slot.source.operation is None:
                continue
            name = names[slot.source.operation.key].get(_fold(slot.id))
            if name is not None and room is not None:
                room -= measure(name) - _NULL_BYTES
                if room < 0:
                    name, fits = None, False
            slot.object[slot.member] = name
        return fits

    async def _find_names(self, run: Run, operation: Operation, ids: Iterable[str]) -> Mapping[str, str]:
        """Return the names that this caller may know, by the folded id."""
        plan = operation.names
        # The policy comes before the cache: a cached name never reaches a caller from whom the policy hides it.
        unlimited = run.gate.rule is None and run.gate.closed is None
        entry = "" if unlimited else run.gate.names_entry(operation)
        if plan is None or entry is None:
            return {}
        scope = (run.caller.key, entry, operation.key)
        names: dict[str, str | None] = {}
        missing: dict[str, str] = {}
        now = run.now()
        for identifier in dict.fromkeys(ids):
            key = _fold(identifier)
            name, expires = self._names.get((scope, key), (None, 0.0))
            if now < expires:
                names[key] = name
            elif plan.pattern is None or plan.pattern.fullmatch(identifier):
                missing[key] = identifier
        if missing and now >= self._blocked.get(scope, 0.0) and run.requests.names < MAX_REQUESTS:
            names |= await self._request_names(run, operation, plan, scope, dict(list(missing.items())[: plan.most]))
        return {key: name for key, name in names.items() if name is not None}

    async def _request_names(
        self, run: Run, operation: Operation, plan: NamesPlan, scope: _Scope, ids: Mapping[str, str]
    ) -> dict[str, str | None]:
        """Send one request for the names of these ids. Cache the names, or that the request failed."""
        items: Any = None
        with suppress(CallError), anyio.move_on_after(MAX_SECONDS):
            items = plan.items.find(await run.read_names(operation, {plan.ids: list(ids.values())}))
        if not isinstance(items, list):
            store_entry(self._blocked, scope, run.now() + SECONDS_REFUSED, MAX_REMEMBERED)
            return {}
        answered = {_fold(str(item.get(plan.id))): _build_name(plan, item) for item in items if isinstance(item, dict)}
        names = {key: answered.get(key) for key in ids}
        for key, name in names.items():
            store_entry(self._names, (scope, key), (name, run.now() + SECONDS), MAX_REMEMBERED)
        return names


def fill_from_steps(action: Steps, answer: Any, results: Mapping[str, Any]) -> None:
    """Fill in the names in the answer of a flow that its own steps have read."""
    names: dict[str, dict[str, Any]] = {}
    for slot in _iterate_slots(action.output, answer):
        step = slot.source.step
        if step is None:
            continue
        if step not in names:
            items = [item for item in find_elements(results.get(step), per_element=False) if isinstance(item, dict)]
            names[step] = {_fold(str(item.get("id"))): item.get("displayName") or item.get("name") for item in items}
        name = names[step].get(_fold(slot.id))
        slot.object[slot.member] = name if isinstance(name, str) else None


def _iterate_slots(output: Output, value: Any) -> Iterator[_NameSlot]:
    """Yield a slot for each name in the output schema that has an id next to it."""
    if isinstance(value, list):
        if output.items is not None:
            for item in value:
                yield from _iterate_slots(output.items, item)
    elif isinstance(value, dict):
        for member, child in output.properties:
            if child.name is not None:
                identifier = value.get(child.name.of)
                if isinstance(identifier, str) and identifier:
                    yield _NameSlot(value, member, identifier, child.name)
            elif child.has_names:
                yield from _iterate_slots(child, value.get(member))


def _build_name(plan: NamesPlan, item: Mapping[str, Any]) -> str | None:
    """Return the name of an item: the first text of the plan whose fields all have a value."""
    texts = {field: _clean_text(value) for field, value in item.items() if isinstance(value, str)}
    fields = {field: text for field, text in texts.items() if text}
    names = (evaluate(text, fields, {}) for text in plan.texts)
    return next((name for name in names if name is not ABSENT), None)


def _clean_text(text: str) -> str:
    """Return one short line without invisible characters, because other people choose their names."""
    return shorten(" ".join(clean(text[: 10 * MAX_TEXT]).split()), MAX_TEXT)


def _fold(identifier: str) -> str:
    """Return an id in the form in which ids are compared: a UUID in lower case."""
    return identifier.lower() if _UUID.fullmatch(identifier) else identifier
