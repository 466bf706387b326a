"""The stage `run` of a tool that lists: which places it reads, and how much of them."""

from __future__ import annotations

from itwin_mcp.capability.tool_actions import Call
from itwin_mcp.executor.context import CallContext
from itwin_mcp.executor.flow_steps import find_places, pages_left
from itwin_mcp.executor.further_reads import find_due_reads, share_requests
from itwin_mcp.executor.limits import measure
from itwin_mcp.executor.paging import Cursors, list_pages

_FOR_NAMES = 6
"""One part in so many of a list's bytes is for the names next to ids, which are read after the items."""
_AROUND = 1_500
"""Bytes of a list's answer besides its items: its cursor most of all. At most a third of a small limit."""


async def run_list(context: CallContext) -> CallContext:
    """Read pages until the limit, the bytes, the end, or the budget. Raises CallError."""
    run, action, arguments = context.run, context.tool.action, context.arguments
    assert isinstance(action, Call)
    # What the engine adds counts too, so that a list leaves room for it.
    room = run.max_bytes - min(_AROUND, run.max_bytes // 3) - measure(list(context.resolved))
    if action.output.asks_for_names:
        room -= room // _FOR_NAMES
    places = await find_places(run, action, arguments)
    reads, limit = find_due_reads(action, arguments), arguments["limit"]
    most, pages = share_requests(run, action, reads, limit, pages_left(run, action, places))
    listing = await list_pages(
        run,
        action.operation,
        places,
        action.output,
        limit=most,
        cursor=arguments.get("cursor"),
        cursors=Cursors(run.seals, context.tool.name, arguments, run.caller),
        most_pages=pages,
        most_bytes=room,
        full=arguments["fields"] == "all",
    )
    if most < limit and "cursor" in listing.page:
        names = ", ".join(read.name for read in reads)
        why = f"with {names} at most {most} items are returned at a time: continue with the cursor"
        listing.page.setdefault("stoppedBecause", why)
    return context.with_answer({**listing.result, "page": listing.page})
