"""Repositories of an iTwin, their resources and graphics, and global repositories."""

from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itwin_mcp.sandbox.seed import seeded_id

pytestmark = pytest.mark.anyio
Connect = Callable[[str | None], httpx2.AsyncClient]
ITWIN = seeded_id("itwin", "interchange")
URL = f"/itwins/{ITWIN}/repositories"
NOBODYS = "ffd3dc75-0b4a-4587-b428-4c73f5d6dbb4"
GIS = {
    "class": "GeographicInformationSystem",
    "subClass": "WebMapService",
    "uri": "https://maps.example/wms",
}
TILES = {
    "class": "GeographicInformationSystem",
    "subClass": "UrlTemplate",
    "uri": "https://tiles.example/{z}/{x}/{y}.png",
    "displayName": "Tiles",
    "authentication": {"type": "Header", "key": "X-Api-Key", "value": "secret"},
    "options": {"queryParameters": {"v": "1"}, "minimumLevel": 10, "maximumLevel": 20},
}


async def create_repository(http: httpx2.AsyncClient, body: dict[str, Any], itwin: str = ITWIN) -> dict[str, Any]:
    answer = await http.post(f"/itwins/{itwin}/repositories", json=body)
    assert answer.status_code == 201, answer.text
    repository: dict[str, Any] = answer.json()["repository"]
    return repository


async def create_itwin(http: httpx2.AsyncClient) -> str:
    answer = await http.post("/itwins", json={"class": "Thing", "subClass": "Asset", "displayName": "New"})
    itwin_id: str = answer.json()["iTwin"]["id"]
    return itwin_id


def read_details(answer: httpx2.Response) -> list[tuple[str, str | None]]:
    assert answer.status_code == 422, answer.text
    return [(detail["code"], detail.get("target")) for detail in answer.json()["error"]["details"]]


def read_error(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def test_create_repository_returns_the_given_values_and_an_id(http: httpx2.AsyncClient) -> None:
    created = await create_repository(http, TILES)
    assert {name: created[name] for name in TILES} == TILES
    assert (await http.get(f"{URL}/{created['id'].upper()}")).json()["repository"] == created
    assert created["capabilities"]["resources"]["uri"] == f"https://api.bentley.com{URL}/{created['id']}/resources"


async def test_repository_omits_absent_members(http: httpx2.AsyncClient) -> None:
    created = await create_repository(http, {"class": "Construction", "uri": "https://build.example"})
    assert created == {
        "id": created["id"],
        "class": "Construction",
        "displayName": "Construction",
        "uri": created["uri"],
    }


async def test_generated_repositories_appear_with_their_data(http: httpx2.AsyncClient) -> None:
    itwin = await create_itwin(http)
    url = f"/itwins/{itwin}/repositories"
    assert [repository["id"] for repository in (await http.get(url)).json()["repositories"]] == ["cesiumcuratedcontent"]
    assert read_error(await http.get(f"{url}/imodels")) == (404, "iTwinRepositoryNotFound")
    await http.post("/imodels", json={"iTwinId": itwin, "name": "First"})
    created = await create_repository(http, GIS, itwin)
    listed = (await http.get(url)).json()["repositories"]
    assert [repository["id"] for repository in listed] == ["imodels", "cesiumcuratedcontent", created["id"]]
    assert (await http.get(f"{url}/iModels")).json()["repository"] == listed[0]
    assert listed[0]["uri"] == f"https://api.bentley.com/imodels?iTwinId={itwin}"


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("class=Forms", ["forms"]),
        ("class=forms&", ["forms"]),
        ("class=Storage", []),
        (
            "class=GeographicInformationSystem&subClass=UrlTemplate",
            [seeded_id("repository", "basemap")],
        ),
        ("class=GeographicInformationSystem&subClass=ArcGIS", []),
    ],
)
async def test_repository_list_filters_by_class_and_subclass(
    http: httpx2.AsyncClient, query: str, ids: list[str]
) -> None:
    assert [repository["id"] for repository in (await http.get(f"{URL}?{query}")).json()["repositories"]] == ids


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("class=Nope", [("InvalidValue", "class")]),
        ("subClass=ArcGIS", [("MissingRequiredParameter", "class")]),
        ("class=Storage&subClass=UrlTemplate", [("InvalidValue", "subClass")]),
        ("class=Subsurface&subClass=Nope", [("InvalidValue", "subClass")]),
    ],
)
async def test_repository_list_rejects_unrelated_class_and_subclass(
    http: httpx2.AsyncClient, query: str, expected: list[tuple[str, str]]
) -> None:
    assert read_details(await http.get(f"{URL}?{query}")) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"uri": ""}, [("MissingRequiredProperty", "uri")]),
        ({"uri": "ftp://x"}, [("InvalidValue", "uri")]),
        ({"class": "iModels", "subClass": None}, [("InvalidValue", "class")]),
        ({"class": None}, [("MissingRequiredProperty", "class")]),
        ({"subClass": "EvoWorkspace"}, [("InvalidValue", "subClass")]),
        (
            {"authentication": {"type": "Basic", "username": "x"}},
            [("MissingRequiredProperty", "authentication.password")],
        ),
        ({"authentication": {"type": "Cookie"}}, [("InvalidValue", "authentication")]),
        ({"options": {"queryParameters": {"a": 1}}}, [("InvalidValue", "options")]),
        ({"options": {"minimumLevel": 9, "maximumLevel": 3}}, [("InvalidValue", "options")]),
    ],
)
async def test_create_repository_rejects_invalid_values(
    http: httpx2.AsyncClient, change: dict[str, object], expected: list[tuple[str, str]]
) -> None:
    assert read_details(await http.post(URL, json=GIS | change)) == expected


