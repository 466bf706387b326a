"""The Users API: the caller's profile, and users of the caller's organization by id."""

from collections.abc import Callable
from uuid import uuid4

import httpx2
import pytest

from itwin_mcp.sandbox.seed import seeded_id

pytestmark = pytest.mark.anyio
Connect = Callable[[str | None], httpx2.AsyncClient]
ANNA, TOMASZ, LUCA = (seeded_id("user", name) for name in ("anna", "tomasz", "luca"))
BY_IDS = "/users/getbyidlist"


async def test_get_my_profile_returns_the_caller(http_as: Connect) -> None:
    me = (await http_as("tomasz").get("/users/me")).json()["user"]
    assert (me["id"], me["givenName"], me["displayName"]) == (TOMASZ, "Tomasz", me["email"])
    assert me["organizationName"]
    assert set(me) == {
        "id", "displayName", "givenName", "surname", "email", "alternateEmail", "phone", "organizationName", "city",
        "country", "language", "createdDateTime",
    }  # fmt: skip


async def test_users_by_id_omit_duplicates_strangers_and_unknown_ids(http: httpx2.AsyncClient) -> None:
    ids = [TOMASZ, ANNA.upper(), TOMASZ, LUCA, str(uuid4())]
    users = (await http.post(BY_IDS, json=ids)).json()["users"]
    assert {user["id"] for user in users} == {ANNA, TOMASZ}
    assert len(users) == 2
    assert set(users[0]) == {"id", "email", "givenName", "surname", "organizationName"}
    assert (await http.post(BY_IDS, json=[])).json() == {"users": []}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (["not-an-id"], "Invalid request body."),
        ([ANNA, 5], "Invalid request body."),
        ({"ids": [ANNA]}, "Invalid request body."),
        ([str(uuid4()) for _ in range(1001)], "Cannot query users."),
    ],
)
async def test_users_by_id_rejects_invalid_bodies(http: httpx2.AsyncClient, body: object, message: str) -> None:
    answer = await http.post(BY_IDS, json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["message"]) == (422, "InvalidUsersRequest", message)
    if "details" in error:
        assert error["details"] == [
            {
                "code": "InvalidValue",
                "message": "The request body cannot contain more than 1000 user Ids.",
                "target": "request",
            }
        ]


async def test_users_api_requires_a_token_and_version_1(http: httpx2.AsyncClient) -> None:
    answer = await http.get("/users/me", headers={"Authorization": ""})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "HeaderNotFound")
    answer = await http.get("/users/me", headers={"Accept": "application/vnd.bentley.itwin-platform.v2+json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "ResourceNotFound")
