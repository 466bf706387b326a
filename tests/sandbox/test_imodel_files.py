"""The files behind baselines and checkpoints: SQLite iModels with the ids of the iModel that they belong to."""

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

from itwin_mcp.sandbox import Sandbox, imodel_file
from itwin_mcp.sandbox.seed import seeded_id
from tests.sandbox.conftest import Clock
from tests.sandbox.test_changesets import DRAINS, FILE, briefcase, changeset_id, push, store

pytestmark = pytest.mark.anyio
INTERCHANGE = seeded_id("itwin", "interchange")
ROADS = f"/imodels/{seeded_id('imodel', 'roads')}"


async def baseline(http: httpx2.AsyncClient, imodel: str) -> dict[str, Any]:
    found: dict[str, Any] = (await http.get(f"{imodel}/baselinefile")).json()["baselineFile"]
    return found


async def checkpoint(http: httpx2.AsyncClient, imodel: str, index: int) -> dict[str, Any]:
    found: dict[str, Any] = (await http.get(f"{imodel}/changesets/{index}/checkpoint")).json()["checkpoint"]
    return found


async def download(http: httpx2.AsyncClient, entity: dict[str, Any]) -> bytes:
    """The file, which has the size and the checksum that the platform announces."""
    answer = await store(http, entity["_links"]["download"]["href"])
    assert answer.status_code == 200
    assert len(answer.content) == entity.get("fileSize", entity.get("size"))
    digest = hashlib.md5(answer.content).digest()
    assert answer.headers["content-md5"] == base64.b64encode(digest).decode()
    return answer.content


async def upload_baseline(http: httpx2.AsyncClient, clock: Clock, content: bytes) -> str:
    """The path of a new iModel that begins with this file."""
    body = {"iTwinId": INTERCHANGE, "name": "Uploaded", "baselineFile": {"size": len(content)}}
    imodel = (await http.post("/imodels", json=body)).json()["iModel"]
    await store(http, imodel["_links"]["upload"]["href"], content)
    await http.post(imodel["_links"]["complete"]["href"], json={})
    clock.forward(10)
    return f"/imodels/{imodel['id']}"


def identity(content: bytes) -> tuple[str, str, dict[str, Any]]:
    """The ids of the iModel and its iTwin, and the changeset, where iTwin.js reads them."""
    with closing(sqlite3.connect(":memory:")) as sql:
        sql.deserialize(content)
        assert sql.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert sql.execute("SELECT COUNT(*) FROM bis_Element").fetchone()[0] > 0
        guids = dict(sql.execute("SELECT Name, Data FROM be_Prop WHERE Namespace = 'be_Db' AND Data IS NOT NULL"))
        local = dict(sql.execute("SELECT Name, Val FROM be_Local"))
    changeset: dict[str, Any] = json.loads(local["parentChangeSet"])
    assert changeset["id"] == local["ParentChangeSetId"]
    return str(uuid.UUID(bytes=guids["DbGuid"])), str(uuid.UUID(bytes=guids["ProjectGuid"])), changeset


async def test_seeded_baseline_is_an_imodel_with_its_own_ids(http: httpx2.AsyncClient) -> None:
    found = await baseline(http, ROADS)
    imodel = (await http.get(ROADS)).json()["iModel"]
    content = await download(http, found)
    assert len(content) == imodel_file.SIZE
    assert identity(content) == (imodel["id"], imodel["iTwinId"], {"id": "", "index": 0})


async def test_seeded_checkpoint_is_as_of_its_changeset(http: httpx2.AsyncClient) -> None:
    found = await checkpoint(http, ROADS, 8)
    assert identity(await download(http, found))[2] == {"id": found["changesetId"], "index": 8}


@pytest.mark.parametrize("mode", [{}, {"creationMode": "empty"}], ids=["at once", "in its own time"])
async def test_new_imodel_has_a_baseline_and_a_checkpoint_that_open(
    http: httpx2.AsyncClient, clock: Clock, mode: dict[str, str]
) -> None:
    body = {"iTwinId": INTERCHANGE, "name": "New"} | mode
    imodel = (await http.post("/imodels", json=body)).json()["iModel"]
    clock.forward(10)
    path = f"/imodels/{imodel['id']}"
    expected = (imodel["id"], INTERCHANGE, {"id": "", "index": 0})
    assert identity(await download(http, await baseline(http, path))) == expected
    assert identity(await download(http, await checkpoint(http, path, 0))) == expected
    acquired = (await http.post(f"{path}/briefcases", json={})).json()["briefcase"]
    assert acquired["fileSize"] == imodel_file.SIZE


@pytest.mark.parametrize("kind", ["clone", "fork"])
async def test_copy_in_another_itwin_has_ids_of_its_own(http: httpx2.AsyncClient, clock: Clock, kind: str) -> None:
    other = next(one["id"] for one in (await http.get("/itwins")).json()["iTwins"] if one["id"] != INTERCHANGE)
    answer = await http.post(f"{ROADS}/{kind}", json={"iTwinId": other, "name": "Copy"})
    clock.forward(10)
    copied = urlsplit(answer.headers["location"]).path
    assert identity(await download(http, await baseline(http, copied)))[:2] == (copied.rpartition("/")[2], other)


