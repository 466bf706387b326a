"""Push a changeset: announce it, upload its file, complete it.

Only one push at a time is in progress in an iModel, and it must follow the latest changeset. A push that is not
completed ends when its upload link expires, so that it cannot block the iModel.
"""

from __future__ import annotations

import json
import re
import sqlite3
from datetime import timedelta
from typing import Any, Final

from itwin_mcp.sandbox import access
from itwin_mcp.sandbox.errors import ApiError, Detail, make_imodels_problems
from itwin_mcp.sandbox.imodels import briefcases, changeset_groups, changesets, imodels, users
from itwin_mcp.sandbox.storage import blobs
from itwin_mcp.sandbox.store import Job, insert_row, schedule_job
from itwin_mcp.sandbox.wire import Answer, Call, Fields, Json, created, ok

UPLOAD_SECONDS: Final = 3600
MAX_BYTES: Final = 2**53
MAX_CHANGES: Final = 127  # the sum of all ContainingChanges flags, Schema 1 to SchemaSync 64
MAX_BRIEFCASE: Final = 2**53
_CHANGESET_ID: Final = re.compile("[0-9a-fA-F]{40}")


def start_push(call: Call) -> Answer:
    """Announce a changeset. The answer has the upload link and the link that completes the push."""
    imodel = access.require_imodel(call, access.WRITE)
    problems = make_imodels_problems("Cannot create Changeset.")
    fields = call.read_fields(problems)
    values: dict[str, Any] = {
        "id": _read_changeset_id(fields, "id", required=True),
        "description": fields.get_text("description"),
        "parent_id": _read_changeset_id(fields, "parentId") or "",
        "briefcase_id": fields.get_integer("briefcaseId", 1, MAX_BRIEFCASE, required=True),
        "containing_changes": fields.get_integer("containingChanges", 0, MAX_CHANGES) or 0,
        "file_size": fields.get_integer("fileSize", 1, MAX_BYTES, required=True),
        "synchronization_json": _read_synchronization(fields),
        "group_id": fields.get_text("groupId"),
    }
    problems.raise_if_any()
    imodels.check_initialized(imodel)
    briefcase = briefcases.require_own_briefcase(call, imodel, values["briefcase_id"])
    if values["group_id"] is not None:
        values["group_id"] = changeset_groups.require_open_group(call, imodel, values["group_id"], problems)
    _claim_push(call, imodel, briefcase)
    latest = changesets.find_latest_changeset(call, imodel)
    _check_parent(call, imodel, values, latest)
    values |= {
        "imodel_id": imodel["id"],
        "idx": latest["idx"] + 1 if latest else 1,
        "creator_id": call.caller.id,
        "pushed_at": call.timestamp,
        "state": changesets.WAITING,
        "client_id": call.caller.client_id,
        "blob_id": blobs.reserve_blob(call),
    }
    insert_row(call.sql, "changesets", values)
    due = call.now + timedelta(seconds=UPLOAD_SECONDS)
    schedule_job(call.sql, "changeset-push-abandoned", values["blob_id"], due)
    users.record_access(call, imodel["id"])
    upload = blobs.make_link(call, values["blob_id"], write=True, seconds=UPLOAD_SECONDS)
    return created({"changeset": _render_pushed(call, imodel, values["id"], upload)})


def complete_push(call: Call) -> Answer:
    """Complete a push after the upload. The changeset then belongs to the timeline."""
    imodel = access.require_imodel(call, access.WRITE)
    row = changesets.find_changeset(call, imodel, call.slots["changesetIdOrIndex"])
    problems = make_imodels_problems("Cannot update Changeset.")
    fields = call.read_fields(problems)
    fields.get_choice("state", (changesets.UPLOADED,), required=True)
    briefcase_id = fields.get_integer("briefcaseId", 1, MAX_BRIEFCASE, required=True)
    problems.raise_if_any()
    briefcases.require_own_briefcase(call, imodel, briefcase_id or 0)
    if row["briefcase_id"] != briefcase_id:
        problems.add_invalid("briefcaseId", "The Changeset was created by another Briefcase.")
    elif row["state"] != changesets.WAITING:
        problems.add("InvalidChange", "Changeset file upload is not in progress.")
    problems.raise_if_any()
    message = "File size provided during Changeset creation does not match actual file size."
    blobs.check_uploaded(call, row["blob_id"], row["file_size"], message)
    call.sql.execute(
        "UPDATE changesets SET state = ?, pushed_at = ? WHERE imodel_id = ? AND idx = ?",
        (changesets.UPLOADED, call.timestamp, imodel["id"], row["idx"]),
    )
    users.record_access(call, imodel["id"])
    return ok({"changeset": _render_pushed(call, imodel, row["id"])})


