"""Lists page by page: within a limit and a budget, continued by a cursor, and always saying whether they are complete.

The platform pages in three ways: a link to the next page, a token, or a number of items to skip. A walk follows any
of them, but only to the same list at the same origin, and never in a circle. A cursor is the position of a walk,
sealed, so that a later call continues where it ended, in the middle of a page if need be.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import anyio

from itwin_mcp.capability.expressions import ABSENT, JsonPath, PathPart
from itwin_mcp.capability.operations import Operation, PagePlan
from itwin_mcp.capability.tool_actions import Output
from itwin_mcp.errors import (
    CallError,
    DetailCode,
    InvalidArguments,
    PlatformError,
    StateUnusable,
    UnexpectedAnswer,
    Unreachable,
)
from itwin_mcp.executor.answers import Answer, add_other_fields, shape_answer, shape_items
from itwin_mcp.executor.confirmation.seals import Flaw, SealError, Seals
from itwin_mcp.executor.context import Caller
from itwin_mcp.executor.limits import take_fitting
from itwin_mcp.executor.requests import build_request
from itwin_mcp.executor.sending import Run
from itwin_mcp.upstream.messages import Request
from itwin_mcp.upstream.origin import split_url

# --- where a list continues: bound to the tool, its arguments, the caller and the items already returned --------------

CURSOR_SECONDS = 24 * 3600
MAX_CURSOR = 4096
"""Characters of the `cursor` argument."""
MAX_TRAIL = 50

_WORDS: Mapping[Flaw, str] = {
    "unreadable": "it was altered or cut, or another server gave it",
    "expired": "it has expired: a cursor lasts a day",
    "of another caller": "it was given to another caller",
    "of another purpose": "it was given by another tool, or for other arguments",
}


@dataclass(frozen=True, slots=True)
class Position:
    """Where a list continues.

    `query` requests the page (None for the first), of which `offset` items were returned (`given` is their digest).
    `before` counts all items returned so far, `size` is the requested page size, and `trail` has marks of the pages
    that were read, so that a circle is noticed across calls. `place` is the id of the iTwin or iModel whose list it is,
    if the lists of several are read.
    """

    query: str | None = None
    offset: int = 0
    given: str = ""
    before: int = 0
    size: int = 0
    trail: tuple[str, ...] = ()
    place: str = ""


class Cursors:
    """Seals and opens the cursors of one call: bound to its tool, its other arguments and its caller."""

    def __init__(self, seals: Seals, tool: str, arguments: Mapping[str, Any], caller: Caller) -> None:
        # Of the arguments only these may differ from call to call; with another filter it would be another list.
        others = {name: value for name, value in arguments.items() if name not in ("limit", "cursor")}
        self._purpose = f"cursor 1 of {tool} {digest(others)}"
        self._seals = seals
        self._tool = tool
        self._caller = caller

    def give(self, position: Position) -> str | None:
        """Return the cursor of a position; None if the platform's link is too long for one."""
        cursor = self._seals.seal(self._purpose, self._caller, asdict(position))
        return cursor if len(cursor) <= MAX_CURSOR else None

    def take(self, cursor: str) -> Position:
        """Return the position of a cursor. Raises InvalidArguments for one of another call."""
        try:
            kept = self._seals.open(cursor, self._purpose, self._caller, seconds=CURSOR_SECONDS)
        except SealError as broken:
            why = _WORDS[broken.flaw]
            raise InvalidArguments(
                f"The cursor cannot be used: {why}; nothing was sent.",
                hint=f"Pass page.cursor exactly as {self._tool} gave it and repeat the other arguments, or leave "
                "cursor out to start over.",
                details=[{"code": DetailCode.INVALID_ARGUMENT, "target": "cursor", "message": f"cursor: {why}"}],
            ) from None
        return Position(**{**kept, "trail": tuple(kept["trail"])})


