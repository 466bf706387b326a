"""Reads lists page by page within a limit and a budget, and reports whether they are complete or a cursor continues.

The platform pages in three ways: a link to the next page, a token, or a number of items to skip. The reader follows
any of them, but only to the same list at the same origin, and never in a circle. A cursor is a sealed position, so that
a later call continues where this one ended, in the middle of a page if need be.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
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
"""Characters of a cursor."""
MAX_TRAIL = 50

_WORDS: Mapping[Flaw, str] = {
    "unreadable": "it was altered or cut, or another server gave it",
    "expired": "it has expired: a cursor lasts a day",
    "of another caller": "it was given to another caller",
    "of another purpose": "it was given by another tool, or for other arguments",
}


@dataclass(frozen=True, slots=True)
class Position:
    """The place where a later call continues a list.

    `query` requests the page, and is None for the first. `offset` items of that page were returned, and `given` is
    their digest. `before` counts all items returned so far, and `size` is the requested page size. `trail` has marks of
    the pages that were read, so that a circle is noticed across calls. `place` is the id of the iTwin or iModel that
    has the list, if the lists of several are read.
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
        # Limit and cursor may differ from call to call. Any other filter would select another list.
        others = {name: value for name, value in arguments.items() if name not in ("limit", "cursor")}
        self._purpose = f"cursor 1 of {tool} {digest(others)}"
        self._seals = seals
        self._tool = tool
        self._caller = caller

    def seal(self, position: Position) -> str | None:
        """Return the cursor of a position, or None if the platform's link is too long for a cursor."""
        cursor = self._seals.seal(self._purpose, self._caller, asdict(position))
        return cursor if len(cursor) <= MAX_CURSOR else None

    def open(self, cursor: str) -> Position:
        """Return the position of a cursor. Raises InvalidArguments if the cursor belongs to another call."""
        try:
            position = self._seals.open(cursor, self._purpose, self._caller, seconds=CURSOR_SECONDS)
        except SealError as broken:
            why = _WORDS[broken.flaw]
            raise InvalidArguments(
                f"The cursor cannot be used: {why}; nothing was sent.",
                hint=f"Pass page.cursor exactly as {self._tool} gave it and repeat the other arguments, or leave "
                "cursor out to start over.",
                details=[{"code": DetailCode.INVALID_ARGUMENT, "target": "cursor", "message": f"cursor: {why}"}],
            ) from None
        return Position(**{**position, "trail": tuple(position["trail"])})


def digest(value: Any) -> str:
    """Return a short fingerprint of a JSON value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def digest_items(items: list[Any]) -> str:
    """Return a fingerprint of items: of their ids, so that a changed name does not matter, or of a whole item."""
    return digest([item["id"] if isinstance(item, dict) and item.get("id") else item for item in items])


# --- the places whose lists a call reads ----------------------------------------------------------------------------


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
    """Selects the items to list; None selects all."""

    def starting_at(self, start: Position) -> Sequence[ListPlace]:
        """Return the places from the cursor's on. Raises InvalidArguments if that one is no longer among them."""
        if not start.place:
            return self.places
        index = next((index for index, place in enumerate(self.places) if place.id == start.place), None)
        if index is None:
            raise _report_stale("The cursor continues in an iTwin or iModel that this call no longer reads.")
        return self.places[index:]


def _report_stale(message: str) -> InvalidArguments:
    return InvalidArguments(
        message,
        hint="Leave cursor out and start over.",
        details=[{"code": DetailCode.INVALID_ARGUMENT, "target": "cursor", "message": "cursor is stale"}],
    )


# --- the requests for the pages of one list -------------------------------------------------------------------------


def build_first_page_request(operation: Operation, values: Mapping[str, Any], size: int) -> Request:
    """Build the request of a list's first page with `size` items, without its credential."""
    assert operation.page is not None
    return build_request(operation, {**values, operation.page.size: size} if operation.page.size else values)


