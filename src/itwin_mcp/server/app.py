"""Builds the MCP server: the SDK's low-level server with our handlers."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from typing import Any

import mcp.types as t
from mcp.server.caching import CacheHint
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from pydantic import ValidationError

from itwin_mcp import __version__
from itwin_mcp.capability.catalog import Catalog
from itwin_mcp.executor.conversation import LOCAL, Caller
from itwin_mcp.executor.executor import Executor
from itwin_mcp.server.completions import Completions
from itwin_mcp.server.instructions import instructions
from itwin_mcp.server.prompts import Prompts
from itwin_mcp.server.resources import Resources
from itwin_mcp.server.session import Session
from itwin_mcp.server.skills import Skills
from itwin_mcp.server.tools import Tools, Visible, is_initialised

logger = logging.getLogger(__name__)

NAME = "itwin-mcp"
TITLE = "iTwin Platform (unofficial)"
_EARLY = "Invalid request parameters"
"""What the SDK says of a request that comes before `initialize`."""


def build_server(
    catalog: Catalog,
    executor: Executor,
    session: Session,
    caller: Callable[[], Caller] | None = None,
    visible: Visible = lambda _, __: True,
) -> Server[Any]:
    """The MCP server over a catalog; it serves every protocol revision from 2024-11-05 to 2026-07-28.

    `caller` says who sent the request under way; without it there is one caller, who is told the same every time.
    `visible` says which tools a caller is shown.
    """
    shared = caller is None
    caller = caller or (lambda: LOCAL)
    stamp = {"name": NAME, "version": __version__, "title": TITLE}
    tools = Tools(catalog, executor, session, stamp, caller, visible)
    resources = Resources(catalog, executor, caller)
    prompts = Prompts(catalog)
    listed = CacheHint(ttl_ms=300_000, scope="public" if shared else "private")
    server: Server[Any] = Server(
        NAME,
        version=__version__,
        title=TITLE,
        instructions=instructions(catalog),
        cache_hints={
            "server/discover": listed,
            "tools/list": listed,
            "resources/list": listed,
            "resources/templates/list": listed,
            "prompts/list": listed,
        },
        get_tool_input_schema=tools.input_schema,
        on_list_tools=tools.list,
        on_call_tool=tools.call,
        on_list_resources=resources.list,
        on_list_resource_templates=resources.list_templates,
        on_read_resource=resources.read,
        on_list_prompts=prompts.list,
        on_get_prompt=prompts.get,
        on_completion=Completions(catalog, executor, caller).complete,
    )
    Skills(catalog).offer(server)
    server.middleware.insert(1, _explain_errors)  # inside the SDK's traces, which would carry the exception's text
    server.middleware.append(tools.shortcut)
    return server


async def _explain_errors(ctx: ServerRequestContext[Any], call_next: CallNext) -> HandlerResult:
    """Say which parameter is wrong, and replace what escapes from the SDK's own paths.

    The SDK says "Invalid request parameters" whatever is wrong. On older revisions it sends clients the text of an
    exception, which may hold anything.
    """
    try:
        return await call_next(ctx)
    except ValidationError as error:
        raise MCPError(t.INVALID_PARAMS, _invalid_parameter(error)) from None
    except MCPError as error:
        if error.error.message == _EARLY and not is_initialised(ctx):
            raise MCPError(t.INVALID_PARAMS, f"{ctx.method} came before initialize: send initialize first.") from None
        raise
    except Exception:
        reference = uuid.uuid4().hex[:12]
        logger.exception("%s failed with an error that nothing expected (reference %s)", ctx.method, reference)
        raise MCPError(t.INTERNAL_ERROR, "Internal server error", {"reference": reference}) from None


def _invalid_parameter(error: ValidationError) -> str:
    """The first parameter that is wrong, and why; never its value, which may be anything."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"] if part != "params")
    reason = first["msg"].replace("a valid dictionary", "an object")
    return f"Invalid parameter {where or 'params'}: {reason[:200]}."
