"""Explains a refusal of the platform: what was read about it (`x-refused`), and which argument it means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from itwin_mcp.capability.catalog import Tool
from itwin_mcp.capability.expressions import ABSENT, Argument, Expression, JsonPath, Text
from itwin_mcp.capability.operations import Operation, RefusalPlan, RefusalRead, Slot
from itwin_mcp.capability.tool_actions import BuiltIn, Call, CallStep
from itwin_mcp.errors import CallError, PlatformError
from itwin_mcp.text import clean

if TYPE_CHECKING:
    from itwin_mcp.executor.sending import Run

MAX_SHOWN = 10
"""Items of one read that an error lists."""


async def explain_refusal(
    run: Run, plan: RefusalPlan, values: Mapping[str, Any], error: PlatformError
) -> PlatformError:
    """Return the error with what the plan reads, and its hint if all was found.

    `values` are the inputs of the refused operation. A read that fails, or that is not allowed, leaves the error as
    the platform gave it.
    """
    known: dict[str, Any] = {"error": dict(error.members), "given": dict(values)}
    shown: dict[str, Any] = {}
    for read in plan.reads:
        try:
            items = await _read(run, read, values, known)
        except CallError:
            return error
        if not items:
            return error
        known[read.name] = items
        if read.fields:
            picked = [{name: item.get(name) for name in read.fields} for item in items[:MAX_SHOWN]]
            shown[read.name] = clean(picked)
    return error.amended(hint=plan.hint, members=shown)


async def _read(run: Run, read: RefusalRead, values: Mapping[str, Any], known: Mapping[str, Any]) -> list[Any]:
    """Return the items of one read; none if it cannot be made."""
    inputs = {name: value.find(known) if isinstance(value, JsonPath) else value for name, value in read.given.items()}
    inputs |= {name: values.get(name, ABSENT) for name in read.by}
    wanted = None if read.among is None else _flatten(read.among.find(known))
    if wanted == [] or any(value is ABSENT or value is None for value in inputs.values()):
        return []
    page = read.operation.page
    if page is not None and page.size is not None:
        inputs.setdefault(page.size, page.most)
    found = read.items.find((await run.perform(read.operation, inputs)).body)
    items = [item for item in (found if isinstance(found, list) else [found]) if isinstance(item, dict)]
    return items if wanted is None else [item for item in items if item.get(read.match or "") in wanted]


def _flatten(value: Any) -> list[Any]:
    if isinstance(value, list):
        return [element for child in value for element in _flatten(child)]
    return [] if value is ABSENT or value is None else [value]


# --- which argument a detail is about -----------------------------------------------------------------------------


def name_arguments(error: PlatformError, tool: Tool) -> PlatformError:
    """Return the error with `argument` in the details whose target was filled by an argument of this tool.

    A target is a name in the query, a path in the body (`extent.southWest`), or a part of either.
    """
    if not any(isinstance(detail.get("target"), str) for detail in error.details):
        return error
    filled = {target.lower(): argument for target, argument in _find_targets(tool)}
    details = []
    for detail in error.details:
        target = detail.get("target")
        argument = _find_argument(target.lower(), filled) if isinstance(target, str) else None
        details.append(detail if argument is None else {**detail, "argument": argument})
    return error.amended(details=details)


def name_missing_thing(error: PlatformError, step: CallStep) -> PlatformError:
    """Return the error with a detail about the argument that named the thing which a step of a flow could not reach.

    The code alone does not say which of a flow's requests failed. A path with several ids is left alone: any of the
    things in it may be the one that is missing.
    """
    slots = [part.name for segment in step.operation.path for part in segment if isinstance(part, Slot)]
    source = step.bindings.get(slots[0]) if len(slots) == 1 else None
    if error.status not in (403, 404) or error.details or not isinstance(source, Argument):
        return error
    return error.amended(details=[{"code": error.code, "message": error.message, "argument": source.name}])


def _find_argument(target: str, filled: Mapping[str, str]) -> str | None:
    parts = target.replace("/", ".").strip(".").split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((filled[name] for name in (*prefixes, parts[-1]) if name in filled), None)


def _find_targets(tool: Tool) -> Iterator[tuple[str, str]]:
    action = tool.action
    if isinstance(action, BuiltIn):
        return
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
