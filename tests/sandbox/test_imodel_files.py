"""The iModel files of baselines and checkpoints."""

import base64
import hashlib
import json
import sqlite3
import uuid
from collections.abc import Callable
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from itwin_mcp.sandbox import Sandbox
from itwin_mcp.sandbox.seed import seeded_id
from itwin_mcp.sandbox.storage import imodel_file
from tests.sandbox.conftest import Clock
from tests.sandbox.test_changesets import DRAINS, FILE, acquire_briefcase, make_changeset_id, push, request_storage

pytestmark = pytest.mark.anyio
INTERCHANGE = seeded_id("itwin", "interchange")
ROADS = f"/imodels/{seeded_id('imodel', 'roads')}"


async def get_baseline(http: httpx2.AsyncClient, imodel: str) -> dict[str, Any]:
    baseline: dict[str, Any] = (await http.get(f"{imodel}/baselinefile")).json()["baselineFile"]
    return baseline


async def get_checkpoint(http: httpx2.AsyncClient, imodel: str, index: int) -> dict[str, Any]:
    checkpoint: dict[str, Any] = (await http.get(f"{imodel}/changesets/{index}/checkpoint")).json()["checkpoint"]
    return checkpoint


async def download(http: httpx2.AsyncClient, entity: dict[str, Any]) -> bytes:
    """Download a file and check its size and MD5."""
    answer = await request_storage(http, entity["_links"]["download"]["href"])
    assert answer.status_code == 200
    assert len(answer.content) == entity.get("fileSize", entity.get("size"))
    digest = hashlib.md5(answer.content).digest()
    assert answer.headers["content-md5"] == base64.b64encode(digest).decode()
    return answer.content


async def upload_baseline(http: httpx2.AsyncClient, clock: Clock, content: bytes) -> str:
    """Create an iModel from this file and return its path."""
    body = {"iTwinId": INTERCHANGE, "name": "Uploaded", "baselineFile": {"size": len(content)}}
    imodel = (await http.post("/imodels", json=body)).json()["iModel"]
    await request_storage(http, imodel["_links"]["upload"]["href"], content)
    await http.post(imodel["_links"]["complete"]["href"], json={})
    clock.forward(10)
    return f"/imodels/{imodel['id']}"


def read_ids(content: bytes) -> tuple[str, str, dict[str, Any]]:
    """Return the ids of the iModel and its iTwin, and the changeset, from the tables that iTwin.js reads."""
    with closing(sqlite3.connect(":memory:")) as sql:
        sql.deserialize(content)
        assert sql.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert sql.execute("SELECT COUNT(*) FROM bis_Element").fetchone()[0] > 0
        guids = dict(sql.execute("SELECT Name, Data FROM be_Prop WHERE Namespace = 'be_Db' AND Data IS NOT NULL"))
        local = dict(sql.execute("SELECT Name, Val FROM be_Local"))
    changeset: dict[str, Any] = json.loads(local["parentChangeSet"])
    assert changeset["id"] == local["ParentChangeSetId"]
    return str(uuid.UUID(bytes=guids["DbGuid"])), str(uuid.UUID(bytes=guids["ProjectGuid"])), changeset


async def test_seeded_baseline_file_contains_ids_of_its_imodel_and_itwin(http: httpx2.AsyncClient) -> None:
    baseline = await get_baseline(http, ROADS)
    imodel = (await http.get(ROADS)).json()["iModel"]
    content = await download(http, baseline)
    assert len(content) == imodel_file.SIZE
    assert read_ids(content) == (imodel["id"], imodel["iTwinId"], {"id": "", "index": 0})


async def test_seeded_checkpoint_file_names_its_changeset(http: httpx2.AsyncClient) -> None:
    checkpoint = await get_checkpoint(http, ROADS, 8)
    assert read_ids(await download(http, checkpoint))[2] == {"id": checkpoint["changesetId"], "index": 8}


@pytest.mark.parametrize("mode", [{}, {"creationMode": "empty"}], ids=["without mode", "empty"])
async def test_new_imodel_has_readable_baseline_and_checkpoint_files(
    http: httpx2.AsyncClient, clock: Clock, mode: dict[str, str]
) -> None:
    body = {"iTwinId": INTERCHANGE, "name": "New"} | mode
    imodel = (await http.post("/imodels", json=body)).json()["iModel"]
    clock.forward(10)
    path = f"/imodels/{imodel['id']}"
    expected = (imodel["id"], INTERCHANGE, {"id": "", "index": 0})
    assert read_ids(await download(http, await get_baseline(http, path))) == expected
    assert read_ids(await download(http, await get_checkpoint(http, path, 0))) == expected
    acquired = (await http.post(f"{path}/briefcases", json={})).json()["briefcase"]
    assert acquired["fileSize"] == imodel_file.SIZE


@pytest.mark.parametrize("kind", ["clone", "fork"])
async def test_clone_in_another_itwin_has_its_own_ids(http: httpx2.AsyncClient, clock: Clock, kind: str) -> None:
    other = next(itwin["id"] for itwin in (await http.get("/itwins")).json()["iTwins"] if itwin["id"] != INTERCHANGE)
    answer = await http.post(f"{ROADS}/{kind}", json={"iTwinId": other, "name": "Copy"})
    clock.forward(10)
    copied = urlsplit(answer.headers["location"]).path
    assert read_ids(await download(http, await get_baseline(http, copied)))[:2] == (copied.rpartition("/")[2], other)