class _PageRequests:
    """Builds the requests for the pages of one list, and finds where the next page begins."""

    def __init__(self, run: Run, operation: Operation, values: Mapping[str, Any], start: Position, limit: int) -> None:
        assert operation.page is not None
        self._run, self._plan = run, operation.page
        self._wire_names = {parameter.name: parameter.wire for parameter in operation.parameters}
        self._size_name = self._wire_names.get(self._plan.size or "")
        # The size of a page found by counting may change. The size that an opaque token stands for may not.
        counted = start.query is None or self._has_skip(start.query)
        self.size = self._plan.size_for(limit) if counted else start.size
        self._first = build_first_page_request(operation, values, self.size)

    def build(self, position: Position) -> Request:
        """Return the request for the page at a position."""
        if position.query is None:
            return self._first
        pairs = _parse_query(position.query)
        # A later call may have another limit, so a page that is found by counting is requested in the new size.
        if self._size_name is not None and self._has_skip(position.query):
            pairs = [pair for pair in pairs if pair[0] != self._size_name] + [(self._size_name, str(self.size))]
        return replace(self._first, query=tuple(pairs))

    def find_next(self, body: Any, entries: int, position: Position, before: int) -> tuple[Position | None, str | None]:
        """Return where the page after `position` begins, or None; and why that page cannot be read, or None.

        `entries` counts the entries of the page, and `before` those of the list up to its end.
        """
        plan = self._plan
        if plan.style == "skip":
            # Nothing in the answer says whether more follows: a page that is not full is the last one.
            if entries < (self.size if plan.size is not None else 1):
                return None, None
            query: str | None = self._set_input(plan.skip, str(before))
        else:
            value = _find_next(body, plan.next) if plan.next is not None else None
            if value is None:
                return None, None
            if not isinstance(value, str):
                return None, "what the platform gives as the next page is not a link"
            query = self._set_input(plan.token, value) if plan.style == "token" else self._read_link(value)
            if query is None:
                return None, "the platform's link to the next page is not a link to this list and was not followed"
        # The cursor carries the marks of the pages that were read, so a circle is noticed across calls, too.
        mark, next_mark = self._mark(position.query), self._mark(query)
        if next_mark in (*position.trail, mark):
            return None, "the platform's link to the next page leads back to a page that was read"
        trail = (*position.trail, mark)[-MAX_TRAIL:]
        return Position(query, before=before, size=self.size, trail=trail, place=position.place), None

    def _set_input(self, parameter: str | None, value: str) -> str:
        """Return the query of the first page with one input set."""
        name = self._wire_names.get(parameter or "")
        return urlencode([*(pair for pair in self._first.query if pair[0] != name), (str(name), value)])

    def _read_link(self, link: str) -> str | None:
        """Return the query of a link to the same list at the same origin; None for any other link.

        Only the query of a link is used. The origin and path stay ours, so that no answer can send a request, with its
        token, anywhere else.
        """
        try:
            origin, target = split_url(link)
            parts = urlsplit(target)
            origins = self._run.find_origins(self._first.origin)
        except ValueError:
            return None
        # The platform spells its paths now `/itwins`, now `/iTwins`; the path that is sent stays ours.
        if origin not in origins or _split_path(parts.path) != _split_path(self._first.path):
            return None
        return parts.query

    def _has_skip(self, query: str) -> bool:
        """Return whether the page is found by a number of items to skip."""
        names = {"$skip", "skip", self._wire_names.get(self._plan.skip or "")}
        return any(name in names and value.isdecimal() for name, value in _parse_query(query))

    def _mark(self, query: str | None) -> str:
        """Return a short hash of a page's query that does not depend on the page size or the order of the query."""
        pairs = self._first.query if query is None else _parse_query(query)
        return sha256(repr(sorted(pair for pair in pairs if pair[0] != self._size_name)).encode()).hexdigest()[:8]


