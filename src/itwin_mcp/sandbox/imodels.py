"""iModels themselves: list, read, change and delete; how they come into being is in `creation.py`."""

from __future__ import annotations

import json
import sqlite3
from typing import Any, Final

from itwin_mcp.sandbox import access, files, odata, paging
from itwin_mcp.sandbox.errors import ApiError, Detail, imodels_problems
from itwin_mcp.sandbox.wire import Answer, Call, Fields, Json, Route, no_content, ok

STATES: Final = ("initialized", "notInitialized")
_ORDER: Final = {"name": "m.name", "createdDateTime": "m.created_at"}
SELECTED: Final = """m.*, (SELECT MAX(c.pushed_at) FROM changesets c
  WHERE c.imodel_id = m.id AND c.state = 'fileUploaded') AS last_push_at"""


def render(call: Call, row: sqlite3.Row, upload: Json | None = None) -> Json:
    """The whole iModel from a row of SELECTED; `upload` is the link for a baseline that is awaited."""
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
            "creator": call.link(f"{path}/users/{row['creator_id']}"),
            "changesets": call.link(f"{path}/changesets"),
            "namedVersions": call.link(f"{path}/namedversions"),
            "upload": upload,
            "complete": None if upload is None else call.link(f"{path}/baselinefile"),
        },
    }


def minimal(row: sqlite3.Row) -> Json:
    """What a list shows by default."""
    return {"id": row["id"], "displayName": row["name"]}


def load(call: Call, imodel_id: str, upload: Json | None = None) -> Json:
    """The whole iModel by id."""
    row = call.one(f"SELECT {SELECTED} FROM imodels m WHERE m.id = ?", imodel_id)
    if row is None:
        raise ApiError("iModelNotFound")
    return render(call, row, upload)


def list_all(call: Call) -> Answer:
    """get-itwin-imodels: those of one iTwin, without the ones whose own permissions keep the caller out."""
    problems = imodels_problems("Cannot get iModels.")
    page = paging.imodels_page(call, problems)
    order = "m.seq"
    if text := call.query.get("$orderBy"):
        try:
            order = f"{odata.parse_order(text, _ORDER)}, m.seq"
        except odata.ODataError as error:
            problems.invalid("$orderBy", str(error))
    conditions, parameters = ["m.itwin_id = ?"], []
    itwin_id = call.query.get("iTwinId")
    if itwin_id is None:
        problems.add("MissingRequiredParameter", "Required parameter is missing.", "iTwinId")
    state = call.query.get("state")
    if state is not None:
        word = next((known for known in STATES if known.lower() == state.lower()), None)
        if word is None:
            problems.invalid("state", f"Valid values are {', '.join(STATES)}.")
        conditions.append("m.state = ?")
        parameters.append(word)
    problems.refuse()
    owner = access.itwin_for(call, itwin_id or "", access.WEBVIEW)
    if (name := call.query.get("name")) is not None:
        conditions.append("m.name = ?")
        parameters.append(name)
    if (search := call.query.get("$search")) is not None:
        conditions.append("(instr(fold(m.name), ?) > 0 OR instr(fold(m.description), ?) > 0)")
        parameters += [search.casefold()] * 2
    if access.MANAGE not in access.itwin_permissions(call, owner):
        conditions.append(access.VISIBLE_IMODEL)
        parameters += [call.caller.id] * 2
    statement = f"SELECT {SELECTED} FROM imodels m WHERE {' AND '.join(conditions)} ORDER BY {order}"
    rows, links = page.select(call, statement, (owner["id"], *parameters))
    shown = [render(call, row) if call.wants_representation else minimal(row) for row in rows]
    return ok({"iModels": shown, "_links": links})


def get(call: Call) -> Answer:
    """get-imodel-details."""
    return ok({"iModel": load(call, access.imodel(call, access.WEBVIEW)["id"])})


def update(call: Call) -> Answer:
    """update-imodel: name, description and extent, at least one of them."""
    row = access.imodel(call, access.MANAGE)
    problems = imodels_problems("Cannot update iModel.")
    fields = call.fields(problems)
    values = properties(fields)
    if not fields.any_of(("name", "description", "extent")):
        problems.add("InvalidRequestBody", "At least one of 'name', 'description', 'extent' must be provided.")
    problems.refuse()
    if "name" in values:
        check_name(call, row["itwin_id"], values["name"], but=row["id"])
    changes = ", ".join(f"{column} = ?" for column in values)
    call.sql.execute(f"UPDATE imodels SET {changes} WHERE id = ?", (*values.values(), row["id"]))
    return ok({"iModel": load(call, row["id"])})


def delete(call: Call) -> Answer:
    """delete-imodel: imodels_delete exists on the iTwin only."""
    row = access.imodel(call, access.WEBVIEW)
    access.itwin_for(call, row["itwin_id"], access.DELETE)
    forget_files(call, row["id"])
    call.sql.execute("DELETE FROM imodels WHERE id = ?", (row["id"],))
    return no_content()


def forget_files(call: Call, imodel_id: str) -> None:
    """Remove the files of an iModel that is about to go; a clone shares its changesets' files with its source."""
    found = call.sql.execute(
        "SELECT blob_id FROM baseline_files WHERE imodel_id = ? AND blob_id IS NOT NULL "
        "UNION SELECT blob_id FROM changesets c WHERE c.imodel_id = ? AND c.blob_id IS NOT NULL "
        "AND NOT EXISTS (SELECT 1 FROM changesets o WHERE o.blob_id = c.blob_id AND o.imodel_id <> c.imodel_id)",
        (imodel_id, imodel_id),
    )
    for (blob_id,) in found.fetchall():
        files.delete(call, blob_id)


def properties(fields: Fields, *, name_required: bool = False) -> dict[str, Any]:
    """Name, description and extent as the body gives them, by column."""
    values: dict[str, Any] = {}
    name = fields.text("name", required=name_required or "name" in fields)
    description = fields.text("description")
    if "name" in fields:
        values["name"] = name
    if "description" in fields:
        values["description"] = description
    if "extent" in fields:
        values["extent_json"] = _extent(fields)
    return values


def check_name(call: Call, itwin_id: str, name: str, but: str = "") -> None:
    """Refuse a name that another iModel of the iTwin has."""
    if call.one("SELECT 1 FROM imodels WHERE itwin_id = ? AND name = ? AND id <> ?", itwin_id, name, but):
        finding = Detail("InvalidValue", f"The name '{name}' is used by another iModel of the iTwin.", "name")
        raise ApiError("iModelExists", details=(finding,))


def _extent(fields: Fields) -> str | None:
    extent = fields.object("extent")
    if extent is None:
        return None
    corners: Json = {}
    for corner in ("southWest", "northEast"):
        point = extent.object(corner, required=True)
        if point is None:
            continue
        for axis in ("latitude", "longitude"):
            if point.values.get(axis) is None:
                fields.problems.missing(f"extent.{corner}.{axis}")
        corners[corner] = {
            "latitude": point.number("latitude", -90, 90),
            "longitude": point.number("longitude", -180, 180),
        }
    return json.dumps(corners)


ROUTES: Final = (
    Route("GET", "/imodels", list_all, slug="get-itwin-imodels"),
    Route("GET", "/imodels/{iModelId}", get, slug="get-imodel-details"),
    Route("PATCH", "/imodels/{iModelId}", update, slug="update-imodel"),
    Route("DELETE", "/imodels/{iModelId}", delete, slug="delete-imodel"),
)
