"""List the roles of an iTwin and the caller's permissions on it."""

from __future__ import annotations

import sqlite3
from typing import Final

from itwin_mcp.sandbox import access
from itwin_mcp.sandbox.errors import ApiError
from itwin_mcp.sandbox.wire import Answer, Call, Json, ok

INVITE_MEMBER: Final = "administration_invite_member"
REMOVE_USER: Final = "administration_remove_user"
MANAGE_ROLES: Final = "administration_manage_roles"
ADMINISTRATION_PERMISSIONS: Final = frozenset({INVITE_MEMBER, REMOVE_USER, MANAGE_ROLES})
ROLE_TYPE: Final = "Custom"
IS_ROLE_OF_ITWIN: Final = "r.itwin_id IN (?, ?)"  # an iTwin has its own roles and those of its account


def list_all_permissions(call: Call) -> Answer:
    """List the permissions that exist on the platform, whether the caller has them or not."""
    del call
    return ok({"permissions": sorted(access.ALL_PERMISSIONS | ADMINISTRATION_PERMISSIONS)})


def list_my_permissions(call: Call) -> Answer:
    return ok({"permissions": sorted(get_permissions(call, find_itwin(call)))})


def list_roles(call: Call) -> Answer:
    """Return the roles of the iTwin and those of its account."""
    rows = call.sql.execute(f"SELECT * FROM roles r WHERE {IS_ROLE_OF_ITWIN} ORDER BY rowid", _require_role_scope(call))
    return ok({"roles": [_render_role(call, row) for row in rows.fetchall()]})


def get_role(call: Call) -> Answer:
    scope = _require_role_scope(call)
    statement = f"SELECT * FROM roles r WHERE {IS_ROLE_OF_ITWIN} AND id = ?"
    row = call.require_one("RoleNotFound", statement, *scope, call.slots["roleId"].lower())
    return ok({"role": _render_role(call, row)})


def find_itwin(call: Call) -> sqlite3.Row:
    """Return the iTwin in the path.

    Raises:
        ApiError: `ItwinNotFound`, as this API spells it.
    """
    try:
        return access.find_itwin(call, call.slots["iTwinId"])
    except ApiError as error:
        raise ApiError("ItwinNotFound") from error


def get_permissions(call: Call, itwin: sqlite3.Row) -> frozenset[str]:
    """Return the caller's permissions on an iTwin, including those to administer its members and roles."""
    permissions = access.get_itwin_permissions(call, itwin)
    if access.has_full_control(call, itwin):
        permissions |= ADMINISTRATION_PERMISSIONS
    return permissions


def _require_role_scope(call: Call) -> tuple[str, str]:
    """Return the ids of the iTwin in the path and of its account, which define its roles.

    Raises:
        ApiError: `InsufficientPermissions`, if the caller may not manage roles.
    """
    itwin = find_itwin(call)
    if MANAGE_ROLES not in get_permissions(call, itwin):
        raise ApiError("InsufficientPermissions")
    return itwin["id"], itwin["account_id"]


def _render_role(call: Call, row: sqlite3.Row) -> Json:
    rows = call.sql.execute(
        "SELECT permission FROM role_permissions WHERE role_id = ? ORDER BY permission", (row["id"],)
    )
    permissions = [permission for (permission,) in rows]
    return summarize_role(row) | {"type": ROLE_TYPE, "permissions": permissions}


def summarize_role(row: sqlite3.Row) -> Json:
    return {"id": row["id"], "displayName": row["display_name"], "description": row["description"]}
