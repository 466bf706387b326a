"""Baseline files: the iModel files that changesets build on.

A baseline file that the sandbox creates is an empty iModel (`storage/imodel_file.py`). Uploaded content is not
inspected, except for two markers that rehearse the documented failures: a file that begins with `sandbox:briefcase`
ends as `fileIsBriefcase`, one that begins with `sandbox:broken` as `initializationFailed`.
"""

from __future__ import annotations

import sqlite3
import uuid
from functools import partial
from typing import Final

from itwin_mcp.sandbox import access
from itwin_mcp.sandbox.errors import make_imodels_problems
from itwin_mcp.sandbox.storage import blobs, imodel_file
from itwin_mcp.sandbox.store import Job
from itwin_mcp.sandbox.wire import Answer, Call, Json, ok

MAX_BYTES: Final = 2**53
DOWNLOAD_SECONDS: Final = 20 * 60  # as in the example of get-imodel-baseline-file-details
_FAILURE_MARKERS: Final = ((b"sandbox:briefcase", "fileIsBriefcase"), (b"sandbox:broken", "initializationFailed"))


def reserve_baseline(call: Call, imodel_id: str, size: int) -> Json:
    """Reserve the baseline file of a new iModel, `size` bytes long, and return its upload link."""
    blob_id = blobs.reserve_blob(call)
    _insert(call.sql, imodel_id, size, "waitingForFile", call.caller.id, blob_id)
    return dict(blobs.make_link(call, blob_id, write=True))


def make_baseline(
    sql: sqlite3.Connection, imodel_id: str, creator_id: str, source_id: str | None, made_at: str
) -> None:
    """Create the baseline file of an iModel that needs no upload.

    Copy the file that was uploaded for the source of a clone or fork. Without such a file, create an empty iModel.
    """
    source = sql.execute("SELECT * FROM baseline_files WHERE imodel_id = ?", (source_id,)).fetchone()
    (itwin_id,) = sql.execute("SELECT itwin_id FROM imodels WHERE id = ?", (imodel_id,)).fetchone()
    if source is not None and not blobs.is_generated(sql, source["blob_id"]):
        adapt = partial(imodel_file.replace_ids, imodel_id=imodel_id, itwin_id=itwin_id)
        blob_id, size = blobs.copy_blob(sql, source["blob_id"], made_at, adapt)
    else:
        size = imodel_file.SIZE
        blob_id = blobs.create_imodel_file(sql, str(uuid.uuid4()), imodel_id, itwin_id, made_at)
    _insert(sql, imodel_id, size, "initialized", creator_id, blob_id)


def get_baseline_file(call: Call) -> Answer:
    """Return the baseline file. Its download link is null for callers without `imodels_read`."""
    return ok({"baselineFile": _render(call, access.require_imodel(call, access.WEBVIEW))})


def complete_upload(call: Call) -> Answer:
    """Start initializing an uploaded file. The caller needs `imodels_manage` on the iTwin. The body is ignored."""
    imodel = access.require_imodel(call, access.WEBVIEW)
    access.require_itwin(call, imodel["itwin_id"], access.MANAGE)
    row = _find_baseline(call, imodel)
    if row["state"] != "waitingForFile":
        problems = make_imodels_problems("Cannot complete Baseline File upload.")
        problems.fail("InvalidChange", "Baseline File upload is not in progress.")
    blobs.check_uploaded(call, row["blob_id"], row["file_size"])
    _set_state(call.sql, imodel["id"], "initializationScheduled")
    call.sql.execute("UPDATE create_operations SET state = 'scheduled' WHERE imodel_id = ?", (imodel["id"],))
    call.schedule("baseline-initialized", imodel["id"], jobs=0.5)
    call.schedule("imodel-created", imodel["id"])
    return ok({"baselineFile": _render(call, imodel)})


def initialize_baseline(job: Job) -> None:
    """Finish the initialization of an uploaded file, or fail it if the file begins with a failure marker."""
    row = job.sql.execute(
        "SELECT * FROM baseline_files WHERE imodel_id = ? AND state = 'initializationScheduled'", (job.subject,)
    ).fetchone()
    if row is None:
        return
    content = blobs.find_content(job.sql, row["blob_id"])
    start = blobs.read_content(job.sql, content, 0, 32) if content is not None else b""
    state = next((failure for mark, failure in _FAILURE_MARKERS if start.startswith(mark)), "initialized")
    _set_state(job.sql, job.subject, state)
    if state == "initialized":
        job.sql.execute("UPDATE imodels SET state = 'initialized' WHERE id = ?", (job.subject,))


def has_failed(job: Job) -> bool:
    """Return whether the baseline file of the iModel was rejected."""
    row = job.sql.execute("SELECT state FROM baseline_files WHERE imodel_id = ?", (job.subject,)).fetchone()
    return row is not None and row["state"] != "initialized"


def _find_baseline(call: Call, imodel: sqlite3.Row) -> sqlite3.Row:
    return call.require_one("BaselineFileNotFound", "SELECT * FROM baseline_files WHERE imodel_id = ?", imodel["id"])


def _render(call: Call, imodel: sqlite3.Row) -> Json:
    row = _find_baseline(call, imodel)
    readable = access.READ in (access.get_imodel_permissions(call, imodel) or ())
    ready = row["state"] == "initialized" and row["blob_id"] is not None
    return {
        "id": row["id"],
        "displayName": f"{row['id']}.bim",
        "fileSize": row["file_size"],
        "state": row["state"],
        "_links": {
            "creator": call.make_link(f"/imodels/{imodel['id']}/users/{row['creator_id']}"),
            "download": blobs.make_link(call, row["blob_id"], seconds=DOWNLOAD_SECONDS) if readable and ready else None,
        },
    }


def _insert(sql: sqlite3.Connection, imodel_id: str, size: int, state: str, creator_id: str, blob_id: str) -> None:
    sql.execute(
        "INSERT INTO baseline_files (imodel_id, id, file_size, state, creator_id, blob_id) VALUES (?, ?, ?, ?, ?, ?)",
        (imodel_id, str(uuid.uuid4()), size, state, creator_id, blob_id),
    )


def _set_state(sql: sqlite3.Connection, imodel_id: str, state: str) -> None:
    sql.execute("UPDATE baseline_files SET state = ? WHERE imodel_id = ?", (state, imodel_id))
