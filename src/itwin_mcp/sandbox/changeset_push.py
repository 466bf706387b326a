"""The push of a changeset: announced, uploaded, completed; one at a time in an iModel, each on top of the latest.

A push that is never completed ends with its upload link, so that it cannot block the iModel for ever.
"""

from __future__ import annotations

import json
import re
import sqlite3
from datetime import timedelta
from typing import Any, Final

from itwin_mcp.sandbox import access, briefcases, changeset_groups, changesets, files, people, store
from itwin_mcp.sandbox.errors import ApiError, Detail, Problems, imodels_problems
from itwin_mcp.sandbox.store import Job
from itwin_mcp.sandbox.wire import Answer, Call, Fields, Json, Route, created, ok

UPLOAD_SECONDS: Final = 3600
MOST_BYTES: Final = 2**53
MOST_CHANGES: Final = 127  # the sum of all ContainingChanges flags, Schema 1 to SchemaSync 64
MOST_BRIEFCASE: Final = 2**53
_ID: Final = re.compile("[0-9a-fA-F]{40}")


def create(call: Call) -> Answer:
    """create-imodel-changeset: the answer says where to upload the file and how to complete the push."""
    imodel = access.imodel(call, access.WRITE)
    problems = imodels_problems("Cannot create Changeset.")
    fields = call.fields(problems)
    values: dict[str, Any] = {
        "id": _changeset_id(fields, "id", required=True),
        "description": fields.text("description"),
        "parent_id": _changeset_id(fields, "parentId") or "",
        "briefcase_id": fields.integer("briefcaseId", 1, MOST_BRIEFCASE, required=True),
        "containing_changes": fields.integer("containingChanges", 0, MOST_CHANGES) or 0,
        "file_size": fields.integer("fileSize", 1, MOST_BYTES, required=True),
        "synchronization_json": _synchronization(fields),
        "group_id": fields.text("groupId"),
    }
    problems.refuse()
    if imodel["state"] != "initialized":
        raise ApiError("iModelNotInitialized")
    briefcase = briefcases.own(call, imodel, values["briefcase_id"])
    if values["group_id"] is not None:
        values["group_id"] = changeset_groups.open_group(call, imodel, values["group_id"], problems)
    _take_turn(call, imodel, briefcase)
    latest = changesets.latest(call, imodel)
    _check_chain(call, imodel, values, latest)
    values |= {
        "imodel_id": imodel["id"],
        "idx": latest["idx"] + 1 if latest else 1,
        "creator_id": call.caller.id,
        "pushed_at": call.stamp,
        "state": changesets.WAITING,
        "client_id": call.caller.client_id,
        "blob_id": files.reserve(call, values["file_size"]),
    }
    names, slots = ", ".join(values), ", ".join("?" * len(values))
    call.sql.execute(f"INSERT INTO changesets ({names}) VALUES ({slots})", tuple(values.values()))
    due = call.now + timedelta(seconds=UPLOAD_SECONDS)
    store.schedule(call.sql, "changeset-push-abandoned", values["blob_id"], due)
    people.connect(call, imodel["id"])
    upload = files.link(call, values["blob_id"], write=True, seconds=UPLOAD_SECONDS)
    return created({"changeset": _answer(call, imodel, values["id"], upload)})


def complete(call: Call) -> Answer:
    """update-imodel-changeset: the file has been uploaded, and from now on the changeset belongs to the timeline."""
    imodel = access.imodel(call, access.WRITE)
    row = changesets.find(call, imodel, call.slots["changesetIdOrIndex"])
    problems = imodels_problems("Cannot update Changeset.")
    fields = call.fields(problems)
    fields.choice("state", (changesets.UPLOADED,), required=True)
    briefcase_id = fields.integer("briefcaseId", 1, MOST_BRIEFCASE, required=True)
    problems.refuse()
    briefcases.own(call, imodel, briefcase_id or 0)
    if row["briefcase_id"] != briefcase_id:
        problems.invalid("briefcaseId", "The Changeset was created by another Briefcase.")
    elif row["state"] != changesets.WAITING:
        problems.add("InvalidChange", "Changeset file upload is not in progress.")
    problems.refuse()
    size = files.stored_size(call, row["blob_id"])
    if size is None:
        raise ApiError("FileNotFound")
    if size != row["file_size"]:
        message = "File size provided during Changeset creation does not match actual file size."
        raise ApiError("DataConflict", message)
    call.sql.execute(
        "UPDATE changesets SET state = ?, pushed_at = ? WHERE imodel_id = ? AND idx = ?",
        (changesets.UPLOADED, call.stamp, imodel["id"], row["idx"]),
    )
    people.connect(call, imodel["id"])
    return ok({"changeset": _answer(call, imodel, row["id"])})