def digest(value: Any) -> str:
    """Return a short fingerprint of a JSON value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def digest_items(items: list[Any]) -> str:
    """Return a fingerprint of items by their ids, so that a changed name does not matter; whole, if they have none."""
    return digest([item["id"] if isinstance(item, dict) and item.get("id") else item for item in items])


# --- the pages of one list ------------------------------------------------------------------------------------------

SHOWN = 3
"""Items that the answer shows of a list that is saved."""

Sink = Callable[[list[Any]], Awaitable[None]]
"""Takes the items of one page."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The requests of one walk, and the seconds after which no further page is awaited."""

    pages: int
    seconds: float


def build_first_page_request(operation: Operation, values: Mapping[str, Any], limit: int) -> Request:
    """Build the request of a list's first page, without its credential."""
    assert operation.page is not None
    return _first(operation, operation.page, values, operation.page.size_for(limit))


def _first(operation: Operation, plan: PagePlan, values: Mapping[str, Any], size: int) -> Request:
    return build_request(operation, {**values, plan.size: size} if plan.size is not None else values)


@dataclass(frozen=True, slots=True)
class Beyond:
    """What follows the items that a call wanted: `known` ones on the page that was read, and the next page, if any."""

    known: int
    page: Position | None


@dataclass(slots=True)
class Read:
    """What a walk has read so far."""

    items: list[Any] = field(default_factory=list)
    count: int = 0
    """The number of items; `items` has all of them, unless they go into a sink."""
    first: Answer | None = None
    pages: int = 0
    last: str = ""
    """The fingerprint of the last page."""
    next: Position | None = None
    beyond: Beyond | None = None
    """Set where the list ended before its end because the call wants no more items."""
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
    """Entries of the page that are not items."""
    used: int
    """Where in `items` a cursor continues: after what was taken, and what does not match before the next match."""


