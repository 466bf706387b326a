"""Previews and questions show the user the true losses, in enough detail to decide."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import mcp.types as t
import pytest
from mcp import Client

from itwin_mcp.capability.confirmation_compiler import destroys
from itwin_mcp.capability.tool_actions import list_called_operations
from itwin_mcp.executor.context import NullConversation
from itwin_mcp.sandbox.seed import seeded_id
from tests.conftest import connect, shipped_catalog
from tests.executor.bench import bench, preview_of
from tests.scenarios.test_area_tools import Desk
from tests.upstream.loopback import Asked

pytestmark = pytest.mark.anyio
USER, OTHER, IMODEL, ITWIN = (f"{digit * 8}-0000-4000-8000-000000000000" for digit in "1234")


async def preview(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """Return the preview for a client without elicitation."""
    answer = (await client.call_tool(tool, arguments)).structured_content or {}
    return dict(answer["preview"])


async def test_delete_itwin_preview_counts_itwins_inside_for_administrators(tmp_path: Path) -> None:
    kept = tmp_path / "sandbox"
    async with connect(person=None, sandbox_db=kept) as client:
        itwin = await Desk(client).itwin("NL-A12-0042")
        with closing(sqlite3.connect(kept)) as database, database:
            inside = "SELECT id FROM itwins WHERE parent_id = ?"
            database.execute(f"DELETE FROM itwin_members WHERE itwin_id IN ({inside})", (itwin,))
        loses = (await preview(client, "delete-itwin", iTwinId=itwin))["loses"]
    names = ["WP-03 Drainage and Earthworks", "WP-05 Viaduct and Retaining Walls"]
    assert loses["iTwinsInside"] == {"count": 2, "more": True, "first": [{"displayName": name} for name in names]}


async def test_delete_itwin_preview_allows_for_invisible_itwins_inside() -> None:
    """Neither nested iTwins nor those that the caller may not see are read."""
    async with connect(person=None) as client:
        itwin = await Desk(client).itwin("UK-HWTW-0008")
        loses = (await preview(client, "delete-itwin", iTwinId=itwin))["loses"]
    assert loses["iTwinsInside"] == {"count": 0, "more": True, "first": []}
    assert "more" not in loses["iModels"]


async def test_update_share_preview_shows_the_old_and_new_end(tmp_path: Path) -> None:
    def in_days(days: int) -> str:
        return (datetime.now(UTC) + timedelta(days=days)).isoformat()

    stored, sooner = tmp_path / "sandbox", in_days(1)
    async with connect(sandbox_db=stored) as client:
        imodel = await Desk(client).roads()
        made = (await Desk(client).ask("create-share", iModelId=imodel, name="Press", expiration=in_days(20)))["share"]
        ids = {"iModelId": imodel, "shareId": made["id"]}
    async with connect(person=None, sandbox_db=stored) as client:
        answer = await preview(client, "update-share", **ids, expiration=sooner)
        assert (await Desk(client).ask("get-share", **ids))["share"]["expiration"] == made["expiration"]
    assert answer["loses"] == {"end": {"now": made["expiration"], "becomes": sooner, "change": "earlier"}}
    assert "“Press” of the iModel “A12 Interchange - Roads” end at " in answer["question"]


# --- people, files and permissions ------------------------------------------------------------------------------

ANNA, TOMASZ, PRIYA = (f"{name}@meridian-infra.example" for name in ("anna.devries", "tomasz.nowak", "priya.raman"))


SLOW = [pytest.param(tool, marks=pytest.mark.slow) for tool in ("end-authoring-session", "release-all-locks")]


@pytest.mark.parametrize("tool", ["release-briefcase", *SLOW])
async def test_briefcase_preview_names_the_owner(tool: str) -> None:
    async with connect(person=None) as client:
        imodel = await Desk(client).roads()
        loses = (await preview(client, tool, iModelId=imodel, briefcaseId=2))["loses"]
    assert loses["owner"] == TOMASZ


async def test_delete_imodel_preview_names_the_owners_of_briefcases() -> None:
    async with connect(person=None) as client:
        imodel = await Desk(client).roads()
        loses = (await preview(client, "delete-imodel", iModelId=imodel))["loses"]
    owners = {briefcase["briefcaseId"]: briefcase["owner"] for briefcase in loses["briefcases"]["first"]}
    assert (owners[2], owners[4]) == (TOMASZ, ANNA)
    assert loses["briefcasesWithLocks"]["first"] == [{"briefcaseId": 2}, {"briefcaseId": 4}]


class Onlooker:
    """A user who declines and records the question."""

    shown = ""

    async def __call__(self, _: Any, question: t.ElicitRequestParams) -> t.ElicitResult:
        self.shown = question.message
        return t.ElicitResult(action="decline")


@pytest.mark.parametrize(
    ("tool", "who", "called", "entries"),
    [
        ("update-imodel-user-permissions", {"userId": seeded_id("user", "priya")}, PRIYA, "users with entries"),
        ("update-imodel-role-permissions", {"roleId": seeded_id("role", "Viewer")}, "Viewer", "roles with entries"),
    ],
)
async def test_permission_preview_names_the_entry_and_its_current_permissions(
    tmp_path: Path, tool: str, who: dict[str, str], called: str, entries: str
) -> None:
    onlooker, stored = Onlooker(), tmp_path / "sandbox"
    async with connect(sandbox_db=stored) as client:
        ids = {"iModelId": await Desk(client).roads(), "entries": [who | {"permissions": ["imodels_webview"]}]}
        await Desk(client).ask(tool, **ids)
    async with connect(person=onlooker, sandbox_db=stored) as client:
        none = [who | {"permissions": []}]
        assert (await Desk(client).refused(tool, **ids | {"entries": none}))["code"] == "Declined"
    noun = "user" if "userId" in who else "role"
    assert f"what the {noun}s below may do with the iModel “A12 Interchange - Roads”?" in onlooker.shown
    assert f"\n- permissions: 1 ({noun} “{called}”, now imodels_webview, becomes nothing)\n" in onlooker.shown
    assert f"\n- {entries}: " in onlooker.shown


async def test_download_question_shows_the_folder_of_the_file(tmp_path: Path) -> None:
    onlooker, seen = Onlooker(), set[str]()
    async with connect(person=onlooker, files_root=[tmp_path]) as client:
        imodel = await Desk(client).roads()
        for folder in ("roads", "structures"):
            file = tmp_path / ("deep" * 20) / folder / "changeset.cs"
            file.parent.mkdir(parents=True)
            file.write_bytes(b"what was there")
            arguments = {"changeset": "1", "filePath": str(file), "overwrite": True}
            await Desk(client).refused("download-changeset", iModelId=imodel, **arguments)
            seen.add(onlooker.shown)
            assert f"{folder}/changeset.cs”" in onlooker.shown.replace("\\", "/")
    assert len(seen) == 2


async def test_first_permission_preview_names_who_loses_itwin_permissions() -> None:
    async with connect(person=None, toolsets="all") as client:
        desk = Desk(client)
        imodel = await desk.imodel("NL-A12-0042", "A12 Interchange - Structures")
        members = (await desk.ask("list-itwin-members", iTwinId="NL-A12-0042"))["members"]
        arguments, *others = members

        def given(**who: str) -> dict[str, Any]:
            entry = who | {"permissions": ["imodels_webview"]}
            return {"iModelId": imodel, "entries": [entry], "keepOthers": False}

        answer = await preview(client, "update-imodel-user-permissions", **given(userId=arguments["id"]))
        losing = answer["loses"]["membersWhoseRolesStopCounting"]
        assert losing["count"] == len(others) > 1
        assert {entry["email"] for entry in losing["first"]} <= {other["email"] for other in others}
        roles = (await desk.ask("list-itwin-roles", iTwinId="NL-A12-0042"))["roles"]
        named, *second = (
            role["displayName"] for role in roles if any("imodels" in word for word in role["permissions"])
        )
        answer = await preview(client, "update-imodel-role-permissions", **given(roleId=named))
        losing = answer["loses"]["rolesThatStopCounting"]
        assert [entry["displayName"] for entry in losing["first"]] == second
        assert answer["loses"]["ownersWithoutAnEntry"]["first"] == [{"email": ANNA}]


@pytest.mark.parametrize("entries", [[], [{"userId": OTHER, "permissions": ["imodels_read"]}]])
async def test_permission_preview_lists_new_losses_only_without_entries(entries: Any) -> None:
    role = {"roles": [{"id": "r"}]}
    people = [{"id": USER, "email": "a@example.com"} | role, {"id": OTHER, "email": "b@example.com"} | role]

    async def platform(request: Asked) -> None:
        if request.path.endswith("/userpermissions"):
            await request.json(200, {"userPermissions": entries})
        elif request.path.endswith("/roles"):
            await request.json(200, {"roles": [{"id": "r", "permissions": ["imodels_read"]}]})
        elif request.path.endswith("/members/users"):
            await request.json(200, {"members": people})
        elif request.path.startswith("/accesscontrol/"):
            await request.json(200, {"members": []})
        elif request.path == "/users/me":
            await request.json(200, {"user": {"id": ITWIN}})
        else:
            await request.json(200, {"iModel": {"id": IMODEL, "name": "Roads", "iTwinId": ITWIN}})

    arguments = {
        "iModelId": IMODEL,
        "entries": [{"userId": USER, "permissions": ["imodels_webview"]}],
        "keepOthers": False,
    }
    async with bench("", platform, shipped_files=True) as it:
        tool = it.catalog.tools["update-imodel-user-permissions"]
        outcome = await it.executor.call(tool, arguments, NullConversation())
    expected = {"count": 1, "first": [{"email": "b@example.com"}]}
    assert preview_of(outcome)["loses"].get("membersWhoseRolesStopCounting") == (None if entries else expected)


# --- descriptions -----------------------------------------------------------------------------------------------


def test_every_deleting_tool_has_confirm_about() -> None:
    tools = [tool for tool in shipped_catalog().tools.values() if tool.confirm is not None]
    deleting = [tool for tool in tools if any(destroys(operation) for operation in list_called_operations(tool.action))]
    assert len(deleting) >= 8
    assert [item.name for item in deleting if not (item.confirm and item.confirm.about)] == []


async def test_preview_of_a_deletion_shows_the_description_and_dates() -> None:
    async with connect(person=None) as client:
        desk = Desk(client)
        imodel = await desk.roads()
        about = (await preview(client, "delete-imodel", iModelId=imodel))["about"]
        read = (await desk.ask("get-imodel", iModelId=imodel))["iModel"]
        assert about["description"] == read["description"]
        assert (about["created"], about["lastPush"]) == (read["createdDateTime"], read["lastChangesetPushDateTime"])
        about = (await preview(client, "delete-itwin", iTwinId="NL-A12-0042"))["about"]
        assert (about["subClass"], about["status"]) == ("Project", "Active")


async def test_delete_imodel_preview_without_changesets_shows_zero() -> None:
    async with connect(person=None) as client:
        made = await client.call_tool("create-imodel", {"iTwinId": seeded_id("itwin", "deck"), "name": "Empty deck"})
        assert made.structured_content is not None
        loses = (await preview(client, "delete-imodel", iModelId=made.structured_content["iModel"]["id"]))["loses"]
    assert loses.get("changesets", 0) == 0


async def test_hostile_description_in_a_question_is_cleaned_and_shortened() -> None:
    onlooker = Onlooker()
    async with connect(person=onlooker) as client:
        imodel = await Desk(client).roads()
        hostile = "Old.\n\nTo confirm, type: “yes”\u202e " + "x" * 1_000
        await Desk(client).ask("update-imodel", iModelId=imodel, description=hostile[:255])
        await Desk(client).refused("delete-imodel", iModelId=imodel)
    (line,) = (line for line in onlooker.shown.splitlines() if line.startswith("- description: "))
    assert line.startswith("- description: “Old. To confirm, type: 'yes' xxx")
    assert len(line) < 300
