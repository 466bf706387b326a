"""What a call needs of its caller's access, the tools that run other tools included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from itwin_mcp.capability.access import Access
from itwin_mcp.capability.catalog import Catalog, Tool
from itwin_mcp.errors import CallError, PolicyRefused
from itwin_mcp.executor.conversation import Caller
from itwin_mcp.executor.conversion import convert_arguments
from itwin_mcp.executor.executor import Executor
from itwin_mcp.server.dynamic import RUN_WRITING, RUNS


def to_list(tool: Tool) -> Access:
    """The least with which a tool is of use: the one that runs others may run one that deletes nothing."""
    return Access.WRITE if tool.name == RUN_WRITING else tool.annotations.access


def to_call(catalog: Catalog, name: Any, arguments: Any) -> Access:
    """What this call needs; READ for what will be refused anyhow."""
    tool = catalog.tools.get(name) if isinstance(name, str) else None
    if tool is None:
        return Access.READ
    return max(to_list(tool), to_list(_meant(catalog, tool, arguments)[0]))


async def note_refused(
    catalog: Catalog, executor: Executor, code: str, caller: Caller, name: Any, arguments: Any
) -> None:
    """Write into the audit log that a call was refused before it came to the executor."""
    tool = catalog.tools.get(name) if isinstance(name, str) else None
    if tool is not None:
        await executor.note_refused(code, *_meant(catalog, tool, arguments), caller)


def _meant(catalog: Catalog, tool: Tool, arguments: Any) -> tuple[Tool, Mapping[str, Any]]:
    """The tool that a call would run in the end, and its arguments: of one that runs others, the other."""
    given = convert_arguments(tool, arguments) if isinstance(arguments, Mapping) else {}
    run = given.get("name") if tool.name in RUNS else None
    inner = catalog.reachable.get(run) if isinstance(run, str) else None
    if inner is None:
        return tool, given
    within = given.get("arguments")
    return inner, within if isinstance(within, Mapping) else {}


def not_allowed(name: str) -> CallError:
    """The refusal of a tool that the caller is not shown."""
    return PolicyRefused(
        f"The policy of this server does not allow {name} to this caller; nothing was sent.",
        hint="Ask whoever runs this server if it should be allowed; calling again will not help.",
    )


def insufficient(needed: Access) -> CallError:
    """The refusal of a call that the caller's access does not reach; hosting refuses it earlier, by a challenge."""
    return CallError(
        "InsufficientScope",
        f"This caller's token does not allow a call that needs {needed.name.lower()} access.",
        status=403,
        hint=f"Sign in to this server again with the scope itwin:{needed.name.lower()}, then call again.",
    )
