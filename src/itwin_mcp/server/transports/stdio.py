"""The stdio transport: one JSON-RPC message per line. Signals end it at once; unreadable lines get an error."""

from __future__ import annotations

import logging
import os
import select
import stat
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
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

from itwin_mcp.server.transports.json_rpc import (
    BATCH_REVISION,
    NO_BATCH,
    Batch,
    Unreadable,
    dump_message,
    parse_message,
)

logger = logging.getLogger(__name__)

CHUNK_BYTES = 64 * 1024
"""The capacity of a pipe on Linux."""
MAX_QUEUED = 16
"""Messages that wait on each side before the other side is no longer read."""
END_SECONDS = 3.0
"""How long a cancelled server waits for threads that cannot be interrupted, such as a host name lookup."""


async def serve_stdio(server: Server[Any]) -> None:
    """Serve one client over standard input and output until input ends or this is cancelled.

    This replaces the SDK's transport for two reasons. The SDK reads in a thread that a cancellation waits for, so
    Ctrl-C does nothing until the client writes something. The SDK also drops messages that it cannot read, so a client
    waits forever for an answer.
    """
    async with _open_streams() as (incoming, outgoing):
        to_server, from_client = anyio.create_memory_object_stream[SessionMessage | Exception](MAX_QUEUED)
        to_client, from_server = anyio.create_memory_object_stream[SessionMessage | bytes](MAX_QUEUED)
        batches = _BatchAnswers()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_send_messages, from_server, outgoing, batches, tasks.cancel_scope)
                tasks.start_soon(_receive_messages, incoming, to_server, to_client.clone(), batches)
                await server.run(from_client, to_client, server.create_initialization_options())
        except anyio.get_cancelled_exc_class():
            deadline = threading.Timer(END_SECONDS, os._exit, (0,))
            deadline.daemon = True
            deadline.start()
            raise


@asynccontextmanager
async def _open_streams() -> AsyncIterator[tuple[AsyncIterable[bytes], int]]:
    """Yield the lines of standard input and a descriptor of standard output.

    Meanwhile descriptor 0 is the null device and descriptor 1 is standard error. So neither a stray print nor a child
    process can corrupt or consume a message.
    """
    incoming, outgoing = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    if _is_pollable(incoming):
        yield _poll_lines(incoming), outgoing
        return
    sender, lines = anyio.create_memory_object_stream[bytes]()
    async with BlockingPortal() as portal:
        # A daemon thread, so that the process can end while the thread waits for the client.
        threading.Thread(target=_read_lines, args=(incoming, portal, sender), name="stdin", daemon=True).start()
        try:
            yield lines, outgoing
        finally:
            sender.close()
            lines.close()


def _is_pollable(descriptor: int) -> bool:
    """Return whether the event loop can wait for a descriptor, so that reading and writing need no thread."""
    mode = os.fstat(descriptor).st_mode
    return sys.platform != "win32" and (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode))


async def _poll_lines(descriptor: int) -> AsyncGenerator[bytes]:
    """Yield each line until the end of input."""
    pending = bytearray()
    while True:
        await anyio.wait_readable(descriptor)
        chunk = _read_chunk(descriptor)
        if not chunk:
            break
        pending += chunk
        if b"\n" in chunk:
            *lines, pending = pending.split(b"\n")
            for line in lines:
                yield bytes(line)
    if pending:
        yield bytes(pending)


def _read_lines(descriptor: int, portal: BlockingPortal, lines: MemoryObjectSendStream[bytes]) -> None:
    """Send each line to the stream, and close the stream at the end of input.

    This reads the descriptor instead of `sys.stdin`. A thread that blocks in a Python file holds the file's lock, and
    the interpreter waits for that lock when it exits.
    """
    pending = bytearray()
    # During the shutdown nobody receives lines.
    with suppress(RuntimeError, anyio.BrokenResourceError, anyio.ClosedResourceError, CancelledError):
        while chunk := _read_chunk(descriptor):
            pending += chunk
            if b"\n" in chunk:
                *lines_read, pending = pending.split(b"\n")
                for line in lines_read:
                    portal.call(lines.send, bytes(line))
        if pending:
            portal.call(lines.send, bytes(pending))
        portal.call(lines.close)


def _read_chunk(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, CHUNK_BYTES)
    except OSError:  # the terminal is closed
        return b""


