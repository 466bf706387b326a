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
from itwin_mcp.upstream import transport
from itwin_mcp.upstream.auth.renewal import Renewal
from itwin_mcp.upstream.auth.source import Token
from itwin_mcp.upstream.auth.static import StaticToken
from itwin_mcp.upstream.client import DECLARED_PLATFORM, UpstreamClient
from itwin_mcp.upstream.envelope import read_json
from itwin_mcp.upstream.wire import Body, FileBody, FormBody, JsonBody, Method, Request, TextBody
from tests.sandbox_process import free_port

from .loopback import Asked, Loopback, loopback  # noqa: TID252

pytestmark = pytest.mark.anyio

CANARY = "canary-3f9a7c51-secret"
METHODS: Sequence[Method] = ("GET", "POST", "PUT", "PATCH", "DELETE")


async def fine(asked: Asked) -> None:
    await asked.json(200, {"ok": True})


@asynccontextmanager
async def opened(server: Loopback, tokens: Any = None, **options: Any) -> AsyncIterator[UpstreamClient]:
    source = tokens or StaticToken(CANARY)
    async with UpstreamClient.open(server.origin, source, user_agent="itwin-mcp/test", **options) as client:
        yield client


def get(path: str = "/imodels/1", *query: tuple[str, str], origin: str = DECLARED_PLATFORM) -> Request:
    return Request("GET", origin, path, query)


def request_of(method: Method, path: str = "/imodels/1") -> Request:
    return Request(method, DECLARED_PLATFORM, path, body=None if method == "GET" else JsonBody({"name": "x"}))


class Renewing:
    """A token source that gives a new token each time the present one was refused."""

    def __init__(self) -> None:
        self.given = 0
        self.renewed = 0

    async def token(self, stale: Token | None = None) -> Token:
        if stale is not None and stale.value == f"token-{self.renewed}":
            self.renewed += 1
        self.given += 1
        return Token(f"token-{self.renewed}")


# --- where requests go, and with what ---------------------------------------------------------------------------


async def test_a_request_to_the_declared_platform_goes_to_the_configured_one_with_the_bearer() -> None:
    async with loopback(fine) as server, opened(server) as client:
        answer = await client.send(get("/imodels/", ("$top", "2")))
    assert read_json(answer) == {"ok": True}
    assert answer.headers["content-type"] == "application/json"
    asked = server.requests[0]
    assert asked.headers["authorization"] == f"Bearer {CANARY}"
    assert asked.headers["user-agent"] == "itwin-mcp/test"
    assert len(asked.headers["x-correlation-id"]) == 36


async def test_a_request_to_the_configured_platform_itself_carries_the_bearer() -> None:
    async with loopback(fine) as server, opened(server) as client:
        await client.send(get(origin=server.origin))
    assert "authorization" in server.requests[0].headers


async def test_any_other_origin_is_called_as_it_is_and_never_with_the_token() -> None:
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
async def test_what_only_looks_like_the_platform_never_gets_the_token(origin: str) -> None:
    async with loopback(fine) as server, opened(server) as client:
        with pytest.raises((InvalidArguments, Unreachable)):
            await client.send(get(origin=origin))
    assert server.requests == []


@pytest.mark.parametrize(
    "origin", ["HTTPS://API.Bentley.com", "https://api.bentley.com:443", "https://api.bentley.com/"]
)
async def test_an_origin_is_compared_parsed_and_not_as_text(origin: str) -> None:
    async with loopback(fine) as server, opened(server) as client:
        await client.send(get(origin=origin))
    assert "authorization" in server.requests[0].headers


async def test_a_credential_of_the_operation_itself_is_kept() -> None:
    async with loopback(fine) as server, opened(server) as client:
        await client.send(
            Request("GET", DECLARED_PLATFORM, "/imodels/1", headers=(("Authorization", "Basic c2hhcmU="),))
        )
    assert server.requests[0].headers["authorization"] == "Basic c2hhcmU="


async def test_without_any_token_nothing_is_sent_and_the_error_says_how_to_sign_in() -> None:
    async with (
        loopback(fine) as server,
        UpstreamClient.open(server.origin, None, user_agent="t", remedy="Use the tool `sign-in`.") as client,
    ):
        with pytest.raises(NotSignedIn) as caught:
            await client.send(get())
    assert caught.value.hint == "Use the tool `sign-in`."
    assert server.requests == []


