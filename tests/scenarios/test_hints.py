"""Errors and empty answers name the next tool, the holder, or the existing entity."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.conftest import connect
from tests.executor.bench import bench
from tests.scenarios.test_area_tools import Desk
from tests.upstream.loopback import Asked

pytestmark = pytest.mark.anyio

NOBODY = "1c4b1d5e-0000-4000-8000-000000000000"
PROJECT = "NL-A12-0042"


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with connect(toolsets="all") as client:
        yield Desk(client)


@pytest.mark.parametrize(
    ("tool", "values", "listing"),
    [
        ("get-itwin-member", {"memberId": NOBODY}, "list-itwin-members"),
        ("get-itwin-role", {"roleId": NOBODY}, "list-itwin-roles"),
        ("get-global-repository", {"repositoryId": "nothing"}, "list-global-repositories"),
        ("get-repository", {"repositoryId": "nothing"}, "list-repositories"),
        ("get-changeset-checkpoint", {"changeset": "1"}, "get-latest-checkpoint"),
        ("get-share", {"shareId": "nothing"}, "list-shares"),
        ("get-extended-data", {"changeset": "1"}, "list-extended-data"),
    ],
)
async def test_not_found_hint_names_the_listing_tool(
    desk: Desk, tool: str, values: dict[str, Any], listing: str
) -> None:
    arguments = (await desk.client.list_tools()).tools
    takes = next(entry for entry in arguments if entry.name == tool).input_schema["properties"]
    around = {"iTwinId": await desk.itwin(PROJECT), "iModelId": await desk.roads()}
    error = await desk.refused(tool, **{name: value for name, value in around.items() if name in takes}, **values)
    assert error["status"] == 404
    assert f"`{listing}`" in error["hint"]


@pytest.mark.parametrize("tool", ["create-itwin", "provision-project", "update-itwin"])
async def test_taken_number_shows_the_itwin_that_has_it(desk: Desk, tool: str) -> None:
    itwin = await desk.itwin(PROJECT)
    new = {"displayName": "Second", "class": "Endeavor", "subClass": "Project", "number": PROJECT}
    arguments = {
        "create-itwin": new,
        "provision-project": new | {"iModelName": "Model"},
        "update-itwin": {"iTwinId": await desk.itwin("NL-MAAS-0017"), "number": PROJECT},
    }[tool]
    error = await desk.refused(tool, **arguments)
    assert error["code"] == ("InvalidiTwinsRequest" if tool == "update-itwin" else "iTwinExists")
    assert [(match["id"], match["number"]) for match in error["existing"]] == [(itwin, PROJECT)]
    assert "Never make one up" in error["hint"]
    assert "Choose another" not in error["hint"]


@pytest.mark.parametrize("tool", ["create-imodel", "clone-imodel", "fork-imodel", "update-imodel"])
async def test_taken_name_shows_the_imodel_that_has_it(desk: Desk, tool: str) -> None:
    itwin, roads = await desk.itwin(PROJECT), await desk.roads()
    other = (await desk.ask("create-imodel", iTwinId=itwin, name="Other"))["iModel"]["id"]
    arguments: dict[str, Any] = {"name": "A12 Interchange - Roads", "iTwinId": itwin}
    if tool == "update-imodel":
        arguments = {"name": arguments["name"], "iModelId": other}
    elif tool != "create-imodel":
        arguments["iModelId"] = other
    error = await desk.refused(tool, **arguments)
    assert error["code"] == "iModelExists"
    assert [match["id"] for match in error["existing"]] == [roads]


async def test_taken_named_version_shows_the_existing_one(desk: Desk) -> None:
    imodel = await desk.roads()
    by_name = await desk.refused("create-named-version", iModelId=imodel, name="30% Design", changeset="7")
    assert [match["name"] for match in by_name["existing"]] == ["30% Design"]
    index = str(by_name["existing"][0]["changesetIndex"])
    by_changeset = await desk.refused("create-named-version", iModelId=imodel, name="Again", changeset=index)
    assert by_changeset["code"] == "NamedVersionOnChangesetExists"
    assert by_changeset["existing"] == by_name["existing"]
    other = (await desk.ask("list-named-versions", iModelId=imodel, limit=1))["namedVersions"][0]["id"]
    renamed = await desk.refused("update-named-version", iModelId=imodel, namedVersionId=other, name="30% Design")
    assert renamed["existing"] == by_name["existing"]


async def test_lock_conflict_names_the_holder(desk: Desk) -> None:
    imodel = await desk.roads()
    holders = (await desk.ask("list-lock-holders", iModelId=imodel))["holders"]
    lock = holders["locks"][0]
    mine = (await desk.ask("acquire-briefcase", iModelId=imodel))["briefcase"]["briefcaseId"]
    elements = lock["lockedObjects"][0]["objectIds"][:1]
    error = await desk.refused(
        "acquire-locks", iModelId=imodel, briefcaseId=mine, objectIds=elements, changeset="latest"
    )
    assert error["code"] == "ConflictWithAnotherUser"
    (briefcase,) = error["briefcases"]
    assert briefcase["briefcaseId"] == lock["briefcaseId"]
    (holder,) = error["holders"]
    assert holder["id"] == briefcase["ownerId"]
    assert holder["email"]
    assert "holders" in error["hint"]


@pytest.mark.parametrize("status", [200, 403])
async def test_taken_number_of_an_invisible_itwin_hints_to_ask_the_user(status: int) -> None:
    conflict = {"code": "iTwinExists", "message": "Taken.", "details": [{"code": "InvalidValue", "target": "number"}]}

    async def platform(request: Asked) -> None:
        if request.method == "POST":
            await request.json(409, {"error": conflict})
        else:
            await request.json(status, {"iTwins": []})

    async with bench("", platform, shipped_files=True) as it:
        new = {"displayName": "Second", "class": "Endeavor", "subClass": "Project", "number": PROJECT}
        error = await it.refused("create-itwin", **new)
    assert error["code"] == "iTwinExists"
    assert "existing" not in error
    assert "ask the user for another value; never make one up" in error["hint"]


async def test_empty_search_notes_that_the_caller_may_not_be_a_member(desk: Desk) -> None:
    empty = await desk.ask("find-itwin", name="No such project")
    assert "not a member" in empty["page"]["note"]
    assert empty["page"]["complete"] is True
    assert "page" not in await desk.ask("find-itwin", name=PROJECT)
    assert "not a member" in (await desk.ask("list-itwins", number="none"))["page"]["note"]
    assert "note" not in (await desk.ask("list-itwins"))["page"]
    assert "another iTwin" in (await desk.ask("find-imodel", name="No such model"))["page"]["note"]


async def test_failed_fork_hints_at_clone_imodel_and_reports_left(desk: Desk) -> None:
    itwin = await desk.itwin("NL-MAAS-0017")
    old = await desk.imodel("NL-MAAS-0017", "Maas Crossing - Existing Condition")
    error = await desk.refused("fork-imodel", iModelId=old, iTwinId=itwin, name="Fork")
    assert "federation GUIDs" in error["hint"]
    assert "clone-imodel has no such condition" in error["hint"]
    assert "delete-imodel" in error["hint"]
    assert error["left"]["name"] == "Fork"
    assert error["left"]["state"] == "notInitialized"
    again = await desk.refused("wait-for-imodel", iModelId=error["left"]["id"])
    assert again["left"] == error["left"]
    await desk.ask("delete-imodel", iModelId=error["left"]["id"])
