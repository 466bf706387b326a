"""Members, roles and permissions of an iTwin, from the access control API."""

from collections.abc import AsyncIterator

import pytest

from tests.conftest import connect
from tests.scenarios.test_area_tools import Desk

pytestmark = pytest.mark.anyio
NOBODY = "1c4b1d5e-0000-4000-8000-000000000000"


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with connect(toolsets="access-control,itwins") as client:
        yield Desk(client)


async def test_itwin_members_are_listed_and_read_with_their_roles(desk: Desk) -> None:
    itwin = await desk.itwin("NL-A12-0042")
    listed = await desk.ask("list-itwin-members", iTwinId="NL-A12-0042")
    assert listed["page"]["complete"] is True
    member = next(member for member in listed["members"] if member["givenName"] == "Tomasz")
    assert member["roles"][0]["displayName"]
    read = (await desk.ask("get-itwin-member", iTwinId=itwin, memberId=member["id"]))["member"]
    assert read == member
    assert (await desk.refused("get-itwin-member", iTwinId=itwin, memberId=NOBODY))["status"] == 404
    assert (await desk.refused("list-itwin-members", iTwinId=NOBODY))["status"] == 404


async def test_list_itwin_owners_and_list_itwin_groups(desk: Desk) -> None:
    itwin = await desk.itwin("NL-A12-0042")
    owners = (await desk.ask("list-itwin-owners", iTwinId=itwin))["members"]
    assert [owner["givenName"] for owner in owners] == ["Anna"]
    assert (await desk.ask("list-itwin-groups", iTwinId=itwin))["members"] == []
    assert (await desk.refused("list-itwin-owners", iTwinId=NOBODY))["status"] == 404
    assert (await desk.refused("list-itwin-groups", iTwinId=NOBODY))["status"] == 404


async def test_itwin_roles_and_own_permissions_are_read(desk: Desk) -> None:
    itwin = await desk.itwin("NL-A12-0042")
    roles = (await desk.ask("list-itwin-roles", iTwinId=itwin))["roles"]
    role = next(role for role in roles if role["displayName"] == "Project Lead")
    assert (await desk.ask("get-itwin-role", iTwinId=itwin, roleId=role["id"]))["role"] == role
    known = (await desk.ask("list-known-permissions"))["permissions"]
    mine = (await desk.ask("get-my-itwin-permissions", iTwinId=itwin))["permissions"]
    assert set(role["permissions"]) <= set(known)
    assert set(mine) <= set(known)
    assert (await desk.refused("get-itwin-role", iTwinId=itwin, roleId=NOBODY))["status"] == 404
    assert (await desk.refused("list-itwin-roles", iTwinId=NOBODY))["status"] == 404
    assert (await desk.refused("get-my-itwin-permissions", iTwinId=NOBODY))["status"] == 404