async def test_an_app_stands_in_for_the_platforms_origin_and_for_no_other() -> None:
    seen: list[tuple[str, bytes]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["path"], dict(scope["headers"])[b"authorization"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async with (
        loopback(fine) as foreign,
        UpstreamClient.open(DECLARED_PLATFORM, StaticToken("t"), sandbox=app, user_agent="t") as client,
    ):
        await client.send(get("/itwins/"))
        await client.send(get(origin=foreign.origin))
        port = free_port()
        with pytest.raises(Unreachable):
            await client.send(get(origin=f"http://127.0.0.1:{port}"))
    assert seen == [("/itwins/", b"Bearer t")]
    assert len(foreign.requests) == 1


async def test_no_cookie_is_kept_and_no_redirect_followed() -> None:
    async def handler(asked: Asked) -> None:
        await asked.answer(302, headers={"Location": "/elsewhere", "Set-Cookie": "session=1; Path=/"})

    async with loopback(handler) as server, opened(server) as client:
        answer = await client.send(get())
        await client.send(get("/imodels/2"))
    assert (answer.status, answer.headers["location"]) == (302, "/elsewhere")
    assert [asked.path for asked in server.requests] == ["/imodels/1", "/imodels/2"]
    assert "cookie" not in server.requests[1].headers


async def test_the_usual_variables_lead_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async with loopback(fine) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.origin)
        async with UpstreamClient.open("http://platform.test", StaticToken("t"), user_agent="t") as client:
            await client.send(get("/itwins/"))
    assert proxy.requests[0].target == "http://platform.test/itwins/"


async def test_a_server_that_speaks_no_tls_is_told() -> None:
    async def answer_hello(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, answer_hello)
        origin = f"https://127.0.0.1:{listener.listeners[0].extra(SocketAttribute.local_port)}"
        async with UpstreamClient.open(origin, StaticToken("t"), user_agent="t") as client:
            with pytest.raises(Unreachable) as caught:
                await client.send(request_of("POST"))
        tasks.cancel_scope.cancel()
    assert (caught.value.code, caught.value.outcome_unknown) == ("ConnectionFailed", False)


async def test_a_name_that_nobody_knows_is_told() -> None:
    async with UpstreamClient.open("https://platform.invalid", StaticToken("t"), user_agent="t") as client:
        with pytest.raises(Unreachable, match=r"Could not connect to https://platform\.invalid"):
            await client.send(get())


# --- what is sent ---------------------------------------------------------------------------------------------------


async def test_the_path_arrives_byte_for_byte_and_no_query_value_can_add_a_pair() -> None:
    path = "/imodels/a%2Fb%20c%3F/~x;y=1@:%25"
    async with loopback(fine) as server, opened(server) as client:
        await client.send(get(path, ("$search", "a&b=c#d +é%20"), ("$continuationToken", "")))
    assert server.requests[0].target == f"{path}?$search=a%26b%3Dc%23d%20%2B%C3%A9%2520&$continuationToken="


@pytest.mark.parametrize(
    "path",
    ["/a/../b", "/a/./b", "/a/%2e%2e/b", "/a/.%2E", "/..", "a", "", "/a b", "/a?b", "/a#b", "/a\r\nX: y", "/é", "/%zz",
     "/{x}", "/a\\b", "/a\x00"],
)  # fmt: skip
async def test_a_path_that_would_not_arrive_as_it_is_is_not_sent(path: str) -> None:
    async with loopback(fine) as server, opened(server) as client:
        with pytest.raises(InvalidArguments):
            await client.send(get(path))
    assert server.requests == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("If-Match", "a\r\nX: y"), ("If-Match", "a\x00"), ("If-Match", "é"), ("Bad Name", "a"), ("", "a")],
)
async def test_a_header_that_could_end_its_line_is_not_sent(name: str, value: str) -> None:
    async with loopback(fine) as server, opened(server) as client:
        with pytest.raises(InvalidArguments):
            await client.send(Request("GET", DECLARED_PLATFORM, "/a", headers=((name, value),)))
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
async def test_a_body_is_written_as_what_it_is(body: Body, kind: str, content: bytes) -> None:
    async with loopback(fine) as server, opened(server) as client:
        await client.send(Request("POST", DECLARED_PLATFORM, "/imodels/", body=body))
    assert server.requests[0].headers["content-type"] == kind
    assert server.requests[0].body == content


