"""Repositories of an iTwin and global repositories: each tool once, with its main error."""

from collections.abc import AsyncIterator

import pytest

from tests.conftest import connect
from tests.scenarios.test_area_tools import Desk

pytestmark = pytest.mark.anyio
WMS = "https://maps.example.org/wms"


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with connect(toolsets="all") as client:
        yield Desk(client)


async def test_repositories_are_listed_by_class_and_read_without_secrets(desk: Desk) -> None:
    itwin = await desk.itwin("NL-A12-0042")
    listed = (await desk.ask("list-repositories", iTwinId=itwin))["repositories"]
    assert {"iModels", "GeographicInformationSystem"} <= {item["class"] for item in listed}
    tiles = await desk.ask(
        "list-repositories", iTwinId=itwin, **{"class": "GeographicInformationSystem", "subClass": "UrlTemplate"}
    )
    (basemap,) = tiles["repositories"]
    read = (await desk.ask("get-repository", iTwinId=itwin, repositoryId=basemap["id"]))["repository"]
    output = {name: value for name, value in read["authentication"].items() if value is not None}
    assert output == {"type": "Header", "key": "X-Api-Key"}
    assert read["options"]["minimumLevel"] == 6
    whole = (await desk.read(f"itwin://itwins/{itwin}/repositories/{basemap['id']}"))["repository"]
    assert whole == read | {"authentication": {"type": "Header"}}
    assert (await desk.refused("list-repositories", iTwinId=itwin, subClass="ArcGIS"))["code"] == "InvalidArguments"
    assert (await desk.refused("get-repository", iTwinId=itwin, repositoryId="none"))[
        "code"
    ] == "iTwinRepositoryNotFound"


async def test_repository_and_its_resources_are_created_updated_and_deleted(desk: Desk) -> None:
    itwin = await desk.itwin("NL-A12-0042")
    gis = {"iTwinId": itwin, "class": "GeographicInformationSystem", "subClass": "WebMapService", "uri": WMS}
    levels = {"minimumLevel": 4, "maximumLevel": 9}
    made = (await desk.ask("create-repository", **gis, displayName="Soil", options=levels))["repository"]
    assert (await desk.refused("create-repository", **gis))["code"] == "iTwinRepositoryExists"
    ids = {"iTwinId": itwin, "repositoryId": made["id"]}
    assert (await desk.refused("update-repository", **ids))["code"] == "InvalidArguments"
    changed = (await desk.ask("update-repository", **ids, displayName="Soil types", clear=["options"]))["repository"]
    assert (changed["displayName"], changed["options"], changed["uri"]) == ("Soil types", None, WMS)

    arguments = {"resourceId": "soil", "displayName": "Soil layer", "type": "POLYGON"}
    layer = await desk.ask("create-repository-resource", **ids, **arguments)
    assert (layer["resource"]["id"], layer["resource"]["type"]) == ("soil", "POLYGON")
    again = await desk.refused("create-repository-resource", **ids, resourceId="soil", displayName="Soil layer")
    assert again["code"] == "iTwinRepositoryResourceExists"
    listed = await desk.ask("list-repository-resources", **ids, search="layer")
    assert [resource["id"] for resource in listed["resources"]] == ["soil"]
    read = await desk.ask("get-repository-resource", **ids, resourceId="soil")
    assert read["resource"]["displayName"] == "Soil layer"
    resource = await desk.read(f"itwin://itwins/{itwin}/repositories/{made['id']}/resources/soil")
    assert resource["resource"]["id"] == "soil"
    graphics = (await desk.ask("get-resource-graphics", **ids, resourceId="soil"))["graphics"]
    assert graphics[0]["uri"] == WMS
    assert await desk.ask("delete-repository-resource", **ids, resourceId="soil") == {"deleted": True}
    assert (await desk.ask("get-resource-graphics", **ids, resourceId="soil"))["graphics"] == []
    for tool in ("get-repository-resource", "delete-repository-resource"):
        assert (await desk.refused(tool, **ids, resourceId="soil"))["code"] == "iTwinRepositoryResourceNotFound"

    assert await desk.ask("delete-repository", **ids) == {"deleted": True}
    for tool in ("get-repository", "delete-repository", "list-repository-resources"):
        assert (await desk.refused(tool, **ids))["code"] == "iTwinRepositoryNotFound"
    automatic = await desk.refused("delete-repository", iTwinId=itwin, repositoryId="imodels")
    assert automatic["code"] == "InvalidiTwinsRequest"


