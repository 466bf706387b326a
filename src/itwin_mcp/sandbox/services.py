"""The services of the emulated platform. To add one, write a package with a `routes.py` and list it in `SERVICES`."""

from __future__ import annotations

from types import ModuleType
from typing import Final

from itwin_mcp.sandbox import start_page
from itwin_mcp.sandbox.access_control import routes as access_control
from itwin_mcp.sandbox.identity import routes as identity
from itwin_mcp.sandbox.imodels import routes as imodels
from itwin_mcp.sandbox.itwins import routes as itwins
from itwin_mcp.sandbox.storage import routes as storage
from itwin_mcp.sandbox.store import JobHandler
from itwin_mcp.sandbox.users import routes as users
from itwin_mcp.sandbox.wire import Route

SERVICES: Final[tuple[ModuleType, ...]] = (itwins, imodels, access_control, users, identity, storage, start_page)
"""Each module has `ROUTES`, and `JOBS` if it schedules jobs."""

ROUTES: Final[tuple[Route, ...]] = tuple(route for service in SERVICES for route in service.ROUTES)

JOBS: Final[dict[str, JobHandler]] = {
    kind: handler for service in SERVICES for kind, handler in getattr(service, "JOBS", {}).items()
}
