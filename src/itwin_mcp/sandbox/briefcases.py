"""Briefcases: the numbered copies of an iModel that its changes come from; a number is never given out twice.

A released briefcase stays in the store, unseen, because its number stays taken and its acquisition counts for a minute.
"""

from __future__ import annotations

import math
import sqlite3
from datetime import timedelta
from typing import Final

from itwin_mcp.sandbox import access, changesets, imodel_file, odata, paging, people
from itwin_mcp.sandbox.errors import ApiError, imodels_problems
from itwin_mcp.sandbox.store import moment_of, stamp
from itwin_mcp.sandbox.wire import Answer, Call, Json, Route, created, no_content, ok

FIRST: Final = 2  # BriefcaseIdValue of iTwin.js: 0 and 1 are no briefcases of their own
MOST_PER_USER: Final = 100
MOST_PER_MINUTE: Final = 100
_ME: Final = "me"
_ORDER: Final = {"acquiredDateTime": "b.acquired_at"}
SELECTED: Final = "b.*, a.name AS application_name"
SOURCE: Final = "briefcases b LEFT JOIN oauth_clients a ON a.id = b.client_id"
HELD: Final = "b.imodel_id = ? AND b.released_at IS NULL"


def render(call: Call, row: sqlite3.Row, *, whole: bool) -> Json:
    """A briefcase from a row of SELECTED; its link to a checkpoint leads to the latest one."""
    number = row["briefcase_id"]
    briefcase: Json = {"id": str(number), "displayName": str(number)}
    if whole:
        root = f"/imodels/{row['imodel_id']}"
        briefcase |= {
            "briefcaseId": number,
            "ownerId": row["owner_id"],
            "acquiredDateTime": row["acquired_at"],
            "fileSize": row["file_size"],
            "deviceName": row["device_name"],
            "application": changesets.application(row),
            "_links": {
                "owner": call.link(f"{root}/users/{row['owner_id']}"),
                "checkpoint": call.link(f"{root}/briefcases/checkpoint"),
            },
        }
    return briefcase


def find(call: Call, imodel: sqlite3.Row, number: int) -> sqlite3.Row:
    """One briefcase of the iModel that has not been released."""
    row = call.one(f"SELECT {SELECTED} FROM {SOURCE} WHERE {HELD} AND b.briefcase_id = ?", imodel["id"], number)
    if row is None:
        raise ApiError("BriefcaseNotFound")
    return row


def own(call: Call, imodel: sqlite3.Row, number: int, *, or_with: str | None = None) -> sqlite3.Row:
    """One briefcase, if it is the caller's own or the caller has the permission that reaches further."""
    row = find(call, imodel, number)
    granted = access.imodel_permissions(call, imodel) or frozenset()
    if row["owner_id"] != call.caller.id and or_with not in granted:
        raise ApiError("InsufficientPermissions")
    return row


def list_all(call: Call) -> Answer:
    """get-imodel-briefcases: by ascending number unless told otherwise."""
    imodel = access.imodel(call, access.WEBVIEW)
    problems = imodels_problems("Cannot get Briefcases.")
    page = paging.imodels_page(call, problems)
    order = "b.briefcase_id"
    if text := call.query.get("$orderBy"):
        try:
            order = f"{odata.parse_order(text, _ORDER)}, b.briefcase_id"
        except odata.ODataError as error:
            problems.invalid("$orderBy", str(error))
    problems.refuse()
    condition, parameters = HELD, [imodel["id"]]
    if (owner := call.query.get("ownerId")) is not None:
        condition += " AND b.owner_id = ?"
        parameters.append(call.caller.id if owner.lower() == _ME else owner.lower())
    statement = f"SELECT {SELECTED} FROM {SOURCE} WHERE {condition} ORDER BY {order}"
    rows, links = page.select(call, statement, parameters)
    shown = [render(call, row, whole=call.wants_representation) for row in rows]
    return ok({"briefcases": shown, "_links": links})


