"""Checkpoints: iModel files as of one changeset, generated when a named version is created.

The baseline always has a checkpoint. A changeset without one answers 404 `CheckpointNotFound`, a named version without
one `notGenerated`. The container of a checkpoint (`directoryAccessInfo`) has a valid address and token, but is empty.
To rehearse a failure, push a changeset whose file begins with `sandbox:broken`: its checkpoint becomes `failed`.
"""

from __future__ import annotations

import sqlite3
import uuid
from typing import Any, Final

from itwin_mcp.sandbox import access
from itwin_mcp.sandbox.errors import ApiError
from itwin_mcp.sandbox.imodels import changesets
from itwin_mcp.sandbox.storage import blobs, imodel_file
from itwin_mcp.sandbox.store import Job, insert_row
from itwin_mcp.sandbox.wire import Answer, Call, Json, ok

SUCCESSFUL: Final = "successful"
SCHEDULED: Final = "scheduled"
FAILED: Final = "failed"
NOT_GENERATED: Final = "notGenerated"
STORAGE_ACCOUNT: Final = "itwinsandbox"
_JOB: Final = "checkpoint-generated"
_BROKEN_MARKER: Final = b"sandbox:broken"


def schedule_checkpoint(call: Call, imodel_id: str, index: int, changeset_id: str | None) -> None:
    """Schedule the checkpoint of a changeset, unless it is already scheduled or generated."""
    if not index:
        return
    inserted = call.sql.execute(
        "INSERT INTO checkpoints (imodel_id, changeset_index, changeset_id, state, db_name) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET state = excluded.state WHERE state NOT IN (?, ?)",
        (imodel_id, index, changeset_id, SCHEDULED, name_database(changeset_id), SUCCESSFUL, SCHEDULED),
    )
    if inserted.rowcount:
        call.schedule(_JOB, f"{imodel_id}/{index}")


def generate_checkpoint(job: Job) -> None:
    """Finish a scheduled checkpoint. Its file is the baseline, to which clients apply the changesets themselves."""
    imodel_id, _, index = job.subject.rpartition("/")
    statement = "SELECT 1 FROM checkpoints WHERE imodel_id = ? AND changeset_index = ? AND state = ?"
    if job.sql.execute(statement, (imodel_id, index, SCHEDULED)).fetchone() is None:
        return  # the iModel has been deleted
    if _is_broken(job, imodel_id, index):
        _store_result(job, imodel_id, index, FAILED, 0, None)
        return
    baseline = job.sql.execute("SELECT * FROM baseline_files WHERE imodel_id = ?", (imodel_id,)).fetchone()
    size, blob_id = baseline["file_size"], baseline["blob_id"]
    if blobs.is_generated(job.sql, blob_id):
        size, blob_id = imodel_file.SIZE, _make_checkpoint_file(job, imodel_id, index)
    _store_result(job, imodel_id, index, SUCCESSFUL, size, blob_id)


def get_latest_checkpoint(call: Call) -> Answer:
    """Return the newest checkpoint that has been generated."""
    imodel = access.require_imodel(call, access.READ)
    statement = "SELECT * FROM checkpoints WHERE imodel_id = ? AND state = ? ORDER BY changeset_index DESC LIMIT 1"
    row = call.fetch_one(statement, imodel["id"], SUCCESSFUL)
    return ok({"checkpoint": _render(call, imodel, dict(row) if row else _make_baseline_checkpoint(call, imodel))})


def get_changeset_checkpoint(call: Call) -> Answer:
    """Return the checkpoint of a changeset. Index 0 is the baseline."""
    imodel = access.require_imodel(call, access.READ)
    id_or_index = call.slots["changesetIdOrIndex"]
    index = 0 if id_or_index == "0" else changesets.find_changeset(call, imodel, id_or_index, uploaded=True)["idx"]
    checkpoint = _find_checkpoint(call, imodel, index)
    if checkpoint is None:
        raise ApiError("CheckpointNotFound")
    return ok({"checkpoint": _render(call, imodel, checkpoint)})


def get_version_checkpoint(call: Call) -> Answer:
    imodel = access.require_imodel(call, access.READ)
    return ok({"checkpoint": _render_version_checkpoint(call, imodel, _find_version(call, imodel))})


def restart_version_checkpoint(call: Call) -> Answer:
    """Schedule the checkpoint of a named version again, unless it has been generated."""
    imodel = access.require_imodel(call, access.WRITE)
    version = _find_version(call, imodel)
    schedule_checkpoint(call, imodel["id"], version["changeset_index"], version["changeset_id"])
    return ok({"checkpoint": _render_version_checkpoint(call, imodel, version)})


def name_database(changeset_id: str | None) -> str:
    """Return the file name of a checkpoint. The baseline's is the one that Bentley's access-backend tests expect."""
    return f"{changeset_id or 'BASELINE'}.bim"


