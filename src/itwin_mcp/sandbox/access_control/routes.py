"""Paths and handlers of the Access Control API (v2). These operations are not among the 90 in `operations.py`."""

from __future__ import annotations

from typing import Final

from itwin_mcp.sandbox.access_control import members, roles
from itwin_mcp.sandbox.wire import Route

ROUTES: Final = (
    Route("GET", "/accesscontrol/itwins/permissions", roles.list_all_permissions),
    Route("GET", "/accesscontrol/itwins/{iTwinId}/permissions", roles.list_my_permissions),
    Route("GET", "/accesscontrol/itwins/{iTwinId}/roles", roles.list_roles),
    Route("GET", "/accesscontrol/itwins/{iTwinId}/roles/{roleId}", roles.get_role),
    Route("GET", "/accesscontrol/itwins/{iTwinId}/members/users", members.list_user_members),
    Route("POST", "/accesscontrol/itwins/{iTwinId}/members/users", members.add_user_members),
    Route("GET", "/accesscontrol/itwins/{iTwinId}/members/users/{memberId}", members.get_user_member),
    Route("GET", "/accesscontrol/itwins/{iTwinId}/members/owners", members.list_owner_members),
    Route("GET", "/accesscontrol/itwins/{iTwinId}/members/groups", members.list_group_members),
)
