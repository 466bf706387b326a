"""The way through the pages of one list: the platform's links, tokens and counts, followed within a budget."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import anyio

from itwin_mcp.capability.expressions import ABSENT, Path, PathPart
from itwin_mcp.capability.plans import Operation, Output, PagePlan
from itwin_mcp.errors import CallError, InvalidArguments, UnexpectedAnswer
from itwin_mcp.executor.cursors import MOST_TRAIL, Position, digest_items
from itwin_mcp.executor.fit import first_that_fit
from itwin_mcp.executor.request import build_request
from itwin_mcp.executor.sending import Answer, Run, shape_answer
from itwin_mcp.executor.shape import shape_items, widen
from itwin_mcp.upstream.origin import split_url
from itwin_mcp.upstream.wire import Request

SHOWN = 3
"""Items that are kept of a list which goes into a sink."""

Sink = Callable[[list[Any]], Awaitable[None]]
"""Takes the items of one page."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What one walk may cost: requests, and seconds after which no further page is awaited."""

    pages: int
    seconds: float


def first_request(operation: Operation, values: Mapping[str, Any], limit: int) -> Request:
    """The request of a list's first page, before it is signed."""
    assert operation.page is not None
    return _first(operation, operation.page, values, operation.page.size_for(limit))


def _first(operation: Operation, plan: PagePlan, values: Mapping[str, Any], size: int) -> Request:
    return build_request(operation, {**values, plan.size: size} if plan.size is not None else values)


@dataclass(slots=True)
class Read:
    """What a walk has so far."""

    items: list[Any] = field(default_factory=list)
    count: int = 0
    """How many came; `items` holds all of them unless they go into a sink."""
    first: Answer | None = None
    pages: int = 0
    last: str = ""
    """The fingerprint of the last page."""
    next: Position | None = None
    stopped: str | None = None
    error: CallError | None = None
    total: int | None = None

    @property
    def complete(self) -> bool:
        return self.next is None and self.stopped is None

    def stop(self, why: str, position: Position) -> Read:
        self.stopped, self.next = why, position
        return self


@dataclass(frozen=True, slots=True)
class _Page:
    answer: Answer
    items: list[Any]
    taken: list[Any]
    left_out: int
    """Entries of the page that are no items."""


