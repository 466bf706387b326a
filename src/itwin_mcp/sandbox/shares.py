"""Shares: keys with which anybody may look at one iModel until they expire, through `Authorization: Basic {shareKey}`.

The pages of these operations do not show their bodies to us, so the names of their properties are a plausible reading.
"""

from __future__ import annotations

import secrets
import sqlite3
import uuid
from calendar import monthrange
from datetime import UTC, datetime
from typing import Final

from itwin_mcp.sandbox import access, paging
from itwin_mcp.sandbox.errors import ApiError, imodels_problems
from itwin_mcp.sandbox.store import stamp
from itwin_mcp.sandbox.wire import Answer, Call, Fields, Json, Route, created, no_content, ok

PERMISSIONS: Final = (access.WEBVIEW, access.READ)
MOST_MONTHS: Final = 6


def create(call: Call) -> Answer:
    """create-imodel-share: needs imodels_manage on the iTwin."""
    imodel = access.imodel(call, access.WEBVIEW)
    access.itwin_for(call, imodel["itwin_id"], access.MANAGE)
    fields = call.fields(imodels_problems("Cannot create Share."))
    name = fields.text("name", required=True)
    permission = fields.choice("permission", PERMISSIONS, required=True)
    expires = _expiration(call, fields)
    fields.problems.refuse()
    share_id = str(uuid.uuid4())
    call.sql.execute(
        "INSERT INTO shares (id, imodel_id, creator_id, name, share_key, permission, created_at, expires_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (share_id, imodel["id"], call.caller.id, name, secrets.token_urlsafe(48), permission, call.stamp, expires),
    )
    return created({"share": _render(call, _find(call, imodel, share_id))})


def list_mine(call: Call) -> Answer:
    """get-imodel-shares: only those that the caller created."""
    imodel = access.imodel(call, access.WEBVIEW)
    problems = imodels_problems("Cannot get Shares.")
    page = paging.imodels_page(call, problems)
    problems.refuse()
    statement = "SELECT * FROM shares WHERE imodel_id = ? AND creator_id = ? ORDER BY seq"
    rows, links = page.select(call, statement, (imodel["id"], call.caller.id))
    return ok({"shares": [_render(call, row) for row in rows], "_links": links})


def get(call: Call) -> Answer:
    """get-imodel-share."""
    imodel = access.imodel(call, access.WEBVIEW)
    return ok({"share": _render(call, _find(call, imodel, call.slots["shareId"]))})


def update(call: Call) -> Answer:
    """update-imodel-share: its expiration is all that can change."""
    imodel = access.imodel(call, access.WEBVIEW)
    row = _find(call, imodel, call.slots["shareId"])
    fields = call.fields(imodels_problems("Cannot update Share."))
    expires = _expiration(call, fields)
    fields.problems.refuse()
    call.sql.execute("UPDATE shares SET expires_at = ? WHERE id = ?", (expires, row["id"]))
    return ok({"share": _render(call, _find(call, imodel, row["id"]))})


def revoke(call: Call) -> Answer:
    """revoke-imodel-share: its key is worth nothing from now on."""
    row = _find(call, access.imodel(call, access.WEBVIEW), call.slots["shareId"])
    call.sql.execute("DELETE FROM shares WHERE id = ?", (row["id"],))
    return no_content()


def _find(call: Call, imodel: sqlite3.Row, id_or_key: str) -> sqlite3.Row:
    """One of the caller's shares by id, or by key as an older page has it."""
    row = call.one(
        "SELECT * FROM shares WHERE imodel_id = ? AND creator_id = ? AND (id = ? OR share_key = ?)",
        imodel["id"],
        call.caller.id,
        id_or_key.lower(),
        id_or_key,
    )
    if row is None:
        raise ApiError("ShareNotFound")
    return row


def _expiration(call: Call, fields: Fields) -> str | None:
    text = fields.text("expiration", required=True)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        fields.problems.invalid("expiration", "The value must be an ISO 8601 date and time.")
        return None
    if moment <= call.now:
        fields.problems.invalid("expiration", "The value must be in the future.")
    elif moment > _months_later(call.now):
        fields.problems.invalid("expiration", "The value must not be further than 6 months into the future.")
    return stamp(moment)


def _months_later(moment: datetime) -> datetime:
    years, month = divmod(moment.month - 1 + MOST_MONTHS, 12)
    year = moment.year + years
    return moment.replace(year=year, month=month + 1, day=min(moment.day, monthrange(year, month + 1)[1]))


def _render(call: Call, row: sqlite3.Row) -> Json:
    return {
        "id": row["id"],
        "displayName": row["name"],
        "name": row["name"],
        "shareKey": row["share_key"],
        "permission": row["permission"],
        "createdDateTime": row["created_at"],
        "expiration": row["expires_at"],
        "_links": {"creator": call.link(f"/imodels/{row['imodel_id']}/users/{row['creator_id']}")},
    }


_PATH: Final = "/imodels/{iModelId}/shares"
ROUTES: Final = (
    Route("POST", _PATH, create, slug="create-imodel-share"),
    Route("GET", _PATH, list_mine, slug="get-imodel-shares"),
    Route("GET", f"{_PATH}/{{shareId}}", get, slug="get-imodel-share"),
    Route("PATCH", f"{_PATH}/{{shareId}}", update, slug="update-imodel-share"),
    Route("DELETE", f"{_PATH}/{{shareId}}", revoke, slug="revoke-imodel-share"),
)
