"""`itwin-mcp serve --http`: both eras, origin checks, streaming, cancellation and shutdown."""

import contextlib
import json
import re
import signal
import socket
import sys
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from itwin_mcp.server.transports import http
from tests.cli.test_serve import HELLO
from tests.server.processes import hanging_upstream, serve_http
from tests.server.test_stdio import UNREADABLE

pytestmark = pytest.mark.anyio

MODERN_HEADERS = {
    "accept": "application/json, text/event-stream",
    "content-type": "application/json",
    "mcp-protocol-version": "2026-07-28",
}
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
}


def request(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params | {"_meta": META}}


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_http_lists_calls_and_reads_in_both_eras(mode: str) -> None:
    messages: list[str | None] = []

    async def progress(done: float, total: float | None, text: str | None) -> None:
        messages.append(text)

    with serve_http("--sandbox", "--job-seconds", "0.2") as served:
        async with Client(served.url, mode=mode) as client:
            itwins = (await client.call_tool("list-recent-itwins", {"limit": 1})).structured_content
            assert itwins is not None
            itwin = itwins["iTwins"][0]["id"]
            created = await client.call_tool(
                "create-imodel", {"iTwinId": itwin, "name": "Over HTTP"}, progress_callback=progress
            )
            assert created.structured_content is not None
            assert created.structured_content["iModel"]["state"] == "initialized"
            read = await client.read_resource(f"itwin://itwins/{itwin}")
            assert itwin in read.contents[0].text  # type: ignore[union-attr]
    assert any(text and "The new iModel: scheduled" in text for text in messages)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:{port}"}, 200),
        ({"host": "evil.example:{port}"}, 421),
        ({"host": "127.0.0.1"}, 421),
        ({"host": "127.0.0.1.evil.example:{port}"}, 421),
        ({"host": "user@127.0.0.1:{port}"}, 421),
        ({"origin": "http://localhost:6274"}, 200),
        ({"origin": "http://127.0.0.1:{port}"}, 200),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost.evil.example"}, 403),
        ({"origin": "http://localhost:1@evil.example"}, 403),
        ({"origin": "http://evil.example#@localhost"}, 403),
        ({"origin": "file://"}, 403),
    ],
)
async def test_origin_check_accepts_only_this_computer(headers: dict[str, str], status: int) -> None:
    port = re.search(r":(\d+)/", SHARED.url).group(1)  # type: ignore[union-attr]
    sent = {name: value.format(port=port) for name, value in headers.items()}
    async with httpx2.AsyncClient() as http:
        answer = await http.post(
            SHARED.url,
            headers=MODERN_HEADERS | {"mcp-method": "tools/list"} | sent,
            json=request("tools/list"),
        )
    assert answer.status_code == status, answer.text


SHARED: Any = None
"""The server that most tests share."""


@pytest.fixture(autouse=True, scope="module")
def shared_server() -> Any:
    global SHARED
    with serve_http("--sandbox") as served:
        SHARED = served
        yield


async def test_http_token_is_required_and_printed_once() -> None:
    with serve_http("--sandbox", "--http-token") as served:
        token = re.search(r"Bearer (\S+)", "".join(served.log)).group(1)  # type: ignore[union-attr]
        headers = MODERN_HEADERS | {"mcp-method": "tools/list"}
        async with httpx2.AsyncClient() as http:
            for credentials, status in ((None, 401), ("wrong", 401), (token, 200)):
                sent = headers | ({"authorization": f"Bearer {credentials}"} if credentials else {})
                answer = await http.post(served.url, headers=sent, json=request("tools/list"))
                assert answer.status_code == status
    assert "".join(served.log).count(token) == 1


async def test_configured_http_token_is_never_printed() -> None:
    secret = "canary-token-of-the-environment"
    with serve_http(
        "--sandbox", "--http-token", "--log-level", "debug", environment={"ITWIN_MCP_HTTP_TOKEN": secret}
    ) as served:
        async with httpx2.AsyncClient(headers={"authorization": f"Bearer {secret}"}) as http:
            async with Client(streamable_http_client(served.url, http_client=http)) as client:
                assert (await client.list_tools()).tools
    assert secret not in "".join(served.log)