def abandon_push(job: Job) -> None:
    """Delete a push whose upload link has expired."""
    _delete_pending(job, "blob_id = ?", job.subject)


def _claim_push(call: Call, imodel: sqlite3.Row, briefcase: sqlite3.Row) -> None:
    """Reject the push if another briefcase is pushing. A push of the same briefcase is replaced."""
    statement = "SELECT * FROM changesets WHERE imodel_id = ? AND state = ?"
    pending = call.fetch_one(statement, imodel["id"], changesets.WAITING)
    if pending is None:
        return
    if pending["briefcase_id"] != briefcase["briefcase_id"]:
        raise ApiError("ConflictWithAnotherUser", "Another user is currently pushing a Changeset.")
    _delete_pending(call, "imodel_id = ? AND idx = ?", imodel["id"], pending["idx"])


def _check_parent(call: Call, imodel: sqlite3.Row, values: dict[str, Any], latest: sqlite3.Row | None) -> None:
    """Check that the changeset is new and that its parent is the latest changeset."""
    if call.fetch_one("SELECT 1 FROM changesets WHERE imodel_id = ? AND id = ?", imodel["id"], values["id"]):
        detail = Detail("InvalidValue", f"Changeset with id '{values['id']}' already exists.", "id")
        raise ApiError("ChangesetExists", details=(detail,))
    if values["parent_id"] == (latest["id"] if latest else ""):
        return
    if values["parent_id"]:
        changesets.find_changeset(call, imodel, values["parent_id"], uploaded=True)
    raise ApiError("NewerChangesExist", "Newer Changesets exist. Pull them before the push.")


def _render_pushed(call: Call, imodel: sqlite3.Row, changeset_id: str, upload: Json | None = None) -> Json:
    """Render a changeset as the answers to POST and PATCH show it.

    Bentley's test suite expects null for the members that only GET looks up.
    """
    changeset = changesets.render_changeset(
        call, changesets.find_changeset(call, imodel, changeset_id), whole=True, upload=upload
    )
    changeset["synchronizationInfo"] = None
    changeset["_links"] |= {"namedVersion": None, "currentOrPrecedingCheckpoint": None}
    return changeset


def _delete_pending(call_or_job: Call | Job, where: str, *parameters: object) -> None:
    """Delete pushes in progress and their files."""
    condition = f"state = '{changesets.WAITING}' AND {where}"
    rows = call_or_job.sql.execute(f"SELECT blob_id FROM changesets WHERE {condition}", parameters).fetchall()
    call_or_job.sql.execute(f"DELETE FROM changesets WHERE {condition}", parameters)
    for (blob_id,) in rows:
        blobs.delete_blob(call_or_job, blob_id)


def _read_changeset_id(fields: Fields, name: str, *, required: bool = False) -> str | None:
    value = fields.get_text(name, required=required)
    if not value:
        return None
    if not _CHANGESET_ID.fullmatch(value):
        fields.problems.add_invalid(name, "The value must be a string of 40 hexadecimal digits.")
    return value.lower()


def _read_synchronization(fields: Fields) -> str | None:
    info = fields.get_object("synchronizationInfo")
    if info is None:
        return None
    files = info.values.get("changedFiles")
    if files is not None and not (isinstance(files, list) and all(isinstance(name, str) for name in files)):
        info.problems.add_invalid("synchronizationInfo", "The value of 'changedFiles' must be an array of strings.")
    return json.dumps({"taskId": info.get_text("taskId", required=True), "changedFiles": files})
