"""The report has every difference and nothing of the account. Here, a tampered sandbox is the platform."""

import json
from pathlib import Path

import httpx2
import pytest
from starlette.types import Message, Receive, Scope, Send

from itwin_mcp.sandbox import Sandbox
from itwin_mcp.sandbox.seed import portfolio, seeded_id
from tests.contract.live.checks import CHECKS, Check
from tests.contract.live.platforms import Real, emulated, run
from tests.contract.live.report import Difference, Report
from tests.contract.live.shapes import differences, shape_of
from tests.sandbox.conftest import ORIGIN

pytestmark = pytest.mark.anyio

PRIVATE = [
    *(value for user in portfolio.USERS for value in (user[1], user[2], user[3], seeded_id("user", user[0]))),
    *(value for one in portfolio.ITWINS for value in (one[4], one[5], seeded_id("itwin", one[0]))),
    *(value for one in portfolio.MODELS for value in (one.name, seeded_id("imodel", one.key))),
    *(account[1] for account in portfolio.ACCOUNTS),
]


class Tampered:
    """A sandbox that says things otherwise, and somebody's name in its errors."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start: Message = {}
        body = b""

        async def keep(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                start = message
            else:
                body += message.get("body", b"")

        await self._sandbox.app(scope, receive, keep)
        if start["status"] == 404:
            start["status"] = 410
            name = "Anna de Vries <anna.devries@meridian-infra.example>, NL-A12-0042"
            told = f"{name} may not see {seeded_id('itwin', 'interchange')}."
            body = json.dumps({"error": {"code": "Gone", "message": told}}).encode()
        elif start["status"] == 200 and body.startswith(b'{"iTwin":{'):
            found = json.loads(body)
            found["iTwin"]["number"] = 42
            found["iTwin"]["extra"] = None
            found["iTwin"]["anna.devries@meridian-infra.example"] = True
            del found["iTwin"]["image"]
            body = json.dumps(found).encode()
        headers = [(name, value) for name, value in start["headers"] if name != b"content-length"]
        headers += [(b"content-length", str(len(body)).encode()), (b"iTwinPlatform-RateLimited-Tier", b"Community")]
        await send({**start, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def named(sentence: str) -> Check:
    return next(one for one in CHECKS if one.sentence.startswith(sentence))


@pytest.fixture
async def report() -> Report:
    report = Report()
    with Sandbox.open() as sandbox:
        real = Real(ORIGIN, sandbox.token(), httpx2.ASGITransport(Tampered(sandbox)))
        for check in (named("One iTwin is whole"), named("An iTwin that is not there"), named("What Prefer does")):
            async with real.wire() as platform:
                broken = await run(check, platform)
            async with emulated() as wire:
                await check.body(wire)
            report.compare(check.sentence, check.unknown, wire, platform)
            if broken:
                report.unexpected(check.sentence, check.unknown, broken)
    return report


def found(report: Report, what: str) -> list[Difference]:
    return [one for one in report.found if one.what == what]


async def test_report_lists_differing_statuses_codes_fields_and_headers(report: Report) -> None:
    assert ("404", "410") in {(one.sandbox, one.platform) for one in found(report, "status")}
    assert ("iTwinNotFound", "Gone") in {(one.sandbox, one.platform) for one in found(report, "code")}
    assert {one.where for one in found(report, "field")} == {"iTwin.image", "iTwin.extra", "iTwin.?"}
    kinds = [(one.where, one.sandbox, one.platform) for one in found(report, "type")]
    assert ("iTwin.number", "text", "integer") in kinds
    limits = [one for one in found(report, "header") if one.unknown == 7]
    assert limits[0].platform == "itwinplatform-ratelimited-tier"
    assert found(report, "note")
    assert any("ITWIN_FIELDS" in one.where for one in found(report, "expectation"))


async def test_report_contains_nothing_of_the_account(report: Report, tmp_path: Path) -> None:
    report.write(tmp_path)
    for name in ("differences.json", "differences.md"):
        text = (tmp_path / name).read_text()
        assert "Gone" in text
        assert [value for value in PRIVATE if value in text] == []
        assert "eyJ" not in text


async def test_report_lists_open_questions_first(report: Report, tmp_path: Path) -> None:
    report.write(tmp_path)
    body = json.loads((tmp_path / "differences.json").read_text())
    numbers = [one["unknown"] for one in body["differences"]]
    assert numbers == sorted(numbers, key=lambda number: (number is None, number or 0))
    assert set(body["unknowns"]) == {str(number) for number in range(1, 9)}
    markdown = (tmp_path / "differences.md").read_text()
    assert markdown.index("## Unknown 5") < markdown.index("## Everything else")


async def test_report_of_an_equal_platform_is_empty() -> None:
    report = Report()
    for check in (named("An iModel is created in its own time"), named("All that there is to read"), named("A filter")):
        async with emulated() as ours, emulated() as theirs:
            await check.body(ours)
            await check.body(theirs)
        assert report.compare(check.sentence, check.unknown, ours, theirs) == []


def test_differences_compare_types_and_optional_fields() -> None:
    shape = shape_of({"iModels": [{"id": seeded_id("imodel", "roads"), "extent": None}, {"extent": {}}], "n": 1})
    assert shape["iModels[].id"] == {"uuid", "absent"}
    assert shape["iModels[].extent"] == {"null", "object"}
    assert shape_of({"at": "2020-10-20T10:51:33.1700000Z"})["at"] == {"moment with 7 digits and Z"}
    assert shape_of({"options": {"secret": 1}}) == {".": {"object"}, "options": {"object"}}
    empty, full = shape_of({"iTwins": []}), shape_of({"iTwins": [{"id": "x"}]})
    assert list(differences(empty, full)) == [], "an empty list says nothing about its items"
