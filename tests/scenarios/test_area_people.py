"""People and their rights: users, permissions on an iModel, shares."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from itwin_mcp.sandbox.seed import seeded_id
from tests.conftest import connect
from tests.executor.bench import IMODEL, ITWIN, bench
from tests.scenarios.test_area_tools import Desk
from tests.upstream.loopback import Asked

pytestmark = pytest.mark.anyio
NOBODY = "1c4b1d5e-0000-4000-8000-000000000000"


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with connect(toolsets="all") as client:
        yield Desk(client)


async def test_imodel_users_are_listed_and_read_with_statistics(desk: Desk) -> None:
    imodel = await desk.roads()
    listed = (await desk.ask("list-imodel-users", iModelId=imodel, orderBy="givenName"))["users"]
    assert [item["givenName"] for item in listed] == ["Anna", "Design", "Tomasz"]
    ids = {"iModelId": imodel, "userId": listed[2]["id"]}
    read = (await desk.ask("get-imodel-user", **ids))["user"]
    assert read["statistics"]["applications"][0]["ownsLocks"] is True
    assert (await desk.read(f"itwin://imodels/{imodel}/users/{read['id']}"))["user"] == read
    assert (await desk.refused("get-imodel-user", **ids | {"userId": NOBODY}))["code"] == "UserNotFound"
    assert (await desk.refused("list-imodel-users", iModelId=NOBODY))["code"] == "iModelNotFound"


ANNA = "Anna de Vries (anna.devries@meridian-infra.example)"
TOMASZ = "Tomasz Nowak (tomasz.nowak@meridian-infra.example)"


async def test_names_of_creators_and_owners_are_next_to_their_ids(desk: Desk) -> None:
    imodel = await desk.imodel("NL-A12-0042", "A12 Interchange - Structures")
    itwin = await desk.itwin("NL-A12-0042")

    async def ask(tool: str, **arguments: Any) -> Any:
        return await desk.ask(tool, iModelId=imodel, **arguments)

    overview = (await ask("describe-imodel"))["overview"]
    versions = (await ask("list-named-versions"))["namedVersions"]
    version = (await ask("get-named-version", namedVersionId=versions[0]["id"]))["namedVersion"]
    ends = {"olderVersionId": versions[1]["id"], "newerVersionId": versions[0]["id"]}
    changeset = (await ask("get-changeset", changeset="7"))["changeset"]
    read = (await desk.ask("get-itwin", iTwinId=itwin))["iTwin"]
    assert (await ask("get-imodel"))["iModel"]["creator"] == TOMASZ
    assert overview["iModel"]["creator"] == overview["latestChangeset"]["creator"] == TOMASZ
    assert overview["latestNamedVersion"]["creator"] == versions[0]["creator"] == version["creator"] == TOMASZ
    assert changeset["creator"] == TOMASZ
    assert (await ask("list-changesets"))["changesets"][0]["creator"] == TOMASZ
    assert TOMASZ in {
        changeset["creator"] for changeset in (await ask("compare-named-versions", **ends))["comparison"]["changesets"]
    }
    assert {ANNA, TOMASZ} <= {briefcase["owner"] for briefcase in (await ask("list-briefcases"))["briefcases"]}
    assert (await ask("get-briefcase", briefcaseId=2))["briefcase"]["owner"] == TOMASZ
    assert (await ask("list-lock-holders"))["holders"]["briefcases"][0]["owner"] == TOMASZ
    assert (read["creator"], read["lastModifier"] is None) == (ANNA, read["lastModifiedBy"] is None)
    assert {itwin["creator"] for itwin in (await desk.ask("list-recent-itwins"))["iTwins"]} == {ANNA}
    for word in ("favorite", "recent"):
        await desk.ask(f"add-imodel-to-{word}s", iModelId=imodel)
        assert TOMASZ in {
            imodel["creator"] for imodel in (await desk.ask(f"list-{word}-imodels", iTwinId=itwin))["iModels"]
        }
    (answer,) = (await desk.ask("find-imodel", name="A12 Interchange - Structures"))["matches"]["byName"]
    assert (answer["iTwinId"], answer["iTwin"]) == (itwin, read["displayName"])


async def test_user_permissions_are_updated_and_shown_by_describe_access(desk: Desk) -> None:
    imodel = await desk.imodel("NL-A12-0042", "A12 Interchange - Structures")
    assert "imodels_manage" in (await desk.ask("get-imodel-permissions", iModelId=imodel))["permissions"]
    assert (await desk.read(f"itwin://imodels/{imodel}/permissions"))["permissions"]
    assert await desk.ask("get-imodel-user-permissions", iModelId=imodel) == {"userPermissions": []}
    priya = {"userId": seeded_id("user", "priya"), "permissions": ["imodels_webview", "imodels_read"]}
    held = (await desk.ask("update-imodel-user-permissions", iModelId=imodel, entries=[priya]))["userPermissions"]
    assert priya in held
    access = (await desk.ask("describe-access", iModelId=imodel))["access"]
    shown = access["ofUsers"]["userPermissions"]
    assert [{name: item[name] for name in ("userId", "permissions")} for item in shown] == held
    assert {**priya, "user": "Priya Raman (priya.raman@meridian-infra.example)"} in shown
    assert access["iModel"]["id"] == imodel
    assert "Viewer" in {role["displayName"] for role in access["iTwin"]["roles"]["roles"]}
    excluded = {"iModelId": imodel, "entries": [{"roleId": "Viewer", "permissions": ["imodels_read"]}]}
    assert (await desk.refused("update-imodel-role-permissions", **excluded))["code"] == "InvalidiModelsRequest"
    delete = [priya | {"permissions": ["imodels_delete"]}]
    wrong = await desk.refused("update-imodel-user-permissions", iModelId=imodel, entries=delete)
    assert wrong["code"] == "InvalidArguments"


async def test_describe_access_shows_itwin_members_if_the_imodel_has_no_entries(desk: Desk) -> None:
    access = (await desk.ask("describe-access", iModelId=await desk.roads()))["access"]
    assert access["ofUsers"]["userPermissions"] == access["ofRoles"]["rolePermissions"] == []
    members = {
        member["givenName"]: [role["displayName"] for role in member["roles"]] for member in access["iTwin"]["members"]
    }
    assert members["Priya"] == ["Viewer"]
    assert [owner["givenName"] for owner in access["iTwin"]["owners"]] == ["Anna"]


async def test_describe_access_reports_forbidden_parts_of_the_itwin() -> None:
    async def platform(request: Asked) -> None:
        if request.path.startswith("/accesscontrol/"):
            await request.json(403, {"error": {"code": "InsufficientPermissions", "message": "No."}})
        elif request.path.endswith(IMODEL):
            await request.json(200, {"iModel": {"id": IMODEL, "name": "Roads", "iTwinId": ITWIN}})
        else:
            await request.json(200, {"permissions": [], "userPermissions": [], "rolePermissions": [], "users": []})

    async with bench("", platform, shipped_files=True) as it:
        answer = await it.call("describe-access", iModelId=IMODEL)
    assert answer["access"]["iModel"]["name"] == "Roads"
    assert answer["access"]["iTwin"] is None
    assert answer["page"]["stoppedBecause"].count("could not be read (403)") == 3


async def test_role_permissions_are_updated_and_shown_by_describe_access(desk: Desk) -> None:
    imodel = await desk.imodel("NL-MAAS-0017", "Maas Crossing - Deck Renewal")
    viewer = {"roleId": seeded_id("role", "Viewer"), "permissions": ["imodels_webview", "imodels_read"]}
    arguments = {"iModelId": imodel, "entries": [viewer | {"roleId": "viewer"}]}
    held = (await desk.ask("update-imodel-role-permissions", **arguments))["rolePermissions"]
    assert viewer in held
    assert (await desk.ask("get-imodel-role-permissions", iModelId=imodel))["rolePermissions"] == held
    shown = (await desk.ask("describe-access", iModelId=imodel))["access"]["ofRoles"]["rolePermissions"]
    assert {**viewer, "role": "Viewer"} in shown
    for tool in (
        "get-imodel-role-permissions",
        "get-imodel-user-permissions",
        "get-imodel-permissions",
        "describe-access",
    ):
        assert (await desk.refused(tool, iModelId=NOBODY))["code"] == "iModelNotFound"


async def test_share_is_created_extended_listed_without_its_key_and_revoked(desk: Desk) -> None:
    imodel = await desk.roads()
    listed = await desk.ask("list-shares", iModelId=imodel)
    assert listed["shares"] == []
    made = (await desk.ask("create-share", iModelId=imodel, name="Council", expiration=in_days(20)))["share"]
    assert made["permission"] == "imodels_webview"
    ids = {"iModelId": imodel, "shareId": made["id"]}
    assert (await desk.ask("get-share", **ids))["share"]["shareKey"] == made["shareKey"]
    extended = (await desk.ask("update-share", **ids, expiration=in_days(40)))["share"]
    assert extended["expiration"] > made["expiration"]
    listed = await desk.ask("list-shares", iModelId=imodel)
    assert [share["id"] for share in listed["shares"]] == [made["id"]]
    assert made["shareKey"] not in str(listed)
    assert made["shareKey"] not in str(await desk.read(f"itwin://imodels/{imodel}/shares/{made['id']}"))
    late = await desk.refused("create-share", iModelId=imodel, name="Council", expiration=in_days(400))
    assert late["code"] == "InvalidiModelsRequest"
    assert (await desk.refused("update-share", **ids, expiration="soon"))["code"] == "InvalidArguments"
    assert await desk.ask("revoke-share", **ids) == {"revoked": True}
    for tool in ("get-share", "revoke-share"):
        assert (await desk.refused(tool, **ids))["status"] == 404
    assert (await desk.refused("list-shares", iModelId=NOBODY))["code"] == "iModelNotFound"


def in_days(days: int) -> str:
    return (datetime.now(UTC) + timedelta(days=days)).isoformat()
