"""UpstreamClient with loopback servers that behave and misbehave."""

from __future__ import annotations

import gzip
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import SocketAttribute, SocketStream

from itwin_mcp.errors import CallError, InvalidArguments, NotSignedIn, PlatformError, UnexpectedAnswer, Unreachable
from itwin_mcp.runtime import name_entities
from itwin_mcp.settings import PLATFORM_ORIGIN
from itwin_mcp.upstream import retry, transport
from itwin_mcp.upstream.client import UpstreamClient
from itwin_mcp.upstream.messages import Body, FileUpload, FormBody, JsonBody, Method, Request, TextBody
from itwin_mcp.upstream.sign_in.renewal import Renewal
from itwin_mcp.upstream.sign_in.static_token import StaticToken
from itwin_mcp.upstream.sign_in.token import Token
from itwin_mcp.upstream.wire_format import read_json
from tests.conftest import shipped_catalog
from tests.sandbox_process import free_port

from ..network import wire  # noqa: F401, TID252
from .loopback import Asked, Loopback, loopback  # noqa: TID252

pytestmark = pytest.mark.anyio

CANARY = "canary-3f9a7c51-secret"
METHODS: Sequence[Method] = ("GET", "POST", "PUT", "PATCH", "DELETE")


async def answer_ok(request: Asked) -> None:
    await request.json(200, {"ok": True})


@asynccontextmanager
async def open_client(server: Loopback, tokens: Any = None, **options: Any) -> AsyncIterator[UpstreamClient]:
    source = tokens or StaticToken(CANARY)
    options = {"nouns": name_entities(shipped_catalog().entities), "user_agent": "itwin-mcp/test"} | options
    async with UpstreamClient(server.origin, source, **options) as client:
        yield client


def build_get(path: str = "/imodels/1", *query: tuple[str, str], origin: str = PLATFORM_ORIGIN) -> Request:
    return Request("GET", origin, path, query)


def build_request(method: Method, path: str = "/imodels/1") -> Request:
    return Request(method, PLATFORM_ORIGIN, path, body=None if method == "GET" else JsonBody({"name": "x"}))


class RenewingTokens:
    """A token source that returns a new token each time the current one is rejected."""

    def __init__(self) -> None:
        self.renewed = 0

    async def get_token(self, stale: Token | None = None) -> Token:
        if stale is not None and stale.value == f"token-{self.renewed}":
            self.renewed += 1
        return Token(f"token-{self.renewed}")


# --- origins and credentials ---------------------------------------------------------------------------------------


async def test_send_calls_the_configured_platform_with_bearer_token() -> None:
    async with loopback(answer_ok) as server, open_client(server) as client:
        answer = await client.send(build_get("/imodels/", ("$top", "2")))
    assert read_json(answer) == {"ok": True}
    assert answer.headers["content-type"] == "application/json"
    request = server.requests[0]
    assert request.headers["authorization"] == f"Bearer {CANARY}"
    assert request.headers["user-agent"] == "itwin-mcp/test"
    assert len(request.headers["x-correlation-id"]) == 36


async def test_send_accepts_the_configured_origin_as_platform() -> None:
    async with loopback(answer_ok) as server, open_client(server) as client:
        await client.send(build_get(origin=server.origin))
    assert "authorization" in server.requests[0].headers


async def test_send_withholds_token_from_other_origins() -> None:
    async with loopback(answer_ok) as platform, loopback(answer_ok) as other, open_client(platform) as client:
        await client.send(build_get(origin=other.origin))
        await client.send(build_get(origin=f"http://localhost:{platform.port}"))
    assert ["authorization" in request.headers for request in [*other.requests, *platform.requests]] == [False, False]


@pytest.mark.parametrize(
    "origin",
    [
        "https://api.bentley.com.evil.example",
        "https://api.bentley.com@evil.example",
        "https://evil.example\\@api.bentley.com",
        "https://api.bentley.com/path",
        "https://api.bentley.com?x",
        "https://api.bentley.com#x",
        "https://äpi.bentley.com",
        "ftp://api.bentley.com",
        "//api.bentley.com",
        "https://api.bentley.com:99999",
        "https://api.bentley.com\n",
        " https://api.bentley.com",
        "https://",
        "",
    ],
)
async def test_send_withholds_token_from_lookalike_origins(origin: str) -> None:
    async with loopback(answer_ok) as server, open_client(server) as client:
        with pytest.raises((InvalidArguments, Unreachable)):
            await client.send(build_get(origin=origin))
    assert server.requests == []


