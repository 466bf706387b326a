"""Which tools are listed and which may be run, from what was asked for on the command line."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from itwin_mcp.capability.suggestions import find_similar
from itwin_mcp.errors import SettingsError

if TYPE_CHECKING:
    from itwin_mcp.capability.catalog import Tool

ALL = "all"
DYNAMIC = "dynamic"
"""The toolset of the few tools that find, describe and run all the others."""
SESSION = "session"
"""The toolset of the tools that no file could say, because they are about the session itself."""
DEFAULT_TOOLSETS = (SESSION, "itwins", "imodels", "changesets", "named-versions")
"""What is served when nothing was asked for: an engineer's day, in a twentieth of a model's context."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What was asked for. Nothing at all means DEFAULT_TOOLSETS, and whatever does not come from `ours`."""

    toolsets: Collection[str]
    tools: Collection[str]
    exclude: Collection[str]
    read_only: bool
    ours: Collection[str]
    """Our own capability files."""
    hidden: Collection[str] = ()
    """Tools that the policy does not allow."""

    @property
    def usual(self) -> bool:
        """Whether nothing was asked for."""
        return not (self.toolsets or self.tools)

    @property
    def whole(self) -> bool:
        """Whether no toolset is left out, or none that an agent could not ask for."""
        return self.usual or ALL in self.toolsets or DYNAMIC in self.toolsets

    def allows(self, tool: Tool) -> bool:
        """Whether the tool may be run at all."""
        refused = tool.name in self.exclude or tool.name in self.hidden
        return not refused and (tool.annotations.read_only or not self.read_only)

    def explain_absence(self, tool: Tool) -> str:
        """Say why a tool cannot be run, in words that follow "it is not served:"."""
        if tool.name in self.exclude:
            return "--exclude-tools leaves it out"
        if self.read_only and not tool.annotations.read_only:
            return "it changes data, and --read-only leaves it out"
        if tool.name in self.hidden:
            return "the policy does not allow it"
        return f"it is in the toolset {tool.toolset}"

    def lists(self, tool: Tool) -> bool:
        """Whether clients see the tool."""
        if not self.allows(tool):
            return False
        if self.usual:
            foreign = bool(tool.file) and tool.file not in self.ours
            return foreign or tool.toolset in DEFAULT_TOOLSETS
        if ALL in self.toolsets and tool.toolset != DYNAMIC:
            return True
        beside = DYNAMIC in self.toolsets and tool.toolset == SESSION
        return beside or tool.toolset in self.toolsets or tool.name in self.tools

    def reaches(self, tool: Tool) -> bool:
        """Whether the dynamic tools can run the tool; those about the session are listed beside them."""
        return self.allows(tool) and tool.toolset not in (DYNAMIC, SESSION)

    def takes(self, toolset: str) -> bool:
        """Whether the resources and prompts of a toolset are served."""
        return self.whole or toolset in self.toolsets

    def check(self, tools: Mapping[str, Tool], toolsets: Iterable[str]) -> None:
        """Raises SettingsError for a name that does not exist."""
        _known(self.toolsets, {*toolsets, ALL}, "toolset")
        _known(self.tools, tools, "tool")
        _known(self.exclude, tools, "tool")


def _known(names: Iterable[str], known: Iterable[str], noun: str) -> None:
    known = tuple(known)
    for name in names:
        if name not in known:
            close = find_similar(name, known)
            instead = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(sorted(known)) or 'none'}."
            raise SettingsError(f"There is no {noun} {name!r}: {instead}")
