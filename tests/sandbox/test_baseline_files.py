"""iModels created from a baseline file: upload, completion and failures."""

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from itwin_mcp.sandbox.seed import seeded_id
from tests.sandbox.conftest import Clock

pytestmark = pytest.mark.anyio
Connect = Callable[[str | None], httpx2.AsyncClient]
ITWIN = seeded_id("itwin", "interchange")
ROADS = seeded_id("imodel", "roads")
BLOCK = {"x-ms-blob-type": "BlockBlob"}


async def create_from_baseline(http: httpx2.AsyncClient, size: int) -> dict[str, Any]:
    body = {"iTwinId": ITWIN, "name": "Quay", "creationMode": "fromBaseline", "baselineFile": {"size": size}}
    answer = await http.post("/imodels", json=body)
    assert answer.status_code == 201
    return answer.json()["iModel"]


async def get_states(http: httpx2.AsyncClient, imodel_id: str) -> tuple[str, str, str]:
    operation = (await http.get(f"/imodels/{imodel_id}/operations/create")).json()["createOperation"]
    imodel = (await http.get(f"/imodels/{imodel_id}")).json()["iModel"]
    baseline = (await http.get(f"/imodels/{imodel_id}/baselinefile")).json()["baselineFile"]
    return imodel["state"], operation["state"], baseline["state"]


async def test_uploaded_baseline_is_scheduled_and_then_initialized(
    http: httpx2.AsyncClient, http_as: Connect, clock: Clock
) -> None:
    imodel = await create_from_baseline(http, 11)
    links = imodel["_links"]
    assert links["complete"]["href"].endswith(f"/imodels/{imodel['id']}/baselinefile")
    assert await get_states(http, imodel["id"]) == ("notInitialized", "waitingForFile", "waitingForFile")
    assert (await http_as(None).put(links["upload"]["href"], content=b"hello world", headers=BLOCK)).status_code == 201
    answer = await http.post(links["complete"]["href"], json={})
    baseline = answer.json()["baselineFile"]
    assert (answer.status_code, baseline["state"], baseline["fileSize"]) == (200, "initializationScheduled", 11)
    assert baseline["displayName"] == f"{baseline['id']}.bim"
    assert baseline["_links"]["download"] is None
    assert await get_states(http, imodel["id"]) == ("notInitialized", "scheduled", "initializationScheduled")
    clock.forward(5)
    assert await get_states(http, imodel["id"]) == ("initialized", "scheduled", "initialized")
    clock.forward(5)
    assert await get_states(http, imodel["id"]) == ("initialized", "successful", "initialized")


async def test_complete_upload_rejects_a_file_of_the_wrong_size(http: httpx2.AsyncClient, http_as: Connect) -> None:
    links = (await create_from_baseline(http, 12))["_links"]
    await http_as(None).put(links["upload"]["href"], content=b"hello world", headers=BLOCK)
    answer = await http.post(links["complete"]["href"], json={})
    assert answer.status_code == 409
    assert answer.json()["error"] == {
        "code": "DataConflict",
        "message": "File size provided during iModel creation does not match actual file size.",
    }


async def test_complete_upload_without_file_is_file_not_found(http: httpx2.AsyncClient) -> None:
    answer = await http.post((await create_from_baseline(http, 12))["_links"]["complete"]["href"], json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "FileNotFound")


async def test_complete_upload_rejects_baseline_without_upload_in_progress(http: httpx2.AsyncClient) -> None:
    answer = await http.post(f"/imodels/{ROADS}/baselinefile", json={})
    assert answer.status_code == 422
    assert answer.json()["error"] == {
        "code": "InvalidiModelsRequest",
        "message": "Cannot complete Baseline File upload.",
        "details": [{"code": "InvalidChange", "message": "Baseline File upload is not in progress."}],
    }


@pytest.mark.parametrize(
    ("content", "state"), [(b"sandbox:briefcase", "fileIsBriefcase"), (b"sandbox:broken", "initializationFailed")]
)
async def test_rejected_baseline_file_fails_the_create_operation(
    http: httpx2.AsyncClient, http_as: Connect, clock: Clock, content: bytes, state: str
) -> None:
    imodel = await create_from_baseline(http, len(content))
    await http_as(None).put(imodel["_links"]["upload"]["href"], content=content, headers=BLOCK)
    await http.post(imodel["_links"]["complete"]["href"], json={})
    clock.forward(10)
    assert await get_states(http, imodel["id"]) == ("notInitialized", "failed", state)


async def test_baseline_download_link_requires_imodels_read(http_as: Connect) -> None:
    viewer = (await http_as("priya").get(f"/imodels/{ROADS}/baselinefile")).json()["baselineFile"]
    engineer = (await http_as("tomasz").get(f"/imodels/{ROADS}/baselinefile")).json()["baselineFile"]
    assert viewer["_links"]["download"] is None
    assert engineer["_links"]["download"]["storageType"] == "azure"
    assert (await http_as("luca").get(f"/imodels/{ROADS}/baselinefile")).status_code == 404


async def test_complete_upload_requires_imodels_manage_on_the_itwin(http: httpx2.AsyncClient, http_as: Connect) -> None:
    url = (await create_from_baseline(http, 1))["_links"]["complete"]["href"]
    answer = await http_as("priya").post(url, json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "InsufficientPermissions")


@pytest.mark.parametrize(
    ("body", "code", "target"),
    [
        ({"creationMode": "fromBaseline"}, "MissingRequiredProperty", "baselineFile"),
        ({"baselineFile": {}}, "MissingRequiredProperty", "baselineFile.size"),
        ({"baselineFile": {"size": 0}}, "InvalidValue", "baselineFile"),
        ({"creationMode": "empty", "baselineFile": {"size": 1}}, "InvalidValue", "baselineFile"),
        (
            {"baselineFile": {"size": 1}, "template": {"iModelId": ROADS}},
            "MutuallyExclusivePropertiesProvided",
            "template",
        ),
    ],
)
async def test_create_imodel_rejects_invalid_baseline_file(
    http: httpx2.AsyncClient, body: dict[str, object], code: str, target: str
) -> None:
    answer = await http.post("/imodels", json={"iTwinId": ITWIN, "name": "Quay"} | body)
    assert answer.status_code == 422
    assert (code, target) in [(detail["code"], detail["target"]) for detail in answer.json()["error"]["details"]]


async def test_clone_copies_an_uploaded_baseline(http: httpx2.AsyncClient, http_as: Connect, clock: Clock) -> None:
    imodel = await create_from_baseline(http, 11)
    await http_as(None).put(imodel["_links"]["upload"]["href"], content=b"hello world", headers=BLOCK)
    await http.post(imodel["_links"]["complete"]["href"], json={})
    clock.forward(10)
    clone = (await http.post(f"/imodels/{imodel['id']}/clone", json={"iTwinId": ITWIN, "name": "Copy"})).headers
    clock.forward(10)
    await http.delete(f"/imodels/{imodel['id']}")
    baseline = (await http.get(f"{clone['location']}/baselinefile")).json()["baselineFile"]
    assert baseline["fileSize"] == 11
    assert (await http_as(None).get(baseline["_links"]["download"]["href"])).content == b"hello world"


async def test_imodel_without_upload_has_an_initialized_baseline(http: httpx2.AsyncClient) -> None:
    empty = (await http.post("/imodels", json={"iTwinId": ITWIN, "name": "Empty"})).json()["iModel"]
    assert (await get_states(http, empty["id"]))[2] == "initialized"
