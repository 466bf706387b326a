"""The streamable HTTP transport: listens, serves with uvicorn, and lets requests finish before it shuts down."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import anyio.abc
from mcp.server.lowlevel import Server
from starlette.types import ASGIApp, Receive, Scope, Send

from itwin_mcp.server.transports.connection_limits import ConnectionLimits, limit_connections

if TYPE_CHECKING:
    import uvicorn

PATH = "/mcp"
REST_PATH = "/rest/"
DRAIN_SECONDS = 5.0
"""How long requests in progress may take to end after a signal."""
BACKLOG = 128
"""Connections that may wait to be accepted. asyncio accepts this many at once before any can be refused."""
_LIMITS = ConnectionLimits()


async def serve_http(
    server: Server[Any],
    host: str,
    port: int,
    *,
    surround: Callable[[ASGIApp, int], ASGIApp],
    ready: Callable[[str], None],
    rest: ASGIApp | None = None,
    stateless: bool = False,
    is_quick: Callable[[Any], bool] = lambda _tool: False,
    ending: Callable[[], Awaitable[None]] | None = None,
    drain: float = DRAIN_SECONDS,
    limits: ConnectionLimits = _LIMITS,
) -> None:
    """Serve any number of clients over streamable HTTP until SIGTERM or Ctrl-C; then drain and close.

    Args:
        port: 0 takes a free port.
        surround: given the app and the port, returns the app wrapped in the middleware that decides who may call.
        ready: called with the URL once connections are accepted.
        rest: serves every path below `/rest/`.
        stateless: keep no sessions, even for clients that speak an older protocol.
        is_quick: whether calls of the tool with this name end within seconds.
        ending: awaited on the first signal, before the listener closes.
        drain: seconds that requests in progress then have to end.
        limits: bounds on connections.

    Raises OSError if the port is taken.
    """
    listener = _listen(host, port)
    bound = listener.getsockname()[1]
    streams_end = anyio.Event()
    app = _CancelledRequests(
        surround(build_http_app(server, streams_end, rest=rest, stateless=stateless, is_quick=is_quick), bound),
        streams_end,
    )
    uvicorn_server = _build_uvicorn(app, drain, limits)
    url_host = f"[{host}]" if ":" in host else host
    async with anyio.create_task_group() as tasks:
        if sys.platform != "win32":
            await tasks.start(_stop_on_signal, uvicorn_server, ending, streams_end)
        ready(f"http://{url_host}:{bound}{PATH}")
        await uvicorn_server.serve(sockets=[listener])
        tasks.cancel_scope.cancel()


def build_http_app(
    server: Server[Any],
    streams_end: anyio.Event,
    *,
    rest: ASGIApp | None = None,
    stateless: bool = False,
    is_quick: Callable[[Any], bool] = lambda _tool: False,
) -> ASGIApp:
    """Return an ASGI app that speaks MCP, and `rest`, without the middleware that decides who may call.

    The SDK prepares an event stream for every request. Calls of tools that are quick, without progress, are answered
    by its JSON mode instead, which costs less and gives the same response.

    Args:
        rest: serves every path below `/rest/`.
        streams_end: setting it ends the streams that clients keep open.
        is_quick: whether calls of the tool with this name end within seconds.
    """
    from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
    from mcp.server.transport_security import TransportSecuritySettings
    from starlette.applications import Starlette
    from starlette.routing import Route

    from itwin_mcp.server.transports.json_rpc import MessageCheck, QuickCalls

    # `origin_check` compares Host and Origin exactly; the SDK's own check matches prefixes.
    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    manager = StreamableHTTPSessionManager(server, stateless=stateless, security_settings=security)
    plain = StreamableHTTPSessionManager(server, json_response=True, stateless=True, security_settings=security)

    @contextlib.asynccontextmanager
    async def run_both(_: Starlette) -> AsyncIterator[None]:
        async with manager.run(), plain.run():
            yield

    app = Starlette(routes=[Route(PATH, endpoint=StreamableHTTPASGIApp(manager))], lifespan=run_both)
    checked = MessageCheck(app, streams_end, QuickCalls(plain.handle_request, PATH, is_quick))
    return checked if rest is None else _ByPath(checked, rest)


@dataclass(frozen=True, slots=True)
class _ByPath:
    """Passes requests below `/rest/` to one app, and everything else to the other."""

    mcp: ASGIApp
    rest: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_rest = scope["type"] == "http" and scope["path"].startswith(REST_PATH)
        await (self.rest if is_rest else self.mcp)(scope, receive, send)


@dataclass(frozen=True, slots=True)
class _CancelledRequests:
    """ASGI middleware that ends a request without a traceback if the shutdown cancels it."""

    app: ASGIApp
    ending: anyio.Event

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        except anyio.get_cancelled_exc_class():
            if not self.ending.is_set():
                raise


def _listen(host: str, port: int) -> Any:
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only if the protocol is named; without it each response may be delayed by 40 ms.
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


def _build_uvicorn(app: Any, drain: float, limits: ConnectionLimits) -> uvicorn.Server:
    import uvicorn

    class QuietServer(uvicorn.Server):
        """uvicorn without its signal handlers, which end the process before our resources are closed."""

        def capture_signals(self) -> Any:
            return super().capture_signals() if sys.platform == "win32" else contextlib.nullcontext()

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
    """Drain on the first SIGTERM or Ctrl-C, and stop at once on the second."""

    async def end(before: Callable[[], Awaitable[None]] | None) -> None:
        if before is not None:
            await before()
        streams_end.set()
        server.should_exit = True

    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async with anyio.create_task_group() as tasks:
            await anext(signals)
            tasks.start_soon(end, ending)
            async for _ in signals:
                await end(None)
                # Not `force_exit`: it skips the app's own shutdown, which then shows a traceback.
                for request in tuple(server.server_state.tasks):
                    request.cancel()
