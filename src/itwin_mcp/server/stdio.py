"""The stdio transport: one frame a line. A signal ends it at once, and every frame that cannot be read is answered."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import AsyncIterator
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread
from anyio.from_thread import BlockingPortal
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.server.lowlevel import Server
from mcp.shared.message import SessionMessage
from mcp.types import JSONRPCError, JSONRPCMessage, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from itwin_mcp.server.frames import BATCHES_IN, NO_BATCH, Batch, Unreadable, read_frame

logger = logging.getLogger(__name__)

CHUNK = 64 * 1024
"""Bytes that are read at once: what a pipe holds."""
END_SECONDS = 3.0
"""How long a cancelled server waits for threads that cannot be interrupted, such as one that looks up a host name."""


async def serve_stdio(server: Server[Any]) -> None:
    """Serve one client over standard input and output until input ends, or until this is cancelled.

    The SDK's own transport reads in a thread that a cancellation waits for, so that Ctrl-C would do nothing until the
    client writes something. It also drops frames that it cannot read.
    """
    async with _wire() as (incoming, outgoing):
        to_server, from_client = anyio.create_memory_object_stream[SessionMessage | Exception]()
        to_client, from_server = anyio.create_memory_object_stream[SessionMessage | bytes]()
        batches = _Batches()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_send_frames, from_server, outgoing, batches, tasks.cancel_scope)
                tasks.start_soon(_receive_frames, incoming, to_server, to_client.clone(), batches)
                await server.run(from_client, to_client, server.create_initialization_options())
        except anyio.get_cancelled_exc_class():
            last = threading.Timer(END_SECONDS, os._exit, (0,))
            last.daemon = True
            last.start()
            raise


@asynccontextmanager
async def _wire() -> AsyncIterator[tuple[MemoryObjectReceiveStream[bytes], int]]:
    """The lines of standard input, and the descriptor of standard output.

    Meanwhile descriptor 0 is the null device and descriptor 1 is standard error, so that a stray print or a program
    that we start can neither break the frames nor take one away.
    """
    incoming, outgoing = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    to_us, lines = anyio.create_memory_object_stream[bytes]()
    async with BlockingPortal() as portal:
        # A daemon: while it waits for the client, it must not keep the process from ending.
        threading.Thread(target=_read_lines, args=(incoming, portal, to_us), name="stdin", daemon=True).start()
        try:
            yield lines, outgoing
        finally:
            to_us.close()
            lines.close()


def _read_lines(descriptor: int, portal: BlockingPortal, lines: MemoryObjectSendStream[bytes]) -> None:
    """Hand on each line that comes, and close the stream when there are no more.

    It reads the descriptor itself: Python's own files have locks, which a thread that waits in one holds to the end.
    """
    pending = bytearray()
    # Nobody takes lines any more when we are ending.
    with suppress(RuntimeError, anyio.BrokenResourceError, anyio.ClosedResourceError, CancelledError):
        while chunk := _read_chunk(descriptor):
            pending += chunk
            if b"\n" in chunk:
                *whole, pending = pending.split(b"\n")
                for line in whole:
                    portal.call(lines.send, bytes(line))
        if pending:
            portal.call(lines.send, bytes(pending))
        portal.call(lines.close)


def _read_chunk(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, CHUNK)
    except OSError:  # The terminal is gone: there is nothing more to read.
        return b""


async def _receive_frames(
    lines: MemoryObjectReceiveStream[bytes],
    to_server: MemoryObjectSendStream[SessionMessage | Exception],
    to_client: MemoryObjectSendStream[SessionMessage | bytes],
    batches: _Batches,
) -> None:
    """Hand each message to the server; answer what is none."""
    warned = False
    # When the server ends, it closes its ends first: what comes then is nobody's any more.
    with suppress(anyio.BrokenResourceError):
        async with to_server, to_client:
            async for line in lines:
                if not line.strip():
                    continue
                frame = read_frame(line)
                if isinstance(frame, Batch):
                    frame = frame if batches.allowed else NO_BATCH
                if isinstance(frame, Unreadable):
                    if not warned:
                        warned = True
                        logger.warning(
                            "The client sent a frame that cannot be read (%d). %s Later ones are not logged.",
                            frame.code,
                            frame.reason,
                        )
                    if not frame.is_response:
                        await to_client.send(SessionMessage(frame.error))
                    continue
                messages = batches.open(frame) if isinstance(frame, Batch) else [frame]
                for message in messages:
                    batches.note_cancelled(message)
                    await to_server.send(SessionMessage(message))
                for answer in batches.take_complete():
                    await to_client.send(answer)


async def _send_frames(
    messages: MemoryObjectReceiveStream[SessionMessage | bytes],
    descriptor: int,
    batches: _Batches,
    ending: anyio.CancelScope,
) -> None:
    """Write each message as a line; end everything when the client no longer reads."""
    async with messages:
        async for message in messages:
            line = message if isinstance(message, bytes) else batches.dump(message.message)
            if line is None:
                continue
            try:
                # Abandoned when we end: the client may have stopped reading without closing anything.
                await anyio.to_thread.run_sync(_write, descriptor, line + b"\n", abandon_on_cancel=True)
            except OSError:
                ending.cancel()
                return


@dataclass(slots=True)
class _OpenBatch:
    """The answers to a batch so far."""

    waiting: set[int | str]
    answers: list[bytes]


class _Batches:
    """Holds answers back until their batch is complete: it is answered by one array (JSON-RPC 2.0, section 6)."""

    def __init__(self) -> None:
        self.allowed = False
        """Whether the revision that was agreed on has batches."""
        self._open: list[_OpenBatch] = []

    def open(self, batch: Batch) -> list[JSONRPCMessage]:
        """Return the messages of a batch that are for the server."""
        unreadable = [frame for frame in batch.frames if isinstance(frame, Unreadable)]
        messages = [frame for frame in batch.frames if not isinstance(frame, Unreadable)]
        waiting = {message.id for message in messages if isinstance(message, JSONRPCRequest)}
        self._open.append(_OpenBatch(waiting, [_dump(frame.error) for frame in unreadable if not frame.is_response]))
        return messages

    def note_cancelled(self, message: JSONRPCMessage) -> None:
        """A request that the client cancels is never answered."""
        if isinstance(message, JSONRPCNotification) and message.method == "notifications/cancelled":
            for batch in self._open:
                batch.waiting.discard((message.params or {}).get("requestId", ""))

    def take_complete(self) -> list[bytes]:
        """The answers to batches that wait for nothing more."""
        complete = [batch for batch in self._open if not batch.waiting]
        self._open = [batch for batch in self._open if batch.waiting]
        return [_array(batch.answers) for batch in complete if batch.answers]

    def dump(self, message: JSONRPCMessage) -> bytes | None:
        """Return what to write: the message, the array that it completes, or None if it completes none yet."""
        if isinstance(message, JSONRPCResponse) and "protocolVersion" in message.result:
            self.allowed = message.result["protocolVersion"] == BATCHES_IN
        line = _dump(message)
        if isinstance(message, JSONRPCResponse | JSONRPCError):
            for batch in self._open:
                if message.id in batch.waiting:
                    batch.waiting.discard(message.id)
                    batch.answers.append(line)
                    return next(iter(self.take_complete()), None)
        return line


def _array(items: list[bytes]) -> bytes:
    return b"[" + b",".join(items) + b"]"


def _dump(message: JSONRPCMessage) -> bytes:
    return message.model_dump_json(by_alias=True, exclude_unset=True).encode()


def _write(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