class Walk:
    """Follows the pages of one list.

    It stops at the limit, at the room, at the budget, at the end, and at anything odd: a page that repeats, a link to
    another list, a circle. `Read.stopped` says why, and `Read.next` where a cursor continues.
    """

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
        label: Mapping[str, Any] | None = None,
        matches: Callable[[Any], bool] | None = None,
        first: bool = True,
    ) -> None:
        """`label` is added to each item, and of the items only those are taken that `matches`.

        `first` says that the answer has no items yet: then one is taken that is larger than the `room`.
        """
        self._label, self._matches, self._first = label, matches, first
        self._sink, self._output, self._full, self._room = sink, output, full, room
        self._budget = budget
        assert operation.page is not None
        self._run, self._operation, self._plan = run, operation, operation.page
        self._start, self._limit, self._whole, self._strict = start, limit, whole, strict
        self.place, self._item = _place_of(output, self._plan) if output is not None else (None, None)
        # A page that is found by counting may change its size; what an opaque token stands for may not.
        counted = start.query is None or self._skip_in(start.query)
        wanted = start.offset + limit if matches is None else self._plan.most
        self._size = self._plan.size_for(wanted) if counted else start.size
        self._base = _first(operation, self._plan, values, self._size)

    async def collect(self) -> Read:
        """Read pages until there is a reason to stop."""
        read, position, began = Read(), self._start, self._run.now()
        while True:
            left = self._budget.seconds - (self._run.now() - began)
            # The first page is always awaited: an answer without a single item would only be asked for again.
            if read.pages and (read.pages >= self._budget.pages or left <= 0):
                return read.stop(f"this call took its share of requests and time{self._go_on}", position)
            try:
                page = await self._page(position, self._limit - read.count, left if read.pages else None)
            except CallError as error:
                # What was read is worth returning, with a cursor to the page that failed; a list that must be whole
                # is not, because a decision would take it for all.
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
    def room(self) -> int | None:
        """The bytes left for items of later lists."""
        return self._room

    @property
    def _go_on(self) -> str:
        return ": go on with the cursor" if self._sink is None and not self._whole else ""

    def whole(self, read: Read) -> Answer:
        """Return the first page's answer with all items instead of its own; without any if they are shaped already."""
        assert read.first is not None
        items = read.items if self.place is None else []
        return Answer(put(read.first.body, self._plan.items.parts, items), read.first.headers)

    def result(self, read: Read) -> dict[str, Any]:
        """Return the answer in the shape of the tool, with the items that were kept."""
        assert self._output is not None
        result = shape_answer(self._run, self._operation, self._output, self.whole(read))
        if self.place is not None:
            result[self.place] = read.items
        return result

    # --- one page -----------------------------------------------------------------------------------------------

    async def _page(self, position: Position, room: int, seconds: float | None) -> _Page | None:
        """Return the page at a position, its items shaped; None if it takes longer than `seconds`."""
        with anyio.move_on_after(seconds):
            answer = await self._run.send(self._operation, self._request(position))
            items, left_out = self._items(answer.body, position)
            picked = [
                index
                for index in range(position.offset, len(items))
                if self._matches is None or self._matches(items[index])
            ][:room]
            # A cursor continues after the last item that was taken, or at the next page if this one is used up.
            used = picked[-1] + 1 if len(picked) == room else len(items)
            taken = raw = [self._labelled(items[index]) for index in picked]
            if self._item is not None:
                where = self._plan.items.text
                taken = shape_items(self._item, raw, answer.headers, where, self._run.warnings)
                if self._full:
                    taken = [add_other_fields(*pair) for pair in zip(taken, raw, strict=True)]
            if self._room is not None:
                # One item is returned however large it is, or the same cursor would be returned for ever.
                one = self._first and room == self._limit
                taken, self._room = take_fitting(taken, self._room, one=one)
                used = used if len(taken) == len(picked) else picked[len(taken)]
            return _Page(answer, items, taken, left_out, used)
        return None

    def _labelled(self, item: Any) -> Any:
        return {**item, **self._label} if self._label and isinstance(item, dict) else item

    def _request(self, position: Position) -> Request:
        if position.query is None:
            return self._base
        pairs = _pairs(position.query)
        # The caller may want another number of items than in the call before: a page found by counting is asked for in
        # the new size.
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
        # A cursor may stand in the middle of a page. If the items before it are no longer the same, something was added
        # or removed, and continuing would skip or repeat items.
        if position.offset and digest_items(items[: position.offset]) != position.given:
            raise InvalidArguments(
                "The list has changed since the cursor was given: the items before it are no longer the same.",
                hint="Leave cursor out and start over.",
                details=[{"code": DetailCode.INVALID_ARGUMENT, "target": "cursor", "message": "cursor is stale"}],
            )
        return items, entries - len(items)

    def _take(self, read: Read, page: _Page, position: Position) -> Position | None:
        """Add a page to what was read. Return where this call continues, None if it ends here."""
        # A platform that ignores the link or the number of items to skip returns the same page for ever.
        fingerprint = digest_items(page.items)
        if page.items and fingerprint == read.last:
            read.stopped = "the platform gave the same page again"
            return None
        read.pages, read.last = read.pages + 1, fingerprint
        read.first = read.first or page.answer
        read.count += len(page.taken)
        read.items.extend(page.taken if self._sink is None else page.taken[: max(SHOWN - len(read.items), 0)])
        used = page.used
        before = position.before + used - position.offset + (page.left_out if used == len(page.items) else 0)
        # A total that is smaller than what was read already cannot be right.
        count = self._plan.count.find(page.answer.body) if self._plan.count is not None else None
        read.total = count if type(count) is int and count >= before else None
        if used < len(page.items):
            given = digest_items(page.items[:used])
            read.next = replace(position, offset=used, given=given, before=before, size=self._size)
            rest = len(page.items) - used
            after, stopped = self._following(page, position, before + rest + page.left_out)
            if stopped is None:
                read.beyond = Beyond(rest, after)
            if self._room == 0:
                read.stopped = "the answer has as many bytes as it may have: go on with the cursor"
            return None
        if self._plan.within is not None and before >= self._plan.within:
            read.total = None
            read.stopped = f"the platform lists at most {self._plan.within} items: narrow the list with its filters"
            return None
        following, read.stopped = self._following(page, position, before)
        if following is not None and read.count >= self._limit:
            read.next, read.beyond, following = following, Beyond(0, following), None
        return following

    # --- the next page ------------------------------------------------------------------------------------------

    def _following(self, page: _Page, position: Position, before: int) -> tuple[Position | None, str | None]:
        """Return where the next page begins, or None, and why it cannot be read, or None."""
        plan, count = self._plan, len(page.items) + page.left_out
        if plan.style == "skip":
            # Nothing in the answer says whether more follows: a page that is not full is the last one.
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
        # Also across calls: the cursor carries the marks of the pages that were read.
        here, there = self._mark(position.query), self._mark(query)
        if there in (*position.trail, here):
            return None, "the platform's link to the next page leads back to a page that was read"
        trail = (*position.trail, here)[-MAX_TRAIL:]
        return Position(query, 0, "", before, self._size, trail), None

    def _with(self, parameter: str | None, value: str) -> str:
        """Return the query of the first page with one input set."""
        wire = self._wire(parameter)
        return urlencode([*(pair for pair in self._base.query if pair[0] != wire), (str(wire), value)])

    def _own(self, link: str) -> str | None:
        """Return the query of a link to the same list at the same origin; None for any other link.

        Only the query of a link is used. The origin and path stay ours, so that no answer can send a request, with its
        token, anywhere else.
        """
        try:
            origin, rest = split_url(link)
            parts = urlsplit(rest)
            own = self._run.find_origins(self._base.origin)
        except ValueError:
            return None
        # The platform spells its paths now `/itwins`, now `/iTwins`; the path that is sent stays ours.
        if origin not in own or _segments(parts.path) != _segments(self._base.path):
            return None
        return parts.query

    def _skip_in(self, query: str) -> bool:
        """Return whether the page is found by a number of items to skip."""
        skips = {"$skip", "skip", self._wire(self._plan.skip)}
        return any(name in skips and value.isdecimal() for name, value in _pairs(query))

    def _wire(self, parameter: str | None) -> str | None:
        return next((one.wire for one in self._operation.parameters if one.name == parameter), None)

    def _mark(self, query: str | None) -> str:
        """Return a short mark of a page that does not depend on its size or the order of its query."""
        pairs = self._base.query if query is None else _pairs(query)
        size = self._wire(self._plan.size)
        return sha256(repr(sorted(pair for pair in pairs if pair[0] != size)).encode()).hexdigest()[:8]