class Walk:
    """One call's way through the pages of a list."""

    def __init__(
        self,
        run: Run,
        operation: Operation,
        values: Mapping[str, Any],
        start: Position,
        limit: int,
        output: Output | None,
        budget: Budget,
        *,
        whole: bool = False,
        strict: bool = False,
        sink: Sink | None = None,
        full: bool = False,
        room: int | None = None,
    ) -> None:
        self._sink, self._output, self._full, self._room = sink, output, full, room
        self._budget = budget
        assert operation.page is not None
        self._run, self._operation, self._plan = run, operation, operation.page
        self._start, self._limit, self._whole, self._strict = start, limit, whole, strict
        self.place, self._item = _place_of(output, self._plan) if output is not None else (None, None)
        # A page that is found by counting may change its size; what an opaque token stands for may not.
        counted = start.query is None or self._skip_in(start.query)
        self._size = self._plan.size_for(start.offset + limit) if counted else start.size
        self._base = _first(operation, self._plan, values, self._size)

    async def collect(self) -> Read:
        """Read pages until there is a reason to stop."""
        read, position, began = Read(), self._start, self._run.now()
        while True:
            left = self._budget.seconds - (self._run.now() - began)
            if read.pages and (read.pages >= self._budget.pages or left <= 0):
                return read.stop(f"this call took its share of requests and time{self._go_on}", position)
            try:
                page = await self._page(position, self._limit - read.count, left if read.pages else None)
            except CallError as error:
                if self._whole or not read.pages:
                    raise
                read.error = error
                return read.stop(f"the next page failed ({error.code}){self._go_on}", position)
            if page is None:
                return read.stop(f"the next page took too long{self._go_on}", position)
            before = read.count
            following = self._take(read, page, position)
            if self._sink is not None and read.count > before:
                await self._sink(page.taken)
            if following is None:
                return read
            position = following
            if read.pages > 1:
                known = min(self._limit, read.total or self._limit)
                await self._run.conversation.progress(read.count, known, f"{read.count} items read so far")

    @property
    def _go_on(self) -> str:
        return ": go on with the cursor" if self._sink is None and not self._whole else ""

    def whole(self, read: Read) -> Answer:
        """The first page's answer with all items in place of its own, or none where they are shaped already."""
        assert read.first is not None
        items = read.items if self.place is None else []
        return Answer(_put(read.first.body, self._plan.items.parts, items), read.first.headers)

    def result(self, read: Read) -> dict[str, Any]:
        """The answer in the shape that the tool promises, with the items that are kept."""
        assert self._output is not None
        result = shape_answer(self._run, self._operation, self._output, self.whole(read))
        if self.place is not None:
            result[self.place] = read.items
        return result

    # --- one page -----------------------------------------------------------------------------------------------

    async def _page(self, position: Position, room: int, seconds: float | None) -> _Page | None:
        """The page at a position, its items shaped; None when it took longer than `seconds`."""
        with anyio.move_on_after(seconds):
            answer = await self._run.send(self._operation, self._request(position))
            items, left_out = self._items(answer.body, position)
            taken = items[position.offset :][:room]
            if self._item is not None:
                where = self._plan.items.text
                taken = shape_items(self._item, taken, answer.headers, where, self._run.warnings)
                if self._full:
                    taken = [widen(*pair) for pair in zip(taken, items[position.offset :], strict=False)]
            if self._room is not None:
                taken, self._room = first_that_fit(taken, self._room, one=room == self._limit)
            return _Page(answer, items, taken, left_out)
        return None

    def _request(self, position: Position) -> Request:
        if position.query is None:
            return self._base
        pairs = _pairs(position.query)
        wire = self._wire(self._plan.size)
        if wire is not None and self._skip_in(position.query):
            pairs = [pair for pair in pairs if pair[0] != wire] + [(wire, str(self._size))]
        return replace(self._base, query=tuple(pairs))

    def _items(self, body: Any, position: Position) -> tuple[list[Any], int]:
        """Return the items of a page, and how many of its entries are none: what is no object, where objects are."""
        items = self._plan.items.find(body)
        if items is None and not self._strict:
            items = []
        if not isinstance(items, list):
            why = "is missing" if items is ABSENT else "is not a list"
            raise UnexpectedAnswer(
                f"The platform's answer is not what this operation gives: {self._plan.items.text} {why}.",
                hint="Call again; if it stays so, report it to the makers of itwin-mcp with this message.",
            )
        entries = len(items)
        if self._item is not None and self._item.kind == "object":
            odd = [entry for entry in items if not isinstance(entry, dict)]
            shape_items(self._item, odd, {}, self._plan.items.text, self._run.warnings)
            items = [entry for entry in items if isinstance(entry, dict)] if odd else items
        if position.offset and digest_items(items[: position.offset]) != position.given:
            raise InvalidArguments(
                "The list has changed since the cursor was given: the items before it are no longer the same.",
                hint="Leave cursor out and start over.",
                details=[{"code": "InvalidArgument", "target": "cursor", "message": "cursor is stale"}],
            )
        return items, entries - len(items)

    def _take(self, read: Read, page: _Page, position: Position) -> Position | None:
        """Add a page to what was read; gives where to go on in this call, None where it ends."""
        fingerprint = digest_items(page.items)
        if page.items and fingerprint == read.last:
            read.stopped = "the platform gave the same page again"
            return None
        read.pages, read.last = read.pages + 1, fingerprint
        read.first = read.first or page.answer
        read.count += len(page.taken)
        read.items.extend(page.taken if self._sink is None else page.taken[: max(SHOWN - len(read.items), 0)])
        used = position.offset + len(page.taken)
        before = position.before + len(page.taken) + (page.left_out if used == len(page.items) else 0)
        count = self._plan.count.find(page.answer.body) if self._plan.count is not None else None
        read.total = count if type(count) is int and count >= before else None
        if used < len(page.items):
            given = digest_items(page.items[:used])
            read.next = replace(position, offset=used, given=given, before=before, size=self._size)
            if self._room == 0:
                read.stopped = "the answer has as many bytes as it may have: go on with the cursor"
            return None
        if self._plan.within is not None and before >= self._plan.within:
            read.total = None
            read.stopped = f"the platform lists at most {self._plan.within} items: narrow the list with its filters"
            return None
        following, read.stopped = self._following(page, position, before)
        if following is not None and read.count >= self._limit:
            read.next, following = following, None
        return following

    # --- the next page ------------------------------------------------------------------------------------------

    def _following(self, page: _Page, position: Position, before: int) -> tuple[Position | None, str | None]:
        """Where the next page is, or None and, where that is not the list's end, why."""
        plan, count = self._plan, len(page.items) + page.left_out
        if plan.style == "skip":
            if count < (self._size if plan.size is not None else 1):
                return None, None
            query: str | None = self._with(plan.skip, str(before))
        else:
            value = _find_next(page.answer.body, plan.next) if plan.next is not None else None
            if value is None:
                return None, None
            if not isinstance(value, str):
                return None, "what the platform gives as the next page is not a link"
            query = self._with(plan.token, value) if plan.style == "token" else self._own(value)
            if query is None:
                return None, "the platform's link to the next page is not a link to this list and was not followed"
        here, there = self._mark(position.query), self._mark(query)
        if there in (*position.trail, here):
            return None, "the platform's link to the next page leads back to a page that was read"
        trail = (*position.trail, here)[-MOST_TRAIL:]
        return Position(query, 0, "", before, self._size, trail), None

    def _with(self, parameter: str | None, value: str) -> str:
        """The query of the first page with one input set."""
        wire = self._wire(parameter)
        return urlencode([*(pair for pair in self._base.query if pair[0] != wire), (str(wire), value)])

    def _own(self, link: str) -> str | None:
        """The query of a link to the same list at the same origin; None for any other link."""
        try:
            origin, rest = split_url(link)
            parts = urlsplit(rest)
            own = self._run.origins_of(self._base.origin)
        except ValueError:
            return None
        # The platform spells its paths now `/itwins`, now `/iTwins`; the path that is sent stays ours.
        if origin not in own or _segments(parts.path) != _segments(self._base.path):
            return None
        return parts.query

    def _skip_in(self, query: str) -> bool:
        """Whether a page is found by counting: its query says how many items to pass over."""
        skips = {"$skip", "skip", self._wire(self._plan.skip)}
        return any(name in skips and value.isdecimal() for name, value in _pairs(query))

    def _wire(self, parameter: str | None) -> str | None:
        return next((one.wire for one in self._operation.parameters if one.name == parameter), None)

    def _mark(self, query: str | None) -> str:
        """A short sign of a page, whatever the order of its query and its size."""
        pairs = self._base.query if query is None else _pairs(query)
        size = self._wire(self._plan.size)
        return sha256(repr(sorted(pair for pair in pairs if pair[0] != size)).encode()).hexdigest()[:8]


