"""Signs in a user with the browser, by an authorization code with PKCE that a loopback listener receives."""

from __future__ import annotations

import hmac
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from errno import EADDRNOTAVAIL, EAFNOSUPPORT
from urllib.parse import parse_qs, urlsplit

import anyio
from anyio.abc import Listener, SocketStream
from anyio.streams.stapled import MultiListener

from itwin_mcp.errors import CallError, NotSignedIn
from itwin_mcp.settings import DEFAULT_REDIRECT_URI
from itwin_mcp.upstream.sign_in.saved_login import LOGIN_SCOPE, SavedLoginTokens
from itwin_mcp.upstream.sign_in.sign_in_server import Grant, PreparedLogin, SignInServer

LOGIN_SECONDS = 300.0
"""The time limit for the user."""
REQUEST_SECONDS = 10.0
"""The time limit for one request of the browser."""
MAX_REQUEST = 16 * 1024
"""Bytes."""

_STYLE = """
:root { color-scheme: light dark; --ink: #1b2733; --paper: #fff; --ground: #eef2f5; --line: #b8c4ce; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eef3; --paper: #1d2730; --ground: #12191f; --line: #4a5a68; }
}
body { margin: 0; min-height: 100vh; display: grid; place-items: center; background: var(--ground); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
main { box-sizing: border-box; width: min(28rem, 100% - 2rem); padding: 1.75rem; background: var(--paper);
  border: 1px solid var(--line); border-radius: .75rem; }
h1 { margin: 0 0 .75rem; font-size: 1.35rem; line-height: 1.3; }
p { margin: 0; }
footer { margin-top: 1.25rem; font-size: .875rem; }
"""


def _build_page(title: str, text: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title} – itwin-mcp</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>'
        f'<body><main role="status"><h1>{title}</h1><p>{text}</p>'
        "<footer>itwin-mcp, an unofficial program for Bentley’s iTwin Platform, on this computer</footer>"
        "</main></body></html>"
    )


_SIGNED_IN = _build_page("Signed in", "You can close this window and go back to your assistant.")
_FAILED = _build_page("Not signed in", "The reason is shown where the sign-in was started. You can close this window.")
_NOT_FOUND = _build_page("Nothing here", "This address only ends a sign-in.")