@pytest.mark.parametrize("cause", ["the client cancels", "the response is closed"])
async def test_cancelled_call_ends_its_platform_request_at_once(cause: str) -> None:
    async with hanging_upstream() as upstream:
        with serve_http(environment={"ITWIN_API_URL": upstream.url, "ITWIN_ACCESS_TOKEN": "token"}) as served:
            if cause == "the client cancels":
                async with Client(served.url) as client:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(client.call_tool, "list-recent-itwins", {})
                        await upstream.requested.wait()
                        tasks.cancel_scope.cancel()
                    began = anyio.current_time()
                    with anyio.fail_after(5):
                        await upstream.closed.wait()
                    seconds = anyio.current_time() - began
            else:
                call = request("tools/call", name="list-recent-itwins", arguments={})
                headers = MODERN_HEADERS | {"mcp-method": "tools/call", "mcp-name": "list-recent-itwins"}
                async with httpx2.AsyncClient() as http:
                    async with anyio.create_task_group() as tasks:

                        async def post() -> None:
                            await http.post(served.url, headers=headers, json=call, timeout=30)

                        tasks.start_soon(post)
                        await upstream.requested.wait()
                        tasks.cancel_scope.cancel()
                    began = anyio.current_time()
                    with anyio.fail_after(5):
                        await upstream.closed.wait()
                    seconds = anyio.current_time() - began
    assert seconds < 0.1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM for another process")
@pytest.mark.parametrize("sent", ["SIGTERM", "SIGINT"])
async def test_signal_drains_requests_and_exits_cleanly(sent: str) -> None:
    answers: list[Any] = []
    with serve_http("--sandbox", "--job-seconds", "1") as served:
        async with Client(served.url) as client:
            itwins = (await client.call_tool("list-recent-itwins", {"limit": 1})).structured_content
            assert itwins is not None
            arguments = {"iTwinId": itwins["iTwins"][0]["id"], "name": f"Drained by {sent}"}
            began = anyio.Event()

            async def progress(*_: Any) -> None:
                began.set()

            async def create() -> None:
                answers.append(await client.call_tool("create-imodel", arguments, progress_callback=progress))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(create)
                await began.wait()
                served.process.send_signal(getattr(signal, sent))
        assert answers[0].structured_content["iModel"]["state"] == "initialized"
        assert await anyio.to_thread.run_sync(lambda: served.process.wait(20)) == 0
    assert "Traceback" not in "".join(served.log)


@pytest.mark.parametrize("version", [None, "2025-11-25", "2026-07-28"])
async def test_http_answers_unreadable_bodies_as_stdio_does(version: str | None) -> None:
    headers = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
    headers |= {"mcp-protocol-version": version, "mcp-method": "ping"} if version else {}
    async with httpx2.AsyncClient(headers=headers) as http:
        for parameters in UNREADABLE:
            frame, code, number, reason = parameters.values
            answer = await http.post(SHARED.url, content=frame)
            assert answer.status_code == 400, (parameters.id, answer.text)
            body = answer.json()
            assert (body["error"]["code"], body["id"]) == (code, number), parameters.id
            assert str(reason) in body["error"]["message"]


async def test_http_batch_is_answered_in_one_stream() -> None:
    accept = {"accept": "application/json, text/event-stream"}
    ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
    call = {"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": "list-itwins", "arguments": {}}}
    done = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    async with httpx2.AsyncClient(headers=accept, timeout=20) as http:
        opened = await http.post(SHARED.url, json=HELLO)
        http.headers["mcp-session-id"] = opened.headers["mcp-session-id"]
        assert (await http.post(SHARED.url, json=[done])).status_code == 202
        answer = await http.post(SHARED.url, json=[ping, done, {**ping, "id": 1.5}, call])
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
        assert [(event["id"], "result" in event) for event in events] == [(2, True), (None, False), (3, True)]
        newer_revision = await http.post(SHARED.url, json=[ping], headers={"mcp-protocol-version": "2025-11-25"})
        assert (newer_revision.status_code, newer_revision.json()["error"]["code"]) == (400, -32600)
        http.headers["mcp-session-id"] = "unknown"
        assert (await http.post(SHARED.url, json=[ping, call])).status_code == 404


