"""A hosted server as a process: both kinds of clients, no secrets in logs, and a shutdown that drains."""

import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.hosting.issuer import AUDIENCE, public, rsa, token
from tests.hosting.served import HELLO, keep_policy
from tests.server.processes import Served, serve_http
from tests.upstream.loopback import Asked, Loopback, loopback

pytestmark = pytest.mark.anyio


@dataclass
class Process:
    """A hosted server as a process, and its sign-in server."""

    served: Served
    issuer: Loopback

    @property
    def base(self) -> str:
        return self.served.url.removesuffix("/mcp")

    def bearer(self, **claims: Any) -> str:
        return token(**{"iss": self.issuer.origin, "scope": "itwin:write"} | claims)

    def http(self, bearer: str | None = None) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            base_url=self.base,
            headers={"authorization": f"Bearer {bearer or self.bearer()}"},
            timeout=20,
            trust_env=False,
        )


@asynccontextmanager
async def run_process(*arguments: str, **environment: str) -> AsyncIterator[Process]:
    async def handle(request: Asked) -> None:
        if request.path == "/.well-known/openid-configuration":
            origin = server.origin
            await request.json(200, {"issuer": origin, "jwks_uri": f"{origin}/jwks"})
        else:
            await request.json(200, {"keys": public(rsa("one"))})

    async with loopback(handle) as server:
        settings = {"ITWIN_MCP_AUTH_ISSUER": server.origin, "ITWIN_MCP_AUTH_AUDIENCE": AUDIENCE}
        settings |= {"ITWIN_MCP_POLICY": str(keep_policy()), **environment}
        with serve_http("--sandbox", *arguments, environment=settings) as served:
            yield Process(served, server)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM for another process")
async def test_shutdown_fails_readiness_then_closes_streams_and_exits() -> None:
    async with run_process("--job-seconds", "1", ITWIN_MCP_NOTICE_SECONDS="2", ITWIN_MCP_DRAIN_SECONDS="20") as hosted:
        answers: list[Any] = []
        ended_streams: list[str] = []
        async with hosted.http() as http, hosted.http() as legacy, hosted.http() as prober:
            assert (await prober.get("/readyz")).status_code == 200
            accept = {"accept": "application/json, text/event-stream"}
            opened = await legacy.post("/mcp", headers=accept, json=HELLO)
            session = {"mcp-session-id": opened.headers["mcp-session-id"], "mcp-protocol-version": "2025-11-25"}
            streaming = anyio.Event()

            async def listen() -> None:
                """Keep the stream open on which older clients receive notifications."""
                async with legacy.stream("GET", "/mcp", headers={**accept, **session}, timeout=30) as stream:
                    assert stream.status_code == 200
                    streaming.set()
                    async for _ in stream.aiter_bytes():
                        pass
                ended_streams.append("whole")

            began = anyio.Event()

            async def create(client: Client, itwin: str) -> None:
                async def progress(*_: Any) -> None:
                    began.set()

                arguments = {"iTwinId": itwin, "name": "Drained"}
                answers.append(await client.call_tool("create-imodel", arguments, progress_callback=progress))

            async with Client(streamable_http_client(f"{hosted.base}/mcp", http_client=http)) as client:
                recent = (await client.call_tool("list-recent-itwins", {"limit": 1})).structured_content
                assert recent is not None
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(listen)
                    tasks.start_soon(create, client, recent["iTwins"][0]["id"])
                    await streaming.wait()
                    await began.wait()
                    hosted.served.process.send_signal(signal.SIGTERM)
                    with anyio.fail_after(5):
                        while (await prober.get("/readyz")).status_code == 200:
                            await anyio.lowlevel.checkpoint()
                    assert (await prober.get("/healthz")).status_code == 200
                    assert not (await client.call_tool("list-itwins", {"limit": 1})).is_error, "calls are still served"
        assert ended_streams == ["whole"]
        assert answers[0].structured_content["iModel"]["state"] == "initialized"
        assert await anyio.to_thread.run_sync(lambda: hosted.served.process.wait(20)) == 0
    assert "Traceback" not in "".join(hosted.served.log)


@pytest.mark.slow
async def test_tokens_are_never_logged_or_passed_on() -> None:
    async with run_process("--log-level", "debug", "--toolsets", "itwins") as hosted:
        bearer = hosted.bearer(jti="canary")
        for mode in ("auto", "legacy"):
            async with hosted.http(bearer) as http:
                async with Client(streamable_http_client(f"{hosted.base}/mcp", http_client=http), mode=mode) as client:
                    assert (await client.list_tools()).tools
                    assert not (await client.call_tool("list-itwins", {"limit": 1})).is_error
        refused = token(iss="https://evil.example", jti="canary-refused")
        async with hosted.http(refused) as http:
            assert (await http.post("/mcp", json={})).status_code == 401
            assert (await http.post(f"/mcp?access_token={bearer}", json={})).status_code == 401
        requests = json.dumps([[request.path, request.headers] for request in hosted.issuer.requests])
    log = "".join(hosted.served.log)
    for secret in (bearer, refused, bearer.split(".")[1], bearer.split(".")[2]):
        assert secret not in log
        assert secret not in requests


@pytest.mark.slow
async def test_stateless_serves_legacy_clients_on_any_replica() -> None:
    accept = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-11-25"}
    async with run_process("--stateless") as hosted, hosted.http() as http:
        opened = await http.post("/mcp", headers=accept, json=HELLO)
        assert opened.status_code == 200
        assert "mcp-session-id" not in opened.headers
        listed = await http.post("/mcp", headers=accept, json={"jsonrpc": "2.0", "id": 2, "method": "tools/list"})
        assert "list-itwins" in listed.text
