"""Extended data: JSON in Base64 that an application attaches once to its own changeset."""

from __future__ import annotations

import base64
import binascii
import json
import sqlite3
from typing import Final

from itwin_mcp.sandbox import access, paging
from itwin_mcp.sandbox.errors import ApiError, make_imodels_problems
from itwin_mcp.sandbox.imodels import changesets, users
from itwin_mcp.sandbox.wire import Answer, Call, Json, created, ok

MAX_BYTES: Final = 204_800
_SELECT_DATA: Final = """SELECT c.id AS changeset_id, x.changeset_index, x.data FROM changeset_extended_data x
  JOIN changesets c ON c.imodel_id = x.imodel_id AND c.idx = x.changeset_index WHERE x.imodel_id = ?"""


def list_extended_data(call: Call) -> Answer:
    """List extended data by ascending index of the changeset."""
    imodel = access.require_imodel(call, access.WEBVIEW)
    problems = make_imodels_problems("Cannot get Changesets Extended Data.")
    page = paging.read_imodels_page(call, problems)
    problems.raise_if_any()
    rows, links = page.fetch_rows(call, f"{_SELECT_DATA} ORDER BY x.changeset_index", (imodel["id"],))
    return ok({"extendedData": [_render(row) for row in rows], "_links": links})


def get_extended_data(call: Call) -> Answer:
    imodel = access.require_imodel(call, access.WEBVIEW)
    changeset = changesets.find_changeset(call, imodel, call.slots["changesetIdOrIndex"])
    return ok({"extendedData": _render(_find_extended_data(call, changeset))})


def create_extended_data(call: Call) -> Answer:
    """Attach extended data to a changeset. Only its creator may, and only once."""
    imodel = access.require_imodel(call, access.WRITE)
    changeset = changesets.find_changeset(call, imodel, call.slots["changesetIdOrIndex"])
    problems = make_imodels_problems("Cannot create Changeset Extended Data.")
    fields = call.read_fields(problems)
    data = fields.get_text("data", required=True, limit=MAX_BYTES)
    if data is not None and not _is_encoded_json(data):
        problems.add_invalid("data", "'data' must be a valid base64 encoded json.")
    problems.raise_if_any()
    if changeset["creator_id"] != call.caller.id:
        raise ApiError("InsufficientPermissions")
    key = (imodel["id"], changeset["idx"])
    if call.fetch_one("SELECT 1 FROM changeset_extended_data WHERE imodel_id = ? AND changeset_index = ?", *key):
        raise ApiError("ChangesetExtendedDataExists")
    call.sql.execute("INSERT INTO changeset_extended_data VALUES (?, ?, ?)", (*key, data))
    users.record_access(call, imodel["id"])
    return created({"extendedData": _render(_find_extended_data(call, changeset))})


def _find_extended_data(call: Call, changeset: sqlite3.Row) -> sqlite3.Row:
    statement = f"{_SELECT_DATA} AND x.changeset_index = ?"
    return call.require_one("ChangesetExtendedDataNotFound", statement, changeset["imodel_id"], changeset["idx"])


def _render(row: sqlite3.Row) -> Json:
    return {"changesetId": row["changeset_id"], "changesetIndex": row["changeset_index"], "data": row["data"]}


def _is_encoded_json(data: str) -> bool:
    """Return whether the text is a JSON object or array in Base64. JavaScript counts arrays as objects."""
    try:
        return isinstance(json.loads(base64.b64decode(data, validate=True)), dict | list)
    except (binascii.Error, ValueError, RecursionError):
        return False
