"""Numbers, names and links instead of ids, through MCP, with the number of extra requests."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import mcp.types as t
import pytest

from itwin_mcp.errors import SettingsError
from itwin_mcp.upstream.client import UpstreamClient
from itwin_mcp.upstream.messages import Request
from tests.conftest import connect
from tests.hosting.served import keep_policy
from tests.scenarios.test_area_tools import Desk

pytestmark = pytest.mark.anyio
PROJECT = "NL-A12-0042"
NAME = "A12 Interchange Reconstruction"
PORTAL = "https://developer.bentley.com/my-itwins"
ROADS = "A12 Interchange - Roads"


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record every request to the platform as method and path, except those for the names next to ids."""
    questions: list[str] = []
    send = UpstreamClient.send

    async def counted(self: UpstreamClient, request: Request) -> Any:
        if request.path != "/users/getbyidlist":
            questions.append(f"{request.method} {request.path}")
        return await send(self, request)

    monkeypatch.setattr(UpstreamClient, "send", counted)
    return questions


@pytest.fixture
async def desk(sent: list[str]) -> AsyncIterator[Desk]:
    async with connect(toolsets="all") as client:
        yield Desk(client)


async def test_itwin_is_resolved_by_number_name_and_link(desk: Desk, sent: list[str]) -> None:
    by_number = await desk.ask("list-imodels", iTwinId=PROJECT)
    assert len(sent) == 2
    identifier = by_number["resolved"][0]["id"]
    answer = {"argument": "iTwinId", "given": PROJECT, "id": identifier, "by": "number", "name": NAME}
    assert by_number["resolved"] == [answer]
    by_name = await desk.ask("list-imodels", iTwinId=NAME)
    assert len(sent) == 5
    by_link = await desk.ask("get-itwin", iTwinId=f"https://api.bentley.com/iTwins/{identifier}")
    assert len(sent) == 6
    assert by_name["iModels"] == by_number["iModels"]
    assert by_link["iTwin"]["number"] == PROJECT


async def test_names_of_imodel_version_and_changeset_are_resolved_in_turn(desk: Desk, sent: list[str]) -> None:
    itwin = await desk.itwin(PROJECT)
    await desk.ask("add-itwin-to-recents", iTwinId=PROJECT)
    sent.clear()
    answer = await desk.ask("get-imodel", iModelId=ROADS)
    assert answer["iModel"]["iTwinId"] == itwin
    assert answer["resolved"][0]["searched"] == f"the iTwin {itwin}, which you used last"
    assert len(sent) == 3
    sent.clear()
    version = await desk.ask("get-named-version", iModelId=ROADS, namedVersionId="Tender Draft")
    assert version["namedVersion"]["changesetIndex"] == 12
    assert [resolution["argument"] for resolution in version["resolved"]] == ["iModelId", "namedVersionId"]
    assert len(sent) == 2, "the name of the iModel is remembered"
    changeset = await desk.ask("get-changeset", iModelId=ROADS, changeset="12")
    assert changeset["changeset"]["index"] == 12


async def test_version_names_with_special_characters_are_resolved(desk: Desk, sent: list[str]) -> None:
    imodel = await desk.roads()
    versions = {"olderVersionId": "30% Design", "newerVersionId": "60% Design"}
    compared = await desk.ask("compare-named-versions", iModelId=imodel, **versions)
    assert [resolution["given"] for resolution in compared["resolved"]] == ["30% Design", "60% Design"]
    await desk.ask("create-named-version", iModelId=imodel, name="../Issue #4/b?", changeset="baseline")
    read = await desk.ask("get-named-version", iModelId=imodel, namedVersionId="../Issue #4/b?")
    assert read["namedVersion"]["name"] == "../Issue #4/b?"


