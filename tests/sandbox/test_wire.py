"""Routing, authentication, request bodies and links."""

from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from itwin_mcp import sandbox as sandbox_package
from itwin_mcp.sandbox import Sandbox
from itwin_mcp.sandbox.coverage import list_coverage
from itwin_mcp.sandbox.operations import IMODELS, ITWINS
from itwin_mcp.sandbox.router import Router
from itwin_mcp.sandbox.seed import seeded_id
from itwin_mcp.sandbox.services import ROUTES, SERVICES

pytestmark = pytest.mark.anyio
ITWIN = seeded_id("itwin", "interchange")


@pytest.mark.parametrize("path", ["/itwins", "/itwins/", "/iTwins?", "/ITWINS/?&$top=2", "/itwins/?$top=2&&"])
async def test_router_ignores_case_trailing_slash_and_empty_query_pairs(http: httpx2.AsyncClient, path: str) -> None:
    answer = await http.get(path)
    assert answer.status_code == 200
    assert not answer.history


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/issues"), ("GET", "/accesscontrol/itwins"), ("DELETE", "/accesscontrol/itwins/x/roles"), ("GET", "/")],
)
async def test_not_emulated_error_names_method_and_path(http: httpx2.AsyncClient, method: str, path: str) -> None:
    answer = await http.request(method, path)
    assert answer.status_code == 501
    error = answer.json()["error"]
    assert error["code"] == "NotEmulated"
    assert method in error["message"] and path in error["message"]


GATEWAY = {
    "error": {
        "code": "ResourceNotFound",
        "message": "The requested resource was not found. Verify the API URL and the Accept header.",
        "details": [
            {"code": "OperationNotFound", "message": "Unable to match incoming request to an operation."},
        ],
    }
}


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", "/itwins/exports"), ("PUT", "/itwins"), ("GET", "/imodels//changesets"), ("GET", "/iTwins/x/nothing")],
)
async def test_unknown_operation_of_an_emulated_api_is_404(http: httpx2.AsyncClient, method: str, path: str) -> None:
    answer = await http.request(method, path)
    assert (answer.status_code, answer.json()) == (404, GATEWAY)


@pytest.mark.parametrize(
    ("accept", "path", "status"),
    [
        ("application/vnd.bentley.itwin-platform.v1+json", "/itwins", 200),
        ("application/vnd.bentley.itwin-platform.v2+json", "/itwins", 404),
        ("application/vnd.bentley.itwin-platform.v2+json; charset=utf-8", f"/imodels?iTwinId={ITWIN}", 200),
        ("application/vnd.bentley.itwin-platform.v1+json", f"/imodels?iTwinId={ITWIN}", 404),
        ("application/vnd.bentley.itwin-platform.v9+json, */*", "/itwins", 200),
        ("application/json", "/itwins", 200),
    ],
)
async def test_accept_header_of_another_version_is_404(
    http: httpx2.AsyncClient, accept: str, path: str, status: int
) -> None:
    answer = await http.get(path, headers={"Accept": accept})
    assert answer.status_code == status
    assert status == 200 or answer.json() == GATEWAY


async def test_trace_method_is_405(http: httpx2.AsyncClient) -> None:
    answer = await http.request("TRACE", "/itwins")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST, PUT, PATCH, DELETE")


async def test_router_accepts_all_documented_routes() -> None:
    assert (len(ITWINS), len(IMODELS)) == (33, 57)
    assert len({row.operation.slug for row in list_coverage()}) == 90
    Router(ROUTES)  # raises ValueError for a route that differs from its documentation


def test_services_list_every_package_with_routes() -> None:
    folder = Path(sandbox_package.__file__).parent
    packages = {file.parent.name for file in folder.glob("*/routes.py")}
    assert {service.__name__.split(".")[2] for service in SERVICES} == packages | {"start_page"}


@pytest.mark.parametrize(
    ("header", "code", "message"),
    [
        (None, "HeaderNotFound", "Header Authorization was not found in the request. Access denied."),
        ("invalid-token", "InvalidAuthorizationScheme", "Authorization scheme 'invalid-token' is not valid."),
        (
            "Bearer a.b.c",
            "Unauthorized",
            "Access denied due to invalid access_token. Make sure that issuer is correct, "
            "the token is not expired and is not corrupted.",
        ),
    ],
)
async def test_authenticate_reports_why_a_header_is_refused(
    http_as: Callable[[str | None], httpx2.AsyncClient], header: str | None, code: str, message: str
) -> None:
    answer = await http_as(None).get("/itwins", headers={"Authorization": header} if header else {})
    assert answer.status_code == 401
    assert answer.json() == {"error": {"code": code, "message": message}}


async def test_expired_and_foreign_tokens_are_refused(
    sandbox: Sandbox, http_as: Callable[[str | None], httpx2.AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # so that the other sandbox creates its own key
    with Sandbox.open() as other:
        foreign = other.token()
    for token in (sandbox.token(seconds=0), foreign):
        answer = await http_as(None).get("/itwins", headers={"Authorization": f"Bearer {token}"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "Unauthorized")


async def test_correlation_id_is_echoed(http: httpx2.AsyncClient) -> None:
    answer = await http.get("/itwins/recents", headers={"X-Correlation-Id": "abc-1"})
    assert answer.headers["x-correlation-id"] == "abc-1"


async def test_no_content_answer_has_no_body_and_no_content_type(http: httpx2.AsyncClient) -> None:
    answer = await http.post(f"/itwins/recents/{ITWIN}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert "content-type" not in answer.headers


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'"x"', b'{"a": NaN}', b'{"a": "\\ud800"}', b"\xff", b"[" * 100_000, b'{"a": 1e999}']
)
async def test_body_that_is_not_a_json_object_is_refused(http: httpx2.AsyncClient, body: bytes) -> None:
    answer = await http.post("/imodels", content=body)
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert (error["code"], error["message"]) == ("InvalidiModelsRequest", "Cannot create iModel.")
    assert error["details"] == [
        {
            "code": "InvalidRequestBody",
            "message": "Failed to parse request body. Make sure it is a valid JSON.",
        }
    ]


async def test_encoded_slash_stays_inside_the_id(http: httpx2.AsyncClient) -> None:
    answer = await http.get("/imodels/a%2Fchangesets")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "iModelNotFound")


async def test_links_use_the_host_that_the_client_used(http: httpx2.AsyncClient) -> None:
    answer = await http.get("http://127.0.0.1:9/itwins?$top=1", headers={"Host": "127.0.0.1:9"})
    assert answer.json()["_links"]["next"]["href"].startswith("http://127.0.0.1:9/itwins?")