async def test_duplicate_repository_is_a_conflict(http: httpx2.AsyncClient) -> None:
    await create_repository(http, GIS)
    assert read_error(await http.post(URL, json=GIS | {"displayName": "Other"})) == (409, "iTwinRepositoryExists")
    other = await create_repository(http, GIS | {"uri": "https://other.example"})
    assert read_error(await http.patch(f"{URL}/{other['id']}", json={"uri": GIS["uri"]})) == (
        409,
        "iTwinRepositoryExists",
    )


LEVELS = {"minimumLevel": 1, "maximumLevel": 5}


@pytest.mark.parametrize("options", [{}, {"maximumLevel": 5}, LEVELS | {"colour": "red"}], ids=str)
async def test_create_repository_validates_options(http: httpx2.AsyncClient, options: dict[str, object]) -> None:
    assert read_details(await http.post(URL, json=TILES | {"options": options})) == [("InvalidValue", "options")]


async def test_create_repository_accepts_pkce_authentication(http: httpx2.AsyncClient) -> None:
    names = ("clientId", "scopes", "authorizationEndpoint", "tokenEndpoint", "redirectUri")
    authentication = {"type": "OAuth2AuthorizationCodePKCE", **dict.fromkeys(names, "x")}
    assert (await create_repository(http, GIS | {"authentication": authentication}))["authentication"] == authentication


async def test_update_repository_replaces_or_removes_options_as_a_whole(http: httpx2.AsyncClient) -> None:
    url = f"{URL}/{(await create_repository(http, TILES))['id']}"
    changed = (await http.patch(url, json={"options": LEVELS, "displayName": "New"})).json()["repository"]
    assert (changed["options"], changed["displayName"]) == (LEVELS, "New")
    assert changed["authentication"] == TILES["authentication"]
    removed = (await http.patch(url, json={"options": None, "authentication": None})).json()["repository"]
    assert not removed.keys() & {"options", "authentication"}
    assert (await http.get(url)).json()["repository"] == removed


async def test_update_repository_rejects_null_uri_or_name_and_new_subclass(http: httpx2.AsyncClient) -> None:
    url = f"{URL}/{(await create_repository(http, TILES))['id']}"
    assert read_details(await http.patch(url, json={"uri": None})) == [("MissingRequiredProperty", "uri")]
    assert read_details(await http.patch(url, json={"displayName": None})) == [
        ("MissingRequiredProperty", "displayName")
    ]
    assert read_details(await http.patch(url, json={"subClass": "ArcGIS"})) == [("InvalidChange", "subClass")]
    same = {"class": TILES["class"], "subClass": TILES["subClass"], "displayName": "Same class"}
    assert (await http.patch(url, json=same)).status_code == 200


async def test_generated_repository_cannot_be_changed(http: httpx2.AsyncClient) -> None:
    assert read_details(await http.patch(f"{URL}/imodels", json={})) == [("InvalidChange", "repositoryId")]
    assert read_details(await http.delete(f"{URL}/imodels")) == [("InvalidChange", "repositoryId")]


