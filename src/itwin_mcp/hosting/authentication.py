"""Middleware of a hosted server: authenticates each request and applies its caller's limits and scopes.

A request that is refused is answered here, and the MCP server never sees it.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import anyio
from mcp.server.auth.middleware.auth_context import AuthContextMiddleware, auth_context_var
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from starlette.authentication import AuthCredentials
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from itwin_mcp.capability.tool_actions import Access
from itwin_mcp.executor.context import Caller
from itwin_mcp.hosting.caller_limits import Admission, CallerSessions, LimitExceeded
from itwin_mcp.hosting.protected_resource import ProtectedResource, build_refusal
from itwin_mcp.hosting.signing_keys import KeysUnavailable
from itwin_mcp.hosting.telemetry import Meter
from itwin_mcp.hosting.tokens import TokenRejected, TokenVerifier, VerifiedToken

logger = logging.getLogger(__name__)

MAX_BODY = 512 * 1024
"""Bytes of a request's body. The tool with the longest arguments takes 200 KiB of Base64; files are sent as paths."""
MAX_BODY_VALUES = 12_000
"""JSON values in a body: as many as the arguments of a call may have, and some for the rest of the message."""
MAX_REPLY = 64 * 1024
"""Bytes of a client's reply to a question, such as the user's confirmation."""
REPLY_GRACE_SECONDS = 60.0
"""How far replies may exceed the rate of requests."""
BODY_SECONDS = 20.0
"""Time within which a request's body must arrive."""
WRITE_SECONDS = 30.0
"""Time within which a client must accept each part of a response."""
_JSON_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
"""A string in JSON. An unterminated string extends to the end, so that the text is scanned only once."""

AccessOfCall = Callable[[Any, Any], Access]
"""Returns the access that a call needs, given the tool's name and the arguments."""
NoteRefused = Callable[[Caller, Any, Any], Awaitable[None]]
"""Writes to the audit log that a call is refused, given the caller, the tool's name and the arguments."""


class RestAccess(Protocol):
    """The access of requests that are not messages of the protocol."""

    def serves(self, scope: Scope) -> bool:
        """Return whether a request is for the REST API."""

    def find_access(self, scope: Scope) -> Access:
        """Return the access that a request needs."""

    async def note_refused(self, scope: Scope, caller: Caller) -> None:
        """Note in the audit log that a request needs more access than its caller has."""


class VerifiedUser(AuthenticatedUser):
    """A caller as the SDK represents it, which binds sessions and states to it. The token is not included."""

    def __init__(self, verified: VerifiedToken) -> None:
        caller = verified.caller
        super().__init__(
            AccessToken(
                token="",
                client_id=verified.client_id,
                scopes=sorted(verified.scopes),
                expires_at=verified.expires_at,
                subject=caller.subject,
                claims={"iss": caller.issuer},
            )
        )
        self.caller = caller


def get_caller() -> Caller:
    """Return the caller whose token the current request has, regardless of the session that the request names.

    Raises RuntimeError outside of a request, so that nothing is ever served without a verified caller.
    """
    user = auth_context_var.get()
    if not isinstance(user, VerifiedUser):
        raise RuntimeError("a request has no verified caller")
    return user.caller


class _Refused(Exception):
    """Ends a request with a response that refuses it."""

    def __init__(self, response: JSONResponse) -> None:
        self.response = response


