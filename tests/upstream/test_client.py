"""The shared client against loopback servers that behave and misbehave."""

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


async def fine(asked: Asked) -> None:
    await asked.json(200, {"ok": True})


@asynccontextmanager
async def opened(server: Loopback, tokens: Any = None, **options: Any) -> AsyncIterator[UpstreamClient]:
    source = tokens or StaticToken(CANARY)
    options = {"nouns": name_entities(shipped_catalog().entities), "user_agent": "itwin-mcp/test"} | options
    async with UpstreamClient(server.origin, source, **options) as client:
        yield client


def get(path: str = "/imodels/1", *query: tuple[str, str], origin: str = PLATFORM_ORIGIN) -> Request:
    return Request("GET", origin, path, query)


def request_of(method: Method, path: str = "/imodels/1") -> Request:
    return Request(method, PLATFORM_ORIGIN, path, body=None if method == "GET" else JsonBody({"name": "x"}))


class Renewing:
    """A token source that returns a new token each time the current one is rejected."""

    def __init__(self) -> None:
        self.given = 0
        self.renewed = 0

    async def get_token(self, stale: Token | None = None) -> Token:
        if stale is not None and stale.value == f"token-{self.renewed}":
            self.renewed += 1
        self.given += 1
        return Token(f"token-{self.renewed}")


# --- where requests go, and with what ---------------------------------------------------------------------------


async def test_declared_platform_is_replaced_by_configured_one_with_bearer() -> None:
    async with loopback(fine) as server, opened(server) as client:
        answer = await client.send(get("/imodels/", ("$top", "2")))
    assert read_json(answer) == {"ok": True}
    assert answer.headers["content-type"] == "application/json"
    asked = server.requests[0]
    assert asked.headers["authorization"] == f"Bearer {CANARY}"
    assert asked.headers["user-agent"] == "itwin-mcp/test"
    assert len(asked.headers["x-correlation-id"]) == 36


async def test_configured_platform_gets_bearer() -> None:
    async with loopback(fine) as server, opened(server) as client:
        await client.send(get(origin=server.origin))
    assert "authorization" in server.requests[0].headers


async def test_other_origins_never_get_the_token() -> None:
    async with loopback(fine) as platform, loopback(fine) as other, opened(platform) as client:
        await client.send(get(origin=other.origin))
        await client.send(get(origin=f"http://localhost:{platform.port}"))
    assert ["authorization" in asked.headers for asked in [*other.requests, *platform.requests]] == [False, False]


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
async def test_lookalike_origin_never_gets_the_token(origin: str) -> None:
    async with loopback(fine) as server, opened(server) as client:
        with pytest.raises((InvalidArguments, Unreachable)):
            await client.send(get(origin=origin))
    assert server.requests == []


@pytest.mark.parametrize(
    "origin", ["HTTPS://API.Bentley.com", "https://api.bentley.com:443", "https://api.bentley.com/"]
)
async def test_origin_is_compared_after_parsing(origin: str) -> None:
    async with loopback(fine) as server, opened(server) as client:
        await client.send(get(origin=origin))
    assert "authorization" in server.requests[0].headers


async def test_operations_own_credential_is_sent() -> None:
    async with loopback(fine) as server, opened(server) as client:
        await client.send(Request("GET", PLATFORM_ORIGIN, "/imodels/1", headers=(("Authorization", "Basic c2hhcmU="),)))
    assert server.requests[0].headers["authorization"] == "Basic c2hhcmU="


async def test_send_without_token_raises_not_signed_in() -> None:
    async with (
        loopback(fine) as server,
        UpstreamClient(server.origin, None, user_agent="t", remedy="Use the tool `sign-in`.") as client,
    ):
        with pytest.raises(NotSignedIn) as caught:
            await client.send(get())
    assert caught.value.hint == "Use the tool `sign-in`."
    assert server.requests == []


