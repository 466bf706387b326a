"""A list page by page: within a limit and a budget, and always saying whether it is complete."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from itwin_mcp.capability.catalog import Operation, PagePlan
from itwin_mcp.capability.expressions import ABSENT
from itwin_mcp.errors import CallError, InvalidArguments, UnexpectedAnswer
from itwin_mcp.executor.request import build_request
from itwin_mcp.executor.seals import SealBroken, Seals
from itwin_mcp.executor.sending import Answer, Run
from itwin_mcp.upstream.wire import Request

MOST_PAGES = 100
"""Requests for one call."""
MOST_SECONDS = 45.0
"""After this no further page is begun; some clients give up at a minute."""
CURSOR_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True)
class Position:
    """Where a list goes on: the page (its link's path and query, None for the first), how many of its items were
    given (`offset`, `given` is their digest), how many in all (`before`), and the page size that was asked."""

    link: str | None = None
    offset: int = 0
    given: str = ""
    before: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class Listing:
    """What was collected: the first page's answer with all items in it, and the answer's `page`."""

    answer: Answer
    page: dict[str, Any]


async def list_pages(
    run: Run,
    operation: Operation,
    values: Mapping[str, Any],
    *,
    limit: int,
    cursor: str | None,
    seals: Seals,
    tool: str,
    arguments: Mapping[str, Any],
) -> Listing:
    """Follow the platform's paging until `limit` items, the end, or the budget.

    A page that fails after others came ends the list with what came, a cursor and the error. Raises InvalidArguments
    for a cursor that is not ours, of another tool, arguments or caller, or stale.
    """
    plan = operation.page
    assert plan is not None
    purpose = f"{tool} with the same arguments"
    bound = f"cursor of {purpose} {_digest(_without_paging(arguments))}"
    start = _open_cursor(cursor, bound, purpose, run, seals) if cursor is not None else Position()
    size = start.size or min(plan.most, limit)
    base = build_request(operation, dict(values) | ({plan.size: size} if plan.size else {}), run.environment)
    walk = _Walk(run, operation, plan, base, size)
    collected = await walk.collect(start, limit)
    page: dict[str, Any] = {"returned": len(collected.items), "complete": collected.next is None}
    if collected.stopped is not None:
        page["complete"] = False
        page["stoppedBecause"] = collected.stopped
    if collected.next is not None:
        position = collected.next
        page["cursor"] = seals.seal(
            bound,
            run.caller,
            {"l": position.link, "o": position.offset, "g": position.given, "b": position.before, "s": position.size},
        )
    if collected.total is not None:
        page["total"] = collected.total
    elif page["complete"] and start.before == 0 and start.offset == 0:
        page["total"] = len(collected.items)
    return Listing(Answer(_replace(collected.body, plan, collected.items), collected.headers), page)


async def list_all(run: Run, operation: Operation, values: Mapping[str, Any], *, most: int) -> Answer:
    """All pages of a step's list, up to `most` items. Raises what the failing page raises."""
    plan = operation.page
    assert plan is not None
    size = min(plan.most, most)
    base = build_request(operation, dict(values) | ({plan.size: size} if plan.size else {}), run.environment)
    collected = await _Walk(run, operation, plan, base, size, whole=True).collect(Position(), most)
    return Answer(_replace(collected.body, plan, collected.items), collected.headers)


@dataclass(slots=True)
class _Collected:
    items: list[Any]
    body: Any
    headers: Mapping[str, str]
    next: Position | None = None
    stopped: str | None = None
    total: int | None = None


class _Walk:
    def __init__(
        self, run: Run, operation: Operation, plan: PagePlan, base: Request, size: int, *, whole: bool = False
    ) -> None:
        self._run = run
        self._operation = operation
        self._plan = plan
        self._base = base
        self._size = size
        self._whole = whole

    async def collect(self, start: Position, limit: int) -> _Collected:
        plan, run = self._plan, self._run
        found = _Collected([], None, {})
        position, pages, began = start, 0, run.now()
        seen = {start.link}
        while True:
            if pages and (pages >= MOST_PAGES or run.now() - began > MOST_SECONDS):
                found.next = position
                found.stopped = "the budget of this call is used up; go on with the cursor"
                return found
            try:
                answer = await run.send(self._request(position))
                items = self._items(answer, position)
            except CallError as error:
                if pages == 0 or self._whole:
                    raise
                found.next = position
                found.stopped = f"{error.code}: {error.message} {error.hint}"
                return found
            pages += 1
            if found.body is None:
                found.body, found.headers = answer.body, answer.headers
            found.total = _count(plan, answer.body)
            room = limit - len(found.items)
            fresh = items[position.offset :]
            found.items.extend(fresh[:room])
            if pages > 1:
                await run.conversation.progress(len(found.items), limit, f"{len(found.items)} items so far")
            if len(fresh) > room:
                taken = position.offset + room
                before = position.before + room
                found.next = Position(position.link, taken, _digest(items[:taken]), before, self._size)
                return found
            before = position.before + len(fresh)
            link, stopped = self._next(answer, position, len(items), seen)
            if plan.within is not None and before >= plan.within:
                found.stopped = f"the platform lists at most {plan.within} items: narrow the list with its filters"
                return found
            if link is None:
                found.stopped = stopped
                return found
            position = Position(link, 0, "", before, self._size)
            seen.add(link)
            if len(found.items) >= limit:
                found.next = position
                return found

    def _request(self, position: Position) -> Request:
        if position.link is None:
            return self._base
        parts = urlsplit(position.link)
        query = tuple(parse_qsl(parts.query, keep_blank_values=True))
        base = self._base
        return Request(
            base.method, base.origin, parts.path, query, base.headers, base.body, permission=base.permission
        )

    def _items(self, answer: Answer, position: Position) -> list[Any]:
        items = self._plan.items.find(answer.body)
        if items is None or items is ABSENT:
            items = []
        if not isinstance(items, list):
            raise UnexpectedAnswer(
                f"The platform's answer is not what this operation gives: {self._plan.items.text} is not a list.",
                hint="Try again; if it stays so, report it to the makers of itwin-mcp.",
            )
        if position.offset and _digest(items[: position.offset]) != position.given:
            raise InvalidArguments(
                "The list has changed since the cursor was given: the items before it are not the same.",
                hint="Call again without cursor and start over.",
                details=[{"code": "InvalidArgument", "target": "cursor", "message": "cursor is stale"}],
            )
        return items

    def _next(
        self, answer: Answer, position: Position, count: int, seen: set[str | None]
    ) -> tuple[str | None, str | None]:
        """The path and query of the next page, or None and, where the end is not the list's, why."""
        plan = self._plan
        if plan.style == "skip":
            if count < self._size:
                return None, None
            skipped = position.before - position.offset + count
            return self._with(plan.skip, str(skipped)), None
        value = plan.next.find(answer.body) if plan.next is not None else None
        if value is None or value is ABSENT or value == "":
            return None, None
        if not isinstance(value, str):
            return None, "the platform's link to the next page is not a link"
        link = self._with(plan.token, value) if plan.style == "token" else self._own(value)
        if link is None:
            return None, "the platform's link to the next page leads elsewhere and was not followed"
        if link in seen:
            return None, "the platform's link to the next page leads back to a page that was read"
        return link, None

    def _with(self, parameter: str | None, value: str) -> str:
        """The first page's address with one input set."""
        wire = next(one.wire for one in self._operation.parameters if one.name == parameter)
        pairs = [pair for pair in self._base.query if pair[0] != wire]
        return f"{self._base.path}?{urlencode([*pairs, (wire, value)])}"

    def _own(self, value: str) -> str | None:
        """The path and query of a link to the same list at the same origin; None for any other."""
        try:
            parts = urlsplit(value)
            origin = f"{parts.scheme}://{parts.netloc}".lower()
        except ValueError:
            return None
        if origin not in (self._base.origin, self._run.upstream.platform) or parts.username is not None:
            return None
        if parts.path.rstrip("/").lower() != self._base.path.rstrip("/").lower():
            return None
        return f"{self._base.path}?{parts.query}"


def _open_cursor(cursor: str, bound: str, purpose: str, run: Run, seals: Seals) -> Position:
    try:
        kept = seals.open(cursor, bound, run.caller, seconds=CURSOR_SECONDS)
    except SealBroken as broken:
        why = f"it was not given for {purpose}" if str(broken).startswith("it was given for") else str(broken)
        raise InvalidArguments(
            f"The cursor cannot be used: {why}.",
            hint="Pass page.cursor exactly as the same tool gave it, with the same arguments, or start over without.",
            details=[{"code": "InvalidArgument", "target": "cursor", "message": f"cursor: {why}"}],
        ) from None
    return Position(kept["l"], kept["o"], kept["g"], kept["b"], kept["s"])


def _without_paging(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name not in ("limit", "cursor")}


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _count(plan: PagePlan, body: Any) -> int | None:
    value = plan.count.find(body) if plan.count is not None else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _replace(body: Any, plan: PagePlan, items: list[Any]) -> Any:
    """The first page's body with all items in place of its own."""

    def put(value: Any, parts: tuple[str | int, ...]) -> Any:
        if not parts:
            return items
        first = parts[0]
        if isinstance(value, dict) and isinstance(first, str):
            return {**value, first: put(value.get(first), parts[1:])}
        return items if not isinstance(first, str) else {first: put(None, parts[1:])}

    return put(body, plan.items.parts)
