"""What is in the repositories of an iTwin: iModels, reality data, map layers; and where their graphics are.

The repository of one class is federated: its operations answer 302, and the place that they point to answers the same
way as the others do.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

from itwin_mcp.sandbox import access, files, global_repositories, imodels, paging, repositories
from itwin_mcp.sandbox.errors import ApiError, itwins_problems
from itwin_mcp.sandbox.wire import Answer, Call, Fields, Json, Route, created, no_content, ok

FEDERATED: Final = "GeospatialFeatures"
FEDERATION: Final = "/geospatial-features"
_GRAPHICS_OF_GIS: Final = {
    "WebMapService": "IMAGERY",
    "WebMapTileService": "IMAGERY",
    "WebFeatureService": "GEOJSON",
    "ArcGIS": "IMAGERY",
    "UrlTemplate": "IMAGERY",
    "OgcApiFeatures": "OAPIF+GEOJSON",
}
_GIS: Final = "GeographicInformationSystem"


def list_all(call: Call) -> Answer:
    """get-repository-resources."""
    itwin = access.itwin(call, repositories.itwin_id(call))
    repository_id, name, _ = _repository(call, itwin)
    if _is_elsewhere(call, name):
        return _redirect(call)
    path = f"/itwins/{itwin['id']}/repositories/{repository_id}/resources"
    if name == "CesiumCuratedContent":
        return global_repositories.list_assets(call, name, path)
    problems = itwins_problems("Cannot query iTwin Repository Resources.")
    page = paging.itwins_page(call, problems)
    problems.refuse()
    search = (call.query.get("$search") or "").casefold()
    render: Callable[[Call, sqlite3.Row, str], Json]
    parameters: list[object]
    if name == "iModels":
        render, parameters = _render_imodel, [itwin["id"], search]
        conditions = "m.itwin_id = ? AND instr(fold(m.name), ?) > 0"
        granted = access.itwin_permissions(call, itwin)
        if access.WEBVIEW not in granted:
            conditions += " AND 0"
        elif access.MANAGE not in granted:
            conditions += f" AND {access.VISIBLE_IMODEL}"
            parameters += [call.caller.id] * 2
        statement = f"SELECT {imodels.SELECTED} FROM imodels m WHERE {conditions} ORDER BY m.seq"
    else:
        render, parameters = _render, [itwin["id"], repository_id, search]
        statement = (
            "SELECT * FROM repository_resources WHERE itwin_id = ? AND repository_id = ? "
            "AND instr(fold(display_name), ?) > 0 ORDER BY seq"
        )
    rows, links = page.select(call, statement, parameters)
    shown = [render(call, row, path) for row in rows]
    return ok({"resources": shown, "_links": global_repositories.forward_links(links)})


def get(call: Call) -> Answer:
    """get-repository-resource."""
    itwin = access.itwin(call, call.slots["iTwinId"])
    repository_id, name, _ = _repository(call, itwin)
    if _is_elsewhere(call, name):
        return _redirect(call)
    path = f"/itwins/{itwin['id']}/repositories/{repository_id}/resources"
    if name == "CesiumCuratedContent":
        asset = global_repositories.find(call.slots["resourceId"])
        return ok({"resource": global_repositories.render_asset(call, asset, name, path)})
    if name == "iModels":
        return ok({"resource": _render_imodel(call, _imodel(call, itwin["id"]), path)})
    return ok({"resource": _render(call, _stored(call, itwin["id"], repository_id), path)})


def create(call: Call) -> Answer:
    """create-repository-resource: of a geographic information system; the others know their resources themselves."""
    itwin_id, repository = _changeable(call)
    problems = itwins_problems("Cannot add iTwin Repository Resource.")
    fields = call.fields(problems)
    values = (_required(fields, "id"), fields.text("type", limit=100, blank=False), _required(fields, "displayName"))
    problems.refuse()
    if _find(call, itwin_id, repository["id"], values[0]) is not None:
        raise ApiError("iTwinRepositoryResourceExists")
    call.sql.execute(
        "INSERT INTO repository_resources (itwin_id, repository_id, class, sub_class, id, type, display_name) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (itwin_id, repository["id"], repository["class"], repository["sub_class"], *values),
    )
    path = f"/itwins/{itwin_id}/repositories/{repository['id']}/resources"
    return created({"resource": _render(call, _existing(call, itwin_id, repository["id"], values[0]), path)})


def delete(call: Call) -> Answer:
    """delete-repository-resource: in a repository that does not exist, it is the resource that is not found."""
    itwin_id, repository = _changeable(call, absent="iTwinRepositoryResourceNotFound")
    row = _stored(call, itwin_id, repository["id"])
    call.sql.execute("DELETE FROM repository_resources WHERE seq = ?", (row["seq"],))
    return no_content()


def get_graphics(call: Call) -> Answer:
    """get-resource-graphics: what does not exist in an existing iTwin has no graphics, and is never 404."""
    itwin = access.itwin(call, repositories.itwin_id(call))
    try:
        return _graphics(call, itwin)
    except ApiError as error:
        if error.status != 404:
            raise
        return ok({"graphics": []})


def _graphics(call: Call, itwin: sqlite3.Row) -> Answer:
    repository_id, name, repository = _repository(call, itwin)
    if _is_elsewhere(call, name):
        return _redirect(call)
    if name == "CesiumCuratedContent":
        return ok({"graphics": [global_repositories.graphics_of(global_repositories.find(call.slots["resourceId"]))]})
    if name == "iModels":
        imodel = _imodel(call, itwin["id"])
        if imodel["state"] != "initialized":
            return ok({"graphics": []})  # tiles are made from what an iModel holds
        return ok({"graphics": [_tiles(call, imodel["id"], json.loads(imodel["extent_json"] or "null"))]})
    row = _stored(call, itwin["id"], repository_id)
    if repository is not None:
        body: Json = {"type": _GRAPHICS_OF_GIS.get(row["sub_class"], "IMAGERY"), "uri": repository["uri"]}
        if repository["authentication_json"] is not None:
            body["authentication"] = json.loads(repository["authentication_json"])
        return ok({"graphics": [body]})
    if name == FEDERATED:
        uri = f"{call.base_url}{FEDERATION}/itwins/{itwin['id']}/ogc/collections/{quote(row['id'], safe='')}/items"
        return ok({"graphics": [{"type": "OAPIF+GEOJSON", "uri": uri}]})
    return ok({"graphics": [_tiles(call, row["id"], None)]})


def _repository(call: Call, itwin: sqlite3.Row) -> tuple[str, str, sqlite3.Row | None]:
    """The repository in the path, if its class has resources at all."""
    found = repositories.find(call, itwin["id"])
    if found[1] not in repositories.WITH_RESOURCES:
        problems = itwins_problems("Cannot query iTwin Repository Resources.")
        problems.add("InvalidValue", f"A Repository of class {found[1]} has no resources.", "repositoryId")
        problems.refuse()
    return found


def _is_elsewhere(call: Call, name: str) -> bool:
    return name == FEDERATED and not call.path.lower().startswith(f"{FEDERATION}/")


def _redirect(call: Call) -> Answer:
    # The path is as the client sent it; quoting again what it must not hold keeps the header one line.
    path, query = quote(call.path, safe="/%:@!$&'()*+,;=~"), call.query.with_changes({})
    return Answer(302, None, {"Location": f"{call.base_url}{FEDERATION}{path}{'?' if query else ''}{query}"})


def _changeable(call: Call, *, absent: str = "iTwinRepositoryNotFound") -> tuple[str, sqlite3.Row]:
    """Return the registered map service in the path; `absent` is the code where the iTwin has no such repository."""
    itwin = access.itwin_for(call, call.slots["iTwinId"], access.ITWINS_MODIFY)
    try:
        _, name, row = repositories.find(call, itwin["id"])
    except ApiError as error:
        raise ApiError(absent) from error
    if row is None or name != _GIS:
        problems = itwins_problems("Cannot change iTwin Repository Resources.")
        problems.add("InvalidChange", f"Resources of a Repository of class {name} cannot be changed.", "repositoryId")
        problems.refuse()
    assert row is not None
    return itwin["id"], row


def _required(fields: Fields, name: str) -> str:
    if fields.values.get(name) == "":
        fields.problems.missing(name)  # an empty one counts as none, as for the uri of a repository
        return ""
    return fields.text(name, required=True, limit=200) or ""


def _find(call: Call, itwin_id: str, repository_id: str, resource_id: str) -> sqlite3.Row | None:
    statement = "SELECT * FROM repository_resources WHERE itwin_id = ? AND repository_id = ? AND id = ?"
    return call.one(statement, itwin_id, repository_id, resource_id)


def _stored(call: Call, itwin_id: str, repository_id: str) -> sqlite3.Row:
    return _existing(call, itwin_id, repository_id, call.slots["resourceId"])


def _existing(call: Call, itwin_id: str, repository_id: str, resource_id: str) -> sqlite3.Row:
    row = _find(call, itwin_id, repository_id, resource_id)
    if row is None:
        raise ApiError("iTwinRepositoryResourceNotFound")
    return row


def _imodel(call: Call, itwin_id: str) -> sqlite3.Row:
    """The iModel as a resource: what the caller may not see is not there."""
    try:
        imodel_id = access.imodel_for(call, call.slots["resourceId"], access.WEBVIEW)["id"]
    except ApiError as error:
        raise ApiError("iTwinRepositoryResourceNotFound") from error
    statement = f"SELECT {imodels.SELECTED} FROM imodels m WHERE m.id = ? AND m.itwin_id = ?"
    row = call.one(statement, imodel_id, itwin_id)
    if row is None:
        raise ApiError("iTwinRepositoryResourceNotFound")
    return row


def _render_imodel(call: Call, row: sqlite3.Row, path: str) -> Json:
    body: Json = {
        "id": row["id"],
        "class": "iModels",
        "displayName": row["name"],
        "capabilities": {"graphics": {"uri": f"{call.base_url}{path}/{row['id']}/graphics"}},
    }
    if call.wants_representation:
        body["properties"] = imodels.render(call, row)
    return body


def _render(call: Call, row: sqlite3.Row, path: str) -> Json:
    uri = f"{call.base_url}{path}/{quote(row['id'], safe='')}/graphics"
    body: Json = {
        "id": row["id"],
        "class": row["class"],
        "subClass": row["sub_class"],
        "type": row["type"],
        "displayName": row["display_name"],
        "capabilities": {"graphics": {"uri": uri}},
    }
    if call.wants_representation:
        body["properties"] = json.loads(row["properties_json"] or "{}")
    return {name: value for name, value in body.items() if value is not None}


def _tiles(call: Call, subject: str, extent: Json | None) -> Json:
    """3D tiles behind a signed link: an empty but valid tileset, made once."""
    row = call.one("SELECT blob_id FROM tilesets WHERE subject_id = ?", subject)
    if row is None:
        content = json.dumps(_tileset(extent)).encode()
        blob_id = files.put(call, content, "application/json")
        call.sql.execute("INSERT INTO tilesets VALUES (?, ?)", (subject, blob_id))
    else:
        blob_id = row["blob_id"]
    return {"type": "3DTILES", "uri": files.link(call, blob_id)["href"]}


def _tileset(extent: Json | None) -> Json:
    whole = {"southWest": {"latitude": -90, "longitude": -180}, "northEast": {"latitude": 90, "longitude": 180}}
    south_west, north_east = (extent or whole)["southWest"], (extent or whole)["northEast"]
    degrees = (south_west["longitude"], south_west["latitude"], north_east["longitude"], north_east["latitude"])
    region = [*(math.radians(value) for value in degrees), 0.0, 100.0]
    root = {"boundingVolume": {"region": region}, "geometricError": 0, "refine": "ADD"}
    return {"asset": {"version": "1.1"}, "geometricError": 100, "root": root}


_RESOURCES: Final = "/itwins/{iTwinId}/repositories/{repositoryId}/resources"
_ONE: Final = f"{_RESOURCES}/{{resourceId}}"

ROUTES: Final = (
    Route("GET", _RESOURCES, list_all, slug="get-repository-resources"),
    Route("POST", _RESOURCES, create, slug="create-repository-resource"),
    Route("GET", _ONE, get, slug="get-repository-resource"),
    Route("DELETE", _ONE, delete, slug="delete-repository-resource"),
    Route("GET", f"{_ONE}/graphics", get_graphics, slug="get-resource-graphics", writes=True),
    Route("GET", FEDERATION + _RESOURCES, list_all),
    Route("GET", FEDERATION + _ONE, get),
    Route("GET", f"{FEDERATION}{_ONE}/graphics", get_graphics, writes=True),
)
