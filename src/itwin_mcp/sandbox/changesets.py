"""Changesets: the timeline of an iModel, read by index or id."""

from __future__ import annotations

import json
import sqlite3
from typing import Final

from itwin_mcp.sandbox import access, odata, paging
from itwin_mcp.sandbox.errors import ApiError, Problems, imodels_problems
from itwin_mcp.sandbox.wire import Answer, Call, Json, Route, ok

UPLOADED: Final = "fileUploaded"
WAITING: Final = "waitingForFile"
MOST_INDEX: Final = 2**31 - 1
# With a changeset come its named version and the nearest checkpoint at or before it (the baseline has index 0).
SELECTED: Final = """c.*, a.name AS application_name,
  (SELECT v.id FROM named_versions v WHERE v.imodel_id = c.imodel_id AND v.changeset_index = c.idx) AS named_version_id,
  (SELECT MAX(k.changeset_index) FROM checkpoints k
   WHERE k.imodel_id = c.imodel_id AND k.changeset_index <= c.idx AND k.state = 'successful') AS checkpoint_index"""
SOURCE: Final = "changesets c LEFT JOIN oauth_clients a ON a.id = c.client_id"


def render(
    call: Call, row: sqlite3.Row, *, whole: bool, upload: Json | None = None, download: Json | None = None
) -> Json:
    """A changeset from a row of SELECTED; `upload` and `download` are links to its file."""
    root = f"/imodels/{row['imodel_id']}"
    path = f"{root}/changesets/{row['id']}"
    links: Json = {"self": call.link(path), "creator": call.link(f"{root}/users/{row['creator_id']}")}
    changeset: Json = {
        "id": row["id"],
        "displayName": str(row["idx"]),
        "description": row["description"],
        "index": row["idx"],
        "parentId": row["parent_id"],
        "creatorId": row["creator_id"],
        "pushDateTime": row["pushed_at"],
        "state": row["state"],
        "containingChanges": row["containing_changes"],
        "fileSize": row["file_size"],
        "briefcaseId": row["briefcase_id"],
        "groupId": row["group_id"],
        "_links": links,
    }
    if whole:
        version, checkpoint = row["named_version_id"], row["checkpoint_index"]
        changeset["application"] = application(row)
        changeset["synchronizationInfo"] = json.loads(row["synchronization_json"] or "null")
        links["namedVersion"] = call.link(f"{root}/namedversions/{version}") if version else None
        links["currentOrPrecedingCheckpoint"] = (
            None if checkpoint is None else call.link(f"{root}/changesets/{checkpoint}/checkpoint")
        )
        links["download"] = download
        links["upload"] = upload
        links["complete"] = call.link(path) if upload else None
    return changeset


def application(row: sqlite3.Row) -> Json | None:
    """The application of whoever made the entity; shared with named versions and briefcases."""
    client_id = row["client_id"]
    return {"id": client_id, "name": row["application_name"] or client_id} if client_id else None


def find(call: Call, imodel: sqlite3.Row, id_or_index: str) -> sqlite3.Row:
    """One changeset: digits and fewer than 40 are an index (URL formatter of Bentley's clients)."""
    if id_or_index.isascii() and id_or_index.isdigit() and len(id_or_index) < 40:
        key, value = "c.idx", min(int(id_or_index), MOST_INDEX)
        row = call.one(f"SELECT {SELECTED} FROM {SOURCE} WHERE c.imodel_id = ? AND {key} = ?", imodel["id"], value)
    else:
        row = call.one(
            f"SELECT {SELECTED} FROM {SOURCE} WHERE c.imodel_id = ? AND c.id = ?", imodel["id"], id_or_index.lower()
        )
    if row is None:
        raise ApiError("ChangesetNotFound")
    return row


def list_all(call: Call) -> Answer:
    """get-imodel-changesets: by ascending index unless told otherwise."""
    imodel = access.imodel(call, access.WEBVIEW)
    problems = imodels_problems("Cannot get Changesets.")
    page = paging.imodels_page(call, problems)
    order = "c.idx"
    if text := call.query.get("$orderBy"):
        try:
            order = odata.parse_order(text, {"index": "c.idx"})
        except odata.ODataError as error:
            problems.invalid("$orderBy", str(error))
    after = _index(call, "afterIndex", problems)
    last = _index(call, "lastIndex", problems)
    problems.refuse()
    statement = f"SELECT {SELECTED} FROM {SOURCE} WHERE c.imodel_id = ? AND c.idx > ? AND c.idx <= ? ORDER BY {order}"
    bounds = (0 if after is None else after, MOST_INDEX if last is None else last)
    rows, links = page.select(call, statement, (imodel["id"], *bounds))
    shown = [render(call, row, whole=call.wants_representation) for row in rows]
    return ok({"changesets": shown, "_links": links})


def get(call: Call) -> Answer:
    """get-imodel-changeset-details."""
    imodel = access.imodel(call, access.WEBVIEW)
    return ok({"changeset": render(call, find(call, imodel, call.slots["changesetIdOrIndex"]), whole=True)})


def _index(call: Call, name: str, problems: Problems) -> int | None:
    text = call.query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        problems.invalid(name, "The value must be a non-negative integer.")
        return None
    return int(text)


_NO_FILE: Final = "the download link is null"

ROUTES: Final = (
    Route("GET", "/imodels/{iModelId}/changesets", list_all, slug="get-imodel-changesets", missing=_NO_FILE),
    Route(
        "GET",
        "/imodels/{iModelId}/changesets/{changesetIdOrIndex}",
        get,
        slug="get-imodel-changeset-details",
        missing=_NO_FILE,
    ),
)
