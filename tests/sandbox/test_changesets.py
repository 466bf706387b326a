"""Changesets: the push in three steps, downloads, extended data and groups."""

import base64
import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from itwin_mcp.sandbox.seed import seeded_id
from tests.sandbox.conftest import Clock

pytestmark = pytest.mark.anyio
Connect = Callable[[str | None], httpx2.AsyncClient]
ROADS = seeded_id("imodel", "roads")
DRAINS = f"/imodels/{seeded_id('imodel', 'drains')}"
CHANGESETS = f"{DRAINS}/changesets"
GROUPS = f"{DRAINS}/changesetgroups"
FILE = b"changes" * 10
WHOLE = {"Prefer": "return=representation"}


def make_changeset_id(number: int) -> str:
    return f"{number:040x}"


async def acquire_briefcase(http: httpx2.AsyncClient) -> int:
    number: int = (await http.post(f"{DRAINS}/briefcases", json={})).json()["briefcase"]["briefcaseId"]
    return number


async def start_push(http: httpx2.AsyncClient, briefcase_id: int, number: int, **properties: object) -> httpx2.Response:
    body = {"id": make_changeset_id(number), "briefcaseId": briefcase_id, "fileSize": len(FILE)}
    if number > 1:
        body["parentId"] = make_changeset_id(number - 1)
    return await http.post(CHANGESETS, json=body | properties)


async def request_storage(http: httpx2.AsyncClient, href: str, content: bytes | None = None) -> httpx2.Response:
    """Send a request to storage without a bearer token: PUT with content, GET without."""
    method = "GET" if content is None else "PUT"
    request = http.build_request(method, href, content=content, headers={"x-ms-blob-type": "BlockBlob"})
    del request.headers["authorization"]
    return await http.send(request)


async def upload_file(http: httpx2.AsyncClient, changeset: dict[str, Any], content: bytes = FILE) -> None:
    link = changeset["_links"]["upload"]
    assert link["storageType"] == "azure"
    assert (await request_storage(http, link["href"], content)).status_code == 201


async def complete_push(http: httpx2.AsyncClient, changeset: dict[str, Any]) -> httpx2.Response:
    body = {"state": "fileUploaded", "briefcaseId": changeset["briefcaseId"]}
    return await http.patch(changeset["_links"]["complete"]["href"], json=body)


async def push(http: httpx2.AsyncClient, briefcase_id: int, number: int, **properties: object) -> dict[str, Any]:
    changeset = (await start_push(http, briefcase_id, number, **properties)).json()["changeset"]
    await upload_file(http, changeset)
    pushed: dict[str, Any] = (await complete_push(http, changeset)).json()["changeset"]
    return pushed


async def test_complete_push_adds_the_announced_changeset(http: httpx2.AsyncClient, clock: Clock) -> None:
    number = await acquire_briefcase(http)
    info = {"taskId": "11111111-1111-1111-1111-111111111111", "changedFiles": ["a.dgn"]}
    answer = await start_push(http, number, 1, description="First", containingChanges=5, synchronizationInfo=info)
    changeset = answer.json()["changeset"]
    assert (answer.status_code, changeset["state"], changeset["index"]) == (201, "waitingForFile", 1)
    assert changeset["_links"]["complete"]["href"].endswith(f"/changesets/{make_changeset_id(1)}")
    await upload_file(http, changeset)
    clock.forward(3)
    answer = await complete_push(http, changeset)
    pushed = answer.json()["changeset"]
    assert (answer.status_code, pushed["state"], pushed["parentId"]) == (200, "fileUploaded", "")
    assert pushed["pushDateTime"] > changeset["pushDateTime"]
    # Answers to POST and PATCH omit these (asserted by Bentley's test suite).
    assert pushed["synchronizationInfo"] is None
    omitted = ("download", "namedVersion", "currentOrPrecedingCheckpoint")
    assert {name: pushed["_links"][name] for name in omitted} == dict.fromkeys(omitted)
    assert pushed["application"]["id"]
    read = (await http.get(f"{CHANGESETS}/1")).json()["changeset"]
    assert (read["synchronizationInfo"], read["containingChanges"]) == (info, 5)
    assert read["_links"]["currentOrPrecedingCheckpoint"]["href"].endswith("/changesets/0/checkpoint")