def _find_next(body: Any, path: JsonPath) -> Any:
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
    """Return the member of the answer for the items and the shape of each; None if the file makes it otherwise."""
    for name, child in output.properties:
        if child.kind == "array" and child.path is not None and child.path.parts == plan.items.parts:
            item = child.items
            return (None, None) if item is not None and item.path is not None else (name, item)
    return None, None


def put(value: Any, parts: tuple[PathPart, ...], items: list[Any]) -> Any:
    """Return the value with the items at a path."""
    if not parts:
        return items
    first, rest = parts[0], parts[1:]
    if isinstance(first, str):
        inside = value if isinstance(value, dict) else {}
        return {**inside, first: put(inside.get(first), rest, items)}
    return [put(one, rest, items) if index == first else one for index, one in enumerate(value or ())]


# --- lists of one or several places ---------------------------------------------------------------------------------

MAX_PAGES = 100
"""Requests for one call."""
MAX_SECONDS = 45.0
"""No further page is awaited after this; some clients give up after a minute."""
MAX_COUNT_SECONDS = 5.0
"""How long a list waits for the page that only counts what follows."""
SHOWN_REFUSED = 5
"""Ids of unreadable places that `page` names."""
MAX_SAVED = 100_000
"""Items that a list written to a file may have; it has a budget of its own."""
MAX_SAVED_PAGES = 1_000
MAX_SAVED_SECONDS = 600.0

_NO_KEY = "the folder of ITWIN_MCP_STATE_DIR, where the server keeps the key for cursors, cannot be used"
_TOO_LONG = "the platform's link to the next page is too long to be kept"


