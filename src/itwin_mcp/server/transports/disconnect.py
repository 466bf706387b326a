"""Cancels a request when its client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from starlette.types import Receive

WATCH_SECONDS = 0.02
"""How long a request runs before its connection is watched. Most requests end earlier, and so without a second task."""


@contextmanager
def cancel_on_disconnect(receive: Receive) -> Iterator[None]:
    """Cancel the block when the client disconnects. The body of the request must have been read."""
    loop = asyncio.get_running_loop()
    watches: list[asyncio.Task[None]] = []
    with anyio.CancelScope() as request:

        async def wait_for_disconnect() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            request.cancel()

        timer = loop.call_later(WATCH_SECONDS, lambda: watches.append(loop.create_task(wait_for_disconnect())))
        try:
            yield
        finally:
            timer.cancel()
            for watch in watches:
                watch.cancel()