async def test_sandbox_app_replaces_only_the_platform() -> None:
    seen: list[tuple[str, bytes]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["path"], dict(scope["headers"])[b"authorization"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async with (
        loopback(fine) as foreign,
        UpstreamClient(PLATFORM_ORIGIN, StaticToken("t"), sandbox=app, user_agent="t") as client,
    ):
        await client.send(get("/itwins/"))
        await client.send(get(origin=foreign.origin))
        port = free_port()
        with pytest.raises(Unreachable):
            await client.send(get(origin=f"http://127.0.0.1:{port}"))
    assert seen == [("/itwins/", b"Bearer t")]
    assert len(foreign.requests) == 1


async def test_client_keeps_no_cookie_and_follows_no_redirect() -> None:
    async def handler(asked: Asked) -> None:
        await asked.answer(302, headers={"Location": "/elsewhere", "Set-Cookie": "session=1; Path=/"})

    async with loopback(handler) as server, opened(server) as client:
        answer = await client.send(get())
        await client.send(get("/imodels/2"))
    assert (answer.status, answer.headers["location"]) == (302, "/elsewhere")
    assert [asked.path for asked in server.requests] == ["/imodels/1", "/imodels/2"]
    assert "cookie" not in server.requests[1].headers


async def test_proxy_variables_are_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    async with loopback(fine) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.origin)
        async with UpstreamClient("http://platform.test", StaticToken("t"), user_agent="t") as client:
            await client.send(get("/itwins/"))
    assert proxy.requests[0].target == "http://platform.test/itwins/"


async def test_server_without_tls_is_reported() -> None:
    async def answer_hello(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, answer_hello)
        origin = f"https://127.0.0.1:{listener.listeners[0].extra(SocketAttribute.local_port)}"
        async with UpstreamClient(origin, StaticToken("t"), user_agent="t") as client:
            with pytest.raises(Unreachable) as caught:
                await client.send(request_of("POST"))
        tasks.cancel_scope.cancel()
    assert (caught.value.code, caught.value.outcome_unknown) == ("ConnectionFailed", False)


async def test_unknown_host_is_reported() -> None:
    async with UpstreamClient("https://platform.invalid", StaticToken("t"), user_agent="t") as client:
        with pytest.raises(Unreachable, match=r"Could not connect to https://platform\.invalid"):
            await client.send(get())


# --- what is sent ---------------------------------------------------------------------------------------------------


async def test_path_arrives_unchanged_and_query_values_are_encoded() -> None:
    path = "/imodels/a%2Fb%20c%3F/~x;y=1@:%25"
    async with loopback(fine) as server, opened(server) as client:
        await client.send(get(path, ("$search", "a&b=c#d +é%20"), ("$continuationToken", "")))
    assert server.requests[0].target == f"{path}?$search=a%26b%3Dc%23d%20%2B%C3%A9%2520&$continuationToken="


@pytest.mark.parametrize(
    "path",
    ["/a/../b", "/a/./b", "/a/%2e%2e/b", "/a/.%2E", "/..", "a", "", "/a b", "/a?b", "/a#b", "/a\r\nX: y", "/é", "/%zz",
     "/{x}", "/a\\b", "/a\x00"],
)  # fmt: skip
async def test_path_that_http_would_change_is_not_sent(path: str) -> None:
    async with loopback(fine) as server, opened(server) as client:
        with pytest.raises(InvalidArguments):
            await client.send(get(path))
    assert server.requests == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("If-Match", "a\r\nX: y"), ("If-Match", "a\x00"), ("If-Match", "é"), ("Bad Name", "a"), ("", "a")],
)
async def test_header_with_line_break_is_not_sent(name: str, value: str) -> None:
    async with loopback(fine) as server, opened(server) as client:
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
async def test_body_is_encoded_by_its_type(body: Body, kind: str, content: bytes) -> None:
    async with loopback(fine) as server, opened(server) as client:
        await client.send(Request("POST", PLATFORM_ORIGIN, "/imodels/", body=body))
    assert server.requests[0].headers["content-type"] == kind
    assert server.requests[0].body == content


@pytest.mark.parametrize("value", [float("nan"), {"x": object()}, "\ud800"])
async def test_body_that_is_not_json_is_not_sent(value: Any) -> None:
    async with loopback(fine) as server, opened(server) as client:
        with pytest.raises(InvalidArguments):
            await client.send(Request("POST", PLATFORM_ORIGIN, "/imodels/", body=JsonBody(value)))
    assert server.requests == []


