"""Repositories of an iTwin, their resources and graphics, and the global ones."""

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


async def register(http: httpx2.AsyncClient, body: dict[str, Any], itwin: str = ITWIN) -> dict[str, Any]:
    answer = await http.post(f"/itwins/{itwin}/repositories", json=body)
    assert answer.status_code == 201, answer.text
    repository: dict[str, Any] = answer.json()["repository"]
    return repository


async def new_itwin(http: httpx2.AsyncClient) -> str:
    answer = await http.post("/itwins", json={"class": "Thing", "subClass": "Asset", "displayName": "New"})
    itwin_id: str = answer.json()["iTwin"]["id"]
    return itwin_id


def details(answer: httpx2.Response) -> list[tuple[str, str | None]]:
    assert answer.status_code == 422, answer.text
    return [(one["code"], one.get("target")) for one in answer.json()["error"]["details"]]


def refusal(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def test_a_repository_is_what_was_registered_under_a_new_id(http: httpx2.AsyncClient) -> None:
    made = await register(http, TILES)
    assert {name: made[name] for name in TILES} == TILES
    assert (await http.get(f"{URL}/{made['id'].upper()}")).json()["repository"] == made
    assert made["capabilities"]["resources"]["uri"] == f"https://api.bentley.com{URL}/{made['id']}/resources"


async def test_what_a_repository_does_not_have_is_left_out(http: httpx2.AsyncClient) -> None:
    made = await register(http, {"class": "Construction", "uri": "https://build.example"})
    assert made == {"id": made["id"], "class": "Construction", "displayName": "Construction", "uri": made["uri"]}


async def test_a_new_itwin_has_cesium_content_and_gets_others_with_its_data(http: httpx2.AsyncClient) -> None:
    itwin = await new_itwin(http)
    url = f"/itwins/{itwin}/repositories"
    assert [one["id"] for one in (await http.get(url)).json()["repositories"]] == ["cesiumcuratedcontent"]
    assert refusal(await http.get(f"{url}/imodels")) == (404, "iTwinRepositoryNotFound")
    await http.post("/imodels", json={"iTwinId": itwin, "name": "First"})
    made = await register(http, GIS, itwin)
    listed = (await http.get(url)).json()["repositories"]
    assert [one["id"] for one in listed] == ["imodels", "cesiumcuratedcontent", made["id"]]
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
async def test_the_list_is_narrowed_by_class_and_subclass(http: httpx2.AsyncClient, query: str, ids: list[str]) -> None:
    assert [one["id"] for one in (await http.get(f"{URL}?{query}")).json()["repositories"]] == ids


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("class=Nope", [("InvalidValue", "class")]),
        ("subClass=ArcGIS", [("MissingRequiredParameter", "class")]),
        ("class=Storage&subClass=UrlTemplate", [("InvalidValue", "subClass")]),
        ("class=Subsurface&subClass=Nope", [("InvalidValue", "subClass")]),
    ],
)
async def test_a_class_and_a_subclass_must_belong_together(
    http: httpx2.AsyncClient, query: str, found: list[tuple[str, str]]
) -> None:
    assert details(await http.get(f"{URL}?{query}")) == found


