"""Changeset groups: changesets that belong together, such as those of one synchronization run.

A client can only complete a group. A group that stays open times out a day after its last changeset.
"""

from __future__ import annotations

import sqlite3
import uuid
from datetime import timedelta
from typing import Final

from itwin_mcp.sandbox import access, paging, store
from itwin_mcp.sandbox.errors import Problems, make_imodels_problems
from itwin_mcp.sandbox.imodels import imodels, users
from itwin_mcp.sandbox.store import Job
from itwin_mcp.sandbox.wire import Answer, Call, Json, created, ok

OPEN: Final = "inProgress"
COMPLETED: Final = "completed"
TIMED_OUT: Final = "timedOut"
# The platform's own timeout is not documented.
TIMEOUT: Final = timedelta(hours=24)


def render_group(call: Call, row: sqlite3.Row) -> Json:
    return {
        "id": row["id"],
        "description": row["description"],
        "state": row["state"],
        "creatorId": row["creator_id"],
        "createdDateTime": row["created_at"],
        "_links": {"creator": call.make_link(f"/imodels/{row['imodel_id']}/users/{row['creator_id']}")},
    }


def find_group(call: Call, imodel: sqlite3.Row, group_id: str) -> sqlite3.Row:
    """Return a changeset group of the iModel.

    Raises:
        ApiError: `ChangesetGroupNotFound`.
    """
    statement = "SELECT * FROM changeset_groups WHERE id = ? AND imodel_id = ?"
    return call.require_one("ChangesetGroupNotFound", statement, group_id.lower(), imodel["id"])


def require_open_group(call: Call, imodel: sqlite3.Row, group_id: str, problems: Problems) -> str:
    """Return the id of a group to which changesets can be added.

    Raises:
        ApiError: If there is no such group, or it is closed (update-imodel-changeset-group).
    """
    row = find_group(call, imodel, group_id)
    if row["state"] != OPEN:
        problems.add_invalid("groupId", "The Changeset Group is closed.")
        problems.raise_if_any()
    return str(row["id"])


def list_groups(call: Call) -> Answer:
    """List the groups in the order of their creation."""
    imodel = access.require_imodel(call, access.WEBVIEW)
    problems = make_imodels_problems("Cannot get Changeset Groups.")
    page = paging.read_imodels_page(call, problems)
    problems.raise_if_any()
    statement = "SELECT * FROM changeset_groups WHERE imodel_id = ? ORDER BY seq"
    rows, links = page.fetch_rows(call, statement, (imodel["id"],))
    return ok({"changesetGroups": [render_group(call, row) for row in rows], "_links": links})


def get_group(call: Call) -> Answer:
    imodel = access.require_imodel(call, access.WEBVIEW)
    return ok({"changesetGroup": render_group(call, find_group(call, imodel, call.slots["changesetGroupId"]))})


def create_group(call: Call) -> Answer:
    imodel = access.require_imodel(call, access.WRITE)
    problems = make_imodels_problems("Cannot create Changeset Group.")
    description = call.read_fields(problems).get_text("description", required=True)
    problems.raise_if_any()
    imodels.check_initialized(imodel)
    group_id = str(uuid.uuid4())
    call.sql.execute(
        "INSERT INTO changeset_groups (id, imodel_id, description, state, creator_id, created_at) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (group_id, imodel["id"], description, OPEN, call.caller.id, call.timestamp),
    )
    store.schedule_job(call.sql, "changeset-group-timed-out", group_id, call.now + TIMEOUT)
    users.record_access(call, imodel["id"])
    return created({"changesetGroup": render_group(call, find_group(call, imodel, group_id))})


def complete_group(call: Call) -> Answer:
    """Complete a group. Only the platform itself sets the other closed states."""
    imodel = access.require_imodel(call, access.WRITE)
    row = find_group(call, imodel, call.slots["changesetGroupId"])
    problems = make_imodels_problems("Cannot update Changeset Group.")
    call.read_fields(problems).get_choice("state", (COMPLETED,), required=True)
    problems.raise_if_any()
    if row["state"] != OPEN:
        problems.fail("InvalidChange", "Changeset Group is not in progress.")
    call.sql.execute("UPDATE changeset_groups SET state = ? WHERE id = ?", (COMPLETED, row["id"]))
    users.record_access(call, imodel["id"])
    return ok({"changesetGroup": render_group(call, find_group(call, imodel, row["id"]))})


def time_out_group(job: Job) -> None:
    """Close a group after a day without changesets. If it has a newer changeset, check again a day after that."""
    statement = "SELECT MAX(pushed_at) FROM changesets WHERE group_id = ?"
    (pushed_at,) = job.sql.execute(statement, (job.subject,)).fetchone()
    if pushed_at is not None and (due := store.parse_timestamp(pushed_at) + TIMEOUT) > job.due:
        store.schedule_job(job.sql, "changeset-group-timed-out", job.subject, due)
        return
    statement = "UPDATE changeset_groups SET state = ? WHERE id = ? AND state = ?"
    job.sql.execute(statement, (TIMED_OUT, job.subject, OPEN))