async def test_checkpoint_file_does_not_include_pushed_changesets(http: httpx2.AsyncClient, clock: Clock) -> None:
    await push(http, await acquire_briefcase(http), 1)
    await http.post(f"{DRAINS}/namedversions", json={"name": "First", "changesetId": make_changeset_id(1)})
    clock.forward(10)
    checkpoint = await get_checkpoint(http, DRAINS, 1)
    assert checkpoint["changesetId"] == make_changeset_id(1)
    assert read_ids(await download(http, checkpoint))[2] == {"id": "", "index": 0}


async def test_checkpoint_includes_the_seeded_changesets(http: httpx2.AsyncClient, clock: Clock) -> None:
    """No client can apply the files of seeded changesets, so the checkpoint must include them."""
    last = (await http.get(f"{ROADS}/changesets?$orderBy=index desc&$top=1")).json()["changesets"][0]
    number = (await http.post(f"{ROADS}/briefcases", json={})).json()["briefcase"]["briefcaseId"]
    body = {"id": make_changeset_id(99), "parentId": last["id"], "briefcaseId": number, "fileSize": len(FILE)}
    links = (await http.post(f"{ROADS}/changesets", json=body)).json()["changeset"]["_links"]
    await request_storage(http, links["upload"]["href"], FILE)
    await http.patch(links["complete"]["href"], json={"state": "fileUploaded", "briefcaseId": number})
    await http.post(f"{ROADS}/namedversions", json={"name": "Newest", "changesetId": make_changeset_id(99)})
    clock.forward(10)
    checkpoint = await get_checkpoint(http, ROADS, last["index"] + 1)
    assert read_ids(await download(http, checkpoint))[2] == {"id": last["id"], "index": last["index"]}


async def test_checkpoint_of_an_uploaded_baseline_is_the_uploaded_file(http: httpx2.AsyncClient, clock: Clock) -> None:
    content = imodel_file.build_imodel_file(str(uuid.uuid4()), INTERCHANGE)
    path = await upload_baseline(http, clock, content)
    number = (await http.post(f"{path}/briefcases", json={})).json()["briefcase"]["briefcaseId"]
    body = {"id": make_changeset_id(1), "briefcaseId": number, "fileSize": len(FILE)}
    links = (await http.post(f"{path}/changesets", json=body)).json()["changeset"]["_links"]
    await request_storage(http, links["upload"]["href"], FILE)
    await http.patch(links["complete"]["href"], json={"state": "fileUploaded", "briefcaseId": number})
    await http.post(f"{path}/namedversions", json={"name": "First", "changesetId": make_changeset_id(1)})
    clock.forward(10)
    for index in (0, 1):
        assert await download(http, await get_checkpoint(http, path, index)) == content


@pytest.mark.parametrize("spoil", [None, "loop", "not an iModel"])
async def test_clone_of_an_uploaded_imodel_has_its_own_ids(
    http: httpx2.AsyncClient, clock: Clock, spoil: str | None
) -> None:
    content = make_imodel(spoil)
    imodel = await upload_baseline(http, clock, content)
    other = next(itwin["id"] for itwin in (await http.get("/itwins")).json()["iTwins"] if itwin["id"] != INTERCHANGE)
    answer = await http.post(f"{imodel}/clone", json={"iTwinId": other, "name": "Copy"})
    clock.forward(10)
    copied = urlsplit(answer.headers["location"]).path
    clone = await download(http, await get_baseline(http, copied))
    assert await download(http, await get_baseline(http, imodel)) == content
    if spoil is None:
        assert read_ids(clone)[:2] == (copied.rpartition("/")[2], other)
    else:
        assert clone == content


def make_imodel(spoil: str | None) -> bytes:
    """Make an iModel in WAL mode, as iTwin.js does, optionally with an endless trigger or without its tables."""
    content = imodel_file.build_imodel_file(str(uuid.uuid4()), INTERCHANGE)
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as sql:
        sql.deserialize(content)
        if spoil == "loop":
            endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n"
            sql.execute(f"CREATE TRIGGER endless AFTER INSERT ON be_Prop BEGIN {endless}; END")
        elif spoil == "not an iModel":
            sql.execute("DROP TABLE be_Prop")
        content = sql.serialize()
    return content[:18] + b"\2\2" + content[20:]


async def test_imodel_file_is_the_same_in_ranges_and_in_another_sandbox(
    http: httpx2.AsyncClient, http_as: Callable[[str | None], httpx2.AsyncClient], clock: Clock
) -> None:
    baseline = await get_baseline(http, ROADS)
    whole = await download(http, baseline)
    href = baseline["_links"]["download"]["href"]
    half = len(whole) // 2
    parts = [
        (await http_as(None).get(href, headers={"Range": span})).content
        for span in (f"bytes=0-{half - 1}", f"bytes={half}-")
    ]
    assert b"".join(parts) == whole
    imodel_file.build_imodel_file.cache_clear()
    with Sandbox.open(clock=clock) as other:
        headers = {"Authorization": f"Bearer {other.token()}"}
        transport = httpx2.ASGITransport(other.app)
        async with httpx2.AsyncClient(transport=transport, base_url="https://api.bentley.com", headers=headers) as http:
            assert await download(http, await get_baseline(http, ROADS)) == whole


async def test_storage_links_use_a_reserved_host_without_a_listener(http: httpx2.AsyncClient) -> None:
    links = [
        (await get_baseline(http, ROADS))["_links"]["download"]["href"],
        (await get_checkpoint(http, ROADS, 8))["directoryAccessInfo"]["baseUrl"],
    ]
    assert {urlsplit(link).hostname for link in links} == {"storage.sandbox.invalid"}