def get(call: Call) -> Answer:
    """get-imodel-briefcase-details."""
    imodel = access.imodel(call, access.WEBVIEW)
    return ok({"briefcase": render(call, find(call, imodel, _number(call)), whole=True)})


def acquire(call: Call) -> Answer:
    """acquire-imodel-briefcase: at most 100 in an iModel and 100 in a minute for each user."""
    imodel = access.imodel(call, access.WRITE)
    problems = imodels_problems("Cannot acquire Briefcase.")
    device = call.fields(problems).text("deviceName") if call.body.strip() else None
    problems.refuse()
    if imodel["state"] != "initialized":
        raise ApiError("iModelNotInitialized")
    _check_quotas(call, imodel["id"])
    last = call.one("SELECT MAX(briefcase_id) FROM briefcases WHERE imodel_id = ?", imodel["id"])
    number = max(FIRST, 1 + (last[0] if last and last[0] is not None else 0))
    baseline = call.one("SELECT file_size FROM baseline_files WHERE imodel_id = ?", imodel["id"])
    size = baseline["file_size"] if baseline else imodel_file.SIZE
    call.sql.execute(
        "INSERT INTO briefcases (imodel_id, briefcase_id, owner_id, acquired_at, file_size, device_name, client_id) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (imodel["id"], number, call.caller.id, call.stamp, size, device, call.caller.client_id),
    )
    people.connect(call, imodel["id"])
    return created({"briefcase": render(call, find(call, imodel, number), whole=True)})


def release(call: Call) -> Answer:
    """release-imodel-briefcase: webview is enough for one's own; its locks are abandoned with it."""
    imodel = access.imodel(call, access.WEBVIEW)
    row = own(call, imodel, _number(call), or_with=access.MANAGE)
    key = (imodel["id"], row["briefcase_id"])
    call.sql.execute("DELETE FROM locks WHERE imodel_id = ? AND briefcase_id = ?", key)
    call.sql.execute(
        "UPDATE briefcases SET released_at = ? WHERE imodel_id = ? AND briefcase_id = ?", (call.stamp, *key)
    )
    people.connect(call, imodel["id"])
    return no_content()


def _check_quotas(call: Call, imodel_id: str) -> None:
    lately = stamp(call.now - timedelta(minutes=1))
    statement = "SELECT COUNT(*), MIN(acquired_at) FROM briefcases WHERE owner_id = ? AND acquired_at > ?"
    made = call.one(statement, call.caller.id, lately)
    if made is not None and made[0] >= MOST_PER_MINUTE:
        waited = (call.now - moment_of(made[1])).total_seconds()
        raise ApiError("RateLimitExceeded", retry_after=max(1, math.ceil(60 - waited)))
    held = call.one(f"SELECT COUNT(*) FROM briefcases b WHERE {HELD} AND b.owner_id = ?", imodel_id, call.caller.id)
    if held is not None and held[0] >= MOST_PER_USER:
        message = f"Maximum number of {MOST_PER_USER} Briefcases per user has been reached."
        problems = imodels_problems("Cannot acquire Briefcase.")
        problems.add("ResourceQuotaExceeded", message, inner_code="MaximumNumberOfBriefcasesPerUser")
        problems.refuse()


def _number(call: Call) -> int:
    text = call.slots["briefcaseId"]
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else 0


_PATH: Final = "/imodels/{iModelId}/briefcases"

ROUTES: Final = (
    Route("GET", _PATH, list_all, slug="get-imodel-briefcases"),
    Route("POST", _PATH, acquire, slug="acquire-imodel-briefcase"),
    Route("GET", f"{_PATH}/{{briefcaseId}}", get, slug="get-imodel-briefcase-details"),
    Route("DELETE", f"{_PATH}/{{briefcaseId}}", release, slug="release-imodel-briefcase"),
)