async def test_changeset_file_is_downloaded_without_a_token(http: httpx2.AsyncClient) -> None:
    await push(http, await acquire_briefcase(http), 1)
    changeset = (await http.get(CHANGESETS, headers=WHOLE)).json()["changesets"][0]
    link = changeset["_links"]["download"]
    assert make_changeset_id(1) in link["href"]
    assert (await request_storage(http, link["href"])).content == FILE


async def test_every_answer_has_a_different_download_address(http: httpx2.AsyncClient) -> None:
    path = f"/imodels/{ROADS}/changesets/3"
    first, second = [(await http.get(path)).json()["changeset"]["_links"]["download"]["href"] for _ in range(2)]
    assert first != second


async def test_seeded_changeset_file_has_its_announced_size(http: httpx2.AsyncClient) -> None:
    for changeset in (await http.get(f"/imodels/{ROADS}/changesets?$top=3", headers=WHOLE)).json()["changesets"]:
        content = (await request_storage(http, changeset["_links"]["download"]["href"])).content
        assert len(content) == changeset["fileSize"]


async def test_changeset_download_link_requires_imodels_read(http_as: Connect) -> None:
    changeset = (await http_as("priya").get(f"/imodels/{ROADS}/changesets/1")).json()["changeset"]
    assert changeset["_links"]["download"] is None


async def test_push_in_progress_is_not_listed(http: httpx2.AsyncClient) -> None:
    await start_push(http, await acquire_briefcase(http), 1)
    assert (await http.get(CHANGESETS)).json()["changesets"] == []
    assert (await http.get(f"{CHANGESETS}/1")).json()["changeset"]["state"] == "waitingForFile"


async def test_second_push_conflicts_with_one_in_progress(http: httpx2.AsyncClient, http_as: Connect) -> None:
    await start_push(http, await acquire_briefcase(http), 1)
    tomasz = http_as("tomasz")
    answer = await start_push(tomasz, await acquire_briefcase(tomasz), 1)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "ConflictWithAnotherUser")


async def test_same_briefcase_can_restart_its_push(http: httpx2.AsyncClient) -> None:
    number = await acquire_briefcase(http)
    stale = (await start_push(http, number, 1)).json()["changeset"]
    fresh = (await start_push(http, number, 1)).json()["changeset"]
    await upload_file(http, fresh)
    assert (await complete_push(http, fresh)).status_code == 200
    assert (await request_storage(http, stale["_links"]["upload"]["href"], FILE)).status_code == 404


async def test_abandoned_push_is_deleted_when_its_link_expires(
    http: httpx2.AsyncClient, http_as: Connect, clock: Clock
) -> None:
    changeset = (await start_push(http, await acquire_briefcase(http), 1)).json()["changeset"]
    number = await acquire_briefcase(http_as("tomasz"))
    clock.forward(3600)
    http, tomasz = http_as("anna"), http_as("tomasz")  # tokens last an hour
    assert (await complete_push(http, changeset)).json()["error"]["code"] == "ChangesetNotFound"
    assert (await start_push(tomasz, number, 1)).status_code == 201


async def test_push_requires_the_latest_changeset_as_parent(http: httpx2.AsyncClient) -> None:
    number = await acquire_briefcase(http)
    await push(http, number, 1)
    await push(http, number, 2)
    for parent in ("", make_changeset_id(1)):
        answer = await start_push(http, number, 3, parentId=parent)
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "NewerChangesExist")
    answer = await start_push(http, number, 3, parentId=make_changeset_id(9))
    assert answer.json()["error"]["code"] == "ChangesetNotFound"
    answer = await start_push(http, number, 2)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "ChangesetExists")
    assert (await push(http, number, 3))["index"] == 3


