"""What a caller may do: tools, iTwins, writes per hour, and what is pre-approved."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
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
"""The note on every list that the policy limits, even if nothing is hidden."""
NAME_PEOPLE = ("get-imodel-user", "list-imodel-users")
"""Tools that describe the user of an id. Only callers who may use all of them see names next to ids."""


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
        default = tool.is_built_in and (tool.annotations.read_only or tool.toolset == DYNAMIC)
        return self._decide(words, default=default)

    def allows_resource(self, resource: Resource, tools: Iterable[Tool]) -> tuple[bool, str]:
        """Return whether the resource may be read, and the line that decides it.

        A resource is allowed with its toolset, unless it sends an operation of a denied reading tool.
        """
        keys = {operation.key for operation in resource.operations}
        for tool in tools:
            if tool.name in self.deny and tool.annotations.read_only and keys & {call.key for call in tool.operations}:
                return False, self.deny[tool.name]
        return self._decide((f"{TOOLSET}{resource.toolset}", READ_ONLY, ALL), default=False)

    def _decide(self, words: Sequence[str], *, default: bool) -> tuple[bool, str]:
        """Return whether the first of these words that the entry has is allowed, and its line; `deny` comes first."""
        for allowed, entries in ((False, self.deny), (True, self.allow)):
            for word in words:
                if word in entries:
                    return allowed, entries[word]
        return default, self.place("tools")

    def find_pre_approvals(self, tool: Tool, itwins: frozenset[str]) -> Iterable[PreApproval]:
        """Return the pre-approvals of a call of this tool about these iTwins."""
        return (entry for entry in self.pre_approved if itwins and tool.name in entry.tools and itwins <= entry.itwins)


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
        """Return the number of an entry in `callers`, counted from 1; 0 for the default."""
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
        """Return the resources that a caller may read, in their order; `tools` are all existing tools."""
        rule, all_tools = self.find_rule(caller), tuple(tools)
        if rule is None:
            return ()
        return tuple(resource for resource in resources if rule.allows_resource(resource, all_tools)[0])


@dataclass(frozen=True, slots=True)
class Permit:
    """The permission for one call. `waived` says who confirms it instead of the user; None if the user is asked."""

    waived: Literal["policy"] | None = None
    by: PreApproval | None = None
    """The pre-approval that waives the question."""


def refuse_caller(policy: Policy | None) -> PolicyRefused:
    """Return the refusal of a caller who may do nothing."""
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
"""If there are this many counters, those without an event in the last hour are dropped."""

Key: TypeAlias = tuple[str, Hashable]
"""The caller, and what is counted: `writes`, or a pre-approval."""


class Budgets:
    """Sliding one-hour counters, per caller and kind. They are in memory, so each process counts separately."""

    def __init__(self, now: Callable[[], float]) -> None:
        """`now` returns seconds since any fixed moment."""
        self._now = now
        self._times: dict[Key, deque[float]] = {}

    def wait(self, key: Key, limit: int) -> float:
        """Return the seconds until another event is allowed; 0 if it is allowed now."""
        times = self._find_recent(key)
        if len(times) < limit:
            return 0.0
        return times[-limit] + HOUR - self._now() if limit else HOUR

    def take(self, key: Key, limit: int) -> float:
        """Count an event and return 0. If the budget is spent, return the seconds until another one is allowed."""
        seconds = self.wait(key, limit)
        if seconds > 0:
            return seconds
        self._find_recent(key).append(self._now())
        return 0.0

    def _find_recent(self, key: Key) -> deque[float]:
        """Return the times of the last hour, the oldest first."""
        start = self._now() - HOUR
        if key not in self._times and len(self._times) >= MAX_COUNTERS:
            self._times = {other: times for other, times in self._times.items() if times and times[-1] > start}
        times = self._times.setdefault(key, deque())
        while times and times[0] <= start:
            times.popleft()
        return times
