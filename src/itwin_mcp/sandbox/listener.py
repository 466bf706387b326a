"""The sandbox on a real port of this machine, so that other programs reach it and the links in its answers open."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio

from itwin_mcp.sandbox.app import Sandbox

if TYPE_CHECKING:
    import uvicorn

GRACE_SECONDS = 2  # for requests that are being answered when the end comes


async def serve(sandbox: Sandbox, host: str, port: int, *, started: Callable[[int], object]) -> None:
    """Listen until cancelled or told by a signal; `started` gets the port, which port 0 leaves to the system.

    Nothing is written to stdout. Storage links lead here meanwhile, whatever address answers them.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Bound here: uvicorn would end the whole process over a port that is taken.
    with socket.create_server((host, port), family=family) as listening:
        listening.setblocking(False)
        # Connections inherit it: without it each answer may wait 40 ms for the one before to be acknowledged.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        bound: int = listening.getsockname()[1]
        before, sandbox.storage_url = sandbox.storage_url, f"http://{_reachable(host)}:{bound}"
        try:
            started(bound)
            await _run(_server(sandbox), listening)
        finally:
            sandbox.storage_url = before


async def _run(server: uvicorn.Server, listening: socket.socket) -> None:
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        await asyncio.shield(serving)
    finally:
        server.should_exit = True
        with anyio.CancelScope(shield=True):
            await asyncio.wait({serving})


def _server(sandbox: Sandbox) -> uvicorn.Server:
    import uvicorn

    config = uvicorn.Config(
        sandbox.app,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    return uvicorn.Server(config)


def _reachable(host: str) -> str:
    """The address by which this machine reaches what listens there."""
    if host in ("0.0.0.0", "::", ""):  # noqa: S104 compared, not bound
        return "[::1]" if host == "::" else "127.0.0.1"
    return f"[{host}]" if ":" in host else host