async def test_push_requires_the_callers_own_briefcase(http: httpx2.AsyncClient, http_as: Connect) -> None:
    assert (await start_push(http, 555, 1)).json()["error"]["code"] == "BriefcaseNotFound"
    answer = await start_push(http, await acquire_briefcase(http_as("tomasz")), 1)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "InsufficientPermissions")


async def test_push_is_refused_to_viewers(http: httpx2.AsyncClient, http_as: Connect) -> None:
    answer = await start_push(http_as("priya"), await acquire_briefcase(http), 1)
    assert answer.status_code == 403


async def test_complete_push_requires_a_file_of_the_declared_size(http: httpx2.AsyncClient) -> None:
    changeset = (await start_push(http, await acquire_briefcase(http), 1)).json()["changeset"]
    answer = await complete_push(http, changeset)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "FileNotFound")
    await upload_file(http, changeset, FILE + b"!")
    answer = await complete_push(http, changeset)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "DataConflict")


async def test_complete_push_succeeds_once_and_only_for_its_briefcase(http: httpx2.AsyncClient) -> None:
    changeset = (await start_push(http, await acquire_briefcase(http), 1)).json()["changeset"]
    await upload_file(http, changeset)
    answer = await complete_push(http, changeset | {"briefcaseId": await acquire_briefcase(http)})
    assert [detail["target"] for detail in answer.json()["error"]["details"]] == ["briefcaseId"]
    assert (await complete_push(http, changeset)).status_code == 200
    answer = await complete_push(http, changeset)
    assert [detail["code"] for detail in answer.json()["error"]["details"]] == ["InvalidChange"]


@pytest.mark.parametrize(
    ("change", "target"),
    [
        ({"id": "short"}, "id"),
        ({"id": None}, "id"),
        ({"parentId": "x"}, "parentId"),
        ({"description": "x" * 256}, "description"),
        ({"briefcaseId": 0}, "briefcaseId"),
        ({"containingChanges": 128}, "containingChanges"),
        ({"fileSize": 0}, "fileSize"),
        ({"synchronizationInfo": {"taskId": None}}, "synchronizationInfo.taskId"),
        ({"synchronizationInfo": {"taskId": "t", "changedFiles": "a"}}, "synchronizationInfo"),
    ],
)
async def test_create_changeset_rejects_invalid_values(
    http: httpx2.AsyncClient, change: dict[str, object], target: str
) -> None:
    error = (await start_push(http, await acquire_briefcase(http), 1, **change)).json()["error"]
    assert (error["code"], error["message"]) == ("InvalidiModelsRequest", "Cannot create Changeset.")
    assert [detail["target"] for detail in error["details"]] == [target]


async def test_user_statistics_count_only_completed_pushes(http: httpx2.AsyncClient) -> None:
    number = await acquire_briefcase(http)
    await push(http, number, 1)
    await start_push(http, number, 2)
    user = (await http.get(f"{DRAINS}/users/{seeded_id('user', 'anna')}")).json()["user"]
    assert user["statistics"]["pushedChangesetsCount"] == 1
    assert user["statistics"]["lastChangesetPushDate"] is not None


# Extended data


def encode(value: object) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


async def test_create_extended_data_succeeds_once_and_for_the_creator(
    http: httpx2.AsyncClient, http_as: Connect
) -> None:
    await push(http, await acquire_briefcase(http), 1)
    path, body = f"{CHANGESETS}/1/extendeddata", {"data": encode({"some key": "some value"})}
    missing = await http.get(path)
    assert missing.json()["error"] == {
        "code": "ChangesetExtendedDataNotFound",
        "message": "Requested Changeset Extended Data is not available.",
    }
    assert (await http_as("tomasz").post(path, json=body)).status_code == 403
    answer = await http.post(path, json=body)
    expected = {"changesetId": make_changeset_id(1), "changesetIndex": 1, **body}
    assert (answer.status_code, answer.json()) == (201, {"extendedData": expected})
    assert (await http.get(path)).json() == {"extendedData": expected}
    assert (await http.post(path, json=body)).status_code == 409


