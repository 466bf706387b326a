"""SignInServer and the tokens of a service application, with a server that misbehaves."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from itwin_mcp.errors import CallError, NotSignedIn, Unreachable
from itwin_mcp.upstream.sign_in.renewal import Renewal
from itwin_mcp.upstream.sign_in.service_application import build_application_tokens
from itwin_mcp.upstream.sign_in.sign_in_server import SignInServer

from ..loopback import Asked  # noqa: TID252
from .identity import CLIENT_ID, CLIENT_SECRET, USER_AGENT, Clock, Identity, credentials_of, identity  # noqa: TID252

pytestmark = pytest.mark.anyio


def build_server(state: Identity, **options: Any) -> SignInServer:
    return SignInServer(state.issuer, user_agent=USER_AGENT, **options)


def build_tokens(state: Identity, clock: Clock | None = None) -> Renewal:
    clock = clock or Clock()
    return build_application_tokens(
        build_server(state, now=clock.now), CLIENT_ID, CLIENT_SECRET, now=clock.now, monotonic=clock.monotonic
    )


async def test_service_application_gets_a_token_with_member_address() -> None:
    async with identity() as state:
        token = await build_tokens(state).get_token()
    assert token.value == "access-1-canary"
    assert token.member == "service-abc@apps.imsoidc.bentley.com"
    assert token.expires_at == Clock().now() + 3600
    form = state.token_requests[0].form
    assert (form["grant_type"], form["scope"]) == ("client_credentials", "itwin-platform")
    assert "resource" not in form
    assert state.token_requests[0].headers["user-agent"] == USER_AGENT


@pytest.mark.parametrize("methods", [["client_secret_post"], ["client_secret_basic"], None])
async def test_client_secret_arrives_unchanged_by_either_method(methods: list[str] | None) -> None:
    async with identity(discovery={"token_endpoint_auth_methods_supported": methods}) as state:
        await build_tokens(state).get_token()
    assert credentials_of(state.token_requests[0]) == (CLIENT_ID, CLIENT_SECRET)
    assert ("client_secret" in state.token_requests[0].form) is (methods == ["client_secret_post"])


async def test_expired_token_is_renewed_by_client_credentials() -> None:
    clock = Clock()
    async with identity() as state:
        source = build_tokens(state, clock)
        await source.get_token()
        clock.move(4000)
        assert (await source.get_token()).value == "access-2-canary"
    assert [request.form["grant_type"] for request in state.token_requests] == ["client_credentials"] * 2


async def test_concurrent_callers_make_one_token_request() -> None:
    async with identity() as state:
        source = build_tokens(state)
        async with anyio.create_task_group() as tasks:
            for _ in range(200):
                tasks.start_soon(source.get_token)
    assert len(state.token_requests) == 1


@pytest.mark.parametrize(
    ("expires_in", "life"),
    [(3600, 3600.0), ("3600", 3600.0), (None, 300.0), (0, 1.0), (-5, 1.0), (10**9, 86400.0)],
)
async def test_token_life_is_bounded(expires_in: Any, life: float) -> None:
    clock = Clock()
    async with identity(expires_in=expires_in) as state:
        token = await build_tokens(state, clock).get_token()
    assert token.expires_at == clock.now() + life


def answer_with(status: int, body: bytes, **headers: str) -> Callable[[Asked], Awaitable[bool]]:
    async def answer(request: Asked) -> bool:
        await request.answer(status, body, {name.replace("_", "-"): value for name, value in headers.items()})
        return True

    return answer


async def hang_up(request: Asked) -> bool:
    await request.hang_up()
    return True


UNUSABLE: dict[str, Any] = {
    "500 HTML": answer_with(500, b"<html>", Content_Type="text/html"),
    "503 and when": answer_with(503, b"", Retry_After="20"),
    "429 HTML": answer_with(429, b"<html>", Content_Type="text/html", Retry_After="20"),
    "200 HTML": answer_with(200, b"<html>Sign in", Content_Type="text/html"),
    "200 empty": answer_with(200, b""),
    "200 list": answer_with(200, b"[]"),
    "200 text": answer_with(200, b'"token"'),
    "200 bad UTF-8": answer_with(200, b'{"access_token": "\xff"}'),
    "200 deep": answer_with(200, b"[" * 100_000),
    "200 without a token": answer_with(200, b'{"token_type": "Bearer"}'),
    "200 with a list as token": answer_with(200, b'{"access_token": [1], "token_type": "Bearer"}'),
    "200 with a line break in the token": answer_with(200, b'{"access_token": "a\\r\\nb", "token_type": "Bearer"}'),
    "200 without a type": answer_with(200, b'{"access_token": "a", "expires_in": 5}'),
    "200 DPoP": answer_with(200, b'{"access_token": "a", "token_type": "DPoP"}'),
    "200 with a word as life": answer_with(200, b'{"access_token": "a", "token_type": "Bearer", "expires_in": "soon"}'),
    "302": answer_with(302, b"", Location="https://evil.example/"),
    "400 without a code": answer_with(400, b'{"oops": 1}'),
    "temporarily unavailable": answer_with(400, b'{"error": "temporarily_unavailable"}'),
    "too large": answer_with(200, b'{"x": "' + b"x" * 300_000 + b'"}'),
    "compressed": answer_with(200, gzip.compress(b"{}"), Content_Encoding="gzip"),
    "hangs up": hang_up,
}


@pytest.mark.parametrize("name", UNUSABLE)
async def test_answer_without_token_raises_unreachable_without_secrets(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with identity(misbehave=UNUSABLE[name]) as state:
        with pytest.raises(Unreachable) as caught:
            await build_tokens(state).get_token()
        assert len(state.token_requests) == 1
    error: CallError = caught.value
    assert error.code == "SignInUnreachable"
    assert error.retryable
    assert_no_secret(error, caplog)


@pytest.mark.parametrize("code", ["invalid_client", "unauthorized_client", "invalid_scope", "access_denied"])
async def test_refused_credentials_hint_at_the_fix_and_are_remembered(
    code: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    body = f'{{"error": "{code}", "error_description": "secret={CLIENT_SECRET} client_secret={CLIENT_SECRET}"}}'
    async with identity(misbehave=answer_with(400, body.encode())) as state:
        source = build_tokens(state)
        for _ in range(3):
            with pytest.raises(NotSignedIn) as caught:
                await source.get_token()
        assert len(state.token_requests) == 1
    assert code in caught.value.message
    assert caught.value.hint


def assert_no_secret(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    texts = [record.getMessage() + repr(vars(record)) for record in caplog.records]
    exception: BaseException | None = error
    while exception is not None:
        texts += [repr(exception), str(exception), repr(vars(exception))]
        assert not hasattr(exception, "request")
        exception = exception.__cause__ or exception.__context__
    assert not [text for text in texts if "canary" in text]


async def test_unreachable_sign_in_server_raises_unreachable() -> None:
    async with identity() as state:
        issuer = state.issuer
    with pytest.raises(Unreachable, match="did not answer"):
        await build_application_tokens(SignInServer(issuer, user_agent=USER_AGENT), "a", "b").get_token()


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"issuer": "https://evil.example"}, "calls itself"),
        ({"issuer": None}, "calls itself"),
        ({"token_endpoint": None}, "no usable token_endpoint"),
        ({"token_endpoint": "/connect/token"}, "no usable token_endpoint"),
        ({"token_endpoint": "https://evil.example/token"}, "not its own"),
        ({"token_endpoint": "http://127.0.0.1:9/token"}, "not its own"),
        ({"authorization_endpoint": "https://user@evil.example/"}, "no usable authorization_endpoint"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "no usable authorization_endpoint"),
        ({"revocation_endpoint": "https://evil.example/"}, "not its own"),
    ],
)
async def test_discovery_document_with_foreign_endpoints_is_refused(document: dict[str, Any], words: str) -> None:
    async with identity(discovery=document) as state:
        with pytest.raises(Unreachable, match=words):
            await build_tokens(state).get_token()
    assert state.token_requests == []


async def test_discovery_is_read_once() -> None:
    async with identity() as state:
        source = build_tokens(state)
        token = await source.get_token()
        await source.get_token(stale=token)
    assert [request.path for request in state.server.requests].count("/.well-known/openid-configuration") == 1


@pytest.mark.parametrize(
    "issuer", ["http://ims.bentley.com", "ims.bentley.com", "https://a@ims.bentley.com", "https://x/?q", ""]
)
def test_sign_in_server_rejects_issuer_without_https(issuer: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        SignInServer(issuer, user_agent=USER_AGENT)


@pytest.mark.parametrize("issuer", ["https://ims.bentley.com/", "http://localhost:4000", "https://x.example/tenant/"])
def test_sign_in_server_strips_slash_from_issuer(issuer: str) -> None:
    assert SignInServer(issuer, user_agent=USER_AGENT).issuer == issuer.rstrip("/")