@pytest.mark.parametrize("value", [float("nan"), {"x": object()}, "\ud800"])
async def test_a_body_that_is_no_json_is_not_sent(value: Any) -> None:
    async with loopback(fine) as server, opened(server) as client:
        with pytest.raises(InvalidArguments):
            await client.send(Request("POST", DECLARED_PLATFORM, "/imodels/", body=JsonBody(value)))
    assert server.requests == []


async def test_a_file_is_streamed_with_its_length_and_again_after_a_renewal(tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(bytes(range(256)) * 3000)

    async def handler(asked: Asked) -> None:
        await asked.answer(401 if asked.headers["authorization"] == "Bearer token-0" else 201)

    async with loopback(handler) as server, opened(server, Renewing()) as client:
        await client.send(Request("PUT", DECLARED_PLATFORM, "/itwins/1/image", body=FileBody(image, "image/png")))
    assert [asked.body == image.read_bytes() for asked in server.requests] == [True, True]
    assert server.requests[1].headers["content-length"] == "768000"


async def test_a_file_that_is_not_there_is_told_before_anything_is_sent(tmp_path: Path) -> None:
    async with loopback(fine) as server, opened(server) as client:
        with pytest.raises(InvalidArguments, match="not a file"):
            await client.send(Request("PUT", DECLARED_PLATFORM, "/x", body=FileBody(tmp_path / "none", "image/png")))
    assert server.requests == []


# --- renewals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
async def test_a_401_is_answered_by_one_renewal_and_one_repeat(method: Method) -> None:
    async def handler(asked: Asked) -> None:
        await asked.json(200 if asked.headers["authorization"] == "Bearer token-1" else 401, {})

    tokens = Renewing()
    async with loopback(handler) as server, opened(server, tokens) as client:
        assert (await client.send(request_of(method))).status == 200
    assert (len(server.requests), tokens.renewed) == (2, 1)


@pytest.mark.parametrize("method", METHODS)
async def test_a_second_401_is_the_end(method: Method) -> None:
    async def handler(asked: Asked) -> None:
        await asked.json(401, {"error": {"code": "Unauthorized", "message": "Access denied."}})

    tokens = Renewing()
    async with loopback(handler) as server, opened(server, tokens) as client:
        with pytest.raises(NotSignedIn, match="Access denied"):
            await client.send(request_of(method))
    assert (len(server.requests), tokens.renewed) == (2, 1)


async def test_two_hundred_calls_with_a_revoked_token_make_one_renewal() -> None:
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


async def test_a_static_token_that_is_refused_is_not_sent_again() -> None:
    async def handler(asked: Asked) -> None:
        await asked.answer(401)

    async with loopback(handler) as server, opened(server) as client:
        with pytest.raises(NotSignedIn):
            await client.send(get())
    assert len(server.requests) == 1


async def test_the_errors_correlation_id_is_the_platforms_own_where_it_gives_one() -> None:
    async def handler(asked: Asked) -> None:
        await asked.answer(404, headers={} if asked.path == "/2" else {"X-Correlation-Id": "from-platform"})

    async with loopback(handler) as server, opened(server) as client:
        errors = []
        for path in ("/1", "/2"):
            with pytest.raises(PlatformError) as caught:
                await client.send(get(path))
            errors.append(caught.value.correlation_id)
    assert errors == ["from-platform", server.requests[1].headers["x-correlation-id"]]


# --- repeats: every method and every outcome ----------------------------------------------------------------------


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
async def test_a_write_is_repeated_only_when_it_was_surely_not_executed(
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
async def test_a_server_that_is_not_there_is_tried_again_for_every_method(
    method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    async with UpstreamClient.open(origin, StaticToken("t"), user_agent="t") as client:
        with pytest.raises(Unreachable) as caught:
            await client.send(request_of(method))
    assert (caught.value.code, caught.value.retryable, caught.value.outcome_unknown) == (
        "ConnectionFailed",
        True,
        False,
    )
    assert attempts == 3


@pytest.mark.parametrize("method", METHODS)
async def test_a_fault_that_passes_is_never_seen(method: Method) -> None:
    async def handler(asked: Asked) -> None:
        if len(server.requests) < 3:
            await asked.answer(503, headers={"Retry-After": "0"})
        else:
            await asked.json(200, {})

    async with loopback(handler) as server, opened(server) as client:
        assert (await client.send(request_of(method))).status == 200
    assert len({asked.headers["x-correlation-id"] for asked in server.requests}) == 1


async def test_a_storm_of_faults_is_not_answered_by_a_storm_of_repeats() -> None:
    async with loopback(_status(500)) as server, opened(server) as client:
        for number in range(200):
            with pytest.raises(PlatformError):
                await client.send(get(f"/{number}"))
    assert len(server.requests) <= 200 + 10 + 20


# --- bounds ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
async def test_a_body_that_drips_for_ever_ends_at_the_deadline(method: Method) -> None:
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


async def test_a_write_that_was_refused_is_not_told_as_unknown_when_the_renewal_takes_too_long() -> None:
    async def handler(asked: Asked) -> None:
        await asked.answer(401)

    class Hanging:
        async def token(self, stale: Token | None = None) -> Token:
            if stale is not None:
                await anyio.sleep_forever()
            return Token("old")

    async with loopback(handler) as server, opened(server, Hanging(), deadline=0.1) as client:
        with pytest.raises(Unreachable) as caught:
            await client.send(request_of("POST"))
    assert not caught.value.outcome_unknown


async def test_headers_that_never_end_end_at_the_deadline() -> None:
    async def handler(asked: Asked) -> None:
        await asked.raw(b"HTTP/1.1 200 OK\r\nX: ")
        await asked.until_closed()

    async with loopback(handler) as server, opened(server, deadline=0.1) as client:
        with pytest.raises(Unreachable, match=r"within 0 seconds|No whole answer"):
            await client.send(get())


@pytest.mark.parametrize(("size", "fits"), [(999, True), (1000, True), (1001, False)])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_is_read_up_to_the_bound_and_not_a_byte_further(size: int, fits: bool, chunked: bool) -> None:
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
async def test_a_gzip_bomb_is_stopped_at_the_bound(status: int) -> None:
    bomb = gzip.compress(b"\0" * 50_000_000, compresslevel=9)

    async def handler(asked: Asked) -> None:
        await asked.answer(status, bomb, {"Content-Encoding": "gzip"})

    async with loopback(handler) as server, opened(server, max_body=2_000_000) as client:
        with pytest.raises(CallError) as caught:
            await client.send(Request("POST", DECLARED_PLATFORM, "/x"))
    assert isinstance(caught.value, UnexpectedAnswer if status == 200 else PlatformError)
    assert len(str(caught.value)) < 3000


async def test_cancelling_the_caller_closes_the_request_at_once(caplog: pytest.LogCaptureFixture) -> None:
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


async def test_cancelling_during_the_wait_before_a_repeat_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    refused, finished = anyio.Event(), False

    async def handler(asked: Asked) -> None:
        await asked.answer(503, headers={"Retry-After": "30"})
        refused.set()

    async def call(client: UpstreamClient) -> None:
        nonlocal finished
        await client.send(get())
        finished = True

    import stamina

    with stamina.set_testing(False):
        async with loopback(handler) as server, opened(server) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(call, client)
            await refused.wait()
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
    assert not finished
    assert len(server.requests) == 1


async def test_never_more_requests_are_under_way_than_promised() -> None:
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


# --- identical reads ------------------------------------------------------------------------------------------------


def _held() -> tuple[anyio.Event, anyio.Event, Callable[[Asked], Any]]:
    arrived, release = anyio.Event(), anyio.Event()

    async def handler(asked: Asked) -> None:
        if asked.method == "GET":
            arrived.set()
            await release.wait()
        await asked.json(200, {"target": asked.target})

    return arrived, release, handler


async def test_identical_reads_at_the_same_time_are_made_once() -> None:
    arrived, release, handler = _held()
    answers: list[Any] = []

    async def call(client: UpstreamClient, request: Request) -> None:
        answers.append(read_json(await client.send(request)))

    async with loopback(handler) as server, opened(server) as client, anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(call, client, get("/a", ("$top", "1")))
        tasks.start_soon(call, client, get("/a", ("$top", "2")))
        await arrived.wait()
        await anyio.wait_all_tasks_blocked()
        release.set()
    assert sorted(asked.target for asked in server.requests) == ["/a?$top=1", "/a?$top=2"]
    assert len(answers) == 51


async def test_a_read_that_is_over_is_not_kept() -> None:
    async with loopback(fine) as server, opened(server) as client:
        await client.send(get())
        await client.send(get())
    assert len(server.requests) == 2


async def test_a_cancelled_caller_does_not_take_the_others_with_it() -> None:
    arrived, release, handler = _held()
    answers: list[Any] = []
    leader = anyio.CancelScope()

    async def lead(client: UpstreamClient) -> None:
        with leader:
            await client.send(get())

    async def follow(client: UpstreamClient) -> None:
        answers.append(await client.send(get()))

    async with loopback(handler) as server, opened(server) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(lead, client)
        await arrived.wait()
        for _ in range(5):
            tasks.start_soon(follow, client)
        await anyio.wait_all_tasks_blocked()
        leader.cancel()
        release.set()
    assert len(answers) == 5
    assert len(server.requests) == 2


async def test_a_read_after_a_write_does_not_get_an_older_answer() -> None:
    arrived, release, handler = _held()

    async with loopback(handler) as server, opened(server) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(client.send, get())
        await arrived.wait()
        await client.send(request_of("PATCH"))
        tasks.start_soon(client.send, get())
        await anyio.wait_all_tasks_blocked()
        release.set()
    assert [asked.method for asked in server.requests] == ["GET", "PATCH", "GET"]


async def test_callers_who_share_a_refusal_get_an_error_each_of_their_own() -> None:
    arrived, release = anyio.Event(), anyio.Event()
    errors: list[CallError] = []

    async def handler(asked: Asked) -> None:
        arrived.set()
        await release.wait()
        await asked.json(404, {"error": {"code": "iModelNotFound", "message": "Requested iModel is not available."}})

    async def call(client: UpstreamClient) -> None:
        try:
            await client.send(get())
        except PlatformError as error:
            errors.append(error)

    async with loopback(handler) as server, opened(server) as client, anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(call, client)
        await arrived.wait()
        await anyio.wait_all_tasks_blocked()
        release.set()
    assert len(server.requests) == 1
    assert len({id(error) for error in errors}) == 3
    assert {str(error.to_json("x")) for error in errors} == {str(errors[0].to_json("x"))}


# --- secrets and start-up -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [name for name in OUTCOMES if name != "silence"])
async def test_the_token_is_in_no_log_error_or_repr(outcome: str, caplog: pytest.LogCaptureFixture) -> None:
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
        seen += [repr(client), repr(StaticToken(CANARY)), repr(await StaticToken(CANARY).token())]
    seen += [record.getMessage() + repr(vars(record)) for record in caplog.records]
    assert CANARY in server.requests[0].headers["authorization"]
    assert not [text for text in seen if CANARY in text]


async def test_a_server_that_echoes_the_token_does_not_bring_it_to_the_agent() -> None:
    async def handler(asked: Asked) -> None:
        sent = asked.headers["authorization"]
        error = {"code": "C", "message": f"bad {sent}", "details": [{"code": sent, "message": sent, "target": sent}]}
        await asked.json(422, {"error": {**error, "more": [sent], sent: 1}})

    async with loopback(handler) as server, opened(server) as client:
        with pytest.raises(PlatformError) as caught:
            await client.send(get())
    assert CANARY not in str(caught.value.to_json("x"))
    assert len(server.requests) == 1


async def test_the_http_client_is_built_at_the_first_call_and_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_importing_the_client_brings_no_library_that_only_some_need() -> None:
    code = (
        "import sys, itwin_mcp.upstream.client, itwin_mcp.upstream.auth.static\n"
        "heavy = ('authlib', 'keyring', 'stamina', 'cryptography', 'joserfc', 'filelock', 'httpx', 'requests')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
