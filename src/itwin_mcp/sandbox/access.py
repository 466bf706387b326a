"""Who may do what: members of an iTwin, their roles, and the permissions configured on one iModel.

Who is no member does not learn that the thing exists (404); a member without the permission is told so (403).
An Organization Administrator may do everything on the iTwins of the own account (create-itwin, delete-itwin and the
iModels pages, Authorization).
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

# The built-in role of whoever created an iTwin: every permission, implicitly (access-control: iTwin owners).
OWNER_ROLE: Final = "00000000-0000-4000-8000-000000000001"
ALL_PERMISSIONS: Final = frozenset({*IMODEL_PERMISSIONS, DELETE, ITWINS_CREATE, ITWINS_MODIFY})

# For lists: true where the caller may see iModel `m`. Its two parameters are both the id of the caller.
VISIBLE_IMODEL: Final = """(
  (NOT EXISTS (SELECT 1 FROM imodel_user_permissions p WHERE p.imodel_id = m.id)
   AND NOT EXISTS (SELECT 1 FROM imodel_role_permissions p WHERE p.imodel_id = m.id))
  OR EXISTS (SELECT 1 FROM imodel_user_permissions p
             WHERE p.imodel_id = m.id AND p.user_id = ? AND p.permission = 'imodels_webview')
  OR EXISTS (SELECT 1 FROM imodel_role_permissions p JOIN itwin_members i
             ON i.role_id = p.role_id AND i.itwin_id = m.itwin_id
             WHERE p.imodel_id = m.id AND i.user_id = ? AND p.permission = 'imodels_webview'))"""


def itwin(call: Call, itwin_id: str) -> sqlite3.Row:
    """The iTwin, if the caller is a member or administers its account; otherwise 404."""
    row = call.one("SELECT * FROM itwins WHERE id = ?", itwin_id.lower())
    if row is None or not (administers(call, row) or _is_member(call, row["id"])):
        raise ApiError("iTwinNotFound")
    return row


def itwin_for(call: Call, itwin_id: str, permission: str) -> sqlite3.Row:
    """The iTwin, if the caller has the permission on it."""
    row = itwin(call, itwin_id)
    if permission not in itwin_permissions(call, row):
        raise ApiError("InsufficientPermissions")
    return row


def itwin_permissions(call: Call, row: sqlite3.Row) -> frozenset[str]:
    """What the caller may do on an iTwin, through all of their roles."""
    if administers(call, row) or is_owner(call, row["id"]):
        return ALL_PERMISSIONS
    found = call.sql.execute(
        "SELECT DISTINCT p.permission FROM itwin_members m JOIN role_permissions p ON p.role_id = m.role_id "
        "WHERE m.itwin_id = ? AND m.user_id = ?",
        (row["id"], call.caller.id),
    )
    return frozenset(permission for (permission,) in found)


def administers(call: Call, row: sqlite3.Row) -> bool:
    """Whether the caller is an Organization Administrator of the account that owns the iTwin."""
    return call.caller.is_admin and bool(row["account_id"] == call.caller.account_id)


def is_owner(call: Call, itwin_id: str) -> bool:
    """Whether the caller holds the iTwin Owner role."""
    statement = "SELECT 1 FROM itwin_members WHERE itwin_id = ? AND user_id = ? AND role_id = ?"
    return call.one(statement, itwin_id, call.caller.id, OWNER_ROLE) is not None


def imodel(call: Call, permission: str, slot: str = "iModelId") -> sqlite3.Row:
    """The iModel named in the path, if the caller has the permission on it."""
    return imodel_for(call, call.slots[slot], permission)


def imodel_for(call: Call, imodel_id: str, permission: str) -> sqlite3.Row:
    """The iModel, if the caller has the permission on it; 404 for a stranger and for a malformed id."""
    row = call.one("SELECT * FROM imodels WHERE id = ?", imodel_id.lower())
    if row is None:
        raise ApiError("iModelNotFound")
    granted = imodel_permissions(call, row)
    if granted is None:
        raise ApiError("iModelNotFound")
    if permission not in granted or (call.caller.share and call.method != "GET"):  # a share is for looking only
        raise ApiError("InsufficientPermissions")
    return row


def imodel_permissions(call: Call, row: sqlite3.Row) -> frozenset[str] | None:
    """What the caller may do on an iModel, None for a stranger: its own configuration wins over the iTwin's roles."""
    if (share := call.caller.share) is not None:
        return frozenset({WEBVIEW, share.permission}) if share.imodel_id == row["id"] else None
    owner = call.one("SELECT * FROM itwins WHERE id = ?", row["itwin_id"])
    if owner is None or not (administers(call, owner) or _is_member(call, owner["id"])):
        return None
    on_itwin = itwin_permissions(call, owner)
    if administers(call, owner) or is_owner(call, owner["id"]):
        return on_itwin
    by_user = call.sql.execute(
        "SELECT user_id, permission FROM imodel_user_permissions WHERE imodel_id = ?", (row["id"],)
    ).fetchall()
    if by_user:
        return frozenset(found["permission"] for found in by_user if found["user_id"] == call.caller.id)
    by_role = call.sql.execute(
        "SELECT role_id, permission FROM imodel_role_permissions WHERE imodel_id = ?", (row["id"],)
    ).fetchall()
    if not by_role:
        return on_itwin
    if WEBVIEW not in on_itwin:  # a role on the iModel counts only together with webview on the iTwin
        return frozenset()
    roles = call.sql.execute(
        "SELECT role_id FROM itwin_members WHERE itwin_id = ? AND user_id = ?", (owner["id"], call.caller.id)
    )
    mine = {role_id for (role_id,) in roles}
    return frozenset(found["permission"] for found in by_role if found["role_id"] in mine)


def _is_member(call: Call, itwin_id: str) -> bool:
    statement = "SELECT 1 FROM itwin_members WHERE itwin_id = ? AND user_id = ? LIMIT 1"
    return call.one(statement, itwin_id, call.caller.id) is not None
