"""Exports: the request, its states, and the content of the file."""

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


async def start_export(http: httpx2.AsyncClient, **request: object) -> str:
    answer = await http.post("/itwins/exports", json={"outputFormat": "JsonGZip"} | request)
    assert answer.status_code == 201, answer.text
    export_id: str = answer.json()["export"]["id"]
    return export_id


async def export_file(http_as: Connect, clock: Clock, user: str = "anna", **request: object) -> bytes:
    """Run an export and return its file, downloaded without a token."""
    http = http_as(user)
    export_id = await start_export(http, **request)
    clock.forward(10)
    url = (await http.get(f"/itwins/exports/{export_id}")).json()["export"]["outputUrl"]
    answer = await http_as(None).get(url)
    assert answer.status_code == 200, answer.text
    return answer.content


async def test_export_is_queued_then_in_progress_then_completed(http: httpx2.AsyncClient, clock: Clock) -> None:
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
    export = (await http.get(url)).json()["export"]
    assert (export["status"], export["outputUrl"]) == ("InProgress", None)
    clock.forward(5)
    export = (await http.get(url)).json()["export"]
    assert (export["status"], export["startedDateTime"], export["completedDateTime"]) == (
        "Completed",
        "2026-11-20T08:00:05.0000000Z",
        "2026-11-20T08:00:10.0000000Z",
    )


async def test_export_without_select_has_the_minimal_properties(http_as: Connect, clock: Clock) -> None:
    itwins = json.loads(gzip.decompress(await export_file(http_as, clock, subClass="Portfolio,Program")))["iTwins"]
    assert [itwin["number"] for itwin in itwins] == ["MER-PF-001", "MER-PG-2026"]
    assert set(itwins[0]) == {"id", "class", "subClass", "type", "number", "displayName"}


async def test_export_applies_filter_and_select(http_as: Connect, clock: Clock) -> None:
    query = {"filter": "status+in+['active','Inactive']+and+contains('RAMP',displayName)", "select": "number,status"}
    content = await export_file(http_as, clock, outputFormat="CsvGZip", **query)
    rows = list(csv.reader(io.StringIO(gzip.decompress(content).decode())))
    assert rows == [["number", "status"], ["NL-A12-0029", "Inactive"]]


async def test_json_zip_archive_export_contains_json(http_as: Connect, clock: Clock) -> None:
    content = await export_file(http_as, clock, outputFormat="JsonZipArchive", subClass="Program")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (name,) = archive.namelist()
        assert json.loads(archive.read(name))["iTwins"][0]["number"] == "MER-PG-2026"


async def test_export_has_only_itwins_that_its_user_may_see(http_as: Connect, clock: Clock) -> None:
    text = (await export_file(http_as, clock, "priya", outputFormat="Csv", select="number")).decode().split()
    assert text == ["number", "NL-A12-0042", "NL-MAAS-0017", "NL-A12-0042-WP03"]


async def test_export_omits_inactive_itwins_by_default(http_as: Connect, clock: Clock) -> None:
    assert b"NL-A12-0029" not in await export_file(http_as, clock, outputFormat="Csv")
    assert b"NL-A12-0029" in await export_file(http_as, clock, outputFormat="Csv", includeInactive=True)


async def test_administrator_exports_the_whole_organization(http_as: Connect, clock: Clock) -> None:
    project = {"class": "Endeavor", "subClass": "Project", "displayName": "x", "number": "T-1"}
    parent = (await http_as("tomasz").get("/itwins?number=NL-A12-0042")).json()["iTwins"][0]["id"]
    assert (await http_as("tomasz").post("/itwins", json=project | {"parentId": parent})).status_code == 201
    own = await export_file(http_as, clock, outputFormat="Csv")
    whole = await export_file(http_as, clock, outputFormat="Csv", queryScope="organizationadmin")
    assert (b"T-1" in own, b"T-1" in whole) == (False, True)
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
async def test_create_export_rejects_invalid_request_at_once(
    http: httpx2.AsyncClient, change: dict[str, object], code: str, target: str
) -> None:
    answer = await http.post("/itwins/exports", json={"outputFormat": "Csv"} | change)
    assert answer.status_code == 422
    assert [(detail["code"], detail["target"]) for detail in answer.json()["error"]["details"]] == [(code, target)]


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
async def test_create_export_reports_the_syntax_error_of_a_filter(
    http: httpx2.AsyncClient, text: str, message: str
) -> None:
    answer = await http.post("/itwins/exports", json={"outputFormat": "Csv", "filter": text})
    assert (answer.status_code, answer.json()["error"]["message"]) == (422, message)