async def test_link_to_another_host_is_rejected_without_a_request(desk: Desk, sent: list[str]) -> None:
    link = "https://evil.example/itwins/1"
    assert (await desk.refused("get-named-version", iModelId=ROADS, namedVersionId=link))["code"] == "InvalidArguments"
    assert (await desk.refused("list-imodels", iTwinId=link))["code"] == "InvalidArguments"
    assert sent == []


async def test_changeset_accepts_latest_version_name_index_id_and_link(desk: Desk, sent: list[str]) -> None:
    imodel = await desk.roads()
    listed = (await desk.ask("list-changesets", iModelId=imodel))["changesets"]
    ids = {item["index"]: item["id"] for item in listed}
    link = f"https://api.bentley.com/imodels/{imodel}/changesets/12"
    for arguments, index in (("latest", max(ids)), ("Tender Draft", 12), ("12", 12), (ids[12], 12), (link, 12)):
        read = await desk.ask("get-changeset", iModelId=imodel, changeset=arguments)
        assert read["changeset"]["index"] == index
    checkpoint = await desk.ask("get-changeset-checkpoint", iModelId=imodel, changeset="baseline")
    assert checkpoint["checkpoint"]["changesetIndex"] == 0
    assert checkpoint["resolved"] == [{"argument": "changeset", "given": "baseline", "index": 0}]
    number = (await desk.ask("acquire-briefcase", iModelId=imodel))["briefcase"]["briefcaseId"]
    lock = {"iModelId": imodel, "briefcaseId": number, "objectIds": ["0x100"]}
    await desk.ask("acquire-locks", **lock, changeset="latest")
    released = await desk.ask("release-locks", **lock, changeset="Tender Draft")
    assert released["resolved"] == [{"argument": "changeset", "given": "Tender Draft", "id": ids[12], "index": 12}]
    itwin = await desk.itwin(PROJECT)
    for tool, source in (
        ("clone-imodel", "iModelId"),
        ("fork-imodel", "iModelId"),
        ("create-imodel-from-template", "templateIModelId"),
    ):
        for arguments, answer in (("2", {"id": ids[2], "index": 2}), ("Tender Draft", {"id": ids[12], "index": 12})):
            new = {"iTwinId": itwin, "name": f"{tool} {arguments}", source: imodel}
            created = await desk.ask(tool, **new, changeset=arguments)
            assert created["resolved"] == [{"argument": "changeset", "given": arguments, **answer}]
    copied = await desk.ask("list-changesets", iModelId=await desk.imodel(PROJECT, "clone-imodel 2"))
    assert [changeset["index"] for changeset in copied["changesets"]] == [2, 1]


async def test_create_named_version_marks_the_latest_changeset_or_the_baseline(desk: Desk) -> None:
    roads, itwin = await desk.roads(), await desk.itwin(PROJECT)
    copy = await desk.ask("clone-imodel", iModelId=roads, iTwinId=itwin, name="Copy", changeset="7")
    empty = await desk.ask("create-imodel", iTwinId=itwin, name="Empty")
    for imodel, index in ((copy["iModel"]["id"], 7), (empty["iModel"]["id"], 0)):
        created = await desk.ask("create-named-version", iModelId=imodel, name="Issue 1")
        assert created["namedVersion"]["changesetIndex"] == index
        assert (created["resolved"][0]["given"], created["resolved"][0]["index"]) == ("latest", index)


async def test_policy_checks_the_real_itwin_of_a_portal_link() -> None:
    async with connect(toolsets="all") as client:
        desk = Desk(client)
        roads, allowed, own = await desk.roads(), await desk.itwin("NL-MAAS-0017"), await desk.itwin(PROJECT)
    policy = {"itwin-mcp-policy": 1, "default": {"itwins": [allowed], "tools": {"allow": ["all"]}}}
    async with connect(toolsets="all", policy=keep_policy(json.dumps(policy))) as client:
        desk = Desk(client)
        assert allowed != own
        for link in (f"{PORTAL}/{own}/{roads}", f"{PORTAL}/{allowed}/{roads}/view", f"“{PORTAL}/{allowed}/{roads}”"):
            for changeset in ("latest", "Tender Draft", "12"):
                error = await desk.refused("get-changeset", iModelId=link, changeset=changeset)
                assert error["code"] == "PolicyRefused"
        assert (await desk.refused("list-imodels", iTwinId=f"{PORTAL}/{own}"))["code"] == "PolicyRefused"
        assert (await desk.refused("list-imodels", iTwinId=own.replace("-", "")))["code"] == "PolicyRefused"
        assert (await desk.ask("list-imodels", iTwinId=f"{PORTAL}/{allowed}"))["iModels"]


