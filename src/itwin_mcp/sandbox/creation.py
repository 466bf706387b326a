"""How iModels come into being: empty, from a template, a baseline file, as a clone or a fork, through states over time.

After half a job an iModel is `initialized`; after the whole one its create operation is `successful`. Bentley's clients
are built for a clone that is initialized before its operation succeeds (reference section 2). A baseline file that
turns out to be none leaves the operation `failed` (`baseline_files.py` says how to rehearse that).
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from typing import Any, Final

from itwin_mcp.sandbox import access, baseline_files, imodels, people
from itwin_mcp.sandbox.errors import ApiError, imodels_problems
from itwin_mcp.sandbox.store import Job, stamp
from itwin_mcp.sandbox.wire import Answer, Call, Fields, Json, Route, accepted, created, ok

MODES: Final = ("empty", "fromiModelVersion", "fromBaseline")
MOST_CONTAINERS: Final = 7  # SchemaSync 1 + CodeStore 2 + ViewStore 4


def create(call: Call) -> Answer:
    """create-imodel: without creationMode instantly initialized (deprecated), otherwise in its own time."""
    problems = imodels_problems("Cannot create iModel.")
    fields = call.fields(problems)
    values = imodels.properties(fields, name_required=True)
    itwin_id = fields.text("iTwinId", required=True)
    containers = fields.integer("containersEnabled", 0, MOST_CONTAINERS) or 0
    mode, file_size = _mode(fields)
    template = fields.object("template", required=mode == "fromiModelVersion")
    source_id = template.text("iModelId", required=True) if template else None
    source_changeset = template.text("changesetId") if template else None
    system = fields.object("geographicCoordinateSystem")
    if system is not None:
        system.text("horizontalCRSId", required=True)
    problems.refuse()
    owner = access.itwin_for(call, itwin_id or "", access.MANAGE)
    imodels.check_name(call, owner["id"], values["name"])
    source, index = None, 0
    if source_id is not None:
        source = access.imodel_for(call, source_id, access.READ)
        _check_initialized(source)
        index = _index_of(call, source, source_changeset, None)
        values.setdefault("extent_json", source["extent_json"])
    # Outside of the new creation modes a coordinate system is ignored (create-imodel).
    values["coordinate_system_json"] = json.dumps(system.values) if system is not None and mode else None
    values["containers_enabled"] = containers
    imodel_id = _insert(call, owner, values, "initialized" if mode is None else "notInitialized")
    if file_size is not None:
        _begin(call, imodel_id, "baseline", None, 0, state="waitingForFile")
        upload = baseline_files.expect(call, imodel_id, file_size)
        return created({"iModel": imodels.load(call, imodel_id, upload)})
    kind = "template" if source is not None else "empty"
    _begin(call, imodel_id, kind, source, index, state="successful" if mode is None else "scheduled")
    if mode is None:
        baseline_files.provide(call.sql, imodel_id, call.caller.id, None, call.stamp)
    else:
        call.schedule("imodel-initialized", imodel_id, jobs=0.5)
        call.schedule("imodel-created", imodel_id)
    return created({"iModel": imodels.load(call, imodel_id)})


def clone(call: Call) -> Answer:
    """clone-imodel: baseline and changesets are copied, extent is always the source's."""
    return _copy(call, "clone", "Cannot clone iModel.")


def fork(call: Call) -> Answer:
    """fork-imodel: a clone that remembers its main iModel; without preserveHistory its changesets are squashed."""
    return _copy(call, "fork", "Cannot fork iModel.")


def get_operation(call: Call) -> Answer:
    """get-create-imodel-operation-details."""
    imodel = access.imodel(call, access.WEBVIEW)
    row = call.one("SELECT * FROM create_operations WHERE imodel_id = ?", imodel["id"])
    if row is None:
        raise ApiError("iModelNotFound")
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