async def test_resumed_stream_is_a_new_stream() -> None:
    accept = {"accept": "application/json, text/event-stream"}
    async with httpx2.AsyncClient(headers=accept) as http:
        opened = await http.post(SHARED.url, json=HELLO)
        session = {"mcp-session-id": opened.headers["mcp-session-id"], "last-event-id": "5"}
        async with http.stream("GET", SHARED.url, headers=session) as resumed:
            assert resumed.status_code == 200
            assert resumed.headers["content-type"].startswith("text/event-stream")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for another process")
async def test_sigint_ends_an_idle_server_and_its_streams() -> None:
    with serve_http("--sandbox") as served:
        async with httpx2.AsyncClient(headers={"accept": "application/json, text/event-stream"}, timeout=20) as http:
            opened = await http.post(served.url, json=HELLO)
            session = {"mcp-session-id": opened.headers["mcp-session-id"]}
            async with http.stream("GET", served.url, headers=session) as stream:
                assert stream.status_code == 200
                served.process.send_signal(signal.SIGINT)
                async for _ in stream.aiter_bytes():
                    pass
            with anyio.fail_after(3):
                assert await anyio.to_thread.run_sync(served.process.wait) == 0
    assert len(served.log) == 2 and served.log[1] == "", "only the line with the URL"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for another process")
async def test_second_sigint_ends_calls_without_traceback() -> None:
    async with hanging_upstream() as upstream:
        with serve_http(environment={"ITWIN_API_URL": upstream.url, "ITWIN_ACCESS_TOKEN": "token"}) as served:
            call = request("tools/call", name="list-recent-itwins", arguments={})
            headers = MODERN_HEADERS | {"mcp-method": "tools/call", "mcp-name": "list-recent-itwins"}
            async with httpx2.AsyncClient(timeout=20) as http, anyio.create_task_group() as tasks:

                async def post() -> None:
                    with contextlib.suppress(httpx2.TransportError):
                        await http.post(served.url, headers=headers, json=call)

                tasks.start_soon(post)
                await upstream.requested.wait()
                served.process.send_signal(signal.SIGINT)
                # The server has handled the first signal when its port is closed.
                port = int(re.search(r":(\d+)/", served.url).group(1))  # type: ignore[union-attr]
                with anyio.fail_after(5), contextlib.suppress(OSError):
                    while True:
                        await (await anyio.connect_tcp("127.0.0.1", port)).aclose()
                served.process.send_signal(signal.SIGINT)
                with anyio.fail_after(3):
                    assert await anyio.to_thread.run_sync(served.process.wait) == 0
    assert "Traceback" not in "".join(served.log)


async def test_http_call_answers_structured_content_and_text() -> None:
    call = request("tools/call", name="list-itwins", arguments={"limit": 1})
    headers = MODERN_HEADERS | {"mcp-method": "tools/call", "mcp-name": "list-itwins"}
    async with httpx2.AsyncClient() as http:
        answer = await http.post(SHARED.url, headers=headers, json=call)
    assert answer.headers["content-type"] == "application/json"
    result = answer.json()["result"]
    assert result["resultType"] == "complete"
    assert result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "itwin-mcp"
    assert result["_meta"]["io.github.itwin-mcp/requests"] >= 1  # names are remembered
    assert json.loads(result["content"][0]["text"]) == result["structuredContent"]


def test_listener_sets_protocol_so_that_asyncio_sets_nodelay() -> None:
    # asyncio sets TCP_NODELAY only if the socket names its protocol; without it a call took 40 ms longer.
    with http._listen("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP


@pytest.mark.parametrize("address", ["0.0.0.0:8000", "192.168.1.5:80", "[::]:8000", "example.com:80"])
def test_serve_http_beyond_loopback_is_refused_with_a_reason(address: str) -> None:
    import subprocess

    command = [sys.executable, "-m", "itwin_mcp", "serve", "--sandbox", "--http", address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (2, "")
    assert "could act as you on the iTwin Platform" in done.stderr