def _find_next(body: Any, path: JsonPath) -> Any:
    """Return the link or token of the next page, or None at the end of the list.

    If a value on the path is not an object, return that value: the list has not ended, but its next page is unreadable.
    """
    value = body
    for part in path.parts:
        if not isinstance(value, dict) or not isinstance(part, str):
            break
        value = value.get(part)
        if value in (None, "", [], {}):
            return None
    return value if path.query is None else path.find(body) or None


def _parse_query(query: str) -> list[tuple[str, str]]:
    return parse_qsl(query, keep_blank_values=True)


def _split_path(path: str) -> list[str]:
    return [unquote(segment).lower() for segment in path.rstrip("/").split("/")]


# --- the pages of one list, or of several one after the other -------------------------------------------------------

SHOWN = 3
"""Items that the answer shows of a list that is saved."""
SHOWN_REFUSED = 5
"""Ids of unreadable places that `page` names."""

Sink = Callable[[list[Any]], Awaitable[None]]
"""Takes the items of one page."""

_FULL = "the answer has as many bytes as it may have: continue with the cursor"


@dataclass(frozen=True, slots=True)
class Beyond:
    """The part of a list after the limit: the number of items left on the last page, and the page after it, if any."""

    count: int
    page: Position | None


@dataclass(slots=True)
class Read:
    """The pages that were read so far."""

    items: list[Any] = field(default_factory=list)
    count: int = 0
    """The number of items; `items` has all of them, unless they go into a sink."""
    first: Answer | None = None
    requests: int = 0
    fingerprint: str = ""
    """The fingerprint of the last page."""
    next: Position | None = None
    beyond: Beyond | None = None
    """Set if the list continues after the limit."""
    stopped: str | None = None
    """Why the list is not complete, unless the limit is the reason."""
    error: CallError | None = None
    total: int | None = None

    @property
    def complete(self) -> bool:
        return self.next is None and self.stopped is None


@dataclass(frozen=True, slots=True)
class _Page:
    answer: Answer
    items: list[Any]
    taken: list[Any]
    left_out: int
    """The number of entries that are not objects, although the items of this list are."""
    end: int
    """The index in `items` where a cursor continues."""


