"""Shares: keys with which anybody can view one iModel until they expire, as `Authorization: Basic {shareKey}`.

The documentation pages show no bodies, so the property names are our reading.
"""

from __future__ import annotations

import secrets
import sqlite3
import uuid
from calendar import monthrange
from datetime import UTC, datetime
from typing import Final

from itwin_mcp.sandbox import access, paging
from itwin_mcp.sandbox.errors import make_imodels_problems
from itwin_mcp.sandbox.store import format_timestamp
from itwin_mcp.sandbox.wire import Answer, Call, Fields, Json, created, no_content, ok

PERMISSIONS: Final = (access.WEBVIEW, access.READ)
MAX_MONTHS: Final = 6


def create_share(call: Call) -> Answer:
    """Create a share. The caller needs `imodels_manage` on the iTwin."""
    imodel = access.require_imodel(call, access.WEBVIEW)
    access.require_itwin(call, imodel["itwin_id"], access.MANAGE)
    fields = call.read_fields(make_imodels_problems("Cannot create Share."))
    name = fields.get_text("name", required=True)
    permission = fields.get_choice("permission", PERMISSIONS, required=True)
    expires = _read_expiration(call, fields)
    fields.problems.raise_if_any()
    share_id = str(uuid.uuid4())
    call.sql.execute(
        "INSERT INTO shares (id, imodel_id, creator_id, name, share_key, permission, created_at, expires_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (share_id, imodel["id"], call.caller.id, name, secrets.token_urlsafe(48), permission, call.timestamp, expires),
    )
    return created({"share": _render_share(call, _find_share(call, imodel, share_id))})


def list_my_shares(call: Call) -> Answer:
    """List the shares that the caller created."""
    imodel = access.require_imodel(call, access.WEBVIEW)
    problems = make_imodels_problems("Cannot get Shares.")
    page = paging.read_imodels_page(call, problems)
    problems.raise_if_any()
    statement = "SELECT * FROM shares WHERE imodel_id = ? AND creator_id = ? ORDER BY seq"
    rows, links = page.fetch_rows(call, statement, (imodel["id"], call.caller.id))
    return ok({"shares": [_render_share(call, row) for row in rows], "_links": links})


def get_share(call: Call) -> Answer:
    imodel = access.require_imodel(call, access.WEBVIEW)
    return ok({"share": _render_share(call, _find_share(call, imodel, call.slots["shareId"]))})


def update_share(call: Call) -> Answer:
    """Change the expiration of a share, its only mutable property."""
    imodel = access.require_imodel(call, access.WEBVIEW)
    row = _find_share(call, imodel, call.slots["shareId"])
    fields = call.read_fields(make_imodels_problems("Cannot update Share."))
    expires = _read_expiration(call, fields)
    fields.problems.raise_if_any()
    call.sql.execute("UPDATE shares SET expires_at = ? WHERE id = ?", (expires, row["id"]))
    return ok({"share": _render_share(call, _find_share(call, imodel, row["id"]))})


def revoke_share(call: Call) -> Answer:
    row = _find_share(call, access.require_imodel(call, access.WEBVIEW), call.slots["shareId"])
    call.sql.execute("DELETE FROM shares WHERE id = ?", (row["id"],))
    return no_content()


def _find_share(call: Call, imodel: sqlite3.Row, id_or_key: str) -> sqlite3.Row:
    """Return one of the caller's shares by id, or by key, which an older documentation page uses.

    Raises:
        ApiError: `ShareNotFound`.
    """
    return call.require_one(
        "ShareNotFound",
        "SELECT * FROM shares WHERE imodel_id = ? AND creator_id = ? AND (id = ? OR share_key = ?)",
        imodel["id"],
        call.caller.id,
        id_or_key.lower(),
        id_or_key,
    )


def _read_expiration(call: Call, fields: Fields) -> str | None:
    expiration = fields.get_text("expiration", required=True)
    if expiration is None:
        return None
    try:
        moment = datetime.fromisoformat(expiration)
        moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        fields.problems.add_invalid("expiration", "The value must be an ISO 8601 date and time.")
        return None
    if moment <= call.now:
        fields.problems.add_invalid("expiration", "The value must be in the future.")
    elif moment > _add_max_months(call.now):
        fields.problems.add_invalid("expiration", "The value must not be further than 6 months into the future.")
    return format_timestamp(moment)


def _add_max_months(moment: datetime) -> datetime:
    years, month = divmod(moment.month - 1 + MAX_MONTHS, 12)
    year = moment.year + years
    return moment.replace(year=year, month=month + 1, day=min(moment.day, monthrange(year, month + 1)[1]))


def _render_share(call: Call, row: sqlite3.Row) -> Json:
    return {
        "id": row["id"],
        "displayName": row["name"],
        "name": row["name"],
        "shareKey": row["share_key"],
        "permission": row["permission"],
        "createdDateTime": row["created_at"],
        "expiration": row["expires_at"],
        "_links": {"creator": call.make_link(f"/imodels/{row['imodel_id']}/users/{row['creator_id']}")},
    }
