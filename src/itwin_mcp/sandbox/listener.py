"""Serve the sandbox on a real port, so that other programs can reach it and open the links in its answers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import anyio

from itwin_mcp.sandbox.app import Sandbox

GRACE_SECONDS = 2  # for requests in progress at shutdown


async def serve(sandbox: Sandbox, host: str, port: int, *, started: Callable[[int], object]) -> None:
    """Serve until cancelled or stopped by a signal.

    Call `started` with the port; port 0 lets the system choose one. While serving, storage links have this address.
    Write nothing to standard output.

    Raises:
        OSError: If the port cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Bind here: uvicorn would exit the whole process if the port is taken.
    with socket.create_server((host, port), family=family) as listener:
        listener.setblocking(False)
        # Connections inherit TCP_NODELAY. Without it an answer may wait 40 ms for the acknowledgement of the last one.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        bound_port: int = listener.getsockname()[1]
        previous_url, sandbox.storage_url = sandbox.storage_url, f"http://{_make_reachable_host(host)}:{bound_port}"
        try:
            started(bound_port)
            await _run_server(sandbox, listener)
        finally:
            sandbox.storage_url = previous_url


async def _run_server(sandbox: Sandbox, listener: socket.socket) -> None:
    import uvicorn

    config = uvicorn.Config(
        sandbox.app,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await asyncio.shield(serving)
    finally:
        server.should_exit = True
        with anyio.CancelScope(shield=True):
            await asyncio.wait({serving})


def _make_reachable_host(host: str) -> str:
    """Return the host name by which this machine reaches a listener on `host`."""
    if host in ("0.0.0.0", "::", ""):  # noqa: S104 compared, not bound
        return "[::1]" if host == "::" else "127.0.0.1"
    return f"[{host}]" if ":" in host else host
