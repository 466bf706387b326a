"""What a person is shown before something is destroyed is true, and enough to judge by."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import mcp.types as t
import pytest
from mcp import Client

from itwin_mcp.errors import Unconfirmed
from itwin_mcp.executor.conversation import Silence
from itwin_mcp.sandbox.seed import seeded_id
from tests.conftest import connect
from tests.executor.bench import bench
from tests.scenarios.test_area_tools import Desk
from tests.upstream.loopback import Asked

pytestmark = pytest.mark.anyio
USER, OTHER, IMODEL, ITWIN = (f"{digit * 8}-0000-4000-8000-000000000000" for digit in "1234")


async def preview(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """What a client that cannot ask the person is told."""
    answer = (await client.call_tool(tool, arguments)).structured_content or {}
    return dict(answer["preview"])


async def test_itwins_inside_are_told_to_an_administrator_who_is_no_member_of_them(tmp_path: Path) -> None:
    kept = tmp_path / "sandbox"
    async with connect(person=None, sandbox_db=kept) as client:
        itwin = await Desk(client).itwin("NL-A12-0042")
        with closing(sqlite3.connect(kept)) as database, database:
            inside = "SELECT id FROM itwins WHERE parent_id = ?"
            database.execute(f"DELETE FROM itwin_members WHERE itwin_id IN ({inside})", (itwin,))
        loses = (await preview(client, "delete-itwin", iTwinId=itwin))["loses"]
    names = ["WP-03 Drainage and Earthworks", "WP-05 Viaduct and Retaining Walls"]
    assert loses["iTwinsInside"] == {"count": 2, "more": True, "first": [{"displayName": name} for name in names]}


async def test_itwins_inside_are_at_least_those_that_can_be_seen() -> None:
    """Those inside of them are not read, nor are those that the caller may not see."""
    async with connect(person=None) as client:
        itwin = await Desk(client).itwin("UK-HWTW-0008")
        loses = (await preview(client, "delete-itwin", iTwinId=itwin))["loses"]
    assert loses["iTwinsInside"] == {"count": 0, "more": True, "first": []}
    assert "more" not in loses["iModels"]


async def test_a_share_ends_at_another_time_only_if_the_person_agrees(tmp_path: Path) -> None:
    def in_days(days: int) -> str:
        return (datetime.now(UTC) + timedelta(days=days)).isoformat()

    kept, sooner = tmp_path / "sandbox", in_days(1)
    async with connect(sandbox_db=kept) as client:
        imodel = await Desk(client).roads()
        made = (await Desk(client).ask("create-share", iModelId=imodel, name="Press", expiration=in_days(20)))["share"]
        one = {"iModelId": imodel, "shareId": made["id"]}
    async with connect(person=None, sandbox_db=kept) as client:
        told = await preview(client, "update-share", **one, expiration=sooner)
        assert (await Desk(client).ask("get-share", **one))["share"]["expiration"] == made["expiration"]
    assert told["loses"] == {"end": {"now": made["expiration"], "becomes": sooner, "change": "earlier"}}
    assert "“Press” of the iModel “A12 Interchange - Roads” end at " in told["question"]


# --- who and which ----------------------------------------------------------------------------------------------

ANNA, TOMASZ, PRIYA = (f"{name}@meridian-infra.example" for name in ("anna.devries", "tomasz.nowak", "priya.raman"))


SLOW = [pytest.param(tool, marks=pytest.mark.slow) for tool in ("end-authoring-session", "release-all-locks")]


@pytest.mark.parametrize("tool", ["release-briefcase", *SLOW])
async def test_the_owner_of_a_briefcase_is_named(tool: str) -> None:
    async with connect(person=None) as client:
        imodel = await Desk(client).roads()
        loses = (await preview(client, tool, iModelId=imodel, briefcaseId=2))["loses"]
    assert loses["owner"] == TOMASZ


async def test_the_owners_of_the_briefcases_that_go_with_an_imodel_are_named() -> None:
    async with connect(person=None) as client:
        imodel = await Desk(client).roads()
        loses = (await preview(client, "delete-imodel", iModelId=imodel))["loses"]
    owners = {one["briefcaseId"]: one["owner"] for one in loses["briefcases"]["first"]}
    assert (owners[2], owners[4]) == (TOMASZ, ANNA)
    assert loses["briefcasesWithLocks"]["first"] == [{"briefcaseId": 2}, {"briefcaseId": 4}]


class Onlooker:
    """Declines, and keeps what they were shown."""

    shown = ""

    async def __call__(self, _: Any, asked: t.ElicitRequestParams) -> t.ElicitResult:
        self.shown = asked.message
        return t.ElicitResult(action="decline")


@pytest.mark.parametrize(
    ("tool", "who", "called", "entries"),
    [
        ("update-imodel-user-permissions", {"userId": seeded_id("user", "priya")}, PRIYA, "users with entries"),
        ("update-imodel-role-permissions", {"roleId": seeded_id("role", "Viewer")}, "Viewer", "roles with entries"),
    ],
)
async def test_whose_permissions_change_is_named_beside_what_they_have_now(
    tmp_path: Path, tool: str, who: dict[str, str], called: str, entries: str
) -> None:
    onlooker, kept = Onlooker(), tmp_path / "sandbox"
    async with connect(sandbox_db=kept) as client:
        one = {"iModelId": await Desk(client).roads(), **who}
        await Desk(client).ask(tool, **one, permissions=["imodels_webview", "imodels_read"])
    async with connect(person=onlooker, sandbox_db=kept) as client:
        assert (await Desk(client).refused(tool, **one, permissions=[]))["code"] == "Declined"
    assert f"“{called}” may do with the iModel “A12 Interchange - Roads” to []?" in onlooker.shown
    assert "\n- entry now: 1 (imodels_webview, imodels_read)\n" in onlooker.shown
    assert f"\n- {entries}: 1 (“{called}”)\n" in onlooker.shown


async def test_files_of_one_name_in_different_folders_look_different(tmp_path: Path) -> None:
    onlooker, seen = Onlooker(), set[str]()
    async with connect(person=onlooker, files_root=[tmp_path]) as client:
        imodel = await Desk(client).roads()
        for folder in ("roads", "structures"):
            file = tmp_path / ("deep" * 20) / folder / "changeset.cs"
            file.parent.mkdir(parents=True)
            file.write_bytes(b"what was there")
            given = {"changeset": "1", "filePath": str(file), "overwrite": True}
            await Desk(client).refused("download-changeset", iModelId=imodel, **given)
            seen.add(onlooker.shown)
            assert f"{folder}/changeset.cs”" in onlooker.shown.replace("\\", "/")
    assert len(seen) == 2


async def test_first_permission_of_an_imodel_names_who_loses_what_the_itwin_gives() -> None:
    async with connect(person=None, toolsets="all") as client:
        desk = Desk(client)
        imodel = await desk.imodel("NL-A12-0042", "A12 Interchange - Structures")
        members = (await desk.ask("list-itwin-members", iTwinId="NL-A12-0042"))["members"]
        one, *others = members
        given = {"iModelId": imodel, "permissions": ["imodels_webview"]}
        told = await preview(client, "update-imodel-user-permissions", **given, userId=one["id"])
        losing = told["loses"]["membersWhoseRolesStopCounting"]
        assert losing["count"] == len(others) > 1
        assert {entry["email"] for entry in losing["first"]} <= {other["email"] for other in others}
        roles = (await desk.ask("list-itwin-roles", iTwinId="NL-A12-0042"))["roles"]
        told = await preview(client, "update-imodel-role-permissions", **given, roleId=roles[0]["displayName"])
        losing = told["loses"]["rolesThatStopCounting"]
        assert losing["count"] == len(roles) - 1
        assert {entry["displayName"] for entry in losing["first"]} <= {role["displayName"] for role in roles[1:]}


@pytest.mark.parametrize("entries", [[], [{"userId": OTHER, "permissions": ["imodels_read"]}], None])
async def test_preview_of_a_permission_tells_new_losses_only_while_there_is_no_entry(entries: Any) -> None:
    people = [{"id": USER, "email": "a@example.com"}, {"id": OTHER, "email": "b@example.com"}]

    async def platform(asked: Asked) -> None:
        if asked.path.endswith("/userpermissions"):
            await asked.json(200, {"userPermissions": entries})
        elif asked.path.startswith("/accesscontrol/"):
            await asked.json(200, {"members": people})
        else:
            await asked.json(200, {"iModel": {"id": IMODEL, "name": "Roads", "iTwinId": ITWIN}})

    given = {"iModelId": IMODEL, "userId": USER, "permissions": []}
    async with bench("", platform, shipped_files=True) as it:
        with pytest.raises(Unconfirmed) as waits:
            await it.executor.call(it.catalog.tools["update-imodel-user-permissions"], given, Silence())
    loses = waits.value.preview["loses"]
    if entries is None:
        assert loses["membersWhoseRolesStopCounting"] is None
    else:
        expected = {"count": 1, "first": [{"email": "b@example.com"}]}
        assert loses.get("membersWhoseRolesStopCounting") == (None if entries else expected)
