"""Authentication over HTTP: which callers are admitted, the responses to others, and what each scope allows."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from itwin_mcp.errors import PolicyError
from tests.executor.fenced import audited
from tests.hosting.issuer import AUDIENCE, ISSUER, rsa, token
from tests.hosting.served import BASE_URL, HELLO, serve

pytestmark = pytest.mark.anyio

METADATA = "https://mcp.example/.well-known/oauth-protected-resource/mcp"


def parse_challenge(answer: Any) -> dict[str, str]:
    """Return the parameters of the `WWW-Authenticate` header."""
    header = answer.headers["www-authenticate"]
    assert header.startswith("Bearer ")
    return dict(re.findall(r'(\w+)="([^"]*)"', header))


async def test_request_without_token_is_challenged_without_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(monkeypatch) as served:
        async with served.http() as http:
            answer = await served.post(http, "tools/list")
            assert answer.status_code == 401
            assert parse_challenge(answer) == {"scope": "itwin:read", "resource_metadata": METADATA}
            with_query_token = await http.post(f"/mcp?access_token={token()}", json={})
            assert (with_query_token.status_code, parse_challenge(with_query_token).get("error")) == (401, None)
            for path in ("", "/mcp"):
                metadata = await http.get(f"/.well-known/oauth-protected-resource{path}")
                assert metadata.json() == {
                    "resource": AUDIENCE,
                    "authorization_servers": [ISSUER],
                    "scopes_supported": ["itwin:read"],
                    "bearer_methods_supported": ["header"],
                    "resource_name": "itwin-mcp",
                }
            assert (await http.get("/elsewhere")).status_code == 404
            for probe in ("/healthz", "/readyz"):
                answer = await http.get(probe, headers={"host": "10.0.0.7:8000"})
                assert (answer.status_code, list(answer.json())) == (200, ["status"])
        assert served.documents.fetched == [], "no token was verified"


async def test_bad_token_is_refused_for_every_method(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = {
        "expired": token(iat=1, exp=600),
        "of another key": token(rsa("evil"), {"kid": "one"}),
        "for another": token(aud="https://other.example"),
        "garbage": "garbage",
    }
    async with serve(monkeypatch) as served:
        for method in ("POST", "GET", "DELETE"):
            for bearer in bad.values():
                async with served.http(bearer) as http:
                    answer = await http.request(method, "/mcp", headers={"accept": "text/event-stream"})
                parameters = parse_challenge(answer)
                assert answer.status_code == 401
                assert (parameters["error"], parameters["scope"]) == ("invalid_token", "itwin:read")
                assert parameters["resource_metadata"] == METADATA
                assert bearer not in answer.text
            async with served.http(token(iss="https://ims.bentley.com", aud="itwin-platform")) as http:
                answer = await http.request(method, "/mcp")
                description = parse_challenge(answer)["error_description"]
                assert "issued for the iTwin Platform, not for this server" in description
            async with served.http() as http:
                for header, status in (("Basic YTpi", 400), ("Bearer", 401), (token(), 400)):
                    answer = await http.request(method, "/mcp", headers={"authorization": header})
                    assert answer.status_code == status
                two_headers = [("authorization", f"Bearer {token()}"), ("authorization", f"Bearer {token()}")]
                assert (await http.request(method, "/mcp", headers=two_headers)).status_code == 400


async def test_missing_signing_keys_are_503(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(monkeypatch) as served:
        served.documents.down = True
        async with served.http(token()) as http:
            answer = await served.post(http, "tools/list")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "www-authenticate" not in answer.headers


TOOLS: dict[str, tuple[str, dict[str, Any], str]] = {
    "read": ("list-itwins", {}, "itwin:read"),
    "write": ("create-itwin", {"displayName": "x"}, "itwin:write"),
    "delete": ("delete-imodel", {"iModelId": "x"}, "itwin:delete"),
    "unknown": ("drop-all", {}, "itwin:read"),
    "read through a runner": ("run-reading-tool", {"name": "list-itwins"}, "itwin:read"),
    "write through a runner": ("run-writing-tool", {"name": "create-itwin"}, "itwin:write"),
    "delete through a runner": ("run-writing-tool", {"name": "delete-imodel"}, "itwin:delete"),
    "unknown through a runner": ("run-writing-tool", {"name": "drop-all"}, "itwin:write"),
    "malformed through a runner": ("run-writing-tool", {"name": ["delete-imodel"]}, "itwin:write"),
}
ORDER = ["itwin:read", "itwin:write", "itwin:delete"]


async def test_insufficient_scope_names_all_scopes_and_runs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    async with serve(monkeypatch, toolsets="all,dynamic") as served:
        original_call = served.runtime.executor.call

        async def call(tool: Any, *more: Any, **options: Any) -> Any:
            ran.append(tool.name)
            return await original_call(tool, *more, **options)

        monkeypatch.setattr(served.runtime.executor, "call", call)
        for scope in (None, "openid", *ORDER):
            level = ORDER.index(scope) if scope in ORDER else -1
            async with served.http(token(scope=scope)) as http:
                for name, arguments, needed in TOOLS.values():
                    ran.clear()
                    answer = await served.call(http, name, **arguments)
                    if level >= ORDER.index(needed):
                        assert answer.status_code != 403, (scope, name)
                        continue
                    parameters = parse_challenge(answer)
                    assert (answer.status_code, parameters["error"]) == (403, "insufficient_scope")
                    required = needed if level >= 0 else "itwin:read"
                    if level >= 0 or needed == "itwin:read":
                        assert parameters["scope"].split() == ORDER[: ORDER.index(required) + 1]
                    assert parameters["resource_metadata"] == METADATA
                    assert ran == []


async def test_insufficient_scope_for_a_write_is_audited(monkeypatch: pytest.MonkeyPatch) -> None:
    imodel = {"iModelId": "99999999-9999-4999-8999-999999999999"}
    calls: list[tuple[str, dict[str, Any]]] = [
        ("delete-imodel", imodel),
        ("run-writing-tool", {"name": "delete-imodel", "arguments": imodel}),
        ("run-writing-tool", {"name": "delete-imodel", "arguments": json.dumps(imodel)}),
        ("run-writing-tool", {"name": "delete-imodel", "arguments": "x"}),
        ("run-writing-tool", {"name": "drop-all"}),
    ]
    async with serve(monkeypatch, toolsets="all,dynamic") as served:
        async with served.http(token(scope="itwin:read")) as http:
            for name, arguments in calls:
                assert (await served.call(http, name, **arguments)).status_code == 403
        lines = [(line["tool"], line["caller"]["subject"], line["targets"]) for line in audited()]
        target = {"type": "imodel", "id": imodel["iModelId"]}
        assert lines == [("delete-imodel", "ada", targets) for targets in ([target], [target], [target], [])]
        assert {(line["decision"], line["code"]) for line in audited()} == {("refused", "InsufficientScope")}
        audit = served.runtime.gatekeeper.audit
        assert audit is not None
        audit._file = Path(os.environ["ITWIN_MCP_STATE_DIR"])
        async with served.http(token(scope="itwin:read")) as http:
            unaudited = await served.call(http, "delete-imodel", **imodel)
        assert unaudited.status_code == 403, "it is refused even if it cannot be audited"


async def test_executor_refuses_a_call_that_authentication_let_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("itwin_mcp.hosting.authentication._find_call", lambda message: (None, None))
    async with serve(monkeypatch, toolsets="all,dynamic") as served:
        async with served.client(scope="itwin:read") as client:
            for name, arguments in (
                ("create-itwin", {"displayName": "x", "class": "Endeavor", "subClass": "Project"}),
                ("run-writing-tool", {"name": "delete-imodel", "arguments": {}}),
            ):
                result = await client.call_tool(name, arguments)
                assert result.is_error
                assert result.structured_content is not None
                assert result.structured_content["error"]["code"] == "InsufficientScope"


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_tools_are_listed_by_the_scopes_of_each_caller(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(monkeypatch, toolsets="all,dynamic") as served:
        listed: dict[str, set[str]] = {}
        for scope in ("itwin:delete", "itwin:read", "itwin:write", "itwin:read"):
            async with served.client(mode=mode, scope=scope) as client:
                result = await client.list_tools()
                names = {tool.name for tool in result.tools}
                assert listed.setdefault(scope, names) == names
                if mode == "auto":
                    assert result.cache_scope == "private"
                found = await client.call_tool("find-tools", {"query": "delete an imodel", "limit": 20})
                assert found.structured_content is not None
                found_names = {tool["name"] for tool in found.structured_content["tools"]}
                assert ("delete-imodel" in found_names) is (scope == "itwin:delete")
                nothing = await client.call_tool("find-tools", {"query": "zzzz"})
                assert nothing.structured_content is not None
                listed_names = {name for toolset in nothing.structured_content["toolsets"].values() for name in toolset}
                assert ("delete-imodel" in listed_names) is (scope == "itwin:delete")
        assert listed["itwin:read"] < listed["itwin:write"] < listed["itwin:delete"]
        assert {"list-itwins", "run-reading-tool"} <= listed["itwin:read"]
        assert "create-itwin" not in listed["itwin:read"]
        assert {"create-itwin", "run-writing-tool"} <= listed["itwin:write"]
        assert "delete-imodel" not in listed["itwin:write"]
        tools = served.runtime.catalog.tools
        assert listed["itwin:delete"] == set(tools)


async def test_legacy_session_uses_the_token_of_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    accept = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-11-25"}

    def read_message(answer: Any) -> dict[str, Any]:
        assert answer.status_code == 200, answer.text
        text = answer.text
        content = next((line[6:] for line in text.splitlines() if line.startswith("data: {")), text)
        return dict(json.loads(content))

    async with serve(monkeypatch) as served:
        async with served.http() as http:

            async def post(bearer: str, body: dict[str, Any], **more: str) -> Any:
                return await http.post(
                    "/mcp", headers={**accept, **more, "authorization": f"Bearer {bearer}"}, json=body
                )

            opened = await post(token(scope="itwin:delete"), HELLO)
            session = {"mcp-session-id": opened.headers["mcp-session-id"]}
            await post(token(), {"jsonrpc": "2.0", "method": "notifications/initialized"}, **session)
            listing = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}

            def names(answer: Any) -> set[str]:
                return {tool["name"] for tool in read_message(answer)["result"]["tools"]}

            # The same caller sends tokens with fewer and with more scopes in the same session.
            assert "delete-imodel" not in names(await post(token(scope="itwin:read"), listing, **session))
            assert "delete-imodel" in names(await post(token(scope="itwin:delete"), listing, **session))
            for other in (token(sub="eve"), token(client_id="other"), token(iss=ISSUER, sub="ada", client_id=None)):
                assert (await post(other, listing, **session)).status_code == 404, "a session belongs to one caller"
            delete = {**accept, **session, "authorization": f"Bearer {token(sub='eve')}"}
            assert (await http.delete("/mcp", headers=delete)).status_code == 404


@pytest.mark.parametrize(
    ("environment", "headers", "status"),
    [
        ({}, {}, 200),
        ({}, {"host": "mcp.example"}, 421),
        ({"ITWIN_MCP_ALLOWED_HOSTS": "mcp.example"}, {"host": "mcp.example"}, 200),
        ({"ITWIN_MCP_ALLOWED_HOSTS": "mcp.example"}, {"host": "MCP.example:443"}, 200),
        ({"ITWIN_MCP_ALLOWED_HOSTS": "mcp.example"}, {"host": "mcp.example:8443"}, 421),
        ({"ITWIN_MCP_ALLOWED_HOSTS": "mcp.example:8443"}, {"host": "mcp.example:8443"}, 200),
        ({"ITWIN_MCP_ALLOWED_HOSTS": "mcp.example"}, {"host": "mcp.example.evil"}, 421),
        ({"ITWIN_MCP_ALLOWED_HOSTS": "mcp.example"}, {"host": "evil@mcp.example"}, 421),
        ({}, {"origin": "http://localhost:6274"}, 403),
        ({"ITWIN_MCP_ALLOWED_ORIGINS": "https://app.example"}, {"origin": "https://app.example"}, 200),
        ({"ITWIN_MCP_ALLOWED_ORIGINS": "https://app.example"}, {"origin": "https://app.example:443"}, 200),
        ({"ITWIN_MCP_ALLOWED_ORIGINS": "https://app.example"}, {"origin": "http://app.example"}, 403),
        ({"ITWIN_MCP_ALLOWED_ORIGINS": "https://app.example"}, {"origin": "https://app.example.evil"}, 403),
        ({"ITWIN_MCP_ALLOWED_ORIGINS": "https://app.example"}, {"origin": "https://app.example@evil"}, 403),
        ({"ITWIN_MCP_ALLOWED_ORIGINS": "none"}, {"origin": "null"}, 403),
    ],
)
async def test_check_hosted_accepts_configured_hosts_and_origins(
    environment: dict[str, str], headers: dict[str, str], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from itwin_mcp.server.transports.origin_check import check_hosted

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def words(name: str) -> list[str]:
        return [value for value in environment.get(name, "").split(",") if value and value != "none"]

    hosts, origins = words("ITWIN_MCP_ALLOWED_HOSTS"), words("ITWIN_MCP_ALLOWED_ORIGINS")
    import httpx2

    app = check_hosted(inner, [*hosts, "127.0.0.1:8000"], origins)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=BASE_URL) as http:
        assert (await http.post("/mcp", headers=headers)).status_code == status


async def test_cors_allows_configured_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    page = "https://app.example"
    async with serve(monkeypatch, {"ITWIN_MCP_ALLOWED_ORIGINS": page}) as served:
        async with served.http(origin=page) as http:
            headers = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
            preflight = await http.options("/mcp", headers=headers)
            assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, page)
            answer = await served.post(http, "tools/list")
            assert answer.status_code == 401
            assert "WWW-Authenticate" in answer.headers["access-control-expose-headers"]


async def test_authentication_removes_the_token_from_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    from mcp.server.auth.middleware.auth_context import get_access_token

    from itwin_mcp.server.tools import Tools

    seen: list[Any] = []
    canary = token(jti="canary")
    finish_early = Tools.finish_early

    async def spy(self: Tools, context: Any, call_next: Any) -> Any:
        if context.method == "tools/call":
            seen.append((get_access_token(), dict(context.request.headers), context.request.url.query))
        return await finish_early(self, context, call_next)

    monkeypatch.setattr(Tools, "finish_early", spy)
    async with serve(monkeypatch) as served:
        for mode in ("auto", "legacy"):
            async with served.client(canary, mode=mode) as client:
                assert not (await client.call_tool("list-itwins", {})).is_error
    for access, headers, _ in seen:
        assert (access.token, access.client_id, access.subject) == ("", "agent", "ada")
        assert access.claims == {"iss": ISSUER}
        assert "authorization" not in headers
    assert len(seen) == 2
    assert canary not in repr(seen)


async def test_policy_decides_the_tools_of_each_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = {
        "itwin-mcp-policy": 1,
        "callers": [
            {"issuer": ISSUER, "subject": "ada", "itwins": "all", "tools": {"allow": ["get-itwin"]}},
            {
                "issuer": ISSUER,
                "subject": "bert",
                "itwins": "all",
                "tools": {"allow": ["list-itwins"], "deny": ["who-am-i"]},
            },
        ],
    }
    async with serve(monkeypatch, policy=json.dumps(rules)) as served:
        for _ in range(2):
            for subject, shown in (
                ("ada", {"get-itwin", "read-guide", "who-am-i"}),
                ("bert", {"list-itwins", "read-guide"}),
                ("carl", set()),
            ):
                async with served.client(sub=subject, scope="itwin:delete") as client:
                    assert {tool.name for tool in (await client.list_tools()).tools} == shown
                    for name in {"list-itwins", "who-am-i"} - shown:
                        answer = await client.call_tool(name, {})
                        assert answer.structured_content is not None
                        assert answer.structured_content["error"]["code"] == "PolicyRefused"


async def test_policy_can_deny_built_in_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    project = {"displayName": "Pier 7", "class": "Endeavor", "subClass": "Project"}
    calls: dict[str, dict[str, Any]] = {
        "who-am-i": {},
        "read-guide": {"guide": "errors"},
        "find-tools": {"query": "delete an iTwin"},
        "describe-tool": {"name": "delete-itwin"},
        "run-reading-tool": {"name": "list-itwins", "arguments": {}},
        "run-writing-tool": {"name": "create-itwin", "arguments": project},
    }
    default = {"itwins": "all", "tools": {"allow": ["all"], "deny": list(calls)}}
    rules = json.dumps({"itwin-mcp-policy": 1, "default": default})
    async with serve(monkeypatch, policy=rules, toolsets="dynamic") as served:
        async with served.client(scope="itwin:delete") as client:
            assert (await client.list_tools()).tools == []
            for name, arguments in calls.items():
                refused = (await client.call_tool(name, arguments)).structured_content
                assert refused is not None
                assert list(refused) == ["error"], name
                assert refused["error"]["code"] == "PolicyRefused"
                assert name in refused["error"]["message"]
        assert [(line["decision"], line["tool"]) for line in audited()] == [("refused", "create-itwin")]


async def test_policy_for_another_issuer_is_refused_at_startup(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = f"""itwin-mcp-policy: 1
default: {{itwins: all, tools: {{allow: [all]}}}}
callers:
- {{issuer: "{ISSUER}/", subject: ada, itwins: all, tools: {{allow: [read-only]}}}}
"""
    with pytest.raises(PolicyError, match=f"'{ISSUER}/' names no caller: this server takes tokens of '{ISSUER}' alone"):
        async with serve(monkeypatch, policy=rules):
            raise AssertionError("the server started")
