"""After a write whose result is not known: look for the thing by name before anyone makes it a second time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from itwin_mcp.capability.plans import Operation, WaitPlan
from itwin_mcp.errors import CallError
from itwin_mcp.executor.request import unfit_for_path
from itwin_mcp.executor.sending import Run

MAX_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Findings:
    """What a look for the thing gave: `items` in short form, None when the look failed."""

    items: tuple[Mapping[str, Any], ...] | None
    hint: str
    """What was looked for and what to do next."""
    handle: str | None = None
    """The id of the thing, when exactly one was found."""


async def look_for(run: Run, operation: Operation, plan: WaitPlan, values: Mapping[str, Any]) -> Findings | None:
    """Look in the listing that `x-wait` names with `find`; return None when there is nothing to look for by.

    The inputs that the listing shares with the operation narrow it (`iTwinId`, `name`; not what the file fixes, such
    as `Accept`). An element is the thing if it has the same values. Without a value for each of them (a clone that
    takes over its source's name) nothing is looked for.
    """
    listing = plan.find
    if listing is None or listing.page is None:
        return None
    fixed = {parameter.name for parameter in listing.parameters if parameter.value is not None}
    paging = {listing.page.size, listing.page.skip, listing.page.token}
    shared = sorted((listing.inputs & operation.inputs) - fixed - paging)
    wanted = {name: values[name] for name in shared if values.get(name) is not None}
    if not shared or len(wanted) < len(shared):
        return None
    by = " and ".join(f"{name} {value!r}" for name, value in wanted.items())
    try:
        items = listing.page.items.find((await run.perform(listing, wanted)).body)
    except CallError as failure:
        return Findings(None, f"Looking for {by} failed too ({failure.code}).")
    matches = [item for item in items if _is_it(item, wanted)] if isinstance(items, list) else []
    shown = ("id", *shared, "state", "createdDateTime")
    brief = tuple({key: item[key] for key in shown if key in item} for item in matches[:MAX_SHOWN])
    if not matches:
        return Findings(
            brief,
            f"Looked for {by}: it is not there (yet). Look once more with the list tool in a minute, and only if it is "
            "still missing then call again.",
        )
    identifier = matches[0].get("id")
    known = len(matches) == 1 and isinstance(identifier, str) and unfit_for_path(identifier) is None
    check = f" ({plan.check})" if plan.check else ""
    return Findings(
        brief,
        f"Looked for {by}: it is there, see found. Unless it is older than this call, this call has made it: go on "
        f"with it{check}, and do not call again.",
        identifier if known else None,
    )


def _is_it(item: Any, wanted: Mapping[str, Any]) -> bool:
    """Whether an element is what was to be made; a listing may leave out a field that it was asked by."""
    return isinstance(item, dict) and all(name not in item or item[name] == value for name, value in wanted.items())
