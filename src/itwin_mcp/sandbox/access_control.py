"""The Access Control API (v2) of an iTwin: its members, its roles, and what the caller may do there.

Members can be added, but not changed or removed. These operations are outside of the 90.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from datetime import timedelta
from typing import Final

from itwin_mcp.sandbox import access, paging
from itwin_mcp.sandbox.errors import ApiError, Problems, itwins_problems
from itwin_mcp.sandbox.store import stamp
from itwin_mcp.sandbox.wire import Answer, Call, Fields, Json, Route, created, ok

INVITE_MEMBER: Final = "administration_invite_member"
REMOVE_USER: Final = "administration_remove_user"
MANAGE_ROLES: Final = "administration_manage_roles"
ADMINISTRATION: Final = frozenset({INVITE_MEMBER, REMOVE_USER, MANAGE_ROLES})
MAX_ASSIGNMENTS: Final = 50
INVITATION_LIFE: Final = timedelta(days=7)
ROLE_TYPE: Final = "Custom"
_USER: Final = (
    "u.id, u.email, u.given_name, u.surname, "
    "(SELECT a.display_name FROM itwins a WHERE a.id = u.account_id) AS organization"
)
# Owners are a list of their own, and their role is none of the roles (get-itwin-owner-members).
_MEMBERS: Final = (
    "FROM users u WHERE EXISTS (SELECT 1 FROM itwin_members m WHERE m.itwin_id = ? AND m.user_id = u.id "
    "AND m.role_id {} ?)"
)


def get_all_permissions(call: Call) -> Answer:
    """get-all-permissions: every permission that exists."""
    del call
    return ok({"permissions": sorted(access.ALL_PERMISSIONS | ADMINISTRATION)})


def get_permissions(call: Call) -> Answer:
    """get-iTwin-permissions: the caller's own."""
    return ok({"permissions": sorted(_granted(call, _itwin(call)))})


def list_roles(call: Call) -> Answer:
    """get-iTwin-roles: those of the iTwin and those of its Account."""
    rows = call.sql.execute(f"SELECT * FROM roles r WHERE {_ROLE_OF_ITWIN} ORDER BY rowid", _role_scope(call))
    return ok({"roles": [_render_role(call, row) for row in rows.fetchall()]})


def get_role(call: Call) -> Answer:
    """get-iTwin-role."""
    scope = _role_scope(call)
    row = call.one(f"SELECT * FROM roles r WHERE {_ROLE_OF_ITWIN} AND id = ?", *scope, call.slots["roleId"].lower())
    if row is None:
        raise ApiError("RoleNotFound")
    return ok({"role": _render_role(call, row)})


def list_users(call: Call) -> Answer:
    """get-itwin-user-members."""
    return _members(call, owners=False)


def list_owners(call: Call) -> Answer:
    """get-itwin-owner-members."""
    return _members(call, owners=True)


def list_groups(call: Call) -> Answer:
    """get-itwin-group-members: the sandbox has no groups."""
    _itwin(call)
    page = _page(call)
    return ok({"members": [], "_links": page.links(call, more=False)})


def get_user(call: Call) -> Answer:
    """get-itwin-user-member."""
    itwin = _itwin(call)
    row = call.one(
        f"SELECT {_USER} {_MEMBERS.format('<>')} AND u.id = ?",
        itwin["id"],
        access.OWNER_ROLE,
        call.slots["memberId"].lower(),
    )
    if row is None:
        raise ApiError("TeamMemberNotFound")
    return ok({"member": _render_user(row) | {"roles": _roles_of(call, itwin["id"], row["id"])}})


def add_users(call: Call) -> Answer:
    """add-itwin-user-members: people of the iTwin's organization become members, everyone else is invited."""
    itwin = _itwin(call)
    if INVITE_MEMBER not in _granted(call, itwin):
        raise ApiError("InsufficientPermissions")
    problems = Problems("InvalidiTwinsMemberRequest", "Cannot add iTwin members.")
    wanted = [_wanted(call, itwin, member) for member in call.fields(problems).objects("members")]
    if len(wanted) > MAX_ASSIGNMENTS or sum(len(roles) for _, roles in wanted) > MAX_ASSIGNMENTS:
        problems.invalid("members", f"At most {MAX_ASSIGNMENTS} roles can be assigned in one request.")
    problems.refuse()
    members: list[Json] = []
    invitations: list[Json] = []
    for email, roles in wanted:
        user = call.one(f"SELECT {_USER}, u.account_id FROM users u WHERE u.email = ?", email)
        if user is None or user["account_id"] != itwin["account_id"]:
            invitations.append(_invitation(call, email, roles))
            continue
        call.sql.executemany(
            "INSERT OR IGNORE INTO itwin_members VALUES (?, ?, ?)",
            [(itwin["id"], user["id"], role["id"]) for role in roles],
        )
        members.append(_render_user(user) | {"roles": _roles_of(call, itwin["id"], user["id"])})
    return created({"members": members, "invitations": invitations})


