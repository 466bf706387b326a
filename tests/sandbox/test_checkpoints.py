"""Checkpoints: generated after a named version, restarted and downloaded."""

from collections.abc import Callable

import httpx2
import pytest

from itwin_mcp.sandbox.seed import seeded_id
from tests.sandbox.conftest import Clock
from tests.sandbox.test_changesets import (
    CHANGESETS,
    DRAINS,
    FILE,
    acquire_briefcase,
    complete_push,
    make_changeset_id,
    push,
    request_storage,
    start_push,
    upload_file,
)

pytestmark = pytest.mark.anyio
Connect = Callable[[str | None], httpx2.AsyncClient]
ITWIN = seeded_id("itwin", "interchange")
ROADS = f"/imodels/{seeded_id('imodel', 'roads')}"
SURVEY = f"/imodels/{seeded_id('imodel', 'survey')}"
BRIDGE = f"/imodels/{seeded_id('imodel', 'bridge')}"


async def create_version(http: httpx2.AsyncClient, number: int) -> str:
    body = {"name": f"Version {number}", "changesetId": make_changeset_id(number)}
    version: str = (await http.post(f"{DRAINS}/namedversions", json=body)).json()["namedVersion"]["id"]
    return version


async def test_creating_a_named_version_generates_its_checkpoint(http: httpx2.AsyncClient, clock: Clock) -> None:
    await push(http, await acquire_briefcase(http), 1)
    path = f"{DRAINS}/namedversions/{await create_version(http, 1)}/checkpoint"
    assert (await http.get(path)).json()["checkpoint"] == {
        "changesetId": make_changeset_id(1),
        "changesetIndex": 1,
        "size": 0,
        "state": "scheduled",
        "dbName": f"{make_changeset_id(1)}.bim",
        "directoryAccessInfo": None,
        "containerAccessInfo": None,
        "_links": {"download": None},
    }
    clock.forward(10)
    checkpoint = (await http.get(path)).json()["checkpoint"]
    assert (checkpoint["state"], checkpoint["_links"]["download"]["storageType"]) == ("successful", "azure")
    access = checkpoint["directoryAccessInfo"]
    assert set(access) == {"baseUrl", "baseDirectory", "storage", "storageType", "azure"}
    assert "sig=" in access["azure"]["sasToken"]
    assert set(checkpoint["containerAccessInfo"]) == {"account", "container", "sas", "dbName"}
    content = (await request_storage(http, checkpoint["_links"]["download"]["href"])).content
    assert len(content) == checkpoint["size"] > len(FILE)
    latest = (await http.get(f"{DRAINS}/briefcases/checkpoint")).json()["checkpoint"]
    assert latest["changesetIndex"] == 1


async def test_changeset_checkpoint_is_found_by_index_or_id(http: httpx2.AsyncClient) -> None:
    by_index = (await http.get(f"{ROADS}/changesets/8/checkpoint")).json()["checkpoint"]
    by_id = await http.get(f"{ROADS}/changesets/{by_index['changesetId']}/checkpoint")
    assert by_id.json()["checkpoint"]["changesetIndex"] == 8


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("changesets/1000/checkpoint", "ChangesetNotFound"),
        ("changesets/invalidId/checkpoint", "ChangesetNotFound"),
        ("changesets/4/checkpoint", "CheckpointNotFound"),
        ("namedversions/invalidId/checkpoint", "NamedVersionNotFound"),
    ],
)
async def test_checkpoint_error_names_what_is_missing(http: httpx2.AsyncClient, path: str, code: str) -> None:
    answer = await http.get(f"{ROADS}/{path}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, code)


async def test_new_imodel_has_a_baseline_checkpoint(http: httpx2.AsyncClient) -> None:
    imodel = (await http.post("/imodels", json={"iTwinId": ITWIN, "name": "New"})).json()["iModel"]
    for path in ("briefcases", "changesets/0"):
        checkpoint = (await http.get(f"/imodels/{imodel['id']}/{path}/checkpoint")).json()["checkpoint"]
        # Both asserted by Bentley's access-backend tests.
        assert (checkpoint["changesetId"], checkpoint["dbName"]) == (None, "BASELINE.bim")
        assert (checkpoint["state"], checkpoint["changesetIndex"]) == ("successful", 0)
        content = (await request_storage(http, checkpoint["_links"]["download"]["href"])).content
        assert len(content) == checkpoint["size"]


async def test_uninitialized_imodel_has_no_checkpoint(http: httpx2.AsyncClient) -> None:
    body = {"iTwinId": ITWIN, "name": "New", "creationMode": "empty"}
    imodel = (await http.post("/imodels", json=body)).json()["iModel"]
    answer = await http.get(f"/imodels/{imodel['id']}/briefcases/checkpoint")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "CheckpointNotFound")