class _PageReader:
    """Reads the pages of lists within one limit and one budget.

    It stops at the limit, at the size limit, when the budget is spent, at the end, and at anything odd: a page that
    repeats, a link to another list, a circle. `Read.stopped` says why, and `Read.next` where a cursor continues.
    """

    def __init__(
        self,
        run: Run,
        operation: Operation,
        output: Output | None,
        *,
        limit: int,
        max_requests: int,
        seconds: float,
        max_bytes: int | None = None,
        full: bool = False,
        sink: Sink | None = None,
        all_or_nothing: bool = False,
        strict: bool = False,
    ) -> None:
        """Without an `output`, items are kept as the platform sends them.

        With `all_or_nothing` a failed page is an error; with `strict`, a null list is.
        """
        assert operation.page is not None
        self._run, self._operation, self._plan, self._output = run, operation, operation.page, output
        self._limit, self._max_requests, self._seconds = limit, max_requests, seconds
        self._bytes_left, self._full, self._sink = max_bytes, full, sink
        self._all_or_nothing, self._strict = all_or_nothing, strict
        self._member, self._item = _find_item_shape(output, self._plan) if output is not None else (None, None)
        self._continue = ": continue with the cursor" if sink is None and not all_or_nothing else ""
        self._began = run.now()

    async def collect(self, places: Places, start: Position) -> Read:
        """Read one list after the other until there is a reason to stop.

        If there are several places, leave out and report those that the caller cannot see, that are gone, or whose
        answer cannot be read: another call would fail there again. Raises what the first page raises.
        """
        read, refused = Read(), list[tuple[ListPlace, CallError]]()
        remaining = places.starting_at(start)
        for index, place in enumerate(remaining):
            position = replace(start if index == 0 else Position(), place=place.id)
            if index:
                is_full = self._bytes_left is not None and self._bytes_left <= 0
                read.stopped = _FULL if is_full else self._report_spent(read)
                if read.stopped is not None or read.count >= self._limit:
                    read.next = position
                    break
            try:
                await self._collect_place(read, place, position, places.matches)
            except (PlatformError, UnexpectedAnswer, Unreachable) as error:
                read.requests += 1
                if _is_skipped(error) and len(places.places) > 1:
                    refused.append((place, error))
                    continue
                if index == 0:
                    raise
                self._stop_at_error(read, error, position)
            if not read.complete:
                if read.next is None and index + 1 < len(remaining):
                    read.next = Position(place=remaining[index + 1].id)
                break
        if refused and read.first is None and read.error is None:
            raise refused[0][1]
        if refused:
            statuses = {str(error.status) if isinstance(error, PlatformError) else error.code for _, error in refused}
            ids = ", ".join(place.id for place, _ in refused[:SHOWN_REFUSED])
            left_out = f"{len(refused)} of {len(remaining)} could not be read ({', '.join(sorted(statuses))}): {ids}"
            read.stopped = f"{read.stopped}; {left_out}" if read.stopped else left_out
        return read

    def merge(self, read: Read) -> Answer:
        """Return the first page's answer with all items in the platform's form; with none if they are shaped."""
        first = read.first or Answer(None, {})
        items = read.items if self._member is None else []
        return Answer(_replace_items(first.body, self._plan.items.parts, items), first.headers)

    def shape(self, read: Read) -> dict[str, Any]:
        """Return the answer of the tool."""
        assert self._output is not None
        answer = shape_answer(self._run, self._operation, self._output, self.merge(read))
        return answer if self._member is None else {**answer, self._member: read.items}

    # --- one list -----------------------------------------------------------------------------------------------

    async def _collect_place(
        self, read: Read, place: ListPlace, start: Position, matches: Callable[[Any], bool] | None
    ) -> None:
        """Read the pages of one place. Raises what its first page raises."""
        size = start.offset + self._limit - read.count if matches is None else self._plan.most
        requests = _PageRequests(self._run, self._operation, place.values, start, size)
        read.fingerprint, position = "", start
        while True:
            # The first page is always awaited: an answer without a single item would only be requested again.
            is_first = position is start
            if not is_first and (spent := self._report_spent(read)):
                read.stopped, read.next = spent, position
                return
            try:
                with anyio.move_on_after(None if is_first else self._seconds_left) as timeout:
                    page = await self._read_page(requests.build(position), place, position, read, matches)
            except CallError as error:
                # The earlier items are worth returning, with a cursor to the page that failed. A list that must be
                # whole is not, because a decision would take it for all.
                if self._all_or_nothing or is_first:
                    raise
                self._stop_at_error(read, error, position)
                return
            if timeout.cancelled_caught:
                read.stopped, read.next = f"the next page took too long{self._continue}", position
                return
            following = await self._add(read, page, position, requests)
            if following is None:
                return
            position = following
            if read.requests > 1:
                total = max(min(self._limit, read.total or self._limit), read.count)
                await self._run.conversation.progress(read.count, total, f"{read.count} items read so far")

    @property
    def _seconds_left(self) -> float:
        return self._seconds - (self._run.now() - self._began)

    def _report_spent(self, read: Read) -> str | None:
        """Return the reason to stop if this call has no requests or no time left."""
        spent = read.requests >= self._max_requests or self._seconds_left <= 0
        return f"this call took its share of requests and time{self._continue}" if spent else None

    def _stop_at_error(self, read: Read, error: CallError, position: Position) -> None:
        read.error, read.next = error, position
        read.stopped = f"the next page failed ({error.code}){self._continue}"

    async def _read_page(
        self, request: Request, place: ListPlace, position: Position, read: Read, matches: Callable[[Any], bool] | None
    ) -> _Page:
        """Return one page with those of its items that match and fit, in the shape of the tool."""
        answer = await self._run.send(self._operation, request)
        items, left_out = self._find_items(answer.body, position)
        limit = self._limit - read.count
        indexes = range(position.offset, len(items))
        picked = [index for index in indexes if matches is None or matches(items[index])][:limit]
        raw = [
            {**items[index], **place.label} if place.label and isinstance(items[index], dict) else items[index]
            for index in picked
        ]
        # A cursor continues after the last item that was taken, or at the next page if this one is used up.
        taken, end = raw, picked[-1] + 1 if len(picked) == limit else len(items)
        if self._item is not None:
            taken = shape_items(self._item, raw, answer.headers, self._plan.items.text, self._run.warnings)
            if self._full:
                taken = [add_other_fields(*pair) for pair in zip(taken, raw, strict=True)]
        if self._bytes_left is not None:
            # The first item is returned however large it is, or the same cursor would be returned for ever.
            taken, self._bytes_left = take_fitting(taken, self._bytes_left, always_first=read.count == 0)
            end = end if len(taken) == len(picked) else picked[len(taken)]
        return _Page(answer, items, taken, left_out, end)

    def _find_items(self, body: Any, position: Position) -> tuple[list[Any], int]:
        """Return the items of a page, and the number of entries left out because they are not objects."""
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
        # A cursor may point into the middle of a page. If the items before it are no longer the same, something was
        # added or removed, and continuing would skip or repeat items.
        if position.offset and digest_items(items[: position.offset]) != position.given:
            raise _report_stale(
                "The list has changed since the cursor was given: the items before it are no longer the same."
            )
        return items, entries - len(items)

    async def _add(self, read: Read, page: _Page, position: Position, requests: _PageRequests) -> Position | None:
        """Add a page to `read`. Return where this call continues, or None if it ends here."""
        # A platform that ignores the link or the number of items to skip returns the same page for ever.
        fingerprint = digest_items(page.items)
        if page.items and fingerprint == read.fingerprint:
            read.stopped = "the platform gave the same page again"
            return None
        read.requests, read.fingerprint = read.requests + 1, fingerprint
        read.first = read.first or page.answer
        read.count += len(page.taken)
        read.items.extend(page.taken if self._sink is None else page.taken[: max(SHOWN - len(read.items), 0)])
        if self._sink is not None and page.taken:
            await self._sink(page.taken)
        unread, entries = len(page.items) - page.end, len(page.items) + page.left_out
        # All entries of the list up to the cursor: entries left out count when the page is used up.
        before = position.before + page.end - position.offset + (0 if unread else page.left_out)
        # A total that is smaller than what was read already cannot be right.
        total = self._plan.count.find(page.answer.body) if self._plan.count is not None else None
        read.total = total if type(total) is int and total >= before else None
        if unread:
            given = digest_items(page.items[: page.end])
            read.next = replace(position, offset=page.end, given=given, before=before, size=requests.size)
            after, problem = requests.find_next(page.answer.body, entries, position, before + unread + page.left_out)
            if problem is None:
                read.beyond = Beyond(unread, after)
            if self._bytes_left == 0:
                read.stopped = _FULL
            return None
        if self._plan.within is not None and before >= self._plan.within:
            read.total = None
            read.stopped = f"the platform lists at most {self._plan.within} items: narrow the list with its filters"
            return None
        following, read.stopped = requests.find_next(page.answer.body, entries, position, before)
        if following is not None and read.count >= self._limit:
            read.next, read.beyond, following = following, Beyond(0, following), None
        return following


