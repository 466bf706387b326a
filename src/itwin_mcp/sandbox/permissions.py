"""Permissions configured on one iModel, for users or for roles but never for both; they win over the iTwin's roles.

The pages of these operations do not show their bodies to us, so the names of their properties are a plausible reading.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from itwin_mcp.sandbox import access
from itwin_mcp.sandbox.errors import imodels_problems
from itwin_mcp.sandbox.wire import Answer, Call, Fields, Route, ok


@dataclass(frozen=True, slots=True)
class _Kind:
    """Whom permissions are given to; `known` finds one whose id and iModel are its parameters."""

    word: str
    wrapper: str
    id_name: str
    table: str
    column: str
    known: str
    other: str
    other_word: str


_USERS: Final = _Kind(
    word="User",
    wrapper="userPermissions",
    id_name="userId",
    table="imodel_user_permissions",
    column="user_id",
    # Someone who is no member of the iTwin does not come as far as its iModels.
    known=(
        "SELECT i.user_id FROM itwin_members i JOIN imodels m ON m.itwin_id = i.itwin_id "
        "WHERE i.user_id = ? AND m.id = ?"
    ),
    other="imodel_role_permissions",
    other_word="Role",
)
_ROLES: Final = _Kind(
    word="Role",
    wrapper="rolePermissions",
    id_name="roleId",
    table="imodel_role_permissions",
    column="role_id",
    known=(
        "SELECT r.id FROM roles r JOIN imodels m JOIN itwins t ON t.id = m.itwin_id "
        "WHERE r.id = ? AND m.id = ? AND r.itwin_id IN (t.id, t.account_id)"
    ),
    other="imodel_user_permissions",
    other_word="User",
)


def get_for_users(call: Call) -> Answer:
    """get-imodel-user-permissions."""
    return _get(call, _USERS)


def get_for_roles(call: Call) -> Answer:
    """get-imodel-role-permissions."""
    return _get(call, _ROLES)


def update_for_user(call: Call) -> Answer:
    """update-imodel-user-permissions: what is given is all that the user has; nothing takes the user out."""
    return _update(call, _USERS)


def update_for_role(call: Call) -> Answer:
    """update-imodel-role-permissions: what is given is all that the role has; nothing takes the role out."""
    return _update(call, _ROLES)


def _get(call: Call, kind: _Kind) -> Answer:
    return _answer(call, kind, access.imodel(call, access.WEBVIEW)["id"])


def _update(call: Call, kind: _Kind) -> Answer:
    imodel = access.imodel(call, access.MANAGE)
    problems = imodels_problems(f"Cannot update {kind.word} permissions.")
    fields = call.fields(problems)
    holder = fields.text(kind.id_name, required=True)
    granted = _permissions(fields)
    if holder is not None:
        row = call.one(kind.known, holder.lower(), imodel["id"])
        if row is None:
            problems.invalid(kind.id_name, f"The {kind.word} is not available in the iTwin.")
        else:
            holder = row[0]
    if call.one(f"SELECT 1 FROM {kind.other} WHERE imodel_id = ? LIMIT 1", imodel["id"]):
        message = f"{kind.other_word} permissions are configured; {kind.word} permissions cannot be at the same time."
        problems.add("InvalidChange", message)
    problems.refuse()
    call.sql.execute(f"DELETE FROM {kind.table} WHERE imodel_id = ? AND {kind.column} = ?", (imodel["id"], holder))
    call.sql.executemany(
        f"INSERT INTO {kind.table} (imodel_id, {kind.column}, permission) VALUES (?, ?, ?)",
        [(imodel["id"], holder, permission) for permission in granted],
    )
    return _answer(call, kind, imodel["id"])


def _permissions(fields: Fields) -> list[str]:
    given = fields.values.get("permissions")
    if given is None:
        fields.problems.missing("permissions")
        return []
    if not isinstance(given, list) or not all(name in access.IMODEL_PERMISSIONS for name in given):
        words = ", ".join(access.IMODEL_PERMISSIONS)
        fields.problems.invalid("permissions", f"The value must be a list of {words}.")
        return []
    return sorted(set(given), key=access.IMODEL_PERMISSIONS.index)


def _answer(call: Call, kind: _Kind, imodel_id: str) -> Answer:
    found: dict[str, list[str]] = {}
    statement = f"SELECT {kind.column}, permission FROM {kind.table} WHERE imodel_id = ? ORDER BY {kind.column}"
    for holder, permission in call.sql.execute(statement, (imodel_id,)):
        found.setdefault(holder, []).append(permission)
    shown = [
        {kind.id_name: holder, "permissions": [name for name in access.IMODEL_PERMISSIONS if name in granted]}
        for holder, granted in found.items()
    ]
    return ok({kind.wrapper: shown})


ROUTES: Final = (
    Route("GET", "/imodels/{iModelId}/userpermissions", get_for_users, slug="get-imodel-user-permissions"),
    Route("PATCH", "/imodels/{iModelId}/userpermissions", update_for_user, slug="update-imodel-user-permissions"),
    Route("GET", "/imodels/{iModelId}/rolepermissions", get_for_roles, slug="get-imodel-role-permissions"),
    Route("PATCH", "/imodels/{iModelId}/rolepermissions", update_for_role, slug="update-imodel-role-permissions"),
)
