"""A server whose catalog can be replaced while clients are connected; they are notified that the lists have changed."""

from __future__ import annotations

import logging
import weakref
from functools import partial
from typing import Any

import anyio
import mcp.types as t
from mcp.server.connection import Connection
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    PromptsListChanged,
    ResourcesListChanged,
    ToolsListChanged,
)

from itwin_mcp.server.tools import is_initialized

logger = logging.getLogger(__name__)

_METHODS = (
    "tools/list",
    "tools/call",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "prompts/list",
    "prompts/get",
    "completion/complete",
    "skills/list",
    "skills/get",
)
NOTIFY_SECONDS = 5.0
"""How long a client may take to accept a notification. Another client must not wait for it."""


class LiveServer:
    """Wraps a server from `build_server`. Calls in progress finish with the handlers with which they began."""

    def __init__(self, server: Server[Any]) -> None:
        self.server = server
        self._bus = InMemorySubscriptionBus()
        self._connections: weakref.WeakSet[Connection] = weakref.WeakSet()
        # Since 2026-07-28 clients ask for changes with `subscriptions/listen`. Earlier ones are sent notifications.
        server.add_request_handler("subscriptions/listen", t.SubscriptionsListenRequestParams, ListenHandler(self._bus))
        changed = NotificationOptions(prompts_changed=True, resources_changed=True, tools_changed=True)
        server.create_initialization_options = partial(server.create_initialization_options, changed)  # type: ignore[method-assign]
        # Clients must not keep lists that can change at any time.
        server.cache_hints.clear()
        server.middleware.insert(1, self._remember_connection)

    async def _remember_connection(self, ctx: ServerRequestContext[Any], call_next: CallNext) -> HandlerResult:
        if is_initialized(ctx):
            self._connections.add(ctx.session._connection)  # a session lives as long as its request
        return await call_next(ctx)

    async def replace(self, fresh: Server[Any]) -> None:
        """Serve the catalog of a fresh server from `build_server` from now on, and notify the clients."""
        for method in _METHODS:
            entry = fresh.get_request_handler(method)
            if entry is not None:
                self.server.add_request_handler(method, entry.params_type, entry.handler)
        self.server.get_tool_input_schema = fresh.get_tool_input_schema
        self.server.instructions = fresh.instructions
        self.server.middleware[-1] = fresh.middleware[-1]  # `finish_early` of the tools
        for event in (ToolsListChanged(), ResourcesListChanged(), PromptsListChanged()):
            await self._bus.publish(event)
        async with anyio.create_task_group() as tasks:
            for connection in list(self._connections):
                tasks.start_soon(_notify, connection)


async def _notify(connection: Connection) -> None:
    try:
        with anyio.move_on_after(NOTIFY_SECONDS):
            await connection.send_tool_list_changed()
            await connection.send_resource_list_changed()
            await connection.send_prompt_list_changed()
    except (anyio.ClosedResourceError, anyio.BrokenResourceError):
        logger.debug("A client has left before it was notified of changed lists.")
