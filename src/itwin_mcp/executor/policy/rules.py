"""What a caller may do: tools, iTwins, writes per hour, and what is pre-approved."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from itwin_mcp.capability.selection import DYNAMIC
from itwin_mcp.errors import PolicyRefused

if TYPE_CHECKING:
    from itwin_mcp.capability.catalog import Resource, Tool
    from itwin_mcp.executor.context import Caller

ALL = "all"
READ_ONLY = "read-only"
TOOLSET = "toolset:"
FENCED = "Of the iTwins, only those that the policy allows are listed."
"""The note on a list, whether or not anything is hidden."""
NAME_PEOPLE = ("get-imodel-user", "list-imodel-users")
"""Tools that say who somebody is by their id: only callers who may use all of them see names next to ids."""


@dataclass(frozen=True, slots=True)
class PreApproval:
    """Tools that need no confirmation for these iTwins, up to a number of times an hour."""

    place: str
    """File and line: `policy.yaml:12`."""
    tools: frozenset[str]
    itwins: frozenset[str]
    per_hour: int


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of a policy file.

    `allow` and `deny` map what was written (`all`, `read-only`, `toolset:NAME`, a tool's name) to its file and line.
    `deny` also has the tools that send the same as a denied one. `itwins` is None if every iTwin is allowed. `places`
    has the file and line of the entry and of its keys.
    """

    places: Mapping[str, str]
    itwins: frozenset[str] | None
    create_itwins: bool
    allow: Mapping[str, str]
    deny: Mapping[str, str]
    writes_per_hour: int | None = None
    pre_approved: tuple[PreApproval, ...] = ()
    issuer: str | None = None
    subject: str | None = None
    groups: frozenset[str] = frozenset()

    def place(self, key: str) -> str:
        """Return file and line of a key of the entry, or of the entry if the key is missing."""
        return self.places.get(key, self.places["entry"])

    def names(self, caller: Caller) -> bool:
        """Return whether this entry names the caller."""
        if caller.issuer is None or caller.issuer != self.issuer:
            return False
        return caller.subject == self.subject if self.subject is not None else not self.groups.isdisjoint(caller.groups)

    def allows(self, tool: Tool) -> tuple[bool, str]:
        """Return whether the tool may be called, and the line that decides it.

        Built-in tools (`who-am-i`, the dynamic tools, which run others by their names) are allowed unless they are
        denied by name. `save-list` is not: it writes a local file.
        """
        words = (tool.name, f"{TOOLSET}{tool.toolset}", *((READ_ONLY,) if tool.annotations.read_only else ()), ALL)
        for word in words:
            if word in self.deny:
                return False, self.deny[word]
        for word in words:
            if word in self.allow:
                return True, self.allow[word]
        return tool.is_built_in and (tool.annotations.read_only or tool.toolset == DYNAMIC), self.place("tools")

    def allows_resource(self, resource: Resource, tools: Iterable[Tool]) -> tuple[bool, str]:
        """Return the same for a resource, which is allowed with its toolset.

        It is also refused if it sends what a denied reading tool sends.
        """
        words = (f"{TOOLSET}{resource.toolset}", READ_ONLY, ALL)
        sent = {operation.key for operation in resource.operations}
        for tool in tools:
            if tool.name in self.deny and tool.annotations.read_only and sent & {one.key for one in tool.operations}:
                return False, self.deny[tool.name]
        for word in words:
            if word in self.deny:
                return False, self.deny[word]
        found = next((self.allow[word] for word in words if word in self.allow), None)
        return found is not None, found or self.place("tools")

    def find_pre_approvals(self, tool: Tool, itwins: frozenset[str]) -> Iterable[PreApproval]:
        """Return the pre-approvals of a call of this tool about these iTwins."""
        return (one for one in self.pre_approved if itwins and tool.name in one.tools and itwins <= one.itwins)


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy file. The first entry that names a caller counts; without one, `default` does."""

    name: str
    """The file's name, without its folder: remote callers read it."""
    default: Rule | None = None
    callers: tuple[Rule, ...] = ()

    def find_rule(self, caller: Caller) -> Rule | None:
        """Return the entry that counts for a caller; None if nothing is allowed to them."""
        return next((rule for rule in self.callers if rule.names(caller)), self.default)

    def number_of(self, rule: Rule) -> int:
        """Return the place of an entry among those of `callers`, from 1; 0 for the default."""
        return self.callers.index(rule) + 1 if rule in self.callers else 0

    def shows(self, caller: Caller, tool: Tool) -> bool:
        """Return whether a caller may call a tool."""
        rule = self.find_rule(caller)
        return rule is not None and rule.allows(tool)[0]

    def allowed_tools(self, caller: Caller, tools: Iterable[Tool]) -> frozenset[str]:
        """Return the names of the tools that a caller may call."""
        return frozenset(tool.name for tool in tools if self.shows(caller, tool))

    def allowed_resources(
        self, caller: Caller, resources: Iterable[Resource], tools: Iterable[Tool]
    ) -> tuple[Resource, ...]:
        """Return the resources that a caller may read, in their order; `tools` are all that exist."""
        rule, known = self.find_rule(caller), tuple(tools)
        if rule is None:
            return ()
        return tuple(resource for resource in resources if rule.allows_resource(resource, known)[0])


@dataclass(frozen=True, slots=True)
class Permit:
    """What the policy permits of one call. `waived` says why nobody needs to be asked."""

    waived: Literal["policy"] | None = None
    by: PreApproval | None = field(default=None)
    """The entry that waives the question."""


def refuse_caller(policy: Policy | None) -> PolicyRefused:
    """Return the refusal of a caller to whom nothing is allowed."""
    if policy is None:
        return PolicyRefused(
            "This server has no policy, so that callers who sign in to it may do nothing; nothing was sent.",
            hint="Whoever runs this server must give it a policy file: ITWIN_MCP_POLICY, or --policy.",
        )
    return PolicyRefused(
        f"No entry of {policy.name} names this caller, and it allows nothing to others (no default); nothing was sent.",
        hint="Calling again will not help. Whoever runs this server must add an entry for this caller to the policy.",
    )


# --- budgets ------------------------------------------------------------------------------------------------------

HOUR = 3600.0
MAX_COUNTERS = 10_000
"""Counters that are kept; beyond it, those that ran out are dropped first."""

Key: TypeAlias = tuple[str, Hashable]
"""Whose counter, and of what."""


class Budgets:
    """Sliding one-hour counters, per caller and kind; in memory, so that each process counts for itself."""

    def __init__(self, now: Callable[[], float]) -> None:
        """`now` returns seconds since any fixed moment."""
        self._now = now
        self._taken: dict[Key, deque[float]] = {}

    def wait(self, key: Key, most: int) -> float:
        """Return the seconds until one more is allowed; 0 if it is allowed now."""
        taken = self._recent(key)
        return 0.0 if len(taken) < most else taken[-most] + HOUR - self._now() if most else HOUR

    def take(self, key: Key, most: int) -> float:
        """Count one more and return 0; if none is left, count nothing and return the seconds until one is."""
        seconds = self.wait(key, most)
        if seconds <= 0:
            self._recent(key).append(self._now())
            return 0.0
        return seconds

    def _recent(self, key: Key) -> deque[float]:
        if key not in self._taken and len(self._taken) >= MAX_COUNTERS:
            ended = self._now() - HOUR
            self._taken = {one: times for one, times in self._taken.items() if times and times[-1] > ended}
        taken = self._taken.setdefault(key, deque())
        while taken and taken[0] <= self._now() - HOUR:
            taken.popleft()
        return taken
