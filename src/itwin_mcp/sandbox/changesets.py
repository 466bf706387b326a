"""Changesets: the timeline of an iModel, read by index or id."""

from __future__ import annotations

import json
import secrets
import sqlite3
from typing import Final
from urllib.parse import quote

from itwin_mcp.sandbox import access, files, odata, paging
from itwin_mcp.sandbox.errors import ApiError, Problems, imodels_problems
from itwin_mcp.sandbox.wire import Answer, Call, Json, Route, ok

UPLOADED: Final = "fileUploaded"
WAITING: Final = "waitingForFile"
MOST_INDEX: Final = 2**31 - 1
# With a changeset come its named version and the nearest checkpoint at or before it (the baseline, index 0, has one).
SELECTED: Final = """c.*, a.name AS application_name,
  (SELECT v.id FROM named_versions v WHERE v.imodel_id = c.imodel_id AND v.changeset_index = c.idx) AS named_version_id,
  (SELECT COALESCE(MAX(k.changeset_index), 0) FROM checkpoints k
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
        links["currentOrPrecedingCheckpoint"] = call.link(f"{root}/changesets/{checkpoint}/checkpoint")
        links["download"] = download
        links["upload"] = upload
        links["complete"] = call.link(path) if upload else None
    return changeset


def application(row: sqlite3.Row) -> Json | None:
    """The application of whoever made the entity; shared with named versions and briefcases."""
    client_id = row["client_id"]
    return {"id": client_id, "name": row["application_name"] or client_id} if client_id else None


def download_link(call: Call, row: sqlite3.Row) -> Json | None:
    """The link to the file of a changeset; None while it is awaited."""
    if row["state"] != UPLOADED or row["blob_id"] is None:
        return None
    link = files.link(call, row["blob_id"])
    # Bentley's own suite finds the changeset id in the address, and another address in each answer.
    disposition = quote(f'attachment; filename="{row["id"]}.cs"', safe="")
    return {**link, "href": f"{link['href']}&rscd={disposition}&nonce={secrets.token_hex(4)}"}


def find(call: Call, imodel: sqlite3.Row, id_or_index: str, *, uploaded: bool = False) -> sqlite3.Row:
    """One changeset: digits and fewer than 40 are an index (URL formatter of Bentley's clients)."""
    if id_or_index.isascii() and id_or_index.isdigit() and len(id_or_index) < 40:
        key, value = "c.idx", min(int(id_or_index), MOST_INDEX)
        row = call.one(f"SELECT {SELECTED} FROM {SOURCE} WHERE c.imodel_id = ? AND {key} = ?", imodel["id"], value)
    else:
        row = call.one(
            f"SELECT {SELECTED} FROM {SOURCE} WHERE c.imodel_id = ? AND c.id = ?", imodel["id"], id_or_index.lower()
        )
    if row is None or (uploaded and row["state"] != UPLOADED):
        raise ApiError("ChangesetNotFound")
    return row


def latest(call: Call, imodel: sqlite3.Row) -> sqlite3.Row | None:
    """The newest changeset that has been pushed completely."""
    statement = f"SELECT {SELECTED} FROM {SOURCE} WHERE c.imodel_id = ? AND c.state = ? ORDER BY c.idx DESC LIMIT 1"
    return call.one(statement, imodel["id"], UPLOADED)


def list_all(call: Call) -> Answer:
    """get-imodel-changesets: by ascending index unless told otherwise, without a push in progress."""
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
    bounds = (0 if after is None else after, MOST_INDEX if last is None else last)
    conditions = "c.imodel_id = ? AND c.state = ? AND c.idx > ? AND c.idx <= ?"
    statement = f"SELECT {SELECTED} FROM {SOURCE} WHERE {conditions} ORDER BY {order}"
    rows, links = page.select(call, statement, (imodel["id"], UPLOADED, *bounds))
    if not call.wants_representation:
        return ok({"changesets": [render(call, row, whole=False) for row in rows], "_links": links})
    readable = _is_readable(call, imodel)
    return ok({"changesets": [_render_whole(call, row, readable) for row in rows], "_links": links})


def get(call: Call) -> Answer:
    """get-imodel-changeset-details."""
    imodel = access.imodel(call, access.WEBVIEW)
    row = find(call, imodel, call.slots["changesetIdOrIndex"])
    return ok({"changeset": _render_whole(call, row, _is_readable(call, imodel))})


def _is_readable(call: Call, imodel: sqlite3.Row) -> bool:
    """Whether the caller may download: without imodels_read the link is null (get-imodel-changeset-details)."""
    return access.READ in (access.imodel_permissions(call, imodel) or ())


def _render_whole(call: Call, row: sqlite3.Row, readable: bool) -> Json:
    return render(call, row, whole=True, download=download_link(call, row) if readable else None)


def _index(call: Call, name: str, problems: Problems) -> int | None:
    text = call.query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        problems.invalid(name, "The value must be a non-negative integer.")
        return None
    return int(text)


_PATH: Final = "/imodels/{iModelId}/changesets"

ROUTES: Final = (
    Route("GET", _PATH, list_all, slug="get-imodel-changesets"),
    Route("GET", f"{_PATH}/{{changesetIdOrIndex}}", get, slug="get-imodel-changeset-details"),
)
