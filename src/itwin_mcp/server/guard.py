"""Who may speak to an HTTP server: the Host and Origin of a request, parsed, and a bearer where one is asked."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from itwin_mcp.hosted_settings import LOOPBACK

logger = logging.getLogger(__name__)

ASGIApp = Callable[..., Awaitable[None]]
Test = Callable[[str], bool]
_PORTS = {"http": 80, "https": 443}


class Guard:
    """Refuses what another site or another name for this machine could send (DNS rebinding, cross-site requests).

    Host must be one of ours: 421 otherwise. Origin, where there is one, must be one of those that may call: 403
    otherwise. With `token`, `Authorization: Bearer` must carry it: 401 otherwise.
    Source: MCP specification 2026-07-28, basic/transports/streamable-http, Security.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: Test,
        origins: Test,
        *,
        token: str | None = None,
        told: tuple[str, str],
        allowed_by: tuple[str, str] | None = None,
    ) -> None:
        """`told` is what a wrong Host and a wrong Origin read, `allowed_by` the settings that allow one."""
        self._app = app
        self._hosts = hosts
        self._origins = origins
        self._token = token.encode() if token is not None else None
        self._told = told
        self._allowed_by = allowed_by
        self._logged: set[str] = set()

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
        if len(hosts) != 1 or not self._hosts(hosts[0].decode("latin-1")):
            self._log_once("Host", hosts, 0)
            return 421, self._told[0].encode(), []
        origins = [value for name, value in headers if name == b"origin"]
        if any(not self._origins(origin.decode("latin-1")) for origin in origins):
            self._log_once("Origin", origins, 1)
            return 403, self._told[1].encode(), []
        if self._token is not None:
            given = [value for name, value in headers if name == b"authorization"]
            expected = b"Bearer " + self._token
            if len(given) != 1 or not hmac.compare_digest(given[0], expected):
                return 401, b"Send the token of --http-token as a bearer.", [(b"www-authenticate", b"Bearer")]
        return None

    def _log_once(self, header: str, values: list[bytes], index: int) -> None:
        """Tell whoever runs the server, once for each header: anybody may send such requests as often as they like."""
        if header in self._logged:
            return
        self._logged.add(header)
        shown = ", ".join(repr(value.decode("latin-1")[:100]) for value in values[:3]) or "none"
        setting = f" {self._allowed_by[index]} says which are allowed." if self._allowed_by is not None else ""
        logger.warning("Refused the %s %s: %s%s Others are not logged.", header, shown, self._told[index], setting)


def loopback_guard(app: ASGIApp, port: int, token: str | None) -> Guard:
    """For a server of one's own: it answers by the names of this machine, to pages on this machine."""

    def ours(host: str) -> bool:
        name = read_host(host)
        return name is not None and name[0] in LOOPBACK and (name[1] or 80) == port

    def on_loopback(origin: str) -> bool:
        read = read_origin(origin)
        return read is not None and read[1] in LOOPBACK

    told = (
        "This server answers only as localhost and 127.0.0.1 on its own port.",
        "Requests from this origin are refused: only pages on this machine may call.",
    )
    return Guard(app, ours, on_loopback, token=token, told=told)


def named_guard(app: ASGIApp, hosts: Collection[str], origins: Collection[str]) -> Guard:
    """For a hosted server: it answers by the names that were given, to the origins that were given.

    A host without a port is meant with the usual one, which clients leave out.
    """
    known_hosts = {_usual(read_host(one)) for one in hosts} - {None}
    known_origins = {read_origin(one) for one in origins} - {None}

    def named(host: str) -> bool:
        return _usual(read_host(host)) in known_hosts

    def allowed(origin: str) -> bool:
        return read_origin(origin) in known_origins

    told = ("This server does not answer by this name.", "Requests from this origin are refused.")
    settings = ("ITWIN_MCP_ALLOWED_HOSTS", "ITWIN_MCP_ALLOWED_ORIGINS")
    return Guard(app, named, allowed, told=told, allowed_by=settings)


def read_host(text: str) -> tuple[str, int | None] | None:
    """The name and port of a Host, None where it is none."""
    try:
        parts = urlsplit(f"//{text}")
        port = parts.port
    except ValueError:
        return None
    plain = parts.username is None and not parts.path and not parts.query and not parts.fragment
    return (parts.hostname, port) if plain and parts.hostname and "," not in text else None


def read_origin(text: str) -> tuple[str, str, int] | None:
    """Scheme, name and port of what is exactly `scheme://host[:port]`, else None."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return None
    plain = parts.username is None and not parts.path and not parts.query and not parts.fragment
    if parts.scheme not in _PORTS or not parts.hostname or not plain:
        return None
    return parts.scheme, parts.hostname, port if port is not None else _PORTS[parts.scheme]


def _usual(host: tuple[str, int | None] | None) -> tuple[str, int | None] | None:
    return (host[0], None) if host is not None and host[1] in _PORTS.values() else host
