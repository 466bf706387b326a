"""Errors for unusable proxies and certificates name the environment variable."""

from pathlib import Path
from typing import Any

import pytest

from itwin_mcp.errors import Unreachable
from itwin_mcp.upstream.client import UpstreamClient
from itwin_mcp.upstream.messages import Request
from itwin_mcp.upstream.plain_requests import fetch_document, probe
from itwin_mcp.upstream.sign_in.sign_in_server import SignInServer
from itwin_mcp.upstream.sign_in.static_token import StaticToken
from itwin_mcp.upstream.storage import Storage
from tests.network import UNUSABLE, unusable_value
from tests.upstream.loopback import Asked, loopback

pytestmark = pytest.mark.anyio

NOWHERE = "https://127.0.0.1:9"
USER_AGENT = "itwin-mcp/test"


async def send_request() -> None:
    async with UpstreamClient(NOWHERE, StaticToken("t"), user_agent=USER_AGENT) as client:
        await client.send(Request("GET", NOWHERE, "/imodels"))


async def download_file(folder: Path) -> None:
    async with Storage([NOWHERE], user_agent=USER_AGENT) as storage:
        await storage.download(f"{NOWHERE}/file", folder / "new")


@pytest.fixture(autouse=True)
def no_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("variable", "value", "words"), UNUSABLE)
async def test_unusable_network_variable_is_named(
    variable: str, value: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, unusable_value(value, tmp_path))
    for attempt in (
        send_request,
        lambda: download_file(tmp_path),
        lambda: probe(f"{NOWHERE}/", user_agent=USER_AGENT),
        lambda: fetch_document(f"{NOWHERE}/", user_agent=USER_AGENT),
        lambda: SignInServer(NOWHERE, user_agent=USER_AGENT).discover(),
    ):
        with pytest.raises(Unreachable) as caught:
            await attempt()
        assert caught.value.code == "ConnectionFailed"
        assert caught.value.message.startswith(f"{variable} ")
        assert words in caught.value.message
        assert variable in caught.value.hint
        assert "canary" not in caught.value.message + caught.value.hint
        assert not caught.value.retryable


@pytest.mark.parametrize(
    "environment",
    [
        {"HTTPS_PROXY": "", "SSL_CERT_FILE": ""},
        {"HTTPS_PROXY": "htp://x", "NO_PROXY": "*"},
        {"https_proxy": "http://user:p%40w@proxy.example:8080/", "HTTPS_PROXY": "htp://overruled"},
        {"HTTP_PROXY": "proxy.example:8080"},
        {"HTTP_PROXY": "http://[::1]:8080"},
        {"ALL_PROXY": "HTTPS://proxy_1.example"},
    ],
)
async def test_usable_network_variables_allow_a_request(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer_ok(request: Asked) -> None:
        await request.json(200, {})

    for name, value in ({"NO_PROXY": "127.0.0.1"} | environment).items():
        monkeypatch.setenv(name, value)
    async with loopback(answer_ok) as server:
        assert (await probe(f"{server.origin}/", user_agent=USER_AGENT)).status == 200


async def test_sandbox_ignores_network_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    monkeypatch.setenv("HTTPS_PROXY", "htp://x")
    async with UpstreamClient(NOWHERE, StaticToken("t"), sandbox=app, user_agent=USER_AGENT) as client:
        assert (await client.send(Request("GET", NOWHERE, "/"))).status == 204