@dataclass(frozen=True, slots=True)
class ListPlace:
    """One of the iTwins or iModels whose lists are read one after the other.

    `values` are the inputs of the operation, and `label` is added to each item.
    """

    id: str
    values: Mapping[str, Any]
    label: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Places:
    """The places that one call reads; `page` says which were left out, if any."""

    places: Sequence[ListPlace]
    page: Mapping[str, Any] | None = None
    matches: Callable[[Any], bool] | None = None
    """Which items are listed; all if None."""

    def starting_at(self, start: Position) -> Sequence[ListPlace]:
        """Return the places from the cursor's on. Raises InvalidArguments if that one is no longer among them."""
        if not start.place:
            return self.places
        index = next((index for index, place in enumerate(self.places) if place.id == start.place), None)
        if index is None:
            raise InvalidArguments(
                "The cursor continues in an iTwin or iModel that is no longer among those that this call reads.",
                hint="Leave cursor out and start over.",
                details=[{"code": DetailCode.INVALID_ARGUMENT, "target": "cursor", "message": "cursor is stale"}],
            )
        return self.places[index:]


@dataclass(frozen=True, slots=True)
class Listing:
    """The part of a list that was read. `result` is the answer with the items; `page` is its paging information."""

    result: dict[str, Any]
    page: dict[str, Any]


async def list_pages(
    run: Run,
    operation: Operation,
    places: Places,
    output: Output,
    *,
    limit: int,
    cursor: str | None,
    cursors: Cursors,
    most_pages: int = MAX_PAGES,
    most_bytes: int | None = None,
    full: bool = False,
) -> Listing:
    """Follow the platform's paging until `limit` items, `most_bytes` of them, the end, or the budget.

    Each page is shaped on arrival, so that only one is held in the platform's form. If a later page fails, the list
    ends with what was read, a cursor and the error. Raises InvalidArguments for a stale cursor or one of another call,
    or what the first page raises.
    """
    start = cursors.take(cursor) if cursor is not None else Position()
    way = _Way(run, operation, output, Budget(most_pages, MAX_SECONDS), limit, room=most_bytes, full=full)
    read = await way.collect(places, start)
    page: dict[str, Any] = {"returned": len(read.items), "complete": read.complete}
    if read.next is not None:
        try:
            given = cursors.give(read.next)
        except StateUnusable:
            # What was read is worth giving without a way to continue.
            given, read.stopped = None, f"the list cannot be continued, because {_NO_KEY}: take more at once with limit"
        else:
            if given is None:
                read.stopped = f"the list cannot be continued, because {_TOO_LONG}: take more at once with limit"
        if given is not None:
            page["cursor"] = given
    total = read.total
    if total is None and read.complete:
        total = start.before + read.count
    if places.matches is not None or len(places.places) != 1:
        # A cursor counts neither the items of the places before its own, nor only those that match.
        total = read.count if read.complete and cursor is None else None
    elif total is None and read.beyond is not None and cursor is None:
        total = await _count_all(run, operation, places.places[0].values, read.count, read.beyond)
    if total is not None:
        page["total"] = total
    if read.stopped is not None:
        page["stoppedBecause"] = read.stopped
    if read.error is not None:
        page["error"] = read.error.to_json(run.name)
    return Listing(way.result(read), _with_places_left_out(page, places))


async def _count_all(
    run: Run, operation: Operation, values: Mapping[str, Any], returned: int, beyond: Beyond
) -> int | None:
    """Return how many items a list has if at most one more page, as large as possible, shows its end.

    An agent that reads the first items of a list mostly wants to know how many there are. A list that goes on beyond
    that page, fails or takes too long is not worth more of its time: None, and the answer has no total.
    """
    plan = operation.page
    assert plan is not None
    if plan.counts is not None:  # a page may end within an item, so that items are no measure of the list
        return None
    total = returned + beyond.known
    if beyond.page is not None:
        budget = Budget(1, MAX_COUNT_SECONDS)
        walk = Walk(run, operation, values, beyond.page, plan.most, None, budget, whole=True, strict=True)
        try:
            with anyio.fail_after(MAX_COUNT_SECONDS):
                read = await walk.collect()
        except (CallError, TimeoutError):
            return None
        if not read.complete:
            return None
        total += read.count
    return total if plan.within is None or total < plan.within else None


