"""Permissions on one iModel: configuration and enforcement."""

from collections.abc import Callable

import httpx2
import pytest

from itwin_mcp.sandbox.seed import seeded_id

pytestmark = pytest.mark.anyio
Connect = Callable[[str | None], httpx2.AsyncClient]
ITWIN = seeded_id("itwin", "interchange")
ROADS = seeded_id("imodel", "roads")
USERS = f"/imodels/{ROADS}/userpermissions"
ROLES = f"/imodels/{ROADS}/rolepermissions"
PRIYA = seeded_id("user", "priya")
VIEWER = seeded_id("role", "Viewer")


async def test_imodel_permissions_are_empty_at_first(http: httpx2.AsyncClient) -> None:
    assert (await http.get(USERS)).json() == {"userPermissions": []}
    assert (await http.get(ROLES)).json() == {"rolePermissions": []}


async def test_user_permissions_replace_those_of_the_itwins_roles(http: httpx2.AsyncClient, http_as: Connect) -> None:
    permissions = ["imodels_webview", "imodels_read", "imodels_manage"]
    answer = await http.patch(USERS, json={"userId": PRIYA, "permissions": permissions})
    assert answer.status_code == 200
    assert answer.json() == {"userPermissions": [{"userId": PRIYA, "permissions": permissions}]}
    assert (await http_as("priya").get(f"/imodels/{ROADS}/permissions")).json() == {"permissions": permissions}
    assert (await http_as("priya").patch(f"/imodels/{ROADS}", json={"description": "mine"})).status_code == 200
    assert (await http_as("tomasz").get(f"/imodels/{ROADS}")).status_code == 403
    imodels = (await http_as("priya").get(f"/imodels?iTwinId={ITWIN}")).json()["iModels"]
    assert ROADS in [imodel["id"] for imodel in imodels]


async def test_role_permission_on_an_imodel_requires_webview_on_the_itwin(
    http: httpx2.AsyncClient, http_as: Connect
) -> None:
    body = {"roleId": VIEWER, "permissions": ["imodels_read", "imodels_webview"]}
    answer = await http.patch(ROLES, json=body)
    assert answer.json() == {
        "rolePermissions": [{"roleId": VIEWER, "permissions": ["imodels_webview", "imodels_read"]}]
    }
    assert (await http_as("priya").get(f"/imodels/{ROADS}/permissions")).json()["permissions"] == [
        "imodels_webview",
        "imodels_read",
    ]
    assert (await http_as("tomasz").get(f"/imodels/{ROADS}")).status_code == 403


async def test_user_and_role_permissions_exclude_each_other(http: httpx2.AsyncClient) -> None:
    await http.patch(USERS, json={"userId": PRIYA, "permissions": ["imodels_webview"]})
    refused = await http.patch(ROLES, json={"roleId": VIEWER, "permissions": ["imodels_webview"]})
    assert refused.status_code == 422
    assert [detail["code"] for detail in refused.json()["error"]["details"]] == ["InvalidChange"]
    emptied = await http.patch(USERS, json={"userId": PRIYA, "permissions": []})
    assert emptied.json() == {"userPermissions": []}
    assert (await http.patch(ROLES, json={"roleId": VIEWER, "permissions": ["imodels_webview"]})).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "targets"),
    [
        (USERS, {}, ["userId", "permissions"]),
        (USERS, {"userId": seeded_id("user", "luca"), "permissions": []}, ["userId"]),
        (USERS, {"userId": PRIYA, "permissions": ["imodels_delete"]}, ["permissions"]),
        (USERS, {"userId": PRIYA, "permissions": [{}]}, ["permissions"]),
        (ROLES, {"roleId": "unknown", "permissions": "imodels_read"}, ["permissions", "roleId"]),
    ],
)
async def test_update_permissions_errors_name_their_target(
    http: httpx2.AsyncClient, path: str, body: dict[str, object], targets: list[str]
) -> None:
    answer = await http.patch(path, json=body)
    assert answer.status_code == 422
    assert sorted(detail["target"] for detail in answer.json()["error"]["details"]) == sorted(targets)


@pytest.mark.parametrize("path", [USERS, ROLES])
async def test_permissions_are_read_by_viewers_and_changed_by_managers(http_as: Connect, path: str) -> None:
    assert (await http_as("priya").get(path)).status_code == 200
    assert (await http_as("priya").patch(path, json={})).status_code == 403
    assert (await http_as("luca").get(path)).json()["error"]["code"] == "iModelNotFound"
