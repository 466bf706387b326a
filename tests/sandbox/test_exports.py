"""Exports: what is asked for, when it is there, and what the file holds."""

import csv
import gzip
import io
import json
import sqlite3
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from itwin_mcp.sandbox import Sandbox
from tests.sandbox.conftest import ORIGIN, Clock

pytestmark = pytest.mark.anyio
Connect = Callable[[str | None], httpx2.AsyncClient]
HOUR = 3600.0


async def start(http: httpx2.AsyncClient, **request: object) -> str:
    answer = await http.post("/itwins/exports", json={"outputFormat": "JsonGZip"} | request)
    assert answer.status_code == 201, answer.text
    export_id: str = answer.json()["export"]["id"]
    return export_id


async def finished(http_as: Connect, clock: Clock, user: str = "anna", **request: object) -> bytes:
    """The content of the file, fetched without a token as its link wants it."""
    http = http_as(user)
    export_id = await start(http, **request)
    clock.forward(10)
    url = (await http.get(f"/itwins/exports/{export_id}")).json()["export"]["outputUrl"]
    answer = await http_as(None).get(url)
    assert answer.status_code == 200, answer.text
    return answer.content


async def test_an_export_is_queued_then_in_progress_then_completed(http: httpx2.AsyncClient, clock: Clock) -> None:
    answer = await http.post("/itwins/exports", json={"outputFormat": "csv"})
    export = answer.json()["export"]
    assert answer.status_code == 201
    assert export | {"id": "", "createdBy": ""} == {
        "id": "",
        "request": {"queryScope": "MemberOfiTwin", "includeInactive": False, "outputFormat": "Csv"},
        "status": "Queued",
        "outputUrl": None,
        "createdBy": "",
        "createdDateTime": "2026-11-20T08:00:00.0000000Z",
        "startedDateTime": None,
        "completedDateTime": None,
    }
    url = f"/itwins/exports/{export['id']}"
    clock.forward(5)
    begun = (await http.get(url)).json()["export"]
    assert (begun["status"], begun["outputUrl"]) == ("InProgress", None)
    clock.forward(5)
    done = (await http.get(url)).json()["export"]
    assert (done["status"], done["startedDateTime"], done["completedDateTime"]) == (
        "Completed",
        "2026-11-20T08:00:05.0000000Z",
        "2026-11-20T08:00:10.0000000Z",
    )


async def test_without_select_the_file_holds_the_minimal_properties(http_as: Connect, clock: Clock) -> None:
    itwins = json.loads(gzip.decompress(await finished(http_as, clock, subClass="Portfolio,Program")))["iTwins"]
    assert [one["number"] for one in itwins] == ["MER-PF-001", "MER-PG-2026"]
    assert set(itwins[0]) == {"id", "class", "subClass", "type", "number", "displayName"}


async def test_filter_and_select_shape_the_file(http_as: Connect, clock: Clock) -> None:
    wanted = {"filter": "status+in+['active','Inactive']+and+contains('RAMP',displayName)", "select": "number,status"}
    content = await finished(http_as, clock, outputFormat="CsvGZip", **wanted)
    rows = list(csv.reader(io.StringIO(gzip.decompress(content).decode())))
    assert rows == [["number", "status"], ["NL-A12-0029", "Inactive"]]


async def test_an_archive_holds_the_same_json(http_as: Connect, clock: Clock) -> None:
    content = await finished(http_as, clock, outputFormat="JsonZipArchive", subClass="Program")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (name,) = archive.namelist()
        assert json.loads(archive.read(name))["iTwins"][0]["number"] == "MER-PG-2026"


async def test_a_file_holds_only_what_its_user_may_see(http_as: Connect, clock: Clock) -> None:
    text = (await finished(http_as, clock, "priya", outputFormat="Csv", select="number")).decode().split()
    assert text == ["number", "NL-A12-0042", "NL-MAAS-0017", "NL-A12-0042-WP03"]


async def test_inactive_itwins_are_left_out_unless_asked_for(http_as: Connect, clock: Clock) -> None:
    assert b"NL-A12-0029" not in await finished(http_as, clock, outputFormat="Csv")
    assert b"NL-A12-0029" in await finished(http_as, clock, outputFormat="Csv", includeInactive=True)


async def test_an_administrator_exports_the_whole_organization(http_as: Connect, clock: Clock) -> None:
    project = {"class": "Endeavor", "subClass": "Project", "displayName": "x", "number": "T-1"}
    parent = (await http_as("tomasz").get("/itwins?number=NL-A12-0042")).json()["iTwins"][0]["id"]
    assert (await http_as("tomasz").post("/itwins", json=project | {"parentId": parent})).status_code == 201
    mine = await finished(http_as, clock, outputFormat="Csv")
    everyones = await finished(http_as, clock, outputFormat="Csv", queryScope="organizationadmin")
    assert (b"T-1" in mine, b"T-1" in everyones) == (False, True)
    refused = await http_as("tomasz").post(
        "/itwins/exports", json={"outputFormat": "Csv", "queryScope": "OrganizationAdmin"}
    )
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "InsufficientPermissions")


