"""The gate: what one call passes before anything leaves for the platform, and its answers pass on the way back.

It reads what is about to be sent, so that no argument, name, link of a page or handle of a job goes round it.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio

from itwin_mcp.capability.catalog import Resource, Tool
from itwin_mcp.capability.plans import Operation
from itwin_mcp.errors import CallError, PolicyRefused
from itwin_mcp.executor.audit import Audit, Decision, plain
from itwin_mcp.executor.budgets import Budgets
from itwin_mcp.executor.conversation import Caller
from itwin_mcp.executor.homes import READS_AN_IMODEL, Homes, Sender, elements, read_id
from itwin_mcp.executor.names import known_id
from itwin_mcp.executor.policy import Permit, Policy, Rule, nobody, writes
from itwin_mcp.executor.reach import Reach, reach_of
from itwin_mcp.upstream.client import DECLARED_PLATFORM
from itwin_mcp.upstream.envelope import correlation_id
from itwin_mcp.upstream.origin import parse_origin
from itwin_mcp.upstream.wire import Request, Response

FENCED = "Of the iTwins, only those that the policy allows are listed."
"""Said of a list, whether or not anything is hidden."""
_ASK = "Ask whoever runs this server if it should be allowed; calling again will not help."


class Gatekeeper:
    """One for the whole server: the policy, the audit log, and what is known of the platform."""

    def __init__(
        self,
        upstream: Sender,
        operations: Mapping[str, Operation],
        tools: Mapping[str, Tool],
        policy: Policy | None = None,
        audit: Audit | None = None,
        *,
        place: str | None = None,
        now: Callable[[], float] = anyio.current_time,
    ) -> None:
        """`operations` and `tools` are all that exist. Without a policy the local caller may do everything.

        `place` is what the audit log calls the platform; its origin when None.
        """
        self.upstream = upstream
        self.policy = policy
        self.audit = audit
        self._place = place or upstream.platform
        self.tools = tools
        self.budgets = Budgets(now)
        self.homes = Homes(upstream, operations.get(READS_AN_IMODEL))

    def gate(self, name: str, caller: Caller) -> Gate:
        """The gate of one call of a tool, or of one reading of a resource."""
        return Gate(self, name, caller)

    def place_of(self, origin: str) -> str:
        """What the audit log calls an origin."""
        return self._place if self.is_platform(origin) else origin

    def is_platform(self, origin: str) -> bool:
        """Whether a request to this origin goes to the platform."""
        return parse_origin(origin) in {parse_origin(DECLARED_PLATFORM), parse_origin(self.upstream.platform)}


@dataclass(slots=True)
class _State:
    """How far a call has come."""

    permit: Permit
    confirmed: str | None = None
    counted: bool = False


class Gate:
    """One call. `admit`, then `permit`, then `begin`; after that its requests are carried."""

    def __init__(self, keeper: Gatekeeper, name: str, caller: Caller) -> None:
        self._keeper = keeper
        self._name = name
        self._caller = caller
        self._state = _State(Permit())
        self._call = secrets.token_hex(4)
        self.filtered = False
        """Whether a list of iTwins was cut to those that are allowed, since the call began to run."""
        policy = keeper.policy
        self._rule: Rule | None = policy.rule_for(caller) if policy is not None else None
        self._shut = (
            nobody(policy) if self._rule is None and (policy is not None or caller.issuer is not None) else None
        )

    @property
    def fenced(self) -> bool:
        """Whether the caller is kept to some iTwins."""
        return self._rule is not None and self._rule.itwins is not None

    # --- before anything is sent --------------------------------------------------------------------------------

    async def admit(self, tool: Tool, arguments: Mapping[str, Any]) -> None:
        """Let a call of this tool in. Raises PolicyRefused."""
        error = self._shut
        if error is None and self._rule is not None:
            allowed, place = self._rule.allows(tool)
            if not allowed:
                error = PolicyRefused(f"The policy does not allow {tool.name} ({place}); nothing was sent.", hint=_ASK)
        if error is not None:
            await self._refuse(error, tool, arguments)

    def admit_resource(self, resource: Resource) -> None:
        """Let the reading of a resource in. Raises PolicyRefused."""
        if self._shut is not None:
            raise self._shut
        if self._rule is not None:
            allowed, place = self._rule.allows_resource(resource, self._keeper.tools.values())
            if not allowed:
                raise PolicyRefused(
                    f"The policy does not allow the resource {resource.name} ({place}); nothing was sent.", hint=_ASK
                )

    async def permit(self, tool: Tool, arguments: Mapping[str, Any]) -> Permit:
        """Judge a call whose arguments are ids, before any person is asked.

        Raises PolicyRefused, and what the read of an iModel raises.
        """
        rule = self._rule
        if rule is None or not writes(tool.operations):
            return Permit()
        try:
            itwins = frozenset[str]()
            if self.fenced or any(tool.name in one.tools for one in rule.pre_approved):
                named = list(_targets(tool, arguments))
                itwins = await self._fit(
                    frozenset(text for kind, text in named if kind in ("itwin", "account")),
                    frozenset(text for kind, text in named if kind == "imodel"),
                    self._allowed(),
                )
            if rule.writes_per_hour is not None:
                self._left(self._keeper.budgets.wait(self._writes, rule.writes_per_hour), rule.writes_per_hour)
        except CallError as error:
            await self._refuse(error, tool, arguments)
        for one in rule.pre_approves(tool, itwins):
            if self._keeper.budgets.wait((self._caller.key, one.place), one.per_hour) <= 0:
                return Permit("policy", one)
        return Permit()

    def begin(self, permit: Permit, confirmed: str | None) -> None:
        """Go on with what was permitted; `confirmed` says how it was confirmed, where it needed to be.

        What the policy has confirmed is kept to the iTwins for which it did.
        """
        self._state = _State(permit if confirmed == permit.waived else Permit(), confirmed)
        self.filtered = False

    @asynccontextmanager
    async def write_locally(self, source: str) -> AsyncIterator[None]:
        """Count and record the writing of a local file with what the tool `source` lists.

        Raises PolicyRefused, AuditFailed, and what is raised within.
        """
        audit = self._keeper.audit
        facts = {**self._who, "operation": self._name, "origin": "local", "targets": [{"type": "tool", "id": source}]}
        try:
            self._spend()
        except CallError as error:
            if audit is not None:
                await audit.before("refused", {**facts, "code": plain(error.code)})
            raise
        if audit is not None:
            await audit.before("allowed", facts)
        failed: str | None = "Cancelled"
        try:
            yield
            failed = None
        except CallError as error:
            failed = plain(error.code)
            raise
        finally:
            if audit is not None:
                await audit.after("done" if failed is None else "failed", {**facts, "code": failed})

    async def note(self, decision: Decision, tool: Tool, arguments: Mapping[str, Any], **facts: Any) -> None:
        """Write a decision on a call of a tool that writes into the audit log. Raises CallError."""
        if self._keeper.audit is not None and (writes(tool.operations) or _writes_here(tool)):
            targets = [{"type": kind, "id": text} for kind, text in _targets(tool, arguments)]
            origin = next((one.origin for one in tool.operations if one.method != "GET"), None)
            place = "local" if origin is None else self._keeper.place_of(origin)
            await self._keeper.audit.before(decision, {**self._who, "origin": place, "targets": targets, **facts})

    # --- each request and its answer ----------------------------------------------------------------------------

    async def carry(self, operation: Operation, request: Request, send: Callable[[], Awaitable[Response]]) -> Response:
        """Send a request if it may leave. Raises PolicyRefused, AuditFailed, and what `send` raises."""
        changes = request.method != "GET"
        if not changes and not self.fenced and self._state.permit.by is None:
            if self._shut is not None:
                raise self._shut
            return await send()
        reach = self._reach(request)
        audit = self._keeper.audit if changes else None
        facts = self._facts(operation, request, reach)
        try:
            await self._fence(request, reach)
            if changes:
                self._spend()
        except CallError as error:
            if audit is not None:
                await audit.before("refused", {**facts, "code": plain(error.code)})
            raise
        if audit is None:
            return await send()
        await audit.before("allowed", facts)
        try:
            response = await send()
        except CallError as error:
            failed = {"status": error.status, "code": plain(error.code), "correlationId": plain(error.correlation_id)}
            unknown = True if error.members.get("outcomeUnknown") else None
            await audit.after("failed", {**facts, **failed, "outcomeUnknown": unknown})
            raise
        except anyio.get_cancelled_exc_class():
            await audit.after("failed", {**facts, "code": "Cancelled", "outcomeUnknown": True})
            raise
        done = {"status": response.status, "correlationId": plain(correlation_id(response))}
        await audit.after("done", {**facts, **done})
        return response

    def show(self, request: Request, body: Any) -> Any:
        """What of an answer may be seen: in a list of iTwins those that are allowed."""
        reach = self._reach(request) if self._rule is not None else None
        if reach is None:
            return body
        self._keeper.homes.learn(request, body)
        if reach.kind == "creates":
            self._keeper.homes.learn_made(self._caller, body)
        allowed = self._allowed()
        if reach.kind != "lists" or allowed is None:
            return body
        self.filtered = True
        whole = body if isinstance(body, dict) else {}
        kept = [one for one in elements(whole, "iTwins") if self._may(read_id(one.get("id")), allowed)]
        return {"iTwins": kept, "_links": whole.get("_links")}

    def _reach(self, request: Request) -> Reach | None:
        return reach_of(request) if self._keeper.is_platform(request.origin) else None

    # --- the fence ----------------------------------------------------------------------------------------------

    async def judge(self, request: Request) -> None:
        """Judge a request without sending it. Raises PolicyRefused, and what the read of an iModel raises."""
        await self._fence(request, self._reach(request))

    async def _fence(self, request: Request, reach: Reach | None) -> None:
        rule, allowed = self._rule, self._allowed()
        if self._shut is not None:
            raise self._shut
        if rule is None or not self._keeper.is_platform(request.origin):
            return
        if reach is not None and reach.kind == "creates" and not rule.create_itwins:
            place = rule.place("create-itwins")
            raise PolicyRefused(f"The policy does not allow making iTwins ({place}); nothing was sent.", hint=_ASK)
        if allowed is None:
            return
        if reach is None or reach.kind == "beyond" or not reach.readable:
            raise self._refused("it reaches beyond the iTwins that are allowed, or it cannot be told what it is about")
        if reach.kind == "within" and not (reach.itwins or reach.imodels):
            raise self._refused("it names no iTwin")
        await self._fit(reach.itwins, reach.imodels, allowed)

    def _allowed(self) -> frozenset[str] | None:
        """The iTwins of this call; None where there is no fence."""
        if self._state.permit.by is not None:
            return self._state.permit.by.itwins
        return self._rule.itwins if self._rule is not None else None

    def _may(self, itwin: str | None, allowed: frozenset[str]) -> bool:
        if itwin is None or itwin in allowed:
            return itwin is not None
        return self._state.permit.by is None and self._keeper.homes.has_made(self._caller, itwin)

    async def _fit(
        self, itwins: frozenset[str], imodels: frozenset[str], allowed: frozenset[str] | None
    ) -> frozenset[str]:
        """All iTwins that these are and are in. Raises PolicyRefused, which never says where another iModel is."""
        for itwin in sorted(itwins):
            if allowed is not None and not self._may(itwin, allowed):
                raise self._refused(f"{_shown(itwin, 'itwin')} is none of the iTwins that are allowed")
        around = set[str]()
        for imodel in sorted(imodels):
            home = await self._keeper.homes.find(imodel)
            if allowed is not None and not self._may(home, allowed):
                raise self._refused(f"the iModel {_shown(imodel, 'imodel')} is in none of the iTwins that are allowed")
            around.add(home)
        return itwins | around

    def _refused(self, why: str) -> PolicyRefused:
        by = self._state.permit.by
        assert self._rule is not None
        place = by.place if by is not None else self._rule.place("itwins")
        hint = f"Work in the iTwins that list-itwins gives. {_ASK}"
        return PolicyRefused(
            f"The policy does not let {self._name} go on: {why} ({place}). It was not sent.", hint=hint
        )

    # --- budgets ------------------------------------------------------------------------------------------------

    @property
    def _writes(self) -> tuple[str, str]:
        return self._caller.key, "writes"

    def _spend(self) -> None:
        """Count this call, once, when its first write is about to leave: a flow is never stopped half-way."""
        state, rule = self._state, self._rule
        if state.counted or rule is None:
            return
        budgets, by = self._keeper.budgets, state.permit.by
        if by is not None:
            self._left(budgets.wait((self._caller.key, by.place), by.per_hour), by.per_hour, by.place)
        if rule.writes_per_hour is not None:
            self._left(budgets.take(self._writes, rule.writes_per_hour), rule.writes_per_hour)
        if by is not None:
            budgets.take((self._caller.key, by.place), by.per_hour)
        state.counted = True

    def _left(self, seconds: float, most: int, place: str | None = None) -> None:
        assert self._rule is not None
        if most == 0:
            place = self._rule.place("writes-per-hour")
            raise PolicyRefused(f"The policy allows this caller no writes ({place}); nothing was sent.", hint=_ASK)
        if seconds > 0:
            where = place or self._rule.place("writes-per-hour")
            raise PolicyRefused(
                f"The policy's budget of {most} an hour is spent ({where}); nothing was sent.",
                hint=f"Wait {seconds:.0f} seconds, or ask whoever runs this server for more.",
                retry_after=float(round(seconds)) or 1.0,
            )

    # --- what is written down -----------------------------------------------------------------------------------

    async def _refuse(self, error: CallError, tool: Tool, arguments: Mapping[str, Any]) -> None:
        await self.note("refused", tool, arguments, code=plain(error.code))
        raise error

    @property
    def _who(self) -> dict[str, Any]:
        caller = self._caller
        who = {"key": caller.key, "issuer": caller.issuer, "subject": caller.subject}
        return {
            "call": self._call,
            "caller": {name: value for name, value in who.items() if value is not None},
            "tool": self._name,
        }

    def _facts(self, operation: Operation, request: Request, reach: Reach | None) -> dict[str, Any]:
        return {
            **self._who,
            "operation": operation.key,
            "method": request.method,
            "origin": self._keeper.place_of(request.origin),
            "targets": [{"type": kind, "id": text} for kind, text in reach.targets] if reach is not None else [],
            "confirmed": self._state.confirmed,
        }


def _writes_here(tool: Tool) -> bool:
    """Whether all that a tool itself writes is a local file."""
    return not tool.operations and any(argument.local == "target" for argument in tool.arguments)


def _targets(tool: Tool, arguments: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The ids among the arguments of a call, each with its kind."""
    for one in tool.arguments:
        given = arguments.get(one.name)
        found = known_id(given, one.entity) if one.entity is not None and isinstance(given, str) else None
        if one.entity is not None and found is not None:
            yield one.entity, found


def _shown(text: str, kind: str) -> str:
    return known_id(text, kind) or "what was named"
