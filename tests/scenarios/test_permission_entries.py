"""Permissions of several users on an iModel in one call. Users who are not named keep their permissions."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from itwin_mcp.executor import flow_steps
from itwin_mcp.sandbox.seed import seeded_id
from tests.conftest import connect
from tests.executor.bench import IMODEL, ITWIN, Bench, bench
from tests.scenarios.test_area_tools import Desk
from tests.upstream.loopback import Asked

pytestmark = pytest.mark.anyio

VIEW, READ, WRITE, MANAGE = (f"imodels_{word}" for word in ("webview", "read", "write", "manage"))
ALL = [VIEW, READ, WRITE, MANAGE]
ANNA, TOMASZ, PRIYA, LUCA = (f"{digit * 8}-0000-4000-8000-000000000000" for digit in "5678")
NAMES = {ANNA: "anna@example.com", TOMASZ: "tomasz@example.com", PRIYA: "priya@example.com", LUCA: "luca@example.com"}
TOOL = "update-imodel-user-permissions"


class Platform:
    """An iModel, the members of its iTwin with their roles, and its permission entries. `me` is the caller."""

    def __init__(self, me: str = ANNA, entries: Mapping[str, list[str]] | None = None) -> None:
        self.me = me
        self.entries = dict(entries or {})
        self.roles: dict[str, list[Any]] = {"lead": ALL, "writer": [VIEW, READ, WRITE], "viewer": [VIEW], "nothing": []}
        self.people = {ANNA: ["lead"], TOMASZ: ["viewer", "writer"], PRIYA: ["viewer"], LUCA: ["nothing"]}
        self.written: list[tuple[str, list[str]]] = []
        self.refuses: str | None = None
        self.hides_roles = False
        self.nameless: list[dict[str, Any]] = []

    async def __call__(self, request: Asked) -> None:
        if request.path == "/users/me":
            await request.json(200, {"user": {"id": self.me}})
        elif request.path.endswith("/userpermissions"):
            await self._entries(request)
        elif request.path.endswith("/permissions"):
            await request.json(200, {"permissions": ALL})
        elif request.path.endswith("/roles") and self.hides_roles:
            await request.json(403, {"error": {"code": "InsufficientPermissions", "message": "No."}})
        elif request.path.endswith("/roles"):
            await request.json(200, {"roles": [{"id": name, "permissions": has} for name, has in self.roles.items()]})
        elif request.path.endswith("/members/users"):
            people = [
                {"id": arguments, "email": NAMES[arguments], "roles": [{"id": role} for role in roles]}
                for arguments, roles in self.people.items()
            ]
            await request.json(200, {"members": [*people, *self.nameless]})
        elif request.path.startswith("/accesscontrol/"):
            await request.json(200, {"members": []})
        else:
            await request.json(200, {"iModel": {"id": IMODEL, "name": "Roads", "iTwinId": ITWIN}})

    async def _entries(self, request: Asked) -> None:
        if request.method == "PATCH":
            body = json.loads(request.body)
            if body["userId"] == self.refuses:
                await request.json(422, {"error": {"code": "InvalidiModelsRequest", "message": "No."}})
                return
            self.written.append((body["userId"], body["permissions"]))
            self.entries[body["userId"]] = body["permissions"]
        entries = [{"userId": arguments, "permissions": has} for arguments, has in self.entries.items()]
        await request.json(200, {"userPermissions": entries})


def entry(who: str, *permissions: str) -> dict[str, Any]:
    return {"userId": who, "permissions": list(permissions)}


async def give(it: Bench, *entries: dict[str, Any], **more: Any) -> dict[str, Any]:
    return await it.call(TOOL, iModelId=IMODEL, entries=list(entries), **more)


async def refused(it: Bench, *entries: dict[str, Any], **more: Any) -> dict[str, Any]:
    return await it.refused(TOOL, iModelId=IMODEL, entries=list(entries), **more)


# --- the first entry --------------------------------------------------------------------------------------------


async def test_first_entry_keeps_the_role_permissions_of_others() -> None:
    platform = Platform()
    async with bench("", platform, shipped_files=True) as it:
        answer = await give(it, entry("Tomasz@example.com", VIEW, READ))
    assert platform.written == [(ANNA, ALL), (PRIYA, [VIEW]), (TOMASZ, [VIEW, READ])]
    assert [entry["email"] for entry in answer["written"]] == [NAMES[ANNA], NAMES[PRIYA], NAMES[TOMASZ]]
    assert {entry["userId"]: entry["permissions"] for entry in answer["userPermissions"]} == dict(platform.written)


async def test_entries_write_the_caller_first_then_gains_then_losses() -> None:
    platform = Platform()
    async with bench("", platform, shipped_files=True) as it:
        await give(it, entry(ANNA, VIEW), entry(TOMASZ, VIEW), entry(LUCA, *ALL), entry(PRIYA, VIEW, READ))
    order = [arguments for arguments, _ in platform.written]
    assert order == [ANNA, LUCA, PRIYA, TOMASZ, ANNA]
    assert (platform.written[0][1], platform.written[-1][1]) == (ALL, [VIEW])


async def test_administrator_without_membership_gets_no_entry() -> None:
    platform = Platform(me=ITWIN)
    async with bench("", platform, shipped_files=True) as it:
        await give(it, entry(PRIYA, VIEW, READ))
    assert platform.written == [(ANNA, ALL), (TOMASZ, [VIEW, READ, WRITE]), (PRIYA, [VIEW, READ])]


async def test_keep_others_false_keeps_only_the_callers_permissions() -> None:
    platform = Platform()
    async with bench("", platform, shipped_files=True) as it:
        await give(it, entry(PRIYA, VIEW), keepOthers=False)
    assert platform.written == [(ANNA, ALL), (PRIYA, [VIEW])]


@pytest.mark.parametrize(
    "fault", ["hidden roles", "an unknown role", "a list that is cut", "a member without id", "an odd permission"]
)
async def test_unreadable_rights_of_others_write_nothing(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    platform = Platform()
    platform.hides_roles = fault == "hidden roles"
    platform.people[PRIYA] = ["a role of the account"] if fault == "an unknown role" else ["viewer"]
    if fault == "an odd permission":
        platform.roles["viewer"] = [["imodels_webview"]]
    platform.nameless = [{"email": "x@example.com", "roles": []}] if fault == "a member without id" else []
    if fault == "a list that is cut":
        monkeypatch.setattr(flow_steps, "MAX_ITEMS", 3)
    async with bench("", platform, shipped_files=True) as it:
        error = await refused(it, entry(TOMASZ, VIEW))
        assert (error["code"], platform.written) == ("RightsUnknown", [])
        await give(it, entry(TOMASZ, VIEW), keepOthers=False)
    assert platform.written == [(ANNA, ALL), (TOMASZ, [VIEW])]


# --- later entries ----------------------------------------------------------------------------------------------


async def test_only_entries_that_differ_are_written() -> None:
    platform = Platform(entries={ANNA: ALL, PRIYA: [VIEW]})
    platform.hides_roles = True
    async with bench("", platform, shipped_files=True) as it:
        await give(it, entry(PRIYA, VIEW), entry(ANNA, VIEW), entry(TOMASZ, VIEW))
    assert platform.written == [(TOMASZ, [VIEW]), (ANNA, [VIEW])]


async def test_unchanged_entries_ask_nobody() -> None:
    platform = Platform(entries={ANNA: ALL, PRIYA: [VIEW, READ]})
    async with bench("", platform, shipped_files=True) as it:
        answer = await give(it, entry(PRIYA, READ, VIEW))
    assert (platform.written, answer["written"], it.listener.told) == ([], [], [])


async def test_failed_entry_reports_the_written_entries() -> None:
    platform = Platform()
    platform.refuses = PRIYA
    async with bench("", platform, shipped_files=True) as it:
        error = await refused(it, entry(TOMASZ, VIEW))
    (completed,) = error["completed"]
    assert completed["elements"] == [{"userId": ANNA, "email": NAMES[ANNA], "permissions": ALL}]
    assert platform.written == [(ANNA, ALL)]


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ([entry("nobody@example.com", VIEW)], "entries.0.userId names nobody of the iTwin"),
        ([entry(PRIYA, VIEW), entry("priya@example.com", READ)], "entries.1.userId comes twice"),
    ],
)
async def test_unknown_or_repeated_user_in_entries_writes_nothing(entries: Any, why: str) -> None:
    platform = Platform()
    async with bench("", platform, shipped_files=True) as it:
        error = await refused(it, *entries)
    assert (error["code"], platform.written) == ("InvalidArguments", [])
    assert [detail["message"] for detail in error["details"]] == [why]


@pytest.mark.parametrize("entries", [None, [{"permissions": [VIEW]}]])
async def test_unreadable_entries_write_nothing(entries: Any) -> None:
    platform = Platform()

    async def odd(request: Asked) -> None:
        if request.method == "GET" and request.path.endswith("/userpermissions"):
            await request.json(200, {"userPermissions": entries})
        else:
            await platform(request)

    async with bench("", odd, shipped_files=True) as it:
        error = await refused(it, entry(TOMASZ, VIEW))
    assert (error["code"], platform.written) == ("RightsUnknown", [])


# --- the sandbox ------------------------------------------------------------------------------------------------


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with connect(toolsets="all") as client:
        yield Desk(client)


async def test_empty_entries_restore_the_role_permissions(desk: Desk) -> None:
    imodel = await desk.imodel("NL-A12-0042", "A12 Interchange - Structures")
    tomasz = seeded_id("user", "tomasz")
    answer = await desk.ask(TOOL, iModelId=imodel, entries=[entry(tomasz, VIEW, READ)])
    permissions = {entry["userId"]: entry["permissions"] for entry in answer["userPermissions"]}
    assert permissions[tomasz] == [VIEW, READ]
    assert permissions[seeded_id("user", "anna")] == ALL
    assert permissions[seeded_id("user", "priya")] == [VIEW]
    nobody = [entry(item) for item in permissions]
    await desk.ask(TOOL, iModelId=imodel, entries=nobody)
    assert await desk.ask("get-imodel-user-permissions", iModelId=imodel) == {"userPermissions": []}


async def test_other_roles_keep_their_itwin_permissions(desk: Desk) -> None:
    imodel = await desk.imodel("NL-A12-0042", "A12 Interchange - Structures")
    entries = [{"roleId": "Engineer", "permissions": [VIEW, READ]}]
    answer = await desk.ask("update-imodel-role-permissions", iModelId=imodel, entries=entries)
    permissions = {entry["displayName"]: set(entry["permissions"]) for entry in answer["written"]}
    assert permissions["Engineer"] == {VIEW, READ}
    assert (permissions["Project Lead"], permissions["Viewer"]) == (set(ALL), {VIEW})
    assert "Account Member" not in permissions
