"""A hosted server acts as its own service application, and callers' tokens never leave it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.hosting.issuer import token
from tests.hosting.served import serve
from tests.network import certificates_are_read_once, no_proxy, no_waiting_between_attempts  # noqa: F401
from tests.upstream.loopback import Asked, loopback
from tests.upstream.sign_in.identity import CLIENT_ID, CLIENT_SECRET, identity

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("status", [200, 401, 403, 429, 500])
async def test_callers_token_never_reaches_the_platform(
    status: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def platform(request: Asked) -> None:
        if status == 200:
            await request.json(200, {"iTwins": [], "_links": {}})
        else:
            await request.json(status, {"error": {"code": "Refused", "message": "no"}}, {"Retry-After": "0"})

    bearer = token(jti="canary", scope="itwin:delete")
    caplog.set_level("DEBUG", "itwin_mcp")
    async with identity() as ims, loopback(platform) as upstream:
        environment = {
            "ITWIN_API_URL": upstream.origin,
            "ITWIN_ISSUER_URL": ims.issuer,
            "ITWIN_CLIENT_ID": CLIENT_ID,
            "ITWIN_CLIENT_SECRET": CLIENT_SECRET,
        }
        answers: list[Any] = []
        async with serve(monkeypatch, environment, sandbox=False) as served:
            async with served.http(bearer, cookie=f"session={bearer}", **{"x-canary": bearer}) as http:
                for tool, arguments in (
                    ("list-itwins", {"limit": 1}),
                    ("create-itwin", {"displayName": "x", "class": "Endeavor", "subClass": "Project"}),
                    ("who-am-i", {}),
                ):
                    answer = await served.call(http, tool, **arguments)
                    assert answer.status_code == 200
                    answers.append(answer.text)
        sent = [
            (request.target, request.headers, request.body.decode())
            for request in (*upstream.requests, *ims.server.requests)
        ]
    assert any(headers.get("authorization") == "Bearer access-1-canary" for _, headers, _ in sent)
    for secret in (bearer, *bearer.split(".")[1:]):
        for text in (json.dumps(sent), json.dumps(answers), caplog.text):
            assert secret not in text
    assert CLIENT_SECRET not in json.dumps(answers) + caplog.text