def _find_next(body: Any, path: Path) -> Any:
    """Return the link or token of the next page, or None at the end of the list.

    What stands in its way is returned too: a list whose next page cannot be read is not at its end.
    """
    found = body
    for part in path.parts:
        if not isinstance(found, dict) or not isinstance(part, str):
            break
        found = found.get(part)
        if found in (None, "", [], {}):
            return None
    return found if path.query is None else path.find(body) or None


def _pairs(query: str) -> list[tuple[str, str]]:
    return parse_qsl(query, keep_blank_values=True)


def _segments(path: str) -> list[str]:
    return [unquote(segment).lower() for segment in path.rstrip("/").split("/")]


def _place_of(output: Output, plan: PagePlan) -> tuple[str | None, Output | None]:
    """The member of the answer that takes the items, and how each is shaped; None where it is made otherwise."""
    for name, child in output.properties:
        if child.kind == "array" and child.path is not None and child.path.parts == plan.items.parts:
            item = child.items
            return (None, None) if item is not None and item.path is not None else (name, item)
    return None, None


def _put(value: Any, parts: tuple[PathPart, ...], items: list[Any]) -> Any:
    """The value with the items at a path."""
    if not parts:
        return items
    first, rest = parts[0], parts[1:]
    if isinstance(first, str):
        inside = value if isinstance(value, dict) else {}
        return {**inside, first: _put(inside.get(first), rest, items)}
    return [_put(one, rest, items) if index == first else one for index, one in enumerate(value or ())]
