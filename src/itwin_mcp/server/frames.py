"""JSON-RPC frames: reading one, and saying why one cannot be read."""

from __future__ import annotations

import codecs
import json
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any

import anyio
from mcp.types import (
    INVALID_REQUEST,
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
)
from mcp.types import jsonrpc_message_adapter as MESSAGES  # noqa: N812 - a constant
from pydantic import ValidationError

from itwin_mcp.server.guard import ASGIApp

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
BATCHES_IN = "2025-03-26"
"""The only revision of the protocol that has batches."""
MAX_BATCH = 50
"""Messages in one batch. Each counts as a request of its own towards the limits of a hosted server."""
MAX_BODY = 4 * 1024 * 1024
"""Bytes of a request's body that are looked at here; the SDK refuses a larger one with 413."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A frame that is not a message, and the error that says why."""

    code: int
    reason: str
    id: int | str | None = None
    """The id of the request, if it can be found."""
    is_response: bool = False
    """A response is never answered: two peers would send each other errors without end."""

    @property
    def error(self) -> JSONRPCError:
        """The answer to it."""
        return JSONRPCError(jsonrpc="2.0", id=self.id, error=ErrorData(code=self.code, message=self.reason))


@dataclass(frozen=True, slots=True)
class Batch:
    """Several messages in one frame."""

    frames: tuple[JSONRPCMessage | Unreadable, ...]


NO_BATCH = Unreadable(INVALID_REQUEST, f"Invalid request: only revision {BATCHES_IN} has batches: send one message.")


def read_frame(content: bytes) -> JSONRPCMessage | Unreadable | Batch:
    """Parse one frame.

    Stricter than the SDK's own parser where that would lose a request: it takes a request whose id is null, true or
    1.5 for a notification, which nobody answers.
    """
    try:
        message = MESSAGES.validate_json(content, by_name=False)
    except ValidationError as error:
        return _diagnose(content, error)
    # The parser takes NaN and Infinity, which are no JSON; the words themselves may stand in a text.
    if b"NaN" in content or b"Infinity" in content:
        try:
            json.loads(content, parse_constant=_refuse_constant)
        except ValueError as error:
            return Unreadable(PARSE_ERROR, f"Parse error: it is not JSON ({error}).")
    if isinstance(message, JSONRPCNotification) and "id" in json.loads(content):
        return Unreadable(INVALID_REQUEST, "Invalid request: id must be a string or an integer.")
    return message


def _read_batch(items: list[Any]) -> Batch | Unreadable:
    if not 0 < len(items) <= MAX_BATCH:
        return Unreadable(INVALID_REQUEST, f"Invalid request: a batch has 1 to {MAX_BATCH} messages.")
    return Batch(tuple(_read_item(item) for item in items))


def _read_item(item: Any) -> JSONRPCMessage | Unreadable:
    frame = read_frame(json.dumps(item).encode()) if isinstance(item, dict) else None
    if frame is None or isinstance(frame, Batch):
        return Unreadable(INVALID_REQUEST, "Invalid request: a message must be an object.")
    if isinstance(frame, JSONRPCRequest) and frame.method == "initialize":
        return Unreadable(INVALID_REQUEST, "Invalid request: initialize cannot be part of a batch.", frame.id)
    return frame


