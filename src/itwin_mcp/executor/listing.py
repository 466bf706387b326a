"""The stage `run` of a list tool: decides how many items, pages and bytes it reads, and of which places."""

from __future__ import annotations

from itwin_mcp.capability.tool_actions import Call
from itwin_mcp.executor.context import CallContext
from itwin_mcp.executor.flow_steps import count_requests_left, find_places
from itwin_mcp.executor.further_reads import find_due_reads, share_requests
from itwin_mcp.executor.limits import measure
from itwin_mcp.executor.paging import Cursors, list_pages

_NAMES_SHARE = 6
"""One in this many parts of a list's bytes is reserved for the names next to ids, which are read after the items."""
_RESERVED = 1_500
"""Bytes reserved for the rest of the answer, mainly the cursor; at most a third of the limit."""


async def run_list(context: CallContext) -> CallContext:
    """Read pages until `limit`, the size limit, the end of the list or the budget is reached. Raises CallError."""
    run, action, arguments = context.run, context.tool.action, context.arguments
    assert isinstance(action, Call)
    max_bytes = run.max_bytes - min(_RESERVED, run.max_bytes // 3) - measure(list(context.resolved))
    if action.output.asks_for_names:
        max_bytes -= max_bytes // _NAMES_SHARE
    places = await find_places(run, action, arguments)
    reads, limit = find_due_reads(action, arguments), arguments["limit"]
    max_items, max_requests = share_requests(run, action, reads, limit, count_requests_left(run, action, places))
    answer, page = await list_pages(
        run,
        action.operation,
        places,
        action.output,
        limit=max_items,
        cursor=arguments.get("cursor"),
        cursors=Cursors(run.seals, context.tool.name, arguments, run.caller),
        max_requests=max_requests,
        max_bytes=max_bytes,
        full=arguments["fields"] == "all",
    )
    if max_items < limit and "cursor" in page:
        names = ", ".join(read.name for read in reads)
        why = f"with {names} at most {max_items} items are returned at a time: continue with the cursor"
        page.setdefault("stoppedBecause", why)
    return context.with_answer({**answer, "page": page})
