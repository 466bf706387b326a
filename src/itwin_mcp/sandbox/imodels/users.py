"""The users of an iModel with their statistics, and the caller's own permissions."""

from __future__ import annotations

import sqlite3
from typing import Final

from itwin_mcp.sandbox import access, paging
from itwin_mcp.sandbox.errors import make_imodels_problems
from itwin_mcp.sandbox.wire import Answer, Call, Json, ok

_ORDER_COLUMNS: Final = {"givenName": "u.given_name", "surname": "u.surname"}
SELECTED_COLUMNS: Final = """u.*, i.imodel_id, i.last_access_at,
  (SELECT COUNT(*) FROM changesets c
   WHERE c.imodel_id = i.imodel_id AND c.creator_id = u.id AND c.state = 'fileUploaded') AS pushed,
  (SELECT MAX(c.pushed_at) FROM changesets c
   WHERE c.imodel_id = i.imodel_id AND c.creator_id = u.id AND c.state = 'fileUploaded') AS last_push_at,
  (SELECT COUNT(*) FROM named_versions v WHERE v.imodel_id = i.imodel_id AND v.creator_id = u.id) AS versions,
  (SELECT COUNT(*) FROM briefcases b
   WHERE b.imodel_id = i.imodel_id AND b.owner_id = u.id AND b.released_at IS NULL) AS briefcases"""
SOURCE: Final = "imodel_users i JOIN users u ON u.id = i.user_id"


def record_access(call: Call, imodel_id: str) -> None:
    """Record that the caller has worked on the iModel. Every operation that changes an iModel calls this."""
    call.sql.execute(
        "INSERT INTO imodel_users VALUES (?, ?, ?) "
        "ON CONFLICT (imodel_id, user_id) DO UPDATE SET last_access_at = excluded.last_access_at",
        (imodel_id, call.caller.id, call.timestamp),
    )


def render_user(call: Call, row: sqlite3.Row, *, whole: bool) -> Json:
    """Render a row of SELECTED_COLUMNS."""
    user: Json = {"id": row["id"], "displayName": row["email"]}
    links = {"self": call.make_link(f"/imodels/{row['imodel_id']}/users/{row['id']}")}
    if whole:
        user |= {
            "givenName": row["given_name"],
            "surname": row["surname"],
            "email": row["email"],
            "statistics": {
                "pushedChangesetsCount": row["pushed"],
                "lastChangesetPushDate": row["last_push_at"],
                "createdVersionsCount": row["versions"],
                "lastAccessTime": row["last_access_at"],
                "briefcasesCount": row["briefcases"],
                "applications": _list_applications(call, row),
            },
        }
    return user | {"_links": links}


def list_users(call: Call) -> Answer:
    imodel = access.require_imodel(call, access.WEBVIEW)
    problems = make_imodels_problems("Cannot get Users.")
    page = paging.read_imodels_page(call, problems)
    order = paging.read_order(call, problems, _ORDER_COLUMNS, last="u.seq")
    problems.raise_if_any()
    statement = f"SELECT {SELECTED_COLUMNS} FROM {SOURCE} WHERE i.imodel_id = ? ORDER BY {order}"
    rows, links = page.fetch_rows(call, statement, (imodel["id"],))
    users = [render_user(call, row, whole=call.wants_representation) for row in rows]
    return ok({"users": users, "_links": links})


def get_user(call: Call) -> Answer:
    imodel = access.require_imodel(call, access.WEBVIEW)
    statement = f"SELECT {SELECTED_COLUMNS} FROM {SOURCE} WHERE i.imodel_id = ? AND i.user_id = ?"
    row = call.require_one("UserNotFound", statement, imodel["id"], call.slots["userId"].lower())
    return ok({"user": render_user(call, row, whole=True)})


def get_my_permissions(call: Call) -> Answer:
    """Return the caller's permissions on the iModel. `imodels_delete` is not one: it exists only on the iTwin."""
    imodel = access.require_imodel(call, access.WEBVIEW)
    permissions = access.get_imodel_permissions(call, imodel) or frozenset()
    return ok({"permissions": [name for name in access.IMODEL_PERMISSIONS if name in permissions]})


def _list_applications(call: Call, row: sqlite3.Row) -> list[Json]:
    """Return the applications of a user's briefcases and whether they hold locks (changelog, May 13 2025)."""
    rows = call.sql.execute(
        "SELECT b.client_id, a.name, COUNT(l.object_id) AS locks, "
        "MAX(l.object_id = '0x1' AND l.level = 'exclusive') AS root FROM briefcases b "
        "LEFT JOIN oauth_clients a ON a.id = b.client_id "
        "LEFT JOIN locks l ON l.imodel_id = b.imodel_id AND l.briefcase_id = b.briefcase_id "
        "WHERE b.imodel_id = ? AND b.owner_id = ? AND b.released_at IS NULL "
        "GROUP BY b.client_id, a.name ORDER BY b.client_id",
        (row["imodel_id"], row["id"]),
    )
    return [
        {
            "id": application["client_id"],
            "name": application["name"] or application["client_id"],
            "ownsLocks": application["locks"] > 0,
            "ownsExclusiveRootElementLock": bool(application["root"]),
        }
        for application in rows
    ]