def abandon(job: Job) -> None:
    """The upload link has expired: another push may begin."""
    _forget(job.sql, job, "blob_id = ?", job.subject)


def _take_turn(call: Call, imodel: sqlite3.Row, briefcase: sqlite3.Row) -> None:
    """Whoever pushes keeps the others out; the same briefcase may begin again."""
    statement = "SELECT * FROM changesets WHERE imodel_id = ? AND state = ?"
    pending = call.one(statement, imodel["id"], changesets.WAITING)
    if pending is None:
        return
    if pending["briefcase_id"] != briefcase["briefcase_id"]:
        raise ApiError("ConflictWithAnotherUser", "Another user is currently pushing a Changeset.")
    _forget(call.sql, call, "imodel_id = ? AND idx = ?", imodel["id"], pending["idx"])


def _check_chain(call: Call, imodel: sqlite3.Row, values: dict[str, Any], latest: sqlite3.Row | None) -> None:
    if call.one("SELECT 1 FROM changesets WHERE imodel_id = ? AND id = ?", imodel["id"], values["id"]):
        finding = Detail("InvalidValue", f"Changeset with id '{values['id']}' already exists.", "id")
        raise ApiError("ChangesetExists", details=(finding,))
    if values["parent_id"] == (latest["id"] if latest else ""):
        return
    if values["parent_id"]:
        changesets.find(call, imodel, values["parent_id"], uploaded=True)
    raise ApiError("NewerChangesExist", "Newer Changesets exist. Pull them before the push.")


def _answer(call: Call, imodel: sqlite3.Row, changeset_id: str, upload: Json | None = None) -> Json:
    """The changeset without what the platform looks up in answers to GET only (Bentley's suite insists on nulls)."""
    changeset = changesets.render(call, changesets.find(call, imodel, changeset_id), whole=True, upload=upload)
    changeset["synchronizationInfo"] = None
    changeset["_links"] |= {"namedVersion": None, "currentOrPrecedingCheckpoint": None}
    return changeset


def _forget(sql: sqlite3.Connection, by: Call | Job, which: str, *parameters: object) -> None:
    condition = f"state = '{changesets.WAITING}' AND {which}"
    found = sql.execute(f"SELECT blob_id FROM changesets WHERE {condition}", parameters).fetchall()
    sql.execute(f"DELETE FROM changesets WHERE {condition}", parameters)
    for (blob_id,) in found:
        files.delete(by, blob_id)


def _changeset_id(fields: Fields, name: str, *, required: bool = False) -> str | None:
    value = fields.text(name, required=required)
    if not value:
        return None
    if not _ID.fullmatch(value):
        fields.problems.invalid(name, "The value must be a string of 40 hexadecimal digits.")
    return value.lower()


def _synchronization(fields: Fields) -> str | None:
    info = fields.object("synchronizationInfo")
    if info is None:
        return None
    changed = info.values.get("changedFiles")
    _check_files(info.problems, changed)
    return json.dumps({"taskId": info.text("taskId", required=True), "changedFiles": changed})


def _check_files(problems: Problems, changed: object) -> None:
    if changed is not None and not (isinstance(changed, list) and all(isinstance(one, str) for one in changed)):
        problems.invalid("synchronizationInfo", "The value of 'changedFiles' must be an array of strings.")


JOBS: Final = {"changeset-push-abandoned": abandon}

_PATH: Final = "/imodels/{iModelId}/changesets"

ROUTES: Final = (
    Route("POST", _PATH, create, slug="create-imodel-changeset"),
    Route("PATCH", f"{_PATH}/{{changesetIdOrIndex}}", complete, slug="update-imodel-changeset"),
)