@pytest.mark.parametrize(
    ("change", "code", "target"),
    [
        ({"outputFormat": "Xml"}, "InvalidValue", "outputFormat"),
        ({"outputFormat": None}, "MissingRequiredProperty", "outputFormat"),
        ({"queryScope": "Everything"}, "InvalidValue", "queryScope"),
        ({"subClass": "Asset,Nope"}, "InvalidValue", "subClass"),
        ({"select": "id,nope,neither"}, "InvalidValue", "$select"),
        ({"filter": "number eq"}, "InvalidValue", "$filter"),
    ],
)
async def test_a_wrong_request_is_told_at_once(
    http: httpx2.AsyncClient, change: dict[str, object], code: str, target: str
) -> None:
    answer = await http.post("/itwins/exports", json={"outputFormat": "Csv"} | change)
    assert answer.status_code == 422
    assert [(one["code"], one["target"]) for one in answer.json()["error"]["details"]] == [(code, target)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "invalid filter syntax without proper operators",
            "Syntax error at position 14 in 'invalid filter syntax without proper operators'.",
        ),
        ("number eq 'a' and", "Syntax error at position 17 in 'number eq 'a' and'."),
        ("nope eq 'a'", "Could not find a property named 'nope' on type 'iTwin'."),
    ],
)
async def test_a_filter_that_is_none_says_why(http: httpx2.AsyncClient, text: str, message: str) -> None:
    answer = await http.post("/itwins/exports", json={"outputFormat": "Csv", "filter": text})
    assert (answer.status_code, answer.json()["error"]["message"]) == (422, message)


async def test_a_user_has_one_unfinished_export_and_three_an_hour(http_as: Connect, clock: Clock) -> None:
    http = http_as("anna")
    quotas: list[list[tuple[str, str]]] = []
    for _ in range(3):
        await start(http)
        refused = await http.post("/itwins/exports", json={"outputFormat": "Csv"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "InvalidiTwinsRequest")
        quotas.append([(one["code"], one["target"]) for one in refused.json()["error"]["details"]])
        clock.forward(10)
    running, hourly = [("ResourceQuotaExceeded", name) for name in ("SimultaneousJobsQuota", "MaxJobsPerHourQuota")]
    assert quotas == [[running], [running], [running, hourly]]
    refused = await http.post("/itwins/exports", json={"outputFormat": "Csv"})
    assert refused.json()["error"]["details"][0]["target"] == "MaxJobsPerHourQuota"
    clock.forward(HOUR)
    assert (await http_as("anna").post("/itwins/exports", json={"outputFormat": "Csv"})).status_code == 201


async def test_two_exports_are_made_at_a_time_and_the_third_waits(http_as: Connect, clock: Clock) -> None:
    users = [http_as(name) for name in ("anna", "tomasz", "priya")]
    ids = [await start(user) for user in users]

    async def states() -> list[str]:
        found = [(await user.get(f"/itwins/exports/{one}")).json() for user, one in zip(users, ids, strict=True)]
        return [one["export"]["status"] for one in found]

    clock.forward(5)
    assert await states() == ["InProgress", "InProgress", "Queued"]
    clock.forward(5)
    assert await states() == ["Completed", "Completed", "InProgress"]
    clock.forward(5)
    assert await states() == ["Completed"] * 3


async def test_after_four_hours_neither_export_nor_file_is_left(http_as: Connect, clock: Clock) -> None:
    export_id = await start(http_as("anna"))
    clock.forward(4 * HOUR - 1)
    http = http_as("anna")
    (mine,) = (await http.get("/itwins/exports")).json()["exports"]
    assert (await http_as(None).get(mine["outputUrl"])).status_code == 200
    clock.forward(1)
    assert (await http.get("/itwins/exports")).json() == {"exports": []}
    gone = await http.get(f"/itwins/exports/{export_id}")
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "iTwinExportNotFound")
    assert (await http_as(None).get(mine["outputUrl"])).status_code in (403, 404)


async def test_a_deleted_file_takes_no_space(tmp_path: Path, clock: Clock) -> None:
    with Sandbox.open(tmp_path / "box.db", clock=clock, job_seconds=10) as sandbox:
        transport = httpx2.ASGITransport(sandbox.app)

        async def blobs() -> int:
            headers = {"Authorization": f"Bearer {sandbox.token()}"}
            async with httpx2.AsyncClient(transport=transport, base_url=ORIGIN, headers=headers) as http:
                await http.get("/itwins/exports")
            with closing(sqlite3.connect(tmp_path / "box.db")) as database:
                count: int = database.execute("SELECT COUNT(*) FROM blobs").fetchone()[0]
            return count

        before = await blobs()
        headers = {"Authorization": f"Bearer {sandbox.token()}"}
        async with httpx2.AsyncClient(transport=transport, base_url=ORIGIN, headers=headers) as http:
            await start(http)
        clock.forward(10)
        assert await blobs() == before + 1
        clock.forward(4 * HOUR)
        assert await blobs() == before


async def test_the_newest_export_comes_first_and_nobody_sees_anothers(http_as: Connect, clock: Clock) -> None:
    first = await start(http_as("anna"))
    clock.forward(10)
    second = await start(http_as("anna"))
    assert [one["id"] for one in (await http_as("anna").get("/itwins/exports")).json()["exports"]] == [second, first]
    assert (await http_as("priya").get("/itwins/exports")).json() == {"exports": []}
    assert (await http_as("priya").get(f"/itwins/exports/{first}")).status_code == 404