def _diagnose(content: bytes, refused: ValidationError) -> Unreadable | Batch:
    """Say why a frame is not a message. Only frames that were refused come here, so that this may parse again."""
    broken: str | None = None
    if content.startswith(codecs.BOM_UTF8):
        content = content.removeprefix(codecs.BOM_UTF8)
        broken = "it begins with a byte order mark"
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text, broken = content.decode("utf-8", "replace"), "it is not UTF-8"
    try:
        frame = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        return Unreadable(PARSE_ERROR, "Parse error: it is nested too deeply.")
    except json.JSONDecodeError as error:  # its text gives a position, and nothing of the frame
        return Unreadable(PARSE_ERROR, f"Parse error: {broken or f'it is not JSON ({error})'}.")
    except ValueError:
        return Unreadable(INVALID_REQUEST, "Invalid request: a number has too many digits.")
    if isinstance(frame, list) and broken is None:
        return _read_batch(frame)
    is_object = isinstance(frame, dict)
    found = frame.get("id") if is_object else None
    known = found if isinstance(found, str) or type(found) is int else None
    if isinstance(known, str) and not _is_unicode(known):
        known = None
    if broken is not None:
        return Unreadable(PARSE_ERROR, f"Parse error: {broken}.", known)
    reason = next(_problems(frame), None) if is_object else "a message must be an object"
    if reason is None:
        reason = str(refused.errors(include_url=False, include_input=False)[0]["msg"])
    is_response = is_object and "method" not in frame and ("result" in frame or "error" in frame)
    return Unreadable(INVALID_REQUEST, f"Invalid request: {reason}.", known, is_response)


def _refuse_constant(name: str) -> Any:
    raise json.JSONDecodeError(f"{name} is no JSON number", name, 0)


def _problems(frame: dict[str, Any]) -> Iterator[str]:
    """What is wrong with the members of a message."""
    if frame.get("jsonrpc") != "2.0":
        yield 'jsonrpc must be "2.0"'
    if "id" in frame and not (isinstance(frame["id"], str) or type(frame["id"]) is int):
        yield "id must be a string or an integer"
    if not frame.keys() & {"method", "result", "error"}:
        yield "method is missing"
    if not isinstance(frame.get("method", ""), str):
        yield "method must be a string"
    for name in ("params", "result", "error"):
        if not isinstance(frame.get(name, {}), dict) and not (name == "params" and frame[name] is None):
            yield f"{name} must be an object"
    if not _is_unicode(frame):
        yield "a text holds half of a surrogate pair"


