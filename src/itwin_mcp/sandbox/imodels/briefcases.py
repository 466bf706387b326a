"""Briefcases: the numbered copies of an iModel from which changes are pushed.

A released briefcase is hidden but stays in the store: its number is never used again, and its acquisition still counts
toward the quota per minute.
"""

from __future__ import annotations

import math
import sqlite3
from datetime import timedelta
from typing import Final

from itwin_mcp.sandbox import access, paging
from itwin_mcp.sandbox.errors import ApiError, make_imodels_problems
from itwin_mcp.sandbox.imodels import changesets, imodels, users
from itwin_mcp.sandbox.storage import imodel_file
from itwin_mcp.sandbox.store import format_timestamp, parse_timestamp
from itwin_mcp.sandbox.wire import Answer, Call, Json, created, no_content, ok, parse_digits

FIRST_NUMBER: Final = 2  # 0 and 1 are reserved (iTwin.js, BriefcaseIdValue)
MAX_PER_USER: Final = 100
MAX_PER_MINUTE: Final = 100
_ME: Final = "me"
_ORDER_COLUMNS: Final = {"acquiredDateTime": "b.acquired_at"}
SELECTED_COLUMNS: Final = "b.*, a.name AS application_name"
SOURCE: Final = "briefcases b LEFT JOIN oauth_clients a ON a.id = b.client_id"
IS_HELD: Final = "b.imodel_id = ? AND b.released_at IS NULL"


def render_briefcase(call: Call, row: sqlite3.Row, *, whole: bool) -> Json:
    """Render a row of SELECTED_COLUMNS. The checkpoint link leads to the latest checkpoint of the iModel."""
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
            "application": changesets.render_application(row),
            "_links": {
                "owner": call.make_link(f"{root}/users/{row['owner_id']}"),
                "checkpoint": call.make_link(f"{root}/briefcases/checkpoint"),
            },
        }
    return briefcase


def find_briefcase(call: Call, imodel: sqlite3.Row, number: int) -> sqlite3.Row:
    """Return a briefcase of the iModel that has not been released.

    Raises:
        ApiError: `BriefcaseNotFound`.
    """
    statement = f"SELECT {SELECTED_COLUMNS} FROM {SOURCE} WHERE {IS_HELD} AND b.briefcase_id = ?"
    return call.require_one("BriefcaseNotFound", statement, imodel["id"], number)


def require_own_briefcase(call: Call, imodel: sqlite3.Row, number: int, *, or_with: str | None = None) -> sqlite3.Row:
    """Return a briefcase that the caller owns, or any briefcase if the caller has the permission `or_with`.

    Raises:
        ApiError: `BriefcaseNotFound` or `InsufficientPermissions`.
    """
    row = find_briefcase(call, imodel, number)
    permissions = access.get_imodel_permissions(call, imodel) or frozenset()
    if row["owner_id"] != call.caller.id and or_with not in permissions:
        raise ApiError("InsufficientPermissions")
    return row


def list_briefcases(call: Call) -> Answer:
    """List the briefcases that are held, by ascending number unless `$orderBy` says otherwise."""
    imodel = access.require_imodel(call, access.WEBVIEW)
    problems = make_imodels_problems("Cannot get Briefcases.")
    page = paging.read_imodels_page(call, problems)
    order = paging.read_order(call, problems, _ORDER_COLUMNS, last="b.briefcase_id")
    problems.raise_if_any()
    condition, parameters = IS_HELD, [imodel["id"]]
    if (owner_id := call.query.get("ownerId")) is not None:
        condition += " AND b.owner_id = ?"
        parameters.append(call.caller.id if owner_id.lower() == _ME else owner_id.lower())
    statement = f"SELECT {SELECTED_COLUMNS} FROM {SOURCE} WHERE {condition} ORDER BY {order}"
    rows, links = page.fetch_rows(call, statement, parameters)
    briefcases = [render_briefcase(call, row, whole=call.wants_representation) for row in rows]
    return ok({"briefcases": briefcases, "_links": links})


def get_briefcase(call: Call) -> Answer:
    imodel = access.require_imodel(call, access.WEBVIEW)
    return ok({"briefcase": render_briefcase(call, find_briefcase(call, imodel, _read_number(call)), whole=True)})


def acquire_briefcase(call: Call) -> Answer:
    """Acquire a briefcase. A user may hold 100 in an iModel and acquire 100 per minute."""
    imodel = access.require_imodel(call, access.WRITE)
    problems = make_imodels_problems("Cannot acquire Briefcase.")
    device = call.read_fields(problems).get_text("deviceName") if call.body.strip() else None
    problems.raise_if_any()
    imodels.check_initialized(imodel)
    _check_quotas(call, imodel["id"])
    statement = "SELECT COALESCE(MAX(briefcase_id) + 1, ?) FROM briefcases WHERE imodel_id = ?"
    (number,) = call.sql.execute(statement, (FIRST_NUMBER, imodel["id"])).fetchone()
    baseline = call.fetch_one("SELECT file_size FROM baseline_files WHERE imodel_id = ?", imodel["id"])
    size = baseline["file_size"] if baseline else imodel_file.SIZE
    call.sql.execute(
        "INSERT INTO briefcases (imodel_id, briefcase_id, owner_id, acquired_at, file_size, device_name, client_id) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (imodel["id"], number, call.caller.id, call.timestamp, size, device, call.caller.client_id),
    )
    users.record_access(call, imodel["id"])
    return created({"briefcase": render_briefcase(call, find_briefcase(call, imodel, number), whole=True)})


def release_briefcase(call: Call) -> Answer:
    """Release a briefcase and delete its locks. Other users' briefcases need `imodels_manage`."""
    imodel = access.require_imodel(call, access.WEBVIEW)
    row = require_own_briefcase(call, imodel, _read_number(call), or_with=access.MANAGE)
    key = (imodel["id"], row["briefcase_id"])
    call.sql.execute("DELETE FROM locks WHERE imodel_id = ? AND briefcase_id = ?", key)
    call.sql.execute(
        "UPDATE briefcases SET released_at = ? WHERE imodel_id = ? AND briefcase_id = ?", (call.timestamp, *key)
    )
    users.record_access(call, imodel["id"])
    return no_content()


def _check_quotas(call: Call, imodel_id: str) -> None:
    """Check the quotas of the caller, per minute in all iModels and in total in this one (acquire-imodel-briefcase)."""
    a_minute_ago = format_timestamp(call.now - timedelta(minutes=1))
    statement = "SELECT COUNT(*), MIN(acquired_at) FROM briefcases WHERE owner_id = ? AND acquired_at > ?"
    recent_count, oldest = call.sql.execute(statement, (call.caller.id, a_minute_ago)).fetchone()
    if recent_count >= MAX_PER_MINUTE:
        elapsed = (call.now - parse_timestamp(oldest)).total_seconds()
        raise ApiError("RateLimitExceeded", retry_after=max(1, math.ceil(60 - elapsed)))
    statement = f"SELECT COUNT(*) FROM briefcases b WHERE {IS_HELD} AND b.owner_id = ?"
    (held_count,) = call.sql.execute(statement, (imodel_id, call.caller.id)).fetchone()
    if held_count >= MAX_PER_USER:
        message = f"Maximum number of {MAX_PER_USER} Briefcases per user has been reached."
        problems = make_imodels_problems("Cannot acquire Briefcase.")
        problems.fail("ResourceQuotaExceeded", message, inner_code="MaximumNumberOfBriefcasesPerUser")


def _read_number(call: Call) -> int:
    return parse_digits(call.slots["briefcaseId"]) or 0
