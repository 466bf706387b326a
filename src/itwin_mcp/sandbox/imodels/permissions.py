"""Permissions on one iModel, for users or for roles, but never for both. They replace those of the iTwin's roles.

The documentation pages show no bodies, so the property names are our reading.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from itwin_mcp.sandbox import access
from itwin_mcp.sandbox.errors import make_imodels_problems
from itwin_mcp.sandbox.wire import Answer, Call, Fields, ok


@dataclass(frozen=True, slots=True)
class _GranteeKind:
    """A kind of grantee, users or roles, with its names in JSON and in the store.

    `known` is a query that finds a grantee who may get permissions. Its parameters are the ids of the grantee and the
    iModel. Users and roles exclude each other: no permissions may be configured in `other_table`.
    """

    name: str
    wrapper: str
    id_name: str
    table: str
    column: str
    known: str
    other_table: str
    other_name: str


_USERS: Final = _GranteeKind(
    name="User",
    wrapper="userPermissions",
    id_name="userId",
    table="imodel_user_permissions",
    column="user_id",
    # Only members of the iTwin can see its iModels.
    known=(
        "SELECT i.user_id FROM itwin_members i JOIN imodels m ON m.itwin_id = i.itwin_id "
        "WHERE i.user_id = ? AND m.id = ?"
    ),
    other_table="imodel_role_permissions",
    other_name="Role",
)
_ROLES: Final = _GranteeKind(
    name="Role",
    wrapper="rolePermissions",
    id_name="roleId",
    table="imodel_role_permissions",
    column="role_id",
    known=(
        "SELECT r.id FROM roles r JOIN imodels m JOIN itwins t ON t.id = m.itwin_id "
        "WHERE r.id = ? AND m.id = ? AND r.itwin_id IN (t.id, t.account_id)"
    ),
    other_table="imodel_user_permissions",
    other_name="User",
)


def get_user_permissions(call: Call) -> Answer:
    return _get_permissions(call, _USERS)


def get_role_permissions(call: Call) -> Answer:
    return _get_permissions(call, _ROLES)


def update_user_permissions(call: Call) -> Answer:
    """Replace all permissions of one user on the iModel. An empty list removes the user."""
    return _update_permissions(call, _USERS)


def update_role_permissions(call: Call) -> Answer:
    """Replace all permissions of one role on the iModel. An empty list removes the role."""
    return _update_permissions(call, _ROLES)


def _get_permissions(call: Call, kind: _GranteeKind) -> Answer:
    return _answer_permissions(call, kind, access.require_imodel(call, access.WEBVIEW)["id"])


def _update_permissions(call: Call, kind: _GranteeKind) -> Answer:
    imodel = access.require_imodel(call, access.MANAGE)
    problems = make_imodels_problems(f"Cannot update {kind.name} permissions.")
    fields = call.read_fields(problems)
    grantee = fields.get_text(kind.id_name, required=True)
    permissions = _read_permissions(fields)
    if grantee is not None:
        row = call.fetch_one(kind.known, grantee.lower(), imodel["id"])
        if row is None:
            problems.add_invalid(kind.id_name, f"The {kind.name} is not available in the iTwin.")
        else:
            grantee = row[0]
    if call.fetch_one(f"SELECT 1 FROM {kind.other_table} WHERE imodel_id = ? LIMIT 1", imodel["id"]):
        message = f"{kind.other_name} permissions are configured; {kind.name} permissions cannot be at the same time."
        problems.add("InvalidChange", message)
    problems.raise_if_any()
    call.sql.execute(f"DELETE FROM {kind.table} WHERE imodel_id = ? AND {kind.column} = ?", (imodel["id"], grantee))
    call.sql.executemany(
        f"INSERT INTO {kind.table} (imodel_id, {kind.column}, permission) VALUES (?, ?, ?)",
        [(imodel["id"], grantee, permission) for permission in permissions],
    )
    return _answer_permissions(call, kind, imodel["id"])


def _read_permissions(fields: Fields) -> list[str]:
    permissions = fields.values.get("permissions")
    if permissions is None:
        fields.problems.add_missing("permissions")
        return []
    if not isinstance(permissions, list) or not all(name in access.IMODEL_PERMISSIONS for name in permissions):
        names = ", ".join(access.IMODEL_PERMISSIONS)
        fields.problems.add_invalid("permissions", f"The value must be a list of {names}.")
        return []
    return sorted(set(permissions), key=access.IMODEL_PERMISSIONS.index)


def _answer_permissions(call: Call, kind: _GranteeKind, imodel_id: str) -> Answer:
    by_grantee: dict[str, list[str]] = {}
    statement = f"SELECT {kind.column}, permission FROM {kind.table} WHERE imodel_id = ? ORDER BY {kind.column}"
    for grantee, permission in call.sql.execute(statement, (imodel_id,)):
        by_grantee.setdefault(grantee, []).append(permission)
    grantees = [
        {kind.id_name: grantee, "permissions": [name for name in access.IMODEL_PERMISSIONS if name in permissions]}
        for grantee, permissions in by_grantee.items()
    ]
    return ok({kind.wrapper: grantees})
