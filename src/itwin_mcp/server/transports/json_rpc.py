"""JSON-RPC messages: parses them, explains why one cannot be parsed, and runs batches over HTTP."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
from mcp.types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from itwin_mcp.server.transports.disconnect import cancel_on_disconnect

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

BATCH_REVISION = "2025-03-26"
"""The only revision of the protocol that has batches."""
MAX_BATCH = 50
"""The most messages in one batch. Each counts as a request towards the limits of a hosted server."""
MAX_BODY = 4 * 1024 * 1024
"""The largest body that is parsed here, in bytes; the SDK refuses a larger one with 413."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Text that is not a JSON-RPC message, with the error that explains why."""

    code: int
    reason: str
    id: int | str | None = None
    """The id of the request, if one can be read."""
    is_response: bool = False
    """Whether it looks like a response. Responses are never answered: two peers would exchange errors forever."""

    @property
    def error(self) -> JSONRPCError:
        """The JSON-RPC error to send back."""
        return JSONRPCError(jsonrpc="2.0", id=self.id, error=ErrorData(code=self.code, message=self.reason))


@dataclass(frozen=True, slots=True)
class Batch:
    """Several messages in one array."""

    messages: tuple[JSONRPCMessage | Unreadable, ...]


NO_BATCH = Unreadable(
    INVALID_REQUEST, f"Invalid request: only revision {BATCH_REVISION} has batches. Send one message."
)


def parse_message(content: bytes) -> JSONRPCMessage | Unreadable | Batch:
    """Parse one message or batch.

    This is stricter than the SDK's parser. The SDK takes a request whose id is null, true or 1.5 for a notification
    and does not answer it.
    """
    try:
        message = MESSAGES.validate_json(content, by_name=False)
    except ValidationError as error:
        return _diagnose(content, error)
    # The parser accepts NaN and Infinity, which are not JSON. Inside a string the words are allowed.
    if b"NaN" in content or b"Infinity" in content:
        try:
            json.loads(content, parse_constant=_reject_constant)
        except ValueError as error:
            return Unreadable(PARSE_ERROR, f"Parse error: it is not JSON ({error}).")
    if isinstance(message, JSONRPCNotification) and "id" in json.loads(content):
        return Unreadable(INVALID_REQUEST, "Invalid request: id must be a string or an integer.")
    return message


def _parse_item(item: Any) -> JSONRPCMessage | Unreadable:
    frame = parse_message(json.dumps(item).encode()) if isinstance(item, dict) else None
    if frame is None or isinstance(frame, Batch):
        return Unreadable(INVALID_REQUEST, "Invalid request: a message must be an object.")
    if isinstance(frame, JSONRPCRequest) and frame.method == "initialize":
        return Unreadable(INVALID_REQUEST, "Invalid request: initialize cannot be part of a batch.", frame.id)
    return frame


def _diagnose(content: bytes, refused: ValidationError) -> Unreadable | Batch:
    """Explain why content is not a message, or return it as a batch.

    This parses again and slowly, but only content that the fast parser refused.
    """
    broken: str | None = None
    if content.startswith(codecs.BOM_UTF8):
        content = content.removeprefix(codecs.BOM_UTF8)
        broken = "it begins with a byte order mark"
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text, broken = content.decode("utf-8", "replace"), "it is not UTF-8"
    try:
        frame = json.loads(text, parse_constant=_reject_constant)
    except RecursionError:
        return Unreadable(PARSE_ERROR, "Parse error: it is nested too deeply.")
    except json.JSONDecodeError as error:  # its text contains a position, and nothing of the message
        return Unreadable(PARSE_ERROR, f"Parse error: {broken or f'it is not JSON ({error})'}.")
    except ValueError:
        return Unreadable(INVALID_REQUEST, "Invalid request: a number has too many digits.")
    if isinstance(frame, list) and broken is None:
        if not 0 < len(frame) <= MAX_BATCH:
            return Unreadable(INVALID_REQUEST, f"Invalid request: a batch has 1 to {MAX_BATCH} messages.")
        return Batch(tuple(map(_parse_item, frame)))
    members = frame if isinstance(frame, dict) else {}
    request_id = members.get("id")
    if not _is_id(request_id) or not _is_unicode(request_id):
        request_id = None
    if broken is not None:
        return Unreadable(PARSE_ERROR, f"Parse error: {broken}.", request_id)
    if not isinstance(frame, dict):
        return Unreadable(INVALID_REQUEST, "Invalid request: a message must be an object.")
    reason = next(_find_problems(frame), None) or refused.errors(include_url=False, include_input=False)[0]["msg"]
    is_response = "method" not in frame and ("result" in frame or "error" in frame)
    return Unreadable(INVALID_REQUEST, f"Invalid request: {reason}.", request_id, is_response)


