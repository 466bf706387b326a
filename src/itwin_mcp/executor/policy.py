"""What a caller may do: tools, iTwins, writes per hour, and what is approved beforehand; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from itwin_mcp.capability.selection import DYNAMIC
from itwin_mcp.errors import PolicyRefused
from itwin_mcp.executor.conversation import Caller

if TYPE_CHECKING:
    from itwin_mcp.capability.catalog import Resource, Tool
    from itwin_mcp.capability.plans import Operation

ALL = "all"
READ_ONLY = "read-only"
TOOLSET = "toolset:"


@dataclass(frozen=True, slots=True)
class PreApproval:
    """Tools that need no person for these iTwins, so many times an hour."""

    place: str
    """Where it stands: `policy.yaml:12`."""
    tools: frozenset[str]
    itwins: frozenset[str]
    per_hour: int


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of a policy file.

    `allow` and `deny` hold what was written (`all`, `read-only`, `toolset:NAME`, a tool's name) and the place of each,
    `deny` also the tools that send the same as one that is denied; `itwins` is None where every iTwin is allowed.
    `places` says where the entry, `itwins`, `tools` … stand.
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
        """Where a key of the entry stands, or the entry itself where the key was left out."""
        return self.places.get(key, self.places["entry"])

    def names(self, caller: Caller) -> bool:
        """Whether this entry is about the caller."""
        if caller.issuer is None or caller.issuer != self.issuer:
            return False
        return caller.subject == self.subject if self.subject is not None else not self.groups.isdisjoint(caller.groups)

    def allows(self, tool: Tool) -> tuple[bool, str]:
        """Whether the tool may be called, and the place that says so.

        What is about the session itself (`who-am-i`, the dynamic tools, which run others by their names) is allowed
        unless it is denied by name. `save-list` is not: it writes a local file.
        """
        words = (tool.name, f"{TOOLSET}{tool.toolset}", *((READ_ONLY,) if tool.annotations.read_only else ()), ALL)
        for word in words:
            if word in self.deny:
                return False, self.deny[word]
        for word in words:
            if word in self.allow:
                return True, self.allow[word]
        return not tool.file and (tool.annotations.read_only or tool.toolset == DYNAMIC), self.place("tools")

    def allows_resource(self, resource: Resource, tools: Iterable[Tool]) -> tuple[bool, str]:
        """The same for a resource, which goes with its toolset.

        It is refused as well where it would send what a reading tool sends that is denied by name.
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

    def pre_approves(self, tool: Tool, itwins: frozenset[str]) -> Iterable[PreApproval]:
        """What approves a call of this tool about these iTwins beforehand."""
        return (one for one in self.pre_approved if itwins and tool.name in one.tools and itwins <= one.itwins)


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy file. The first entry that names a caller counts, in the order of the file; without one, `default`."""

    name: str
    """The file's name, without its folder: remote callers read it."""
    default: Rule | None = None
    callers: tuple[Rule, ...] = ()

    def rule_for(self, caller: Caller) -> Rule | None:
        """The entry that counts for a caller; None where nothing is allowed to them."""
        return next((rule for rule in self.callers if rule.names(caller)), self.default)

    def shows(self, caller: Caller, tool: Tool) -> bool:
        """Whether a caller may call a tool."""
        rule = self.rule_for(caller)
        return rule is not None and rule.allows(tool)[0]

    def allowed_tools(self, caller: Caller, tools: Iterable[Tool]) -> frozenset[str]:
        """The names of the tools that a caller may call."""
        return frozenset(tool.name for tool in tools if self.shows(caller, tool))

    def allowed_resources(
        self, caller: Caller, resources: Iterable[Resource], tools: Iterable[Tool]
    ) -> tuple[Resource, ...]:
        """The resources that a caller may read, in their order; `tools` are all that there are."""
        rule, known = self.rule_for(caller), tuple(tools)
        if rule is None:
            return ()
        return tuple(resource for resource in resources if rule.allows_resource(resource, known)[0])


@dataclass(frozen=True, slots=True)
class Permit:
    """A call may go on to the person. `waived` says that nobody need be asked, and why."""

    waived: Literal["policy"] | None = None
    by: PreApproval | None = field(default=None)
    """What waives it."""


def nobody(policy: Policy | None) -> PolicyRefused:
    """The refusal of a caller to whom nothing is allowed."""
    if policy is None:
        return PolicyRefused(
            "This server has no policy, so that callers who sign in to it may do nothing; nothing was sent.",
            hint="Whoever runs this server must give it a policy file: ITWIN_MCP_POLICY, or --policy.",
        )
    return PolicyRefused(
        f"No entry of {policy.name} names this caller, and it allows nothing to others (no default); nothing was sent.",
        hint="Calling again will not help. Whoever runs this server must add an entry for this caller to the policy.",
    )


def writes(operations: Iterable[Operation]) -> bool:
    """Whether any of these operations changes something."""
    return any(operation.method != "GET" for operation in operations)