async def test_file_is_streamed_again_after_renewal(tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(bytes(range(256)) * 3000)

    async def handler(asked: Asked) -> None:
        await asked.answer(401 if asked.headers["authorization"] == "Bearer token-0" else 201)

    async with loopback(handler) as server, opened(server, Renewing()) as client:
        await client.send(Request("PUT", PLATFORM_ORIGIN, "/itwins/1/image", body=FileUpload(image, "image/png")))
    assert [asked.body == image.read_bytes() for asked in server.requests] == [True, True]
    assert server.requests[1].headers["content-length"] == "768000"


async def test_missing_file_is_reported_before_sending(tmp_path: Path) -> None:
    async with loopback(fine) as server, opened(server) as client:
        with pytest.raises(InvalidArguments, match="not a file"):
            await client.send(Request("PUT", PLATFORM_ORIGIN, "/x", body=FileUpload(tmp_path / "none", "image/png")))
    assert server.requests == []


# --- renewals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
async def test_401_renews_the_token_and_retries_once(method: Method) -> None:
    async def handler(asked: Asked) -> None:
        await asked.json(200 if asked.headers["authorization"] == "Bearer token-1" else 401, {})

    tokens = Renewing()
    async with loopback(handler) as server, opened(server, tokens) as client:
        assert (await client.send(request_of(method))).status == 200
    assert (len(server.requests), tokens.renewed) == (2, 1)


@pytest.mark.parametrize("method", METHODS)
async def test_second_401_raises_not_signed_in(method: Method) -> None:
    async def handler(asked: Asked) -> None:
        await asked.json(401, {"error": {"code": "Unauthorized", "message": "Access denied."}})

    tokens = Renewing()
    async with loopback(handler) as server, opened(server, tokens) as client:
        with pytest.raises(NotSignedIn, match="Access denied"):
            await client.send(request_of(method))
    assert (len(server.requests), tokens.renewed) == (2, 1)


async def test_many_calls_with_a_revoked_token_renew_it_once() -> None:
    fetched = 0

    async def fetch() -> Token:
        nonlocal fetched
        fetched += 1
        return Token(f"token-{fetched}")

    async def handler(asked: Asked) -> None:
        await asked.json(401 if asked.headers["authorization"] == "Bearer token-1" else 200, {})

    async with (
        loopback(handler) as server,
        opened(server, Renewal(fetch)) as client,
        anyio.create_task_group() as tasks,
    ):
        for number in range(200):
            tasks.start_soon(client.send, get(f"/{number}"))
    assert fetched == 2
    assert len(server.requests) <= 400


async def test_refused_static_token_is_not_sent_again() -> None:
    async def handler(asked: Asked) -> None:
        await asked.answer(401)

    async with loopback(handler) as server, opened(server) as client:
        with pytest.raises(NotSignedIn):
            await client.send(get())
    assert len(server.requests) == 1


async def test_error_carries_the_platforms_correlation_id() -> None:
    async def handler(asked: Asked) -> None:
        await asked.answer(404, headers={} if asked.path == "/2" else {"X-Correlation-Id": "from-platform"})

    async with loopback(handler) as server, opened(server) as client:
        errors = []
        for path in ("/1", "/2"):
            with pytest.raises(PlatformError) as caught:
                await client.send(get(path))
            errors.append(caught.value.correlation_id)
    assert errors == ["from-platform", server.requests[1].headers["x-correlation-id"]]


# --- retries: every method and every outcome ----------------------------------------------------------------------


async def _hang_up(asked: Asked) -> None:
    await asked.hang_up()


async def _half(asked: Asked) -> None:
    await asked.raw(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"half":')
    await asked.hang_up()


async def _half_chunk(asked: Asked) -> None:
    await asked.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n{")
    await asked.hang_up()


async def _garbage(asked: Asked) -> None:
    await asked.raw(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")
    await asked.hang_up()


async def _huge_head(asked: Asked) -> None:
    await asked.raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n")
    await asked.hang_up()


async def _bad_gzip(asked: Asked) -> None:
    await asked.answer(200, b"not gzip at all", {"Content-Encoding": "gzip"})


async def _silence(asked: Asked) -> None:
    await asked.until_closed()


def _status(status: int, **headers: str) -> Callable[[Asked], Any]:
    async def handler(asked: Asked) -> None:
        await asked.json(
            status,
            {"error": {"code": "C", "message": "m"}},
            {name.replace("_", "-"): value for name, value in headers.items()},
        )

    return handler


# outcome: (handler, attempts of a GET, attempts of a write, whether a write may have been carried out)
OUTCOMES: dict[str, tuple[Callable[[Asked], Any], int, int, bool]] = {
    "hangs up": (_hang_up, 3, 1, True),
    "half a body": (_half, 3, 1, True),
    "half a chunk": (_half_chunk, 3, 1, True),
    "no HTTP": (_garbage, 3, 1, True),
    "huge headers": (_huge_head, 3, 1, True),
    "broken gzip": (_bad_gzip, 3, 1, True),
    "silence": (_silence, 3, 1, True),
    "400": (_status(400), 1, 1, False),
    "403": (_status(403), 1, 1, False),
    "404": (_status(404), 1, 1, False),
    "408": (_status(408), 3, 1, True),
    "409": (_status(409), 1, 1, False),
    "422": (_status(422), 1, 1, False),
    "425": (_status(425), 3, 3, False),
    "429": (_status(429), 3, 3, False),
    "429 and when": (_status(429, Retry_After="0"), 3, 3, False),
    "429 and much later": (_status(429, Retry_After="3600"), 1, 1, False),
    "500": (_status(500), 3, 1, True),
    "501": (_status(501), 1, 1, False),
    "502": (_status(502), 3, 1, True),
    "503": (_status(503), 3, 1, True),
    "503 and when": (_status(503, Retry_After="0"), 3, 3, False),
    "503 and nonsense": (_status(503, Retry_After="-1"), 3, 1, True),
    "504": (_status(504), 3, 1, True),
}


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("method", METHODS)
async def test_write_is_retried_only_if_surely_not_executed(
    method: Method, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if outcome == "silence":
        monkeypatch.setattr(transport, "READ_SECONDS", 0.02)
    handler, reads, writes, unknown = OUTCOMES[outcome]
    async with loopback(handler) as server, opened(server) as client:
        with pytest.raises(CallError) as caught:
            await client.send(request_of(method))
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

    def counting(**options: Any) -> Any:
        http = build(**options)
        send = http.send

        async def counted(*arguments: Any, **named: Any) -> Any:
            nonlocal attempts
            attempts += 1
            return await send(*arguments, **named)

        monkeypatch.setattr(http, "send", counted)
        return http

    monkeypatch.setattr(transport, "build_http", counting)
    origin = f"http://127.0.0.1:{free_port()}"
    async with UpstreamClient(origin, StaticToken("t"), user_agent="t") as client:
        with pytest.raises(Unreachable) as caught:
            await client.send(request_of(method))
    assert (caught.value.code, caught.value.retryable, caught.value.outcome_unknown) == (
        "ConnectionFailed",
        True,
        False,
    )
    assert attempts == 3


@pytest.mark.parametrize("method", METHODS)
async def test_transient_fault_is_retried(method: Method) -> None:
    async def handler(asked: Asked) -> None:
        if len(server.requests) < 3:
            await asked.answer(503, headers={"Retry-After": "0"})
        else:
            await asked.json(200, {})

    async with loopback(handler) as server, opened(server) as client:
        assert (await client.send(request_of(method))).status == 200
    assert len({asked.headers["x-correlation-id"] for asked in server.requests}) == 1


async def test_retry_budget_bounds_retries_in_an_outage() -> None:
    async with loopback(_status(500)) as server, opened(server) as client:
        for number in range(200):
            with pytest.raises(PlatformError):
                await client.send(get(f"/{number}"))
    assert len(server.requests) <= 200 + 10 + 20


# --- bounds ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
async def test_dripping_body_ends_at_the_deadline(method: Method) -> None:
    dripping = anyio.Event()

    async def handler(asked: Asked) -> None:
        await asked.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await asked.raw(b"1\r\n \r\n")
            dripping.set()
            await anyio.lowlevel.checkpoint()

    async with loopback(handler) as server, opened(server, deadline=0.2) as client:
        with pytest.raises(Unreachable) as caught:
            await client.send(request_of(method))
    assert dripping.is_set()
    assert (caught.value.code, caught.value.outcome_unknown) == ("TimedOut", method != "GET")
    assert len(server.requests) == 1


async def test_refused_write_has_a_known_outcome_if_renewal_times_out() -> None:
    async def handler(asked: Asked) -> None:
        await asked.answer(401)

    class Hanging:
        async def get_token(self, stale: Token | None = None) -> Token:
            if stale is not None:
                await anyio.sleep_forever()
            return Token("old")

    async with loopback(handler) as server, opened(server, Hanging(), deadline=0.1) as client:
        with pytest.raises(Unreachable) as caught:
            await client.send(request_of("POST"))
    assert not caught.value.outcome_unknown


async def test_endless_headers_end_at_the_deadline() -> None:
    async def handler(asked: Asked) -> None:
        await asked.raw(b"HTTP/1.1 200 OK\r\nX: ")
        await asked.until_closed()

    async with loopback(handler) as server, opened(server, deadline=0.1) as client:
        with pytest.raises(Unreachable, match=r"within 0 seconds|No whole answer"):
            await client.send(get())


@pytest.mark.parametrize(("size", "fits"), [(999, True), (1000, True), (1001, False)])
@pytest.mark.parametrize("chunked", [False, True])
async def test_body_larger_than_max_body_is_rejected(size: int, fits: bool, chunked: bool) -> None:
    async def handler(asked: Asked) -> None:
        if chunked:
            await asked.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            await asked.raw(f"{size:x}\r\n".encode() + b"x" * size + b"\r\n0\r\n\r\n")
        else:
            await asked.answer(200, b"x" * size)

    async with loopback(handler) as server, opened(server, max_body=1000) as client:
        if fits:
            assert len((await client.send(get())).content) == size
        else:
            with pytest.raises(UnexpectedAnswer, match="larger than"):
                await client.send(get())
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [200, 500])
async def test_gzip_bomb_is_stopped_at_max_body(status: int) -> None:
    bomb = gzip.compress(b"\0" * 50_000_000, compresslevel=9)

    async def handler(asked: Asked) -> None:
        await asked.answer(status, bomb, {"Content-Encoding": "gzip"})

    async with loopback(handler) as server, opened(server, max_body=2_000_000) as client:
        with pytest.raises(CallError) as caught:
            await client.send(Request("POST", PLATFORM_ORIGIN, "/x"))
    assert isinstance(caught.value, UnexpectedAnswer if status == 200 else PlatformError)
    assert len(str(caught.value)) < 3000


async def test_cancellation_closes_the_request_at_once(caplog: pytest.LogCaptureFixture) -> None:
    arrived, closed = anyio.Event(), anyio.Event()

    async def handler(asked: Asked) -> None:
        arrived.set()
        await asked.until_closed()
        closed.set()

    async with loopback(handler) as server, opened(server) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.send, request_of("POST"))
            await arrived.wait()
            tasks.cancel_scope.cancel()
        with anyio.fail_after(0.1):
            await closed.wait()
    assert len(server.requests) == 1
    assert f"may have been carried out (correlation id {server.requests[0].headers['x-correlation-id']})" in caplog.text


async def test_cancellation_during_backoff_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    refused, finished = anyio.Event(), False

    async def handler(asked: Asked) -> None:
        await asked.answer(503, headers={"Retry-After": "30"})
        refused.set()

    async def call(client: UpstreamClient) -> None:
        nonlocal finished
        await client.send(get())
        finished = True

    monkeypatch.setattr(retry, "sleep", anyio.sleep)
    async with loopback(handler) as server, opened(server) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(call, client)
        await refused.wait()
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert not finished
    assert len(server.requests) == 1


async def test_concurrency_is_bounded() -> None:
    under_way = peak = 0
    release = anyio.Event()

    async def handler(asked: Asked) -> None:
        nonlocal under_way, peak
        under_way += 1
        peak = max(peak, under_way)
        if under_way == 3:
            release.set()
        await release.wait()
        under_way -= 1
        await asked.json(200, {})

    async with loopback(handler) as server, opened(server, concurrency=3) as client, anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(client.send, get(f"/{number}"))
    assert (peak, len(server.requests)) == (3, 20)


# --- secrets and start-up -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [name for name in OUTCOMES if name != "silence"])
async def test_token_is_in_no_log_error_or_repr(outcome: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    seen: list[str] = []
    async with loopback(OUTCOMES[outcome][0]) as server, opened(server) as client:
        for method in METHODS:
            with pytest.raises(CallError) as caught:
                await client.send(request_of(method))
            error: BaseException | None = caught.value
            while error is not None:
                seen += [repr(error), str(error), repr(vars(error))]
                error = error.__cause__ or error.__context__
        seen += [repr(client), repr(StaticToken(CANARY)), repr(await StaticToken(CANARY).get_token())]
    seen += [record.getMessage() + repr(vars(record)) for record in caplog.records]
    assert CANARY in server.requests[0].headers["authorization"]
    assert not [text for text in seen if CANARY in text]


async def test_echoed_token_is_redacted() -> None:
    async def handler(asked: Asked) -> None:
        sent = asked.headers["authorization"]
        error = {"code": "C", "message": f"bad {sent}", "details": [{"code": sent, "message": sent, "target": sent}]}
        await asked.json(422, {"error": {**error, "more": [sent], sent: 1}})

    async with loopback(handler) as server, opened(server) as client:
        with pytest.raises(PlatformError) as caught:
            await client.send(get())
    assert CANARY not in str(caught.value.to_json("x"))
    assert len(server.requests) == 1


async def test_http_client_is_built_once_at_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Any] = []
    build = transport.build_http

    def remembering(**options: Any) -> Any:
        built.append(options)
        return build(**options)

    monkeypatch.setattr(transport, "build_http", remembering)
    async with loopback(fine) as server, opened(server) as client:
        assert built == []
        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(client.send, get(f"/{number}"))
    assert len(built) == 1


def test_importing_the_client_imports_no_optional_library() -> None:
    code = (
        "import sys, itwin_mcp.upstream.client, itwin_mcp.upstream.sign_in.static_token\n"
        "heavy = ('authlib', 'keyring', 'cryptography', 'joserfc', 'filelock', 'httpx', 'requests')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
