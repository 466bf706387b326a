"""Builds the HTTP clients with their pools, timeouts and safe defaults."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib.util import find_spec
from typing import Any, TypeAlias
from urllib.request import getproxies

import httpx2

from itwin_mcp.upstream.network_settings import read_certificates
from itwin_mcp.upstream.origin import Origin

ASGIApp: TypeAlias = Callable[
    [
        MutableMapping[str, Any],
        Callable[[], Awaitable[MutableMapping[str, Any]]],
        Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ],
    Awaitable[None],
]

CONNECT_SECONDS = 5.0
"""The time limit for connecting, and for waiting for a free connection of the pool."""
READ_SECONDS = 30.0
"""The time limit for each read and each write."""
KEEP_SECONDS = 30.0
"""How long an idle connection stays open, because an agent pauses between its calls."""


def build_http(*, connections: int, user_agent: str, app: ASGIApp | None = None) -> httpx2.AsyncClient:
    """Build a client that keeps no cookies and follows no redirects; `app` answers in place of the network.

    The client respects the usual variables for proxies and certificate authorities (`HTTPS_PROXY`, `NO_PROXY`,
    `SSL_CERT_FILE`, `SSL_CERT_DIR`). Reading the certificates takes about 20 ms, so build it when it is first used.

    Raises: Unreachable, which names the variable that cannot be used.
    """
    _silence_wire_logs()
    limits = httpx2.Limits(
        max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=KEEP_SECONDS
    )
    certificates = True if app is not None else read_certificates()
    return httpx2.AsyncClient(
        transport=_choose_transport(app, certificates, limits),
        verify=certificates,
        trust_env=app is None,
        timeout=httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS, pool=CONNECT_SECONDS),
        limits=limits,
        headers={"User-Agent": user_agent},
        cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
        follow_redirects=False,
    )


def _choose_transport(
    app: ASGIApp | None, certificates: ssl.SSLContext | bool, limits: httpx2.Limits
) -> httpx2.AsyncBaseTransport | None:
    """Return what carries the requests: an app, aiohttp if it is installed, or None for httpx2's own transport.

    httpx2 also handles every proxy, because aiohttp supports fewer kinds.
    """
    if app is not None:
        return httpx2.ASGITransport(app, raise_app_exceptions=False)
    if find_spec("aiohttp") is None or any(getproxies().get(scheme) for scheme in ("http", "https", "all")):
        return None
    from itwin_mcp.upstream.aiohttp_transport import AiohttpTransport

    return AiohttpTransport(certificates, limits)


MAX_SIGN_IN_BODY = 256 * 1024
"""The size limit of an answer of the sign-in server, in bytes."""


def build_oauth(client_id: str, client_secret: str | None = None, *, user_agent: str, **options: Any) -> Any:
    """Build authlib's OAuth client, an httpx2.AsyncClient, with the same safe defaults.

    `options` are passed to authlib, which is imported only here. Answers must be uncompressed and at most 256 KiB.

    Raises: Unreachable, as `build_http` does.
    """
    from authlib.integrations.httpx_client import AsyncOAuth2Client  # type: ignore[import-untyped, unused-ignore]

    _silence_wire_logs()
    # Read before the client is created: if this failed in its constructor, the half-made client would fail when freed.
    certificates = read_certificates()
    return AsyncOAuth2Client(
        client_id,
        client_secret,
        verify=certificates,
        timeout=httpx2.Timeout(10.0, connect=CONNECT_SECONDS),
        limits=httpx2.Limits(max_connections=4),
        headers={"User-Agent": user_agent, "Accept-Encoding": "identity"},
        cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
        follow_redirects=False,
        event_hooks={"response": [_bound_body]},
        **options,
    )


class _BoundedStream(httpx2.AsyncByteStream):
    """A stream that raises DecodingError after `limit` bytes."""

    def __init__(self, stream: httpx2.AsyncByteStream, limit: int) -> None:
        self._stream = stream
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        count = 0
        async for part in self._stream:
            count += len(part)
            if count > self._limit:
                raise httpx2.DecodingError("the answer is too large")
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _bound_body(response: httpx2.Response) -> None:
    """Refuse a compressed answer, which we did not ask for, and limit the size of the body before it is read."""
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise httpx2.DecodingError("the answer is compressed")
    if isinstance(response.stream, httpx2.AsyncByteStream):
        response.stream = _BoundedStream(response.stream, MAX_SIGN_IN_BODY)


def _silence_wire_logs() -> None:
    """Keep signed URLs (logged by httpx2 at INFO) and headers (by httpcore2 at DEBUG) out of the logs."""
    for name in ("httpx2", "httpcore2"):
        logger = logging.getLogger(name)
        if logger.level < logging.WARNING:
            logger.setLevel(logging.WARNING)


class Pools:
    """The HTTP clients of one UpstreamClient: one for the network, and one for an app that replaces the platform."""

    def __init__(self, platform: Origin, sandbox: ASGIApp | None, *, connections: int, user_agent: str) -> None:
        self._apps: dict[Origin, ASGIApp] = {} if sandbox is None else {platform: sandbox}
        self._connections = connections
        self._user_agent = user_agent
        # Keys are the origin that an app replaces, or None for the network. An app itself need not be hashable.
        self._open: dict[Origin | None, httpx2.AsyncClient] = {}

    def for_origin(self, origin: Origin) -> httpx2.AsyncClient:
        """Return the client for this origin. It is built on first use."""
        app = self._apps.get(origin)
        key = origin if app is not None else None
        if key not in self._open:
            self._open[key] = build_http(connections=self._connections, user_agent=self._user_agent, app=app)
        return self._open[key]

    async def aclose(self) -> None:
        """Close every connection."""
        for http in self._open.values():
            await http.aclose()


class BodyTooLargeError(Exception):
    """The decoded body is larger than the limit. `head` is its beginning."""

    def __init__(self, head: bytes) -> None:
        super().__init__("the decoded body is too large")
        self.head = head


async def read_bounded(chunks: AsyncIterator[bytes], limit: int) -> bytes:
    """Read a complete body of at most `limit` decoded bytes.

    httpx2 decodes at most 1 MiB at a time, so a decompression bomb is stopped soon after the limit.

    Raises: BodyTooLargeError.
    """
    content = bytearray()
    async for chunk in chunks:
        content += chunk
        if len(content) > limit:
            raise BodyTooLargeError(bytes(content[:limit]))
    return bytes(content)