async def test_delete_repository_deletes_its_resources(http: httpx2.AsyncClient) -> None:
    url = f"{URL}/{(await create_repository(http, GIS))['id']}"
    await http.post(f"{url}/resources", json={"id": "a", "displayName": "A"})
    assert (await http.delete(url)).status_code == 204
    for path in (url, f"{url}/resources", f"{url}/resources/a"):
        assert read_error(await http.get(path)) == (404, "iTwinRepositoryNotFound")


async def test_missing_itwin_is_reported_before_missing_repository(http: httpx2.AsyncClient) -> None:
    url = f"/itwins/{NOBODYS}/repositories"
    assert read_error(await http.get(url)) == (404, "iTwinNotFound")
    assert read_error(await http.post(url, json=GIS)) == (404, "iTwinNotFound")
    for method in ("GET", "PATCH", "DELETE"):
        assert read_error(await http.request(method, f"{url}/{NOBODYS}")) == (404, "iTwinNotFound")
        assert read_error(await http.request(method, f"{URL}/{NOBODYS}")) == (404, "iTwinRepositoryNotFound")
    resources = f"{url}/{NOBODYS}/resources"
    assert read_error(await http.get(resources)) == (404, "iTwinNotFound")
    assert read_error(await http.get(f"{resources}/x")) == (404, "iTwinNotFound")
    assert read_error(await http.post(resources, json={})) == (404, "iTwinNotFound")
    assert read_error(await http.delete(f"{resources}/x")) == (404, "iTwinNotFound")
    assert read_error(await http.get(f"{resources}/x/graphics")) == (404, "iTwinNotFound")
    assert read_error(await http.post(f"{URL}/{NOBODYS}/resources", json={})) == (404, "iTwinRepositoryNotFound")
    assert read_error(await http.delete(f"{URL}/{NOBODYS}/resources/x")) == (404, "iTwinRepositoryResourceNotFound")


@pytest.mark.parametrize(
    "subpath", [f"{NOBODYS}/resources/x", "imodels/resources/x", "cesiumcuratedcontent/resources/0"]
)
async def test_graphics_of_missing_resources_are_an_empty_list(http: httpx2.AsyncClient, subpath: str) -> None:
    answer = await http.get(f"{URL}/{subpath}/graphics")
    assert (answer.status_code, answer.json()) == (200, {"graphics": []})


@pytest.mark.parametrize("subpath", ["", "/imodels/resources", "/imodels/resources/x/graphics"])
async def test_malformed_itwin_id_is_422_in_repository_lists(http: httpx2.AsyncClient, subpath: str) -> None:
    answer = await http.get(f"/itwins/nope/repositories{subpath}")
    assert (answer.status_code, read_details(answer)) == (422, [("InvalidValue", "iTwinId")])


async def test_repository_changes_require_itwins_modify(http_as: Connect) -> None:
    priya = http_as("priya")
    assert (await priya.get(URL)).status_code == 200
    assert read_error(await priya.post(URL, json=GIS)) == (403, "InsufficientPermissions")
    cadastre = f"{URL}/{seeded_id('repository', 'cadastre')}"
    assert read_error(await priya.patch(cadastre, json={})) == (403, "InsufficientPermissions")
    assert read_error(await priya.delete(cadastre)) == (403, "InsufficientPermissions")
    assert read_error(await priya.post(f"{cadastre}/resources", json={})) == (403, "InsufficientPermissions")
    assert read_error(await priya.delete(f"{cadastre}/resources/parcels")) == (403, "InsufficientPermissions")
    assert read_error(await http_as("luca").get(URL)) == (404, "iTwinNotFound")


async def test_create_and_delete_resource_with_a_slash_in_its_id(http: httpx2.AsyncClient) -> None:
    url = f"{URL}/{(await create_repository(http, GIS))['id']}/resources"
    body = {"id": "flood/zones", "type": "Layer", "displayName": "Flood Zones"}
    created = await http.post(url, json=body)
    resource = created.json()["resource"]
    assert (created.status_code, resource) == (
        201,
        body | {"class": GIS["class"], "subClass": "WebMapService", "capabilities": resource["capabilities"]},
    )
    again = await http.post(url, json={"id": "flood/zones", "displayName": "x"})
    assert read_error(again) == (409, "iTwinRepositoryResourceExists")
    read = (await http.get(f"{url}/flood%2Fzones")).json()["resource"]
    assert read == resource
    graphics = (await http.get(read["capabilities"]["graphics"]["uri"])).json()
    assert graphics == {"graphics": [{"type": "IMAGERY", "uri": GIS["uri"]}]}
    assert (await http.delete(f"{url}/flood%2Fzones")).status_code == 204
    assert read_error(await http.get(f"{url}/flood%2Fzones")) == (404, "iTwinRepositoryResourceNotFound")
    assert read_error(await http.delete(f"{url}/flood%2Fzones")) == (404, "iTwinRepositoryResourceNotFound")


