"""Baseline files: the iModel file that changesets build upon, and its upload when an iModel is created from one.

A baseline that the sandbox makes is an empty iModel (`imodel_file.py`). It does not look into an uploaded one. To
rehearse the documented failures, upload a file that begins with `sandbox:briefcase` (it ends in `fileIsBriefcase`) or
with `sandbox:broken` (`initializationFailed`); any other content becomes `initialized`.
"""

from __future__ import annotations

import sqlite3
import uuid
from functools import partial
from typing import Final

from itwin_mcp.sandbox import access, files, imodel_file
from itwin_mcp.sandbox.errors import ApiError, imodels_problems
from itwin_mcp.sandbox.store import Job
from itwin_mcp.sandbox.wire import Answer, Call, Json, Route, ok

MOST_BYTES: Final = 2**53
DOWNLOAD_SECONDS: Final = 20 * 60  # the example of get-imodel-baseline-file-details expires after twenty minutes
_VERDICTS: Final = ((b"sandbox:briefcase", "fileIsBriefcase"), (b"sandbox:broken", "initializationFailed"))


def expect(call: Call, imodel_id: str, size: int) -> Json:
    """Wait for the file of a new iModel; the link to upload it to."""
    blob_id = files.reserve(call, size)
    _insert(call.sql, imodel_id, size, "waitingForFile", call.caller.id, blob_id)
    return upload_link(call, blob_id)


def upload_link(call: Call, blob_id: str) -> Json:
    """Where to upload, as it stands in `_links` of the iModel."""
    return dict(files.link(call, blob_id, write=True))


def provide(sql: sqlite3.Connection, imodel_id: str, creator_id: str, source_id: str | None, made_at: str) -> None:
    """The baseline of an iModel that came without one: what was uploaded for its source, or an empty iModel."""
    source = sql.execute("SELECT * FROM baseline_files WHERE imodel_id = ?", (source_id,)).fetchone()
    itwin_id = _itwin_of(sql, imodel_id)
    if source is not None and not files.is_generated(sql, source["blob_id"]):
        adapt = partial(imodel_file.change_ids, imodel_id=imodel_id, itwin_id=itwin_id)
        blob_id, size = files.copy(sql, source["blob_id"], made_at, adapt)
    else:
        size = imodel_file.SIZE
        blob_id = files.imodel(sql, str(uuid.uuid4()), imodel_id, itwin_id, made_at)
    _insert(sql, imodel_id, size, "initialized", creator_id, blob_id)


def get(call: Call) -> Answer:
    """get-imodel-baseline-file-details: to download needs imodels_read."""
    return ok({"baselineFile": _render(call, access.imodel(call, access.WEBVIEW))})


def complete(call: Call) -> Answer:
    """complete-imodel-baseline-file-upload: needs imodels_manage on the iTwin, a body is not read."""
    imodel = access.imodel(call, access.WEBVIEW)
    access.itwin_for(call, imodel["itwin_id"], access.MANAGE)
    row = _row(call, imodel)
    if row["state"] != "waitingForFile":
        problems = imodels_problems("Cannot complete Baseline File upload.")
        problems.add("InvalidChange", "Baseline File upload is not in progress.")
        problems.refuse()
    size = files.stored_size(call, row["blob_id"])
    if size is None:
        raise ApiError("FileNotFound")
    if size != row["file_size"]:
        raise ApiError("DataConflict")
    _set_state(call.sql, imodel["id"], "initializationScheduled")
    call.sql.execute("UPDATE create_operations SET state = 'scheduled' WHERE imodel_id = ?", (imodel["id"],))
    call.schedule("baseline-initialized", imodel["id"], jobs=0.5)
    call.schedule("imodel-created", imodel["id"])
    return ok({"baselineFile": _render(call, imodel)})


def initialize(job: Job) -> None:
    """The uploaded file has been looked at: it is a baseline, or it is not."""
    row = job.sql.execute(
        "SELECT * FROM baseline_files WHERE imodel_id = ? AND state = 'initializationScheduled'", (job.subject,)
    ).fetchone()
    if row is None:
        return
    content = files.find(job.sql, row["blob_id"])
    start = files.read(job.sql, content, 0, 32) if content is not None else b""
    state = next((verdict for mark, verdict in _VERDICTS if start.startswith(mark)), "initialized")
    _set_state(job.sql, job.subject, state)
    if state == "initialized":
        job.sql.execute("UPDATE imodels SET state = 'initialized' WHERE id = ?", (job.subject,))


def failed(job: Job) -> bool:
    """Whether the iModel waits for a baseline file that turned out to be none."""
    row = job.sql.execute("SELECT state FROM baseline_files WHERE imodel_id = ?", (job.subject,)).fetchone()
    return row is not None and row["state"] != "initialized"


def _itwin_of(sql: sqlite3.Connection, imodel_id: str) -> str:
    itwin_id: str = sql.execute("SELECT itwin_id FROM imodels WHERE id = ?", (imodel_id,)).fetchone()[0]
    return itwin_id


def _row(call: Call, imodel: sqlite3.Row) -> sqlite3.Row:
    row = call.one("SELECT * FROM baseline_files WHERE imodel_id = ?", imodel["id"])
    if row is None:
        raise ApiError("BaselineFileNotFound")
    return row


def _render(call: Call, imodel: sqlite3.Row) -> Json:
    row = _row(call, imodel)
    readable = access.READ in (access.imodel_permissions(call, imodel) or ())
    ready = row["state"] == "initialized" and row["blob_id"] is not None
    return {
        "id": row["id"],
        "displayName": f"{row['id']}.bim",
        "fileSize": row["file_size"],
        "state": row["state"],
        "_links": {
            "creator": call.link(f"/imodels/{imodel['id']}/users/{row['creator_id']}"),
            "download": files.link(call, row["blob_id"], seconds=DOWNLOAD_SECONDS) if readable and ready else None,
        },
    }


def _insert(sql: sqlite3.Connection, imodel_id: str, size: int, state: str, creator_id: str, blob_id: str) -> None:
    sql.execute(
        "INSERT INTO baseline_files (imodel_id, id, file_size, state, creator_id, blob_id) VALUES (?, ?, ?, ?, ?, ?)",
        (imodel_id, str(uuid.uuid4()), size, state, creator_id, blob_id),
    )


def _set_state(sql: sqlite3.Connection, imodel_id: str, state: str) -> None:
    sql.execute("UPDATE baseline_files SET state = ? WHERE imodel_id = ?", (state, imodel_id))


JOBS: Final = {"baseline-initialized": initialize}

_PATH: Final = "/imodels/{iModelId}/baselinefile"
ROUTES: Final = (
    Route("GET", _PATH, get, slug="get-imodel-baseline-file-details"),
    Route("POST", _PATH, complete, slug="complete-imodel-baseline-file-upload"),
)