def _is_unicode(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class FrameCheck:
    """An ASGI app in front of the SDK's: it answers what cannot be read as `read_frame` says, with status 400."""

    app: ASGIApp
    ending: anyio.Event
    """Set when open streams are to end."""

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # Blanks around a value are no part of it (RFC 9110 §5.5). httptools leaves those behind it, h11 does not.
        scope = {**scope, "headers": [(name, value.strip(b" \t")) for name, value in scope["headers"]]}
        if scope["method"] == "GET":
            # Events are not stored, and the SDK answers a client that resumes with 500. A new stream is what the
            # protocol offers instead.
            headers = [pair for pair in scope["headers"] if pair[0] != b"last-event-id"]
            await self._stream({**scope, "headers": headers}, receive, send)
        elif scope["method"] == "POST":
            body, replay = await _read_body(receive)
            frame = read_frame(body) if body is not None else None
            if isinstance(frame, Batch) and _revision(scope) not in (None, BATCHES_IN):
                frame = NO_BATCH
            if isinstance(frame, Unreadable):
                await _refuse(frame, send)
            elif isinstance(frame, Batch):
                await _Batch(self.app, scope, receive, send).run(frame)
            else:
                await self.app(scope, replay, send)
        else:
            await self.app(scope, receive, send)

    async def _stream(self, scope: MutableMapping[str, Any], receive: Receive, send: Any) -> None:
        """Serve a stream, and end it whole when the server ends: its client sees no broken connection."""
        begun = ended = False

        async def receive_or_end() -> MutableMapping[str, Any]:
            async with anyio.create_task_group() as tasks:
                message: MutableMapping[str, Any] = {"type": "http.disconnect"}

                async def wait() -> None:
                    await self.ending.wait()
                    tasks.cancel_scope.cancel()

                tasks.start_soon(wait)
                message = await receive()
                tasks.cancel_scope.cancel()
            return message

        async def noting(message: MutableMapping[str, Any]) -> None:
            nonlocal begun, ended
            begun = begun or message["type"] == "http.response.start"
            ended = ended or (message["type"] == "http.response.body" and not message.get("more_body", False))
            await send(message)

        await self.app(scope, receive_or_end, noting)
        if begun and not ended and self.ending.is_set():
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def _revision(scope: MutableMapping[str, Any]) -> str | None:
    """The revision that a request names. Clients before 2025-06-18 name none."""
    named = (value.decode("latin-1") for name, value in scope["headers"] if name == b"mcp-protocol-version")
    return next(named, None)


class _Batch:
    """Sends each message of a batch through the app, and puts the answers into one event stream.

    One after the other, so that a batch takes no more at once than a request. The stream is the SDK's own, event by
    event, so that progress and questions to the user pass through it.
    """

    def __init__(self, app: ASGIApp, scope: MutableMapping[str, Any], receive: Receive, send: Any) -> None:
        self._app = app
        self._scope = scope
        self._receive = receive
        self._send = send
        self._begun = self._gone = False

    async def run(self, batch: Batch) -> None:
        for frame in batch.frames:
            if isinstance(frame, Unreadable):
                await self._event(_dump(frame.error))
                continue
            refusal = await self._pass_on(_dump(frame))
            if refusal is not None and not self._begun:
                for message in refusal:
                    await self._send(message)
                return
            if refusal is not None:
                await self._event(b"".join(message.get("body", b"") for message in refusal))
            if self._gone:
                return
        if self._begun:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await self._send({"type": "http.response.start", "status": 202, "headers": [(b"content-length", b"0")]})
            await self._send({"type": "http.response.body", "body": b""})

    async def _pass_on(self, body: bytes) -> list[MutableMapping[str, Any]] | None:
        """Send one message; return the answer if it is a refusal, and not a stream or nothing."""
        given = False
        plain: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": body, "more_body": False}
            message = await self._receive()
            self._gone = self._gone or message["type"] == "http.disconnect"
            return message

        async def send(message: MutableMapping[str, Any]) -> None:
            if plain or (message["type"] == "http.response.start" and not _streams(message)):
                plain.append(message)
            elif message["type"] == "http.response.start":
                await self._begin(message["headers"])
            elif message.get("body"):
                await self._send({**message, "more_body": True})

        headers = [pair for pair in self._scope["headers"] if pair[0] not in (b"content-length", b"transfer-encoding")]
        headers.append((b"content-length", str(len(body)).encode()))
        await self._app({**self._scope, "headers": headers}, receive, send)
        return plain if plain and plain[0]["status"] >= 400 else None

    async def _begin(self, headers: list[tuple[bytes, bytes]]) -> None:
        if not self._begun:
            self._begun = True
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _event(self, content: bytes) -> None:
        await self._begin([(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache, no-transform")])
        event = b"event: message\r\ndata: " + content + b"\r\n\r\n"
        await self._send({"type": "http.response.body", "body": event, "more_body": True})


def _streams(start: MutableMapping[str, Any]) -> bool:
    return any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in start["headers"])


def _dump(message: JSONRPCMessage) -> bytes:
    return message.model_dump_json(by_alias=True, exclude_unset=True).encode()


async def _refuse(frame: Unreadable, send: Any) -> None:
    content = _dump(frame.error)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def _read_body(receive: Receive) -> tuple[bytes | None, Receive]:
    """Read the body of a request, and return it with a `receive` that begins anew.

    It is None where the client went away or where there is too much: then the SDK says so.
    """
    messages: list[MutableMapping[str, Any]] = []
    size, more = 0, True
    while more and size <= MAX_BODY:
        messages.append(await receive())
        size += len(messages[-1].get("body", b""))
        more = messages[-1]["type"] == "http.request" and messages[-1].get("more_body", False)
    whole = not more and messages[-1]["type"] == "http.request"
    replayed = iter(messages)

    async def replay() -> MutableMapping[str, Any]:
        message = next(replayed, None)
        return message if message is not None else await receive()

    return (b"".join(message.get("body", b"") for message in messages) if whole else None), replay
