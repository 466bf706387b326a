"""Checkpoints: the iModel as of one changeset, generated after a named version is created; the baseline always has one.

A changeset without a checkpoint answers 404 CheckpointNotFound, a named version without one `notGenerated`. The blocks
of a checkpoint (`directoryAccessInfo`) have real addresses and tokens, but nothing is stored behind them. To rehearse a
failure, push a changeset whose file begins with `sandbox:broken`: its checkpoint becomes `failed`.
"""

from __future__ import annotations

import sqlite3
import uuid
from typing import Any, Final

from itwin_mcp.sandbox import access, changesets, files, imodel_file
from itwin_mcp.sandbox.errors import ApiError
from itwin_mcp.sandbox.store import Job, stamp
from itwin_mcp.sandbox.wire import Answer, Call, Json, Route, ok

SUCCESSFUL: Final = "successful"
SCHEDULED: Final = "scheduled"
FAILED: Final = "failed"
NOT_GENERATED: Final = "notGenerated"
ACCOUNT: Final = "itwinsandbox"
_JOB: Final = "checkpoint-generated"
_BROKEN: Final = b"sandbox:broken"


def schedule(call: Call, imodel_id: str, index: int, changeset_id: str | None) -> None:
    """Have the checkpoint of a changeset generated, unless that has been done or is under way."""
    if not index:
        return
    made = call.sql.execute(
        "INSERT INTO checkpoints (imodel_id, changeset_index, changeset_id, state, db_name) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET state = excluded.state WHERE state NOT IN (?, ?)",
        (imodel_id, index, changeset_id, SCHEDULED, database_name(changeset_id), SUCCESSFUL, SCHEDULED),
    )
    if made.rowcount:
        call.schedule(_JOB, f"{imodel_id}/{index}")


def generate(job: Job) -> None:
    """The checkpoint exists from now on. Its file is that of the baseline, from where a client pulls the changesets."""
    imodel_id, _, index = job.subject.rpartition("/")
    statement = "SELECT 1 FROM checkpoints WHERE imodel_id = ? AND changeset_index = ? AND state = ?"
    if job.sql.execute(statement, (imodel_id, index, SCHEDULED)).fetchone() is None:
        return  # the iModel has been deleted
    if _is_broken(job, imodel_id, index):
        _settle(job, imodel_id, index, FAILED, 0, None)
        return
    baseline = job.sql.execute("SELECT * FROM baseline_files WHERE imodel_id = ?", (imodel_id,)).fetchone()
    size, blob_id = baseline["file_size"], baseline["blob_id"]
    if files.is_generated(job.sql, blob_id):
        size, blob_id = imodel_file.SIZE, _make_file(job, imodel_id, index)
    _settle(job, imodel_id, index, SUCCESSFUL, size, blob_id)


def get_latest(call: Call) -> Answer:
    """get-briefcase-checkpoint: the newest one that has been generated."""
    imodel = access.imodel(call, access.READ)
    statement = "SELECT * FROM checkpoints WHERE imodel_id = ? AND state = ? ORDER BY changeset_index DESC LIMIT 1"
    row = call.one(statement, imodel["id"], SUCCESSFUL)
    return ok({"checkpoint": _render(call, imodel, dict(row) if row else _baseline(call, imodel))})


def get_of_changeset(call: Call) -> Answer:
    """get-changeset-checkpoint: index 0 is the baseline."""
    imodel = access.imodel(call, access.READ)
    wanted = call.slots["changesetIdOrIndex"]
    index = 0 if wanted == "0" else changesets.find(call, imodel, wanted, uploaded=True)["idx"]
    checkpoint = _find(call, imodel, index)
    if checkpoint is None:
        raise ApiError("CheckpointNotFound")
    return ok({"checkpoint": _render(call, imodel, checkpoint)})


def get_of_version(call: Call) -> Answer:
    """get-named-version-checkpoint."""
    imodel = access.imodel(call, access.READ)
    return ok({"checkpoint": _of_version(call, imodel, _version(call, imodel))})


def restart(call: Call) -> Answer:
    """update-named-version-checkpoint: schedules it again, unless it has been generated."""
    imodel = access.imodel(call, access.WRITE)
    version = _version(call, imodel)
    schedule(call, imodel["id"], version["changeset_index"], version["changeset_id"])
    return ok({"checkpoint": _of_version(call, imodel, version)})


def database_name(changeset_id: str | None) -> str:
    """The file name of a checkpoint; that of the baseline is asserted by Bentley's access-backend tests."""
    return f"{changeset_id or 'BASELINE'}.bim"


