"""Callers use one spelling of enumerations, lists, bit fields, ids, dates and JSON, whatever the platform uses."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from itwin_mcp.capability.operations import Code
from itwin_mcp.errors import InvalidArguments
from itwin_mcp.executor.answers import decode_members
from itwin_mcp.executor.requests import encode_values
from tests.conftest import connect
from tests.scenarios.test_area_tools import Desk

pytestmark = pytest.mark.anyio


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with connect(toolsets="all") as client:
        yield Desk(client)


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        ({"queryScope": "MemberOfiTwin"}, {"queryScope": "memberOfItwin"}),
        ({"status": "active"}, {"status": "Active"}),
        ({"subClass": ["asset", "PROJECT"]}, {"subClass": ["Asset", "Project"]}),
        ({"subClass": "asset, Project"}, {"subClass": ["Asset", "Project"]}),
        ({"orderBy": "displayname ASC"}, {"orderBy": "displayName"}),
        ({"orderBy": "createdDateTime  DESC"}, {"orderBy": "createdDateTime desc"}),
    ],
    ids=lambda value: json.dumps(value),
)
async def test_enum_values_are_accepted_in_any_case(
    desk: Desk, arguments: dict[str, Any], meant: dict[str, Any]
) -> None:
    assert (await desk.ask("list-itwins", **arguments))["iTwins"] == (await desk.ask("list-itwins", **meant))["iTwins"]


async def test_unknown_order_by_is_rejected(desk: Desk) -> None:
    refused = await desk.refused("list-itwins", orderBy="size desc")
    assert refused["code"] == "InvalidArguments"
    assert "displayName desc" in refused["message"]


async def test_create_export_accepts_and_returns_lists_and_query_scope(desk: Desk) -> None:
    created = await desk.ask(
        "create-export", outputFormat="csv", subClass=["Asset", "Project"], select=["number", "id"]
    )
    request = created["export"]["request"]
    assert request["queryScope"] == "memberOfItwin"
    assert request["subClass"] == ["Asset", "Project"]
    assert request["select"] == ["number", "id"]
    assert (await desk.ask("list-exports"))["exports"][0]["request"] == request


async def test_bit_fields_are_shown_as_words(desk: Desk) -> None:
    imodel = await desk.roads()
    listed = (await desk.ask("list-changesets", iModelId=imodel, fields="all"))["changesets"]
    read = (await desk.ask("get-changeset", iModelId=imodel, changeset="latest"))["changeset"]
    assert read["containingChanges"] == listed[0]["containingChanges"] == ["geometry"]
    overview = (await desk.ask("describe-imodel", iModelId=imodel))["overview"]
    assert overview["iModel"]["containersEnabled"] == []


async def test_decode_members_shows_an_unknown_bit_as_number() -> None:
    codes = {"changes": Code("bits", {"schema": 1, "geometry": 4})}
    body = {"changesets": [{"changes": 21}, {"changes": 0}, {"changes": None}]}
    assert decode_members(codes, body) == {
        "changesets": [{"changes": ["schema", "geometry", "16"]}, {"changes": []}, {"changes": None}]
    }
    assert encode_values(codes, {"changes": ["geometry", "schema", "geometry"]}) == {"changes": 5}
    with pytest.raises(InvalidArguments, match="'16'"):
        encode_values(codes, {"changes": ["16"]})


async def test_element_ids_are_accepted_in_upper_case(desk: Desk) -> None:
    imodel = await desk.roads()
    mine = await desk.ask("acquire-briefcase", iModelId=imodel)
    number = mine["briefcase"]["briefcaseId"]
    latest = (await desk.ask("get-changeset", iModelId=imodel, changeset="latest"))["changeset"]["id"].upper()
    arguments = {"iModelId": imodel, "briefcaseId": str(number), "lockLevel": "Exclusive", "changeset": latest}
    await desk.ask("acquire-locks", **arguments, objectIds=["0X20000000ABC"])
    held = await desk.ask("list-locks", iModelId=imodel, briefcaseId=str(number))
    assert held["locks"][0]["lockedObjects"][0]["objectIds"] == ["0x20000000abc"]


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        ("{date}", "{date}T00:00:00Z"),
        ("{date}T09:30", "{date}T09:30:00Z"),
        ("{date} 09:30:15", "{date}T09:30:15Z"),
        ("{date}T09:30:15+02:00", "{date}T07:30:15Z"),
    ],
)
async def test_date_without_time_or_zone_is_read_as_utc(desk: Desk, arguments: str, meant: str) -> None:
    from datetime import UTC, datetime, timedelta

    date = (datetime.now(UTC) + timedelta(days=30)).date().isoformat()
    imodel = await desk.roads()
    share = await desk.ask("create-share", iModelId=imodel, name="Guests", expiration=arguments.format(date=date))
    assert datetime.fromisoformat(share["share"]["expiration"]) == datetime.fromisoformat(meant.format(date=date))


async def test_extended_data_is_sent_and_returned_as_object(desk: Desk) -> None:
    imodel = await desk.roads()
    data = {"checked": True, "note": None, "by": {"name": "Zoë"}}
    created = await desk.ask("create-extended-data", iModelId=imodel, changeset="8", data=json.dumps(data))
    assert created["extendedData"]["data"] == data
    listed = (await desk.ask("list-extended-data", iModelId=imodel))["extendedData"]
    assert data in [entry["data"] for entry in listed]
    assert {entry["dataBase64"] for entry in listed} == {None}
    for other in ("eyJhIjoxfQ==", "[1]", [1], 7):
        refused = await desk.refused("create-extended-data", iModelId=imodel, changeset="7", data=other)
        assert refused["code"] == "InvalidArguments"


@pytest.mark.parametrize("stored", [b"\x00\xff", b"plain", b"[1]", b""], ids=["bytes", "text", "list", "nothing"])
def test_decode_members_shows_other_extended_data_as_base64(stored: bytes) -> None:
    codes = {"data": Code("json", detail="dataBase64")}
    text = base64.b64encode(stored).decode()
    body = {"extendedData": {"changesetId": "a", "data": text}}
    assert decode_members(codes, body)["extendedData"] == {"changesetId": "a", "data": None, "dataBase64": text}
