"""Changesets: the timeline of an iModel, read by index or id."""

from __future__ import annotations

import json
import secrets
import sqlite3
from typing import Final
from urllib.parse import quote

from itwin_mcp.sandbox import access, paging
from itwin_mcp.sandbox.errors import ApiError, Problems, make_imodels_problems
from itwin_mcp.sandbox.storage import blobs
from itwin_mcp.sandbox.wire import Answer, Call, Json, ok, parse_digits

UPLOADED: Final = "fileUploaded"
WAITING: Final = "waitingForFile"
MAX_INDEX: Final = 2**31 - 1
# Includes the changeset's named version and the nearest checkpoint at or before it. Checkpoint 0 is the baseline.
SELECTED_COLUMNS: Final = """c.*, a.name AS application_name,
  (SELECT v.id FROM named_versions v WHERE v.imodel_id = c.imodel_id AND v.changeset_index = c.idx) AS named_version_id,
  (SELECT COALESCE(MAX(k.changeset_index), 0) FROM checkpoints k
   WHERE k.imodel_id = c.imodel_id AND k.changeset_index <= c.idx AND k.state = 'successful') AS checkpoint_index"""
SOURCE: Final = "changesets c LEFT JOIN oauth_clients a ON a.id = c.client_id"


def render_changeset(
    call: Call, row: sqlite3.Row, *, whole: bool, upload: Json | None = None, download: Json | None = None
) -> Json:
    """Render a row of SELECTED_COLUMNS. `upload` and `download` are links to the changeset's file."""
    root = f"/imodels/{row['imodel_id']}"
    path = f"{root}/changesets/{row['id']}"
    links: Json = {"self": call.make_link(path), "creator": call.make_link(f"{root}/users/{row['creator_id']}")}
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
        changeset["application"] = render_application(row)
        changeset["synchronizationInfo"] = json.loads(row["synchronization_json"] or "null")
        links["namedVersion"] = call.make_link(f"{root}/namedversions/{version}") if version else None
        links["currentOrPrecedingCheckpoint"] = call.make_link(f"{root}/changesets/{checkpoint}/checkpoint")
        links["download"] = download
        links["upload"] = upload
        links["complete"] = call.make_link(path) if upload else None
    return changeset


def render_application(row: sqlite3.Row) -> Json | None:
    """Render the application that created a changeset, named version or briefcase."""
    client_id = row["client_id"]
    return {"id": client_id, "name": row["application_name"] or client_id} if client_id else None


def make_download_link(call: Call, row: sqlite3.Row) -> Json | None:
    """Return the link to the file of a changeset, or None before its upload."""
    if row["state"] != UPLOADED or row["blob_id"] is None:
        return None
    link = blobs.make_link(call, row["blob_id"])
    # Bentley's tests expect the changeset id in the address, and a different address in each answer.
    disposition = quote(f'attachment; filename="{row["id"]}.cs"', safe="")
    return {**link, "href": f"{link['href']}&rscd={disposition}&nonce={secrets.token_hex(4)}"}


def find_changeset(call: Call, imodel: sqlite3.Row, id_or_index: str, *, uploaded: bool = False) -> sqlite3.Row:
    """Return a changeset by id or index. Fewer than 40 digits are an index, as in the URLs of Bentley's clients.

    With `uploaded`, a changeset whose push is in progress counts as not found.

    Raises:
        ApiError: `ChangesetNotFound`.
    """
    column, key = "c.id", id_or_index.lower()
    if id_or_index.isascii() and id_or_index.isdigit() and len(id_or_index) < 40:
        column, key = "c.idx", str(min(int(id_or_index), MAX_INDEX))
    statement = f"SELECT {SELECTED_COLUMNS} FROM {SOURCE} WHERE c.imodel_id = ? AND {column} = ?"
    row = call.require_one("ChangesetNotFound", statement, imodel["id"], key)
    if uploaded and row["state"] != UPLOADED:
        raise ApiError("ChangesetNotFound")
    return row


def find_uploaded_index(call: Call, imodel: sqlite3.Row, changeset_id: str) -> int:
    """Return the index of a changeset whose push is complete, by its id.

    Raises:
        ApiError: `ChangesetNotFound`.
    """
    statement = "SELECT idx FROM changesets WHERE imodel_id = ? AND id = ? AND state = ?"
    row = call.require_one("ChangesetNotFound", statement, imodel["id"], changeset_id.lower(), UPLOADED)
    return int(row["idx"])


def find_latest_changeset(call: Call, imodel: sqlite3.Row) -> sqlite3.Row | None:
    """Return the newest changeset whose push is complete, or None."""
    statement = (
        f"SELECT {SELECTED_COLUMNS} FROM {SOURCE} WHERE c.imodel_id = ? AND c.state = ? ORDER BY c.idx DESC LIMIT 1"
    )
    return call.fetch_one(statement, imodel["id"], UPLOADED)


def list_changesets(call: Call) -> Answer:
    """List the changesets by ascending index unless `$orderBy` says otherwise, without a push in progress."""
    imodel = access.require_imodel(call, access.WEBVIEW)
    problems = make_imodels_problems("Cannot get Changesets.")
    page = paging.read_imodels_page(call, problems)
    order = paging.read_order(call, problems, {"index": "c.idx"}, last="c.idx")
    after = _read_index(call, "afterIndex", problems)
    last = _read_index(call, "lastIndex", problems)
    problems.raise_if_any()
    bounds = (0 if after is None else after, MAX_INDEX if last is None else last)
    conditions = "c.imodel_id = ? AND c.state = ? AND c.idx > ? AND c.idx <= ?"
    statement = f"SELECT {SELECTED_COLUMNS} FROM {SOURCE} WHERE {conditions} ORDER BY {order}"
    rows, links = page.fetch_rows(call, statement, (imodel["id"], UPLOADED, *bounds))
    if call.wants_representation:
        readable = _can_download(call, imodel)
        items = [_render_whole(call, row, readable) for row in rows]
    else:
        items = [render_changeset(call, row, whole=False) for row in rows]
    return ok({"changesets": items, "_links": links})


def get_changeset(call: Call) -> Answer:
    imodel = access.require_imodel(call, access.WEBVIEW)
    row = find_changeset(call, imodel, call.slots["changesetIdOrIndex"])
    return ok({"changeset": _render_whole(call, row, _can_download(call, imodel))})


def _can_download(call: Call, imodel: sqlite3.Row) -> bool:
    """Return whether download links are shown. Without `imodels_read` they are null (get-imodel-changeset-details)."""
    return access.READ in (access.get_imodel_permissions(call, imodel) or ())


def _render_whole(call: Call, row: sqlite3.Row, readable: bool) -> Json:
    return render_changeset(call, row, whole=True, download=make_download_link(call, row) if readable else None)


def _read_index(call: Call, name: str, problems: Problems) -> int | None:
    text = call.query.get(name)
    if text is None:
        return None
    index = parse_digits(text)
    if index is None:
        problems.add_invalid(name, "The value must be a non-negative integer.")
    return index