@dataclass(frozen=True, slots=True)
class SavedPages:
    """The result of a list that went into a sink: the answer's `page`, and the first items."""

    page: dict[str, Any]
    items: list[Any]


async def save_pages(
    run: Run,
    operation: Operation,
    places: Places,
    output: Output,
    sink: Sink,
    *,
    full: bool = False,
    limit: int | None = None,
) -> SavedPages:
    """Pass all pages to the sink, up to `limit` items, at most `MAX_SAVED`.

    If a later page fails, the list ends with what was read and the error. Raises what the first page raises.
    """
    budget = Budget(MAX_SAVED_PAGES, MAX_SAVED_SECONDS)
    most = min(limit or MAX_SAVED, MAX_SAVED)
    read = await _Way(run, operation, output, budget, most, sink=sink, full=full).collect(places, Position())
    page: dict[str, Any] = {"returned": read.count, "complete": read.complete}
    whole = len(places.places) == 1 and places.matches is None
    total = read.total if read.total is not None and whole else read.count if read.complete else None
    if total is not None:
        page["total"] = total
    if not read.complete:
        more = "raise limit" if limit is not None and limit < MAX_SAVED else "narrow the list with filters"
        page["stoppedBecause"] = read.stopped or f"at most {most} items are saved: {more}"
    if read.error is not None:
        page["error"] = read.error.to_json(run.name)
    return SavedPages(_with_places_left_out(page, places), read.items[:SHOWN])


def _with_places_left_out(page: dict[str, Any], places: Places) -> dict[str, Any]:
    """Return the `page` of an answer with what is not read of the places, and why."""
    if places.page is None:
        return page
    page.pop("total", None)
    reasons = [page.get("stoppedBecause"), places.page["stoppedBecause"]]
    page |= {"complete": False, "stoppedBecause": "; ".join(reason for reason in reasons if reason)}
    return page | ({"notRead": places.page["notRead"]} if "notRead" in places.page else {})


