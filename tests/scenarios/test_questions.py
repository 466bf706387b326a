"""Calls that ask the user, the text of their questions, and the expiry of approvals."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from itwin_mcp import runtime
from itwin_mcp.capability.tool_actions import Access
from itwin_mcp.sandbox import app
from itwin_mcp.sandbox.errors import ApiError
from itwin_mcp.sandbox.imodels import briefcases
from itwin_mcp.sandbox.seed import seeded_id
from itwin_mcp.sandbox.services import ROUTES
from itwin_mcp.sandbox.wire import Answer, Call
from itwin_mcp.settings import read_settings
from tests.conftest import connect
from tests.hosting.served import keep_policy
from tests.sandbox_process import running_platform
from tests.scenarios.destructive import DESTRUCTIVE
from tests.scenarios.test_area_tools import Desk
from tests.scenarios.test_confirming import Person, answer_of, does, files_are_linked_once

__all__ = ["files_are_linked_once"]

pytestmark = pytest.mark.anyio

LOCKS = ("release-locks", "release-all-locks")


def declining_person() -> Person:
    person = Person()
    person.answer = does("decline")
    return person


def in_days(days: int) -> str:
    return (datetime.now(UTC) + timedelta(days=days)).isoformat()


# --- locks ------------------------------------------------------------------------------------------------------


async def locked_elements(desk: Desk, briefcase: dict[str, Any]) -> list[str]:
    held = (await desk.ask("list-locks", **briefcase))["locks"]
    return [element for lock in held for locked in lock["lockedObjects"] for element in locked["objectIds"]]


@pytest.mark.parametrize("tool", LOCKS)
async def test_releasing_locks_of_a_colleague_asks_and_keeps_them_if_declined(tool: str) -> None:
    person = declining_person()
    async with connect(person=person) as client:
        desk = Desk(client)
        briefcase = {"iModelId": await desk.roads(), "briefcaseId": 2}
        before = await locked_elements(desk, briefcase)
        more = {"objectIds": before[:1]} if tool == "release-locks" else {}
        assert (await desk.refused(tool, **briefcase, **more))["code"] == "Declined"
        assert await locked_elements(desk, briefcase) == before
    assert "which is not yours" in person.asked[0].message
    assert "- owner: “tomasz.nowak@meridian-infra.example”" in person.asked[0].message


@pytest.mark.parametrize("tool", LOCKS)
async def test_releasing_own_locks_asks_nobody(tool: str) -> None:
    person = declining_person()
    async with connect(person=person) as client:
        desk = Desk(client)
        imodel = await desk.roads()
        number = (await desk.ask("acquire-briefcase", iModelId=imodel))["briefcase"]["briefcaseId"]
        briefcase = {"iModelId": imodel, "briefcaseId": number}
        await desk.ask("acquire-locks", **briefcase, objectIds=["0x100"])
        await desk.ask(tool, **briefcase, **({"objectIds": ["0x100"]} if tool == "release-locks" else {}))
        assert await locked_elements(desk, briefcase) == []
    assert person.asked == []


async def test_releasing_all_locks_of_a_colleague_who_holds_none_asks() -> None:
    person = declining_person()
    async with connect(person=person) as client:
        desk = Desk(client)
        briefcase = {"iModelId": await desk.roads(), "briefcaseId": 3}
        assert await locked_elements(desk, briefcase) == []
        assert (await desk.refused("release-all-locks", **briefcase))["code"] == "Declined"


def _refuse_owner_filter(call: Call) -> Answer:
    if call.query.get("ownerId") is not None:
        raise ApiError("InsufficientPermissions")
    return LIST_BRIEFCASES(call)


def _answer_with(value: Any) -> Callable[[Call], Answer]:
    def answer(call: Call) -> Answer:
        return Answer(200, {"briefcases": value, "_links": {}})

    return answer


LIST_BRIEFCASES = briefcases.list_briefcases
ODD = {
    "unreadable": _refuse_owner_filter,
    "null": _answer_with(None),
    "empty": _answer_with([]),
    "text": _answer_with("2"),
    "object": _answer_with({"briefcaseId": 4}),
    "number as text": _answer_with([{"briefcaseId": "4"}]),
    "no number": _answer_with([{"id": "4"}, None]),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("tool", LOCKS)
async def test_release_asks_if_the_owner_of_a_briefcase_is_unreadable(
    tool: str, odd: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    routes = tuple(
        replace(route, handler=ODD[odd]) if route.slug == "get-imodel-briefcases" else route for route in ROUTES
    )
    monkeypatch.setattr(app, "ROUTES", routes)
    person = declining_person()
    async with connect(person=person) as client:
        desk = Desk(client)
        more = {"objectIds": ["0x1"]} if tool == "release-locks" else {}
        refusal = await desk.refused(tool, iModelId=await desk.roads(), briefcaseId=4, **more)
        assert refusal["code"] == "Declined"
    assert len(person.asked) == 1


@pytest.mark.parametrize("denied", LOCKS)
async def test_policy_that_denies_one_release_tool_denies_both(denied: str) -> None:
    entry = {"itwins": "all", "tools": {"allow": ["all"], "deny": [denied]}}
    policy = keep_policy(json.dumps({"itwin-mcp-policy": 1, "default": entry}))
    async with connect(policy=policy) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
    assert not names & {*LOCKS, "end-authoring-session"}
    assert ("acquire-locks" in names) == (denied == "release-all-locks")


def test_both_release_tools_need_the_same_access() -> None:
    assert {DESTRUCTIVE[tool].access for tool in LOCKS} == {Access.DELETE}


# --- publishing and replacing -----------------------------------------------------------------------------------


async def test_create_share_asks_and_warns_that_it_publishes() -> None:
    person = declining_person()
    async with connect(person=person) as client:
        desk = Desk(client)
        imodel = await desk.roads()
        arguments = {"iModelId": imodel, "name": "Press", "expiration": in_days(20), "permission": "imodels_read"}
        assert (await desk.refused("create-share", **arguments))["code"] == "Declined"
        assert (await desk.ask("list-shares", iModelId=imodel))["shares"] == []
    message = person.asked[0].message
    assert "Make the iModel “A12 Interchange - Roads” public until" in message
    assert "Everyone who has the key of the share “Press” can then use it without signing in" in message
    assert "“imodels_read”" in message


@pytest.mark.parametrize(("days", "change"), [(40, "later"), (1, "earlier")])
async def test_update_share_shows_whether_it_extends_or_shortens(days: int, change: str, tmp_path: Path) -> None:
    database = tmp_path / "sandbox"
    async with connect(sandbox_db=database) as client:
        desk = Desk(client)
        imodel = await desk.roads()
        made = (await desk.ask("create-share", iModelId=imodel, name="Press", expiration=in_days(20)))["share"]
    async with connect(person=None, sandbox_db=database) as client:
        arguments = {"iModelId": imodel, "shareId": made["id"], "expiration": in_days(days)}
        preview = await answer_of(client, "update-share", arguments, "preview")
    assert preview["loses"]["end"]["now"] == made["expiration"]
    assert preview["loses"]["end"]["change"] == change
    assert "shut out" not in preview["question"]
    assert f"instead of “{made['expiration']}”?" in preview["question"]


REPOSITORY = {
    "class": "GeographicInformationSystem",
    "subClass": "WebMapService",
    "uri": "https://maps.example.org/wms",
}
SECRET = "canary-of-a-map-service"
KEY = {"type": "Header", "key": "X-Key", "value": SECRET}


@pytest.mark.parametrize(
    ("change", "questions"),
    [
        ({"displayName": "Soil types"}, ()),
        ({"uri": REPOSITORY["uri"]}, ()),
        ({"uri": "https://maps.example.org/new"}, ("- address: now “https://maps.example.org/wms”, becomes",)),
        ({"authentication": KEY | {"value": "other"}}, ("- authentication: “Header”",)),
        ({"options": {"queryParameters": {"layer": "b"}}}, ("- query parameters: ",)),
    ],
)
async def test_update_repository_asks_before_replacing_an_address_or_secret(
    change: dict[str, Any], questions: tuple[str, ...]
) -> None:
    person = declining_person()
    async with connect(person=person) as client:
        desk = Desk(client)
        itwin = await desk.itwin("NL-A12-0042")
        more = {"authentication": KEY, "options": {"queryParameters": {"layer": "a"}}, "displayName": "Soil"}
        made = (await desk.ask("create-repository", iTwinId=itwin, **REPOSITORY, **more))["repository"]
        ids = {"iTwinId": itwin, "repositoryId": made["id"]}
        if questions:
            assert (await desk.refused("update-repository", **ids, **change))["code"] == "Declined"
            assert (await desk.ask("get-repository", **ids))["repository"] == made
        else:
            await desk.ask("update-repository", **ids, **change)
    message = "".join(question.message for question in person.asked)
    assert all(line in message for line in questions) and bool(questions) == bool(message)
    assert not questions or "\nThis is replaced:\n" in message
    assert SECRET not in message


# --- platform, user and expiry ----------------------------------------------------------------------------------


async def test_question_names_the_sandbox_in_preview_and_approvals() -> None:
    async with connect(person=None) as client:
        imodel = await Desk(client).roads()
        preview = await answer_of(client, "delete-imodel", {"iModelId": imodel}, "preview")
        who = (await Desk(client).ask("who-am-i"))["session"]
    assert preview["question"].startswith("In the sandbox: Delete the iModel “A12 Interchange - Roads” ")
    (waiting,) = runtime.open_approvals(read_settings(os.environ)).pending()
    assert waiting.question == preview["question"]
    assert waiting.message.startswith("In the sandbox: ")
    assert (who["environment"], who["platform"]) == ("embedded sandbox", None)


async def test_audit_log_names_the_embedded_sandbox_as_origin() -> None:
    async with connect() as client:
        desk = Desk(client)
        await desk.ask("delete-imodel", iModelId=await desk.roads())
    text = await anyio.Path(os.environ["ITWIN_MCP_STATE_DIR"], "audit.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert {line["origin"] for line in lines} == {"embedded sandbox"}
    assert "api.bentley.com" not in text


@pytest.mark.slow
def test_question_names_the_platform_host_and_the_signed_in_user(tmp_path: Path) -> None:
    with running_platform(tmp_path) as platform:
        host, roads = platform.url.removeprefix("http://"), seeded_id("imodel", "roads")
        application = {"ITWIN_CLIENT_ID": "service-meridian-design-sync", "ITWIN_CLIENT_SECRET": "any"}

        def answer(*arguments: str, code: int = 0, **environment: str) -> dict[str, Any]:
            done = platform.run("call", *arguments, **environment)
            assert done.returncode == code, (done.stdout, done.stderr)
            return dict(json.loads(done.stdout))

        def asked(**environment: str) -> str:
            preview = answer("delete-imodel", "--arg", f"iModelId={roads}", code=1, **environment)["preview"]
            return str(preview["question"])

        assert asked(**application).startswith(
            f"On {host}, as the application service-meridian-design-sync: Delete the iModel “A12 Interchange - Roads”"
        )
        platform.sign_in()
        assert asked().startswith(f"On {host}, as Anna de Vries: Delete the iModel “A12 Interchange - Roads”")


async def test_question_about_a_local_file_mentions_this_computer(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old")
    person = declining_person()
    async with connect(person=person, files_root=[tmp_path]) as client:
        desk = Desk(client)
        arguments = {"iModelId": await desk.roads(), "changeset": "1", "filePath": "old", "overwrite": True}
        await desk.refused("download-changeset", **arguments)
    assert person.asked[0].message.startswith("In the sandbox: Replace the local file “old” on this computer?")


@pytest.mark.parametrize(("setting", "minutes"), [(None, 30), ("90", 90)])
async def test_approval_expires_after_confirm_minutes(
    setting: str | None, minutes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if setting is not None:
        monkeypatch.setenv("ITWIN_MCP_CONFIRM_MINUTES", setting)
    async with connect(person=None) as client:
        imodel = await Desk(client).roads()
        preview = await answer_of(client, "delete-imodel", {"iModelId": imodel}, "preview")
    (waiting,) = runtime.open_approvals(read_settings(os.environ)).pending()
    assert minutes * 60 - 60 < waiting.expires - time.time() <= minutes * 60
    assert abs(datetime.fromisoformat(preview["expiresAt"]).timestamp() - waiting.expires) < 5
    assert re.search(r"Only the person runs it: never run it yourself", preview["hint"])
