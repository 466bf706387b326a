"""`itwin-mcp serve --http` as a real process, and a raw upstream that a test controls."""

import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import anyio
import anyio.abc


@dataclass
class Served:
    """A running server: its URL, and the lines of its standard error so far."""

    url: str
    process: subprocess.Popen[str]
    log: list[str] = field(default_factory=list)


def serve_http(*arguments: str, environment: dict[str, str] | None = None) -> AbstractContextManager[Served]:
    return serving("itwin_mcp", "serve", "--http", "127.0.0.1:0", *arguments, environment=environment)


@contextmanager
def serving(module: str, *arguments: str, environment: dict[str, str] | None = None) -> Iterator[Served]:
    """Run a Python module that prints its URL, as a process."""
    command = [sys.executable, "-m", module, *arguments]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | (environment or {}),
    )
    log: list[str] = []
    assert process.stderr is not None
    try:
        for line in process.stderr:
            log.append(line)
            if match := re.search(r"Serving MCP at (\S+) ", line):
                yield Served(match.group(1), process, log)
                break
        else:
            raise AssertionError("".join(log))
    finally:
        if process.poll() is None:
            process.terminate()
        out, err = process.communicate(timeout=20)
        log.append(err)
        assert out == "", "over HTTP nothing is written to stdout"


@dataclass
class HangingUpstream:
    """An upstream that accepts a request and never answers."""

    url: str
    requested: anyio.Event = field(default_factory=anyio.Event)
    closed: anyio.Event = field(default_factory=anyio.Event)


@asynccontextmanager
async def hanging_upstream() -> AsyncIterator[HangingUpstream]:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    upstream = HangingUpstream(f"http://127.0.0.1:{port}")

    async def handle(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            upstream.requested.set()
            try:
                await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                upstream.closed.set()

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        yield upstream
        tasks.cancel_scope.cancel()
