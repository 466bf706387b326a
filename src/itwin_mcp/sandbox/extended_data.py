"""Extended data: what an application attaches to a changeset of its own, once, as JSON in Base64."""

from __future__ import annotations

import base64
import binascii
import json
import sqlite3
from typing import Final

from itwin_mcp.sandbox import access, changesets, paging, people
from itwin_mcp.sandbox.errors import ApiError, imodels_problems
from itwin_mcp.sandbox.wire import Answer, Call, Json, Route, created, ok

MOST_BYTES: Final = 204_800
_SELECT: Final = """SELECT c.id AS changeset_id, x.changeset_index, x.data FROM changeset_extended_data x
  JOIN changesets c ON c.imodel_id = x.imodel_id AND c.idx = x.changeset_index WHERE x.imodel_id = ?"""


def list_all(call: Call) -> Answer:
    """get-imodel-changesets-extended-data: by ascending index of the changeset."""
    imodel = access.imodel(call, access.WEBVIEW)
    problems = imodels_problems("Cannot get Changesets Extended Data.")
    page = paging.imodels_page(call, problems)
    problems.refuse()
    rows, links = page.select(call, f"{_SELECT} ORDER BY x.changeset_index", (imodel["id"],))
    return ok({"extendedData": [_render(row) for row in rows], "_links": links})


def get(call: Call) -> Answer:
    """get-changeset-extended-data."""
    imodel = access.imodel(call, access.WEBVIEW)
    changeset = changesets.find(call, imodel, call.slots["changesetIdOrIndex"])
    return ok({"extendedData": _render(_find(call, changeset))})


def create(call: Call) -> Answer:
    """create-imodel-changeset-extended-data: once, and only by whoever created the changeset."""
    imodel = access.imodel(call, access.WRITE)
    changeset = changesets.find(call, imodel, call.slots["changesetIdOrIndex"])
    problems = imodels_problems("Cannot create Changeset Extended Data.")
    fields = call.fields(problems)
    data = fields.text("data", required=True, limit=MOST_BYTES)
    if data is not None and not _is_object(data):
        problems.invalid("data", "'data' must be a valid base64 encoded json.")
    problems.refuse()
    if changeset["creator_id"] != call.caller.id:
        raise ApiError("InsufficientPermissions")
    key = (imodel["id"], changeset["idx"])
    if call.one("SELECT 1 FROM changeset_extended_data WHERE imodel_id = ? AND changeset_index = ?", *key):
        raise ApiError("ChangesetExtendedDataExists")
    call.sql.execute("INSERT INTO changeset_extended_data VALUES (?, ?, ?)", (*key, data))
    people.connect(call, imodel["id"])
    return created({"extendedData": _render(_find(call, changeset))})


def _find(call: Call, changeset: sqlite3.Row) -> sqlite3.Row:
    row = call.one(f"{_SELECT} AND x.changeset_index = ?", changeset["imodel_id"], changeset["idx"])
    if row is None:
        raise ApiError("ChangesetExtendedDataNotFound")
    return row


def _render(row: sqlite3.Row) -> Json:
    return {"changesetId": row["changeset_id"], "changesetIndex": row["changeset_index"], "data": row["data"]}


def _is_object(data: str) -> bool:
    """Whether the text is a JSON object (to JavaScript an array is one too) in Base64."""
    try:
        return isinstance(json.loads(base64.b64decode(data, validate=True)), dict | list)
    except (binascii.Error, ValueError, RecursionError):
        return False


_PATH: Final = "/imodels/{iModelId}/changesets"

ROUTES: Final = (
    Route("GET", f"{_PATH}/extendeddata", list_all, slug="get-imodel-changesets-extended-data"),
    Route("GET", f"{_PATH}/{{changesetIdOrIndex}}/extendeddata", get, slug="get-changeset-extended-data"),
    Route("POST", f"{_PATH}/{{changesetIdOrIndex}}/extendeddata", create, slug="create-imodel-changeset-extended-data"),
)
