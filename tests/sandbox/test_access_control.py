"""The Access Control API: members, roles and permissions of an iTwin."""

from collections.abc import Callable

import httpx2
import pytest

from itwin_mcp.sandbox.seed import seeded_id

pytestmark = pytest.mark.anyio
Connect = Callable[[str | None], httpx2.AsyncClient]
URL = f"/accesscontrol/itwins/{seeded_id('itwin', 'interchange')}"


def read_error(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def test_user_members_are_listed_with_roles_and_paged(http: httpx2.AsyncClient) -> None:
    first_page = (await http.get(f"{URL}/members/users?$top=2")).json()
    second_page = (await http.get(first_page["_links"]["next"]["href"])).json()
    members = first_page["members"] + second_page["members"]
    assert [member["givenName"] for member in members] == ["Tomasz", "Priya", "Design"]
    assert set(members[0]) == {"id", "email", "givenName", "surname", "organization", "roles"}
    assert [role["displayName"] for role in members[0]["roles"]] == ["Project Lead"]
    assert (await http.get(f"{URL}/members/users/{members[0]['id']}")).json() == {"member": members[0]}


async def test_owner_members_are_listed_apart_from_user_members(http: httpx2.AsyncClient) -> None:
    (owner,) = (await http.get(f"{URL}/members/owners")).json()["members"]
    assert (owner["givenName"], "roles" in owner) == ("Anna", False)
    assert read_error(await http.get(f"{URL}/members/users/{owner['id']}")) == (404, "TeamMemberNotFound")
    groups = (await http.get(f"{URL}/members/groups")).json()
    assert (groups["members"], groups["_links"]["next"], "self" in groups["_links"]) == ([], None, True)


async def test_itwin_permissions_are_those_of_the_caller(http_as: Connect) -> None:
    assert (await http_as("priya").get(f"{URL}/permissions")).json() == {"permissions": ["imodels_webview"]}
    permissions = (await http_as("anna").get(f"{URL}/permissions")).json()["permissions"]
    assert permissions == (await http_as("priya").get("/accesscontrol/itwins/permissions")).json()["permissions"]


async def test_roles_are_listed_only_for_callers_who_manage_roles(http_as: Connect) -> None:
    roles = (await http_as("anna").get(f"{URL}/roles")).json()["roles"]
    viewer = next(role for role in roles if role["displayName"] == "Viewer")
    assert (viewer["permissions"], viewer["type"]) == (["imodels_webview"], "Custom")
    assert (await http_as("anna").get(f"{URL}/roles/{viewer['id']}")).json() == {"role": viewer}
    assert read_error(await http_as("anna").get(f"{URL}/roles/x")) == (404, "RoleNotFound")
    assert read_error(await http_as("priya").get(f"{URL}/roles")) == (403, "InsufficientPermissions")


async def test_access_control_hides_itwin_from_non_members(http_as: Connect) -> None:
    for path in ("permissions", "roles", "members/users", "members/owners", "members/groups"):
        assert read_error(await http_as("luca").get(f"{URL}/{path}")) == (404, "ItwinNotFound")


MARIT = "marit.jansen@meridian-infra.example"
VIEWER = seeded_id("role", "Viewer")


async def test_second_administrator_has_full_control_of_an_itwin(http_as: Connect) -> None:
    marit = http_as("marit")
    assert (await marit.patch(f"/itwins/{seeded_id('itwin', 'interchange')}", json={"type": "x"})).status_code == 200
    assert "administration_manage_roles" in (await marit.get(f"{URL}/permissions")).json()["permissions"]


async def test_add_users_adds_colleagues_and_invites_others(http_as: Connect) -> None:
    strangers = ["luca.ferri@nordhaven.example", "nobody@example.org"]
    new_members = [{"email": email, "roleIds": [VIEWER]} for email in [MARIT.upper(), *strangers]]
    answer = await http_as("anna").post(
        f"{URL}/members/users", json={"members": new_members, "customMessage": "Welcome"}
    )
    assert answer.status_code == 201
    (member,) = answer.json()["members"]
    assert (member["email"], [role["id"] for role in member["roles"]]) == (MARIT, [VIEWER])
    invitations = answer.json()["invitations"]
    assert [(invitation["email"], invitation["status"]) for invitation in invitations] == [
        (email, "Pending") for email in strangers
    ]
    assert (await http_as("marit").get(f"{URL}/members/users/{member['id']}")).json() == {"member": member}
    assert read_error(await http_as("luca").get(f"{URL}/permissions")) == (404, "ItwinNotFound")


async def test_service_application_is_added_by_its_email_address(http_as: Connect) -> None:
    noise = f"/accesscontrol/itwins/{seeded_id('itwin', 'noise')}"
    new_members = [{"email": "service-meridian-design-sync@apps.imsoidc.bentley.com", "roleIds": [VIEWER]}]
    assert (await http_as("anna").post(f"{noise}/members/users", json={"members": new_members})).status_code == 201
    answer = await http_as("service-meridian-design-sync").get(f"{noise}/permissions")
    assert answer.json() == {"permissions": ["imodels_webview"]}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"members": []},
        {"members": ["x"]},
        {"members": [{"email": MARIT}]},
        {"members": [{"email": MARIT, "roleIds": ["nope"]}]},
        {"members": [{"roleIds": [VIEWER]}]},
        {"members": [{"email": f"{number}@example.org", "roleIds": [VIEWER]} for number in range(51)]},
    ],
    ids=["no members", "empty list", "not an object", "no role", "unknown role", "no address", "51 roles"],
)
async def test_add_users_rejects_invalid_members(http: httpx2.AsyncClient, body: object) -> None:
    assert read_error(await http.post(f"{URL}/members/users", json=body)) == (422, "InvalidiTwinsMemberRequest")


async def test_add_users_requires_invite_member_permission(http_as: Connect) -> None:
    body = {"members": [{"email": MARIT, "roleIds": [VIEWER]}]}
    assert read_error(await http_as("priya").post(f"{URL}/members/users", json=body)) == (
        403,
        "InsufficientPermissions",
    )
    assert read_error(await http_as("luca").post(f"{URL}/members/users", json=body)) == (404, "ItwinNotFound")