def _is_skipped(error: CallError) -> bool:
    return isinstance(error, UnexpectedAnswer) or (isinstance(error, PlatformError) and error.status in (403, 404))


def _find_item_shape(output: Output, plan: PagePlan) -> tuple[str | None, Output | None]:
    """Return the member of the answer that holds the items, and the shape of an item.

    Return `(None, None)` if the items cannot be shaped page by page.
    """
    for name, child in output.properties:
        if child.kind == "array" and child.path is not None and child.path.parts == plan.items.parts:
            item = child.items
            return (None, None) if item is not None and item.path is not None else (name, item)
    return None, None


def _replace_items(value: Any, parts: tuple[PathPart, ...], items: list[Any]) -> Any:
    """Return a copy of the value with `items` at the path `parts`."""
    if not parts:
        return items
    part, below = parts[0], parts[1:]
    if isinstance(part, str):
        members = value if isinstance(value, dict) else {}
        return {**members, part: _replace_items(members.get(part), below, items)}
    return [_replace_items(child, below, items) if index == part else child for index, child in enumerate(value or ())]


# --- what tools do with lists: return a part, save all, or decide from all ------------------------------------------

MAX_PAGES = 100
"""Requests for one call."""
MAX_SECONDS = 45.0
"""No further page is awaited after this; some clients give up after a minute."""
MAX_COUNT_SECONDS = 5.0
"""Seconds to wait for the page that only counts what follows."""
MAX_SAVED = 100_000
"""Items of a list written to a file, which has a budget of its own."""
MAX_SAVED_PAGES = 1_000
MAX_SAVED_SECONDS = 600.0