def _make_checkpoint_file(job: Job, imodel_id: str, index: str) -> str:
    """Create an empty iModel that already includes all seeded changesets, and return its blob id.

    Clients cannot apply seeded changesets, because their files are filler.
    """
    seeded = job.sql.execute(
        "SELECT c.id, c.idx FROM changesets c JOIN blobs b ON b.id = c.blob_id "
        "WHERE c.imodel_id = ? AND c.idx <= ? AND b.recipe IS NOT NULL ORDER BY c.idx DESC LIMIT 1",
        (imodel_id, index),
    ).fetchone()
    itwin_id = job.sql.execute("SELECT itwin_id FROM imodels WHERE id = ?", (imodel_id,)).fetchone()[0]
    changeset = tuple(seeded) if seeded else ("", 0)
    return blobs.create_imodel_file(job.sql, str(uuid.uuid4()), imodel_id, itwin_id, job.timestamp, changeset=changeset)


def _is_broken(job: Job, imodel_id: str, index: str) -> bool:
    statement = "SELECT blob_id FROM changesets WHERE imodel_id = ? AND idx = ?"
    row = job.sql.execute(statement, (imodel_id, index)).fetchone()
    content = blobs.find_content(job.sql, row["blob_id"]) if row is not None else None
    return content is not None and blobs.read_content(job.sql, content, 0, len(_BROKEN_MARKER)) == _BROKEN_MARKER


def _store_result(job: Job, imodel_id: str, index: str, state: str, size: int, blob_id: str | None) -> None:
    job.sql.execute(
        "UPDATE checkpoints SET state = ?, size = ?, blob_id = ? WHERE imodel_id = ? AND changeset_index = ?",
        (state, size, blob_id, imodel_id, index),
    )


def _find_version(call: Call, imodel: sqlite3.Row) -> sqlite3.Row:
    statement = "SELECT * FROM named_versions WHERE id = ? AND imodel_id = ?"
    return call.require_one("NamedVersionNotFound", statement, call.slots["namedVersionId"].lower(), imodel["id"])


def _render_version_checkpoint(call: Call, imodel: sqlite3.Row, version: sqlite3.Row) -> Json:
    absent = {
        "changeset_id": version["changeset_id"],
        "changeset_index": version["changeset_index"],
        "state": NOT_GENERATED,
        "size": 0,
        "db_name": name_database(version["changeset_id"]),
    }
    return _render(call, imodel, _find_checkpoint(call, imodel, version["changeset_index"]) or absent)


def _find_checkpoint(call: Call, imodel: sqlite3.Row, index: int) -> dict[str, Any] | None:
    statement = "SELECT * FROM checkpoints WHERE imodel_id = ? AND changeset_index = ?"
    row = call.fetch_one(statement, imodel["id"], index)
    if row is not None:
        return dict(row)
    return None if index else _make_baseline_checkpoint(call, imodel)


def _make_baseline_checkpoint(call: Call, imodel: sqlite3.Row) -> dict[str, Any]:
    """Store and return the checkpoint of the baseline.

    Raises:
        ApiError: `CheckpointNotFound`, if the iModel is not initialized.
    """
    if imodel["state"] != "initialized":
        raise ApiError("CheckpointNotFound")
    statement = "SELECT file_size, blob_id FROM baseline_files WHERE imodel_id = ?"
    baseline = call.require_one("CheckpointNotFound", statement, imodel["id"])
    checkpoint = {
        "imodel_id": imodel["id"],
        "changeset_index": 0,
        "changeset_id": None,
        "state": SUCCESSFUL,
        "size": baseline["file_size"],
        "db_name": name_database(None),
        "blob_id": baseline["blob_id"],
    }
    insert_row(call.sql, "checkpoints", checkpoint)
    return checkpoint


def _render(call: Call, imodel: sqlite3.Row, checkpoint: dict[str, Any]) -> Json:
    link = blobs.make_link(call, checkpoint["blob_id"]) if checkpoint["state"] == SUCCESSFUL else None
    token = link["href"].partition("?")[2] if link else ""
    container = f"imodelblocks-{imodel['id']}"
    return {
        "changesetId": checkpoint["changeset_id"],
        "changesetIndex": checkpoint["changeset_index"],
        "size": checkpoint["size"],
        "state": checkpoint["state"],
        "dbName": checkpoint["db_name"],
        "directoryAccessInfo": link
        and {
            "baseUrl": f"{call.storage_url}/storage",
            "baseDirectory": container,
            "storage": STORAGE_ACCOUNT,
            "storageType": "azure",
            "azure": {"sasToken": token},
        },
        "containerAccessInfo": link
        and {"account": STORAGE_ACCOUNT, "container": container, "sas": token, "dbName": checkpoint["db_name"]},
        "_links": {"download": link},
    }