def _make_file(job: Job, imodel_id: str, index: str) -> str:
    """Make the file as of the newest seeded changeset: those have no content that a client could pull."""
    seeded = job.sql.execute(
        "SELECT c.id, c.idx FROM changesets c JOIN blobs b ON b.id = c.blob_id "
        "WHERE c.imodel_id = ? AND c.idx <= ? AND b.recipe IS NOT NULL ORDER BY c.idx DESC LIMIT 1",
        (imodel_id, index),
    ).fetchone()
    itwin_id = job.sql.execute("SELECT itwin_id FROM imodels WHERE id = ?", (imodel_id,)).fetchone()[0]
    changeset = tuple(seeded) if seeded else ("", 0)
    return files.imodel(job.sql, str(uuid.uuid4()), imodel_id, itwin_id, stamp(job.due), changeset=changeset)


def _is_broken(job: Job, imodel_id: str, index: str) -> bool:
    statement = "SELECT blob_id FROM changesets WHERE imodel_id = ? AND idx = ?"
    row = job.sql.execute(statement, (imodel_id, index)).fetchone()
    content = files.find(job.sql, row["blob_id"]) if row is not None else None
    return content is not None and files.read(job.sql, content, 0, len(_BROKEN)) == _BROKEN


def _settle(job: Job, imodel_id: str, index: str, state: str, size: int, blob_id: str | None) -> None:
    job.sql.execute(
        "UPDATE checkpoints SET state = ?, size = ?, blob_id = ? WHERE imodel_id = ? AND changeset_index = ?",
        (state, size, blob_id, imodel_id, index),
    )


def _version(call: Call, imodel: sqlite3.Row) -> sqlite3.Row:
    version_id = call.slots["namedVersionId"].lower()
    row = call.one("SELECT * FROM named_versions WHERE id = ? AND imodel_id = ?", version_id, imodel["id"])
    if row is None:
        raise ApiError("NamedVersionNotFound")
    return row


def _of_version(call: Call, imodel: sqlite3.Row, version: sqlite3.Row) -> Json:
    absent = {
        "changeset_id": version["changeset_id"],
        "changeset_index": version["changeset_index"],
        "state": NOT_GENERATED,
        "size": 0,
        "db_name": database_name(version["changeset_id"]),
    }
    return _render(call, imodel, _find(call, imodel, version["changeset_index"]) or absent)


def _find(call: Call, imodel: sqlite3.Row, index: int) -> dict[str, Any] | None:
    statement = "SELECT * FROM checkpoints WHERE imodel_id = ? AND changeset_index = ?"
    row = call.one(statement, imodel["id"], index)
    if row is not None:
        return dict(row)
    return None if index else _baseline(call, imodel)


def _baseline(call: Call, imodel: sqlite3.Row) -> dict[str, Any]:
    """The checkpoint of the baseline, written down when it is first asked for: every iModel comes with it."""
    if imodel["state"] != "initialized":
        raise ApiError("CheckpointNotFound")
    baseline = call.one("SELECT file_size, blob_id FROM baseline_files WHERE imodel_id = ?", imodel["id"])
    assert baseline is not None  # every initialized iModel has one
    checkpoint = {
        "imodel_id": imodel["id"],
        "changeset_index": 0,
        "changeset_id": None,
        "state": SUCCESSFUL,
        "size": baseline["file_size"],
        "db_name": database_name(None),
        "blob_id": baseline["blob_id"],
    }
    names, slots = ", ".join(checkpoint), ", ".join("?" * len(checkpoint))
    call.sql.execute(f"INSERT OR REPLACE INTO checkpoints ({names}) VALUES ({slots})", tuple(checkpoint.values()))
    return checkpoint


def _render(call: Call, imodel: sqlite3.Row, checkpoint: dict[str, Any]) -> Json:
    link = files.link(call, checkpoint["blob_id"]) if checkpoint["state"] == SUCCESSFUL else None
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
            "storage": ACCOUNT,
            "storageType": "azure",
            "azure": {"sasToken": token},
        },
        "containerAccessInfo": link
        and {"account": ACCOUNT, "container": container, "sas": token, "dbName": checkpoint["db_name"]},
        "_links": {"download": link},
    }


JOBS: Final = {_JOB: generate}

_PATH: Final = "/imodels/{iModelId}"

ROUTES: Final = (
    Route("GET", f"{_PATH}/briefcases/checkpoint", get_latest, slug="get-briefcase-checkpoint", writes=True),
    Route(
        "GET",
        f"{_PATH}/changesets/{{changesetIdOrIndex}}/checkpoint",
        get_of_changeset,
        slug="get-changeset-checkpoint",
        writes=True,
    ),
    Route(
        "GET",
        f"{_PATH}/namedversions/{{namedVersionId}}/checkpoint",
        get_of_version,
        slug="get-named-version-checkpoint",
        writes=True,
    ),
    Route(
        "PUT", f"{_PATH}/namedversions/{{namedVersionId}}/checkpoint", restart, slug="update-named-version-checkpoint"
    ),
)
