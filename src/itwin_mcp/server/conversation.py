"""Telling the person behind an MCP client how far a call has come."""

from __future__ import annotations

from typing import Any

from mcp.server.context import ServerRequestContext


class McpConversation:
    """The client of one request. Progress goes out on the request's own stream, if the client asked for it."""

    def __init__(self, context: ServerRequestContext[Any]) -> None:
        self._session = context.session
        self._last = -1.0

    async def progress(self, done: float, total: float | None, text: str) -> None:
        """Send a progress notification; its value always grows, as the protocol demands."""
        done = max(done, self._last + 0.001)
        self._last = done
        if total is not None and total < done:  # another part of the call counts in other units
            total = None
        await self._session.report_progress(done, total, text)