async def test_checkpoint_leaves_pushed_changesets_to_the_client(http: httpx2.AsyncClient, clock: Clock) -> None:
    await push(http, await briefcase(http), 1)
    await http.post(f"{DRAINS}/namedversions", json={"name": "First", "changesetId": changeset_id(1)})
    clock.forward(10)
    found = await checkpoint(http, DRAINS, 1)
    assert found["changesetId"] == changeset_id(1)
    assert identity(await download(http, found))[2] == {"id": "", "index": 0}


async def test_checkpoint_includes_the_seeded_changesets(http: httpx2.AsyncClient, clock: Clock) -> None:
    """They stand in for files that no client can apply; only what was pushed since is left to the client."""
    last = (await http.get(f"{ROADS}/changesets?$orderBy=index desc&$top=1")).json()["changesets"][0]
    number = (await http.post(f"{ROADS}/briefcases", json={})).json()["briefcase"]["briefcaseId"]
    body = {"id": changeset_id(99), "parentId": last["id"], "briefcaseId": number, "fileSize": len(FILE)}
    links = (await http.post(f"{ROADS}/changesets", json=body)).json()["changeset"]["_links"]
    await store(http, links["upload"]["href"], FILE)
    await http.patch(links["complete"]["href"], json={"state": "fileUploaded", "briefcaseId": number})
    await http.post(f"{ROADS}/namedversions", json={"name": "Newest", "changesetId": changeset_id(99)})
    clock.forward(10)
    found = await checkpoint(http, ROADS, last["index"] + 1)
    assert identity(await download(http, found))[2] == {"id": last["id"], "index": last["index"]}


async def test_checkpoint_of_an_uploaded_baseline_serves_its_bytes(http: httpx2.AsyncClient, clock: Clock) -> None:
    content = imodel_file.build(str(uuid.uuid4()), INTERCHANGE)
    path = await upload_baseline(http, clock, content)
    number = (await http.post(f"{path}/briefcases", json={})).json()["briefcase"]["briefcaseId"]
    body = {"id": changeset_id(1), "briefcaseId": number, "fileSize": len(FILE)}
    links = (await http.post(f"{path}/changesets", json=body)).json()["changeset"]["_links"]
    await store(http, links["upload"]["href"], FILE)
    await http.patch(links["complete"]["href"], json={"state": "fileUploaded", "briefcaseId": number})
    await http.post(f"{path}/namedversions", json={"name": "First", "changesetId": changeset_id(1)})
    clock.forward(10)
    for index in (0, 1):
        assert await download(http, await checkpoint(http, path, index)) == content


@pytest.mark.parametrize("spoil", [None, "loop", "not an iModel"])
async def test_copy_of_an_uploaded_imodel_has_ids_of_its_own(
    http: httpx2.AsyncClient, clock: Clock, spoil: str | None
) -> None:
    content = uploaded(spoil)
    imodel = await upload_baseline(http, clock, content)
    other = next(one["id"] for one in (await http.get("/itwins")).json()["iTwins"] if one["id"] != INTERCHANGE)
    answer = await http.post(f"{imodel}/clone", json={"iTwinId": other, "name": "Copy"})
    clock.forward(10)
    copied = urlsplit(answer.headers["location"]).path
    clone = await download(http, await baseline(http, copied))
    assert await download(http, await baseline(http, imodel)) == content
    if spoil is None:
        assert identity(clone)[:2] == (copied.rpartition("/")[2], other)
    else:
        assert clone == content


def uploaded(spoil: str | None) -> bytes:
    """An iModel as iTwin.js leaves it, in WAL mode; or one whose trigger has no end, or another kind of database."""
    content = imodel_file.build(str(uuid.uuid4()), INTERCHANGE)
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as sql:
        sql.deserialize(content)
        if spoil == "loop":
            endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n"
            sql.execute(f"CREATE TRIGGER endless AFTER INSERT ON be_Prop BEGIN {endless}; END")
        elif spoil == "not an iModel":
            sql.execute("DROP TABLE be_Prop")
        content = sql.serialize()
    return content[:18] + b"\2\2" + content[20:]


async def test_file_is_the_same_whole_in_parts_and_in_another_sandbox(
    http: httpx2.AsyncClient, http_as: Callable[[str | None], httpx2.AsyncClient], clock: Clock
) -> None:
    found = await baseline(http, ROADS)
    whole = await download(http, found)
    href = found["_links"]["download"]["href"]
    half = len(whole) // 2
    parts = [
        (await http_as(None).get(href, headers={"Range": span})).content
        for span in (f"bytes=0-{half - 1}", f"bytes={half}-")
    ]
    assert b"".join(parts) == whole
    imodel_file.build.cache_clear()
    with Sandbox.open(clock=clock) as other:
        headers = {"Authorization": f"Bearer {other.token()}"}
        transport = httpx2.ASGITransport(other.app)
        async with httpx2.AsyncClient(transport=transport, base_url="https://api.bentley.com", headers=headers) as http:
            assert await download(http, await baseline(http, ROADS)) == whole


async def test_links_lead_to_a_reserved_host_unless_the_sandbox_listens(http: httpx2.AsyncClient) -> None:
    links = [
        (await baseline(http, ROADS))["_links"]["download"]["href"],
        (await checkpoint(http, ROADS, 8))["directoryAccessInfo"]["baseUrl"],
    ]
    assert {urlsplit(link).hostname for link in links} == {"storage.sandbox.invalid"}