@pytest.mark.parametrize(
    "origin", ["HTTPS://API.Bentley.com", "https://api.bentley.com:443", "https://api.bentley.com/"]
)
async def test_send_parses_origin_before_comparing_it(origin: str) -> None:
    async with loopback(answer_ok) as server, open_client(server) as client:
        await client.send(build_get(origin=origin))
    assert "authorization" in server.requests[0].headers


async def test_send_keeps_authorization_header_of_the_request() -> None:
    async with loopback(answer_ok) as server, open_client(server) as client:
        await client.send(Request("GET", PLATFORM_ORIGIN, "/imodels/1", headers=(("Authorization", "Basic c2hhcmU="),)))
    assert server.requests[0].headers["authorization"] == "Basic c2hhcmU="


async def test_send_without_token_raises_not_signed_in() -> None:
    async with (
        loopback(answer_ok) as server,
        UpstreamClient(server.origin, None, user_agent="t", remedy="Use the tool `sign-in`.") as client,
    ):
        with pytest.raises(NotSignedIn) as caught:
            await client.send(build_get())
    assert caught.value.hint == "Use the tool `sign-in`."
    assert server.requests == []


async def test_sandbox_app_replaces_only_the_platform() -> None:
    seen: list[tuple[str, bytes]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["path"], dict(scope["headers"])[b"authorization"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async with (
        loopback(answer_ok) as foreign,
        UpstreamClient(PLATFORM_ORIGIN, StaticToken("t"), sandbox=app, user_agent="t") as client,
    ):
        await client.send(build_get("/itwins/"))
        await client.send(build_get(origin=foreign.origin))
        port = free_port()
        with pytest.raises(Unreachable):
            await client.send(build_get(origin=f"http://127.0.0.1:{port}"))
    assert seen == [("/itwins/", b"Bearer t")]
    assert len(foreign.requests) == 1


async def test_client_keeps_no_cookie_and_follows_no_redirect() -> None:
    async def handler(request: Asked) -> None:
        await request.answer(302, headers={"Location": "/elsewhere", "Set-Cookie": "session=1; Path=/"})

    async with loopback(handler) as server, open_client(server) as client:
        answer = await client.send(build_get())
        await client.send(build_get("/imodels/2"))
    assert (answer.status, answer.headers["location"]) == (302, "/elsewhere")
    assert [request.path for request in server.requests] == ["/imodels/1", "/imodels/2"]
    assert "cookie" not in server.requests[1].headers


async def test_client_uses_proxy_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    async with loopback(answer_ok) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.origin)
        async with UpstreamClient("http://platform.test", StaticToken("t"), user_agent="t") as client:
            await client.send(build_get("/itwins/"))
    assert proxy.requests[0].target == "http://platform.test/itwins/"


async def test_server_without_tls_raises_unreachable() -> None:
    async def answer_hello(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, answer_hello)
        origin = f"https://127.0.0.1:{listener.listeners[0].extra(SocketAttribute.local_port)}"
        async with UpstreamClient(origin, StaticToken("t"), user_agent="t") as client:
            with pytest.raises(Unreachable) as caught:
                await client.send(build_request("POST"))
        tasks.cancel_scope.cancel()
    assert (caught.value.code, caught.value.outcome_unknown) == ("ConnectionFailed", False)


async def test_unknown_host_raises_unreachable() -> None:
    async with UpstreamClient("https://platform.invalid", StaticToken("t"), user_agent="t") as client:
        with pytest.raises(Unreachable, match=r"Could not connect to https://platform\.invalid"):
            await client.send(build_get())


# --- what is sent ---------------------------------------------------------------------------------------------------


async def test_path_arrives_unchanged_and_query_values_are_encoded() -> None:
    path = "/imodels/a%2Fb%20c%3F/~x;y=1@:%25"
    async with loopback(answer_ok) as server, open_client(server) as client:
        await client.send(build_get(path, ("$search", "a&b=c#d +é%20"), ("$continuationToken", "")))
    assert server.requests[0].target == f"{path}?$search=a%26b%3Dc%23d%20%2B%C3%A9%2520&$continuationToken="


@pytest.mark.parametrize(
    "path",
    ["/a/../b", "/a/./b", "/a/%2e%2e/b", "/a/.%2E", "/..", "a", "", "/a b", "/a?b", "/a#b", "/a\r\nX: y", "/é", "/%zz",
     "/{x}", "/a\\b", "/a\x00"],
)  # fmt: skip
async def test_send_rejects_path_that_httpx_would_change(path: str) -> None:
    async with loopback(answer_ok) as server, open_client(server) as client:
        with pytest.raises(InvalidArguments):
            await client.send(build_get(path))
    assert server.requests == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("If-Match", "a\r\nX: y"), ("If-Match", "a\x00"), ("If-Match", "é"), ("Bad Name", "a"), ("", "a")],
)
async def test_send_rejects_invalid_header(name: str, value: str) -> None:
    async with loopback(answer_ok) as server, open_client(server) as client:
        with pytest.raises(InvalidArguments):
            await client.send(Request("GET", PLATFORM_ORIGIN, "/a", headers=((name, value),)))
    assert server.requests == []