def initialize(job: Job) -> None:
    """Half of the work is done: the iModel can be used, with the changesets that it was to have."""
    row = _operation(job)
    if row is None or not _can_succeed(job, row):
        return
    if row["source_index"] and row["preserve_history"] and row["kind"] in ("clone", "fork"):
        copied = (
            "idx, id, description, parent_id, creator_id, pushed_at, state, containing_changes, file_size, "
            "briefcase_id, client_id, synchronization_json, blob_id"
        )
        job.sql.execute(
            f"INSERT INTO changesets (imodel_id, {copied}) SELECT ?, {copied} FROM changesets "
            "WHERE imodel_id = ? AND idx <= ? AND state = 'fileUploaded'",
            (row["imodel_id"], row["source_imodel_id"], row["source_index"]),
        )
        job.sql.execute(
            "INSERT OR IGNORE INTO imodel_users SELECT ?, creator_id, MAX(pushed_at) FROM changesets "
            "WHERE imodel_id = ? GROUP BY creator_id",
            (row["imodel_id"], row["imodel_id"]),
        )
    creator = job.sql.execute("SELECT creator_id FROM imodels WHERE id = ?", (row["imodel_id"],)).fetchone()
    source_id = row["source_imodel_id"]
    baseline_files.provide(job.sql, row["imodel_id"], creator["creator_id"], source_id, stamp(job.due))
    job.sql.execute("UPDATE imodels SET state = 'initialized' WHERE id = ?", (row["imodel_id"],))


def finish(job: Job) -> None:
    """All of the work is done, or it has failed in one of the documented ways."""
    row = _operation(job)
    if row is None:
        return
    state = "successful"
    if not _can_succeed(job, row):
        missing_guids = row["kind"] == "fork" and _source(job, row) is not None
        state = "mainIModelIsMissingFederationGuids" if missing_guids else "failed"
    job.sql.execute("UPDATE create_operations SET state = ? WHERE imodel_id = ?", (state, row["imodel_id"]))


def _copy(call: Call, kind: str, message: str) -> Answer:
    source = access.imodel(call, access.READ)
    problems = imodels_problems(message)
    fields = call.fields(problems)
    itwin_id = fields.text("iTwinId", required=True)
    values = imodels.properties(fields)
    values.pop("extent_json", None)
    changeset_id = fields.text("changesetId")
    wanted = fields.integer("changesetIndex", 0, 2**31 - 1)
    containers = fields.integer("containersEnabled", 0, MOST_CONTAINERS) or 0
    preserve = fields.flag("preserveHistory", False) if kind == "fork" else True
    if changeset_id is not None and wanted is not None:
        problems.add(
            "MutuallyExclusivePropertiesProvided",
            "Properties 'changesetId' and 'changesetIndex' must not be used at the same time.",
            "changesetIndex",
        )
    problems.refuse()
    owner = access.itwin_for(call, itwin_id or "", access.MANAGE)
    _check_initialized(source)
    index = _index_of(call, source, changeset_id, wanted)
    values = {"name": source["name"], "description": source["description"]} | values
    imodels.check_name(call, owner["id"], values["name"])
    values |= {
        "extent_json": source["extent_json"],
        "coordinate_system_json": source["coordinate_system_json"],
        "has_federation_guids": source["has_federation_guids"],
        "containers_enabled": containers,
    }
    imodel_id = _insert(call, owner, values, "notInitialized")
    _begin(call, imodel_id, kind, source, index, state="scheduled", preserve=preserve)
    call.schedule("imodel-initialized", imodel_id, jobs=0.5)
    call.schedule("imodel-created", imodel_id)
    location = f"{call.base_url}/imodels/{imodel_id}"
    return accepted({"Location": location, "Create-iModel-Operation": f"{location}/operations/create"})


