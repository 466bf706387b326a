"""REST: requests become calls, outcomes become responses, and hostile requests reach nothing."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from tests.executor.fenced import audited
from tests.server.rest.harbour import PICTURE, Harbour, serve_harbour

pytestmark = pytest.mark.anyio


@pytest.fixture
async def harbour(tmp_path: Path) -> AsyncIterator[Harbour]:
    async with serve_harbour(tmp_path) as harbour:
        yield harbour


async def test_requests_become_calls_and_outcomes_become_responses(harbour: Harbour) -> None:
    http = harbour.http
    listed = await http.get("/rest/harbour/berths?quay=A&tags=a&tags=b", headers={"x-trace": "t-1"})
    assert (listed.status_code, listed.json()) == (200, {"berths": [{"id": "b1"}, {"id": "b2"}]})
    assert listed.headers["cache-control"] == "no-store"
    added = await http.post("/rest/harbour/berths", json={"quay": "B", "depth": 12.5, "lights": ["red"]})
    assert (added.status_code, added.json()) == (201, {"id": "b9"})
    assert (await http.get("/rest/harbour/berths/b%207")).json() == {"id": "b%207"}
    assert (await http.get("/rest/harbour/berths/newest")).json() == {"id": "newest-one"}
    assert (await http.get("/rest/harbour/berths/b1/pair")).json() == {"one": "b1", "other": "b2"}
    plan = await http.get("/rest/harbour/berths/b1/plan")
    assert (plan.status_code, plan.content, plan.headers["content-type"]) == (200, PICTURE, "image/png")
    assert plan.headers["x-content-type-options"] == "nosniff"
    assert harbour.asked == [
        "GET /v1/berths?quay=A&tags=a%2Cb&lang=en",
        "POST /v1/berths",
        "GET /v1/berths/b%207",
        "GET /v1/berths/newest-one",
        "GET /v1/berths/b1",
        "GET /v1/berths/b2",
        "GET /v1/berths/b1/plan",
    ]
    assert json.loads(harbour.office.requests[1].body) == {"quay": "B", "depth": 12.5, "lights": ["red"]}
    assert harbour.office.requests[0].headers["x-trace"] == "t-1"


async def test_call_is_cancelled_when_its_client_disconnects(harbour: Harbour) -> None:
    path = "/rest/harbour/berths/stuck"
    headers = [(b"host", b"127.0.0.1:8000")]
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": headers}
    messages = [{"type": "http.request", "body": b""}]
    sent: list[Any] = []

    async def receive() -> Any:
        if messages:
            return messages.pop()
        while not harbour.office.requests:
            await anyio.lowlevel.checkpoint()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    with anyio.fail_after(5):
        await harbour.app(scope, receive, send)
    assert sent == []
    assert harbour.asked == ["GET /v1/berths/stuck"]


async def test_errors_keep_their_meaning_in_the_status(harbour: Harbour) -> None:
    http = harbour.http
    missing = await http.get("/rest/harbour/berths/lost")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "BerthNotFound")
    # The office refuses our key, not the caller's: the caller can do nothing about it.
    assert (await http.get("/rest/harbour/berths/closed")).status_code == 502
    assert (await http.post("/rest/harbour/berths", json={"quay": "X"})).status_code == 409
    bad = await http.get("/rest/harbour/berths?quay=abc")
    assert (bad.status_code, bad.json()["error"]["code"]) == (400, "InvalidArguments")


async def test_a_call_that_destroys_answers_409_until_the_user_approves(harbour: Harbour) -> None:
    from itwin_mcp.executor.confirmation.approvals import Approvals

    asked = await harbour.http.delete("/rest/harbour/berths/b7")
    assert asked.status_code == 409
    preview = asked.json()["preview"]
    assert " approve " in preview["approveWith"]
    assert harbour.asked == []
    approvals = Approvals(Path(os.environ["ITWIN_MCP_STATE_DIR"], "approvals"))
    (waiting,) = approvals.pending()
    approvals.approve(waiting.id)
    done = await harbour.http.delete("/rest/harbour/berths/b7")
    assert (done.status_code, done.json()) == (200, {"gone": True})
    assert harbour.asked == ["DELETE /v1/berths/b7"]
    again = await harbour.http.delete("/rest/harbour/berths/b7")
    assert again.status_code == 409, "an approval is good once"


HOSTILE: list[tuple[str, str, dict[str, Any], int]] = [
    ("GET", "/rest/harbour/berths/..%2f..%2fsecret", {}, 400),
    ("GET", "/rest/harbour/berths/%2e%2e", {}, 400),
    ("GET", "/rest/harbour//berths", {}, 400),
    ("GET", "/rest/harbour/berths/a%00b", {}, 400),
    ("GET", "/rest/harbour/berths/a%0d%0aX-Evil:1", {}, 400),
    ("GET", "/rest/harbour/berths/%ff", {}, 400),
    ("GET", "/rest/harbour/%62erths", {}, 200),
    ("GET", "/rest/harbour/berths/b1/more", {}, 404),
    ("GET", "/rest/Harbour/berths", {}, 404),
    ("GET", "/rest/elsewhere/berths", {}, 404),
    ("GET", "/rest/", {}, 400),
    ("PATCH", "/rest/harbour/berths", {}, 405),
    ("GET", "/rest/harbour/berths?evil=1", {}, 400),
    ("GET", "/rest/harbour/berths?quay=A&quay=B", {}, 400),
    ("GET", "/rest/harbour/berths?lang=de", {}, 400),  # the file sets it
    ("GET", "/rest/harbour/berths?quay=%ff", {}, 400),
    ("GET", "/rest/harbour/berths?" + "&".join(["tags=x"] * 1001), {}, 400),
    ("GET", "/rest/harbour/berths/b1?id=b2", {}, 400),
    ("GET", "/rest/harbour/berths", {"json": {"quay": "A"}}, 400),
    ("POST", "/rest/harbour/berths", {"json": {"quay": "A", "evil": 1}}, 400),
    ("POST", "/rest/harbour/berths", {"json": ["A"]}, 400),
    ("POST", "/rest/harbour/berths", {"json": {"depth": "deep"}}, 400),
    ("POST", "/rest/harbour/berths", {"content": b'{"quay": "A"}'}, 415),
    ("POST", "/rest/harbour/berths", {"content": b'{"quay": "A"}', "headers": {"content-type": "text/plain"}}, 415),
    ("POST", "/rest/harbour/berths", {"data": {"quay": "A"}}, 415),
    ("POST", "/rest/harbour/berths", {"content": b'{"a":NaN}'}, 415),
]


async def test_hostile_requests_reach_nothing(harbour: Harbour) -> None:
    for method, path, sent, status in HOSTILE:
        answer = await harbour.http.request(method, path, **sent)
        assert answer.status_code == status, (method, path, answer.text)
        assert status == 200 or answer.json()["error"]["message"]
        assert status != 405 or answer.headers["allow"] == "GET, POST"
    assert harbour.asked == ["GET /v1/berths?lang=en"]


async def test_hostile_bodies_are_refused(harbour: Harbour) -> None:
    for body, status in (
        (b'{"depth": NaN}', 400),
        (b'{"quay": "A", "quay": "B"}', 400),
        (b"[" * 100_000, 400),
        (b'{"quay": "' + b"A" * 600_000 + b'"}', 413),
        (b"\xff", 400),
    ):
        json_type = {"content-type": "application/json"}
        answer = await harbour.http.post("/rest/harbour/berths", content=body, headers=json_type)
        assert (answer.status_code, harbour.asked) == (status, []), body[:50]


async def test_pages_of_other_sites_are_refused(harbour: Harbour) -> None:
    for headers, status in (
        ({"host": "evil.example:8000"}, 421),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "http://localhost:6274", "sec-fetch-site": "cross-site"}, 200),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "none"}, 200),
        ({"x-trace": "a\tb"}, 400),
    ):
        before = len(harbour.asked)
        answer = await harbour.http.get("/rest/harbour/berths", headers=headers)
        assert answer.status_code == status, headers
        assert len(harbour.asked) - before == (status == 200)


async def test_openapi_document_describes_the_operations(harbour: Harbour) -> None:
    document = (await harbour.http.get("/rest/harbour/openapi.json")).json()
    assert (document["openapi"], document["servers"]) == ("3.1.0", [{"url": "/rest/harbour"}])
    assert set(document["paths"]) == {
        "/berths",
        "/berths/newest",
        "/berths/{id}",
        "/berths/{id}/pair",
        "/berths/{id}/plan",
    }
    listing, adding = document["paths"]["/berths"]["get"], document["paths"]["/berths"]["post"]
    assert [(each["in"], each["name"], each["required"]) for each in listing["parameters"]] == [
        ("query", "quay", False),
        ("query", "tags", False),
        ("header", "X-Trace", False),
    ]
    assert listing["parameters"][0]["schema"]["pattern"] == "^[A-Z]$"
    assert set(adding["requestBody"]["content"]["application/json"]["schema"]["properties"]) == {
        "quay",
        "depth",
        "lights",
    }
    assert adding["responses"]["409"]["description"] == "The quay is full."
    assert "content" in adding["responses"]["201"]
    assert "409" in document["paths"]["/berths/{id}"]["delete"]["responses"]
    plan = document["paths"]["/berths/{id}/plan"]["get"]["responses"]["200"]["content"]
    assert list(plan) == ["image/png"]
    from openapi_core import OpenAPI

    OpenAPI.from_dict(document)  # raises for a document that is not valid


async def test_operations_of_rest_are_not_tools_of_mcp(harbour: Harbour) -> None:
    assert not [name for name in harbour.runtime.catalog.tools if "berth" in name]
    warned = {problem.message.partition(" ")[0] for problem in harbour.runtime.catalog.warnings}
    assert warned == {"'address'", "'port'"}


async def test_policy_and_audit_hold_for_rest(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "itwin-mcp-policy: 1\ndefault: {itwins: all, tools: {allow: [toolset:harbour], deny: [harbour.remove-berth]}}\n"
    )
    async with serve_harbour(tmp_path, policy=policy) as harbour:
        assert (await harbour.http.delete("/rest/harbour/berths/b7")).status_code == 405
        assert (await harbour.http.post("/rest/harbour/berths", json={"quay": "B"})).status_code == 201
        document = (await harbour.http.get("/rest/harbour/openapi.json")).json()
        assert list(document["paths"]["/berths/{id}"]) == ["get"]
        assert harbour.asked == ["POST /v1/berths"]
    assert {line["tool"] for line in audited()} == {"harbour.add-berth"}


async def test_every_tool_of_ours_is_served_with_rest(tmp_path: Path) -> None:
    async with serve_harbour(tmp_path, rest=True, toolsets="all") as harbour:
        http = harbour.http
        answer = await http.get("/rest/itwins/list-recent-itwins?limit=1")
        assert answer.status_code == 200
        (itwin,) = answer.json()["iTwins"]
        made = await http.post("/rest/imodels/create-imodel", json={"iTwinId": itwin["id"], "name": "Over REST"})
        assert made.json()["iModel"]["name"] == "Over REST"
        assert (await http.get("/rest/imodels/create-imodel")).status_code == 405
        gone = await http.post("/rest/imodels/delete-imodel", json={"iModelId": made.json()["iModel"]["id"]})
        assert gone.status_code == 409
        paths = (await http.get("/rest/itwins/openapi.json")).json()["paths"]
        assert all(list(operations) in (["get"], ["post"]) for operations in paths.values())