@pytest.mark.parametrize(
    ("body", "kind", "content"),
    [
        (
            JsonBody({"name": 'a"b', "n": None, "ü": [1.5]}),
            "application/json",
            '{"name":"a\\"b","n":null,"ü":[1.5]}'.encode(),
        ),
        (FormBody((("a", "b&c"), ("é", " "))), "application/x-www-form-urlencoded", b"a=b%26c&%C3%A9=+"),
        (TextBody("<x/>", "application/xml"), "application/xml", b"<x/>"),
    ],
)
async def test_send_encodes_body_by_its_type(body: Body, kind: str, content: bytes) -> None:
    async with loopback(answer_ok) as server, open_client(server) as client:
        await client.send(Request("POST", PLATFORM_ORIGIN, "/imodels/", body=body))
    assert server.requests[0].headers["content-type"] == kind
    assert server.requests[0].body == content


@pytest.mark.parametrize("value", [float("nan"), {"x": object()}, "\ud800"])
async def test_send_rejects_body_that_is_not_json(value: Any) -> None:
    async with loopback(answer_ok) as server, open_client(server) as client:
        with pytest.raises(InvalidArguments):
            await client.send(Request("POST", PLATFORM_ORIGIN, "/imodels/", body=JsonBody(value)))
    assert server.requests == []


