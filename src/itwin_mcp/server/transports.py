"""How clients connect over streamable HTTP."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import anyio.abc
from mcp.server.lowlevel import Server

from itwin_mcp.server.connections import ConnectionLimits, limit_connections
from itwin_mcp.server.guard import ASGIApp

if TYPE_CHECKING:
    import uvicorn

PATH = "/mcp"
DRAIN_SECONDS = 5.0
"""How long a request that is under way may take to end when the server is told to."""
BACKLOG = 128
"""Connections that wait to be accepted. asyncio accepts as many at once, before any of them can be refused."""
_LIMITS = ConnectionLimits()


async def serve_http(
    server: Server[Any],
    host: str,
    port: int,
    *,
    guard: Callable[[ASGIApp, int], ASGIApp],
    ready: Callable[[str], None],
    stateless: bool = False,
    ending: Callable[[], Awaitable[None]] | None = None,
    drain: float = DRAIN_SECONDS,
    limits: ConnectionLimits = _LIMITS,
) -> None:
    """Serve any number of clients over streamable HTTP until SIGTERM or Ctrl-C; then drain and close.

    `guard` is given the app and the port, and gives the app with everything in front of it that decides who may
    speak. `ready` is told the URL when connections are accepted; port 0 takes a free one. `stateless` keeps no session
    for clients that speak an older protocol. `ending` is waited for before the listener closes; requests under way
    then have `drain` seconds. `limits` bounds the connections. Raises OSError if the port is taken.
    """
    listener = _listen(host, port)
    bound = listener.getsockname()[1]
    streams_end = anyio.Event()
    app = _Abandoned(guard(http_app(server, streams_end, stateless=stateless), bound), streams_end)
    uvicorn_server = _uvicorn(app, drain, limits)
    shown = f"[{host}]" if ":" in host else host
    async with anyio.create_task_group() as tasks:
        if sys.platform != "win32":
            await tasks.start(_stop_on_signal, uvicorn_server, ending, streams_end)
        ready(f"http://{shown}:{bound}{PATH}")
        await uvicorn_server.serve(sockets=[listener])
        tasks.cancel_scope.cancel()


def http_app(server: Server[Any], streams_end: anyio.Event, *, stateless: bool = False) -> ASGIApp:
    """The protocol as an ASGI app, without anything that decides who may speak.

    `streams_end` is set when the streams that clients keep open are to end.
    """
    from mcp.server.transport_security import TransportSecuritySettings

    from itwin_mcp.server.frames import FrameCheck

    # The guard checks Host and Origin parsed and exactly; the SDK's own check matches prefixes.
    return FrameCheck(
        server.streamable_http_app(
            streamable_http_path=PATH,
            stateless_http=stateless,
            transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        ),
        streams_end,
    )


@dataclass(frozen=True, slots=True)
class _Abandoned:
    """Lets a request be cut off without a traceback when the server ends before it does."""

    app: ASGIApp
    ending: anyio.Event

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        try:
            await self.app(scope, receive, send)
        except anyio.get_cancelled_exc_class():
            if not self.ending.is_set():
                raise


def _listen(host: str, port: int) -> Any:
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named: asyncio sends answers at once (TCP_NODELAY) only then, else each may wait 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if sys.platform != "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def _uvicorn(app: Any, drain: float, limits: ConnectionLimits) -> uvicorn.Server:
    import uvicorn

    class QuietServer(uvicorn.Server):
        """uvicorn without its own signal handlers, which end the process before we have closed what we opened."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            if sys.platform == "win32":
                with super().capture_signals():
                    yield
            else:
                yield

    config = uvicorn.Config(
        app,
        http=limit_connections(limits),
        ws="none",
        backlog=BACKLOG,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=math.ceil(drain),
        timeout_keep_alive=75,
        lifespan="on",
    )
    return QuietServer(config)


async def _stop_on_signal(
    server: uvicorn.Server,
    ending: Callable[[], Awaitable[None]] | None,
    streams_end: anyio.Event,
    *,
    task_status: anyio.abc.TaskStatus[None],
) -> None:
    """The first signal drains; a second one does not wait."""
    told = False
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async with anyio.create_task_group() as tasks:

            async def end() -> None:
                if ending is not None:
                    await ending()
                streams_end.set()
                server.should_exit = True

            async for _ in signals:
                if told:
                    streams_end.set()
                    server.should_exit = True
                    # Not `force_exit`, which leaves the app's own shutdown out and so shows a traceback.
                    for request in tuple(server.server_state.tasks):
                        request.cancel()
                else:
                    told = True
                    tasks.start_soon(end)