async def _receive_messages(
    lines: AsyncIterable[bytes],
    to_server: MemoryObjectSendStream[SessionMessage | Exception],
    to_client: MemoryObjectSendStream[SessionMessage | bytes],
    batches: _BatchAnswers,
) -> None:
    """Pass each message to the server, and answer each line that is not a message."""
    has_warned = False
    # A server that ends closes its streams first; lines that arrive after that are dropped.
    with suppress(anyio.BrokenResourceError):
        async with to_server, to_client:
            async for line in lines:
                if not line.strip():
                    continue
                frame = parse_message(line)
                if isinstance(frame, Batch):
                    frame = frame if batches.allowed else NO_BATCH
                if isinstance(frame, Unreadable):
                    if not has_warned:
                        has_warned = True
                        logger.warning(
                            "The client sent an unreadable message (%d). %s Later ones are not logged.",
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


async def _send_messages(
    messages: MemoryObjectReceiveStream[SessionMessage | bytes],
    descriptor: int,
    batches: _BatchAnswers,
    server: anyio.CancelScope,
) -> None:
    """Write each message as a line. Cancel `server` if the client has closed its side."""
    write = _write_polled if _is_pollable(descriptor) else _write_in_thread
    async with messages:
        async for message in messages:
            line = message if isinstance(message, bytes) else batches.dump(message.message)
            if line is None:
                continue
            try:
                await write(descriptor, line + b"\n")
            except OSError:
                server.cancel()
                return


@dataclass(slots=True)
class _OpenBatch:
    """A batch that is not answered completely: the ids of requests in progress, and the answers so far."""

    waiting: set[int | str]
    answers: list[bytes]


class _BatchAnswers:
    """Collects the answers to each batch until all can be sent as one array (JSON-RPC 2.0, section 6)."""

    def __init__(self) -> None:
        self.allowed = False
        """Whether the negotiated revision has batches."""
        self._open: list[_OpenBatch] = []

    def open(self, batch: Batch) -> list[JSONRPCMessage]:
        """Begin to collect the answers to a batch. Return its readable messages, which the server answers."""
        unreadable = [frame for frame in batch.messages if isinstance(frame, Unreadable)]
        messages = [frame for frame in batch.messages if not isinstance(frame, Unreadable)]
        waiting = {message.id for message in messages if isinstance(message, JSONRPCRequest)}
        self._open.append(
            _OpenBatch(waiting, [dump_message(frame.error) for frame in unreadable if not frame.is_response])
        )
        return messages

    def note_cancelled(self, message: JSONRPCMessage) -> None:
        """Stop waiting for the answer to a request that the client cancels: it is never sent."""
        if isinstance(message, JSONRPCNotification) and message.method == "notifications/cancelled":
            for batch in self._open:
                batch.waiting.discard((message.params or {}).get("requestId", ""))

    def take_complete(self) -> list[bytes]:
        """Return the answers to complete batches, each as a JSON array, and forget these batches."""
        complete = [batch for batch in self._open if not batch.waiting]
        self._open = [batch for batch in self._open if batch.waiting]
        return [b"[%s]" % b",".join(batch.answers) for batch in complete if batch.answers]

    def dump(self, message: JSONRPCMessage) -> bytes | None:
        """Return the line to write: the message or, if it belongs to a batch, the array once that is complete."""
        if isinstance(message, JSONRPCResponse) and "protocolVersion" in message.result:
            self.allowed = message.result["protocolVersion"] == BATCH_REVISION
        line = dump_message(message)
        if isinstance(message, JSONRPCResponse | JSONRPCError):
            for batch in self._open:
                if message.id in batch.waiting:
                    batch.waiting.discard(message.id)
                    batch.answers.append(line)
                    return next(iter(self.take_complete()), None)
        return line


async def _write_polled(descriptor: int, content: bytes) -> None:
    """Write without blocking: a pipe that is reported as writable takes PIPE_BUF bytes (POSIX, `pipe(7)`).

    The descriptor itself stays blocking, because that is a property of the pipe, which other processes may share.
    """
    view = memoryview(content)
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    while view:
        if not poll.poll(0):
            await anyio.wait_writable(descriptor)
        view = view[os.write(descriptor, view[: select.PIPE_BUF]) :]


async def _write_in_thread(descriptor: int, content: bytes) -> None:
    # The client may have stopped reading without closing anything, so that a shutdown abandons the write.
    await anyio.to_thread.run_sync(_write, descriptor, content, abandon_on_cancel=True)


def _write(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
