"""Named versions: milestones on the timeline of an iModel, at most one per changeset and one on the baseline."""

from __future__ import annotations

import sqlite3
import uuid
from typing import Any, Final

from itwin_mcp.sandbox import access, paging
from itwin_mcp.sandbox.errors import ApiError, Detail, make_imodels_problems
from itwin_mcp.sandbox.imodels import changesets, checkpoints, imodels, users
from itwin_mcp.sandbox.store import insert_row
from itwin_mcp.sandbox.wire import Answer, Call, Json, created, ok

STATES: Final = ("visible", "hidden")
_ORDER_COLUMNS: Final = {"changesetIndex": "v.changeset_index", "createdDateTime": "v.created_at"}
SELECTED_COLUMNS: Final = "v.*, a.name AS application_name"
SOURCE: Final = "named_versions v LEFT JOIN oauth_clients a ON a.id = v.client_id"


def render_version(call: Call, row: sqlite3.Row, *, whole: bool) -> Json:
    """Render a row of SELECTED_COLUMNS."""
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
            "application": changesets.render_application(row),
            "_links": {
                "creator": call.make_link(f"{root}/users/{row['creator_id']}"),
                "changeset": call.make_link(f"{root}/changesets/{changeset}") if changeset else None,
            },
        }
    return version


def find_version(call: Call, imodel: sqlite3.Row, version_id: str) -> sqlite3.Row:
    """Return a named version of the iModel.

    Raises:
        ApiError: `NamedVersionNotFound`.
    """
    statement = f"SELECT {SELECTED_COLUMNS} FROM {SOURCE} WHERE v.id = ? AND v.imodel_id = ?"
    return call.require_one("NamedVersionNotFound", statement, version_id.lower(), imodel["id"])


def list_versions(call: Call) -> Answer:
    """List named versions, the newest changeset first. The default order follows iModelHub and is unproven for v2."""
    imodel = access.require_imodel(call, access.WEBVIEW)
    problems = make_imodels_problems("Cannot get Named Versions.")
    page = paging.read_imodels_page(call, problems)
    order = paging.read_order(call, problems, _ORDER_COLUMNS, last="v.seq", default="v.changeset_index DESC")
    conditions, parameters = ["v.imodel_id = ?"], [imodel["id"]]
    if (state := call.query.get("state")) is not None:
        if state.lower() not in STATES:
            problems.add_invalid("state", f"Valid values are {', '.join(STATES)}.")
        conditions.append("v.state = ?")
        parameters.append(state.lower())
    if (name := call.query.get("name")) is not None:
        conditions.append("v.name = ?")
        parameters.append(name)
    if (search := call.query.get("$search")) is not None:
        conditions.append("(instr(fold(v.name), ?) > 0 OR instr(fold(v.description), ?) > 0)")
        parameters += [search.casefold()] * 2
    problems.raise_if_any()
    statement = f"SELECT {SELECTED_COLUMNS} FROM {SOURCE} WHERE {' AND '.join(conditions)} ORDER BY {order}"
    rows, links = page.fetch_rows(call, statement, parameters)
    versions = [render_version(call, row, whole=call.wants_representation) for row in rows]
    return ok({"namedVersions": versions, "_links": links})


def get_version(call: Call) -> Answer:
    imodel = access.require_imodel(call, access.WEBVIEW)
    return ok(
        {"namedVersion": render_version(call, find_version(call, imodel, call.slots["namedVersionId"]), whole=True)}
    )


def create_version(call: Call) -> Answer:
    """Create a named version on a changeset or on the baseline, and schedule its checkpoint."""
    imodel = access.require_imodel(call, access.WRITE)
    problems = make_imodels_problems("Cannot create Named Version.")
    fields = call.read_fields(problems)
    name = fields.get_text("name", required=True)
    description = fields.get_text("description")
    changeset_id = fields.get_text("changesetId")
    problems.raise_if_any()
    imodels.check_initialized(imodel)
    index = changesets.find_uploaded_index(call, imodel, changeset_id) if changeset_id else 0
    _check_name_is_free(call, imodel["id"], str(name))
    if call.fetch_one("SELECT 1 FROM named_versions WHERE imodel_id = ? AND changeset_index = ?", imodel["id"], index):
        raise ApiError("NamedVersionOnChangesetExists")
    row: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "imodel_id": imodel["id"],
        "changeset_index": index,
        "changeset_id": changeset_id.lower() if changeset_id else None,
        "name": name,
        "description": description,
        "state": STATES[0],
        "created_at": call.timestamp,
        "creator_id": call.caller.id,
        "client_id": call.caller.client_id,
    }
    insert_row(call.sql, "named_versions", row)
    checkpoints.schedule_checkpoint(call, imodel["id"], index, row["changeset_id"])
    users.record_access(call, imodel["id"])
    return created({"namedVersion": render_version(call, find_version(call, imodel, row["id"]), whole=True)})


def update_version(call: Call) -> Answer:
    """Change at least one of name, description and state. Without a state it becomes visible."""
    imodel = access.require_imodel(call, access.WRITE)
    version = find_version(call, imodel, call.slots["namedVersionId"])
    problems = make_imodels_problems("Cannot update Named Version.")
    fields = call.read_fields(problems)
    values: dict[str, str | None] = {
        "name": fields.get_text("name", required="name" in fields),
        "description": fields.get_text("description"),
        "state": fields.get_choice("state", STATES, required="state" in fields),
    }
    values = {name: value for name, value in values.items() if name in fields}
    if not values:
        problems.add("InvalidRequestBody", "At least one of 'name', 'description', 'state' must be provided.")
    problems.raise_if_any()
    values.setdefault("state", STATES[0])
    if "name" in values:
        _check_name_is_free(call, imodel["id"], str(values["name"]), but=version["id"])
    changes = ", ".join(f"{column} = ?" for column in values)
    call.sql.execute(f"UPDATE named_versions SET {changes} WHERE id = ?", (*values.values(), version["id"]))
    return ok({"namedVersion": render_version(call, find_version(call, imodel, version["id"]), whole=True)})


def _check_name_is_free(call: Call, imodel_id: str, name: str, but: str = "") -> None:
    if call.fetch_one(
        "SELECT 1 FROM named_versions WHERE imodel_id = ? AND name = ? AND id <> ?", imodel_id, name, but
    ):
        detail = Detail("InvalidValue", f"The name '{name}' is used by another Named Version.", "name")
        raise ApiError("NamedVersionExists", details=(detail,))
