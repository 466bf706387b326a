"""Briefcases: unique numbers, quotas and ownership."""

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


async def acquire_briefcase(http: httpx2.AsyncClient) -> int:
    number: int = (await http.post(BRIEFCASES, json={})).json()["briefcase"]["briefcaseId"]
    return number


async def test_acquire_briefcase_returns_all_fields(http: httpx2.AsyncClient) -> None:
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


async def test_acquire_briefcase_accepts_no_body_and_no_device_name(http: httpx2.AsyncClient) -> None:
    answer = await http.post(BRIEFCASES)
    assert (answer.status_code, answer.json()["briefcase"]["deviceName"]) == (201, None)


async def test_briefcase_number_is_never_reused(http: httpx2.AsyncClient) -> None:
    first = await acquire_briefcase(http)
    assert (await http.delete(f"{BRIEFCASES}/{first}")).status_code == 204
    assert await acquire_briefcase(http) == first + 1


async def test_released_briefcase_is_not_found(http: httpx2.AsyncClient) -> None:
    path = f"{BRIEFCASES}/{await acquire_briefcase(http)}"
    await http.delete(path)
    for answer in (await http.get(path), await http.delete(path), await http.get(f"{BRIEFCASES}/555")):
        assert answer.json()["error"] == {
            "code": "BriefcaseNotFound",
            "message": "Requested Briefcase is not available.",
        }
    assert (await http.get(BRIEFCASES)).json()["briefcases"] == []


async def test_release_of_another_users_briefcase_requires_manage(http: httpx2.AsyncClient, http_as: Connect) -> None:
    own, foreign = await acquire_briefcase(http), await acquire_briefcase(http_as("tomasz"))
    assert (await http_as("tomasz").delete(f"{BRIEFCASES}/{own}")).status_code == 403
    assert (await http.delete(f"{BRIEFCASES}/{foreign}")).status_code == 204


async def test_acquire_briefcase_is_refused_to_viewers_and_strangers(http_as: Connect) -> None:
    assert (await http_as("priya").post(BRIEFCASES, json={})).status_code == 403
    assert (await http_as("luca").get(BRIEFCASES)).json()["error"]["code"] == "iModelNotFound"


async def test_briefcase_list_honours_prefer_and_order(http: httpx2.AsyncClient) -> None:
    assert (await http.get(f"{ROADS}/briefcases")).json()["briefcases"][0] == {"id": "2", "displayName": "2"}
    query = "$orderBy=acquiredDateTime desc"
    whole = (await http.get(f"{ROADS}/briefcases?{query}", headers=WHOLE)).json()["briefcases"]
    moments = [briefcase["acquiredDateTime"] for briefcase in whole]
    assert len(moments) == 3
    assert moments == sorted(moments, reverse=True)
    assert (await http.get(f"{ROADS}/briefcases?$orderBy=fileSize")).status_code == 422


async def test_briefcase_list_filters_by_owner_and_by_me(http_as: Connect) -> None:
    path = f"{ROADS}/briefcases"
    for owner, numbers in ((seeded_id("user", "sync"), ["3"]), ("me", ["2"]), ("nobody", [])):
        briefcases = (await http_as("tomasz").get(f"{path}?ownerId={owner}")).json()["briefcases"]
        assert [briefcase["id"] for briefcase in briefcases] == numbers
    assert (await http_as("priya").get(f"{path}?ownerId=me")).json()["briefcases"] == []


async def test_acquire_briefcase_enforces_quotas_of_minute_and_user(http: httpx2.AsyncClient, clock: Clock) -> None:
    for _ in range(100):
        assert (await http.post(BRIEFCASES, json={})).status_code == 201
    clock.forward(20)
    answer = await http.post(f"{ROADS}/briefcases", json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "RateLimitExceeded")
    assert answer.headers["retry-after"] == "40"
    clock.forward(40)
    answer = await http.post(BRIEFCASES, json={})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (422, "InvalidiModelsRequest")
    assert error["message"] == "Cannot acquire Briefcase."
    assert error["details"][0]["code"] == "ResourceQuotaExceeded"
    assert error["details"][0]["innerError"] == {"code": "MaximumNumberOfBriefcasesPerUser"}
    await http.delete(f"{BRIEFCASES}/2")
    assert (await http.post(BRIEFCASES, json={})).status_code == 201


async def test_user_statistics_count_briefcases_and_locks_by_application(http: httpx2.AsyncClient) -> None:
    number = await acquire_briefcase(http)
    await http.delete(f"{BRIEFCASES}/{await acquire_briefcase(http)}")
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
