"""Create iModels: empty, from a template, from a baseline file, as a clone or as a fork.

After half a job length an iModel is `initialized`, after a whole one its create operation is `successful`. Bentley's
clients expect a clone to be initialized before its operation succeeds (reference section 2). The operation fails if the
uploaded baseline file is rejected; `baseline_files.py` describes how to rehearse that.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from typing import Any, Final

from itwin_mcp.sandbox import access
from itwin_mcp.sandbox.errors import ApiError, make_imodels_problems
from itwin_mcp.sandbox.imodels import baseline_files, changesets, imodels, users
from itwin_mcp.sandbox.store import Job, insert_row
from itwin_mcp.sandbox.wire import Answer, Call, Fields, Json, accepted, created, ok

MODES: Final = ("empty", "fromiModelVersion", "fromBaseline")
MAX_CONTAINERS: Final = 7  # SchemaSync 1 + CodeStore 2 + ViewStore 4


def create_imodel(call: Call) -> Answer:
    """Create an iModel. Without `creationMode` it is initialized at once, which the platform has deprecated."""
    problems = make_imodels_problems("Cannot create iModel.")
    fields = call.read_fields(problems)
    values = imodels.read_properties(fields, name_required=True)
    itwin_id = fields.get_text("iTwinId", required=True)
    containers = fields.get_integer("containersEnabled", 0, MAX_CONTAINERS) or 0
    mode, file_size = _read_mode(fields)
    template = fields.get_object("template", required=mode == "fromiModelVersion")
    source_id = template.get_text("iModelId", required=True) if template else None
    source_changeset = template.get_text("changesetId") if template else None
    system = fields.get_object("geographicCoordinateSystem")
    if system is not None:
        system.get_text("horizontalCRSId", required=True)
    problems.raise_if_any()
    itwin = access.require_itwin(call, itwin_id or "", access.MANAGE)
    imodels.check_name_is_free(call, itwin["id"], values["name"])
    source, index = None, 0
    if source_id is not None:
        source = access.require_imodel_by_id(call, source_id, access.READ)
        imodels.check_initialized(source)
        index = _find_changeset_index(call, source, source_changeset, None)
        values.setdefault("extent_json", source["extent_json"])
    # Without a creation mode the coordinate system is ignored (create-imodel).
    values["coordinate_system_json"] = json.dumps(system.values) if system is not None and mode else None
    values["containers_enabled"] = containers
    imodel_id = _insert_imodel(call, itwin, values, "initialized" if mode is None else "notInitialized")
    if file_size is not None:
        _insert_operation(call, imodel_id, "baseline", None, 0, state="waitingForFile")
        upload = baseline_files.reserve_baseline(call, imodel_id, file_size)
        return created({"iModel": imodels.load_imodel(call, imodel_id, upload)})
    kind = "template" if source is not None else "empty"
    _insert_operation(call, imodel_id, kind, source, index, state="successful" if mode is None else "scheduled")
    if mode is None:
        baseline_files.make_baseline(call.sql, imodel_id, call.caller.id, None, call.timestamp)
    else:
        call.schedule("imodel-initialized", imodel_id, jobs=0.5)
        call.schedule("imodel-created", imodel_id)
    return created({"iModel": imodels.load_imodel(call, imodel_id)})


def clone_imodel(call: Call) -> Answer:
    """Copy the baseline and the changesets of an iModel. The extent is always the source's."""
    return _copy_imodel(call, "clone", "Cannot clone iModel.")


def fork_imodel(call: Call) -> Answer:
    """Clone an iModel and record the clone as its fork. Without `preserveHistory` the changesets are squashed."""
    return _copy_imodel(call, "fork", "Cannot fork iModel.")


def get_create_operation(call: Call) -> Answer:
    imodel = access.require_imodel(call, access.WEBVIEW)
    row = call.require_one("iModelNotFound", "SELECT * FROM create_operations WHERE imodel_id = ?", imodel["id"])
    source: Json = {"iModelId": row["source_imodel_id"], "changesetId": row["source_changeset_id"]}
    return ok(
        {
            "createOperation": {
                "state": row["state"],
                "clonedFrom": source if row["kind"] == "clone" else None,
                "forkedFrom": source | {"relationshipId": row["relationship_id"]} if row["kind"] == "fork" else None,
            }
        }
    )


