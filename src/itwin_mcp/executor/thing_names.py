"""Names next to ids (`x-take`): read once for a whole answer, and remembered per caller for minutes."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import anyio

from itwin_mcp.capability.expressions import ABSENT, evaluate
from itwin_mcp.capability.operations import NamesPlan, Operation
from itwin_mcp.capability.tool_actions import NameSource, Output, Steps
from itwin_mcp.errors import CallError
from itwin_mcp.executor.element_lookup import elements_of
from itwin_mcp.executor.limits import measure
from itwin_mcp.executor.sending import Run
from itwin_mcp.text import clean, shorten

SECONDS = 300.0
"""How long a name is remembered, and that an id has none."""
SECONDS_REFUSED = 60.0
"""How long nothing is asked after a request for names failed."""
MAX_SECONDS = 5.0
"""An answer does not wait longer for the names in it."""
MAX_REQUESTS = 25
"""Requests for names in one call; only a list that is saved page by page has more than one."""
MAX_REMEMBERED = 10_000
MAX_TEXT = 80
"""Characters of each part of a name."""
_NULL_BYTES = len("null")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

_Asker: TypeAlias = tuple[str, str, str]
"""The caller, the policy entry that counts for them, and the operation that answers names."""


@dataclass(frozen=True, slots=True)
class _Blank:
    """An object of the answer in which the member `name` is to be filled for the `id` next to it."""

    object: dict[str, Any]
    member: str
    id: str
    source: NameSource


class ThingNames:
    """Fills in names. Whatever goes wrong only leaves names out: they are null then."""

    def __init__(self) -> None:
        self._remembered: OrderedDict[tuple[_Asker, str], tuple[str | None, float]] = OrderedDict()
        self._refused: dict[_Asker, float] = {}

    async def fill(self, run: Run, output: Output, answer: Any, *, room: int | None = None) -> bool:
        """Fill in, within the answer, the names that come from operations; one request for each operation.

        `room` is how many bytes the names may have. Return False if some did not fit into it.
        """
        blanks = [blank for blank in _blanks(output, answer) if blank.source.operation is not None]
        ids: dict[str, tuple[Operation, list[str]]] = {}
        for blank in blanks:
            if (operation := blank.source.operation) is not None:
                ids.setdefault(operation.key, (operation, []))[1].append(blank.id)
        known = {key: await self._names(run, *wanted) for key, wanted in ids.items()}
        fits = True
        for blank in blanks:
            assert blank.source.operation is not None
            name = known[blank.source.operation.key].get(_fold(blank.id))
            if name is not None and room is not None:
                room -= measure(name) - _NULL_BYTES
                if room < 0:
                    name, fits = None, False
            blank.object[blank.member] = name
        return fits

    async def _names(self, run: Run, operation: Operation, ids: Iterable[str]) -> Mapping[str, str]:
        """Return the names of these ids, by the folded id, as far as this caller may know them."""
        plan = operation.names
        # Asked before anything is remembered: a name never reaches a caller from whom the policy hides it.
        unlimited = run.gate.rule is None and run.gate.closed is None
        entry = "" if unlimited else run.gate.names_entry(operation)
        if plan is None or entry is None:
            return {}
        asker = (run.caller.key, entry, operation.key)
        known: dict[str, str | None] = {}
        unknown: dict[str, str] = {}
        now = run.now()
        for identifier in dict.fromkeys(ids):
            key = _fold(identifier)
            name, until = self._remembered.get((asker, key), (None, 0.0))
            if now < until:
                known[key] = name
            elif plan.pattern is None or plan.pattern.fullmatch(identifier):
                unknown[key] = identifier
        if unknown and now >= self._refused.get(asker, 0.0) and run.requests.names < MAX_REQUESTS:
            known |= await self._ask(run, operation, plan, asker, dict(list(unknown.items())[: plan.most]))
        return {key: name for key, name in known.items() if name is not None}

    async def _ask(
        self, run: Run, operation: Operation, plan: NamesPlan, asker: _Asker, ids: Mapping[str, str]
    ) -> dict[str, str | None]:
        """Send one request for these ids; remember what it answered, or that it failed."""
        items: Any = None
        try:
            with anyio.move_on_after(MAX_SECONDS):
                items = plan.items.find(await run.read_names(operation, {plan.ids: list(ids.values())}))
        except CallError:
            items = None
        if not isinstance(items, list):
            self._remember_refusal(run, asker)
            return {}
        answered = {_fold(str(item.get(plan.id))): _word(plan, item) for item in items if isinstance(item, dict)}
        found = {key: answered.get(key) for key in ids}
        for key, name in found.items():
            self._remembered[asker, key] = (name, run.now() + SECONDS)
            self._remembered.move_to_end((asker, key))
        while len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        return found

    def _remember_refusal(self, run: Run, asker: _Asker) -> None:
        if len(self._refused) >= MAX_REMEMBERED:
            self._refused = {one: until for one, until in self._refused.items() if run.now() < until}
        if len(self._refused) < MAX_REMEMBERED:
            self._refused[asker] = run.now() + SECONDS_REFUSED


def fill_from_steps(action: Steps, answer: Any, results: Mapping[str, Any]) -> None:
    """Fill in, within the answer of a flow, the names that its own steps have read."""
    known: dict[str, dict[str, Any]] = {}
    for blank in _blanks(action.output, answer):
        step = blank.source.step
        if step is None:
            continue
        if step not in known:
            found = elements_of(results.get(step), per_element=False)
            named = [item for item in found if isinstance(item, dict)]
            known[step] = {_fold(str(item.get("id"))): item.get("displayName") or item.get("name") for item in named}
        name = known[step].get(_fold(blank.id))
        blank.object[blank.member] = name if isinstance(name, str) else None


def _blanks(output: Output, value: Any) -> Iterator[_Blank]:
    """Every name to fill in that has an id next to it."""
    if isinstance(value, list):
        if output.items is not None:
            for item in value:
                yield from _blanks(output.items, item)
    elif isinstance(value, dict):
        for member, child in output.properties:
            if child.name is not None:
                identifier = value.get(child.name.of)
                if isinstance(identifier, str) and identifier:
                    yield _Blank(value, member, identifier, child.name)
            elif child.has_names:
                yield from _blanks(child, value.get(member))


def _word(plan: NamesPlan, item: Mapping[str, Any]) -> str | None:
    """Return what an item of the answer is called: the first text whose fields all have a value."""
    texts = {field: _clean_text(value) for field, value in item.items() if isinstance(value, str)}
    fields = {field: text for field, text in texts.items() if text}
    words = (evaluate(text, fields, {}) for text in plan.texts)
    return next((word for word in words if word is not ABSENT), None)


def _clean_text(text: str) -> str:
    """One short line without invisible characters: others choose their names."""
    return shorten(" ".join(clean(text[: 10 * MAX_TEXT]).split()), MAX_TEXT)


def _fold(identifier: str) -> str:
    """An id in the form in which two are compared: of a UUID the case means nothing."""
    return identifier.lower() if _UUID.fullmatch(identifier) else identifier
