"""Work on an iModel: briefcases, locks and authoring sessions."""

from collections.abc import AsyncIterator

import pytest

from tests.conftest import connect
from tests.scenarios.test_area_tools import Desk

pytestmark = pytest.mark.anyio
NOBODY = "1c4b1d5e-0000-4000-8000-000000000000"


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with connect(toolsets="all") as client:
        yield Desk(client)


async def test_briefcase_is_acquired_read_listed_and_released(desk: Desk) -> None:
    imodel = await desk.roads()
    acquired = (await desk.ask("acquire-briefcase", iModelId=imodel, deviceName="Laptop"))["briefcase"]
    ids = {"iModelId": imodel, "briefcaseId": acquired["briefcaseId"]}
    assert (await desk.ask("get-briefcase", **ids))["briefcase"]["deviceName"] == "Laptop"
    mine = await desk.ask("list-briefcases", iModelId=imodel, ownerId="me", orderBy="acquiredDateTime desc")
    assert mine["briefcases"][0]["briefcaseId"] == acquired["briefcaseId"]
    assert (await desk.read(f"itwin://imodels/{imodel}/briefcases/{acquired['id']}"))["briefcase"]["id"] == acquired[
        "id"
    ]
    assert await desk.ask("release-briefcase", **ids) == {"released": True}
    for tool in ("get-briefcase", "release-briefcase"):
        assert (await desk.refused(tool, **ids))["code"] == "BriefcaseNotFound"
    for tool in ("acquire-briefcase", "list-briefcases"):
        assert (await desk.refused(tool, iModelId=NOBODY))["code"] == "iModelNotFound"


async def test_locks_are_acquired_raised_listed_and_released(desk: Desk) -> None:
    imodel = await desk.roads()
    number = (await desk.ask("acquire-briefcase", iModelId=imodel))["briefcase"]["briefcaseId"]
    ids = {"iModelId": imodel, "briefcaseId": number}
    lock = (await desk.ask("acquire-locks", **ids, objectIds=["0x100", "0x101"], lockLevel="shared"))["lock"]
    assert lock["lockedObjects"] == [{"lockLevel": "shared", "objectIds": ["0x100", "0x101"]}]
    raised = (await desk.ask("acquire-locks", **ids, objectIds=["0x100"]))["lock"]
    assert raised["lockedObjects"][0]["lockLevel"] == "exclusive"
    conflict = await desk.refused("acquire-locks", **ids, objectIds=["0x102", "0x20000000021"])
    assert conflict["code"] == "ConflictWithAnotherUser"
    held = (await desk.ask("list-locks", **ids, lockLevel="exclusive"))["locks"]
    assert held == [{"briefcaseId": number, "lockedObjects": [{"lockLevel": "exclusive", "objectIds": ["0x100"]}]}]
    assert (await desk.refused("acquire-locks", **ids, objectIds=["100"]))["code"] == "InvalidArguments"
    assert (await desk.refused("acquire-locks", **ids, objectIds=[]))["code"] == "InvalidArguments"

    latest = (await desk.ask("list-changesets", iModelId=imodel, limit=1))["changesets"][0]["id"]
    await desk.ask("release-locks", **ids, objectIds=["0x100"], changeset=latest)
    assert (await desk.refused("release-locks", **ids, objectIds=["0x100"]))["code"] == "LockNotFound"
    released = await desk.ask("list-released-locks", iModelId=imodel, afterChangesetIndex=11)
    assert released["releasedLocks"] == [{"lockLevel": "exclusive", "objectIds": ["0x100"]}]
    assert await desk.ask("release-all-locks", **ids) == {"isLastChunk": True}
    assert (await desk.ask("list-locks", **ids))["locks"] == []
    absent = ids | {"briefcaseId": 999}
    assert (await desk.refused("release-all-locks", **absent))["code"] == "BriefcaseNotFound"
    for tool, more in (
        ("list-locks", {}),
        ("list-released-locks", {"afterChangesetIndex": 0}),
        ("list-lock-holders", {}),
    ):
        assert (await desk.refused(tool, iModelId=NOBODY, **more))["code"] == "iModelNotFound"


async def test_list_lock_holders_reports_locks_briefcases_and_users(desk: Desk) -> None:
    answer = (await desk.ask("list-lock-holders", iModelId=await desk.roads(), lockLevel="exclusive"))["holders"]
    (lock,) = answer["locks"]
    assert lock["lockedObjects"] == [{"lockLevel": "exclusive", "objectIds": ["0x2000000001a", "0x20000000021"]}]
    owners = {briefcase["briefcaseId"]: briefcase["ownerId"] for briefcase in answer["briefcases"]}
    people = {user["id"]: user["givenName"] for user in answer["users"]}
    assert people[owners[lock["briefcaseId"]]] == "Tomasz"


async def test_authoring_session_acquires_and_releases_locks(desk: Desk) -> None:
    imodel = await desk.roads()
    session = (await desk.ask("start-authoring-session", iModelId=imodel, objectIds=["0x200"]))["session"]
    number = session["briefcase"]["briefcaseId"]
    assert session["lock"]["lockedObjects"] == [{"lockLevel": "exclusive", "objectIds": ["0x200"]}]
    latest = (await desk.ask("list-changesets", iModelId=imodel, limit=1))["changesets"][0]["id"]
    end = {"iModelId": imodel, "briefcaseId": number, "changeset": latest}
    assert await desk.ask("end-authoring-session", **end) == {"session": {"isLastChunk": True}}
    assert (await desk.refused("end-authoring-session", **end))["code"] == "BriefcaseNotFound"
    without = (await desk.ask("start-authoring-session", iModelId=imodel))["session"]
    assert without["lock"] is None


async def test_authoring_session_with_a_lock_conflict_reports_its_briefcase(desk: Desk) -> None:
    imodel = await desk.roads()
    error = await desk.refused("start-authoring-session", iModelId=imodel, objectIds=["0x20000000021"])
    assert error["code"] == "ConflictWithAnotherUser"
    ((done,)) = error["completed"]
    assert done["step"] == "briefcase"
    stays = {"iModelId": imodel, "briefcaseId": int(done["ids"][0])}
    assert await desk.ask("release-briefcase", **stays) == {"released": True}