async def test_names_take_one_or_two_extra_requests(desk: Desk, sent: list[str]) -> None:
    await desk.ask("add-itwin-to-recents", iTwinId=PROJECT)
    older = (await desk.ask("list-named-versions", iModelId=await desk.roads()))["namedVersions"][1]["id"]
    sent.clear()
    compared = await desk.ask(
        "compare-named-versions", iModelId=ROADS, olderVersionId=older, newerVersionId="Tender Draft"
    )
    assert [resolution["argument"] for resolution in compared["resolved"]] == ["iModelId", "newerVersionId"]
    assert len(sent) == 4 + 2 + 1


async def test_name_not_found_hints_at_the_find_tools(desk: Desk, sent: list[str]) -> None:
    absent = await desk.refused("list-imodels", iTwinId="A12 Motorway")
    assert absent["code"] == "NameNotFound"
    assert "find-itwin" in absent["hint"]
    assert len(sent) == 2
    elsewhere = await desk.refused("get-imodel", iModelId="Nothing of this name")
    assert elsewhere["code"] == "NameNotFound"
    assert "find-imodel" in elsewhere["hint"]
    assert len(sent) == 4


async def test_ambiguous_name_lists_candidates_and_changes_nothing(desk: Desk, sent: list[str]) -> None:
    for number in ("T-1", "T-2"):
        kind = {"class": "Endeavor", "subClass": "Project"}
        await desk.ask("create-itwin", displayName="Twice", number=number, **kind)
    sent.clear()
    error = await desk.refused("update-itwin", iTwinId="Twice", displayName="Once")
    assert error["code"] == "AmbiguousName"
    assert sorted(candidate["number"] for candidate in error["candidates"]) == ["T-1", "T-2"]
    assert {candidate["subClass"] for candidate in error["candidates"]} == {"Project"}
    assert [request.partition(" ")[0] for request in sent] == ["GET", "GET"]
    first = next(candidate for candidate in error["candidates"] if candidate["number"] == "T-1")
    assert (await desk.ask("update-itwin", iTwinId=first["id"], displayName="Once"))["iTwin"]["displayName"] == "Once"


async def test_destructive_tool_accepts_a_name_and_shows_the_id(sent: list[str]) -> None:
    questions: list[str] = []

    async def declines(_: Any, question: t.ElicitRequestParams) -> t.ElicitResult:
        questions.append(question.message)
        return t.ElicitResult(action="decline")

    async with connect(person=declines) as client:
        desk = Desk(client)
        for tool, argument, name, identifier in (
            ("delete-itwin", "iTwinId", PROJECT, await desk.itwin(PROJECT)),
            ("delete-imodel", "iModelId", ROADS, await desk.roads()),
        ):
            await desk.ask("add-itwin-to-recents", iTwinId=PROJECT)
            sent.clear()
            assert (await desk.refused(tool, **{argument: name}))["code"] == "Declined"
            assert f"({argument} {identifier})" in questions[-1]
            assert {request.partition(" ")[0] for request in sent} == {"GET"}


