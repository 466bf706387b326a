"""The one place where HTTP clients are built: their pools, time limits, and what they never do."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import Any, Self, TypeAlias

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
READ_SECONDS = 30.0
WRITE_SECONDS = 30.0
POOL_SECONDS = 5.0
KEEP_SECONDS = 30.0
"""How long an idle connection is kept: an agent thinks between its calls."""


def build_http(*, connections: int, user_agent: str, app: ASGIApp | None = None) -> httpx2.AsyncClient:
    """A client that keeps no cookies and follows no redirects; `app` answers in place of the network.

    The usual variables for proxies and certificate authorities are honoured (`HTTPS_PROXY`, `NO_PROXY`,
    `SSL_CERT_FILE`, `SSL_CERT_DIR`). Building one costs some 20 ms for the certificates: do it when first used.

    Raises: Unreachable, which names the variable, when one of these cannot be used.
    """
    _silence_wire_logs()
    return httpx2.AsyncClient(
        transport=None if app is None else httpx2.ASGITransport(app, raise_app_exceptions=False),
        verify=app is not None or read_certificates(),
        trust_env=app is None,
        timeout=httpx2.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS, write=WRITE_SECONDS, pool=POOL_SECONDS),
        limits=httpx2.Limits(
            max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=KEEP_SECONDS
        ),
        headers={"User-Agent": user_agent},
        cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
        follow_redirects=False,
    )


MAX_SIGN_IN_BODY = 256 * 1024
"""Bytes of an answer of the sign-in server."""


def build_oauth(client_id: str, client_secret: str | None = None, *, user_agent: str, **options: Any) -> Any:
    """authlib's OAuth client, which is an httpx2.AsyncClient, with the same manners; `options` are authlib's.

    authlib is imported here and not before. Answers are taken uncompressed and up to 256 KiB.

    Raises: Unreachable, as `build_http` does.
    """
    from authlib.integrations.httpx_client import AsyncOAuth2Client  # type: ignore[import-untyped, unused-ignore]

    _silence_wire_logs()
    # Read before the client is made: authlib's clients cannot be thrown away half made.
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
    """Before the body is read: refuse compression, which we did not ask for, and count the bytes."""
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise httpx2.DecodingError("the answer is compressed")
    if isinstance(response.stream, httpx2.AsyncByteStream):
        response.stream = _BoundedStream(response.stream, MAX_SIGN_IN_BODY)


def _silence_wire_logs() -> None:
    """Keep URLs with signatures (httpx2, at INFO) and headers (httpcore2, at DEBUG) out of every log."""
    for name in ("httpx2", "httpcore2"):
        logger = logging.getLogger(name)
        if logger.level < logging.WARNING:
            logger.setLevel(logging.WARNING)


class Pools:
    """The HTTP clients of one UpstreamClient: the platform's and, when an app stands in for it, the network's."""

    def __init__(self, platform: Origin, sandbox: ASGIApp | None, *, connections: int, user_agent: str) -> None:
        self._apps: dict[Origin, ASGIApp] = {} if sandbox is None else {platform: sandbox}
        self._connections = connections
        self._user_agent = user_agent
        # By the origin that an app stands in for, None for the network: an app need not be hashable.
        self._open: dict[Origin | None, httpx2.AsyncClient] = {}

    def for_origin(self, origin: Origin) -> httpx2.AsyncClient:
        """The client for exactly this origin, built on first use."""
        app = self._apps.get(origin)
        key = origin if app is not None else None
        if key not in self._open:
            self._open[key] = build_http(connections=self._connections, user_agent=self._user_agent, app=app)
        return self._open[key]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for http in self._open.values():
            await http.aclose()


class BodyTooLargeError(Exception):
    """The decoded body has more bytes than we accept; `head` is its beginning."""

    def __init__(self, head: bytes) -> None:
        super().__init__("the decoded body is too large")
        self.head = head


async def read_bounded(chunks: AsyncIterator[bytes], limit: int) -> bytes:
    """Read decoded chunks whole, at most `limit` bytes; httpx2 hands out at most 1 MiB at a time, bombs included."""
    content = bytearray()
    async for chunk in chunks:
        content += chunk
        if len(content) > limit:
            raise BodyTooLargeError(bytes(content[:limit]))
    return bytes(content)
