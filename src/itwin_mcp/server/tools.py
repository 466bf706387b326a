"""`tools/list` and `tools/call`: the listing is built once, a call builds no models on its way out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import mcp.types as t
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.types.version import MODERN_PROTOCOL_VERSIONS

from itwin_mcp.capability.catalog import Catalog, Tool
from itwin_mcp.capability.selection import DYNAMIC
from itwin_mcp.errors import CallError
from itwin_mcp.executor.blobs import Blob
from itwin_mcp.executor.conversation import Caller
from itwin_mcp.executor.executor import Executor
from itwin_mcp.executor.saving import SAVE_LIST
from itwin_mcp.server import demands
from itwin_mcp.server.conversation import McpConversation
from itwin_mcp.server.dynamic import RUNS, Dynamic
from itwin_mcp.server.listing_choice import choose_listing
from itwin_mcp.server.results import outcome, tell_unserved, wire_result, within_limit
from itwin_mcp.server.session import READ_GUIDE, SIGN_IN, WHO_AM_I, Session
from itwin_mcp.server.signing_in import sign_in

SERVER_INFO = "io.modelcontextprotocol/serverInfo"
Visible: TypeAlias = Callable[[Caller, Tool], bool]
"""Whether a caller is shown a tool; their access is asked besides."""


class Tools:
    """The tools of one server."""

    def __init__(
        self,
        catalog: Catalog,
        executor: Executor,
        session: Session,
        stamp: Mapping[str, Any],
        caller: Callable[[], Caller],
        visible: Visible,
    ) -> None:
        self._catalog = catalog
        self._executor = executor
        self._session = session
        self._caller = caller
        self._visible = visible
        self._dynamic = Dynamic(catalog) if catalog.dynamic else None
        self._stamp = {SERVER_INFO: dict(stamp)}
        self._listed: dict[tuple[str, tuple[str, ...]], Mapping[str, Any]] = {}

    async def list(self, _: ServerRequestContext[Any], params: t.PaginatedRequestParams | None) -> t.ListToolsResult:
        """Every tool that the caller may call, on one page and in the order of the catalog."""
        if params is not None and params.cursor is not None:
            raise MCPError(t.INVALID_PARAMS, "There is one page of tools: ask without a cursor.")
        listed = [self._catalog.tools[name] for name in self._names()]
        return t.ListToolsResult(tools=[t.Tool.model_validate(describe(tool)) for tool in listed])

    def _names(self) -> tuple[str, ...]:
        """The tools that the caller may call."""
        caller = self._caller()
        return tuple(name for name, tool in self._catalog.tools.items() if self._shows(caller, tool))

    def _shows(self, caller: Caller, tool: Tool) -> bool:
        return demands.to_list(tool) <= caller.access and self._visible(caller, tool)

    async def call(
        self, context: ServerRequestContext[Any], params: t.CallToolRequestParams
    ) -> t.CallToolResult | t.InputRequiredResult:
        """Call a tool by way of the SDK's models; most calls never come here, see `shortcut`."""
        if params.name == SIGN_IN and SIGN_IN in self._catalog.tools and self._session.login is not None:
            return await sign_in(self._catalog.tools[SIGN_IN], self._session.login, context, params)
        conversation = McpConversation(context, params.input_responses, params.request_state)
        result = await self._call(conversation, params.name, params.arguments or {})
        if "inputRequests" in result:
            return t.InputRequiredResult.model_validate(result)
        return t.CallToolResult.model_validate(result)

    def input_schema(self, name: str) -> Mapping[str, Any] | None:
        """The schema of a tool's arguments, so that the SDK need not list all tools for one."""
        tool = self._catalog.tools.get(name)
        return tool.input_schema if tool is not None else None

    async def shortcut(self, ctx: ServerRequestContext[Any], call_next: CallNext) -> HandlerResult:
        """Answer `tools/list` from memory and `tools/call` with a finished result.

        The SDK trusts a middleware's result and does not model, dump and check it again. Whatever is unusual
        (malformed parameters, a connection that was not initialised, answers to questions) goes the SDK's way.
        """
        params = ctx.params or {}
        if ctx.method == "tools/list" and params.get("cursor") is None:
            key = (ctx.protocol_version, self._names())
            remembered = self._listed.get(key)
            if remembered is None or not is_initialised(ctx):
                listed = await call_next(ctx)
                assert isinstance(listed, dict)
                remembered = self._listed[key] = listed
            return dict(remembered)
        if ctx.method != "tools/call" or not is_initialised(ctx):
            return await call_next(ctx)
        name, arguments = params.get("name"), params.get("arguments")
        usual = isinstance(name, str) and (arguments is None or isinstance(arguments, dict))
        if not usual or name == SIGN_IN or "inputResponses" in params or "requestState" in params:
            return await call_next(ctx)
        result = await self._call(McpConversation(ctx), str(name), arguments or {})
        if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
            result.setdefault("resultType", "complete")
            result["_meta"] = self._stamp
        return result

    async def _call(self, conversation: McpConversation, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        tool = self._catalog.tools.get(name)
        if tool is None:
            raise MCPError(t.INVALID_PARAMS, self._explain_unknown(name))
        caller = self._caller()
        needed = demands.to_call(self._catalog, name, arguments)
        refused: CallError | None = None
        if needed > caller.access:
            refused = demands.insufficient(needed)
        # What no capability file declares never comes to the executor, which asks the policy about all others.
        elif not tool.file and not self._visible(caller, tool):
            refused = demands.not_allowed(name)
        if refused is not None:
            await demands.note_refused(self._catalog, self._executor, refused.code, caller, name, arguments)
            return self._result(name, {"error": refused.to_json(name)}, True)
        if name in (WHO_AM_I, READ_GUIDE):
            return self._result(name, *await outcome(name, partial(self._session.answer, tool, arguments)))
        if name == SAVE_LIST:
            choose = partial(choose_listing, self._catalog, partial(self._shows, caller))
            saving = partial(self._executor.save_list, tool, arguments, choose, conversation, caller)
            return self._result(name, *await outcome(name, saving))
        if self._dynamic is not None and tool.toolset == DYNAMIC:
            try:
                if name not in RUNS:
                    return self._result(
                        name, self._dynamic.answer(name, arguments, partial(self._shows, caller)), False
                    )
                tool, arguments = self._dynamic.chosen(name, arguments)
            except CallError as error:
                return self._result(name, {"error": error.to_json(name)}, True)
            name = tool.name
        blobs: list[Blob] = []
        structured, is_error = await outcome(
            name, lambda: self._executor.call(tool, arguments, conversation, caller, blobs)
        )
        if is_error:
            tell_unserved(structured, self._catalog.elsewhere)
        return conversation.asks() or self._result(name, structured, is_error, blobs)

    def _result(
        self, name: str, structured: dict[str, Any], is_error: bool, blobs: Sequence[Blob] = ()
    ) -> dict[str, Any]:
        return wire_result(*within_limit(name, structured, is_error, self._executor.max_result_bytes), blobs)

    def _explain_unknown(self, name: str) -> str:
        """Say that no tool of this name is served, and which one to call instead; a caller reads of no hidden tool."""
        runner = self._dynamic.runs(name) if self._dynamic is not None else None
        hint = f"Run it with {runner}." if runner else self._catalog.suggest_tool(name, self._names())
        return f"Unknown tool: {name[:128]}. {hint or 'See tools/list.'}"


def describe(tool: Tool) -> dict[str, Any]:
    """A tool as `tools/list` gives it."""
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


def is_initialised(context: ServerRequestContext[Any]) -> bool:
    """Whether the client may call at all: every 2026-07-28 request stands alone, older ones follow a handshake."""
    return context.protocol_version in MODERN_PROTOCOL_VERSIONS or context.session.client_params is not None
