"""Global repositories: content that belongs to no iTwin. The only one is Cesium's curated content."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from itwin_mcp.sandbox import paging
from itwin_mcp.sandbox.errors import ApiError, make_itwins_problems
from itwin_mcp.sandbox.wire import Answer, Call, Json, ok

CESIUM: Final = "cesium"
_CLASS: Final = "Cesium"
_ION: Final = "https://assets.ion.cesium.com/us-east-1"


@dataclass(frozen=True, slots=True)
class Asset:
    """One asset of Cesium's curated content."""

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


def list_global_repositories(call: Call) -> Answer:
    problems = make_itwins_problems("Cannot query iTwin Repositories.")
    class_name, sub_class = call.query.get("class"), call.query.get("subClass")
    if class_name is not None and class_name.lower() != _CLASS.lower():
        problems.add("InvalidValue", "A valid Repository class was not specified in the query.", "class")
    if sub_class is not None:
        if class_name is None:
            problems.add("MissingRequiredParameter", "The subClass parameter requires the class parameter.", "class")
        else:
            problems.add("InvalidValue", f"The subClass is not valid for a Repository of class {_CLASS}.", "subClass")
    problems.raise_if_any()
    return ok({"repositories": [_render_repository(call)]})


def get_global_repository(call: Call) -> Answer:
    _check_repository(call)
    return ok({"repository": _render_repository(call)})


def list_global_resources(call: Call) -> Answer:
    _check_repository(call)
    return list_assets(call, _CLASS, f"/itwins/repositories/{CESIUM}/resources")


def get_global_resource(call: Call) -> Answer:
    _check_repository(call)
    asset = find_asset(call.slots["resourceId"])
    return ok({"resource": render_asset(call, asset, _CLASS, f"/itwins/repositories/{CESIUM}/resources")})


def get_global_graphics(call: Call) -> Answer:
    _check_repository(call)
    return ok({"graphics": [render_graphics(find_asset(call.slots["resourceId"]))]})


def list_assets(call: Call, name: str, path: str) -> Answer:
    """List a page of the assets as resources, with class `name` and addresses under `path`."""
    problems = make_itwins_problems("Cannot query iTwin Repository Resources.")
    page = paging.read_itwins_page(call, problems)
    problems.raise_if_any()
    search = (call.query.get("$search") or "").casefold()
    assets = [asset for asset in ASSETS if search in asset.name.casefold()]
    page_assets = assets[page.skip : page.skip + page.top]
    links = page.make_links(call, more=len(assets) > page.skip + page.top)
    return ok(
        {
            "resources": [render_asset(call, asset, name, path) for asset in page_assets],
            "_links": remove_prev_link(links),
        }
    )


def remove_prev_link(links: Json) -> Json:
    """Return the links without `prev`, which lists of resources do not have (definition, `links-paging-noprev`)."""
    return {name: link for name, link in links.items() if name != "prev"}


def find_asset(asset_id: str) -> Asset:
    """Return an asset by id.

    Raises:
        ApiError: `iTwinRepositoryResourceNotFound`.
    """
    asset = next((asset for asset in ASSETS if asset.id == asset_id), None)
    if asset is None:
        raise ApiError("iTwinRepositoryResourceNotFound")
    return asset


def render_asset(call: Call, asset: Asset, name: str, path: str) -> Json:
    """Render an asset as a resource. Its properties are shown only with `Prefer: return=representation`."""
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


def render_graphics(asset: Asset) -> Json:
    """Render the address of an asset at Cesium, with a made-up token that Cesium does not accept."""
    token = f"Bearer sandbox-token-for-cesium-asset-{asset.id}"
    return {
        "type": asset.type,
        "uri": f"{_ION}/{asset.path}",
        "authentication": {"type": "Header", "key": "Authorization", "value": token},
    }


def _check_repository(call: Call) -> None:
    if call.slots["repositoryId"].lower() != CESIUM:
        raise ApiError("iTwinRepositoryNotFound")


def _render_repository(call: Call) -> Json:
    return {
        "id": CESIUM,
        "class": _CLASS,
        "displayName": "Cesium",
        "uri": f"{call.base_url}/curated-content/cesium",
        "capabilities": {"resources": {"uri": f"{call.base_url}/itwins/repositories/{CESIUM}/resources"}},
    }
