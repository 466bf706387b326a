"""Builds the MCP server from the SDK's low-level server and our handlers."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from typing import Any, cast

import mcp.types as t
from mcp.server.caching import CacheHint
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from opentelemetry import trace
from pydantic import ValidationError

from itwin_mcp import __version__
from itwin_mcp.capability.catalog import Catalog
from itwin_mcp.executor.context import LOCAL, Caller
from itwin_mcp.executor.pipeline import Executor
from itwin_mcp.server.completions import Completions
from itwin_mcp.server.instructions import build_instructions
from itwin_mcp.server.prompts import Prompts
from itwin_mcp.server.resources import Resources
from itwin_mcp.server.skills_extension import SkillsExtension
from itwin_mcp.server.tools import Tools, is_initialized

logger = logging.getLogger(__name__)

NAME = "itwin-mcp"
TITLE = "iTwin Platform (unofficial)"
_UNEXPLAINED = "Invalid request parameters"
"""The SDK's message for a request before `initialize`, among others."""


def build_server(
    catalog: Catalog,
    executor: Executor,
    get_caller: Callable[[], Caller] | None = None,
) -> Server[Any]:
    """Return an MCP server for a catalog. It serves every protocol revision from 2024-11-05 to 2026-07-28.

    `get_caller` returns the caller of the current request. Without it there is only one caller, so any cache between
    client and server may store the lists.
    """
    list_hint = CacheHint(ttl_ms=300_000, scope="public" if get_caller is None else "private")
    get_caller = get_caller or (lambda: LOCAL)
    tools = Tools(catalog, executor, {"name": NAME, "version": __version__, "title": TITLE}, get_caller)
    resources = Resources(catalog, executor, get_caller)
    prompts = Prompts(catalog)
    server: Server[Any] = Server(
        NAME,
        version=__version__,
        title=TITLE,
        instructions=build_instructions(catalog),
        cache_hints={
            "server/discover": list_hint,
            "tools/list": list_hint,
            "resources/list": list_hint,
            "resources/templates/list": list_hint,
            "prompts/list": list_hint,
        },
        get_tool_input_schema=tools.find_input_schema,
        on_list_tools=tools.list,
        on_call_tool=cast(Any, tools.call),  # returns JSON instead of the SDK's model, see `finish_early`
        on_list_resources=resources.list,
        on_list_resource_templates=resources.list_templates,
        on_read_resource=resources.read,
        on_list_prompts=prompts.list,
        on_get_prompt=prompts.get,
        on_completion=Completions(catalog, executor, get_caller).complete,
    )
    SkillsExtension(catalog).add_to(server)
    trace_call = server.middleware[0]

    async def trace_if_collected(ctx: ServerRequestContext[Any], call_next: CallNext) -> HandlerResult:
        """Skip the SDK's tracing, which builds a span for every message, while nothing collects spans."""
        is_collected = not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
        return await (trace_call(ctx, call_next) if is_collected else call_next(ctx))

    server.middleware[0] = trace_if_collected
    server.middleware.insert(1, _explain_errors)  # inside the SDK's tracing, which would record the exception's text
    server.middleware.append(tools.finish_early)
    return server


async def _explain_errors(ctx: ServerRequestContext[Any], call_next: CallNext) -> HandlerResult:
    """Middleware: name the parameter that is wrong, and hide the text of unexpected exceptions.

    The SDK answers "Invalid request parameters" regardless of the cause. On older revisions it sends clients the text
    of an exception, which may contain anything.
    """
    try:
        return await call_next(ctx)
    except ValidationError as error:
        raise MCPError(t.INVALID_PARAMS, _describe_invalid_parameter(error)) from None
    except MCPError as error:
        if error.error.message == _UNEXPLAINED and not is_initialized(ctx):
            raise MCPError(
                t.INVALID_PARAMS, f"{ctx.method} was sent before initialize: send initialize first."
            ) from None
        raise
    except Exception:
        reference = uuid.uuid4().hex[:12]
        logger.exception("%s failed with an unexpected error (reference %s)", ctx.method, reference)
        raise MCPError(t.INTERNAL_ERROR, "Internal server error", {"reference": reference}) from None


def _describe_invalid_parameter(error: ValidationError) -> str:
    """Describe the first invalid parameter without its value, which may be a secret."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    path = ".".join(str(part) for part in first["loc"] if part != "params")
    reason = first["msg"].replace("a valid dictionary", "an object")
    return f"Invalid parameter {path or 'params'}: {reason[:200]}."