class _Way:
    """Reads the lists of several places, within one limit and one budget."""

    def __init__(
        self,
        run: Run,
        operation: Operation,
        output: Output,
        budget: Budget,
        limit: int,
        *,
        room: int | None = None,
        full: bool = False,
        sink: Sink | None = None,
    ) -> None:
        self._run, self._operation, self._output = run, operation, output
        self._budget, self._limit, self._room, self._full, self._sink = budget, limit, room, full, sink
        self._began = run.now()
        self._first: Walk | None = None

    async def collect(self, places: Places, start: Position) -> Read:
        """Read one list after the other until there is a reason to stop.

        A place that the caller may not see, that is gone, or whose answer cannot be read is left out and said, unless
        there is no other: another call would fail there again. Raises what the first page raises.
        """
        whole, refused = Read(), list[tuple[ListPlace, CallError]]()
        ahead = places.starting_at(start)
        for index, place in enumerate(ahead):
            position = start if index == 0 else Position()
            stop = self._reason_to_stop(whole, len(refused)) if index else None
            if stop is not None or (index and whole.count >= self._limit):
                whole.stopped, whole.next = stop, Position(place=place.id)
                break
            walk = self._walk(place, position, whole, len(refused), places.matches)
            try:
                read = await walk.collect()
            except (PlatformError, UnexpectedAnswer, Unreachable) as error:
                if _is_skipped(error) and len(places.places) > 1:
                    refused.append((place, error))
                    continue
                if not index:
                    raise
                whole.error = error
                whole.stop(f"the next page failed ({error.code}){self._go_on}", Position(place=place.id))
                break
            self._first, self._room = self._first or walk, walk.room
            _add(whole, read)
            if not read.complete:
                following = next(iter(ahead[index + 1 :]), None)
                after = Position(place=following.id) if following is not None else None
                at = replace(read.next, place=place.id) if read.next is not None else after
                whole.stopped, whole.next, whole.error = read.stopped, at, read.error
                break
        if refused and self._first is None and whole.error is None:
            raise refused[0][1]
        if refused:
            statuses = {str(error.status) if isinstance(error, PlatformError) else error.code for _, error in refused}
            ids = ", ".join(place.id for place, _ in refused[:SHOWN_REFUSED])
            left_out = f"{len(refused)} of {len(ahead)} could not be read ({', '.join(sorted(statuses))}): {ids}"
            whole.stopped = f"{whole.stopped}; {left_out}" if whole.stopped else left_out
        return whole

    def result(self, read: Read) -> dict[str, Any]:
        """Return the answer in the shape of the tool; without any place an empty list."""
        if self._first is not None:
            return self._first.result(read)
        assert self._operation.page is not None
        nothing = Answer(put(None, self._operation.page.items.parts, []), {})
        return shape_answer(self._run, self._operation, self._output, nothing)

    @property
    def _go_on(self) -> str:
        return ": go on with the cursor" if self._sink is None else ""

    def _reason_to_stop(self, whole: Read, refused: int) -> str | None:
        """Return why no further list is begun, other than that the limit is reached."""
        if self._room is not None and self._room <= 0:
            return "the answer has as many bytes as it may have: go on with the cursor"
        spent = whole.pages + refused >= self._budget.pages
        if spent or self._run.now() - self._began >= self._budget.seconds:
            return f"this call took its share of requests and time{self._go_on}"
        return None

    def _walk(
        self, place: ListPlace, position: Position, whole: Read, refused: int, matches: Callable[[Any], bool] | None
    ) -> Walk:
        seconds = self._budget.seconds - (self._run.now() - self._began)
        return Walk(
            self._run,
            self._operation,
            place.values,
            position,
            self._limit - whole.count,
            self._output,
            Budget(self._budget.pages - whole.pages - refused, seconds),
            sink=self._sink,
            full=self._full,
            room=self._room,
            label=place.label,
            matches=matches,
            first=whole.count == 0,
        )


def _is_skipped(error: CallError) -> bool:
    return isinstance(error, UnexpectedAnswer) or (isinstance(error, PlatformError) and error.status in (403, 404))


def _add(whole: Read, read: Read) -> None:
    """Add what was read of one list to what was read of those before it."""
    whole.items.extend(read.items)
    whole.count += read.count
    whole.pages += read.pages
    whole.first = whole.first or read.first
    whole.total, whole.beyond = read.total, read.beyond


async def list_all(
    run: Run,
    operation: Operation,
    values: Mapping[str, Any],
    *,
    most: int,
    pages: int = MAX_PAGES,
    strict: bool = False,
) -> tuple[Answer, dict[str, Any] | None]:
    """Return all pages as one answer, up to `most` items and `pages` requests; and a `page` if it is not all.

    With `strict` a null list is an error: a decision must not take it for an empty one. Raises what the failing page
    raises.
    """
    budget = Budget(pages, MAX_SECONDS)
    walk = Walk(run, operation, values, Position(), most, None, budget, whole=True, strict=strict)
    read = await walk.collect()
    if read.complete:
        return walk.whole(read), None
    assert operation.page is not None
    spent = read.stopped is None or read.pages >= pages
    stopped = f"only the first {_told(operation.page, read.items)} are read here" if spent else read.stopped
    return walk.whole(read), {"returned": len(read.items), "complete": False, "stoppedBecause": stopped}


def _told(plan: PagePlan, items: list[Any]) -> str:
    """Return how much was read, in the unit of the step's bound."""
    if plan.counts is None:
        return f"{len(items)} items"
    found = [plan.counts.find(item) for item in items]
    names = [part for part in plan.counts.parts if isinstance(part, str)]
    return f"{sum(len(one) for one in found if isinstance(one, list))} {names[-1]} in {len(items)} items"
