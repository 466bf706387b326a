"""What a person is shown before something is destroyed is true, and enough to judge by."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from tests.conftest import connect
from tests.scenarios.test_area_tools import Desk

pytestmark = pytest.mark.anyio


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


async def test_a_share_ends_at_another_time_only_if_the_person_agrees() -> None:
    def in_days(days: int) -> str:
        return (datetime.now(UTC) + timedelta(days=days)).isoformat()

    async with connect(person=None) as client:
        desk = Desk(client)
        imodel = await desk.roads()
        made = (await desk.ask("create-share", iModelId=imodel, name="Press", expiration=in_days(20)))["share"]
        one = {"iModelId": imodel, "shareId": made["id"]}
        told = await preview(client, "update-share", **one, expiration=in_days(1))
        assert (await desk.ask("get-share", **one))["share"]["expiration"] == made["expiration"]
    assert told["loses"] == {"permission": "imodels_webview", "until": made["expiration"]}
    assert "“Press” of the iModel “A12 Interchange - Roads” end at " in told["question"]
