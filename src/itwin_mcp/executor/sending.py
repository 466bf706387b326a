"""One operation, once: build the request, send it through the shared client, decode the answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import anyio

from itwin_mcp.capability.catalog import Operation
from itwin_mcp.executor.conversation import Caller, Conversation
from itwin_mcp.executor.request import build_request
from itwin_mcp.upstream.envelope import read_json
from itwin_mcp.upstream.wire import Request, Response


class Upstream(Protocol):
    """The one function that sends; `UpstreamClient` is it."""

    @property
    def platform(self) -> str:
        """The origin that stands for the platform, such as `https://api.bentley.com`."""

    async def send(self, request: Request) -> Response:
        """Send one request; raises an error of the CallError family for anything but an answer below 400."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A decoded answer: JSON (None when the body is empty), or the bytes of a binary operation."""

    body: Any
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Run:
    """One call under way: whom it is for and what its stages send and wait through."""

    upstream: Upstream
    environment: Mapping[str, str] = field(repr=False)
    conversation: Conversation
    caller: Caller
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep
    now: Callable[[], float] = anyio.current_time

    async def perform(self, operation: Operation, values: Mapping[str, Any]) -> Answer:
        """Send one operation with these input values."""
        return await self.send(build_request(operation, values, self.environment), binary=operation.binary)

    async def send(self, request: Request, *, binary: bool = False) -> Answer:
        """Send a built request."""
        response = await self.upstream.send(request)
        if binary:
            return Answer(response.content, response.headers)
        empty = not response.content or response.status in (202, 204) or 300 <= response.status < 400
        return Answer(None if empty else read_json(response), response.headers)
