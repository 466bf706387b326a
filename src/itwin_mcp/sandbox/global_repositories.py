"""Global repositories: content that belongs to no iTwin; the only one is Cesium's curated content."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from itwin_mcp.sandbox import paging
from itwin_mcp.sandbox.errors import ApiError, itwins_problems
from itwin_mcp.sandbox.wire import Answer, Call, Json, Route, ok

CESIUM: Final = "cesium"
_CLASS: Final = "Cesium"
_ION: Final = "https://assets.ion.cesium.com/us-east-1"


@dataclass(frozen=True, slots=True)
class Asset:
    """One piece of Cesium's curated content."""

    id: str
    type: str
    name: str
    path: str
    description: str
    attribution: str


ASSETS: Final = (
    Asset("1", "TERRAIN", "Cesium World Terrain", "asset_depot/1/CesiumWorldTerrain/v1.2/",
          "Terrain of the whole world.", "Cesium"),
    Asset("2", "IMAGERY", "Bing Maps Aerial", "bing/aerial/", "Global aerial imagery.", "Microsoft"),
    Asset("3954", "IMAGERY", "Sentinel-2", "asset_depot/3954/Sentinel-2/2021/", "Cloudless mosaic.", "ESA"),
    Asset("96188", "3DTILES", "Cesium OSM Buildings", "asset_depot/96188/OpenStreetMap/tileset.json",
          "Buildings of the whole world.", "OpenStreetMap contributors"),
    Asset("2684829", "TERRAIN", "Cesium World Bathymetry", "asset_depot/2684829/CesiumWorldBathymetry/",
          "Sea floor and land.", "Cesium, GEBCO"),
)  # fmt: skip


def list_all(call: Call) -> Answer:
    """get-global-repositories."""
    problems = itwins_problems("Cannot query iTwin Repositories.")
    wanted, sub_class = call.query.get("class"), call.query.get("subClass")
    if wanted is not None and wanted.lower() != _CLASS.lower():
        problems.add("InvalidValue", "A valid Repository class was not specified in the query.", "class")
    if sub_class is not None:
        if wanted is None:
            problems.add("MissingRequiredParameter", "The subClass parameter requires the class parameter.", "class")
        else:
            problems.add("InvalidValue", f"The subClass is not valid for a Repository of class {_CLASS}.", "subClass")
    problems.refuse()
    return ok({"repositories": [_render(call)]})


def get(call: Call) -> Answer:
    """get-global-repository."""
    _check_repository(call)
    return ok({"repository": _render(call)})


def get_resources(call: Call) -> Answer:
    """get-global-repository-resources."""
    _check_repository(call)
    return list_assets(call, _CLASS, f"/itwins/repositories/{CESIUM}/resources")


def get_resource(call: Call) -> Answer:
    """get-global-repository-resource."""
    _check_repository(call)
    asset = find(call.slots["resourceId"])
    return ok({"resource": render_asset(call, asset, _CLASS, f"/itwins/repositories/{CESIUM}/resources")})


def get_graphics(call: Call) -> Answer:
    """get-global-resource-graphics."""
    _check_repository(call)
    return ok({"graphics": [graphics_of(find(call.slots["resourceId"]))]})


def list_assets(call: Call, name: str, path: str) -> Answer:
    """A page of the assets as resources of a repository of that class under that path."""
    problems = itwins_problems("Cannot query iTwin Repository Resources.")
    page = paging.itwins_page(call, problems)
    problems.refuse()
    search = (call.query.get("$search") or "").casefold()
    found = [asset for asset in ASSETS if search in asset.name.casefold()]
    shown = found[page.skip : page.skip + page.top]
    links = page.links(call, more=len(found) > page.skip + page.top)
    return ok({"resources": [render_asset(call, asset, name, path) for asset in shown], "_links": forward_links(links)})


def forward_links(links: Json) -> Json:
    """Return the links of a list of resources, which has no `prev` (`links-paging-noprev` of the definition)."""
    return {name: link for name, link in links.items() if name != "prev"}


def find(asset_id: str) -> Asset:
    """The asset of that id."""
    for asset in ASSETS:
        if asset.id == asset_id:
            return asset
    raise ApiError("iTwinRepositoryResourceNotFound")


def render_asset(call: Call, asset: Asset, name: str, path: str) -> Json:
    """One asset as a resource; its properties only when the representation is asked for."""
    body: Json = {
        "id": asset.id,
        "class": name,
        "type": asset.type,
        "displayName": asset.name,
        "capabilities": {"graphics": {"uri": f"{call.base_url}{path}/{asset.id}/graphics"}},
    }
    if call.wants_representation:
        body["properties"] = {
            "id": int(asset.id),
            "type": asset.type,
            "name": asset.name,
            "description": asset.description,
            "attribution": asset.attribution,
            "status": "COMPLETE",
        }
    return body


def graphics_of(asset: Asset) -> Json:
    """Where Cesium keeps the asset, and the token that opens it there; ours opens nothing."""
    token = f"Bearer sandbox-token-for-cesium-asset-{asset.id}"
    return {
        "type": asset.type,
        "uri": f"{_ION}/{asset.path}",
        "authentication": {"type": "Header", "key": "Authorization", "value": token},
    }


def _check_repository(call: Call) -> None:
    if call.slots["repositoryId"].lower() != CESIUM:
        raise ApiError("iTwinRepositoryNotFound")


def _render(call: Call) -> Json:
    return {
        "id": CESIUM,
        "class": _CLASS,
        "displayName": "Cesium",
        "uri": f"{call.base_url}/curated-content/cesium",
        "capabilities": {"resources": {"uri": f"{call.base_url}/itwins/repositories/{CESIUM}/resources"}},
    }


_ONE: Final = "/itwins/repositories/{repositoryId}"

ROUTES: Final = (
    Route("GET", "/itwins/repositories", list_all, slug="get-global-repositories"),
    Route("GET", _ONE, get, slug="get-global-repository"),
    Route("GET", f"{_ONE}/resources", get_resources, slug="get-global-repository-resources"),
    Route("GET", f"{_ONE}/resources/{{resourceId}}", get_resource, slug="get-global-repository-resource"),
    Route("GET", f"{_ONE}/resources/{{resourceId}}/graphics", get_graphics, slug="get-global-resource-graphics"),
)
