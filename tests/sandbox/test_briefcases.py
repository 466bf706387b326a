"""Briefcases: numbers that are given out once, quotas, ownership."""

from collections.abc import Callable

import httpx2
import pytest

from itwin_mcp.sandbox.seed import seeded_id
from tests.sandbox.conftest import Clock

pytestmark = pytest.mark.anyio
Connect = Callable[[str | None], httpx2.AsyncClient]
ROADS = f"/imodels/{seeded_id('imodel', 'roads')}"
DRAINS = f"/imodels/{seeded_id('imodel', 'drains')}"
BRIEFCASES = f"{DRAINS}/briefcases"
WHOLE = {"Prefer": "return=representation"}


async def acquire(http: httpx2.AsyncClient) -> int:
    number: int = (await http.post(BRIEFCASES, json={})).json()["briefcase"]["briefcaseId"]
    return number


async def test_a_briefcase_is_acquired_with_all_its_fields(http: httpx2.AsyncClient) -> None:
    answer = await http.post(BRIEFCASES, json={"deviceName": "some device"})
    briefcase = answer.json()["briefcase"]
    links = briefcase.pop("_links")
    assert answer.status_code == 201
    assert briefcase.pop("acquiredDateTime").endswith("0Z")
    assert briefcase.pop("fileSize") > 0
    assert briefcase == {
        "id": "2",
        "displayName": "2",
        "briefcaseId": 2,
        "ownerId": seeded_id("user", "anna"),
        "deviceName": "some device",
        "application": {"id": "native-itwin-sandbox", "name": "iTwin Sandbox"},
    }
    assert links["owner"]["href"].endswith(f"{DRAINS}/users/{seeded_id('user', 'anna')}")
    assert (await http.get(links["checkpoint"]["href"])).json()["checkpoint"]["state"] == "successful"


async def test_a_body_is_optional_and_an_unnamed_device_is_null(http: httpx2.AsyncClient) -> None:
    answer = await http.post(BRIEFCASES)
    assert (answer.status_code, answer.json()["briefcase"]["deviceName"]) == (201, None)


async def test_a_number_is_never_given_out_twice(http: httpx2.AsyncClient) -> None:
    first = await acquire(http)
    assert (await http.delete(f"{BRIEFCASES}/{first}")).status_code == 204
    assert await acquire(http) == first + 1


async def test_a_released_briefcase_is_gone(http: httpx2.AsyncClient) -> None:
    path = f"{BRIEFCASES}/{await acquire(http)}"
    await http.delete(path)
    for answer in (await http.get(path), await http.delete(path), await http.get(f"{BRIEFCASES}/555")):
        assert answer.json()["error"] == {
            "code": "BriefcaseNotFound",
            "message": "Requested Briefcase is not available.",
        }
    assert (await http.get(BRIEFCASES)).json()["briefcases"] == []


async def test_only_a_manager_releases_the_briefcases_of_others(http: httpx2.AsyncClient, http_as: Connect) -> None:
    mine, theirs = await acquire(http), await acquire(http_as("tomasz"))
    assert (await http_as("tomasz").delete(f"{BRIEFCASES}/{mine}")).status_code == 403
    assert (await http.delete(f"{BRIEFCASES}/{theirs}")).status_code == 204


async def test_a_viewer_cannot_acquire_and_a_stranger_does_not_see(http_as: Connect) -> None:
    assert (await http_as("priya").post(BRIEFCASES, json={})).status_code == 403
    assert (await http_as("luca").get(BRIEFCASES)).json()["error"]["code"] == "iModelNotFound"


async def test_the_list_is_minimal_unless_preferred_and_ordered_on_demand(http: httpx2.AsyncClient) -> None:
    assert (await http.get(f"{ROADS}/briefcases")).json()["briefcases"][0] == {"id": "2", "displayName": "2"}
    query = "$orderBy=acquiredDateTime desc"
    whole = (await http.get(f"{ROADS}/briefcases?{query}", headers=WHOLE)).json()["briefcases"]
    moments = [one["acquiredDateTime"] for one in whole]
    assert len(moments) == 3
    assert moments == sorted(moments, reverse=True)
    assert (await http.get(f"{ROADS}/briefcases?$orderBy=fileSize")).status_code == 422


async def test_the_list_is_narrowed_to_an_owner_or_to_me(http_as: Connect) -> None:
    path = f"{ROADS}/briefcases"
    for owner, numbers in ((seeded_id("user", "sync"), ["3"]), ("me", ["2"]), ("nobody", [])):
        found = (await http_as("tomasz").get(f"{path}?ownerId={owner}")).json()["briefcases"]
        assert [one["id"] for one in found] == numbers
    assert (await http_as("priya").get(f"{path}?ownerId=me")).json()["briefcases"] == []


async def test_a_hundred_briefcases_in_a_minute_are_enough(http: httpx2.AsyncClient, clock: Clock) -> None:
    for _ in range(100):
        assert (await http.post(BRIEFCASES, json={})).status_code == 201
    clock.forward(20)
    refused = await http.post(f"{ROADS}/briefcases", json={})
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "RateLimitExceeded")
    assert refused.headers["retry-after"] == "40"
    clock.forward(40)
    full = await http.post(BRIEFCASES, json={})
    error = full.json()["error"]
    refusal = (full.status_code, error["code"], error["message"])
    assert refusal == (422, "InvalidiModelsRequest", "Cannot acquire Briefcase.")
    assert error["details"][0]["code"] == "ResourceQuotaExceeded"
    assert error["details"][0]["innerError"] == {"code": "MaximumNumberOfBriefcasesPerUser"}
    await http.delete(f"{BRIEFCASES}/2")
    assert (await http.post(BRIEFCASES, json={})).status_code == 201


async def test_statistics_count_held_briefcases_and_their_locks_by_application(http: httpx2.AsyncClient) -> None:
    number = await acquire(http)
    await http.delete(f"{BRIEFCASES}/{await acquire(http)}")
    body = {"briefcaseId": number, "lockedObjects": [{"lockLevel": "exclusive", "objectIds": ["0x1"]}]}
    assert (await http.patch(f"{DRAINS}/locks", json=body)).status_code == 200
    statistics = (await http.get(f"{DRAINS}/users/{seeded_id('user', 'anna')}")).json()["user"]["statistics"]
    assert statistics["briefcasesCount"] == 1
    assert statistics["applications"] == [
        {
            "id": "native-itwin-sandbox",
            "name": "iTwin Sandbox",
            "ownsLocks": True,
            "ownsExclusiveRootElementLock": True,
        }
    ]