async def test_create_resource_requires_id_and_display_name(http: httpx2.AsyncClient) -> None:
    url = f"{URL}/{seeded_id('repository', 'cadastre')}/resources"
    expected = [("MissingRequiredProperty", "id"), ("MissingRequiredProperty", "displayName")]
    assert read_details(await http.post(url, json={"id": "", "displayName": ""})) == expected
    assert read_details(await http.post(url, json={})) == expected


async def test_resource_list_has_a_next_link_only_before_its_end(http: httpx2.AsyncClient) -> None:
    url = f"{URL}/{(await create_repository(http, GIS))['id']}/resources"
    for name in "abcd":
        await http.post(url, json={"id": name, "displayName": f"Layer {name.upper()}"})
    page = (await http.get(f"{url}?$top=2&$skip=1")).json()
    assert [resource["id"] for resource in page["resources"]] == ["b", "c"]
    self_link = page["_links"]["self"]["href"]
    assert ("top=2" in self_link, "skip=1" in self_link) == (True, True)
    last = (await http.get(page["_links"]["next"]["href"])).json()
    assert ([resource["id"] for resource in last["resources"]], set(last["_links"])) == (["d"], {"self"})
    page = (await http.get(f"{url}?$search=LAYER c")).json()
    assert ([resource["id"] for resource in page["resources"]], set(page["_links"])) == (["c"], {"self"})
    assert read_details(await http.get(f"{url}?$top=0")) == [("InvalidValue", "$top")]


async def test_resource_properties_need_prefer_representation(http: httpx2.AsyncClient) -> None:
    for repository in ("imodels", "realitydata", "cesiumcuratedcontent"):
        url = f"{URL}/{repository}/resources"
        minimal = (await http.get(url)).json()["resources"][0]
        whole = (await http.get(url, headers={"Prefer": "return=representation"})).json()["resources"][0]
        assert minimal == {name: value for name, value in whole.items() if name != "properties"}
        assert whole["properties"]
    assert (await http.get(f"/imodels/{seeded_id('imodel', 'roads')}")).json()["iModel"] in [
        resource["properties"]
        for resource in (
            await http.get(f"{URL}/imodels/resources", headers={"Prefer": "return=representation"})
        ).json()["resources"]
    ]


async def test_resource_list_omits_imodels_that_the_caller_cannot_see(http_as: Connect) -> None:
    anna, priya = http_as("anna"), http_as("priya")
    foreign = seeded_id("imodel", "tunnel")
    assert read_error(await anna.get(f"{URL}/imodels/resources/{foreign}")) == (
        404,
        "iTwinRepositoryResourceNotFound",
    )
    elsewhere = seeded_id("imodel", "bridge")
    assert read_error(await anna.get(f"{URL}/imodels/resources/{elsewhere}")) == (
        404,
        "iTwinRepositoryResourceNotFound",
    )
    assert len((await priya.get(f"{URL}/imodels/resources")).json()["resources"]) == 2


async def test_imodel_graphics_are_tiles_behind_a_signed_link(http_as: Connect) -> None:
    http = http_as("anna")
    url = f"{URL}/imodels/resources/{seeded_id('imodel', 'roads')}/graphics"
    (graphics,) = (await http.get(url)).json()["graphics"]
    assert graphics["type"] == "3DTILES"
    tileset = await http_as(None).get(graphics["uri"])
    assert tileset.json()["asset"]["version"] == "1.1"
    assert (await http.get(url)).json()["graphics"][0]["uri"] == graphics["uri"]


async def test_map_graphics_include_its_authentication(http: httpx2.AsyncClient) -> None:
    url = f"{URL}/{(await create_repository(http, TILES))['id']}/resources"
    await http.post(url, json={"id": "base", "displayName": "Base"})
    assert (await http.get(f"{url}/base/graphics")).json() == {
        "graphics": [{"type": "IMAGERY", "uri": TILES["uri"], "authentication": TILES["authentication"]}]
    }