async def test_create_repository_accepts_pkce_authentication(desk: Desk) -> None:
    where = {"iTwinId": await desk.itwin("NL-A12-0042"), "uri": WMS, "class": "GeographicInformationSystem"}
    pkce = {
        "type": "OAuth2AuthorizationCodePKCE",
        "clientId": "spa-1",
        "scopes": "maps:read openid",
        "authorizationEndpoint": "https://ims.example.org/authorize",
        "tokenEndpoint": "https://ims.example.org/token",
        "redirectUri": "https://app.example.org/callback",
    }
    lacking = {name: value for name, value in pkce.items() if name != "redirectUri"}
    for wrong in (lacking, pkce | {"key": "X-Api-Key"}, {"type": "Header", "clientId": "spa-1"}):
        refused = await desk.refused("create-repository", **where, subClass="WebMapService", authentication=wrong)
        assert refused["code"] == "InvalidArguments"
    created = await desk.ask("create-repository", **where, subClass="WebMapService", authentication=pkce)
    for answer in (
        created,
        await desk.ask("get-repository", iTwinId=where["iTwinId"], repositoryId=created["repository"]["id"]),
    ):
        output = answer["repository"]["authentication"]
        assert {name: value for name, value in output.items() if value is not None} == pkce


async def test_list_repository_resources_continues_with_the_cursor(desk: Desk) -> None:
    itwin = await desk.itwin("NL-A12-0042")
    first = await desk.ask("list-repository-resources", iTwinId=itwin, repositoryId="imodels", limit=1)
    assert first["page"]["complete"] is False
    second = await desk.ask(
        "list-repository-resources", iTwinId=itwin, repositoryId="imodels", limit=1, cursor=first["page"]["cursor"]
    )
    assert second["resources"] != first["resources"]


async def test_global_repositories_resources_and_graphics_are_read(desk: Desk) -> None:
    (cesium,) = (await desk.ask("list-global-repositories"))["repositories"]
    assert (await desk.ask("get-global-repository", repositoryId=cesium["id"]))["repository"]["class"] == "Cesium"
    assert (await desk.read(f"itwin://repositories/{cesium['id']}"))["repository"]["id"] == cesium["id"]
    answer = await desk.ask("list-global-repository-resources", repositoryId=cesium["id"], search="Sentinel")
    (sentinel,) = answer["resources"]
    ids = {"repositoryId": cesium["id"], "resourceId": sentinel["id"]}
    assert (await desk.ask("get-global-repository-resource", **ids))["resource"]["properties"]["status"] == "COMPLETE"
    assert (await desk.read(f"itwin://repositories/cesium/resources/{sentinel['id']}"))["resource"]["id"] == sentinel[
        "id"
    ]
    assert (await desk.ask("get-global-resource-graphics", **ids))["graphics"][0]["type"] == "IMAGERY"
    for tool, arguments in (
        ("get-global-repository", {"repositoryId": "none"}),
        ("list-global-repository-resources", {"repositoryId": "none"}),
        ("get-global-repository-resource", {**ids, "resourceId": "0"}),
        ("get-global-resource-graphics", {**ids, "resourceId": "0"}),
    ):
        assert (await desk.refused(tool, **arguments))["status"] == 404
    assert (await desk.refused("list-global-repositories", subClass="x"))["code"] == "InvalidArguments"