def _reject_constant(name: str) -> Any:
    raise json.JSONDecodeError(f"{name} is not a JSON number", name, 0)


def _find_problems(frame: dict[str, Any]) -> Iterator[str]:
    """Yield a description of each invalid member of a message."""
    if frame.get("jsonrpc") != "2.0":
        yield 'jsonrpc must be "2.0"'
    if "id" in frame and not _is_id(frame["id"]):
        yield "id must be a string or an integer"
    if not frame.keys() & {"method", "result", "error"}:
        yield "method is missing"
    if not isinstance(frame.get("method", ""), str):
        yield "method must be a string"
    for name in ("params", "result", "error"):
        if not isinstance(frame.get(name, {}), dict) and not (name == "params" and frame[name] is None):
            yield f"{name} must be an object"
    if not _is_unicode(frame):
        yield "a string contains half of a surrogate pair"


def _is_id(value: Any) -> bool:
    return isinstance(value, str) or type(value) is int  # not a bool, which is an int in Python


def _is_unicode(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class QuickCalls:
    """Runs calls that need no stream, and cancels one when its client disconnects."""

    app: ASGIApp
    """The SDK's app in its JSON mode, which does not notice a disconnect."""
    path: str
    is_quick: Callable[[Any], bool]

    def accept(self, scope: Scope, frame: JSONRPCMessage | Unreadable | None, revision: bytes | None) -> bool:
        """Return whether a request is a call that is quick and wants no progress, in a revision without sessions."""
        if not isinstance(frame, JSONRPCRequest) or frame.method != "tools/call" or scope["path"] != self.path:
            return False
        params = frame.params or {}
        meta = params.get("_meta")
        return (
            isinstance(meta, dict)
            and "progressToken" not in meta
            and revision is not None
            and revision.decode("latin-1") in MODERN_PROTOCOL_VERSIONS
            and any(name == b"accept" and b"text/event-stream" in value for name, value in scope["headers"])
            and self.is_quick(params.get("name"))
        )

    async def run(self, scope: Scope, replay: Receive, receive: Receive, send: Send) -> None:
        """Run the call, whose body `replay` gives."""
        with cancel_on_disconnect(receive):
            await self.app(scope, replay, send)


@dataclass(frozen=True, slots=True)
class MessageCheck:
    """ASGI middleware before the SDK: answers unreadable messages with 400, runs batches, and ends streams."""

    app: ASGIApp
    streams_end: anyio.Event
    """Set during the shutdown; open streams then end."""
    quick: QuickCalls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        from starlette.responses import Response  # only here, because stdio needs no Starlette

        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # Whitespace around a value is not part of it (RFC 9110, section 5.5). httptools keeps it, h11 strips it.
        scope = {**scope, "headers": [(name, value.strip(b" \t")) for name, value in scope["headers"]]}
        if scope["method"] == "GET":
            # We store no events, and the SDK answers a client that resumes a stream with 500. The protocol allows
            # a new stream instead.
            headers = [pair for pair in scope["headers"] if pair[0] != b"last-event-id"]
            await self._run_stream({**scope, "headers": headers}, receive, send)
        elif scope["method"] == "POST":
            body, replay = await _read_body(receive)
            frame = parse_message(body) if body is not None else None
            # Clients before 2025-06-18 do not name their revision.
            revision = next((value for name, value in scope["headers"] if name == b"mcp-protocol-version"), None)
            if isinstance(frame, Batch) and revision not in (None, BATCH_REVISION.encode()):
                frame = NO_BATCH
            if isinstance(frame, Unreadable):
                response = Response(dump_message(frame.error), 400, media_type="application/json")
                await response(scope, receive, send)
            elif isinstance(frame, Batch):
                await _BatchRun(self.app, scope, receive, send).run(frame)
            elif self.quick.accept(scope, frame, revision):
                await self.quick.run(scope, replay, receive, send)
            else:
                await self.app(scope, replay, send)
        else:
            await self.app(scope, receive, send)

    async def _run_stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run a stream, and complete it when the server ends, so that its client sees no broken connection."""
        has_begun = has_ended = False

        async def receive_or_end() -> Message:
            async with anyio.create_task_group() as tasks:
                message: Message = {"type": "http.disconnect"}

                async def wait() -> None:
                    await self.streams_end.wait()
                    tasks.cancel_scope.cancel()

                tasks.start_soon(wait)
                message = await receive()
                tasks.cancel_scope.cancel()
            return message

        async def send_and_note(message: Message) -> None:
            nonlocal has_begun, has_ended
            has_begun = has_begun or message["type"] == "http.response.start"
            has_ended = has_ended or (message["type"] == "http.response.body" and not message.get("more_body", False))
            await send(message)

        await self.app(scope, receive_or_end, send_and_note)
        if has_begun and not has_ended and self.streams_end.is_set():
            await send({"type": "http.response.body", "body": b"", "more_body": False})


class _BatchRun:
    """Sends each message of a batch through the app, and combines the answers into one event stream.

    The messages run one after the other, so a batch never uses more resources at once than a single request. Events
    are passed on as the SDK writes them, so that progress and questions to the user arrive in time.
    """

    def __init__(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        self._app = app
        self._scope = scope
        self._receive = receive
        self._send = send
        self._has_begun = self._is_disconnected = False

    async def run(self, batch: Batch) -> None:
        for message in batch.messages:
            if isinstance(message, Unreadable):
                await self._send_event(dump_message(message.error))
                continue
            refusal = await self._run_message(dump_message(message))
            if refusal is not None and not self._has_begun:
                for part in refusal:
                    await self._send(part)
                return
            if refusal is not None:
                await self._send_event(b"".join(part.get("body", b"") for part in refusal))
            if self._is_disconnected:
                return
        if self._has_begun:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await self._send({"type": "http.response.start", "status": 202, "headers": [(b"content-length", b"0")]})
            await self._send({"type": "http.response.body", "body": b""})

    async def _run_message(self, body: bytes) -> list[Message] | None:
        """Run one message and pass its event stream on. Return the response instead if the app refuses the message."""
        bodies = iter((body,))
        response: list[Message] = []

        async def receive() -> Message:
            for content in bodies:
                return {"type": "http.request", "body": content, "more_body": False}
            message = await self._receive()
            self._is_disconnected = self._is_disconnected or message["type"] == "http.disconnect"
            return message

        async def send(message: Message) -> None:
            if response or (message["type"] == "http.response.start" and not _is_stream(message)):
                response.append(message)
            elif message["type"] == "http.response.start":
                await self._begin(message["headers"])
            elif message.get("body"):
                await self._send({**message, "more_body": True})

        headers = [pair for pair in self._scope["headers"] if pair[0] not in (b"content-length", b"transfer-encoding")]
        headers.append((b"content-length", str(len(body)).encode()))
        await self._app({**self._scope, "headers": headers}, receive, send)
        return response if response and response[0]["status"] >= 400 else None

    async def _begin(self, headers: list[tuple[bytes, bytes]]) -> None:
        if not self._has_begun:
            self._has_begun = True
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _send_event(self, content: bytes) -> None:
        await self._begin([(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache, no-transform")])
        event = b"event: message\r\ndata: " + content + b"\r\n\r\n"
        await self._send({"type": "http.response.body", "body": event, "more_body": True})


def _is_stream(start: Message) -> bool:
    return any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in start["headers"])


def dump_message(message: JSONRPCMessage) -> bytes:
    """Return a message as JSON, on one line."""
    return message.model_dump_json(by_alias=True, exclude_unset=True).encode()


async def _read_body(receive: Receive) -> tuple[bytes | None, Receive]:
    """Return the body of a request, and a `receive` that yields the same messages again.

    The body is None if the client disconnected or sent too much. The SDK answers these requests.
    """
    messages: list[Message] = []
    size, has_more = 0, True
    while has_more and size <= MAX_BODY:
        messages.append(await receive())
        size += len(messages[-1].get("body", b""))
        has_more = messages[-1]["type"] == "http.request" and messages[-1].get("more_body", False)
    is_whole = not has_more and messages[-1]["type"] == "http.request"
    replayed = iter(messages)

    async def replay() -> Message:
        return next(replayed, None) or await receive()

    return (b"".join(message.get("body", b"") for message in messages) if is_whole else None), replay
