"""Adds to an error of the platform: what can be read about its cause (`x-refused`), and the argument it is about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from itwin_mcp.capability.catalog import Tool
from itwin_mcp.capability.expressions import ABSENT, Argument, JsonPath, Text
from itwin_mcp.capability.operations import RefusalPlan, RefusalRead, Slot
from itwin_mcp.capability.tool_actions import BuiltIn, Call, CallStep
from itwin_mcp.errors import CallError, PlatformError
from itwin_mcp.text import clean

if TYPE_CHECKING:
    from itwin_mcp.executor.sending import Run

MAX_SHOWN = 10
"""Items of one read that the error shows."""


async def explain_refusal(
    run: Run, plan: RefusalPlan, values: Mapping[str, Any], error: PlatformError
) -> PlatformError:
    """Read what the plan names, and return the error with it and with the plan's hint.

    `values` are the inputs of the refused operation. If a read fails or finds nothing, the error is returned unchanged.
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
    """Return the items of one read; an empty list if it lacks an input."""
    inputs = {name: value.find(known) if isinstance(value, JsonPath) else value for name, value in read.given.items()}
    inputs |= {name: values.get(name, ABSENT) for name in read.by}
    wanted = None if read.among is None else _flatten(read.among.find(known))
    if wanted == [] or any(value is ABSENT or value is None for value in inputs.values()):
        return []
    page = read.operation.page
    if page is not None and page.size is not None:
        inputs.setdefault(page.size, page.most)
    value = read.items.find((await run.perform(read.operation, inputs)).body)
    items = [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, dict)]
    return items if wanted is None else [item for item in items if item.get(read.match or "") in wanted]


def _flatten(value: Any) -> list[Any]:
    if isinstance(value, list):
        return [element for child in value for element in _flatten(child)]
    return [] if value is ABSENT or value is None else [value]


# --- the argument that a detail is about -----------------------------------------------------------------------------


def name_arguments(error: PlatformError, tool: Tool) -> PlatformError:
    """Add `argument` to the details whose target got its value from an argument of this tool.

    A target is a name in the query, a path in the body (`extent.southWest`), or a part of either.
    """
    if not any(isinstance(detail.get("target"), str) for detail in error.details):
        return error
    arguments = {target.lower(): argument for target, argument in _find_targets(tool)}
    details = []
    for detail in error.details:
        target = detail.get("target")
        argument = _find_argument(target.lower(), arguments) if isinstance(target, str) else None
        details.append(detail if argument is None else {**detail, "argument": argument})
    return error.amended(details=details)


def name_missing_thing(error: PlatformError, step: CallStep) -> PlatformError:
    """Add a detail with the argument that has the id in the path of a step that failed with 403 or 404.

    The platform's code does not say which request of a flow failed. An error about a path with several ids is returned
    unchanged, because any of the things may be the missing one.
    """
    slots = [part.name for segment in step.operation.path for part in segment if isinstance(part, Slot)]
    source = step.bindings.get(slots[0]) if len(slots) == 1 else None
    if error.status not in (403, 404) or error.details or not isinstance(source, Argument):
        return error
    return error.amended(details=[{"code": error.code, "message": error.message, "argument": source.name}])


def _find_argument(target: str, arguments: Mapping[str, str]) -> str | None:
    parts = target.replace("/", ".").strip(".").split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((arguments[name] for name in (*prefixes, parts[-1]) if name in arguments), None)


def _find_targets(tool: Tool) -> Iterator[tuple[str, str]]:
    """Yield each target in the requests of a tool, with the argument whose value is sent there."""
    action = tool.action
    if isinstance(action, BuiltIn):
        return
    calls = [action] if isinstance(action, Call) else [step for step in action.steps if isinstance(step, CallStep)]
    for call in calls:
        sources = {name: value.name for name, value in call.bindings.items() if isinstance(value, Argument)}
        for parameter in call.operation.parameters:
            if parameter.name in sources:
                yield parameter.wire, sources[parameter.name]
        if call.operation.body is not None:
            yield from _find_body_targets(call.operation.body.data, "", sources)


def _find_body_targets(template: Any, path: str, sources: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if isinstance(template, dict):
        for key, child in template.items():
            yield from _find_body_targets(child, f"{path}.{key}" if path else key, sources)
    elif isinstance(template, list):
        for child in template:
            yield from _find_body_targets(child, path, sources)
    else:
        parts = template.parts if isinstance(template, Text) else (template,)
        for part in parts:
            if isinstance(part, Argument) and part.name in sources:
                yield path, sources[part.name]
                yield path.rpartition(".")[2], sources[part.name]
