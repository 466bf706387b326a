"""What a call needs of its caller's access, the tools that run other tools included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from itwin_mcp.capability.access import Access
from itwin_mcp.capability.catalog import Catalog, Tool
from itwin_mcp.errors import CallError, PolicyRefused
from itwin_mcp.server.dynamic import RUN_WRITING, RUNS


def to_list(tool: Tool) -> Access:
    """The least with which a tool is of use: the one that runs others may run one that deletes nothing."""
    return Access.WRITE if tool.name == RUN_WRITING else tool.annotations.access


def to_call(catalog: Catalog, name: Any, arguments: Any) -> Access:
    """What this call needs; READ for what will be refused anyhow."""
    tool = catalog.tools.get(name) if isinstance(name, str) else None
    if tool is None:
        return Access.READ
    if tool.name in RUNS and isinstance(arguments, Mapping):
        run = arguments.get("name")
        inner = catalog.reachable.get(run) if isinstance(run, str) else None
        if inner is not None:
            return max(to_list(tool), inner.annotations.access)
    return to_list(tool)


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
