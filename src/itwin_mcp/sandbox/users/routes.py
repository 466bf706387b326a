"""Paths and handlers of the Users API (v1). These operations are not among the 90 in `operations.py`."""

from __future__ import annotations

from typing import Final

from itwin_mcp.sandbox.users import users
from itwin_mcp.sandbox.wire import Route

ROUTES: Final = (
    Route("GET", "/users/me", users.get_my_profile),
    Route("POST", "/users/getbyidlist", users.list_users_by_id, writes=False),
)
