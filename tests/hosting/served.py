"""A hosted server in memory: everything but the socket, with callers whose tokens a test creates."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from itwin_mcp import hosted_server
from itwin_mcp.runtime import Runtime, build_hosted_server, build_rest, open_runtime, surround_hosted
from itwin_mcp.server.transports.http import build_http_app
from itwin_mcp.settings import read_settings
from itwin_mcp.upstream.sign_in.credential_choice import Launcher
from tests.hosting.issuer import AUDIENCE, ISSUER, Documents, token

HERE = "http://127.0.0.1:8000"
EVERYBODY = "itwin-mcp-policy: 1\ndefault: {itwins: all, tools: {allow: [all]}}\n"
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


def keep_policy(text: str = EVERYBODY) -> Path:
    """Write a policy file into the test's folder."""
    file = Path(os.environ["ITWIN_MCP_STATE_DIR"], "policy.yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


@dataclass
class Served:
    """The app, and everything behind it."""

    app: Any
    runtime: Runtime
    parts: hosted_server.Exposure
    documents: Documents

    def http(self, bearer: str | None = None, **headers: str) -> httpx2.AsyncClient:
        given = {"authorization": f"Bearer {bearer}"} if bearer else {}
        return httpx2.AsyncClient(
            transport=httpx2.ASGITransport(self.app), base_url=HERE, headers={**given, **headers}, timeout=30
        )

    @asynccontextmanager
    async def client(self, bearer: str | None = None, mode: str = "auto", **claims: Any) -> AsyncIterator[Client]:
        """Yield an MCP client with its own token."""
        async with self.http(bearer or token(**claims)) as http:
            async with Client(streamable_http_client(f"{HERE}/mcp", http_client=http), mode=mode) as client:
                yield client

    async def post(
        self, http: httpx2.AsyncClient, method: str, meta: dict[str, Any] | None = None, **params: Any
    ) -> httpx2.Response:
        """Send one request of protocol 2026-07-28 by hand."""
        named = {"mcp-name": params.get("name", params.get("uri"))} if "name" in params or "uri" in params else {}
        return await http.post(
            "/mcp",
            headers={
                "accept": "application/json, text/event-stream",
                "mcp-protocol-version": "2026-07-28",
                "mcp-method": method,
                **named,
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
    policy: str = EVERYBODY,
    **flags: Any,
) -> AsyncIterator[Served]:
    """Yield a hosted server with the sandbox; `Documents` is its sign-in server."""
    documents = Documents()
    rules = keep_policy(policy)

    async def fetch(url: str, *, user_agent: str) -> Any:
        return await documents(url)

    monkeypatch.setattr("itwin_mcp.upstream.plain_requests.fetch_document", fetch)
    flags = {"sandbox": True, "job_seconds": 0.0, "toolsets": "all", "policy": rules} | flags
    settings = read_settings({**os.environ, **ENVIRONMENT, **(environment or {})}, **flags)
    with hosted_server.open_exposure(settings, "127.0.0.1") as parts:
        assert parts is not None
        async with open_runtime(settings, {}, Launcher.HTTP, parts.watch) as runtime:
            server = build_hosted_server(runtime, parts)
            rest = build_rest(runtime, settings, parts.get_caller)
            app = build_http_app(server, anyio.Event(), rest=rest, stateless=stateless)
            around = surround_hosted(runtime, parts, rest)(app, 8000)
            async with server.session_manager.run():
                yield Served(around, runtime, parts, documents)
