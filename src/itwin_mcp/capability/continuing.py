"""Which list tool gives the whole of a list that stands in a flow's answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from itwin_mcp.capability.catalog import Tool
from itwin_mcp.capability.expressions import Argument, StepValue
from itwin_mcp.capability.plans import Call, CallStep, LookupStep, Steps


def lists_behind(tool: Tool, tools: Collection[Tool]) -> Mapping[str, str]:
    """Of a flow the outputs, as `$.a.b`, that come from a paged operation, each with the tool that lists all of it.

    The tool is told with those of its arguments that the flow's step gives to the operation.
    """
    action = tool.action
    if not isinstance(action, Steps):
        return {}
    steps = {step.name: step for step in action.steps}
    found: dict[str, str] = {}
    for mapping in action.mappings:
        step = steps.get(mapping.value.step) if isinstance(mapping.value, StepValue) else None
        if isinstance(step, LookupStep):
            step = steps.get(step.index)
        words = _lister(step, tools) if isinstance(step, CallStep) and step.operation.page is not None else None
        if words is not None:
            found["$." + ".".join(mapping.target)] = words
    return found


def _lister(step: CallStep, tools: Collection[Tool]) -> str | None:
    for tool in tools:
        if isinstance(tool.action, Call) and tool.action.operation.key == step.operation.key:
            bindings = {name: one.name for name, one in tool.action.bindings.items() if isinstance(one, Argument)}
            given = [argument for name, argument in bindings.items() if name in step.bindings]
            return f"{tool.name} (with {', '.join(given)})" if given else tool.name
    return None
