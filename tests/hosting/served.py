"""A hosted server in memory, without a socket. Tests create the tokens of its callers."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from starlette.types import ASGIApp, Message

from itwin_mcp import hosted_server
from itwin_mcp.runtime import Runtime, build_hosted_server, build_rest, open_runtime, surround_hosted
from itwin_mcp.server.tools import is_quick as is_quick_call
from itwin_mcp.server.transports.http import build_http_app
from itwin_mcp.settings import read_settings
from itwin_mcp.upstream.sign_in.credential_choice import Launcher
from tests.hosting.issuer import AUDIENCE, ISSUER, Documents, token

BASE_URL = "http://127.0.0.1:8000"
ALLOW_ALL = "itwin-mcp-policy: 1\ndefault: {itwins: all, tools: {allow: [all]}}\n"
ENVIRONMENT = {
    "ITWIN_MCP_AUTH_ISSUER": ISSUER,
    "ITWIN_MCP_AUTH_AUDIENCE": AUDIENCE,
    "ITWIN_MCP_NOTICE_SECONDS": "0",
    "ITWIN_MCP_CALLER_RATE_PER_MINUTE": "100000",
    "ITWIN_MCP_TOTAL_RATE_PER_MINUTE": "1000000",
}
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
}


HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}
"""The first message of an older client."""


def keep_policy(text: str = ALLOW_ALL) -> Path:
    """Write a policy file into the test's folder."""
    file = Path(os.environ["ITWIN_MCP_STATE_DIR"], "policy.yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


@dataclass
class Served:
    """A hosted server: its ASGI app and its parts."""

    app: Any
    runtime: Runtime
    parts: hosted_server.Exposure
    documents: Documents

    def http(self, bearer: str | None = None, **headers: str) -> httpx2.AsyncClient:
        authorization = {"authorization": f"Bearer {bearer}"} if bearer else {}
        return httpx2.AsyncClient(
            transport=httpx2.ASGITransport(self.app),
            base_url=BASE_URL,
            headers={**authorization, **headers},
            timeout=30,
        )

    @asynccontextmanager
    async def client(self, bearer: str | None = None, mode: str = "auto", **claims: Any) -> AsyncIterator[Client]:
        """Yield an MCP client with its own token."""
        async with self.http(bearer or token(**claims)) as http:
            async with Client(streamable_http_client(f"{BASE_URL}/mcp", http_client=http), mode=mode) as client:
                yield client

    async def post(
        self, http: httpx2.AsyncClient, method: str, meta: dict[str, Any] | None = None, **params: Any
    ) -> httpx2.Response:
        """Send one request of protocol 2026-07-28 without the SDK."""
        name_header = {"mcp-name": params.get("name", params.get("uri"))} if "name" in params or "uri" in params else {}
        return await http.post(
            "/mcp",
            headers={
                "accept": "application/json, text/event-stream",
                "mcp-protocol-version": "2026-07-28",
                "mcp-method": method,
                **name_header,
            },
            json={"jsonrpc": "2.0", "id": 1, "method": method, "params": params | {"_meta": META | (meta or {})}},
        )

    async def call(self, http: httpx2.AsyncClient, tool: str, **arguments: Any) -> httpx2.Response:
        return await self.post(http, "tools/call", name=tool, arguments=arguments)


@asynccontextmanager
async def serve(
    monkeypatch: Any,
    environment: Mapping[str, str] | None = None,
    stateless: bool = False,
    policy: str = ALLOW_ALL,
    **flags: Any,
) -> AsyncIterator[Served]:
    """Yield a hosted server with the sandbox; `Documents` is its sign-in server."""
    documents = Documents()
    policy_file = keep_policy(policy)

    async def fetch(url: str, *, user_agent: str) -> Any:
        return await documents(url)

    monkeypatch.setattr("itwin_mcp.upstream.plain_requests.fetch_document", fetch)
    flags = {"sandbox": True, "job_seconds": 0.0, "toolsets": "all", "policy": policy_file} | flags
    settings = read_settings({**os.environ, **ENVIRONMENT, **(environment or {})}, **flags)
    with hosted_server.open_exposure(settings, "127.0.0.1") as parts:
        assert parts is not None
        async with open_runtime(settings, {}, Launcher.HTTP, parts.watch) as runtime:
            server = build_hosted_server(runtime, parts)
            is_quick = partial(is_quick_call, runtime.catalog)
            rest = build_rest(runtime, settings, parts.get_caller)
            app = build_http_app(server, anyio.Event(), rest=rest, stateless=stateless, is_quick=is_quick)
            async with run_lifespan(app):
                yield Served(surround_hosted(runtime, parts, rest)(app, 8000), runtime, parts, documents)


@asynccontextmanager
async def run_lifespan(app: ASGIApp) -> AsyncIterator[None]:
    """Start an ASGI app as a server would, and shut it down (ASGI specification, Lifespan Protocol)."""
    to_app, received = anyio.create_memory_object_stream[Message](2)
    sent, from_app = anyio.create_memory_object_stream[Message](2)
    with to_app, received, sent, from_app:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(app, {"type": "lifespan"}, received.receive, sent.send)
            for phase in ("startup", "shutdown"):
                to_app.send_nowait({"type": f"lifespan.{phase}"})
                assert (await from_app.receive())["type"] == f"lifespan.{phase}.complete"
                if phase == "startup":
                    yield
