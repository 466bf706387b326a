"""Changeset groups: several changesets that are one change to the iModel, such as one run of a synchronization.

Only `completed` can be set by a client; a group that nobody closes times out a day after its last changeset.
"""

from __future__ import annotations

import sqlite3
import uuid
from datetime import timedelta
from typing import Final

from itwin_mcp.sandbox import access, paging, people, store
from itwin_mcp.sandbox.errors import ApiError, Problems, imodels_problems
from itwin_mcp.sandbox.store import Job
from itwin_mcp.sandbox.wire import Answer, Call, Json, Route, created, ok

OPEN: Final = "inProgress"
COMPLETED: Final = "completed"
TIMED_OUT: Final = "timedOut"
# How long the platform waits is not documented.
TIMEOUT: Final = timedelta(hours=24)


def render(call: Call, row: sqlite3.Row) -> Json:
    """A changeset group."""
    return {
        "id": row["id"],
        "description": row["description"],
        "state": row["state"],
        "creatorId": row["creator_id"],
        "createdDateTime": row["created_at"],
        "_links": {"creator": call.link(f"/imodels/{row['imodel_id']}/users/{row['creator_id']}")},
    }


def find(call: Call, imodel: sqlite3.Row, group_id: str) -> sqlite3.Row:
    """One changeset group of the iModel."""
    row = call.one("SELECT * FROM changeset_groups WHERE id = ? AND imodel_id = ?", group_id.lower(), imodel["id"])
    if row is None:
        raise ApiError("ChangesetGroupNotFound")
    return row


def open_group(call: Call, imodel: sqlite3.Row, group_id: str, problems: Problems) -> str:
    """The id of a group that a changeset may join: a closed one accepts none (update-imodel-changeset-group)."""
    row = find(call, imodel, group_id)
    if row["state"] != OPEN:
        problems.invalid("groupId", "The Changeset Group is closed.")
        problems.refuse()
    return str(row["id"])


def list_all(call: Call) -> Answer:
    """get-imodel-changeset-groups: in the order of their creation."""
    imodel = access.imodel(call, access.WEBVIEW)
    problems = imodels_problems("Cannot get Changeset Groups.")
    page = paging.imodels_page(call, problems)
    problems.refuse()
    statement = "SELECT * FROM changeset_groups WHERE imodel_id = ? ORDER BY seq"
    rows, links = page.select(call, statement, (imodel["id"],))
    return ok({"changesetGroups": [render(call, row) for row in rows], "_links": links})


def get(call: Call) -> Answer:
    """get-imodel-changeset-group."""
    imodel = access.imodel(call, access.WEBVIEW)
    return ok({"changesetGroup": render(call, find(call, imodel, call.slots["changesetGroupId"]))})


def create(call: Call) -> Answer:
    """create-imodel-changeset-group."""
    imodel = access.imodel(call, access.WRITE)
    problems = imodels_problems("Cannot create Changeset Group.")
    description = call.fields(problems).text("description", required=True)
    problems.refuse()
    if imodel["state"] != "initialized":
        raise ApiError("iModelNotInitialized")
    group_id = str(uuid.uuid4())
    call.sql.execute(
        "INSERT INTO changeset_groups (id, imodel_id, description, state, creator_id, created_at) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (group_id, imodel["id"], description, OPEN, call.caller.id, call.stamp),
    )
    store.schedule(call.sql, "changeset-group-timed-out", group_id, call.now + TIMEOUT)
    people.connect(call, imodel["id"])
    return created({"changesetGroup": render(call, find(call, imodel, group_id))})


def update(call: Call) -> Answer:
    """update-imodel-changeset-group: closes it; the other closed states are set by the platform itself."""
    imodel = access.imodel(call, access.WRITE)
    row = find(call, imodel, call.slots["changesetGroupId"])
    problems = imodels_problems("Cannot update Changeset Group.")
    call.fields(problems).choice("state", (COMPLETED,), required=True)
    problems.refuse()
    if row["state"] != OPEN:
        problems.add("InvalidChange", "Changeset Group is not in progress.")
        problems.refuse()
    call.sql.execute("UPDATE changeset_groups SET state = ? WHERE id = ?", (COMPLETED, row["id"]))
    people.connect(call, imodel["id"])
    return ok({"changesetGroup": render(call, find(call, imodel, row["id"]))})


def time_out(job: Job) -> None:
    """Close a group that nothing has been pushed to for long; otherwise look again later."""
    statement = "SELECT MAX(pushed_at) FROM changesets WHERE group_id = ?"
    (pushed,) = job.sql.execute(statement, (job.subject,)).fetchone()
    if pushed is not None and (due := store.moment_of(pushed) + TIMEOUT) > job.due:
        store.schedule(job.sql, "changeset-group-timed-out", job.subject, due)
        return
    statement = "UPDATE changeset_groups SET state = ? WHERE id = ? AND state = ?"
    job.sql.execute(statement, (TIMED_OUT, job.subject, OPEN))


JOBS: Final = {"changeset-group-timed-out": time_out}

_PATH: Final = "/imodels/{iModelId}/changesetgroups"

ROUTES: Final = (
    Route("GET", _PATH, list_all, slug="get-imodel-changeset-groups"),
    Route("POST", _PATH, create, slug="create-imodel-changeset-group"),
    Route("GET", f"{_PATH}/{{changesetGroupId}}", get, slug="get-imodel-changeset-group"),
    Route("PATCH", f"{_PATH}/{{changesetGroupId}}", update, slug="update-imodel-changeset-group"),
)
