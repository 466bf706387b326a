"""Limits of one caller: request slots, sessions and bodies. A reply never waits for the slot of its own call."""

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import pytest
from starlette.types import Message

from tests.hosting.issuer import token
from tests.hosting.served import HELLO, META, Served, serve

pytestmark = pytest.mark.anyio

ACCEPT = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
ONE_SLOT = {"ITWIN_MCP_CALLER_CONCURRENCY": "1"}
ELICITING_HELLO = HELLO | {"params": {**HELLO["params"], "capabilities": {"elicitation": {}}}}


class Post:
    """A raw ASGI POST, because httpx2's transport in memory sends and receives only complete bodies."""

    def __init__(self, served: Served, bearer: str, *parts: bytes, **headers: str) -> None:
        self._app = served.app
        sent = {"host": "127.0.0.1:8000", "authorization": f"Bearer {bearer}", **ACCEPT, **headers}
        self._scope = {
            "type": "http",
            "method": "POST",
            "path": "/mcp",
            "query_string": b"",
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in sent.items()],
        }
        self._parts = [*parts]
        self.continues = anyio.Event()
        """Set by the test to send the rest of the body."""
        self.read = 0
        self.status = 0
        self.content = b""
        self._has_news = anyio.Event()

    async def run(self) -> None:
        await self._app(self._scope, self._receive, self._send)

    async def next_message(self) -> dict[str, Any]:
        """Return the next message in the event stream of the response."""
        while True:
            for line in self.content.splitlines(keepends=True):
                if line.startswith(b"data: {") and line.endswith(b"\n"):
                    self.content = self.content.partition(line)[2]
                    message: dict[str, Any] = json.loads(line[6:])
                    return message
            self._has_news = anyio.Event()
            await self._has_news.wait()

    async def _receive(self) -> Message:
        if self._parts:
            if self.read:
                await self.continues.wait()
            self.read += 1
            return {"type": "http.request", "body": self._parts.pop(0), "more_body": bool(self._parts)}
        await anyio.sleep_forever()
        raise AssertionError

    async def _send(self, message: Message) -> None:
        self.status = message.get("status", self.status)
        self.content += message.get("body", b"")
        self._has_news.set()


@asynccontextmanager
async def start_deletion(served: Served) -> AsyncIterator[tuple[httpx2.AsyncClient, Post, dict[str, Any]]]:
    """Yield an older client while it deletes an iTwin: its HTTP session, the call, and the question to the user."""
    bearer = token(scope="itwin:delete")
    async with served.client(bearer) as client:
        created = await client.call_tool(
            "create-itwin", {"displayName": "Doomed", "class": "Endeavor", "subClass": "Project"}
        )
        assert created.structured_content is not None
        itwin = created.structured_content["iTwin"]["id"]
    async with served.http(bearer, **ACCEPT) as http:
        session = (await http.post("/mcp", json=ELICITING_HELLO)).headers["mcp-session-id"]
        http.headers["mcp-session-id"] = session
        await http.post("/mcp", json={"jsonrpc": "2.0", "method": "notifications/initialized"})
        request = {"name": "delete-itwin", "arguments": {"iTwinId": itwin}}
        body = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": request}).encode()
        call = Post(served, bearer, body, mcp_session_id=session)
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call.run)
                question = await call.next_message()
                assert question["method"] == "elicitation/create"
                yield http, call, question


async def test_elicitation_reply_takes_no_request_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(monkeypatch, ONE_SLOT) as served, start_deletion(served) as (http, call, question):
        reply = {"action": "accept", "content": {"name": "Doomed"}}
        response = await http.post("/mcp", json={"jsonrpc": "2.0", "id": question["id"], "result": reply})
        assert response.status_code == 202
        result = await call.next_message()
        assert result["id"] == 7
        assert not result["result"].get("isError"), result


async def test_cancellation_takes_no_request_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(monkeypatch, ONE_SLOT) as served, start_deletion(served) as (http, _call, _):
        cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}
        assert (await http.post("/mcp", json=cancelled)).status_code == 202
        listed = await http.post("/mcp", json={"jsonrpc": "2.0", "id": 8, "method": "tools/list"})
        assert listed.status_code == 200, "the slot is free again"


async def test_unknown_session_ids_do_not_count_as_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(monkeypatch) as served, served.http(token(), **ACCEPT) as http:
        for number in range(60):
            http.headers["mcp-session-id"] = f"invented-{number}"
            assert (await served.post(http, "server/discover")).status_code == 200
        del http.headers["mcp-session-id"]
        opened = await http.post("/mcp", json=HELLO)
        assert opened.status_code == 200


async def test_concurrent_body_reads_are_limited_per_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    request = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": META}}).encode()
    async with serve(monkeypatch, {"ITWIN_MCP_CALLER_CONCURRENCY": "3"}) as served:
        bearer, headers = token(sub="flood"), {"mcp_protocol_version": "2026-07-28", "mcp_method": "tools/list"}
        posts = [Post(served, bearer, request[:9], request[9:], **headers) for _ in range(180)]
        with anyio.fail_after(20):
            async with served.http(token(sub="other")) as other, anyio.create_task_group() as tasks:
                for post in posts:
                    tasks.start_soon(post.run)
                await anyio.wait_all_tasks_blocked()
                assert sum(post.read for post in posts) == 8
                assert Counter(post.status for post in posts) == {0: 8 + 32, 429: 180 - 8 - 32}
                assert (await served.post(other, "tools/list")).status_code == 200
                for post in posts:
                    post.continues.set()
        finished = Counter(post.status for post in posts)
        assert finished[200] >= 3 + 32 and finished.keys() == {200, 429}


async def test_each_message_of_a_batch_counts_and_needs_its_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    delete = {"name": "delete-itwin", "arguments": {"iTwinId": "1c4b1d5e-0000-4000-8000-000000000000"}}
    call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": delete}
    ping = {"jsonrpc": "2.0", "id": 3, "method": "ping"}
    async with serve(monkeypatch, {"ITWIN_MCP_CALLER_RATE_PER_MINUTE": "100"}) as served:
        async with served.http(token(scope="itwin:read"), **ACCEPT) as http:
            http.headers["mcp-session-id"] = (await http.post("/mcp", json=HELLO)).headers["mcp-session-id"]
            await http.post("/mcp", json={"jsonrpc": "2.0", "method": "notifications/initialized"})
            response = await http.post("/mcp", json=[ping, call])
            assert response.status_code == 200
            assert "InsufficientScope" in response.text
            assert (await http.post("/mcp", json=[ping] * 20)).status_code == 429