async def test_create_export_enforces_quotas_of_running_and_hourly_exports(http_as: Connect, clock: Clock) -> None:
    http = http_as("anna")
    quotas: list[list[tuple[str, str]]] = []
    for _ in range(3):
        await start_export(http)
        refused = await http.post("/itwins/exports", json={"outputFormat": "Csv"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "InvalidiTwinsRequest")
        quotas.append([(detail["code"], detail["target"]) for detail in refused.json()["error"]["details"]])
        clock.forward(10)
    running, hourly = [("ResourceQuotaExceeded", name) for name in ("SimultaneousJobsQuota", "MaxJobsPerHourQuota")]
    assert quotas == [[running], [running], [running, hourly]]
    refused = await http.post("/itwins/exports", json={"outputFormat": "Csv"})
    assert refused.json()["error"]["details"][0]["target"] == "MaxJobsPerHourQuota"
    clock.forward(HOUR)
    assert (await http_as("anna").post("/itwins/exports", json={"outputFormat": "Csv"})).status_code == 201


async def test_third_export_waits_while_two_are_running(http_as: Connect, clock: Clock) -> None:
    users = [http_as(name) for name in ("anna", "tomasz", "priya")]
    ids = [await start_export(user) for user in users]

    async def get_statuses() -> list[str]:
        answers = [await user.get(f"/itwins/exports/{export}") for user, export in zip(users, ids, strict=True)]
        return [answer.json()["export"]["status"] for answer in answers]

    clock.forward(5)
    assert await get_statuses() == ["InProgress", "InProgress", "Queued"]
    clock.forward(5)
    assert await get_statuses() == ["Completed", "Completed", "InProgress"]
    clock.forward(5)
    assert await get_statuses() == ["Completed"] * 3


async def test_export_and_file_are_deleted_after_four_hours(http_as: Connect, clock: Clock) -> None:
    export_id = await start_export(http_as("anna"))
    clock.forward(4 * HOUR - 1)
    http = http_as("anna")
    (export,) = (await http.get("/itwins/exports")).json()["exports"]
    assert (await http_as(None).get(export["outputUrl"])).status_code == 200
    clock.forward(1)
    assert (await http.get("/itwins/exports")).json() == {"exports": []}
    missing = await http.get(f"/itwins/exports/{export_id}")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "iTwinExportNotFound")
    assert (await http_as(None).get(export["outputUrl"])).status_code in (403, 404)


async def test_deleted_export_file_frees_its_space(tmp_path: Path, clock: Clock) -> None:
    with Sandbox.open(tmp_path / "box.db", clock=clock, job_seconds=10) as sandbox:
        transport = httpx2.ASGITransport(sandbox.app)

        async def count_blobs() -> int:
            headers = {"Authorization": f"Bearer {sandbox.token()}"}
            async with httpx2.AsyncClient(transport=transport, base_url=ORIGIN, headers=headers) as http:
                await http.get("/itwins/exports")
            with closing(sqlite3.connect(tmp_path / "box.db")) as database:
                count: int = database.execute("SELECT COUNT(*) FROM blobs").fetchone()[0]
            return count

        before = await count_blobs()
        headers = {"Authorization": f"Bearer {sandbox.token()}"}
        async with httpx2.AsyncClient(transport=transport, base_url=ORIGIN, headers=headers) as http:
            await start_export(http)
        clock.forward(10)
        assert await count_blobs() == before + 1
        clock.forward(4 * HOUR)
        assert await count_blobs() == before


async def test_exports_are_listed_newest_first_and_per_user(http_as: Connect, clock: Clock) -> None:
    first = await start_export(http_as("anna"))
    clock.forward(10)
    second = await start_export(http_as("anna"))
    assert [export["id"] for export in (await http_as("anna").get("/itwins/exports")).json()["exports"]] == [
        second,
        first,
    ]
    assert (await http_as("priya").get("/itwins/exports")).json() == {"exports": []}
    assert (await http_as("priya").get(f"/itwins/exports/{first}")).status_code == 404
