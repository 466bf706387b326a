"""The caller's favorite and recently used iModels."""

from collections.abc import Callable

import httpx2
import pytest

from itwin_mcp.sandbox.seed import seeded_id

pytestmark = pytest.mark.anyio
Connect = Callable[[str | None], httpx2.AsyncClient]
ITWIN = seeded_id("itwin", "interchange")
ROADS = seeded_id("imodel", "roads")
STRUCTURES = seeded_id("imodel", "structures")


async def list_ids(http: httpx2.AsyncClient, which: str, itwin_id: str = ITWIN) -> list[str]:
    return [imodel["id"] for imodel in (await http.get(f"/imodels/{which}?iTwinId={itwin_id}")).json()["iModels"]]


async def test_favorite_imodels_are_added_and_removed_per_user(http: httpx2.AsyncClient, http_as: Connect) -> None:
    assert await list_ids(http, "favorites") == [ROADS]
    for _ in range(2):
        answer = await http.put(f"/imodels/favorites/{STRUCTURES}")
        assert (answer.status_code, answer.content) == (204, b"")
    assert await list_ids(http, "favorites") == [ROADS, STRUCTURES]
    assert (await http.delete(f"/imodels/favorites/{ROADS}")).status_code == 204
    assert await list_ids(http, "favorites") == [STRUCTURES]
    assert await list_ids(http_as("tomasz"), "favorites") == [STRUCTURES, ROADS]


async def test_favorites_accept_only_put_and_recents_only_post(http: httpx2.AsyncClient) -> None:
    assert (await http.post(f"/imodels/favorites/{ROADS}")).status_code == 404
    assert (await http.put(f"/imodels/recents/{ROADS}")).status_code == 404


async def test_recent_imodels_are_listed_latest_first(http: httpx2.AsyncClient) -> None:
    assert (await http.post(f"/imodels/recents/{STRUCTURES}", json={})).status_code == 204
    assert await list_ids(http, "recents") == [STRUCTURES, ROADS]
    await http.post(f"/imodels/recents/{ROADS}", json={})
    assert await list_ids(http, "recents") == [ROADS, STRUCTURES]
    assert (await http.delete(f"/imodels/recents/{ROADS}")).status_code == 204
    assert await list_ids(http, "recents") == [STRUCTURES]


async def test_recent_imodels_are_limited_to_25(http: httpx2.AsyncClient) -> None:
    deck = seeded_id("itwin", "deck")
    assert await list_ids(http, "recents", deck)
    for number in range(25):
        created = await http.post("/imodels", json={"iTwinId": ITWIN, "name": f"Model {number}"})
        await http.post(f"/imodels/recents/{created.json()['iModel']['id']}", json={})
    assert len(await list_ids(http, "recents")) == 25
    assert ROADS not in await list_ids(http, "recents")
    assert await list_ids(http, "recents", deck) == []


@pytest.mark.parametrize("which", ["favorites", "recents"])
async def test_own_imodel_lists_require_itwin_id_and_honour_prefer(http: httpx2.AsyncClient, which: str) -> None:
    missing = (await http.get(f"/imodels/{which}")).json()["error"]
    assert [(detail["code"], detail["target"]) for detail in missing["details"]] == [
        ("MissingRequiredParameter", "iTwinId")
    ]
    minimal = (await http.get(f"/imodels/{which}?iTwinId={ITWIN}")).json()["iModels"][0]
    assert set(minimal) == {"id", "displayName"}
    whole = await http.get(f"/imodels/{which}?iTwinId={ITWIN}", headers={"Prefer": "return=representation"})
    assert whole.json()["iModels"][0]["_links"]["upload"] is None
    assert (await http.get(f"/imodels/{which}?iTwinId={seeded_id('itwin', 'tunnel')}")).status_code == 404


async def test_favorite_imodels_are_paged_by_token(http: httpx2.AsyncClient) -> None:
    await http.put(f"/imodels/favorites/{STRUCTURES}")
    page = (await http.get(f"/imodels/favorites?iTwinId={ITWIN}&$top=1")).json()
    assert (page["iModels"][0]["id"], page["_links"]["prev"]) == (ROADS, None)
    assert "$continuationToken=" in page["_links"]["next"]["href"]
    last = (await http.get(page["_links"]["next"]["href"])).json()
    assert (last["iModels"][0]["id"], last["_links"]["next"]) == (STRUCTURES, None)


async def test_own_imodel_lists_exclude_invisible_imodels(http: httpx2.AsyncClient, http_as: Connect) -> None:
    for method, which in (("PUT", "favorites"), ("POST", "recents")):
        answer = await http_as("luca").request(method, f"/imodels/{which}/{ROADS}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "iModelNotFound")
    grant = {"userId": seeded_id("user", "priya"), "permissions": ["imodels_webview"]}
    await http.patch(f"/imodels/{ROADS}/userpermissions", json=grant)
    assert await list_ids(http_as("tomasz"), "favorites") == [STRUCTURES]
