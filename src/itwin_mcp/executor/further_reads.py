"""Implements `x-read`: members of an answer that are each read with one more GET."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import anyio

from itwin_mcp.capability.tool_actions import Call, FurtherRead
from itwin_mcp.errors import CallError
from itwin_mcp.executor.answers import shape_part
from itwin_mcp.executor.context import CallContext
from itwin_mcp.executor.flow_steps import AT_ONCE, MAX_READS, is_skipped
from itwin_mcp.executor.requests import bind
from itwin_mcp.executor.sending import Run


def find_due_reads(action: Call, arguments: Mapping[str, Any]) -> tuple[FurtherRead, ...]:
    """Return the reads that these arguments ask for."""
    return tuple(read for read in action.further if not is_skipped(read.condition, arguments, {}))


def share_requests(run: Run, action: Call, reads: Sequence[FurtherRead], limit: int, pages: int) -> tuple[int, int]:
    """Return how many items and pages a list may have, so that the call stays within `MAX_READS`; each at least 1.

    Every item takes a request for each read. One request is reserved for the page that counts the remaining items, and
    one for names if they are read. The pages of a single list do not count. If several lists are read, `pages` is
    small, and their pages share the requests with the reads.
    """
    if not reads:
        return limit, pages
    left = MAX_READS - run.requests.sent - 1 - action.output.asks_for_names
    if pages <= left + 1:
        pages = max(left // 2, 1)
        left -= pages
    return min(limit, max(left // len(reads), 1)), pages


async def add_further_reads(context: CallContext) -> CallContext:
    """Stage after `run`: add the members of the answer that are read one by one."""
    run, action = context.run, context.tool.action
    assert isinstance(action, Call)
    answer = dict(context.answer)
    limiter = anyio.CapacityLimiter(AT_ONCE)

    async def read_one(read: FurtherRead, item: dict[str, Any]) -> None:
        async with limiter:
            try:
                values = bind(read.bindings, context.arguments, {"each": item})
                response = await run.perform(read.operation, values)
            except CallError as error:
                # The answer is useful without this member, and a change that was made must not look like a failure.
                item[read.name] = None
                run.warnings.add(f"{read.within.text}.{read.name}", read.output.kind, error.code)
            else:
                item[read.name] = shape_part(read.output, response.body, response.headers, "$", run.warnings)

    async with anyio.create_task_group() as tasks:
        for read in find_due_reads(action, context.arguments):
            value = read.within.find(answer)
            for item in value if read.within.many else (value,):
                if isinstance(item, dict):
                    tasks.start_soon(read_one, read, item)
    return replace(context, answer=answer)