@pytest.mark.parametrize("data", ["{}", "e30", encode("text"), encode(1), "not base64!"])
async def test_extended_data_must_be_a_json_object_in_base64(http: httpx2.AsyncClient, data: str) -> None:
    await push(http, await acquire_briefcase(http), 1)
    error = (await http.post(f"{CHANGESETS}/1/extendeddata", json={"data": data})).json()["error"]
    assert error["message"] == "Cannot create Changeset Extended Data."
    message = "Provided 'data' value is not valid. 'data' must be a valid base64 encoded json."
    assert error["details"] == [{"code": "InvalidValue", "message": message, "target": "data"}]


async def test_extended_data_is_listed_by_changeset(http: httpx2.AsyncClient) -> None:
    first_page = (await http.get(f"/imodels/{ROADS}/changesets/extendeddata?$top=1")).json()
    assert [entry["changesetIndex"] for entry in first_page["extendedData"]] == [5]
    second_page = (await http.get(first_page["_links"]["next"]["href"])).json()
    assert [entry["changesetIndex"] for entry in second_page["extendedData"]] == [11]
    assert json.loads(base64.b64decode(second_page["extendedData"][0]["data"]))["run"] == 131


# Changeset groups


async def create_group(http: httpx2.AsyncClient) -> dict[str, Any]:
    answer = await http.post(GROUPS, json={"description": "One run"})
    assert answer.status_code == 201
    created: dict[str, Any] = answer.json()["changesetGroup"]
    return created


async def test_changesets_join_a_group_until_it_is_completed(http: httpx2.AsyncClient) -> None:
    number, group = await acquire_briefcase(http), await create_group(http)
    assert (group["state"], group["creatorId"]) == ("inProgress", seeded_id("user", "anna"))
    assert group["_links"]["creator"]["href"].endswith(f"/users/{group['creatorId']}")
    assert (await push(http, number, 1, groupId=group["id"]))["groupId"] == group["id"]
    answer = await http.patch(f"{GROUPS}/{group['id']}", json={"state": "completed"})
    assert (answer.status_code, answer.json()["changesetGroup"]["state"]) == (200, "completed")
    answer = await start_push(http, number, 2, groupId=group["id"])
    assert [detail["target"] for detail in answer.json()["error"]["details"]] == ["groupId"]
    answer = await start_push(http, number, 2, groupId="no")
    assert answer.json()["error"]["code"] == "ChangesetGroupNotFound"


@pytest.mark.parametrize("state", ["timedOut", "forciblyClosed", "inProgress", None])
async def test_update_group_accepts_only_the_state_completed(http: httpx2.AsyncClient, state: str | None) -> None:
    path = f"{GROUPS}/{(await create_group(http))['id']}"
    assert (await http.patch(path, json={"state": state})).status_code == 422
    assert (await http.get(path)).json()["changesetGroup"]["state"] == "inProgress"


async def test_group_times_out_a_day_after_its_last_changeset(
    http: httpx2.AsyncClient, http_as: Connect, clock: Clock
) -> None:
    path = f"{GROUPS}/{(await create_group(http))['id']}"
    clock.forward(3000)
    await push(http, await acquire_briefcase(http), 1, groupId=path.rsplit("/", 1)[1])
    states = []
    for seconds in (23.5 * 3600, 3600):
        clock.forward(seconds)
        states.append((await http_as("anna").get(path)).json()["changesetGroup"]["state"])
    assert states == ["inProgress", "timedOut"]
    assert (await http_as("anna").patch(path, json={"state": "completed"})).status_code == 422


async def test_list_groups_returns_groups_and_unknown_id_is_404(http: httpx2.AsyncClient) -> None:
    path = f"/imodels/{ROADS}/changesetgroups"
    assert [group["description"] for group in (await http.get(path)).json()["changesetGroups"]] == [
        "Design Sync, run 118",
        "Design Sync, run 131",
    ]
    missing = (await http.get(f"{path}/no")).json()["error"]
    assert missing == {"code": "ChangesetGroupNotFound", "message": "Requested Changeset Group is not available."}
