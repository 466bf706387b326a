"""`x-read`: members of an answer that come from one more GET each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import anyio

from itwin_mcp.capability.tool_actions import Call, FurtherRead
from itwin_mcp.errors import CallError
from itwin_mcp.executor.answers import shape_part
from itwin_mcp.executor.context import CallContext
from itwin_mcp.executor.flow_steps import AT_ONCE, MAX_READS, leaves_out
from itwin_mcp.executor.requests import bind
from itwin_mcp.executor.sending import Run


def find_due_reads(action: Call, arguments: Mapping[str, Any]) -> tuple[FurtherRead, ...]:
    """Return the reads that these arguments ask for."""
    return tuple(read for read in action.further if not leaves_out(read.condition, arguments, {}))


def share_requests(run: Run, action: Call, reads: Sequence[FurtherRead], limit: int, pages: int) -> tuple[int, int]:
    """Return how many items and pages of a list fit into the requests of a call that only reads, each at least 1.

    The pages of one list do not count, but for the one that may count what follows the items. Those of several lists
    do: `pages` is bounded then, and they share the requests with the reads. If names are read, they keep one request.
    """
    if not reads:
        return limit, pages
    left = MAX_READS - run.requests.sent - 1 - action.output.asks_for_names
    if pages <= left + 1:
        pages = max(left // 2, 1)
        left -= pages
    return min(limit, max(left // len(reads), 1)), pages


async def add_further_reads(context: CallContext) -> CallContext:
    """Stage after `run` of a tool whose answer has members that are read one by one."""
    action = context.tool.action
    assert isinstance(action, Call)
    answer = dict(context.answer)
    await read_further(context.run, find_due_reads(action, context.arguments), context.arguments, answer)
    return replace(context, answer=answer)


async def read_further(
    run: Run, reads: Sequence[FurtherRead], arguments: Mapping[str, Any], answer: dict[str, Any]
) -> None:
    """Add to the objects of a shaped answer what the reads give.

    A read that fails never fails the call, because the answer is worth having without it, and what was written stays
    written. Its member is null, and `warnings` says why.
    """
    limiter = anyio.CapacityLimiter(AT_ONCE)

    async def read_one(read: FurtherRead, item: dict[str, Any]) -> None:
        async with limiter:
            try:
                response = await run.perform(read.operation, bind(read.bindings, arguments, {"each": item}))
            except CallError as error:
                item[read.name] = None
                run.warnings.add(f"{read.within.text}.{read.name}", read.output.kind, error.code)
            else:
                item[read.name] = shape_part(read.output, response.body, response.headers, "$", run.warnings)

    async with anyio.create_task_group() as tasks:
        for read in reads:
            found = read.within.find(answer)
            for item in found if read.within.many else (found,):
                if isinstance(item, dict):
                    tasks.start_soon(read_one, read, item)
