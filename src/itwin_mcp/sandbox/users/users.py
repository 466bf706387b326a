"""The caller's own profile, and the names of users in the caller's organization by their ids.

Documentation: https://developer.bentley.com/apis/users/operations/
"""

from __future__ import annotations

import json
import re
import sqlite3
from typing import Final

from itwin_mcp.sandbox.errors import ApiError, Problems
from itwin_mcp.sandbox.wire import Answer, Call, Json, ok, parse_json

MAX_IDS: Final = 1000
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_USER_COLUMNS: Final = (
    "u.id, u.email, u.given_name, u.surname, "
    "(SELECT a.display_name FROM itwins a WHERE a.id = u.account_id) AS organization, "
    "(SELECT a.created_at FROM itwins a WHERE a.id = u.account_id) AS created_at"
)


def get_my_profile(call: Call) -> Answer:
    row = call.require_one("Unauthorized", f"SELECT {_USER_COLUMNS} FROM users u WHERE u.id = ?", call.caller.id)
    profile = {
        "displayName": row["email"],
        "alternateEmail": None,
        "phone": None,
        "city": None,
        "country": None,
        "language": "EN",
        "createdDateTime": row["created_at"],
    }
    return ok({"user": _render_user(row) | profile})


def list_users_by_id(call: Call) -> Answer:
    """List the users with the ids in the body. Unknown ids and users of other organizations are omitted."""
    ids = parse_json(call.body)
    if not isinstance(ids, list) or not all(isinstance(user_id, str) and _UUID.fullmatch(user_id) for user_id in ids):
        raise ApiError("InvalidUsersRequest", "Invalid request body.")
    if len(ids) > MAX_IDS:
        problems = Problems("InvalidUsersRequest", "Cannot query users.")
        problems.fail("InvalidValue", f"The request body cannot contain more than {MAX_IDS} user Ids.", "request")
    rows = call.sql.execute(
        f"SELECT {_USER_COLUMNS} FROM users u "
        "WHERE u.account_id = ? AND u.id IN (SELECT lower(value) FROM json_each(?)) ORDER BY u.seq",
        (call.caller.account_id, json.dumps(ids)),
    )
    return ok({"users": [_render_user(row) for row in rows.fetchall()]})


def _render_user(row: sqlite3.Row) -> Json:
    return {
        "id": row["id"],
        "email": row["email"],
        "givenName": row["given_name"],
        "surname": row["surname"],
        "organizationName": row["organization"],
    }
