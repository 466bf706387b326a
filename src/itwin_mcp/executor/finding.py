"""After a write whose outcome nobody knows: look for the thing by name before anyone makes it a second time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from itwin_mcp.capability.plans import Operation, WaitPlan
from itwin_mcp.errors import CallError
from itwin_mcp.executor.sending import Run

MOST_SHOWN = 5


async def look_for(run: Run, operation: Operation, plan: WaitPlan, values: Mapping[str, Any], error: CallError) -> None:
    """Add to the error what was found: `found`, a `job` to go on with where it is one thing, and a hint that says so.

    `x-wait` names with `find` the listing to look in. The inputs that it shares with the operation narrow it
    (`iTwinId`, `name`; not what the file fixes, such as `Accept`): an element is the thing if it has the same values.
    Without a value for each of them (a clone that takes over its source's name) nothing is looked for.
    """
    listing = plan.find
    if listing is None or listing.page is None:
        return
    fixed = {parameter.name for parameter in listing.parameters if parameter.value is not None}
    paging = {listing.page.size, listing.page.skip, listing.page.token}
    shared = sorted((listing.inputs & operation.inputs) - fixed - paging)
    wanted = {name: values[name] for name in shared if values.get(name) is not None}
    if not shared or len(wanted) < len(shared):
        return
    told = " and ".join(f"{name} {value!r}" for name, value in wanted.items())
    try:
        items = listing.page.items.find((await run.perform(listing, wanted)).body)
    except CallError as failure:
        error.hint = f"Looking for {told} failed too ({failure.code}). {error.hint}"
        return
    found = [item for item in items if _is_it(item, wanted)] if isinstance(items, list) else []
    kept = ("id", *shared, "state", "createdDateTime")
    error.members["found"] = [{key: item[key] for key in kept if key in item} for item in found[:MOST_SHOWN]]
    if not found:
        error.hint = (
            f"Looked for {told}: it is not there (yet), so most likely nothing was made. Look once more with the list "
            "tool in a minute, and only then call again."
        )
        return
    job = {"operation": run.name, plan.handle_as: found[0].get("id"), "state": None}
    if plan.check is not None and len(found) == 1 and isinstance(found[0].get("id"), str):
        error.members["job"] = {**job, "checkWith": plan.check}
    error.hint = (
        f"Looked for {told}: it is there, see found. Unless it is older than this call, this call has made it: go on "
        f"with it{f' ({plan.check})' if plan.check else ''}, and do not call again."
    )


def _is_it(item: Any, wanted: Mapping[str, Any]) -> bool:
    """Whether an element is what was to be made; a listing may leave out a field that it was asked by."""
    return isinstance(item, dict) and all(name not in item or item[name] == value for name, value in wanted.items())