def _mode(fields: Fields) -> tuple[str | None, int | None]:
    """The creation mode, which a template or a baseline file implies, and the size of that file if it is used."""
    mode = fields.choice("creationMode", MODES)
    baseline = fields.object("baselineFile", required=mode == "fromBaseline")
    size = baseline.integer("size", 1, baseline_files.MOST_BYTES, required=True) if baseline else None
    if baseline is not None and fields.values.get("template") is not None:
        fields.problems.add(
            "MutuallyExclusivePropertiesProvided",
            "Properties 'template' and 'baselineFile' must not be used at the same time.",
            "template",
        )
    if mode is None and fields.values.get("template") is not None:
        mode = "fromiModelVersion"
    if mode is None and baseline is not None:
        mode = "fromBaseline"
    for name, wanted in (("template", "fromiModelVersion"), ("baselineFile", "fromBaseline")):
        if fields.values.get(name) is not None and mode != wanted:
            fields.problems.invalid(name, f"The property must not be provided when creation mode is '{mode}'.")
    return mode, size


def _check_initialized(source: sqlite3.Row) -> None:
    if source["state"] != "initialized":
        raise ApiError("iModelNotInitialized")


def _index_of(call: Call, source: sqlite3.Row, changeset_id: str | None, index: int | None) -> int:
    """Up to where to copy: "" and 0 mean the baseline only, nothing means everything."""
    if changeset_id == "" or index == 0:
        return 0
    mine = "SELECT MAX(idx) FROM changesets WHERE imodel_id = ? AND state = 'fileUploaded'"
    if changeset_id is None and index is None:
        found = call.one(mine, source["id"])
        return found[0] or 0 if found else 0
    if changeset_id is not None:
        found = call.one(f"{mine} AND id = ?", source["id"], changeset_id.lower())
    else:
        found = call.one(f"{mine} AND idx = ?", source["id"], index)
    if found is None or found[0] is None:
        raise ApiError("ChangesetNotFound")
    return int(found[0])


def _insert(call: Call, owner: sqlite3.Row, values: dict[str, Any], state: str) -> str:
    imodel_id = str(uuid.uuid4())
    row = values | {
        "id": imodel_id,
        "itwin_id": owner["id"],
        "state": state,
        "created_at": call.stamp,
        "creator_id": call.caller.id,
        "data_center_location": owner["data_center_location"],
    }
    names, slots = ", ".join(row), ", ".join("?" * len(row))
    call.sql.execute(f"INSERT INTO imodels ({names}) VALUES ({slots})", tuple(row.values()))
    people.connect(call, imodel_id)
    return imodel_id


def _begin(
    call: Call, imodel_id: str, kind: str, source: sqlite3.Row | None, index: int, *, state: str, preserve: bool = False
) -> None:
    source_id = source["id"] if source is not None else None
    changeset = call.one("SELECT id FROM changesets WHERE imodel_id = ? AND idx = ?", source_id, index)
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


def _operation(job: Job) -> sqlite3.Row | None:
    row: sqlite3.Row | None = job.sql.execute(
        "SELECT * FROM create_operations WHERE imodel_id = ? AND state = 'scheduled'", (job.subject,)
    ).fetchone()
    return row


def _source(job: Job, row: sqlite3.Row) -> sqlite3.Row | None:
    found: sqlite3.Row | None = job.sql.execute(
        "SELECT * FROM imodels WHERE id = ?", (row["source_imodel_id"],)
    ).fetchone()
    return found


def _can_succeed(job: Job, row: sqlite3.Row) -> bool:
    if row["kind"] == "baseline":
        return not baseline_files.failed(job)
    if row["source_imodel_id"] is None:
        return True
    statement = "SELECT 1 FROM imodels WHERE id = ? AND state = 'initialized'"
    done = job.sql.execute(statement, (row["imodel_id"],)).fetchone()
    source = _source(job, row)
    if source is None:
        return done is not None  # deleted before it was copied, or after
    return row["kind"] != "fork" or bool(source["has_federation_guids"])


JOBS: Final = {"imodel-initialized": initialize, "imodel-created": finish}

ROUTES: Final = (
    Route("POST", "/imodels", create, slug="create-imodel"),
    Route("POST", "/imodels/{iModelId}/clone", clone, slug="clone-imodel"),
    Route("POST", "/imodels/{iModelId}/fork", fork, slug="fork-imodel"),
    Route("GET", "/imodels/{iModelId}/operations/create", get_operation, slug="get-create-imodel-operation-details"),
)
