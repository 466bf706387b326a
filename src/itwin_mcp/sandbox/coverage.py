"""Report which documented operations of the platform the sandbox emulates."""

from __future__ import annotations

from dataclasses import dataclass

from itwin_mcp.sandbox.operations import OPERATIONS, Operation
from itwin_mcp.sandbox.services import ROUTES


@dataclass(frozen=True, slots=True)
class Coverage:
    """The emulation of one documented operation.

    `status` is `emulated`, `partly` or `not`. `missing` describes what a partly emulated operation lacks.
    """

    operation: Operation
    status: str
    missing: str


def list_coverage() -> tuple[Coverage, ...]:
    """Return the coverage of every documented operation, derived from the routes."""
    routes = {route.slug: route for route in ROUTES}
    rows: list[Coverage] = []
    for operation in OPERATIONS:
        route = routes.get(operation.slug)
        status = "not" if route is None else "partly" if route.missing else "emulated"
        rows.append(Coverage(operation, status, route.missing if route else ""))
    return tuple(rows)
