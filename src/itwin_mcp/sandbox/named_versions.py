"""Named versions: milestones on the timeline of an iModel, one for each changeset and one for the baseline."""

from __future__ import annotations

import sqlite3
import uuid
from typing import Any, Final

from itwin_mcp.sandbox import access, changesets, checkpoints, odata, paging, people
from itwin_mcp.sandbox.errors import ApiError, Detail, imodels_problems
from itwin_mcp.sandbox.wire import Answer, Call, Json, Route, created, ok

STATES: Final = ("visible", "hidden")
_ORDER: Final = {"changesetIndex": "v.changeset_index", "createdDateTime": "v.created_at"}
SELECTED: Final = "v.*, a.name AS application_name"
SOURCE: Final = "named_versions v LEFT JOIN oauth_clients a ON a.id = v.client_id"


def render(call: Call, row: sqlite3.Row, *, whole: bool) -> Json:
    """A named version from a row of SELECTED."""
    version: Json = {
        "id": row["id"],
        "displayName": row["name"],
        "changesetId": row["changeset_id"],
        "changesetIndex": row["changeset_index"],
    }
    if whole:
        root = f"/imodels/{row['imodel_id']}"
        changeset = row["changeset_id"]
        version |= {
            "name": row["name"],
            "description": row["description"],
            "createdDateTime": row["created_at"],
            "state": row["state"],
            "application": changesets.application(row),
            "_links": {
                "creator": call.link(f"{root}/users/{row['creator_id']}"),
                "changeset": call.link(f"{root}/changesets/{changeset}") if changeset else None,
            },
        }
    return version


def find(call: Call, imodel: sqlite3.Row, version_id: str) -> sqlite3.Row:
    """One named version of the iModel."""
    row = call.one(
        f"SELECT {SELECTED} FROM {SOURCE} WHERE v.id = ? AND v.imodel_id = ?", version_id.lower(), imodel["id"]
    )
    if row is None:
        raise ApiError("NamedVersionNotFound")
    return row


def list_all(call: Call) -> Answer:
    """get-imodel-named-versions: the newest changeset first (iModelHub documentation of versions; unproven for v2)."""
    imodel = access.imodel(call, access.WEBVIEW)
    problems = imodels_problems("Cannot get Named Versions.")
    page = paging.imodels_page(call, problems)
    order = "v.changeset_index DESC"
    if text := call.query.get("$orderBy"):
        try:
            order = f"{odata.parse_order(text, _ORDER)}, v.seq"
        except odata.ODataError as error:
            problems.invalid("$orderBy", str(error))
    conditions, parameters = ["v.imodel_id = ?"], [imodel["id"]]
    if (state := call.query.get("state")) is not None:
        if state.lower() not in STATES:
            problems.invalid("state", f"Valid values are {', '.join(STATES)}.")
        conditions.append("v.state = ?")
        parameters.append(state.lower())
    if (name := call.query.get("name")) is not None:
        conditions.append("v.name = ?")
        parameters.append(name)
    if (search := call.query.get("$search")) is not None:
        conditions.append("(instr(fold(v.name), ?) > 0 OR instr(fold(v.description), ?) > 0)")
        parameters += [search.casefold()] * 2
    problems.refuse()
    statement = f"SELECT {SELECTED} FROM {SOURCE} WHERE {' AND '.join(conditions)} ORDER BY {order}"
    rows, links = page.select(call, statement, parameters)
    shown = [render(call, row, whole=call.wants_representation) for row in rows]
    return ok({"namedVersions": shown, "_links": links})


def get(call: Call) -> Answer:
    """get-imodel-named-version-details."""
    imodel = access.imodel(call, access.WEBVIEW)
    return ok({"namedVersion": render(call, find(call, imodel, call.slots["namedVersionId"]), whole=True)})


def create(call: Call) -> Answer:
    """create-imodel-named-version: on a changeset, or without one on the baseline; a checkpoint is generated for it."""
    imodel = access.imodel(call, access.WRITE)
    problems = imodels_problems("Cannot create Named Version.")
    fields = call.fields(problems)
    name = fields.text("name", required=True)
    description = fields.text("description")
    changeset_id = fields.text("changesetId")
    problems.refuse()
    if imodel["state"] != "initialized":
        raise ApiError("iModelNotInitialized")
    index = 0
    if changeset_id:
        changeset = call.one(
            "SELECT * FROM changesets WHERE imodel_id = ? AND id = ? AND state = 'fileUploaded'",
            imodel["id"],
            changeset_id.lower(),
        )
        if changeset is None:
            raise ApiError("ChangesetNotFound")
        index = changeset["idx"]
    _check_name(call, imodel["id"], str(name))
    if call.one("SELECT 1 FROM named_versions WHERE imodel_id = ? AND changeset_index = ?", imodel["id"], index):
        raise ApiError("NamedVersionOnChangesetExists")
    row: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "imodel_id": imodel["id"],
        "changeset_index": index,
        "changeset_id": changeset_id.lower() if changeset_id else None,
        "name": name,
        "description": description,
        "state": STATES[0],
        "created_at": call.stamp,
        "creator_id": call.caller.id,
        "client_id": call.caller.client_id,
    }
    call.sql.execute(
        f"INSERT INTO named_versions ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", tuple(row.values())
    )
    checkpoints.schedule(call, imodel["id"], index, row["changeset_id"])
    people.connect(call, imodel["id"])
    return created({"namedVersion": render(call, find(call, imodel, row["id"]), whole=True)})


def update(call: Call) -> Answer:
    """update-imodel-named-version: at least one of name, description and state; without state it becomes visible."""
    imodel = access.imodel(call, access.WRITE)
    version = find(call, imodel, call.slots["namedVersionId"])
    problems = imodels_problems("Cannot update Named Version.")
    fields = call.fields(problems)
    values: dict[str, str | None] = {
        "name": fields.text("name", required="name" in fields),
        "description": fields.text("description"),
        "state": fields.choice("state", STATES, required="state" in fields),
    }
    values = {name: value for name, value in values.items() if name in fields}
    if not values:
        problems.add("InvalidRequestBody", "At least one of 'name', 'description', 'state' must be provided.")
    problems.refuse()
    values.setdefault("state", STATES[0])
    if "name" in values:
        _check_name(call, imodel["id"], str(values["name"]), but=version["id"])
    changes = ", ".join(f"{column} = ?" for column in values)
    call.sql.execute(f"UPDATE named_versions SET {changes} WHERE id = ?", (*values.values(), version["id"]))
    return ok({"namedVersion": render(call, find(call, imodel, version["id"]), whole=True)})


def _check_name(call: Call, imodel_id: str, name: str, but: str = "") -> None:
    if call.one("SELECT 1 FROM named_versions WHERE imodel_id = ? AND name = ? AND id <> ?", imodel_id, name, but):
        finding = Detail("InvalidValue", f"The name '{name}' is used by another Named Version.", "name")
        raise ApiError("NamedVersionExists", details=(finding,))


_PATH: Final = "/imodels/{iModelId}/namedversions"

ROUTES: Final = (
    Route("GET", _PATH, list_all, slug="get-imodel-named-versions"),
    Route("POST", _PATH, create, slug="create-imodel-named-version"),
    Route("GET", f"{_PATH}/{{namedVersionId}}", get, slug="get-imodel-named-version-details"),
    Route("PATCH", f"{_PATH}/{{namedVersionId}}", update, slug="update-imodel-named-version"),
)