async def test_presets_replace_omitted_ids(sent: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    async with connect(toolsets="all") as client:
        desk = Desk(client)
        itwin, imodel = await desk.itwin(PROJECT), await desk.imodel(PROJECT, ROADS)
    monkeypatch.setenv("ITWIN_ID", itwin)
    monkeypatch.setenv("IMODEL_ID", f"https://api.bentley.com/imodels/{imodel}")
    async with connect(toolsets="all") as client:
        desk = Desk(client)
        listed = await desk.ask("list-imodels")
        assert listed["resolved"] == [{"argument": "iTwinId", "given": itwin, "id": itwin, "preset": "ITWIN_ID"}]
        assert (await desk.ask("get-imodel"))["iModel"]["name"] == ROADS
        other = await desk.ask("get-imodel", iModelId="A12 Interchange - Structures")
        assert other["iModel"]["iTwinId"] == itwin
        assert "searched" not in other["resolved"][0]
        sent.clear()
        answer = await desk.ask("find-imodel", name="Roads")  # iTwinId is optional here, but the preset still applies
        assert [itwin["id"] for itwin in answer["matches"]["searched"]] == [itwin]
        assert len(sent) == 3
        sent.clear()
        for tool in ("delete-imodel", "delete-itwin"):
            error = await desk.refused(tool)
            assert error["details"][0]["code"] == "MissingArgument"
        assert sent == []


async def test_hint_names_the_toolset_of_tools_that_are_not_served() -> None:
    async with connect(toolsets="locks") as client:
        hint = (await Desk(client).refused("list-locks", iModelId="Nothing of this name"))["hint"]
        assert "find-imodel (it is in the toolset imodels), list-imodels (it is in the toolset imodels)." in hint
    for toolsets in ("all", "dynamic,locks"):
        async with connect(toolsets=toolsets) as client:
            hint = (await Desk(client).refused("list-locks", iModelId="Nothing of this name"))["hint"]
            assert "find-imodel" in hint
            assert "Not served" not in hint


async def test_invalid_preset_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMODEL_ID", ROADS)
    with pytest.raises(SettingsError, match="IMODEL_ID"):
        async with connect():
            pass


async def test_max_result_bytes_splits_a_list_into_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ITWIN_MCP_MAX_RESULT_BYTES", "2000")
    async with connect(toolsets="all") as client:
        desk = Desk(client)
        first = await desk.ask("list-itwins", fields="all")
        assert not first["page"]["complete"]
        assert "bytes" in first["page"]["stoppedBecause"]
        second = await desk.ask("list-itwins", fields="all", cursor=first["page"]["cursor"])
        assert first["iTwins"][-1]["id"] != second["iTwins"][0]["id"]
        assert "createdDateTime" in first["iTwins"][0]


async def test_max_result_bytes_truncates_other_answers_and_reports_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ITWIN_MCP_MAX_RESULT_BYTES", "2000")
    async with connect(toolsets="all") as client:
        desk = Desk(client)
        imodel = (await desk.ask("get-imodel", iModelId=await desk.imodel(PROJECT, ROADS)))["iModel"]["id"]
        versions = (await desk.ask("list-named-versions", iModelId=imodel))["namedVersions"]
        older, newer = versions[-1]["id"], versions[0]["id"]
        answer = await desk.ask("compare-named-versions", iModelId=imodel, olderVersionId=older, newerVersionId=newer)
        fields = answer["truncated"]["fields"]
        assert all(field["kept"] < field["of"] for field in fields)
        assert "list" in answer["truncated"]["hint"]


async def test_invisible_characters_do_not_reach_the_agent(desk: Desk) -> None:
    made = await desk.ask(
        "create-itwin", displayName="Pier\u202e 7\u200b 桥 👷🏽", **{"class": "Endeavor", "subClass": "Project"}
    )
    assert made["iTwin"]["displayName"] == "Pier 7 桥 👷🏽"
    read = await desk.read(f"itwin://itwins/{made['iTwin']['id']}")
    assert "Pier 7 桥 👷🏽" in str(read)


async def test_role_is_resolved_by_name_in_the_itwin(desk: Desk, sent: list[str]) -> None:
    itwin, imodel = await desk.itwin(PROJECT), await desk.roads()
    roles = (await desk.ask("list-itwin-roles", iTwinId=itwin))["roles"]
    role = next(entry for entry in roles if " " in entry["displayName"])
    sent.clear()
    read = await desk.ask("get-itwin-role", iTwinId=itwin, roleId=role["displayName"])
    assert read["role"]["id"] == role["id"]
    assert read["resolved"] == [{"argument": "roleId", "given": role["displayName"], "id": role["id"]}]
    assert len(sent) == 2
    entry = {"roleId": role["displayName"], "permissions": ["imodels_webview"]}
    changed = await desk.ask("update-imodel-role-permissions", iModelId=imodel, entries=[entry])
    assert role["id"] in json.dumps(changed)
    nobody = await desk.refused("get-itwin-role", iTwinId=itwin, roleId="Nobody")
    assert (nobody["code"], "list-itwin-roles" in nobody["hint"]) == ("NameNotFound", True)


async def test_repository_is_resolved_by_name_before_id(desk: Desk) -> None:
    itwin = await desk.itwin(PROJECT)
    new = {"iTwinId": itwin, "class": "GeographicInformationSystem", "subClass": "WebMapService"}
    soils, moved = [
        (await desk.ask("create-repository", **new, displayName=name, uri=f"https://maps.example.org/{uri}"))[
            "repository"
        ]
        for uri, name in enumerate(("Soils", "Soil moisture"))
    ]
    for name, made in (("Soils", soils), ("Soil moisture", moved)):
        read = await desk.ask("get-repository", iTwinId=itwin, repositoryId=name)
        assert read["repository"]["id"] == made["id"]
        assert read["resolved"] == [{"argument": "repositoryId", "given": name, "id": made["id"]}]
    listed = (await desk.ask("list-repositories", iTwinId=itwin))["repositories"]
    word = next(entry["id"] for entry in listed if "-" not in entry["id"])
    read = await desk.ask("get-repository", iTwinId=itwin, repositoryId=word)
    assert (read["repository"]["id"], "resolved" in read) == (word, False)
    unknown = await desk.refused("get-repository", iTwinId=itwin, repositoryId="nothing")
    assert unknown["code"] == "iTwinRepositoryNotFound"
    await desk.ask("create-repository", **new, displayName=word, uri="https://maps.example.org/2")
    either = await desk.refused("get-repository", iTwinId=itwin, repositoryId=word)
    assert either["code"] == "AmbiguousName"
    assert word in [candidate["id"] for candidate in either["candidates"]]


async def test_global_repository_is_resolved_by_name(desk: Desk) -> None:
    (first, *_) = (await desk.ask("list-global-repositories"))["repositories"]
    read = await desk.ask("get-global-repository", repositoryId=first["displayName"])
    assert read["repository"]["id"] == first["id"]


async def test_share_is_resolved_by_name_in_its_imodel(desk: Desk) -> None:
    imodel, expires = await desk.roads(), (datetime.now(UTC) + timedelta(days=30)).isoformat()
    for name in ("Guests", "Open day"):
        made = (await desk.ask("create-share", iModelId=imodel, name=name, expiration=expires))["share"]
        read = await desk.ask("get-share", iModelId=imodel, shareId=name)
        assert read["share"]["id"] == made["id"]
    await desk.ask("create-share", iModelId=imodel, name="Guests", expiration=expires)
    assert (await desk.refused("get-share", iModelId=imodel, shareId="Guests"))["code"] == "AmbiguousName"
    await desk.ask("revoke-share", iModelId=imodel, shareId="Open day")
    assert (await desk.refused("get-share", iModelId=imodel, shareId="Open day"))["code"] == "NameNotFound"


async def test_member_by_name_is_rejected_with_a_hint(desk: Desk) -> None:
    refused = await desk.refused("get-itwin-member", iTwinId=await desk.itwin(PROJECT), memberId="Anna")
    assert refused["code"] == "InvalidArguments"
    assert "list-itwin-members" in refused["hint"]