async def test_federated_repository_redirects_to_its_resources(http: httpx2.AsyncClient) -> None:
    for path in ("resources?$top=1", "resources/noise-contours", "resources/noise-contours/graphics"):
        answer = await http.get(f"{URL}/geospatialfeatures/{path}")
        assert (answer.status_code, answer.content) == (302, b"")
        assert (
            answer.headers["location"] == f"https://api.bentley.com/geospatial-features{URL}/geospatialfeatures/{path}"
        )
        followed = await http.get(answer.headers["location"])
        assert (followed.status_code, followed.text.count("noise-contours") > 0) == (200, True)


async def test_repository_class_without_resources_is_422(http: httpx2.AsyncClient) -> None:
    assert read_details(await http.get(f"{URL}/forms/resources")) == [("InvalidValue", "repositoryId")]
    assert read_details(await http.post(f"{URL}/imodels/resources", json={})) == [("InvalidChange", "repositoryId")]


async def test_only_global_repository_is_cesium(http: httpx2.AsyncClient) -> None:
    cesium = {
        "id": "cesium",
        "class": "Cesium",
        "displayName": "Cesium",
        "uri": "https://api.bentley.com/curated-content/cesium",
        "capabilities": {"resources": {"uri": "https://api.bentley.com/itwins/repositories/cesium/resources"}},
    }
    assert (await http.get("/itwins/repositories?class=Cesium")).json() == {"repositories": [cesium]}
    assert (await http.get("/itwins/repositories/cesium")).json() == {"repository": cesium}
    assert read_error(await http.get("/itwins/repositories/nope")) == (404, "iTwinRepositoryNotFound")
    assert read_details(await http.get("/itwins/repositories?class=Nope")) == [("InvalidValue", "class")]


async def test_cesium_assets_have_pages_search_details_and_graphics(http: httpx2.AsyncClient) -> None:
    url = "/itwins/repositories/cesium/resources"
    page = (await http.get(f"{url}?$top=2")).json()
    assert (len(page["resources"]), "next" in page["_links"]) == (2, True)
    assert [resource["id"] for resource in (await http.get(f"{url}?$search=sentinel")).json()["resources"]] == ["3954"]
    assert (await http.get(f"{url}/3954")).json()["resource"] == {
        "id": "3954",
        "class": "Cesium",
        "type": "IMAGERY",
        "displayName": "Sentinel-2",
        "capabilities": {"graphics": {"uri": f"https://api.bentley.com{url}/3954/graphics"}},
    }
    (graphics,) = (await http.get(f"{url}/3954/graphics")).json()["graphics"]
    assert (graphics["type"], graphics["authentication"]["type"]) == ("IMAGERY", "Header")
    assert read_error(await http.get(f"{url}/0/graphics")) == (404, "iTwinRepositoryResourceNotFound")


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=20)
    | st.sampled_from([*GIS.values(), "Header", "Csv"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*TILES, "type"]), inner, max_size=3),
    max_leaves=6,
)
_NAMES = st.sampled_from([*TILES, "id", "outputFormat", "queryScope", "select", "filter", "includeInactive"])


@settings(max_examples=120)
@given(
    method=st.sampled_from(["GET", "POST", "PATCH", "DELETE"]),
    repository=st.sampled_from(
        ["", "/imodels", "/forms", "/geospatialfeatures", f"/{seeded_id('repository', 'cadastre')}"]
    ),
    subpath=st.sampled_from(["", "/resources", "/resources/parcels", "/resources/parcels/graphics"]),
    query=st.dictionaries(st.sampled_from(["class", "subClass", "$top", "$skip", "$search"]), st.text(max_size=9)),
    body=st.dictionaries(_NAMES, _JSON, max_size=6),
    export=st.booleans(),
)
async def test_repositories_and_exports_never_answer_500(
    http: httpx2.AsyncClient,
    method: str,
    repository: str,
    subpath: str,
    query: dict[str, str],
    body: dict[str, object],
    export: bool,
) -> None:
    url = "/itwins/exports" if export else f"{URL}{repository}{subpath}"
    answer = await http.request(method, url, params=query, json=body)
    assert answer.status_code != 500