@pytest.mark.parametrize(
    ("change", "found"),
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
async def test_a_repository_that_cannot_be_is_refused(
    http: httpx2.AsyncClient, change: dict[str, object], found: list[tuple[str, str]]
) -> None:
    assert details(await http.post(URL, json=GIS | change)) == found


async def test_the_same_repository_twice_is_a_conflict(http: httpx2.AsyncClient) -> None:
    await register(http, GIS)
    assert refusal(await http.post(URL, json=GIS | {"displayName": "Other"})) == (409, "iTwinRepositoryExists")
    other = await register(http, GIS | {"uri": "https://other.example"})
    assert refusal(await http.patch(f"{URL}/{other['id']}", json={"uri": GIS["uri"]})) == (409, "iTwinRepositoryExists")


LEVELS = {"minimumLevel": 1, "maximumLevel": 5}


@pytest.mark.parametrize("options", [{}, {"maximumLevel": 5}, LEVELS | {"colour": "red"}], ids=str)
async def test_options_have_one_of_the_two_documented_shapes(
    http: httpx2.AsyncClient, options: dict[str, object]
) -> None:
    assert details(await http.post(URL, json=TILES | {"options": options})) == [("InvalidValue", "options")]


async def test_a_repository_may_ask_for_a_sign_in_with_pkce(http: httpx2.AsyncClient) -> None:
    names = ("clientId", "scopes", "authorizationEndpoint", "tokenEndpoint", "redirectUri")
    authentication = {"type": "OAuth2AuthorizationCodePKCE", **dict.fromkeys(names, "x")}
    assert (await register(http, GIS | {"authentication": authentication}))["authentication"] == authentication


async def test_options_and_authentication_are_replaced_whole_and_removed_by_null(http: httpx2.AsyncClient) -> None:
    url = f"{URL}/{(await register(http, TILES))['id']}"
    changed = (await http.patch(url, json={"options": LEVELS, "displayName": "New"})).json()["repository"]
    assert (changed["options"], changed["displayName"]) == (LEVELS, "New")
    assert changed["authentication"] == TILES["authentication"]
    removed = (await http.patch(url, json={"options": None, "authentication": None})).json()["repository"]
    assert not removed.keys() & {"options", "authentication"}
    assert (await http.get(url)).json()["repository"] == removed


async def test_uri_and_name_cannot_be_removed_and_the_class_cannot_be_changed(http: httpx2.AsyncClient) -> None:
    url = f"{URL}/{(await register(http, TILES))['id']}"
    assert details(await http.patch(url, json={"uri": None})) == [("MissingRequiredProperty", "uri")]
    assert details(await http.patch(url, json={"displayName": None})) == [("MissingRequiredProperty", "displayName")]
    assert details(await http.patch(url, json={"subClass": "ArcGIS"})) == [("InvalidChange", "subClass")]
    same = {"class": TILES["class"], "subClass": TILES["subClass"], "displayName": "Same class"}
    assert (await http.patch(url, json=same)).status_code == 200


async def test_a_generated_repository_cannot_be_changed(http: httpx2.AsyncClient) -> None:
    assert details(await http.patch(f"{URL}/imodels", json={})) == [("InvalidChange", "repositoryId")]
    assert details(await http.delete(f"{URL}/imodels")) == [("InvalidChange", "repositoryId")]


async def test_a_deleted_repository_is_gone_with_its_resources(http: httpx2.AsyncClient) -> None:
    url = f"{URL}/{(await register(http, GIS))['id']}"
    await http.post(f"{url}/resources", json={"id": "a", "displayName": "A"})
    assert (await http.delete(url)).status_code == 204
    for path in (url, f"{url}/resources", f"{url}/resources/a"):
        assert refusal(await http.get(path)) == (404, "iTwinRepositoryNotFound")


async def test_a_missing_itwin_wins_over_a_missing_repository(http: httpx2.AsyncClient) -> None:
    url = f"/itwins/{NOBODYS}/repositories"
    assert refusal(await http.get(url)) == (404, "iTwinNotFound")
    assert refusal(await http.post(url, json=GIS)) == (404, "iTwinNotFound")
    for method in ("GET", "PATCH", "DELETE"):
        assert refusal(await http.request(method, f"{url}/{NOBODYS}")) == (404, "iTwinNotFound")
        assert refusal(await http.request(method, f"{URL}/{NOBODYS}")) == (404, "iTwinRepositoryNotFound")
    resources = f"{url}/{NOBODYS}/resources"
    assert refusal(await http.get(resources)) == (404, "iTwinNotFound")
    assert refusal(await http.get(f"{resources}/x")) == (404, "iTwinNotFound")
    assert refusal(await http.post(resources, json={})) == (404, "iTwinNotFound")
    assert refusal(await http.delete(f"{resources}/x")) == (404, "iTwinNotFound")
    assert refusal(await http.get(f"{resources}/x/graphics")) == (404, "iTwinNotFound")
    assert refusal(await http.post(f"{URL}/{NOBODYS}/resources", json={})) == (404, "iTwinRepositoryNotFound")
    assert refusal(await http.delete(f"{URL}/{NOBODYS}/resources/x")) == (404, "iTwinRepositoryResourceNotFound")


@pytest.mark.parametrize("rest", [f"{NOBODYS}/resources/x", "imodels/resources/x", "cesiumcuratedcontent/resources/0"])
async def test_graphics_of_what_does_not_exist_in_an_itwin_are_an_empty_list(
    http: httpx2.AsyncClient, rest: str
) -> None:
    answer = await http.get(f"{URL}/{rest}/graphics")
    assert (answer.status_code, answer.json()) == (200, {"graphics": []})


@pytest.mark.parametrize("rest", ["", "/imodels/resources", "/imodels/resources/x/graphics"])
async def test_lists_of_a_malformed_itwin_id_are_422(http: httpx2.AsyncClient, rest: str) -> None:
    answer = await http.get(f"/itwins/nope/repositories{rest}")
    assert (answer.status_code, details(answer)) == (422, [("InvalidValue", "iTwinId")])


async def test_a_member_without_the_permission_reads_and_changes_nothing(http_as: Connect) -> None:
    priya = http_as("priya")
    assert (await priya.get(URL)).status_code == 200
    assert refusal(await priya.post(URL, json=GIS)) == (403, "InsufficientPermissions")
    one = f"{URL}/{seeded_id('repository', 'cadastre')}"
    assert refusal(await priya.patch(one, json={})) == (403, "InsufficientPermissions")
    assert refusal(await priya.delete(one)) == (403, "InsufficientPermissions")
    assert refusal(await priya.post(f"{one}/resources", json={})) == (403, "InsufficientPermissions")
    assert refusal(await priya.delete(f"{one}/resources/parcels")) == (403, "InsufficientPermissions")
    assert refusal(await http_as("luca").get(URL)) == (404, "iTwinNotFound")


async def test_a_resource_is_added_read_and_removed(http: httpx2.AsyncClient) -> None:
    url = f"{URL}/{(await register(http, GIS))['id']}/resources"
    given = {"id": "flood/zones", "type": "Layer", "displayName": "Flood Zones"}
    made = await http.post(url, json=given)
    resource = made.json()["resource"]
    assert (made.status_code, resource) == (
        201,
        given | {"class": GIS["class"], "subClass": "WebMapService", "capabilities": resource["capabilities"]},
    )
    again = await http.post(url, json={"id": "flood/zones", "displayName": "x"})
    assert refusal(again) == (409, "iTwinRepositoryResourceExists")
    read = (await http.get(f"{url}/flood%2Fzones")).json()["resource"]
    assert read == resource
    graphics = (await http.get(read["capabilities"]["graphics"]["uri"])).json()
    assert graphics == {"graphics": [{"type": "IMAGERY", "uri": GIS["uri"]}]}
    assert (await http.delete(f"{url}/flood%2Fzones")).status_code == 204
    assert refusal(await http.get(f"{url}/flood%2Fzones")) == (404, "iTwinRepositoryResourceNotFound")
    assert refusal(await http.delete(f"{url}/flood%2Fzones")) == (404, "iTwinRepositoryResourceNotFound")


async def test_a_resource_needs_an_id_and_a_name(http: httpx2.AsyncClient) -> None:
    url = f"{URL}/{seeded_id('repository', 'cadastre')}/resources"
    found = [("MissingRequiredProperty", "id"), ("MissingRequiredProperty", "displayName")]
    assert details(await http.post(url, json={"id": "", "displayName": ""})) == found
    assert details(await http.post(url, json={})) == found


async def test_resources_are_paged_and_next_is_there_only_when_there_is_more(http: httpx2.AsyncClient) -> None:
    url = f"{URL}/{(await register(http, GIS))['id']}/resources"
    for name in "abcd":
        await http.post(url, json={"id": name, "displayName": f"Layer {name.upper()}"})
    page = (await http.get(f"{url}?$top=2&$skip=1")).json()
    assert [one["id"] for one in page["resources"]] == ["b", "c"]
    self_link = page["_links"]["self"]["href"]
    assert ("top=2" in self_link, "skip=1" in self_link) == (True, True)
    last = (await http.get(page["_links"]["next"]["href"])).json()
    assert ([one["id"] for one in last["resources"]], set(last["_links"])) == (["d"], {"self"})
    found = (await http.get(f"{url}?$search=LAYER c")).json()
    assert ([one["id"] for one in found["resources"]], set(found["_links"])) == (["c"], {"self"})
    assert details(await http.get(f"{url}?$top=0")) == [("InvalidValue", "$top")]


async def test_properties_are_there_only_in_the_representation(http: httpx2.AsyncClient) -> None:
    for repository in ("imodels", "realitydata", "cesiumcuratedcontent"):
        url = f"{URL}/{repository}/resources"
        minimal = (await http.get(url)).json()["resources"][0]
        whole = (await http.get(url, headers={"Prefer": "return=representation"})).json()["resources"][0]
        assert minimal == {name: value for name, value in whole.items() if name != "properties"}
        assert whole["properties"]
    assert (await http.get(f"/imodels/{seeded_id('imodel', 'roads')}")).json()["iModel"] in [
        one["properties"]
        for one in (await http.get(f"{URL}/imodels/resources", headers={"Prefer": "return=representation"})).json()[
            "resources"
        ]
    ]


async def test_imodels_that_a_member_may_not_see_are_no_resources_for_them(http_as: Connect) -> None:
    anna, priya = http_as("anna"), http_as("priya")
    foreign = seeded_id("imodel", "tunnel")
    assert refusal(await anna.get(f"{URL}/imodels/resources/{foreign}")) == (404, "iTwinRepositoryResourceNotFound")
    elsewhere = seeded_id("imodel", "bridge")
    assert refusal(await anna.get(f"{URL}/imodels/resources/{elsewhere}")) == (404, "iTwinRepositoryResourceNotFound")
    assert len((await priya.get(f"{URL}/imodels/resources")).json()["resources"]) == 2


async def test_the_graphics_of_an_imodel_are_tiles_behind_a_link_that_opens(http_as: Connect) -> None:
    http = http_as("anna")
    url = f"{URL}/imodels/resources/{seeded_id('imodel', 'roads')}/graphics"
    (graphics,) = (await http.get(url)).json()["graphics"]
    assert graphics["type"] == "3DTILES"
    tileset = await http_as(None).get(graphics["uri"])
    assert tileset.json()["asset"]["version"] == "1.1"
    assert (await http.get(url)).json()["graphics"][0]["uri"] == graphics["uri"]


async def test_the_graphics_of_a_map_tell_how_to_authenticate_there(http: httpx2.AsyncClient) -> None:
    url = f"{URL}/{(await register(http, TILES))['id']}/resources"
    await http.post(url, json={"id": "base", "displayName": "Base"})
    assert (await http.get(f"{url}/base/graphics")).json() == {
        "graphics": [{"type": "IMAGERY", "uri": TILES["uri"], "authentication": TILES["authentication"]}]
    }


async def test_a_federated_repository_redirects_and_answers_there(http: httpx2.AsyncClient) -> None:
    for path in ("resources?$top=1", "resources/noise-contours", "resources/noise-contours/graphics"):
        answer = await http.get(f"{URL}/geospatialfeatures/{path}")
        assert (answer.status_code, answer.content) == (302, b"")
        assert (
            answer.headers["location"] == f"https://api.bentley.com/geospatial-features{URL}/geospatialfeatures/{path}"
        )
        followed = await http.get(answer.headers["location"])
        assert (followed.status_code, followed.text.count("noise-contours") > 0) == (200, True)


async def test_a_repository_without_a_list_of_resources_says_so(http: httpx2.AsyncClient) -> None:
    assert details(await http.get(f"{URL}/forms/resources")) == [("InvalidValue", "repositoryId")]
    assert details(await http.post(f"{URL}/imodels/resources", json={})) == [("InvalidChange", "repositoryId")]


async def test_the_global_repository_is_cesiums(http: httpx2.AsyncClient) -> None:
    cesium = {
        "id": "cesium",
        "class": "Cesium",
        "displayName": "Cesium",
        "uri": "https://api.bentley.com/curated-content/cesium",
        "capabilities": {"resources": {"uri": "https://api.bentley.com/itwins/repositories/cesium/resources"}},
    }
    assert (await http.get("/itwins/repositories?class=Cesium")).json() == {"repositories": [cesium]}
    assert (await http.get("/itwins/repositories/cesium")).json() == {"repository": cesium}
    assert refusal(await http.get("/itwins/repositories/nope")) == (404, "iTwinRepositoryNotFound")
    assert details(await http.get("/itwins/repositories?class=Nope")) == [("InvalidValue", "class")]


async def test_the_assets_of_cesium_are_paged_searched_and_have_graphics(http: httpx2.AsyncClient) -> None:
    url = "/itwins/repositories/cesium/resources"
    page = (await http.get(f"{url}?$top=2")).json()
    assert (len(page["resources"]), "next" in page["_links"]) == (2, True)
    assert [one["id"] for one in (await http.get(f"{url}?$search=sentinel")).json()["resources"]] == ["3954"]
    assert (await http.get(f"{url}/3954")).json()["resource"] == {
        "id": "3954",
        "class": "Cesium",
        "type": "IMAGERY",
        "displayName": "Sentinel-2",
        "capabilities": {"graphics": {"uri": f"https://api.bentley.com{url}/3954/graphics"}},
    }
    (graphics,) = (await http.get(f"{url}/3954/graphics")).json()["graphics"]
    assert (graphics["type"], graphics["authentication"]["type"]) == ("IMAGERY", "Header")
    assert refusal(await http.get(f"{url}/0/graphics")) == (404, "iTwinRepositoryResourceNotFound")


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
    rest=st.sampled_from(["", "/resources", "/resources/parcels", "/resources/parcels/graphics"]),
    query=st.dictionaries(st.sampled_from(["class", "subClass", "$top", "$skip", "$search"]), st.text(max_size=9)),
    body=st.dictionaries(_NAMES, _JSON, max_size=6),
    export=st.booleans(),
)
async def test_no_request_about_repositories_or_exports_makes_the_sandbox_fail(
    http: httpx2.AsyncClient,
    method: str,
    repository: str,
    rest: str,
    query: dict[str, str],
    body: dict[str, object],
    export: bool,
) -> None:
    url = "/itwins/exports" if export else f"{URL}{repository}{rest}"
    answer = await http.request(method, url, params=query, json=body)
    assert answer.status_code != 500
