"""The people of an iModel: who has ever been connected to it, what they did there, and what the caller may do."""

from __future__ import annotations

import sqlite3
from typing import Final

from itwin_mcp.sandbox import access, odata, paging
from itwin_mcp.sandbox.errors import ApiError, imodels_problems
from itwin_mcp.sandbox.wire import Answer, Call, Json, Route, ok

_ORDER: Final = {"givenName": "u.given_name", "surname": "u.surname"}
SELECTED: Final = """u.*, i.imodel_id, i.last_access_at,
  (SELECT COUNT(*) FROM changesets c
   WHERE c.imodel_id = i.imodel_id AND c.creator_id = u.id AND c.state = 'fileUploaded') AS pushed,
  (SELECT MAX(c.pushed_at) FROM changesets c
   WHERE c.imodel_id = i.imodel_id AND c.creator_id = u.id AND c.state = 'fileUploaded') AS last_push_at,
  (SELECT COUNT(*) FROM named_versions v WHERE v.imodel_id = i.imodel_id AND v.creator_id = u.id) AS versions,
  (SELECT COUNT(*) FROM briefcases b
   WHERE b.imodel_id = i.imodel_id AND b.owner_id = u.id AND b.released_at IS NULL) AS briefcases"""
SOURCE: Final = "imodel_users i JOIN users u ON u.id = i.user_id"


def connect(call: Call, imodel_id: str) -> None:
    """Note that the caller works on the iModel; whoever creates or changes something in one calls this."""
    call.sql.execute(
        "INSERT INTO imodel_users VALUES (?, ?, ?) "
        "ON CONFLICT (imodel_id, user_id) DO UPDATE SET last_access_at = excluded.last_access_at",
        (imodel_id, call.caller.id, call.stamp),
    )


def render(call: Call, row: sqlite3.Row, *, whole: bool) -> Json:
    """A user of an iModel from a row of SELECTED."""
    user: Json = {"id": row["id"], "displayName": row["email"]}
    links = {"self": call.link(f"/imodels/{row['imodel_id']}/users/{row['id']}")}
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
                "applications": _applications(call, row),
            },
        }
    return user | {"_links": links}


def list_all(call: Call) -> Answer:
    """get-imodel-users."""
    imodel = access.imodel(call, access.WEBVIEW)
    problems = imodels_problems("Cannot get Users.")
    page = paging.imodels_page(call, problems)
    order = "u.seq"
    if text := call.query.get("$orderBy"):
        try:
            order = f"{odata.parse_order(text, _ORDER)}, u.seq"
        except odata.ODataError as error:
            problems.invalid("$orderBy", str(error))
    problems.refuse()
    statement = f"SELECT {SELECTED} FROM {SOURCE} WHERE i.imodel_id = ? ORDER BY {order}"
    rows, links = page.select(call, statement, (imodel["id"],))
    shown = [render(call, row, whole=call.wants_representation) for row in rows]
    return ok({"users": shown, "_links": links})


def get(call: Call) -> Answer:
    """get-imodel-user-details."""
    imodel = access.imodel(call, access.WEBVIEW)
    row = call.one(
        f"SELECT {SELECTED} FROM {SOURCE} WHERE i.imodel_id = ? AND i.user_id = ?",
        imodel["id"],
        call.slots["userId"].lower(),
    )
    if row is None:
        raise ApiError("UserNotFound")
    return ok({"user": render(call, row, whole=True)})


def get_permissions(call: Call) -> Answer:
    """get-imodel-permissions: the caller's own; imodels_delete is never among them, it belongs to the iTwin."""
    imodel = access.imodel(call, access.WEBVIEW)
    granted = access.imodel_permissions(call, imodel) or frozenset()
    return ok({"permissions": [name for name in access.IMODEL_PERMISSIONS if name in granted]})


def _applications(call: Call, row: sqlite3.Row) -> list[Json]:
    """The applications of the user's briefcases, and whether locks are held there (changelog May 13 2025)."""
    found = call.sql.execute(
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
            "id": one["client_id"],
            "name": one["name"] or one["client_id"],
            "ownsLocks": one["locks"] > 0,
            "ownsExclusiveRootElementLock": bool(one["root"]),
        }
        for one in found
    ]


ROUTES: Final = (
    Route("GET", "/imodels/{iModelId}/users", list_all, slug="get-imodel-users"),
    Route("GET", "/imodels/{iModelId}/users/{userId}", get, slug="get-imodel-user-details"),
    Route("GET", "/imodels/{iModelId}/permissions", get_permissions, slug="get-imodel-permissions"),
)
