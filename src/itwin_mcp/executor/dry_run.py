"""Builds the first request of a call without sending it, for `--dry-run` and `policy test`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from itwin_mcp.capability.catalog import Tool
from itwin_mcp.capability.expressions import ABSENT, evaluate
from itwin_mcp.capability.tool_actions import Call, CallStep, Steps
from itwin_mcp.capability.transfers import FILE
from itwin_mcp.errors import InvalidArguments
from itwin_mcp.executor.files import describe_file
from itwin_mcp.executor.flow_steps import MAX_ITEMS, bind_step, first_element, is_skipped
from itwin_mcp.executor.paging import build_first_page_request
from itwin_mcp.executor.requests import bind, build_request
from itwin_mcp.upstream.messages import Request


def build_first_request(tool: Tool, arguments: Mapping[str, Any]) -> Request:
    """Build the first request that a call sends. Raises InvalidArguments if it sends none."""
    results = {FILE: describe_file(tool.transfer, arguments)} if tool.transfer else {}
    call = _find_first_call(tool, arguments, results)
    if isinstance(call, CallStep):
        values, _ = bind_step(call, arguments, {**results, "each": first_element(call, arguments, results)})
        limit = call.most
    else:
        values = bind(call.bindings, arguments, results) | _bind_first_place(call, arguments)
        limit = arguments.get("limit")
    page = call.operation.page
    if page is not None:
        return build_first_page_request(call.operation, values, page.size_for(limit or MAX_ITEMS))
    return build_request(call.operation, values)


def _find_first_call(tool: Tool, arguments: Mapping[str, Any], results: Mapping[str, Any]) -> Call | CallStep:
    """Return the call or step that sends the first request. Raises InvalidArguments if every step is skipped."""
    action = tool.action
    if isinstance(action, Call):
        if action.across is None or _bind_first_place(action, arguments):
            return action
        action = action.across.steps
    assert isinstance(action, Steps)
    for step in action.steps:
        if not isinstance(step, CallStep) or is_skipped(step.condition, arguments, results):
            continue
        if step.each is None or first_element(step, arguments, results) is not None:
            return step
    raise InvalidArguments(
        f"With these arguments {tool.name} sends nothing.",
        hint=f"Give more of them: `itwin-mcp tools describe {tool.name}` names all.",
    )


def _bind_first_place(call: Call, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the input for the first iTwin or iModel that the arguments name; empty if they name none."""
    if call.across is None:
        return {}
    values = [evaluate(expression, arguments, {}) for expression in call.across.lists]
    ids = [
        value[0] if isinstance(value, list) else value
        for value in values
        if value is not ABSENT and value not in ([], None)
    ]
    return {call.across.fills: ids[0]} if ids else {}
