"""Who may speak to a server on loopback: the Host and Origin of a request, parsed, and a bearer where one is asked."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

ASGIApp = Callable[..., Awaitable[None]]
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Guard:
    """Refuses what another site or another name for this machine could send (DNS rebinding, cross-site requests).

    Host must name loopback and our port: 421 otherwise. Origin, where there is one, must be an origin on loopback:
    403 otherwise. With `token`, `Authorization: Bearer` must carry it: 401 otherwise.
    Source: MCP specification 2026-07-28, basic/transports/streamable-http, Security.
    """

    def __init__(self, app: ASGIApp, port: int, token: str | None) -> None:
        self._app = app
        self._port = port
        self._token = token.encode() if token is not None else None

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refuse(scope["headers"])
        if refusal is None:
            await self._app(scope, receive, send)
            return
        status, text, more = refusal
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(text)).encode()), *more]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": text})

    def _refuse(self, headers: list[tuple[bytes, bytes]]) -> tuple[int, bytes, list[tuple[bytes, bytes]]] | None:
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) != 1 or not self._ours(hosts[0].decode("latin-1")):
            return 421, b"This server answers only as localhost and 127.0.0.1 on its own port.", []
        origins = [value for name, value in headers if name == b"origin"]
        if any(not _on_loopback(origin.decode("latin-1")) for origin in origins):
            return 403, b"Requests from this origin are refused: only pages on this machine may call.", []
        if self._token is not None:
            given = [value for name, value in headers if name == b"authorization"]
            expected = b"Bearer " + self._token
            if len(given) != 1 or not hmac.compare_digest(given[0], expected):
                return 401, b"Send the token of --http-token as a bearer.", [(b"www-authenticate", b"Bearer")]
        return None

    def _ours(self, host: str) -> bool:
        try:
            parts = urlsplit(f"//{host}")
            port = parts.port if parts.port is not None else 80
        except ValueError:
            return False
        plain = parts.username is None and not parts.path and not parts.query and not parts.fragment
        return plain and parts.hostname in LOOPBACK and port == self._port


def _on_loopback(origin: str) -> bool:
    """Whether this is exactly `scheme://host[:port]` with a host of this machine."""
    try:
        parts = urlsplit(origin)
        _ = parts.port
    except ValueError:
        return False
    if parts.scheme not in ("http", "https") or parts.hostname not in LOOPBACK:
        return False
    return parts.username is None and not parts.path and not parts.query and not parts.fragment
