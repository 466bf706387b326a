"""The way in: a request is known, counted and read before it reaches the protocol, or answered here."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import anyio
from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
from starlette.authentication import AuthCredentials

from itwin_mcp.capability.access import Access
from itwin_mcp.executor.conversation import Caller
from itwin_mcp.hosting.answers import Answer, ASGIApp, Message, Receive, Scope, Send, refusal
from itwin_mcp.hosting.caller import VerifiedUser
from itwin_mcp.hosting.challenges import Resource
from itwin_mcp.hosting.keys import KeysUnavailableError
from itwin_mcp.hosting.limits import Admission, RefusedForNowError
from itwin_mcp.hosting.sessions import Sessions
from itwin_mcp.hosting.tokens import RefusedTokenError, Verified, Verifier

logger = logging.getLogger(__name__)

MAX_BODY = 512 * 1024
"""In bytes. The tool with the longest arguments takes 200 KiB of Base64; files are sent as paths."""
MAX_BODY_VALUES = 12_000
"""Values in a body: those that a call may have (`validate.MOST_VALUES`) and the message around them."""
_TEXTS = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
"""Texts of JSON. One that does not end reaches to the end, so that it is read only once."""
BODY_SECONDS = 20.0
"""In which a request's body must have come."""
WRITE_SECONDS = 30.0
"""In which a client must take each part of an answer."""

Demands = Callable[[Any, Any], Access]
"""What a call of the tool of this name with these arguments needs."""
Refused = Callable[[Caller, Any, Any], Awaitable[None]]
"""Takes note that a call of the tool of this name, with these arguments, needs more than its caller may."""


class Counter(Protocol):
    """Counts what is refused; `reason` is one of few words."""

    def token_refused(self, reason: str) -> None:
        """A token was not taken."""

    def limited(self, reason: str) -> None:
        """A request was too much."""


class _Refused(Exception):
    """Carries the answer out of the middle of a request."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Gate:
    """An ASGI app in front of the protocol's own; whoever is let through is in `scope["user"]`, and no token is."""

    app: ASGIApp
    resource: Resource
    verifier: Verifier
    demands: Demands
    refused: Refused
    admission: Admission
    sessions: Sessions
    counter: Counter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            verified = await self._known(scope)
            await self._admit(scope, receive, send, verified)
        except _Refused as refused:
            await refused.answer.send(send)
        except RefusedForNowError as error:
            self.counter.limited(error.reason)
            told = "Too much at once: wait, then send it again"
            answer = refusal(429, "too_many_requests", told, retry_after=str(error.after))
            await answer.send(send)

    async def _known(self, scope: Scope) -> Verified:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if not given:
            raise _Refused(self.resource.unauthorized())
        kind, _, token = given[0].decode("latin-1").partition(" ")
        if len(given) > 1 or kind.lower() != "bearer":
            raise _Refused(refusal(400, "invalid_request", "Send one Authorization header, with a bearer token"))
        try:
            return await self.verifier.verify(token.strip(" "))
        except RefusedTokenError as error:
            self.counter.token_refused(error.reason)
            raise _Refused(self.resource.unauthorized(error.told)) from None
        except KeysUnavailableError:
            self.counter.token_refused("no-keys")
            told = "Tokens cannot be checked: the sign-in server does not answer"
            raise _Refused(refusal(503, "temporarily_unavailable", told, retry_after="5")) from None

    async def _admit(self, scope: Scope, receive: Receive, send: Send, verified: Verified) -> None:
        caller = verified.caller
        self.admission.count(caller.key)
        if caller.access < Access.READ:
            raise _Refused(self.resource.insufficient(Access.READ))
        known = dict(scope)
        known["headers"] = [pair for pair in scope["headers"] if pair[0] != b"authorization"]
        known["user"] = VerifiedUser(verified)
        known["auth"] = AuthCredentials(sorted(verified.scopes))
        app = AuthContextMiddleware(self.app)
        session = _header(scope, b"mcp-session-id")
        if scope["method"] == "GET":
            with self.admission.stream(caller.key):
                await _cut_if_slow(app, known, receive, send)
            return
        async with self.admission.reading(caller.key):
            body = await _read(receive)
        message = _message(body)
        for _ in message[1:] if isinstance(message, list) else ():
            self.admission.count(caller.key)  # each message of a batch is a request
        called = _called(message)
        needed = self.demands(*called)
        if needed > caller.access:
            await self.refused(caller, *called)
            raise _Refused(self.resource.insufficient(needed))
        if session is None and isinstance(message, dict) and message.get("method") == "initialize":
            self.sessions.check(caller.key)
        expected = _is_answered(message)
        del message, called

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._note(caller.key, scope["method"], session, message)
            await send(message)

        async with self.admission.turn(caller.key) if expected else nullcontext():
            await _cut_if_slow(app, known, _replay(body, receive), noting)

    def _note(self, caller: str, method: str, session: str | None, start: Message) -> None:
        answered = next(
            (value.decode("latin-1") for name, value in start["headers"] if name == b"mcp-session-id"), None
        )
        if start["status"] >= 400:
            return
        if method == "DELETE" and session is not None:
            self.sessions.end(caller, session)
        elif answered is not None:
            self.sessions.use(caller, answered)
        elif session is not None:
            self.sessions.renew(caller, session)


def _header(scope: Scope, name: bytes) -> str | None:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), None)


def _message(body: bytes) -> Any:
    """What a body says; None where it cannot be read, and is refused anyhow."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _called(message: Any) -> tuple[Any, Any]:
    """The name and arguments of the tool that a request calls; None where it calls none, or is refused anyhow."""
    params = message.get("params") if isinstance(message, dict) else None
    if not isinstance(params, dict) or message.get("method") != "tools/call":
        return None, None
    return params.get("name"), params.get("arguments")


def _is_answered(message: Any) -> bool:
    """False for a client's answer or notification: the call that it ends or cancels has the turn it would wait for."""
    return not isinstance(message, dict) or ("method" in message and "id" in message)


async def _read(receive: Receive) -> bytes:
    """The body of a request, in time and bounded. Raises _Refused."""
    content = bytearray()
    with anyio.move_on_after(BODY_SECONDS):
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise _Refused(refusal(400, "invalid_request", "The request ended before its body did"))
            content += message.get("body", b"")
            if len(content) > MAX_BODY:
                raise _Refused(refusal(413, "too_large", "The request has more than 512 KiB", connection="close"))
            if not message.get("more_body", False):
                return _weighed(bytes(content))
    raise _Refused(refusal(408, "timeout", "The request's body came too slowly", connection="close"))


def _weighed(body: bytes) -> bytes:
    """The body, unless it has so many values that reading it would hold up other callers. Raises _Refused.

    Values are counted before anything parses them: each follows a comma or an opening bracket outside of texts.
    """
    outside = _TEXTS.sub(b"", body)
    if sum(map(outside.count, (b",", b"[", b"{"))) > MAX_BODY_VALUES:
        raise _Refused(refusal(413, "too_large", f"The request has more than {MAX_BODY_VALUES} values"))
    return body


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body that was read, once; then what comes next, such as the client's going away."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _cut_if_slow(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run the app, and end it when its client does not take what is sent: others need the memory and the turn."""
    with anyio.CancelScope() as running:

        async def bounded(message: Message) -> None:
            with anyio.move_on_after(WRITE_SECONDS):
                await send(message)
                return
            logger.warning("a client took an answer too slowly and was cut off")
            running.cancel()
            await anyio.lowlevel.checkpoint()

        await app(scope, receive, bounded)
