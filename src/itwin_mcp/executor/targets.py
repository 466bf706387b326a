"""What the platform finds fault with, in the agent's own words: each detail is given the argument that it is about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from itwin_mcp.capability.catalog import Tool
from itwin_mcp.capability.expressions import Argument, Expression, Text
from itwin_mcp.capability.plans import Call, CallStep, Operation
from itwin_mcp.errors import PlatformError


def name_arguments(error: PlatformError, tool: Tool) -> None:
    """Add `argument` to the details whose target was filled by an argument of this tool.

    A target is a name in the query, a path in the body (`extent.southWest`), or a part of either.
    """
    if not any(isinstance(detail.get("target"), str) for detail in error.details):
        return
    filled = {target.lower(): argument for target, argument in _targets(tool)}
    for detail in error.details:
        target = detail.get("target")
        argument = _about(target.lower(), filled) if isinstance(target, str) else None
        if argument is not None:
            detail["argument"] = argument


def _about(target: str, filled: Mapping[str, str]) -> str | None:
    parts = target.replace("/", ".").strip(".").split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((filled[name] for name in (*prefixes, parts[-1]) if name in filled), None)


def _targets(tool: Tool) -> Iterator[tuple[str, str]]:
    action = tool.action
    calls: list[tuple[Operation, Mapping[str, Expression]]] = (
        [(action.operation, action.bindings)]
        if isinstance(action, Call)
        else [(step.operation, step.bindings) for step in action.steps if isinstance(step, CallStep)]
    )
    for operation, bindings in calls:
        fills = {name: value.name for name, value in bindings.items() if isinstance(value, Argument)}
        for parameter in operation.parameters:
            if parameter.name in fills:
                yield parameter.wire, fills[parameter.name]
        if operation.body is not None:
            yield from _in_body(operation.body.data, "", fills)


def _in_body(template: Any, path: str, fills: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if isinstance(template, dict):
        for key, child in template.items():
            yield from _in_body(child, f"{path}.{key}" if path else key, fills)
    elif isinstance(template, list):
        for child in template:
            yield from _in_body(child, path, fills)
    else:
        parts = template.parts if isinstance(template, Text) else (template,)
        for part in parts:
            if isinstance(part, Argument) and part.name in fills:
                yield path, fills[part.name]
                yield path.rpartition(".")[2], fills[part.name]