async def test_file_upload_is_repeated_after_renewal(tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(bytes(range(256)) * 3000)

    async def handler(request: Asked) -> None:
        await request.answer(401 if request.headers["authorization"] == "Bearer token-0" else 201)

    async with loopback(handler) as server, open_client(server, RenewingTokens()) as client:
        await client.send(Request("PUT", PLATFORM_ORIGIN, "/itwins/1/image", body=FileUpload(image, "image/png")))
    assert [request.body == image.read_bytes() for request in server.requests] == [True, True]
    assert server.requests[1].headers["content-length"] == "768000"


async def test_send_rejects_missing_file(tmp_path: Path) -> None:
    async with loopback(answer_ok) as server, open_client(server) as client:
        with pytest.raises(InvalidArguments, match="not a file"):
            await client.send(Request("PUT", PLATFORM_ORIGIN, "/x", body=FileUpload(tmp_path / "none", "image/png")))
    assert server.requests == []


# --- renewals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
async def test_401_renews_the_token_and_retries_once(method: Method) -> None:
    async def handler(request: Asked) -> None:
        await request.json(200 if request.headers["authorization"] == "Bearer token-1" else 401, {})

    tokens = RenewingTokens()
    async with loopback(handler) as server, open_client(server, tokens) as client:
        assert (await client.send(build_request(method))).status == 200
    assert (len(server.requests), tokens.renewed) == (2, 1)


@pytest.mark.parametrize("method", METHODS)
async def test_second_401_raises_not_signed_in(method: Method) -> None:
    async def handler(request: Asked) -> None:
        await request.json(401, {"error": {"code": "Unauthorized", "message": "Access denied."}})

    tokens = RenewingTokens()
    async with loopback(handler) as server, open_client(server, tokens) as client:
        with pytest.raises(NotSignedIn, match="Access denied"):
            await client.send(build_request(method))
    assert (len(server.requests), tokens.renewed) == (2, 1)


async def test_many_calls_with_a_revoked_token_renew_it_once() -> None:
    fetched = 0

    async def fetch() -> Token:
        nonlocal fetched
        fetched += 1
        return Token(f"token-{fetched}")

    async def handler(request: Asked) -> None:
        await request.json(401 if request.headers["authorization"] == "Bearer token-1" else 200, {})

    async with (
        loopback(handler) as server,
        open_client(server, Renewal(fetch)) as client,
        anyio.create_task_group() as tasks,
    ):
        for number in range(200):
            tasks.start_soon(client.send, build_get(f"/{number}"))
    assert fetched == 2
    assert len(server.requests) <= 400


async def test_refused_static_token_is_not_sent_again() -> None:
    async def handler(request: Asked) -> None:
        await request.answer(401)

    async with loopback(handler) as server, open_client(server) as client:
        with pytest.raises(NotSignedIn):
            await client.send(build_get())
    assert len(server.requests) == 1


async def test_error_has_correlation_id_of_the_answer_or_the_request() -> None:
    async def handler(request: Asked) -> None:
        await request.answer(404, headers={} if request.path == "/2" else {"X-Correlation-Id": "from-platform"})

    async with loopback(handler) as server, open_client(server) as client:
        errors = []
        for path in ("/1", "/2"):
            with pytest.raises(PlatformError) as caught:
                await client.send(build_get(path))
            errors.append(caught.value.correlation_id)
    assert errors == ["from-platform", server.requests[1].headers["x-correlation-id"]]


# --- retries: every method and every outcome ----------------------------------------------------------------------


async def _hang_up(request: Asked) -> None:
    await request.hang_up()


async def _send_half_body(request: Asked) -> None:
    await request.raw(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"half":')
    await request.hang_up()


async def _send_half_chunk(request: Asked) -> None:
    await request.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n{")
    await request.hang_up()


async def _send_garbage(request: Asked) -> None:
    await request.raw(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")
    await request.hang_up()


async def _send_huge_headers(request: Asked) -> None:
    await request.raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n")
    await request.hang_up()


async def _send_broken_gzip(request: Asked) -> None:
    await request.answer(200, b"not gzip at all", {"Content-Encoding": "gzip"})


async def _stay_silent(request: Asked) -> None:
    await request.until_closed()


def _answer_error(status: int, **headers: str) -> Callable[[Asked], Any]:
    async def handler(request: Asked) -> None:
        await request.json(
            status,
            {"error": {"code": "C", "message": "m"}},
            {name.replace("_", "-"): value for name, value in headers.items()},
        )

    return handler


# outcome: (handler, attempts of a GET, attempts of a write, whether a write may have been carried out)
OUTCOMES: dict[str, tuple[Callable[[Asked], Any], int, int, bool]] = {
    "hangs up": (_hang_up, 3, 1, True),
    "half a body": (_send_half_body, 3, 1, True),
    "half a chunk": (_send_half_chunk, 3, 1, True),
    "no HTTP": (_send_garbage, 3, 1, True),
    "huge headers": (_send_huge_headers, 3, 1, True),
    "broken gzip": (_send_broken_gzip, 3, 1, True),
    "silence": (_stay_silent, 3, 1, True),
    "400": (_answer_error(400), 1, 1, False),
    "403": (_answer_error(403), 1, 1, False),
    "404": (_answer_error(404), 1, 1, False),
    "408": (_answer_error(408), 3, 1, True),
    "409": (_answer_error(409), 1, 1, False),
    "422": (_answer_error(422), 1, 1, False),
    "425": (_answer_error(425), 3, 3, False),
    "429": (_answer_error(429), 3, 3, False),
    "429 and when": (_answer_error(429, Retry_After="0"), 3, 3, False),
    "429 and much later": (_answer_error(429, Retry_After="3600"), 1, 1, False),
    "500": (_answer_error(500), 3, 1, True),
    "501": (_answer_error(501), 1, 1, False),
    "502": (_answer_error(502), 3, 1, True),
    "503": (_answer_error(503), 3, 1, True),
    "503 and when": (_answer_error(503, Retry_After="0"), 3, 3, False),
    "503 and nonsense": (_answer_error(503, Retry_After="-1"), 3, 1, True),
    "504": (_answer_error(504), 3, 1, True),
}


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("method", METHODS)
async def test_write_is_retried_only_if_not_executed(
    method: Method, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if outcome == "silence":
        monkeypatch.setattr(transport, "READ_SECONDS", 0.02)
    handler, reads, writes, unknown = OUTCOMES[outcome]
    async with loopback(handler) as server, open_client(server) as client:
        with pytest.raises(CallError) as caught:
            await client.send(build_request(method))
    error = caught.value
    assert len(server.requests) == (reads if method == "GET" else writes)
    assert error.members.get("outcomeUnknown", False) is (unknown and method != "GET")
    if unknown and method != "GET":
        assert not error.retryable
        assert "`list-imodels`" in error.hint
    assert error.correlation_id
    assert error.__cause__ is None
    assert "Bearer" not in repr(error.__context__)


@pytest.mark.parametrize("method", METHODS)
async def test_refused_connection_is_retried_for_every_method(method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = 0
    build = transport.build_http

    def build_counting_client(**options: Any) -> Any:
        http = build(**options)
        send = http.send

        async def send_counting(*arguments: Any, **named: Any) -> Any:
            nonlocal attempts
            attempts += 1
            return await send(*arguments, **named)

        monkeypatch.setattr(http, "send", send_counting)
        return http

    monkeypatch.setattr(transport, "build_http", build_counting_client)
    origin = f"http://127.0.0.1:{free_port()}"
    async with UpstreamClient(origin, StaticToken("t"), user_agent="t") as client:
        with pytest.raises(Unreachable) as caught:
            await client.send(build_request(method))
    assert (caught.value.code, caught.value.retryable, caught.value.outcome_unknown) == (
        "ConnectionFailed",
        True,
        False,
    )
    assert attempts == 3


@pytest.mark.parametrize("method", METHODS)
async def test_transient_fault_is_retried(method: Method) -> None:
    async def handler(request: Asked) -> None:
        if len(server.requests) < 3:
            await request.answer(503, headers={"Retry-After": "0"})
        else:
            await request.json(200, {})

    async with loopback(handler) as server, open_client(server) as client:
        assert (await client.send(build_request(method))).status == 200
    assert len({request.headers["x-correlation-id"] for request in server.requests}) == 1


async def test_retry_budget_limits_retries_in_an_outage() -> None:
    async with loopback(_answer_error(500)) as server, open_client(server) as client:
        for number in range(200):
            with pytest.raises(PlatformError):
                await client.send(build_get(f"/{number}"))
    assert len(server.requests) <= 200 + 10 + 20


# --- bounds ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
async def test_send_ends_slow_body_at_the_deadline(method: Method) -> None:
    dripping = anyio.Event()

    async def handler(request: Asked) -> None:
        await request.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await request.raw(b"1\r\n \r\n")
            dripping.set()
            await anyio.lowlevel.checkpoint()

    async with loopback(handler) as server, open_client(server, deadline=0.2) as client:
        with pytest.raises(Unreachable) as caught:
            await client.send(build_request(method))
    assert dripping.is_set()
    assert (caught.value.code, caught.value.outcome_unknown) == ("TimedOut", method != "GET")
    assert len(server.requests) == 1


async def test_renewal_timeout_after_401_leaves_outcome_known() -> None:
    async def handler(request: Asked) -> None:
        await request.answer(401)

    class Hanging:
        async def get_token(self, stale: Token | None = None) -> Token:
            if stale is not None:
                await anyio.sleep_forever()
            return Token("old")

    async with loopback(handler) as server, open_client(server, Hanging(), deadline=0.1) as client:
        with pytest.raises(Unreachable) as caught:
            await client.send(build_request("POST"))
    assert not caught.value.outcome_unknown


async def test_send_ends_endless_headers_at_the_deadline() -> None:
    async def handler(request: Asked) -> None:
        await request.raw(b"HTTP/1.1 200 OK\r\nX: ")
        await request.until_closed()

    async with loopback(handler) as server, open_client(server, deadline=0.1) as client:
        with pytest.raises(Unreachable, match=r"within 0 seconds|No whole answer"):
            await client.send(build_get())


@pytest.mark.parametrize(("size", "fits"), [(999, True), (1000, True), (1001, False)])
@pytest.mark.parametrize("chunked", [False, True])
async def test_body_larger_than_max_body_is_rejected(size: int, fits: bool, chunked: bool) -> None:
    async def handler(request: Asked) -> None:
        if chunked:
            await request.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            await request.raw(f"{size:x}\r\n".encode() + b"x" * size + b"\r\n0\r\n\r\n")
        else:
            await request.answer(200, b"x" * size)

    async with loopback(handler) as server, open_client(server, max_body=1000) as client:
        if fits:
            assert len((await client.send(build_get())).content) == size
        else:
            with pytest.raises(UnexpectedAnswer, match="larger than"):
                await client.send(build_get())
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [200, 500])
async def test_gzip_bomb_is_stopped_at_max_body(status: int) -> None:
    bomb = gzip.compress(b"\0" * 50_000_000, compresslevel=9)

    async def handler(request: Asked) -> None:
        await request.answer(status, bomb, {"Content-Encoding": "gzip"})

    async with loopback(handler) as server, open_client(server, max_body=2_000_000) as client:
        with pytest.raises(CallError) as caught:
            await client.send(Request("POST", PLATFORM_ORIGIN, "/x"))
    assert isinstance(caught.value, UnexpectedAnswer if status == 200 else PlatformError)
    assert len(str(caught.value)) < 3000


async def test_cancellation_closes_the_request_at_once(caplog: pytest.LogCaptureFixture) -> None:
    arrived, closed = anyio.Event(), anyio.Event()

    async def handler(request: Asked) -> None:
        arrived.set()
        await request.until_closed()
        closed.set()

    async with loopback(handler) as server, open_client(server) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.send, build_request("POST"))
            await arrived.wait()
            tasks.cancel_scope.cancel()
        with anyio.fail_after(0.1):
            await closed.wait()
    assert len(server.requests) == 1
    assert f"may have been carried out (correlation id {server.requests[0].headers['x-correlation-id']})" in caplog.text


async def test_cancellation_during_backoff_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    refused, finished = anyio.Event(), False

    async def handler(request: Asked) -> None:
        await request.answer(503, headers={"Retry-After": "30"})
        refused.set()

    async def call(client: UpstreamClient) -> None:
        nonlocal finished
        await client.send(build_get())
        finished = True

    monkeypatch.setattr(retry, "sleep", anyio.sleep)
    async with loopback(handler) as server, open_client(server) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(call, client)
        await refused.wait()
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert not finished
    assert len(server.requests) == 1


async def test_concurrency_limits_requests_under_way() -> None:
    under_way = peak = 0
    release = anyio.Event()

    async def handler(request: Asked) -> None:
        nonlocal under_way, peak
        under_way += 1
        peak = max(peak, under_way)
        if under_way == 3:
            release.set()
        await release.wait()
        under_way -= 1
        await request.json(200, {})

    async with (
        loopback(handler) as server,
        open_client(server, concurrency=3) as client,
        anyio.create_task_group() as tasks,
    ):
        for number in range(20):
            tasks.start_soon(client.send, build_get(f"/{number}"))
    assert (peak, len(server.requests)) == (3, 20)


# --- secrets and start-up -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [name for name in OUTCOMES if name != "silence"])
async def test_token_is_in_no_log_error_or_repr(outcome: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    seen: list[str] = []
    async with loopback(OUTCOMES[outcome][0]) as server, open_client(server) as client:
        for method in METHODS:
            with pytest.raises(CallError) as caught:
                await client.send(build_request(method))
            error: BaseException | None = caught.value
            while error is not None:
                seen += [repr(error), str(error), repr(vars(error))]
                error = error.__cause__ or error.__context__
        seen += [repr(client), repr(StaticToken(CANARY)), repr(await StaticToken(CANARY).get_token())]
    seen += [record.getMessage() + repr(vars(record)) for record in caplog.records]
    assert CANARY in server.requests[0].headers["authorization"]
    assert not [text for text in seen if CANARY in text]


async def test_echoed_token_is_redacted() -> None:
    async def handler(request: Asked) -> None:
        sent = request.headers["authorization"]
        error = {"code": "C", "message": f"bad {sent}", "details": [{"code": sent, "message": sent, "target": sent}]}
        await request.json(422, {"error": {**error, "more": [sent], sent: 1}})

    async with loopback(handler) as server, open_client(server) as client:
        with pytest.raises(PlatformError) as caught:
            await client.send(build_get())
    assert CANARY not in str(caught.value.to_json("x"))
    assert len(server.requests) == 1


async def test_http_client_is_built_once_at_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Any] = []
    build = transport.build_http

    def build_recorded(**options: Any) -> Any:
        built.append(options)
        return build(**options)

    monkeypatch.setattr(transport, "build_http", build_recorded)
    async with loopback(answer_ok) as server, open_client(server) as client:
        assert built == []
        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(client.send, build_get(f"/{number}"))
    assert len(built) == 1


def test_importing_the_client_imports_no_optional_library() -> None:
    code = (
        "import sys, itwin_mcp.upstream.client, itwin_mcp.upstream.sign_in.static_token\n"
        "heavy = ('authlib', 'keyring', 'cryptography', 'joserfc', 'filelock', 'httpx', 'requests')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"