def _wanted(call: Call, itwin: sqlite3.Row, member: Fields) -> tuple[str, list[sqlite3.Row]]:
    """Return the address of one new member, and the roles that it gets."""
    email = member.text("email", required=True) or ""
    ids = member.values.get("roleIds")
    found = call.sql.execute(
        f"SELECT * FROM roles r WHERE {_ROLE_OF_ITWIN} AND id IN (SELECT value FROM json_each(?))",
        (itwin["id"], itwin["account_id"], json.dumps(ids if isinstance(ids, list) else [])),
    ).fetchall()
    if not isinstance(ids, list) or not ids or len(found) != len(ids):
        member.problems.invalid("roleIds", "Give at least one id of a role of the iTwin, each once.")
    return email, found


def _invitation(call: Call, email: str, roles: list[sqlite3.Row]) -> Json:
    """Return an invitation as the answer shows it. Nobody can accept it, so that it is not stored."""
    return {
        "id": str(uuid.uuid4()),
        "email": email,
        "invitedByEmail": call.caller.email,
        "status": "Pending",
        "createdDate": call.stamp,
        "expirationDate": stamp(call.now + INVITATION_LIFE),
        "roles": [_summary(role) for role in roles],
    }


def _page(call: Call) -> paging.Page:
    problems = itwins_problems("Cannot query iTwin members.")
    page = paging.itwins_page(call, problems, shows_absent=True)
    problems.refuse()
    return page


def _members(call: Call, *, owners: bool) -> Answer:
    itwin = _itwin(call)
    page = _page(call)
    statement = f"SELECT {_USER} {_MEMBERS.format('=' if owners else '<>')} ORDER BY u.seq"
    rows, links = page.select(call, statement, (itwin["id"], access.OWNER_ROLE))
    shown = [_render_user(row) for row in rows]
    if not owners:
        shown = [user | {"roles": _roles_of(call, itwin["id"], user["id"])} for user in shown]
    return ok({"members": shown, "_links": links})


def _itwin(call: Call) -> sqlite3.Row:
    try:
        return access.itwin(call, call.slots["iTwinId"])
    except ApiError as error:
        raise ApiError("ItwinNotFound") from error


def _granted(call: Call, itwin: sqlite3.Row) -> frozenset[str]:
    granted = access.itwin_permissions(call, itwin)
    if access.administers(call, itwin) or access.is_owner(call, itwin["id"]):
        granted |= ADMINISTRATION
    return granted


_ROLE_OF_ITWIN: Final = "r.itwin_id IN (?, ?)"


def _role_scope(call: Call) -> tuple[str, str]:
    """Where the roles of the iTwin in the path are defined, for whoever may see them."""
    itwin = _itwin(call)
    if MANAGE_ROLES not in _granted(call, itwin):
        raise ApiError("InsufficientPermissions")
    return itwin["id"], itwin["account_id"]


def _render_role(call: Call, row: sqlite3.Row) -> Json:
    found = call.sql.execute(
        "SELECT permission FROM role_permissions WHERE role_id = ? ORDER BY permission", (row["id"],)
    )
    permissions = [permission for (permission,) in found]
    return _summary(row) | {"type": ROLE_TYPE, "permissions": permissions}


def _summary(row: sqlite3.Row) -> Json:
    return {"id": row["id"], "displayName": row["display_name"], "description": row["description"]}


def _render_user(row: sqlite3.Row) -> Json:
    return {
        "id": row["id"],
        "email": row["email"],
        "givenName": row["given_name"],
        "surname": row["surname"],
        "organization": row["organization"],
    }


def _roles_of(call: Call, itwin_id: str, user_id: str) -> list[Json]:
    found = call.sql.execute(
        "SELECT r.* FROM itwin_members m JOIN roles r ON r.id = m.role_id "
        "WHERE m.itwin_id = ? AND m.user_id = ? AND r.id <> ? ORDER BY r.rowid",
        (itwin_id, user_id, access.OWNER_ROLE),
    )
    return [_summary(row) for row in found.fetchall()]


_ITWIN: Final = "/accesscontrol/itwins/{iTwinId}"

ROUTES: Final = (
    Route("GET", "/accesscontrol/itwins/permissions", get_all_permissions),
    Route("GET", f"{_ITWIN}/permissions", get_permissions),
    Route("GET", f"{_ITWIN}/roles", list_roles),
    Route("GET", f"{_ITWIN}/roles/{{roleId}}", get_role),
    Route("GET", f"{_ITWIN}/members/users", list_users),
    Route("POST", f"{_ITWIN}/members/users", add_users),
    Route("GET", f"{_ITWIN}/members/users/{{memberId}}", get_user),
    Route("GET", f"{_ITWIN}/members/owners", list_owners),
    Route("GET", f"{_ITWIN}/members/groups", list_groups),
)
