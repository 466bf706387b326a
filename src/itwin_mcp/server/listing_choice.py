"""Which tool `save-list` runs: one that only reads and has a list, and that the caller is shown."""

from __future__ import annotations

from collections.abc import Callable

from itwin_mcp.capability.catalog import Catalog, Tool
from itwin_mcp.capability.suggestions import find_similar
from itwin_mcp.errors import InvalidArguments
from itwin_mcp.executor.saving import SAVE_LIST, has_lists


def choose_listing(catalog: Catalog, shows: Callable[[Tool], bool], name: str) -> Tool:
    """Return the tool of this name. Raises InvalidArguments, which suggests others.

    A tool that the caller is not shown does not exist for them. The dynamic tools show those that they find.
    """
    runnable = {**catalog.reachable, **catalog.tools} if catalog.dynamic else catalog.tools
    shown = {tool.name: tool for tool in runnable.values() if shows(tool)}
    tool = shown.get(name)
    if tool is not None and has_lists(tool):
        return tool
    why = "has no list to save, or changes data" if tool is not None else "is not a tool that is served here"
    lists = [one for one, candidate in shown.items() if has_lists(candidate)]
    close = find_similar(name, lists, 3) or sorted(lists)
    detail = {"code": "InvalidArgument", "target": "tool", "message": f"{name} {why}"}
    raise InvalidArguments(
        f"Nothing was saved: {name} {why}.", hint=f"{SAVE_LIST} takes {', '.join(close)}.", details=[detail]
    )
