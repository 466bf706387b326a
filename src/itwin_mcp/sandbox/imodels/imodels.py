"""List, read, update and delete iModels. `creation.py` creates them."""

from __future__ import annotations

import json
import sqlite3
from typing import Any, Final

from itwin_mcp.sandbox import access, paging
from itwin_mcp.sandbox.errors import ApiError, Detail, make_imodels_problems
from itwin_mcp.sandbox.storage import blobs
from itwin_mcp.sandbox.wire import Answer, Call, Fields, Json, no_content, ok

STATES: Final = ("initialized", "notInitialized")
_ORDER_COLUMNS: Final = {"name": "m.name", "createdDateTime": "m.created_at"}
SELECTED_COLUMNS: Final = """m.*, (SELECT MAX(c.pushed_at) FROM changesets c
  WHERE c.imodel_id = m.id AND c.state = 'fileUploaded') AS last_push_at"""


def render_imodel(call: Call, row: sqlite3.Row, upload: Json | None = None) -> Json:
    """Render a row of SELECTED_COLUMNS in full. `upload` is the link for a baseline file that is still missing."""
    path = f"/imodels/{row['id']}"
    return {
        "id": row["id"],
        "displayName": row["name"],
        "dataCenterLocation": row["data_center_location"],
        "name": row["name"],
        "description": row["description"],
        "state": row["state"],
        "createdDateTime": row["created_at"],
        "lastChangesetPushDateTime": row["last_push_at"],
        "iTwinId": row["itwin_id"],
        "isSecured": bool(row["is_secured"]),
        "extent": None if row["extent_json"] is None else json.loads(row["extent_json"]),
        "containersEnabled": row["containers_enabled"],
        "_links": {
            "creator": call.make_link(f"{path}/users/{row['creator_id']}"),
            "changesets": call.make_link(f"{path}/changesets"),
            "namedVersions": call.make_link(f"{path}/namedversions"),
            "upload": upload,
            "complete": None if upload is None else call.make_link(f"{path}/baselinefile"),
        },
    }


def render_list(call: Call, rows: list[sqlite3.Row]) -> list[Json]:
    """Render rows of SELECTED_COLUMNS, in full if the caller wants representation and otherwise in short form."""
    if call.wants_representation:
        return [render_imodel(call, row) for row in rows]
    return [{"id": row["id"], "displayName": row["name"]} for row in rows]


def load_imodel(call: Call, imodel_id: str, upload: Json | None = None) -> Json:
    """Return an iModel in full, by id.

    Raises:
        ApiError: `iModelNotFound`.
    """
    statement = f"SELECT {SELECTED_COLUMNS} FROM imodels m WHERE m.id = ?"
    return render_imodel(call, call.require_one("iModelNotFound", statement, imodel_id), upload)


def list_imodels(call: Call) -> Answer:
    """List the iModels of one iTwin, without those whose own permissions exclude the caller."""
    problems = make_imodels_problems("Cannot get iModels.")
    page = paging.read_imodels_page(call, problems)
    order = paging.read_order(call, problems, _ORDER_COLUMNS, last="m.seq")
    conditions, parameters = ["m.itwin_id = ?"], []
    itwin_id = call.query.get("iTwinId")
    if itwin_id is None:
        problems.add("MissingRequiredParameter", "Required parameter is missing.", "iTwinId")
    state = call.query.get("state")
    if state is not None:
        if state.lower() not in [name.lower() for name in STATES]:
            problems.add_invalid("state", f"Valid values are {', '.join(STATES)}.")
        conditions.append("lower(m.state) = ?")
        parameters.append(state.lower())
    problems.raise_if_any()
    itwin = access.require_itwin(call, itwin_id or "", access.WEBVIEW)
    if (name := call.query.get("name")) is not None:
        conditions.append("m.name = ?")
        parameters.append(name)
    if (search := call.query.get("$search")) is not None:
        conditions.append("(instr(fold(m.name), ?) > 0 OR instr(fold(m.description), ?) > 0)")
        parameters += [search.casefold()] * 2
    if access.MANAGE not in access.get_itwin_permissions(call, itwin):
        conditions.append(access.VISIBLE_IMODEL)
        parameters += [call.caller.id] * 2
    statement = f"SELECT {SELECTED_COLUMNS} FROM imodels m WHERE {' AND '.join(conditions)} ORDER BY {order}"
    rows, links = page.fetch_rows(call, statement, (itwin["id"], *parameters))
    return ok({"iModels": render_list(call, rows), "_links": links})


