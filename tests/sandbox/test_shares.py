"""Shares: anonymous access to one iModel by key."""

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from itwin_mcp.sandbox.seed import seeded_id
from tests.sandbox.conftest import Clock

pytestmark = pytest.mark.anyio
Connect = Callable[[str | None], httpx2.AsyncClient]
ITWIN = seeded_id("itwin", "interchange")
ROADS = seeded_id("imodel", "roads")
SHARES = f"/imodels/{ROADS}/shares"
BODY = {"name": "Public", "permission": "imodels_webview", "expiration": "2026-12-01T00:00:00Z"}


async def create_share(http: httpx2.AsyncClient, **changes: str) -> dict[str, Any]:
    answer = await http.post(SHARES, json=BODY | changes)
    assert answer.status_code == 201
    return answer.json()["share"]


def make_headers(share: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Basic {share['shareKey']}"}


async def test_share_key_reads_only_its_imodel(http: httpx2.AsyncClient, http_as: Connect) -> None:
    headers, anonymous = make_headers(await create_share(http)), http_as(None)
    assert (await anonymous.get(f"/imodels/{ROADS}", headers=headers)).json()["iModel"]["id"] == ROADS
    assert (await anonymous.get(f"/imodels/{ROADS}/changesets", headers=headers)).status_code == 200
    permissions = (await anonymous.get(f"/imodels/{ROADS}/permissions", headers=headers)).json()
    assert permissions == {"permissions": ["imodels_webview"]}
    other = await anonymous.get(f"/imodels/{seeded_id('imodel', 'structures')}", headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (404, "iModelNotFound")


async def test_share_key_never_writes(http: httpx2.AsyncClient, http_as: Connect) -> None:
    headers = make_headers(await create_share(http, permission="imodels_read"))
    for method, path in (
        ("PATCH", f"/imodels/{ROADS}"),
        ("PUT", f"/imodels/favorites/{ROADS}"),
        ("POST", f"/imodels/{ROADS}/clone"),
        ("POST", f"/imodels/{ROADS}/briefcases"),
    ):
        answer = await http_as(None).request(method, path, headers=headers, json={"name": "x"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "InsufficientPermissions")


async def test_share_downloads_require_imodels_read(http: httpx2.AsyncClient, http_as: Connect) -> None:
    for permission, downloads in (("imodels_webview", False), ("imodels_read", True)):
        headers = make_headers(await create_share(http, permission=permission))
        answer = await http_as(None).get(f"/imodels/{ROADS}/baselinefile", headers=headers)
        assert (answer.json()["baselineFile"]["_links"]["download"] is not None) is downloads


async def test_itwins_api_rejects_share_keys(http: httpx2.AsyncClient, http_as: Connect) -> None:
    answer = await http_as(None).get(f"/itwins/{ITWIN}", headers=make_headers(await create_share(http)))
    assert answer.status_code == 401
    assert answer.json()["error"] == {
        "code": "InvalidAuthorizationScheme",
        "message": "Authorization scheme 'Basic' is not valid.",
    }


async def test_expired_revoked_and_unknown_share_keys_are_refused(
    http: httpx2.AsyncClient, http_as: Connect, clock: Clock
) -> None:
    created = await create_share(http)
    revoked = await create_share(http)
    assert (await http.delete(f"{SHARES}/{revoked['id']}")).status_code == 204
    for headers in (make_headers(revoked), {"Authorization": "Basic nonsense"}):
        answer = await http_as(None).get(f"/imodels/{ROADS}", headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "Unauthorized")
    clock.forward(11 * 24 * 3600)
    assert (await http_as(None).get(f"/imodels/{ROADS}", headers=make_headers(created))).status_code == 401


@pytest.mark.parametrize(
    ("moment", "status"),
    [
        ("2027-05-20T08:00:00.0000000Z", 201),
        ("2027-05-20T08:00:01Z", 422),
        ("2026-11-20T08:00:00Z", 422),
        ("soon", 422),
        ("9999-12-31T23:59:59-23:00", 422),
    ],
)
async def test_share_expires_within_six_months(http: httpx2.AsyncClient, moment: str, status: int) -> None:
    answer = await http.post(SHARES, json=BODY | {"expiration": moment})
    assert answer.status_code == status
    created = await create_share(http)
    changed = await http.patch(f"{SHARES}/{created['id']}", json={"expiration": moment})
    assert changed.status_code == (200 if status == 201 else 422)


async def test_create_share_reports_all_errors_at_once(http: httpx2.AsyncClient) -> None:
    error = (await http.post(SHARES, json={"permission": "imodels_manage"})).json()["error"]
    assert (error["code"], error["message"]) == ("InvalidiModelsRequest", "Cannot create Share.")
    assert [detail["target"] for detail in error["details"]] == ["name", "permission", "expiration"]


async def test_share_list_has_only_the_callers_shares(http: httpx2.AsyncClient, http_as: Connect) -> None:
    first, second = await create_share(http), await create_share(http, name="Second")
    page = (await http.get(f"{SHARES}?$top=1")).json()
    assert (page["shares"], page["_links"]["prev"]) == ([first], None)
    assert (await http.get(page["_links"]["next"]["href"])).json()["shares"] == [second]
    tomasz = http_as("tomasz")
    assert (await tomasz.get(SHARES)).json()["shares"] == []
    for method in ("GET", "DELETE", "PATCH"):
        answer = await tomasz.request(method, f"{SHARES}/{first['id']}", json=BODY)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "ShareNotFound")
    assert (await http.get(f"{SHARES}/{first['shareKey']}")).json()["share"] == first


async def test_create_share_requires_imodels_manage_on_the_itwin(http_as: Connect) -> None:
    for user, status in (("priya", 403), ("luca", 404), ("tomasz", 201)):
        assert (await http_as(user).post(SHARES, json=BODY)).status_code == status
