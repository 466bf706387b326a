"""Members, roles and permissions of an iTwin, as the Access Control API tells them."""

from collections.abc import Callable

import httpx2
import pytest

from itwin_mcp.sandbox.seed import seeded_id

pytestmark = pytest.mark.anyio
Connect = Callable[[str | None], httpx2.AsyncClient]
URL = f"/accesscontrol/itwins/{seeded_id('itwin', 'interchange')}"


def refusal(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def test_members_are_listed_with_their_roles_and_paged(http: httpx2.AsyncClient) -> None:
    page = (await http.get(f"{URL}/members/users?$top=2")).json()
    rest = (await http.get(page["_links"]["next"]["href"])).json()
    members = page["members"] + rest["members"]
    assert [one["givenName"] for one in members] == ["Tomasz", "Priya", "Design"]
    assert set(members[0]) == {"id", "email", "givenName", "surname", "organization", "roles"}
    assert [role["displayName"] for role in members[0]["roles"]] == ["Project Lead"]
    assert (await http.get(f"{URL}/members/users/{members[0]['id']}")).json() == {"member": members[0]}


async def test_owners_are_a_list_of_their_own(http: httpx2.AsyncClient) -> None:
    (owner,) = (await http.get(f"{URL}/members/owners")).json()["members"]
    assert (owner["givenName"], "roles" in owner) == ("Anna", False)
    assert refusal(await http.get(f"{URL}/members/users/{owner['id']}")) == (404, "TeamMemberNotFound")
    assert (await http.get(f"{URL}/members/groups")).json() == {"members": []}


async def test_permissions_are_those_of_the_caller(http_as: Connect) -> None:
    assert (await http_as("priya").get(f"{URL}/permissions")).json() == {"permissions": ["imodels_webview"]}
    mine = (await http_as("anna").get(f"{URL}/permissions")).json()["permissions"]
    assert mine == (await http_as("priya").get("/accesscontrol/itwins/permissions")).json()["permissions"]


async def test_roles_are_shown_to_who_manages_them(http_as: Connect) -> None:
    roles = (await http_as("anna").get(f"{URL}/roles")).json()["roles"]
    viewer = next(role for role in roles if role["displayName"] == "Viewer")
    assert viewer["permissions"] == ["imodels_webview"]
    assert (await http_as("anna").get(f"{URL}/roles/{viewer['id']}")).json() == {"role": viewer}
    assert refusal(await http_as("anna").get(f"{URL}/roles/x")) == (404, "RoleNotFound")
    assert refusal(await http_as("priya").get(f"{URL}/roles")) == (403, "InsufficientPermissions")


async def test_a_stranger_does_not_learn_that_the_itwin_exists(http_as: Connect) -> None:
    for path in ("permissions", "roles", "members/users", "members/owners", "members/groups"):
        assert refusal(await http_as("luca").get(f"{URL}/{path}")) == (404, "ItwinNotFound")
