"""REST on a hosted server: tokens, scopes, policy and limits hold as over MCP."""

import pytest

from tests.executor.fenced import audited
from tests.hosting.issuer import token
from tests.hosting.served import serve

pytestmark = pytest.mark.anyio


async def test_rest_needs_a_token_with_the_scope_of_the_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(monkeypatch, rest=True) as served:
        async with served.http() as http:
            refused = await http.get("/rest/itwins/list-recent-itwins")
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"].startswith("Bearer ")
            assert (await http.get("/rest/itwins/openapi.json")).status_code == 401
        async with served.http(token(scope="itwin:read")) as http:
            listed = await http.get("/rest/itwins/list-recent-itwins?limit=1")
            assert listed.status_code == 200
            itwin = listed.json()["iTwins"][0]["id"]
            sent = {"iTwinId": itwin, "name": "By REST"}
            refused = await http.post("/rest/imodels/create-imodel", json=sent)
            assert refused.status_code == 403
            assert 'scope="itwin:read itwin:write"' in refused.headers["www-authenticate"]
            # The path is compared as the app reads it.
            assert (await http.post("/rest/imodels/create%2Dimodel", json=sent)).status_code == 403
            large = await http.post("/rest/imodels/create-imodel", json={"name": "x" * 600_000})
            assert large.status_code == 413
        assert [(entry["decision"], entry["tool"]) for entry in audited()] == [("refused", "create-imodel")] * 2
        async with served.http(token(scope="itwin:read itwin:write")) as http:
            made = await http.post("/rest/imodels/create-imodel", json=sent)
            assert (made.status_code, made.json()["iModel"]["name"]) == (200, "By REST")
            evil = {"origin": "https://evil.example"}
            assert (await http.get("/rest/itwins/list-recent-itwins", headers=evil)).status_code == 403


async def test_rest_shows_and_serves_what_the_policy_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = "itwin-mcp-policy: 1\ndefault: {itwins: all, tools: {allow: [list-recent-itwins]}}\n"
    async with serve(monkeypatch, policy=policy, rest=True) as served:
        async with served.http(token()) as http:
            document = (await http.get("/rest/itwins/openapi.json")).json()
            assert list(document["paths"]) == ["/list-recent-itwins"]
            assert (await http.get("/rest/itwins/list-itwins")).status_code == 404