_NO_KEY = "the folder of ITWIN_MCP_STATE_DIR, where the server keeps the key for cursors, cannot be used"
_TOO_LONG = "the platform's link to the next page is too long to be kept"


async def list_pages(
    run: Run,
    operation: Operation,
    places: Places,
    output: Output,
    *,
    limit: int,
    cursor: str | None,
    cursors: Cursors,
    max_requests: int = MAX_PAGES,
    max_bytes: int | None = None,
    full: bool = False,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read pages up to `limit` items, `max_bytes`, the end, or the budget. Return the answer and its `page`.

    Each page is shaped on arrival, so that only one is held in the platform's form. If a later page fails, the list
    ends with what was read, a cursor and the error. Raises InvalidArguments for a stale cursor or one of another call,
    or what the first page raises.
    """
    start = cursors.open(cursor) if cursor is not None else Position()
    reader = _PageReader(
        run,
        operation,
        output,
        limit=limit,
        max_requests=max_requests,
        seconds=MAX_SECONDS,
        max_bytes=max_bytes,
        full=full,
    )
    read = await reader.collect(places, start)
    next_cursor = None
    if read.next is not None:
        problem = _NO_KEY
        # Without its key the server can still return the items.
        with suppress(StateUnusable):
            next_cursor, problem = cursors.seal(read.next), _TOO_LONG
        if next_cursor is None:
            read.stopped = f"the list cannot be continued, because {problem}: take more at once with limit"
    total = read.total
    if total is None and read.complete:
        total = start.before + read.count
    if places.matches is not None or len(places.places) != 1:
        # A cursor counts neither the items of the places before its own, nor only those that match.
        total = read.count if read.complete and cursor is None else None
    elif total is None and read.beyond is not None and cursor is None:
        total = await _count_all(run, operation, places, read.count, read.beyond)
    return reader.shape(read), _describe_page(run, places, read, total, next_cursor)


async def _count_all(run: Run, operation: Operation, places: Places, returned: int, beyond: Beyond) -> int | None:
    """Return how many items a list has if at most one more page, as large as possible, shows its end.

    An agent that reads the first items of a list mostly wants to know how many there are. Return None for a list that
    is longer, fails or takes too long: counting it is not worth more of the call's time.
    """
    plan = operation.page
    assert plan is not None
    if plan.counts is not None:  # a page may end within an item, so that items are no measure of the list
        return None
    total = returned + beyond.count
    if beyond.page is not None:
        reader = _PageReader(
            run,
            operation,
            None,
            limit=plan.most,
            max_requests=1,
            seconds=MAX_COUNT_SECONDS,
            all_or_nothing=True,
            strict=True,
        )
        try:
            with anyio.fail_after(MAX_COUNT_SECONDS):
                read = await reader.collect(places, beyond.page)
        except (CallError, TimeoutError):
            return None
        if not read.complete:
            return None
        total += read.count
    return total if plan.within is None or total < plan.within else None


async def save_pages(
    run: Run,
    operation: Operation,
    places: Places,
    output: Output,
    sink: Sink,
    *,
    full: bool = False,
    limit: int | None = None,
) -> tuple[dict[str, Any], list[Any]]:
    """Pass up to `limit` items, at most `MAX_SAVED`, to the sink. Return the answer's `page` and the first items.

    If a later page fails, the list ends with what was read and the error. Raises what the first page raises.
    """
    max_items = min(limit or MAX_SAVED, MAX_SAVED)
    reader = _PageReader(
        run,
        operation,
        output,
        limit=max_items,
        max_requests=MAX_SAVED_PAGES,
        seconds=MAX_SAVED_SECONDS,
        full=full,
        sink=sink,
    )
    read = await reader.collect(places, Position())
    is_whole_list = len(places.places) == 1 and places.matches is None
    total = read.total if read.total is not None and is_whole_list else read.count if read.complete else None
    if not read.complete:
        advice = "raise limit" if limit is not None and limit < MAX_SAVED else "narrow the list with filters"
        read.stopped = read.stopped or f"at most {max_items} items are saved: {advice}"
    return _describe_page(run, places, read, total), read.items


def _describe_page(
    run: Run, places: Places, read: Read, total: int | None, cursor: str | None = None
) -> dict[str, Any]:
    """Return the `page` of an answer, with what is not read of the places, and why."""
    left_out = places.page or {}
    reasons = [read.stopped, left_out.get("stoppedBecause")]
    members = {
        "returned": read.count,
        "complete": read.complete and not left_out,
        "cursor": cursor,
        "total": None if left_out else total,
        "stoppedBecause": "; ".join(filter(None, reasons)) or None,
        "error": read.error.to_json(run.name) if read.error is not None else None,
        "notRead": left_out.get("notRead"),
    }
    return {name: value for name, value in members.items() if value is not None}


async def list_all(
    run: Run,
    operation: Operation,
    values: Mapping[str, Any],
    *,
    limit: int,
    max_requests: int = MAX_PAGES,
    strict: bool = False,
) -> tuple[Answer, dict[str, Any] | None]:
    """Return all pages as one answer, up to `limit` items and `max_requests`; and a `page` if it is not all.

    With `strict` a null list is an error: a decision must not take it for an empty one. Raises what the failing page
    raises.
    """
    reader = _PageReader(
        run,
        operation,
        None,
        limit=limit,
        max_requests=max_requests,
        seconds=MAX_SECONDS,
        all_or_nothing=True,
        strict=strict,
    )
    read = await reader.collect(Places([ListPlace("", values)]), Position())
    if read.complete:
        return reader.merge(read), None
    assert operation.page is not None
    is_cut = read.stopped is None or read.requests >= max_requests
    amount = _describe_amount(operation.page, read.items)
    stopped = f"only the first {amount} are read here" if is_cut else read.stopped
    return reader.merge(read), {"returned": len(read.items), "complete": False, "stoppedBecause": stopped}


def _describe_amount(plan: PagePlan, items: list[Any]) -> str:
    """Return how much was read, in the unit that `most` of the step counts."""
    if plan.counts is None:
        return f"{len(items)} items"
    lists = [plan.counts.find(item) for item in items]
    names = [part for part in plan.counts.parts if isinstance(part, str)]
    return f"{sum(len(parts) for parts in lists if isinstance(parts, list))} {names[-1]} in {len(items)} items"
