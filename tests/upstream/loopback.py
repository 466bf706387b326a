"""A raw TCP server on loopback. It records requests, and a test's handler answers them, byte by byte if needed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import anyio
from anyio.abc import SocketAttribute, SocketStream


@dataclass
class Asked:
    """A received request, with methods to answer it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    stream: SocketStream = field(repr=False)

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode()))

    async def raw(self, content: bytes) -> None:
        await self.stream.send(content)

    async def answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        all_headers = {"Content-Length": str(len(body)), **(headers or {})}
        lines = "".join(f"{name}: {value}\r\n" for name, value in all_headers.items())
        await self.raw(f"HTTP/1.1 {status} Answered\r\n{lines}\r\n".encode() + body)

    async def json(self, status: int, value: Any, headers: Mapping[str, str] | None = None) -> None:
        await self.answer(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    async def hang_up(self) -> None:
        await self.stream.aclose()

    async def until_closed(self) -> None:
        """Wait until the client closes the connection."""
        try:
            while True:
                await self.stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return


Handler = Callable[[Asked], Awaitable[None]]


@dataclass
class Loopback:
    """A running server: where it listens, and what it received."""

    origin: str
    requests: list[Asked] = field(default_factory=list)
    connections: int = 0

    @property
    def port(self) -> int:
        return int(self.origin.rpartition(":")[2])


@asynccontextmanager
async def loopback(handler: Handler) -> AsyncIterator[Loopback]:
    """Serve until the end of the block. A connection may carry any number of requests."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.listeners[0].extra(SocketAttribute.local_port)
    server = Loopback(f"http://127.0.0.1:{port}")

    async def serve(stream: SocketStream) -> None:
        server.connections += 1
        async with stream:
            try:
                while True:
                    request = await _read(stream)
                    server.requests.append(request)
                    await handler(request)
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                return

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield server
        tasks.cancel_scope.cancel()


async def _read(stream: SocketStream) -> Asked:
    content = b""
    while b"\r\n\r\n" not in content:
        content += await stream.receive()
    head, _, body = content.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    method, target, _ = lines[0].split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    while len(body) < int(headers.get("content-length", "0")):
        body += await stream.receive()
    return Asked(method, target, headers, body, stream)
