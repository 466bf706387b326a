"""The first request that a call would send, for `--dry-run` and `policy test`; nothing is sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from itwin_mcp.capability.catalog import Tool
from itwin_mcp.capability.expressions import ABSENT, evaluate
from itwin_mcp.capability.tool_actions import Call, CallStep, Steps
from itwin_mcp.capability.transfers import FILE
from itwin_mcp.errors import InvalidArguments
from itwin_mcp.executor.files import describe_file
from itwin_mcp.executor.flow_steps import MAX_ITEMS, bind_step, first_element, leaves_out
from itwin_mcp.executor.paging import first_request
from itwin_mcp.executor.requests import bind, build_request
from itwin_mcp.upstream.messages import Request


def first_request_of(tool: Tool, arguments: Mapping[str, Any]) -> Request:
    """Return the first request that a call sends. Raises InvalidArguments if it sends none."""
    results = {FILE: describe_file(tool.transfer, arguments)} if tool.transfer else {}
    first = _first_sent(tool, arguments, results)
    if isinstance(first, CallStep):
        values, _ = bind_step(first, arguments, {**results, "each": first_element(first, arguments, results)})
    else:
        values = bind(first.bindings, arguments, results) | _first_place(first, arguments)
    if first.operation.page is not None:
        most = first.most if isinstance(first, CallStep) else arguments.get("limit")
        return first_request(first.operation, values, most or MAX_ITEMS)
    return build_request(first.operation, values)


def _first_place(call: Call, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the input of a call that takes the id of a place, with the first one that the arguments name."""
    given = [] if call.across is None else [evaluate(one, arguments, {}) for one in call.across.lists]
    named = [one[0] if isinstance(one, list) else one for one in given if one is not ABSENT and one not in ([], None)]
    return {call.across.fills: named[0]} if call.across is not None and named else {}


def _first_sent(tool: Tool, arguments: Mapping[str, Any], results: Mapping[str, Any]) -> Call | CallStep:
    """Return what sends a call's first request. Raises InvalidArguments where the arguments leave out every step."""
    if isinstance(tool.action, Call) and tool.action.across is None:
        return tool.action
    call = tool.action if isinstance(tool.action, Call) else None
    if call is not None and _first_place(call, arguments):
        return call
    steps = call.across.steps if call is not None and call.across is not None else tool.action
    assert isinstance(steps, Steps)
    for step in steps.steps:
        if not isinstance(step, CallStep) or leaves_out(step.condition, arguments, results):
            continue
        if step.each is None or first_element(step, arguments, results) is not None:
            return step
    raise InvalidArguments(
        f"With these arguments {tool.name} sends nothing.",
        hint=f"Give more of them: `itwin-mcp tools describe {tool.name}` names all.",
    )
