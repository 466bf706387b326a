"""`tools/list` and `tools/call`. The list is built once, and results bypass the SDK's models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import mcp.types as t
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from itwin_mcp.capability.catalog import Catalog, Tool
from itwin_mcp.capability.tool_actions import Access, Call
from itwin_mcp.executor.arguments import convert_arguments
from itwin_mcp.executor.context import Caller
from itwin_mcp.executor.pipeline import Executor
from itwin_mcp.executor.policy.gatekeeper import find_meant
from itwin_mcp.executor.sending import RequestCount
from itwin_mcp.server.conversation import McpConversation
from itwin_mcp.server.dynamic_tools import find_runner
from itwin_mcp.server.results import to_result

SERVER_INFO = "io.modelcontextprotocol/serverInfo"
REQUESTS = "io.github.itwin-mcp/requests"
"""The key of a result's `_meta` for how many requests the call sent to the platform."""


class Tools:
    """The tools of one server."""

    def __init__(
        self,
        catalog: Catalog,
        executor: Executor,
        server_info: Mapping[str, Any],
        get_caller: Callable[[], Caller],
    ) -> None:
        """`server_info` is stamped on results; `get_caller` returns the caller of the current request."""
        self._catalog = catalog
        self._executor = executor
        self._get_caller = get_caller
        self._meta = {SERVER_INFO: dict(server_info)}
        self._lists: dict[tuple[str, tuple[str, ...]], Mapping[str, Any]] = {}
        """The finished results of `tools/list`, by protocol revision and tool names."""

    async def list(self, _: ServerRequestContext[Any], params: t.PaginatedRequestParams | None) -> t.ListToolsResult:
        """Return every tool that the caller may call, on one page, in the order of the catalog."""
        if params is not None and params.cursor is not None:
            raise MCPError(t.INVALID_PARAMS, "There is only one page of tools: omit the cursor.")
        tools = [describe(self._catalog.tools[name]) for name in self._list_names()]
        return t.ListToolsResult(tools=[t.Tool.model_validate(tool) for tool in tools])

    def _list_names(self) -> tuple[str, ...]:
        """Return the names of the tools that the caller may call."""
        caller = self._get_caller()
        return tuple(name for name, tool in self._catalog.tools.items() if self._executor.shows(caller, tool))

    def find_input_schema(self, name: str) -> Mapping[str, Any] | None:
        """Return the schema of a tool's arguments, so that the SDK does not list all tools to find it."""
        tool = self._catalog.tools.get(name)
        return tool.input_schema if tool is not None else None

    async def call(self, context: ServerRequestContext[Any], params: t.CallToolRequestParams) -> dict[str, Any]:
        """Call a tool and return the result as JSON. `finish_early` calls this directly."""
        tool = self._catalog.tools.get(params.name)
        if tool is None:
            raise MCPError(t.INVALID_PARAMS, self._explain_unknown(params.name))
        conversation = McpConversation(context, params.input_responses or {}, params.request_state)
        count, arguments = RequestCount(), params.arguments or {}
        outcome = await self._executor.call(tool, arguments, conversation, self._get_caller(), count)
        return {**to_result(outcome), "_meta": {REQUESTS: count.sent}}

    async def finish_early(self, ctx: ServerRequestContext[Any], call_next: CallNext) -> HandlerResult:
        """Middleware: answer `tools/list` from a cache, and `tools/call` with a finished result.

        The SDK takes a middleware's result as it is, without validating and serializing models. Requests that the SDK
        refuses (malformed parameters, a connection that was not initialized) are left to the SDK.
        """
        if not is_initialized(ctx):
            return await call_next(ctx)
        params = ctx.params or {}
        if ctx.method == "tools/list" and params.get("cursor") is None:
            key = (ctx.protocol_version, self._list_names())
            if key not in self._lists:
                result = await call_next(ctx)
                assert isinstance(result, dict)
                self._lists[key] = result
            return dict(self._lists[key])
        if ctx.method != "tools/call":
            return await call_next(ctx)
        try:
            call = t.CallToolRequestParams.model_validate(params, by_name=False)
        except ValidationError:
            return await call_next(ctx)
        answer = await self.call(ctx, call)
        if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
            answer.setdefault("resultType", "complete")
            answer["_meta"] |= self._meta
        return answer

    def _explain_unknown(self, name: str) -> str:
        """Explain that no tool of this name is served, and suggest one that the caller may see."""
        runner = find_runner(self._catalog, name)
        hint = f"Run it with {runner}." if runner else self._catalog.suggest_tool(name, self._list_names())
        return f"Unknown tool: {name[:128]}. {hint or 'See tools/list.'}"


def describe(tool: Tool) -> dict[str, Any]:
    """Return a tool as `tools/list` shows it."""
    hints = tool.annotations
    return {
        "name": tool.name,
        "title": tool.title,
        "description": tool.description,
        "inputSchema": tool.input_schema,
        "outputSchema": tool.output_schema,
        "annotations": {
            "readOnlyHint": hints.read_only,
            "destructiveHint": hints.destructive,
            "idempotentHint": hints.idempotent,
            "openWorldHint": hints.open_world,
        },
    }


def is_initialized(context: ServerRequestContext[Any]) -> bool:
    """Return whether the client may call. Revision 2026-07-28 has no handshake; older ones need it first."""
    return context.protocol_version in MODERN_PROTOCOL_VERSIONS or context.session.client_params is not None


def is_quick(catalog: Catalog, name: Any) -> bool:
    """Return whether a call of a tool ends within seconds, so that its client needs no sign of life meanwhile."""
    tool = catalog.tools.get(name) if isinstance(name, str) else None
    return tool is not None and isinstance(tool.action, Call) and tool.annotations.read_only and tool.transfer is None


def find_access(catalog: Catalog, name: Any, arguments: Any) -> Access:
    """Return the access that a call needs, before it reaches the executor; READ for a tool that does not exist."""
    tool = catalog.tools.get(name) if isinstance(name, str) else None
    if tool is None:
        return Access.READ
    return max(tool.access, _resolve_runner(catalog, tool, arguments)[0].access)


async def note_refused(
    catalog: Catalog, executor: Executor, code: str, caller: Caller, name: Any, arguments: Any
) -> None:
    """Write to the audit log that a call was refused before it reached the executor."""
    tool = catalog.tools.get(name) if isinstance(name, str) else None
    if tool is not None:
        await executor.note_refused(code, *_resolve_runner(catalog, tool, arguments), caller)


def _resolve_runner(catalog: Catalog, tool: Tool, arguments: Any) -> tuple[Tool, Mapping[str, Any]]:
    """Return the tool that a call runs, with its arguments: for a runner, the tool that the call names."""
    converted = convert_arguments(tool, arguments) if isinstance(arguments, Mapping) else {}
    return find_meant(tool, converted, catalog.reachable)