def initialize_imodel(job: Job) -> None:
    """Make a scheduled iModel usable: copy its changesets, create its baseline and set its state."""
    row = _find_scheduled_operation(job)
    if row is None or not _can_succeed(job, row):
        return
    if row["source_index"] and row["preserve_history"] and row["kind"] in ("clone", "fork"):
        copied_columns = (
            "idx, id, description, parent_id, creator_id, pushed_at, state, containing_changes, file_size, "
            "briefcase_id, client_id, synchronization_json, blob_id"
        )
        job.sql.execute(
            f"INSERT INTO changesets (imodel_id, {copied_columns}) SELECT ?, {copied_columns} FROM changesets "
            "WHERE imodel_id = ? AND idx <= ? AND state = 'fileUploaded'",
            (row["imodel_id"], row["source_imodel_id"], row["source_index"]),
        )
        job.sql.execute(
            "INSERT OR IGNORE INTO imodel_users SELECT ?, creator_id, MAX(pushed_at) FROM changesets "
            "WHERE imodel_id = ? GROUP BY creator_id",
            (row["imodel_id"], row["imodel_id"]),
        )
    (creator_id,) = job.sql.execute("SELECT creator_id FROM imodels WHERE id = ?", (row["imodel_id"],)).fetchone()
    baseline_files.make_baseline(job.sql, row["imodel_id"], creator_id, row["source_imodel_id"], job.timestamp)
    job.sql.execute("UPDATE imodels SET state = 'initialized' WHERE id = ?", (row["imodel_id"],))


def finish_creation(job: Job) -> None:
    """End a create operation as successful or as failed."""
    row = _find_scheduled_operation(job)
    if row is None:
        return
    state = "successful"
    if not _can_succeed(job, row):
        missing_guids = row["kind"] == "fork" and _find_source(job, row) is not None
        state = "mainIModelIsMissingFederationGuids" if missing_guids else "failed"
    job.sql.execute("UPDATE create_operations SET state = ? WHERE imodel_id = ?", (state, row["imodel_id"]))


def _copy_imodel(call: Call, kind: str, message: str) -> Answer:
    source = access.require_imodel(call, access.READ)
    problems = make_imodels_problems(message)
    fields = call.read_fields(problems)
    itwin_id = fields.get_text("iTwinId", required=True)
    values = imodels.read_properties(fields)
    values.pop("extent_json", None)
    changeset_id = fields.get_text("changesetId")
    changeset_index = fields.get_integer("changesetIndex", 0, 2**31 - 1)
    containers = fields.get_integer("containersEnabled", 0, MAX_CONTAINERS) or 0
    preserve = fields.get_flag("preserveHistory", False) if kind == "fork" else True
    if changeset_id is not None and changeset_index is not None:
        problems.add(
            "MutuallyExclusivePropertiesProvided",
            "Properties 'changesetId' and 'changesetIndex' must not be used at the same time.",
            "changesetIndex",
        )
    problems.raise_if_any()
    itwin = access.require_itwin(call, itwin_id or "", access.MANAGE)
    imodels.check_initialized(source)
    index = _find_changeset_index(call, source, changeset_id, changeset_index)
    values = {"name": source["name"], "description": source["description"]} | values
    imodels.check_name_is_free(call, itwin["id"], values["name"])
    values |= {
        "extent_json": source["extent_json"],
        "coordinate_system_json": source["coordinate_system_json"],
        "has_federation_guids": source["has_federation_guids"],
        "containers_enabled": containers,
    }
    imodel_id = _insert_imodel(call, itwin, values, "notInitialized")
    _insert_operation(call, imodel_id, kind, source, index, state="scheduled", preserve=preserve)
    call.schedule("imodel-initialized", imodel_id, jobs=0.5)
    call.schedule("imodel-created", imodel_id)
    location = f"{call.base_url}/imodels/{imodel_id}"
    return accepted({"Location": location, "Create-iModel-Operation": f"{location}/operations/create"})


