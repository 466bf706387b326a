"""Resources of repositories: iModels, reality data and map layers, and links to their graphics.

One class of repository is federated: its operations answer 302, and the address in `Location` gives the actual answer.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

from itwin_mcp.sandbox import access, paging
from itwin_mcp.sandbox.errors import ApiError, make_itwins_problems
from itwin_mcp.sandbox.imodels import imodels
from itwin_mcp.sandbox.itwins import global_repositories, repositories
from itwin_mcp.sandbox.storage import blobs
from itwin_mcp.sandbox.store import insert_row
from itwin_mcp.sandbox.wire import Answer, Call, Fields, Json, created, no_content, ok

FEDERATED_CLASS: Final = "GeospatialFeatures"
FEDERATION_PATH: Final = "/geospatial-features"
_GIS_GRAPHICS: Final = {
    "WebMapService": "IMAGERY",
    "WebMapTileService": "IMAGERY",
    "WebFeatureService": "GEOJSON",
    "ArcGIS": "IMAGERY",
    "UrlTemplate": "IMAGERY",
    "OgcApiFeatures": "OAPIF+GEOJSON",
}
_GIS: Final = "GeographicInformationSystem"
_SELECT_RESOURCE: Final = "SELECT * FROM repository_resources WHERE itwin_id = ? AND repository_id = ? AND id = ?"


def list_resources(call: Call) -> Answer:
    itwin = access.find_itwin(call, repositories.read_itwin_id(call))
    repository_id, name, _ = _find_repository(call, itwin)
    if _is_federated(call, name):
        return _redirect(call)
    path = f"/itwins/{itwin['id']}/repositories/{repository_id}/resources"
    if name == "CesiumCuratedContent":
        return global_repositories.list_assets(call, name, path)
    problems = make_itwins_problems("Cannot query iTwin Repository Resources.")
    page = paging.read_itwins_page(call, problems)
    problems.raise_if_any()
    search = (call.query.get("$search") or "").casefold()
    render: Callable[[Call, sqlite3.Row, str], Json]
    parameters: list[object]
    if name == "iModels":
        render, parameters = _render_imodel, [itwin["id"], search]
        conditions = "m.itwin_id = ? AND instr(fold(m.name), ?) > 0"
        granted = access.get_itwin_permissions(call, itwin)
        if access.WEBVIEW not in granted:
            conditions += " AND 0"
        elif access.MANAGE not in granted:
            conditions += f" AND {access.VISIBLE_IMODEL}"
            parameters += [call.caller.id] * 2
        statement = f"SELECT {imodels.SELECTED_COLUMNS} FROM imodels m WHERE {conditions} ORDER BY m.seq"
    else:
        render, parameters = _render_resource, [itwin["id"], repository_id, search]
        statement = (
            "SELECT * FROM repository_resources WHERE itwin_id = ? AND repository_id = ? "
            "AND instr(fold(display_name), ?) > 0 ORDER BY seq"
        )
    rows, links = page.fetch_rows(call, statement, parameters)
    resources = [render(call, row, path) for row in rows]
    return ok({"resources": resources, "_links": global_repositories.remove_prev_link(links)})


def get_resource(call: Call) -> Answer:
    itwin = access.find_itwin(call, call.slots["iTwinId"])
    repository_id, name, _ = _find_repository(call, itwin)
    if _is_federated(call, name):
        return _redirect(call)
    path = f"/itwins/{itwin['id']}/repositories/{repository_id}/resources"
    if name == "CesiumCuratedContent":
        asset = global_repositories.find_asset(call.slots["resourceId"])
        return ok({"resource": global_repositories.render_asset(call, asset, name, path)})
    if name == "iModels":
        return ok({"resource": _render_imodel(call, _require_imodel(call, itwin["id"]), path)})
    row = _find_resource(call, itwin["id"], repository_id, call.slots["resourceId"])
    return ok({"resource": _render_resource(call, row, path)})


def create_resource(call: Call) -> Answer:
    """Add a resource to a geographic information system. The resources of other classes are generated."""
    itwin_id, repository = _require_changeable(call)
    problems = make_itwins_problems("Cannot add iTwin Repository Resource.")
    fields = call.read_fields(problems)
    resource_id = _read_required(fields, "id")
    row = {
        "itwin_id": itwin_id,
        "repository_id": repository["id"],
        "class": repository["class"],
        "sub_class": repository["sub_class"],
        "id": resource_id,
        "type": fields.get_text("type", limit=100, blank=False),
        "display_name": _read_required(fields, "displayName"),
    }
    problems.raise_if_any()
    if call.fetch_one(_SELECT_RESOURCE, itwin_id, repository["id"], resource_id):
        raise ApiError("iTwinRepositoryResourceExists")
    insert_row(call.sql, "repository_resources", row)
    path = f"/itwins/{itwin_id}/repositories/{repository['id']}/resources"
    resource = _find_resource(call, itwin_id, repository["id"], resource_id)
    return created({"resource": _render_resource(call, resource, path)})


def delete_resource(call: Call) -> Answer:
    """Remove a resource. If the repository does not exist either, the error names the resource."""
    itwin_id, repository = _require_changeable(call, absent="iTwinRepositoryResourceNotFound")
    row = _find_resource(call, itwin_id, repository["id"], call.slots["resourceId"])
    call.sql.execute("DELETE FROM repository_resources WHERE seq = ?", (row["seq"],))
    return no_content()


def get_graphics(call: Call) -> Answer:
    """Return the graphics of a resource. The list is empty if the resource or its repository does not exist."""
    itwin = access.find_itwin(call, repositories.read_itwin_id(call))
    try:
        return _answer_graphics(call, itwin)
    except ApiError as error:
        if error.status != 404:
            raise
        return ok({"graphics": []})


def _answer_graphics(call: Call, itwin: sqlite3.Row) -> Answer:
    repository_id, name, repository = _find_repository(call, itwin)
    if _is_federated(call, name):
        return _redirect(call)
    if name == "CesiumCuratedContent":
        asset = global_repositories.find_asset(call.slots["resourceId"])
        return ok({"graphics": [global_repositories.render_graphics(asset)]})
    if name == "iModels":
        imodel = _require_imodel(call, itwin["id"])
        if imodel["state"] != "initialized":
            return ok({"graphics": []})  # tiles need an initialized iModel
        return ok({"graphics": [_render_tiles(call, imodel["id"], json.loads(imodel["extent_json"] or "null"))]})
    row = _find_resource(call, itwin["id"], repository_id, call.slots["resourceId"])
    if repository is not None:
        body: Json = {"type": _GIS_GRAPHICS.get(row["sub_class"], "IMAGERY"), "uri": repository["uri"]}
        if repository["authentication_json"] is not None:
            body["authentication"] = json.loads(repository["authentication_json"])
        return ok({"graphics": [body]})
    if name == FEDERATED_CLASS:
        uri = f"{call.base_url}{FEDERATION_PATH}/itwins/{itwin['id']}/ogc/collections/{quote(row['id'], safe='')}/items"
        return ok({"graphics": [{"type": "OAPIF+GEOJSON", "uri": uri}]})
    return ok({"graphics": [_render_tiles(call, row["id"], None)]})


def _find_repository(call: Call, itwin: sqlite3.Row) -> tuple[str, str, sqlite3.Row | None]:
    """Return the id and class of the repository in the path, and its row if it is a registered one.

    Raises:
        ApiError: If it does not exist, or its class has no resources.
    """
    repository = repositories.find_repository(call, itwin["id"])
    if repository[1] not in repositories.CLASSES_WITH_RESOURCES:
        problems = make_itwins_problems("Cannot query iTwin Repository Resources.")
        problems.fail("InvalidValue", f"A Repository of class {repository[1]} has no resources.", "repositoryId")
    return repository


def _is_federated(call: Call, name: str) -> bool:
    return name == FEDERATED_CLASS and not call.path.lower().startswith(f"{FEDERATION_PATH}/")


def _redirect(call: Call) -> Answer:
    # The path is as the client sent it. Quote characters that a header must not contain, such as line breaks.
    path, query = quote(call.path, safe="/%:@!$&'()*+,;=~"), call.query.encode_with({})
    return Answer(302, None, {"Location": f"{call.base_url}{FEDERATION_PATH}{path}{'?' if query else ''}{query}"})


def _require_changeable(call: Call, *, absent: str = "iTwinRepositoryNotFound") -> tuple[str, sqlite3.Row]:
    """Return the iTwin's id and the registered map service in the path.

    `absent` is the error code if the iTwin has no such repository.
    """
    itwin = access.require_itwin(call, call.slots["iTwinId"], access.ITWINS_MODIFY)
    try:
        _, name, row = repositories.find_repository(call, itwin["id"])
    except ApiError as error:
        raise ApiError(absent) from error
    if row is None or name != _GIS:
        problems = make_itwins_problems("Cannot change iTwin Repository Resources.")
        problems.fail("InvalidChange", f"Resources of a Repository of class {name} cannot be changed.", "repositoryId")
    return itwin["id"], row


def _read_required(fields: Fields, name: str) -> str:
    if fields.values.get(name) == "":
        fields.problems.add_missing(name)  # an empty one counts as missing, as for the uri of a repository
        return ""
    return fields.get_text(name, required=True, limit=200) or ""


def _find_resource(call: Call, itwin_id: str, repository_id: str, resource_id: str) -> sqlite3.Row:
    return call.require_one("iTwinRepositoryResourceNotFound", _SELECT_RESOURCE, itwin_id, repository_id, resource_id)


def _require_imodel(call: Call, itwin_id: str) -> sqlite3.Row:
    """Return the iModel in the path.

    Raises:
        ApiError: `iTwinRepositoryResourceNotFound`, also for an iModel that the caller may not see.
    """
    try:
        imodel_id = access.require_imodel_by_id(call, call.slots["resourceId"], access.WEBVIEW)["id"]
    except ApiError as error:
        raise ApiError("iTwinRepositoryResourceNotFound") from error
    statement = f"SELECT {imodels.SELECTED_COLUMNS} FROM imodels m WHERE m.id = ? AND m.itwin_id = ?"
    return call.require_one("iTwinRepositoryResourceNotFound", statement, imodel_id, itwin_id)


def _render_imodel(call: Call, row: sqlite3.Row, path: str) -> Json:
    body: Json = {
        "id": row["id"],
        "class": "iModels",
        "displayName": row["name"],
        "capabilities": {"graphics": {"uri": f"{call.base_url}{path}/{row['id']}/graphics"}},
    }
    if call.wants_representation:
        body["properties"] = imodels.render_imodel(call, row)
    return body


def _render_resource(call: Call, row: sqlite3.Row, path: str) -> Json:
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


def _render_tiles(call: Call, subject: str, extent: Json | None) -> Json:
    """Render a signed link to 3D tiles: a valid, empty tileset that is created on first use."""
    row = call.fetch_one("SELECT blob_id FROM tilesets WHERE subject_id = ?", subject)
    if row is None:
        content = json.dumps(_make_tileset(extent)).encode()
        blob_id = blobs.store_blob(call, content, "application/json")
        call.sql.execute("INSERT INTO tilesets VALUES (?, ?)", (subject, blob_id))
    else:
        blob_id = row["blob_id"]
    return {"type": "3DTILES", "uri": blobs.make_link(call, blob_id)["href"]}


def _make_tileset(extent: Json | None) -> Json:
    """Return a 3D Tiles tileset without content. Without an extent, its region is the whole world."""
    world = {"southWest": {"latitude": -90, "longitude": -180}, "northEast": {"latitude": 90, "longitude": 180}}
    south_west, north_east = (extent or world)["southWest"], (extent or world)["northEast"]
    degrees = (south_west["longitude"], south_west["latitude"], north_east["longitude"], north_east["latitude"])
    region = [*(math.radians(value) for value in degrees), 0.0, 100.0]
    root = {"boundingVolume": {"region": region}, "geometricError": 0, "refine": "ADD"}
    return {"asset": {"version": "1.1"}, "geometricError": 100, "root": root}