class BrowserLogin:
    """One attempt to sign in. Open it with `open`, give `url` to the user, then `await wait()`."""

    def __init__(
        self,
        server: SignInServer,
        client_id: str,
        tokens: SavedLoginTokens,
        prepared: PreparedLogin,
        listener: MultiListener[SocketStream],
        seconds: float,
    ) -> None:
        self.url = prepared.url
        """The page of the sign-in server where the user signs in."""
        self._server = server
        self._client_id = client_id
        self._tokens = tokens
        self._prepared = prepared
        self._listener = listener
        self._seconds = seconds
        self._outcome: Grant | CallError | None = None
        self._busy = anyio.Lock()
        self._done = anyio.Event()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        server: SignInServer,
        client_id: str,
        tokens: SavedLoginTokens,
        *,
        redirect_uri: str = DEFAULT_REDIRECT_URI,
        seconds: float = LOGIN_SECONDS,
    ) -> AsyncIterator[BrowserLogin]:
        """Prepare the link, and listen at the port of the redirect URI until the end of the block.

        `seconds` is the time limit of `wait`.

        Raises:
            ValueError: `redirect_uri` is not http on localhost with a port and a path.
            NotSignedIn: The port is in use.
            Unreachable: The sign-in server does not answer.
        """
        redirect = urlsplit(redirect_uri)
        is_local = redirect.scheme == "http" and redirect.hostname in ("localhost", "127.0.0.1")
        if not (is_local and redirect.hostname and redirect.port and redirect.path):
            raise ValueError("the redirect URI must be http://localhost:<port>/<path>")
        prepared = await server.prepare_login(client_id, redirect_uri, LOGIN_SCOPE)
        async with await _listen(redirect.hostname, redirect.port) as listener:
            yield cls(server, client_id, tokens, prepared, listener, seconds)

    @property
    def is_answered(self) -> bool:
        """True if the browser has brought the answer to this attempt."""
        return self._outcome is not None

    async def wait(self) -> None:
        """Wait until the user has signed in and the login is saved.

        Raises:
            NotSignedIn: The user declined, the answer came from another server, or the time has expired.
            Unreachable: The sign-in server failed.
        """
        with anyio.move_on_after(self._seconds):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._listener.serve, self._answer)
                await self._done.wait()
                tasks.cancel_scope.cancel()
        if self._outcome is None:
            raise NotSignedIn(
                f"Nobody signed in within {self._seconds / 60:.0f} minutes.",
                hint="Start the sign-in again for a new link.",
            )
        if isinstance(self._outcome, CallError):
            raise self._outcome

    async def _answer(self, stream: SocketStream) -> None:
        """Serve one connection. It may be the browser's, or that of any other program on this computer."""
        async with stream:
            with anyio.move_on_after(REQUEST_SECONDS):
                try:
                    head = await _read_head(stream)
                except (anyio.BrokenResourceError, anyio.EndOfStream):
                    return
                status, page = await self._handle(head)
                try:
                    await stream.send(_build_response(status, page))
                except anyio.BrokenResourceError:
                    return  # the browser closed the connection after its answer was processed
                finally:
                    if self._outcome is not None:
                        self._done.set()

    async def _handle(self, head: bytes) -> tuple[str, str]:
        """Return the status and the page for a request. The first request with our state decides the outcome."""
        method, target, host = _parse_head(head)
        redirect = urlsplit(self._prepared.redirect_uri)
        if host not in (f"{name}:{redirect.port}" for name in ("localhost", "127.0.0.1", "[::1]")):
            return "400 Bad Request", _NOT_FOUND
        path, _, query = target.partition("?")
        if path != redirect.path:
            return "404 Not Found", _NOT_FOUND
        if method != "GET":
            return "405 Method Not Allowed", _NOT_FOUND
        values = parse_qs(query, keep_blank_values=True, max_num_fields=30, errors="replace")
        states = values.get("state", [])
        # A request without our state did not come from our link. It changes nothing, and we keep listening.
        if len(states) != 1 or not hmac.compare_digest(states[0].encode(), self._prepared.state.encode()):
            return "400 Bad Request", _NOT_FOUND
        async with self._busy:
            if self._outcome is None:
                with anyio.CancelScope(shield=True):  # a code works only once, so an exchange must not be cancelled
                    self._outcome = await self._finish(values, f"{self._prepared.redirect_uri}?{query}")
        return ("200 OK", _SIGNED_IN) if isinstance(self._outcome, Grant) else ("400 Bad Request", _FAILED)

    async def _finish(self, values: dict[str, list[str]], callback: str) -> Grant | CallError:
        """Exchange the code in the callback and save the login. Return the error if that fails."""
        try:
            endpoints = await self._server.discover()
            issuers = values.get("iss", [])
            if issuers != [endpoints.issuer] and (issuers or endpoints.names_issuer):
                # RFC 9207 §2.4: the rest of this answer must not be used, so it is not shown either.
                return NotSignedIn(
                    "The sign-in came back from another server than the one that was asked.",
                    hint="Start the sign-in again; if it happens again, do not sign in and tell your administrator.",
                )
            if "error" in values or len(values.get("code", [])) != 1:
                declined = values.get("error", [""])[0] == "access_denied"
                what = "was declined" if declined else "did not succeed at the sign-in server"
                return NotSignedIn(f"The sign-in {what}.", hint="Start the sign-in again for a new link.")
            with anyio.fail_after(REQUEST_SECONDS * 2):
                grant = await self._server.exchange(self._client_id, self._prepared, callback, LOGIN_SCOPE)
                await self._tokens.save_grant(grant)
        except TimeoutError:
            return NotSignedIn("The sign-in server did not finish the sign-in.", hint="Start the sign-in again.")
        except CallError as error:
            return error
        return grant


async def _listen(host: str, port: int) -> MultiListener[SocketStream]:
    """Listen on every loopback address of the host.

    A browser may resolve `localhost` to the IPv4 or the IPv6 address. If we listened on one only, another program could
    listen on the other and receive the code.

    Raises: NotSignedIn if the port is in use on one of them.
    """
    listeners: list[Listener[SocketStream]] = []
    try:
        for address in ("127.0.0.1", "::1") if host == "localhost" else (host,):
            try:
                listeners += (await anyio.create_tcp_listener(local_host=address, local_port=port)).listeners
            except OSError as error:
                # On a machine without IPv6 no other program can listen at ::1 either.
                is_missing = isinstance(error, socket.gaierror) or error.errno in (EADDRNOTAVAIL, EAFNOSUPPORT)
                if not (is_missing and address == "::1"):
                    raise
    except OSError:
        for listener in listeners:
            await listener.aclose()
        raise NotSignedIn(
            f"Port {port} of this computer is in use, so the sign-in cannot come back to us.",
            hint="Finish or end the other sign-in, or choose another port and register it as the redirect URI.",
        ) from None
    return MultiListener(listeners)


async def _read_head(stream: SocketStream) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head and len(head) < MAX_REQUEST:
        head += await stream.receive(MAX_REQUEST)
    return head


def _parse_head(head: bytes) -> tuple[str, str, str]:
    """Return the method, target and host of an HTTP request; empty texts if it is malformed."""
    lines = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return "", "", ""
    hosts = [line[5:].strip().lower() for line in lines[1:] if line[:5].lower() == "host:"]
    return words[0], words[1], hosts[0] if len(hosts) == 1 else ""


def _build_response(status: str, page: str) -> bytes:
    """Return the HTTP response with a static page, which loads nothing and does not leak its URL with the code."""
    body = page.encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\nCache-Control: no-store\r\nReferrer-Policy: no-referrer\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'\r\n\r\n"
    )
    return head.encode("ascii") + body