def _read_mode(fields: Fields) -> tuple[str | None, int | None]:
    """Return the creation mode, and the size in bytes of the baseline file that will be uploaded, or None.

    Without `creationMode`, a template or a baseline file implies the mode.
    """
    mode = fields.get_choice("creationMode", MODES)
    baseline = fields.get_object("baselineFile", required=mode == "fromBaseline")
    size = baseline.get_integer("size", 1, baseline_files.MAX_BYTES, required=True) if baseline else None
    if baseline is not None and fields.values.get("template") is not None:
        fields.problems.add(
            "MutuallyExclusivePropertiesProvided",
            "Properties 'template' and 'baselineFile' must not be used at the same time.",
            "template",
        )
    for name, implied_mode in (("template", "fromiModelVersion"), ("baselineFile", "fromBaseline")):
        if fields.values.get(name) is not None:
            mode = mode or implied_mode
            if mode != implied_mode:
                fields.problems.add_invalid(name, f"The property must not be provided when creation mode is '{mode}'.")
    return mode, size


def _find_changeset_index(call: Call, source: sqlite3.Row, changeset_id: str | None, index: int | None) -> int:
    """Return the index of the last changeset to copy.

    The id "" and the index 0 stand for the baseline alone; without both, all changesets are copied.

    Raises:
        ApiError: `ChangesetNotFound`.
    """
    if changeset_id == "" or index == 0:
        return 0
    if changeset_id is not None:
        return changesets.find_uploaded_index(call, source, changeset_id)
    statement = "SELECT MAX(idx) FROM changesets WHERE imodel_id = ? AND state = ? AND idx = COALESCE(?, idx)"
    (newest,) = call.sql.execute(statement, (source["id"], changesets.UPLOADED, index)).fetchone()
    if newest is None and index is not None:
        raise ApiError("ChangesetNotFound")
    return int(newest or 0)


def _insert_imodel(call: Call, itwin: sqlite3.Row, values: dict[str, Any], state: str) -> str:
    imodel_id = str(uuid.uuid4())
    row = values | {
        "id": imodel_id,
        "itwin_id": itwin["id"],
        "state": state,
        "created_at": call.timestamp,
        "creator_id": call.caller.id,
        "data_center_location": itwin["data_center_location"],
    }
    insert_row(call.sql, "imodels", row)
    users.record_access(call, imodel_id)
    return imodel_id


def _insert_operation(
    call: Call, imodel_id: str, kind: str, source: sqlite3.Row | None, index: int, *, state: str, preserve: bool = False
) -> None:
    source_id = source["id"] if source is not None else None
    changeset = call.fetch_one("SELECT id FROM changesets WHERE imodel_id = ? AND idx = ?", source_id, index)
    call.sql.execute(
        "INSERT INTO create_operations (imodel_id, kind, state, source_imodel_id, source_changeset_id, source_index, "
        "relationship_id, preserve_history) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            imodel_id,
            kind,
            state,
            source_id,
            changeset["id"] if changeset else "",
            index,
            str(uuid.uuid4()) if kind == "fork" else None,
            preserve,
        ),
    )


def _find_scheduled_operation(job: Job) -> sqlite3.Row | None:
    row: sqlite3.Row | None = job.sql.execute(
        "SELECT * FROM create_operations WHERE imodel_id = ? AND state = 'scheduled'", (job.subject,)
    ).fetchone()
    return row


def _find_source(job: Job, row: sqlite3.Row) -> sqlite3.Row | None:
    source: sqlite3.Row | None = job.sql.execute(
        "SELECT * FROM imodels WHERE id = ?", (row["source_imodel_id"],)
    ).fetchone()
    return source


def _can_succeed(job: Job, row: sqlite3.Row) -> bool:
    """Return whether a create operation has everything that it needs: a valid baseline file or a suitable source."""
    if row["kind"] == "baseline":
        return not baseline_files.has_failed(job)
    if row["source_imodel_id"] is None:
        return True
    source = _find_source(job, row)
    if source is None:
        # The source was deleted. The operation succeeds if the source had been copied before.
        statement = "SELECT 1 FROM imodels WHERE id = ? AND state = 'initialized'"
        return job.sql.execute(statement, (row["imodel_id"],)).fetchone() is not None
    return row["kind"] != "fork" or bool(source["has_federation_guids"])
