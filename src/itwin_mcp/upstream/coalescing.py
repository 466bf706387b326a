"""Identical reads that run at the same time, made once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from itwin_mcp.errors import CallError
from itwin_mcp.upstream.wire import Request, Response


class _Flight:
    """One read on its way. Without a result when it landed: its caller was cancelled."""

    def __init__(self) -> None:
        self.landed = anyio.Event()
        self.result: Response | CallError | None = None


class Coalescing:
    """Lets later callers of an identical read wait for the first one's answer."""

    def __init__(self) -> None:
        self._flights: dict[Request, _Flight] = {}

    async def read(self, request: Request, send: Callable[[], Awaitable[Response]]) -> Response:
        """The answer to `request`, sent by us or already under way.

        When the caller that sent it is cancelled, the request is closed and one of those who waited sends it anew.
        """
        while True:
            flight = self._flights.get(request)
            if flight is None:
                return await self._lead(request, send)
            await flight.landed.wait()
            if isinstance(flight.result, Response):
                return flight.result
            if flight.result is not None:
                raise twin_of(flight.result)

    async def _lead(self, request: Request, send: Callable[[], Awaitable[Response]]) -> Response:
        flight = self._flights[request] = _Flight()
        try:
            flight.result = await send()
            return flight.result
        except CallError as error:
            flight.result = error
            raise
        finally:
            if self._flights.get(request) is flight:
                del self._flights[request]
            flight.landed.set()

    def forget(self) -> None:
        """Something was written: who reads from now on must not get an answer that is older."""
        self._flights.clear()


def twin_of(error: CallError) -> CallError:
    """The same error for another caller, who may add to it (`completed`) and gives it a trace of its own."""
    twin: CallError = error.__class__.__new__(error.__class__)
    twin.args = error.args
    twin.__dict__.update(error.__dict__)
    return twin
