"""Check what a caller may do, from iTwin memberships, their roles and the permissions of single iModels.

A caller who is not a member gets 404, so that the entity stays hidden; a member without the permission gets 403.
Organization Administrators may do everything on the iTwins of their account (pages create-itwin and delete-itwin, and
the iModels pages, section Authorization).
"""

from __future__ import annotations

import sqlite3
from typing import Final

from itwin_mcp.sandbox.errors import ApiError
from itwin_mcp.sandbox.wire import Call

WEBVIEW: Final = "imodels_webview"
READ: Final = "imodels_read"
WRITE: Final = "imodels_write"
MANAGE: Final = "imodels_manage"
DELETE: Final = "imodels_delete"  # exists on the iTwin only
IMODEL_PERMISSIONS: Final = (WEBVIEW, READ, WRITE, MANAGE)
ITWINS_CREATE: Final = "itwins_create"
ITWINS_MODIFY: Final = "itwins_modify"
# The built-in role of an iTwin's creator. It implies every permission (access-control: iTwin owners).
OWNER_ROLE: Final = "00000000-0000-4000-8000-000000000001"
ALL_PERMISSIONS: Final = frozenset({*IMODEL_PERMISSIONS, DELETE, ITWINS_CREATE, ITWINS_MODIFY})
# SQL condition: the caller may see iModel `m`. Both parameters are the caller's id.
VISIBLE_IMODEL: Final = """(
  (NOT EXISTS (SELECT 1 FROM imodel_user_permissions p WHERE p.imodel_id = m.id)
   AND NOT EXISTS (SELECT 1 FROM imodel_role_permissions p WHERE p.imodel_id = m.id))
  OR EXISTS (SELECT 1 FROM imodel_user_permissions p
             WHERE p.imodel_id = m.id AND p.user_id = ? AND p.permission = 'imodels_webview')
  OR EXISTS (SELECT 1 FROM imodel_role_permissions p JOIN itwin_members i
             ON i.role_id = p.role_id AND i.itwin_id = m.itwin_id
             WHERE p.imodel_id = m.id AND i.user_id = ? AND p.permission = 'imodels_webview'))"""


def find_itwin(call: Call, itwin_id: str) -> sqlite3.Row:
    """Return an iTwin that the caller may see.

    Raises:
        ApiError: `iTwinNotFound`, if the caller is neither a member nor an administrator of its account.
    """
    row = call.fetch_one("SELECT * FROM itwins WHERE id = ?", itwin_id.lower())
    if row is None or not (is_administrator(call, row) or _is_member(call, row["id"])):
        raise ApiError("iTwinNotFound")
    return row


def require_itwin(call: Call, itwin_id: str, permission: str) -> sqlite3.Row:
    """Return an iTwin on which the caller has the permission.

    Raises:
        ApiError: `iTwinNotFound` as in `find_itwin`, or `InsufficientPermissions`.
    """
    row = find_itwin(call, itwin_id)
    if permission not in get_itwin_permissions(call, row):
        raise ApiError("InsufficientPermissions")
    return row


def get_itwin_permissions(call: Call, itwin: sqlite3.Row) -> frozenset[str]:
    """Return the caller's permissions on an iTwin, from all of their roles."""
    if has_full_control(call, itwin):
        return ALL_PERMISSIONS
    rows = call.sql.execute(
        "SELECT DISTINCT p.permission FROM itwin_members m JOIN role_permissions p ON p.role_id = m.role_id "
        "WHERE m.itwin_id = ? AND m.user_id = ?",
        (itwin["id"], call.caller.id),
    )
    return frozenset(permission for (permission,) in rows)


def is_administrator(call: Call, itwin: sqlite3.Row) -> bool:
    """Return whether the caller is an Organization Administrator of the account that owns the iTwin."""
    return call.caller.is_admin and bool(itwin["account_id"] == call.caller.account_id)


def has_full_control(call: Call, itwin: sqlite3.Row) -> bool:
    """Return whether the caller may do everything on the iTwin, as its owner or as an administrator."""
    return is_administrator(call, itwin) or is_owner(call, itwin["id"])


def is_owner(call: Call, itwin_id: str) -> bool:
    """Return whether the caller has the iTwin Owner role."""
    statement = "SELECT 1 FROM itwin_members WHERE itwin_id = ? AND user_id = ? AND role_id = ?"
    return call.fetch_one(statement, itwin_id, call.caller.id, OWNER_ROLE) is not None


def require_imodel(call: Call, permission: str, slot: str = "iModelId") -> sqlite3.Row:
    """Return the iModel in the path. `require_imodel_by_id` describes the errors."""
    return require_imodel_by_id(call, call.slots[slot], permission)


def require_imodel_by_id(call: Call, imodel_id: str, permission: str) -> sqlite3.Row:
    """Return an iModel on which the caller has the permission.

    Raises:
        ApiError: `iModelNotFound`, if the id is unknown or malformed or the caller is not a member of the iTwin;
            `InsufficientPermissions` otherwise, and for every write with a share key.
    """
    row = call.require_one("iModelNotFound", "SELECT * FROM imodels WHERE id = ?", imodel_id.lower())
    permissions = get_imodel_permissions(call, row)
    if permissions is None:
        raise ApiError("iModelNotFound")
    if permission not in permissions or (call.caller.share and call.method != "GET"):  # a share key only reads
        raise ApiError("InsufficientPermissions")
    return row


def get_imodel_permissions(call: Call, imodel: sqlite3.Row) -> frozenset[str] | None:
    """Return the caller's permissions on an iModel, or None if the iModel is hidden from them.

    Permissions configured on the iModel replace those of the iTwin's roles.
    """
    if (share := call.caller.share) is not None:
        return frozenset({WEBVIEW, share.permission}) if share.imodel_id == imodel["id"] else None
    itwin = call.fetch_one("SELECT * FROM itwins WHERE id = ?", imodel["itwin_id"])
    if itwin is None or not (is_administrator(call, itwin) or _is_member(call, itwin["id"])):
        return None
    itwin_permissions = get_itwin_permissions(call, itwin)
    if has_full_control(call, itwin):
        return itwin_permissions
    by_user = call.sql.execute(
        "SELECT user_id, permission FROM imodel_user_permissions WHERE imodel_id = ?", (imodel["id"],)
    ).fetchall()
    if by_user:
        return frozenset(entry["permission"] for entry in by_user if entry["user_id"] == call.caller.id)
    by_role = call.sql.execute(
        "SELECT role_id, permission FROM imodel_role_permissions WHERE imodel_id = ?", (imodel["id"],)
    ).fetchall()
    if not by_role:
        return itwin_permissions
    if WEBVIEW not in itwin_permissions:  # roles on an iModel need webview on the iTwin too
        return frozenset()
    roles = call.sql.execute(
        "SELECT role_id FROM itwin_members WHERE itwin_id = ? AND user_id = ?", (itwin["id"], call.caller.id)
    )
    my_roles = {role_id for (role_id,) in roles}
    return frozenset(entry["permission"] for entry in by_role if entry["role_id"] in my_roles)


def _is_member(call: Call, itwin_id: str) -> bool:
    statement = "SELECT 1 FROM itwin_members WHERE itwin_id = ? AND user_id = ? LIMIT 1"
    return call.fetch_one(statement, itwin_id, call.caller.id) is not None