@dataclass(frozen=True, slots=True)
class Authentication:
    """ASGI middleware that admits authenticated requests. The app finds the caller in the scope, without the token."""

    app: ASGIApp
    resource: ProtectedResource
    verifier: TokenVerifier
    access_of_call: AccessOfCall
    note_refused: NoteRefused
    admission: Admission
    sessions: CallerSessions
    meter: Meter
    rest: RestAccess | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            await self._admit(scope, receive, send, await self._authenticate(scope))
        except _Refused as refused:
            await refused.response(scope, receive, send)
        except LimitExceeded as error:
            self.meter.count_limited(error.reason)
            description = "Too many requests: wait, then send it again"
            response = build_refusal(429, "too_many_requests", description, retry_after=str(error.retry_after))
            await response(scope, receive, send)

    async def _authenticate(self, scope: Scope) -> VerifiedToken:
        headers = [value for name, value in scope["headers"] if name == b"authorization"]
        if not headers:
            raise _Refused(self.resource.build_unauthorized())
        scheme, _, token = headers[0].decode("latin-1").partition(" ")
        if len(headers) > 1 or scheme.lower() != "bearer":
            description = "Send exactly one Authorization header, with a bearer token"
            raise _Refused(build_refusal(400, "invalid_request", description))
        try:
            return await self.verifier.verify(token.strip(" "))
        except TokenRejected as error:
            self.meter.count_rejected_token(error.reason)
            raise _Refused(self.resource.build_unauthorized(error.description)) from None
        except KeysUnavailable:
            self.meter.count_rejected_token("no-keys")
            description = "Tokens cannot be verified: the sign-in server does not answer"
            raise _Refused(build_refusal(503, "temporarily_unavailable", description, retry_after="5")) from None

    async def _admit(self, scope: Scope, receive: Receive, send: Send, verified: VerifiedToken) -> None:
        """Apply rates, body limits, scopes, sessions and concurrency, in this order, then run the app.

        Cheap checks come first. The body is read before a request slot is taken, so that a slow sender blocks no call.
        Scopes are checked here as well as by the executor, because only an HTTP response can carry the challenge with
        which a client asks for more.
        """
        caller = verified.caller
        session = _find_header(scope["headers"], b"mcp-session-id")
        size = _find_header(scope["headers"], b"content-length") or ""
        rest = self.rest if self.rest is not None and self.rest.serves(scope) else None
        may_be_reply = rest is None and session is not None and size.isdecimal() and int(size[:9]) <= MAX_REPLY
        if not may_be_reply:
            self.admission.count_request(caller.key)
        if caller.access < Access.READ:
            raise _Refused(self.resource.build_insufficient_scope(Access.READ))
        inner_scope = {
            **scope,
            "headers": [pair for pair in scope["headers"] if pair[0] != b"authorization"],
            "user": VerifiedUser(verified),
            "auth": AuthCredentials(sorted(verified.scopes)),
        }
        app = AuthContextMiddleware(self.app)
        if rest is not None:
            await self._admit_rest(rest, app, scope, inner_scope, receive, send, caller)
            return
        if scope["method"] == "GET":
            with self.admission.hold_stream(caller.key):
                await _run_unless_slow(app, inner_scope, receive, send)
            return
        async with self.admission.hold_body(caller.key):
            body = await _read_body(receive)
        try:
            message = json.loads(body)
        except (ValueError, RecursionError):
            message = None  # the SDK refuses it
        takes_slot = _is_answered(message)
        if may_be_reply:
            # Most clients do not repeat a refused reply, and the call that asked the user would wait for it.
            self.admission.count_request(caller.key, grace=0.0 if takes_slot else REPLY_GRACE_SECONDS)
        for _ in message[1:] if isinstance(message, list) else ():
            self.admission.count_request(caller.key)  # each message of a batch counts as a request
        call = _find_call(message)
        needed = self.access_of_call(*call)
        if needed > caller.access:
            await self.note_refused(caller, *call)
            raise _Refused(self.resource.build_insufficient_scope(needed))
        if session is None and isinstance(message, dict) and message.get("method") == "initialize":
            self.sessions.check_room(caller.key)
        del message, call  # they may be large, and the request may wait long for its slot

        async def send_and_note(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._note_session(caller.key, scope["method"], session, message)
            await send(message)

        async with self.admission.hold_request(caller.key) if takes_slot else nullcontext():
            await _run_unless_slow(app, inner_scope, _replay(body, receive), send_and_note)

    async def _admit_rest(
        self, rest: RestAccess, app: ASGIApp, scope: Scope, inner: Scope, receive: Receive, send: Send, caller: Caller
    ) -> None:
        """Apply body limits, scopes and concurrency to a request for the REST API, then run the app."""
        async with self.admission.hold_body(caller.key):
            body = await _read_body(receive)
        needed = rest.find_access(scope)
        if needed > caller.access:
            await rest.note_refused(scope, caller)
            raise _Refused(self.resource.build_insufficient_scope(needed))
        async with self.admission.hold_request(caller.key):
            await _run_unless_slow(app, inner, _replay(body, receive), send)

    def _note_session(self, caller: str, method: str, requested: str | None, start: Message) -> None:
        """Update the caller's sessions when a response starts; `requested` is the session in the request."""
        if start["status"] >= 400:
            return
        opened = _find_header(start["headers"], b"mcp-session-id")
        if method == "DELETE" and requested is not None:
            self.sessions.end(caller, requested)
        elif opened is not None:
            self.sessions.note_used(caller, opened)
        elif requested is not None:
            self.sessions.note_requested(caller, requested)


def _find_header(headers: Any, name: bytes) -> str | None:
    return next((value.decode("latin-1") for key, value in headers if key == name), None)


def _find_call(message: Any) -> tuple[Any, Any]:
    """Return the tool's name and the arguments in a `tools/call` message, or (None, None) for other messages."""
    params = message.get("params") if isinstance(message, dict) else None
    if not isinstance(params, dict) or message.get("method") != "tools/call":
        return None, None
    return params.get("name"), params.get("arguments")


def _is_answered(message: Any) -> bool:
    """Return whether a message needs an answer and therefore a request slot.

    A client's response or notification needs none. The call that it continues or cancels may hold the last slot.
    """
    return not isinstance(message, dict) or ("method" in message and "id" in message)


async def _read_body(receive: Receive) -> bytes:
    """Read a body within the limits of time, size and values. Raises _Refused."""
    content = bytearray()
    with anyio.move_on_after(BODY_SECONDS):
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise _Refused(build_refusal(400, "invalid_request", "The request ended before its body did"))
            content += message.get("body", b"")
            if len(content) > MAX_BODY:
                raise _Refused(build_refusal(413, "too_large", "The request exceeds 512 KiB", connection="close"))
            if not message.get("more_body", False):
                _check_values(bytes(content))
                return bytes(content)
    raise _Refused(build_refusal(408, "timeout", "The request's body arrived too slowly", connection="close"))


def _check_values(body: bytes) -> None:
    """Check that a body does not have too many values, whose parsing would block other callers. Raises _Refused.

    Values are counted without parsing: each follows a comma or an opening bracket outside of strings.
    """
    outside = _JSON_STRINGS.sub(b"", body)
    if sum(map(outside.count, (b",", b"[", b"{"))) > MAX_BODY_VALUES:
        raise _Refused(build_refusal(413, "too_large", f"The request has more than {MAX_BODY_VALUES} values"))


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that returns the body again, then waits for what follows, such as a disconnect."""
    messages: Iterator[Message] = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def replay() -> Message:
        return next(messages, None) or await receive()

    return replay


async def _run_unless_slow(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run the app, and cancel it if the client does not read the response, to free its memory and its slot."""
    with anyio.CancelScope() as running:

        async def send_in_time(message: Message) -> None:
            with anyio.move_on_after(WRITE_SECONDS):
                await send(message)
                return
            logger.warning("Disconnected a client that read its response too slowly")
            running.cancel()
            await anyio.lowlevel.checkpoint()

        await app(scope, receive, send_in_time)