async def find_checkpoint_path(http: httpx2.AsyncClient, imodel: str, version: str) -> str:
    versions = (await http.get(f"{imodel}/namedversions?name={version}")).json()["namedVersions"]
    return f"{imodel}/namedversions/{versions[0]['id']}/checkpoint"


@pytest.mark.parametrize(
    ("imodel", "version", "state"), [(SURVEY, "Condition 2025", "failed"), (BRIDGE, "Concept", "notGenerated")]
)
async def test_failed_or_missing_checkpoint_is_restarted(
    http: httpx2.AsyncClient, clock: Clock, imodel: str, version: str, state: str
) -> None:
    path = await find_checkpoint_path(http, imodel, version)
    checkpoint = (await http.get(path)).json()["checkpoint"]
    assert (checkpoint["state"], checkpoint["size"], checkpoint["_links"]["download"]) == (state, 0, None)
    answer = await http.put(path)
    assert (answer.status_code, answer.json()["checkpoint"]["state"]) == (200, "scheduled")
    assert (await http.put(path)).json()["checkpoint"]["state"] == "scheduled"
    clock.forward(10)
    assert (await http.get(path)).json()["checkpoint"]["state"] == "successful"


async def test_successful_checkpoint_is_not_restarted(http: httpx2.AsyncClient) -> None:
    path = await find_checkpoint_path(http, ROADS, "30%25 Design")
    checkpoint = (await http.put(path)).json()["checkpoint"]
    assert (checkpoint["state"], checkpoint["size"] > 0) == ("successful", True)


async def test_changeset_with_failure_marker_fails_its_checkpoint(http: httpx2.AsyncClient, clock: Clock) -> None:
    content = b"sandbox:broken".ljust(len(FILE))
    changeset = (await start_push(http, await acquire_briefcase(http), 1)).json()["changeset"]
    await upload_file(http, changeset, content)
    await complete_push(http, changeset)
    path = f"{DRAINS}/namedversions/{await create_version(http, 1)}/checkpoint"
    clock.forward(10)
    assert (await http.get(path)).json()["checkpoint"]["state"] == "failed"


async def test_changeset_links_to_current_or_preceding_checkpoint(http: httpx2.AsyncClient, clock: Clock) -> None:
    number = await acquire_briefcase(http)
    for index in (1, 2, 3):
        await push(http, number, index)
    await create_version(http, 2)
    checkpoints = []
    for _ in range(2):
        changesets = (await http.get(CHANGESETS, headers={"Prefer": "return=representation"})).json()["changesets"]
        hrefs = [changeset["_links"]["currentOrPrecedingCheckpoint"]["href"] for changeset in changesets]
        checkpoints.append([href.split("/")[-2] for href in hrefs])
        clock.forward(10)
    assert checkpoints == [["0", "0", "0"], ["0", "2", "2"]]


async def test_checkpoints_require_imodels_read(http_as: Connect) -> None:
    assert (await http_as("priya").get(f"{ROADS}/briefcases/checkpoint")).status_code == 403
    assert (await http_as("luca").get(f"{ROADS}/briefcases/checkpoint")).status_code == 404


async def test_push_in_progress_has_no_named_version_and_no_checkpoint(http: httpx2.AsyncClient) -> None:
    await start_push(http, await acquire_briefcase(http), 1)
    assert (await http.get(f"{CHANGESETS}/1/checkpoint")).json()["error"]["code"] == "ChangesetNotFound"
    body = {"name": "x", "changesetId": make_changeset_id(1)}
    answer = await http.post(f"{DRAINS}/namedversions", json=body)
    assert answer.json()["error"]["code"] == "ChangesetNotFound"
