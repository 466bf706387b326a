"""Checks the Host and Origin headers of HTTP requests and, if one is required, a bearer token.

A web page on any site can make a browser send requests to this machine. Without these checks such a page could act as
the user, either directly (cross-site requests) or through a name of its own that resolves to 127.0.0.1 (DNS
rebinding). Both headers are parsed and compared exactly: `localhost.evil.example` is not `localhost`.
Source: MCP specification 2026-07-28, basic/transports/streamable-http, Security.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable, Collection
from urllib.parse import urlsplit

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from itwin_mcp.setting_parsers import LOOPBACK

logger = logging.getLogger(__name__)

IsAllowed = Callable[[str], bool]
_DEFAULT_PORTS = {"http": 80, "https": 443}


class OriginCheck:
    """ASGI middleware that rejects requests by their headers.

    Host must be one of ours, otherwise the response is 421. Origin, if present, must be allowed, otherwise 403. With
    `token`, `Authorization: Bearer` must carry it, otherwise 401.
    """

    def __init__(
        self,
        app: ASGIApp,
        is_our_host: IsAllowed,
        is_allowed_origin: IsAllowed,
        *,
        token: str | None = None,
        messages: tuple[str, str],
        settings: tuple[str, str] | None = None,
    ) -> None:
        """`messages` are the responses to a wrong Host and a wrong Origin; `settings` name the allowed ones."""
        self._app = app
        self._is_our_host = is_our_host
        self._is_allowed_origin = is_allowed_origin
        self._token = token.encode() if token is not None else None
        self._messages = messages
        self._settings = settings
        self._logged: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refuse(scope["headers"]) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send)

    def _refuse(self, headers: list[tuple[bytes, bytes]]) -> PlainTextResponse | None:
        """Return the response that rejects the request, or None to accept it."""
        # A proxy may read the other one of two Host headers, so exactly one is accepted.
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) != 1 or not self._is_our_host(hosts[0].decode("latin-1")):
            self._log_once("Host", hosts, 0)
            return PlainTextResponse(self._messages[0], 421)
        # Programs send no Origin; browsers always do for another site's request.
        origins = [value for name, value in headers if name == b"origin"]
        if any(not self._is_allowed_origin(origin.decode("latin-1")) for origin in origins):
            self._log_once("Origin", origins, 1)
            return PlainTextResponse(self._messages[1], 403)
        if self._token is not None:
            credentials = [value for name, value in headers if name == b"authorization"]
            if len(credentials) != 1 or not hmac.compare_digest(credentials[0], b"Bearer " + self._token):
                message = "Send the token of --http-token as a bearer."
                return PlainTextResponse(message, 401, {"www-authenticate": "Bearer"})
        return None

    def _log_once(self, header: str, values: list[bytes], index: int) -> None:
        """Log only the first rejection for each header, because anyone can send any number of such requests."""
        if header in self._logged:
            return
        self._logged.add(header)
        shown = ", ".join(repr(value.decode("latin-1")[:100]) for value in values[:3]) or "none"
        setting = f" {self._settings[index]} says which are allowed." if self._settings is not None else ""
        logger.warning("Refused the %s %s: %s%s Others are not logged.", header, shown, self._messages[index], setting)


def check_loopback(app: ASGIApp, port: int, token: str | None) -> OriginCheck:
    """Return the check for a user's own server, which accepts only names of this machine and pages on it."""

    def is_our_host(host: str) -> bool:
        name = parse_host(host)
        return name is not None and name[0] in LOOPBACK and (name[1] or 80) == port

    def is_allowed_origin(origin: str) -> bool:
        parsed = parse_origin(origin)
        return parsed is not None and parsed[1] in LOOPBACK

    messages = (
        "This server answers only as localhost and 127.0.0.1 on its own port.",
        "Requests from this origin are refused: only pages on this machine may call.",
    )
    return OriginCheck(app, is_our_host, is_allowed_origin, token=token, messages=messages)


def check_hosted(app: ASGIApp, hosts: Collection[str], origins: Collection[str]) -> OriginCheck:
    """Return the check for a hosted server, which accepts only the configured hosts and origins.

    A host may be configured and sent with or without the default port.
    """
    known_hosts = {_drop_default_port(parse_host(host)) for host in hosts} - {None}
    known_origins = {parse_origin(origin) for origin in origins} - {None}

    def is_our_host(host: str) -> bool:
        return _drop_default_port(parse_host(host)) in known_hosts

    def is_allowed_origin(origin: str) -> bool:
        return parse_origin(origin) in known_origins

    messages = ("This server does not answer by this name.", "Requests from this origin are refused.")
    settings = ("ITWIN_MCP_ALLOWED_HOSTS", "ITWIN_MCP_ALLOWED_ORIGINS")
    return OriginCheck(app, is_our_host, is_allowed_origin, messages=messages, settings=settings)


def parse_host(text: str) -> tuple[str, int | None] | None:
    """Return the name and port of a Host header, or None if it is not valid."""
    parsed = _split(f"//{text}")
    return parsed[1:] if parsed is not None and "," not in text else None


def parse_origin(text: str) -> tuple[str, str, int] | None:
    """Return the scheme, name and port of exactly `scheme://host[:port]`, or None for anything else."""
    parsed = _split(text)
    if parsed is None or parsed[0] not in _DEFAULT_PORTS:
        return None
    scheme, name, port = parsed
    return scheme, name, port if port is not None else _DEFAULT_PORTS[scheme]


def _split(url: str) -> tuple[str, str, int | None] | None:
    """Return the scheme, name and port of a URL that has nothing else, or None."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    has_more = parts.username is not None or parts.path or parts.query or parts.fragment
    return (parts.scheme, parts.hostname, port) if parts.hostname and not has_more else None


def _drop_default_port(host: tuple[str, int | None] | None) -> tuple[str, int | None] | None:
    return (host[0], None) if host is not None and host[1] in _DEFAULT_PORTS.values() else host
