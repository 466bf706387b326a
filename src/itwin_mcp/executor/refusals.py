"""What a refusal of the platform is about, read for the agent (`x-refused`): the holder, or the thing that exists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from itwin_mcp.capability.expressions import ABSENT, Path
from itwin_mcp.capability.plans import RefusalPlan, RefusalRead
from itwin_mcp.errors import CallError, PlatformError
from itwin_mcp.executor.fit import clean

if TYPE_CHECKING:
    from itwin_mcp.executor.sending import Run

MAX_SHOWN = 10
"""Items that an error lists of one read."""


async def explain(run: Run, plan: RefusalPlan, values: Mapping[str, Any], error: PlatformError) -> None:
    """Add what the plan reads to the error, and its hint if all was found.

    `values` are the inputs of the refused operation. A read that fails, or that is not allowed, leaves the error as
    the platform gave it.
    """
    known: dict[str, Any] = {"error": dict(error.members), "given": dict(values)}
    shown: dict[str, Any] = {}
    for read in plan.reads:
        try:
            items = await _read(run, read, values, known)
        except CallError:
            return
        if not items:
            return
        known[read.name] = items
        if read.fields:
            picked = [{name: item.get(name) for name in read.fields} for item in items[:MAX_SHOWN]]
            shown[read.name] = clean(picked)
    error.members |= shown
    error.hint = plan.hint


async def _read(run: Run, read: RefusalRead, values: Mapping[str, Any], known: Mapping[str, Any]) -> list[Any]:
    """The items of one read; none where it cannot be made."""
    inputs = {name: value.find(known) if isinstance(value, Path) else value for name, value in read.given.items()}
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
