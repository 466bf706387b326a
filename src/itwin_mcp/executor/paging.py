"""A list page by page: within a limit and a budget, and always saying whether it is complete."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from itwin_mcp.capability.plans import Operation, Output, PagePlan
from itwin_mcp.errors import StateUnusable
from itwin_mcp.executor.cursors import Cursors, Position
from itwin_mcp.executor.sending import Answer, Run
from itwin_mcp.executor.walk import Budget, Sink, Walk

MOST_PAGES = 100
"""Requests for one call."""
MOST_SECONDS = 45.0
"""After this no further page is awaited; some clients give up at a minute."""
MOST_SAVED = 100_000
"""Items that a list written to a file may have; it has a budget of its own."""
MOST_SAVED_PAGES = 1_000
MOST_SAVED_SECONDS = 600.0


_NO_KEY = "the folder of ITWIN_MCP_STATE_DIR, where the server keeps the key for cursors, cannot be used"
_TOO_LONG = "the platform's link to the next page is too long to be kept"


@dataclass(frozen=True, slots=True)
class Listing:
    """A list as far as it was read: the answer with all items in it, and the answer's `page`."""

    result: dict[str, Any]
    page: dict[str, Any]


async def list_pages(
    run: Run,
    operation: Operation,
    values: Mapping[str, Any],
    output: Output,
    *,
    limit: int,
    cursor: str | None,
    cursors: Cursors,
    most_bytes: int | None = None,
    full: bool = False,
) -> Listing:
    """Follow the platform's paging until `limit` items, `most_bytes` of them, the end, or the budget.

    Each page is shaped when it comes, so that no more than one is held as the platform gave it. A page that fails
    after others came ends the list with what came, a cursor and the error. Raises InvalidArguments for a cursor that
    was not given for this call or is stale, and what the first page raises.
    """
    start = cursors.take(cursor) if cursor is not None else Position()
    walk = Walk(
        run, operation, values, start, limit, output, Budget(MOST_PAGES, MOST_SECONDS), full=full, room=most_bytes
    )
    read = await walk.collect()
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
    total = read.total if read.total is not None else start.before + read.count if read.complete else None
    if total is not None:
        page["total"] = total
    if read.stopped is not None:
        page["stoppedBecause"] = read.stopped
    if read.error is not None:
        page["error"] = read.error.to_json(run.name)
    return Listing(walk.result(read), page)


@dataclass(frozen=True, slots=True)
class SavedPages:
    """What became of a list that went into a sink: the answer's `page`, and the first items."""

    page: dict[str, Any]
    items: list[Any]


async def save_pages(
    run: Run,
    operation: Operation,
    values: Mapping[str, Any],
    output: Output,
    sink: Sink,
    *,
    full: bool = False,
    limit: int | None = None,
) -> SavedPages:
    """Pass all pages to the sink, up to `limit` items, at most `MOST_SAVED`.

    A page that fails after others came ends it with what came and the error. Raises what the first page raises.
    """
    budget = Budget(MOST_SAVED_PAGES, MOST_SAVED_SECONDS)
    most = min(limit or MOST_SAVED, MOST_SAVED)
    walk = Walk(run, operation, values, Position(), most, output, budget, sink=sink, full=full)
    read = await walk.collect()
    page: dict[str, Any] = {"returned": read.count, "complete": read.complete}
    total = read.total if read.total is not None else read.count if read.complete else None
    if total is not None:
        page["total"] = total
    if not read.complete:
        more = "raise limit" if limit is not None and limit < MOST_SAVED else "narrow the list with filters"
        page["stoppedBecause"] = read.stopped or f"at most {most} items are saved: {more}"
    if read.error is not None:
        page["error"] = read.error.to_json(run.name)
    return SavedPages(page, read.items)


async def list_all(
    run: Run,
    operation: Operation,
    values: Mapping[str, Any],
    *,
    most: int,
    pages: int = MOST_PAGES,
    strict: bool = False,
) -> tuple[Answer, dict[str, Any] | None]:
    """All pages, up to `most` items in at most `pages` requests, as one answer; and a `page` where it is not all.

    With `strict` a list that is null is an error: a decision must not take it for an empty one. Raises what the
    failing page raises.
    """
    budget = Budget(pages, MOST_SECONDS)
    walk = Walk(run, operation, values, Position(), most, None, budget, whole=True, strict=strict)
    read = await walk.collect()
    if read.complete:
        return walk.whole(read), None
    assert operation.page is not None
    spent = read.stopped is None or read.pages >= pages
    stopped = f"only the first {_told(operation.page, read.items)} are read here" if spent else read.stopped
    return walk.whole(read), {"returned": len(read.items), "complete": False, "stoppedBecause": stopped}


def _told(plan: PagePlan, items: list[Any]) -> str:
    """How much was read, in what the bound of a step counts."""
    if plan.counts is None:
        return f"{len(items)} items"
    found = [plan.counts.find(item) for item in items]
    names = [part for part in plan.counts.parts if isinstance(part, str)]
    return f"{sum(len(one) for one in found if isinstance(one, list))} {names[-1]} in {len(items)} items"
