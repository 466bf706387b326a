"""List and add the members of an iTwin. Changing and removing members is not emulated."""

from __future__ import annotations

import json
import sqlite3
import uuid
from datetime import timedelta
from typing import Final

from itwin_mcp.sandbox import access, paging
from itwin_mcp.sandbox.access_control import roles
from itwin_mcp.sandbox.errors import ApiError, Problems, make_itwins_problems
from itwin_mcp.sandbox.store import format_timestamp
from itwin_mcp.sandbox.wire import Answer, Call, Fields, Json, created, ok

MAX_ASSIGNMENTS: Final = 50
INVITATION_LIFETIME: Final = timedelta(days=7)
_MEMBER_COLUMNS: Final = (
    "u.id, u.email, u.given_name, u.surname, "
    "(SELECT a.display_name FROM itwins a WHERE a.id = u.account_id) AS organization"
)
# Owners have a list of their own, and their role is not listed (get-itwin-owner-members).
_FROM_MEMBERS: Final = (
    "FROM users u WHERE EXISTS (SELECT 1 FROM itwin_members m WHERE m.itwin_id = ? AND m.user_id = u.id "
    "AND m.role_id {} ?)"
)


def list_user_members(call: Call) -> Answer:
    return _list_members(call, owners=False)


def list_owner_members(call: Call) -> Answer:
    return _list_members(call, owners=True)


def list_group_members(call: Call) -> Answer:
    """Return an empty page: the sandbox has no groups."""
    roles.find_itwin(call)
    page = _read_page(call)
    return ok({"members": [], "_links": page.make_links(call, more=False)})


def get_user_member(call: Call) -> Answer:
    itwin = roles.find_itwin(call)
    row = call.require_one(
        "TeamMemberNotFound",
        f"SELECT {_MEMBER_COLUMNS} {_FROM_MEMBERS.format('<>')} AND u.id = ?",
        itwin["id"],
        access.OWNER_ROLE,
        call.slots["memberId"].lower(),
    )
    return ok({"member": _render_member(row) | {"roles": _list_roles(call, itwin["id"], row["id"])}})


def add_user_members(call: Call) -> Answer:
    """Add users of the iTwin's organization as members, and invite everyone else."""
    itwin = roles.find_itwin(call)
    if roles.INVITE_MEMBER not in roles.get_permissions(call, itwin):
        raise ApiError("InsufficientPermissions")
    problems = Problems("InvalidiTwinsMemberRequest", "Cannot add iTwin members.")
    new_members = [
        _read_new_member(call, itwin, member) for member in call.read_fields(problems).get_objects("members")
    ]
    if len(new_members) > MAX_ASSIGNMENTS or sum(len(granted) for _, granted in new_members) > MAX_ASSIGNMENTS:
        problems.add_invalid("members", f"At most {MAX_ASSIGNMENTS} roles can be assigned in one request.")
    problems.raise_if_any()
    members: list[Json] = []
    invitations: list[Json] = []
    for email, granted in new_members:
        user = call.fetch_one(f"SELECT {_MEMBER_COLUMNS}, u.account_id FROM users u WHERE u.email = ?", email)
        if user is None or user["account_id"] != itwin["account_id"]:
            invitations.append(_make_invitation(call, email, granted))
            continue
        call.sql.executemany(
            "INSERT OR IGNORE INTO itwin_members VALUES (?, ?, ?)",
            [(itwin["id"], user["id"], role["id"]) for role in granted],
        )
        members.append(_render_member(user) | {"roles": _list_roles(call, itwin["id"], user["id"])})
    return created({"members": members, "invitations": invitations})


def _read_new_member(call: Call, itwin: sqlite3.Row, member: Fields) -> tuple[str, list[sqlite3.Row]]:
    """Return the e-mail address and the roles of one new member in the request."""
    email = member.get_text("email", required=True) or ""
    ids = member.values.get("roleIds")
    rows = call.sql.execute(
        f"SELECT * FROM roles r WHERE {roles.IS_ROLE_OF_ITWIN} AND id IN (SELECT value FROM json_each(?))",
        (itwin["id"], itwin["account_id"], json.dumps(ids if isinstance(ids, list) else [])),
    ).fetchall()
    if not isinstance(ids, list) or not ids or len(rows) != len(ids):
        member.problems.add_invalid("roleIds", "Give at least one id of a role of the iTwin, each once.")
    return email, rows


def _make_invitation(call: Call, email: str, granted: list[sqlite3.Row]) -> Json:
    """Return an invitation to show in the answer. It is not stored, because nobody can accept it."""
    return {
        "id": str(uuid.uuid4()),
        "email": email,
        "invitedByEmail": call.caller.email,
        "status": "Pending",
        "createdDate": call.timestamp,
        "expirationDate": format_timestamp(call.now + INVITATION_LIFETIME),
        "roles": [roles.summarize_role(role) for role in granted],
    }


def _read_page(call: Call) -> paging.Page:
    problems = make_itwins_problems("Cannot query iTwin members.")
    page = paging.read_itwins_page(call, problems, null_links=True)
    problems.raise_if_any()
    return page


def _list_members(call: Call, *, owners: bool) -> Answer:
    itwin = roles.find_itwin(call)
    page = _read_page(call)
    statement = f"SELECT {_MEMBER_COLUMNS} {_FROM_MEMBERS.format('=' if owners else '<>')} ORDER BY u.seq"
    rows, links = page.fetch_rows(call, statement, (itwin["id"], access.OWNER_ROLE))
    members = [_render_member(row) for row in rows]
    if not owners:
        members = [user | {"roles": _list_roles(call, itwin["id"], user["id"])} for user in members]
    return ok({"members": members, "_links": links})


def _render_member(row: sqlite3.Row) -> Json:
    return {
        "id": row["id"],
        "email": row["email"],
        "givenName": row["given_name"],
        "surname": row["surname"],
        "organization": row["organization"],
    }


def _list_roles(call: Call, itwin_id: str, user_id: str) -> list[Json]:
    rows = call.sql.execute(
        "SELECT r.* FROM itwin_members m JOIN roles r ON r.id = m.role_id "
        "WHERE m.itwin_id = ? AND m.user_id = ? AND r.id <> ? ORDER BY r.rowid",
        (itwin_id, user_id, access.OWNER_ROLE),
    )
    return [roles.summarize_role(row) for row in rows.fetchall()]
