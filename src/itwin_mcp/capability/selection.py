"""Selection of the tools to list and the tools that may be run, by the options of the command line."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from itwin_mcp.errors import SettingsError
from itwin_mcp.text import find_similar

if TYPE_CHECKING:
    from itwin_mcp.capability.catalog import Tool

ALL = "all"
DYNAMIC = "dynamic"
"""The toolset with the tools that find, describe and run all others."""
SESSION = "session"
"""The toolset of the built-in tools about the session."""
DEFAULT_TOOLSETS = (SESSION, "itwins", "imodels", "changesets", "named-versions")
"""The toolsets that are served by default. They cover common tasks and fit into a model's context."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The options. Without toolsets and tools, they select DEFAULT_TOOLSETS, and all tools of files not in `ours`."""

    toolsets: Collection[str]
    tools: Collection[str]
    exclude: Collection[str]
    read_only: bool
    ours: Collection[str]
    """The paths of our own capability files."""
    hidden: Collection[str] = ()
    """Tools that the policy does not allow."""

    @property
    def usual(self) -> bool:
        """Return whether neither toolsets nor tools were given."""
        return not (self.toolsets or self.tools)

    def allows(self, tool: Tool) -> bool:
        """Return whether the tool may be run."""
        refused = tool.name in self.exclude or tool.name in self.hidden
        return not refused and (tool.annotations.read_only or not self.read_only)

    def explain_absence(self, tool: Tool) -> str:
        """Return why a tool cannot be run, to complete the sentence "It is not served here: …"."""
        if tool.name in self.exclude:
            return "--exclude-tools leaves it out"
        if self.read_only and not tool.annotations.read_only:
            return "it changes data, and --read-only leaves it out"
        if tool.name in self.hidden:
            return "the policy does not allow it"
        return f"it is in the toolset {tool.toolset}"

    def lists(self, tool: Tool) -> bool:
        """Return whether clients see the tool."""
        if not self.allows(tool):
            return False
        if self.usual:
            is_from_user = bool(tool.file) and tool.file not in self.ours
            return is_from_user or tool.toolset in DEFAULT_TOOLSETS
        if ALL in self.toolsets and tool.toolset != DYNAMIC:
            return True
        joins_dynamic = DYNAMIC in self.toolsets and tool.toolset == SESSION
        return joins_dynamic or tool.toolset in self.toolsets or tool.name in self.tools

    def reaches(self, tool: Tool) -> bool:
        """Return whether the dynamic tools can run the tool. They run no session tools, which are always listed too."""
        return self.allows(tool) and tool.toolset not in (DYNAMIC, SESSION)

    def takes(self, toolset: str) -> bool:
        """Return whether the resources and prompts of a toolset are served."""
        return self.usual or bool({ALL, DYNAMIC, toolset}.intersection(self.toolsets))

    def check(self, tools: Mapping[str, Tool], toolsets: Iterable[str]) -> None:
        """Check that all names exist.

        Raises:
            SettingsError: A name does not exist.
        """
        _check_names(self.toolsets, {*toolsets, ALL}, "toolset")
        _check_names(self.tools, tools, "tool")
        _check_names(self.exclude, tools, "tool")


def _check_names(names: Iterable[str], candidates: Collection[str], noun: str) -> None:
    for name in names:
        if name not in candidates:
            close = find_similar(name, candidates)
            instead = (
                f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(sorted(candidates)) or 'none'}."
            )
            raise SettingsError(f"There is no {noun} {name!r}: {instead}")