def get_imodel(call: Call) -> Answer:
    return ok({"iModel": load_imodel(call, access.require_imodel(call, access.WEBVIEW)["id"])})


def update_imodel(call: Call) -> Answer:
    """Change at least one of name, description and extent."""
    row = access.require_imodel(call, access.MANAGE)
    problems = make_imodels_problems("Cannot update iModel.")
    fields = call.read_fields(problems)
    values = read_properties(fields)
    if not fields.has_any(("name", "description", "extent")):
        problems.add("InvalidRequestBody", "At least one of 'name', 'description', 'extent' must be provided.")
    problems.raise_if_any()
    if "name" in values:
        check_name_is_free(call, row["itwin_id"], values["name"], but=row["id"])
    changes = ", ".join(f"{column} = ?" for column in values)
    call.sql.execute(f"UPDATE imodels SET {changes} WHERE id = ?", (*values.values(), row["id"]))
    return ok({"iModel": load_imodel(call, row["id"])})


def delete_imodel(call: Call) -> Answer:
    """Delete an iModel. The permission `imodels_delete` exists only on the iTwin."""
    row = access.require_imodel(call, access.WEBVIEW)
    access.require_itwin(call, row["itwin_id"], access.DELETE)
    delete_files(call, row["id"])
    call.sql.execute("DELETE FROM imodels WHERE id = ?", (row["id"],))
    return no_content()


def delete_files(call: Call, imodel_id: str) -> None:
    """Delete the files of an iModel, except changeset files that a clone shares."""
    rows = call.sql.execute(
        "SELECT blob_id FROM baseline_files WHERE imodel_id = ? AND blob_id IS NOT NULL "
        "UNION SELECT blob_id FROM changesets c WHERE c.imodel_id = ? AND c.blob_id IS NOT NULL "
        "AND NOT EXISTS (SELECT 1 FROM changesets o WHERE o.blob_id = c.blob_id AND o.imodel_id <> c.imodel_id)",
        (imodel_id, imodel_id),
    )
    for (blob_id,) in rows.fetchall():
        blobs.delete_blob(call, blob_id)


def read_properties(fields: Fields, *, name_required: bool = False) -> dict[str, Any]:
    """Return those of name, description and extent that the body has, by column."""
    values = {
        "name": ("name", fields.get_text("name", required=name_required or "name" in fields)),
        "description": ("description", fields.get_text("description")),
        "extent": ("extent_json", _read_extent(fields)),
    }
    return {column: value for name, (column, value) in values.items() if name in fields}


def check_initialized(imodel: sqlite3.Row) -> None:
    """Check that an iModel can be used already.

    Raises:
        ApiError: `iModelNotInitialized`.
    """
    if imodel["state"] != "initialized":
        raise ApiError("iModelNotInitialized")


def check_name_is_free(call: Call, itwin_id: str, name: str, but: str = "") -> None:
    """Check that no other iModel of the iTwin has the name. `but` is the id of the iModel itself.

    Raises:
        ApiError: `iModelExists`.
    """
    if call.fetch_one("SELECT 1 FROM imodels WHERE itwin_id = ? AND name = ? AND id <> ?", itwin_id, name, but):
        detail = Detail("InvalidValue", f"The name '{name}' is used by another iModel of the iTwin.", "name")
        raise ApiError("iModelExists", details=(detail,))


def _read_extent(fields: Fields) -> str | None:
    extent = fields.get_object("extent")
    if extent is None:
        return None
    corners: Json = {}
    for corner in ("southWest", "northEast"):
        point = extent.get_object(corner, required=True)
        if point is None:
            continue
        for axis in ("latitude", "longitude"):
            if point.values.get(axis) is None:
                fields.problems.add_missing(f"extent.{corner}.{axis}")
        corners[corner] = {
            "latitude": point.get_number("latitude", -90, 90),
            "longitude": point.get_number("longitude", -180, 180),
        }
    return json.dumps(corners)
