"""The gate: admits a tool, and judges every request of a call before it is sent, as the policy says.

It judges the built request and not the arguments, because the later ids of a call come from answers: links of pages,
handles of jobs, ids that a flow has read. Nothing can be reached that the request itself does not name.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import anyio

from itwin_mcp.capability.catalog import Resource, Tool
from itwin_mcp.capability.operations import Operation
from itwin_mcp.capability.policy_paths import PolicyPaths, shipped_policy_paths
from itwin_mcp.capability.tool_actions import Access, BuiltIn
from itwin_mcp.errors import CallError, ErrorCode, PolicyRefused
from itwin_mcp.executor.arguments import convert_arguments
from itwin_mcp.executor.context import CallContext, Caller
from itwin_mcp.executor.names import extract_id
from itwin_mcp.executor.policy.audit import Audit, Decision, keep_code
from itwin_mcp.executor.policy.request_itwins import ITWIN, Reach, read_reach
from itwin_mcp.executor.policy.rules import NAME_PEOPLE, Budgets, Permit, Policy, Rule, refuse_caller
from itwin_mcp.executor.policy.thing_locations import Locations, iterate_entities
from itwin_mcp.settings import PLATFORM_ORIGIN
from itwin_mcp.upstream.messages import Request, Response, Sender
from itwin_mcp.upstream.origin import parse_origin
from itwin_mcp.upstream.wire_format import read_correlation_id

MAX_THINGS = 100
"""Things of one request whose iTwins are read."""
_ASK = "Ask whoever runs this server if it should be allowed; calling again will not help."


async def admit(context: CallContext) -> CallContext:
    """Stage: refuse a caller who may not use this tool, whatever its arguments. Raises CallError."""
    await context.gate.admit(context.tool, context.given)
    return context


class Gatekeeper:
    """Holds the policy, the audit log, and what is known of the platform; one for the whole server."""

    def __init__(
        self,
        upstream: Sender,
        tools: Mapping[str, Tool],
        policy: Policy | None = None,
        audit: Audit | None = None,
        *,
        place: str | None = None,
        now: Callable[[], float] = anyio.current_time,
        paths: PolicyPaths | None = None,
    ) -> None:
        """`tools` are all that exist. Without a policy the local caller may do everything.

        `place` is what the audit log calls the platform; its origin when None. `paths` is the table that says what
        requests are about; the package's own when None.
        """
        self.upstream = upstream
        self.policy = policy
        self.audit = audit
        self.tools = tools
        self.budgets = Budgets(now)
        self.paths = paths or shipped_policy_paths()
        self.locations = Locations(upstream, self.paths, now)
        self._place = place or upstream.platform
        self._platforms = frozenset({parse_origin(PLATFORM_ORIGIN), parse_origin(upstream.platform)})

    def gate(self, name: str, caller: Caller) -> Gate:
        """Return the gate of one call of a tool, or of one reading of a resource."""
        policy = self.policy
        rule = policy.find_rule(caller) if policy is not None else None
        # Callers who sign in may do nothing without a policy.
        closed = rule is None and (policy is not None or caller.issuer is not None)
        return Gate(self, name, caller, rule, refuse_caller(policy) if closed else None)

    def shows(self, caller: Caller, tool: Tool) -> bool:
        """Return whether a caller may call a tool, and so is shown it."""
        return self.gate(tool.name, caller).refusal_of(tool) is None

    def name_origin(self, origin: str) -> str:
        """Return what the audit log calls an origin."""
        return self._place if self.is_platform(origin) else origin

    def is_platform(self, origin: str) -> bool:
        """Return whether a request to this origin goes to the platform."""
        return parse_origin(origin) in self._platforms


@dataclass(slots=True)
class Tally:
    """What has happened so far in one call."""

    counted: bool = False
    """Whether it was counted: once, however many writes it sends."""
    filtered: bool = False
    """Whether a list of iTwins was cut to those that are allowed."""


@dataclass(frozen=True, slots=True)
class Gate:
    """The gate of one call: `admit` judges the tool, `pass_request` every request.

    It never changes: `under` returns the gate for what was permitted and confirmed since.
    """

    keeper: Gatekeeper
    name: str
    caller: Caller
    rule: Rule | None
    closed: PolicyRefused | None
    """Why the caller may do nothing at all."""
    permit: Permit = field(default_factory=Permit)
    confirmed: str | None = None
    """How the call was confirmed, for the audit log."""
    _call: str = field(default_factory=lambda: secrets.token_hex(4))
    tally: Tally = field(default_factory=Tally)

    @property
    def is_fenced(self) -> bool:
        """Whether the caller is limited to some iTwins."""
        return self.rule is not None and self.rule.itwins is not None

    def under(self, permit: Permit, confirmed: str | None) -> Gate:
        """Return the gate of the same call for what was permitted and how it was confirmed.

        What the policy has confirmed is limited to the iTwins for which it did.
        """
        permit = permit if confirmed == permit.waived else Permit()
        return replace(self, permit=permit, confirmed=confirmed, tally=Tally())

    # --- a tool, before anything is sent --------------------------------------------------------------------------

    async def admit(self, tool: Tool, arguments: Mapping[str, Any]) -> None:
        """Admit a call of this tool. Raises CallError; the refusal of a tool that writes is audited."""
        error = self.refusal_of(tool)
        if error is not None:
            meant, given = find_meant(tool, convert_arguments(tool, arguments), self.keeper.tools)
            gate = self if meant is tool else self.keeper.gate(meant.name, self.caller)
            await gate.note("refused", meant, convert_arguments(meant, given), code=keep_code(error.code))
            raise error

    def refusal_of(self, tool: Tool) -> CallError | None:
        """Return why the caller may not call a tool, whatever its arguments; None if they may."""
        if tool.access > self.caller.access:
            return _insufficient(tool.access)
        if self.closed is not None or self.rule is None:
            return self.closed
        allowed, place = self.rule.allows(tool)
        if allowed:
            return None
        return PolicyRefused(f"The policy does not allow {tool.name} ({place}); nothing was sent.", hint=_ASK)

    def admit_resource(self, resource: Resource) -> None:
        """Admit the reading of a resource. Raises PolicyRefused."""
        if self.closed is not None:
            raise self.closed
        if self.rule is not None:
            allowed, place = self.rule.allows_resource(resource, self.keeper.tools.values())
            if not allowed:
                raise PolicyRefused(
                    f"The policy does not allow the resource {resource.name} ({place}); nothing was sent.", hint=_ASK
                )

    async def authorize(self, tool: Tool, arguments: Mapping[str, Any]) -> Permit:
        """Judge what a call is about, by the ids in its arguments, before the user is asked.

        Raises PolicyRefused, and what the read of an iModel raises.
        """
        rule = self.rule
        if rule is None or not tool.writes:
            return Permit()
        try:
            itwins = frozenset[str]()
            if self.is_fenced or any(tool.name in entry.tools for entry in rule.pre_approved):
                named = list(_find_targets(tool, arguments))
                itwins = await self._require_allowed(
                    frozenset(text for kind, text in named if kind in (ITWIN, "account")),
                    frozenset((kind, text) for kind, text in named if kind in self.keeper.paths.locations),
                    self._allowed(),
                )
            if rule.writes_per_hour is not None:
                self._require_budget(self.keeper.budgets.wait(self._writes, rule.writes_per_hour), rule.writes_per_hour)
        except CallError as error:
            await self.note("refused", tool, arguments, code=keep_code(error.code))
            raise
        for entry in rule.find_pre_approvals(tool, itwins):
            if self.keeper.budgets.wait((self.caller.key, entry), entry.per_hour) <= 0:
                return Permit("policy", entry)
        return Permit()

    @asynccontextmanager
    async def write_locally(self, source: str) -> AsyncIterator[None]:
        """Count and record the writing of a local file with what the tool `source` lists.

        Raises PolicyRefused, AuditFailed, and what is raised within.
        """
        audit = self.keeper.audit
        facts = {
            **self._caller_facts,
            "operation": self.name,
            "origin": "local",
            "targets": [{"type": "tool", "id": source}],
        }
        try:
            self._spend()
        except CallError as error:
            if audit is not None:
                await audit.before("refused", {**facts, "code": keep_code(error.code)})
            raise
        if audit is not None:
            await audit.before("allowed", facts)
        failed: str | None = ErrorCode.CANCELLED
        try:
            yield
            failed = None
        except CallError as error:
            failed = keep_code(error.code)
            raise
        finally:
            if audit is not None:
                await audit.after("done" if failed is None else "failed", {**facts, "code": failed})

    async def note(self, decision: Decision, tool: Tool, arguments: Mapping[str, Any], **facts: Any) -> None:
        """Write a decision on a call of a tool that writes into the audit log. Raises AuditFailed."""
        if self.keeper.audit is not None and (tool.writes or _writes_locally(tool)):
            targets = [{"type": kind, "id": text} for kind, text in _find_targets(tool, arguments)]
            origin = next((operation.origin for operation in tool.operations if operation.method != "GET"), None)
            place = "local" if origin is None else self.keeper.name_origin(origin)
            await self.keeper.audit.before(
                decision, {**self._caller_facts, "origin": place, "targets": targets, **facts}
            )

    # --- each request and its answer ----------------------------------------------------------------------------

    async def pass_request(
        self, operation: Operation, request: Request, send: Callable[[], Awaitable[Response]]
    ) -> Response:
        """Judge a request, audit it if it writes, and send it.

        Raises PolicyRefused, AuditFailed, or what `send` raises.
        """
        changes = request.method != "GET"
        # A read that no fence limits needs no look at what it is about; it is most requests.
        if not changes and not self.is_fenced and self.permit.by is None:
            if self.closed is not None:
                raise self.closed
            return await send()
        reach = self._read_reach(request)
        audit = self.keeper.audit if changes else None
        facts = self._build_facts(operation, request, reach)
        try:
            # The fence comes first: a call that it refuses must not use up the budget.
            await self._fence(request, reach)
            if changes:
                self._spend()
        except CallError as error:
            if audit is not None:
                await audit.before("refused", {**facts, "code": keep_code(error.code)})
            raise
        if audit is None:
            return await send()
        # Written before the request: if the process dies in between, the log says that it may have been carried out.
        await audit.before("allowed", facts)
        try:
            response = await send()
        except CallError as error:
            failed = {
                "status": error.status,
                "code": keep_code(error.code),
                "correlationId": keep_code(error.correlation_id),
            }
            unknown = True if error.members.get("outcomeUnknown") else None
            await audit.after("failed", {**facts, **failed, "outcomeUnknown": unknown})
            raise
        except anyio.get_cancelled_exc_class():
            await audit.after("failed", {**facts, "code": ErrorCode.CANCELLED, "outcomeUnknown": True})
            raise
        done = {"status": response.status, "correlationId": keep_code(read_correlation_id(response))}
        await audit.after("done", {**facts, **done})
        return response

    def names_entry(self, operation: Operation) -> str | None:
        """Return the policy entry under which this caller may know names from an operation; None if they may not.

        The entry is empty without a policy. An entry that does not allow the tools which say who somebody is hides
        the names next to ids, too.
        """
        if self.closed is not None:
            return None
        rule, tools, policy = self.rule, self.keeper.tools, self.keeper.policy
        if rule is None or policy is None:
            return ""
        if self.keeper.is_platform(operation.origin):
            told_by = [tools.get(name) for name in NAME_PEOPLE]
            if not all(tool is not None and rule.allows(tool)[0] for tool in told_by):
                return None
        return str(policy.number_of(rule))  # places may be equal: a whole file may be one line

    async def pass_names_request(
        self, operation: Operation, request: Request, send: Callable[[], Awaitable[Response]]
    ) -> Response:
        """Send a request for names if it may leave.

        The table says which POST of the platform only reads names. It passes a fence, because the ids in it come from
        answers that did; nothing is counted or recorded, as for every read. Any other POST to the platform is refused,
        so that no capability file makes a reading tool write. Raises what `carry` raises.
        """
        reach = self._read_reach(request)
        if reach is not None and reach.kind == "names":
            if self.names_entry(operation) is None:
                raise PolicyRefused("The policy hides who people are; nothing was sent.", hint=_ASK)
            return await send()
        if request.method != "GET" and self.keeper.is_platform(request.origin):
            raise PolicyRefused(f"{operation.key} is not known to read names only; nothing was sent.", hint=_ASK)
        return await self.pass_request(operation, request, send)

    def show(self, request: Request, body: Any) -> Any:
        """Return what the caller may see of an answer: in a list of iTwins only those that are allowed."""
        reach = self._read_reach(request) if self.rule is not None else None
        if reach is None:
            return body
        self.keeper.locations.learn(self.caller, request, body)
        if reach.kind == "creates":
            self.keeper.locations.learn_made(self.caller, body)
        allowed = self._allowed()
        if reach.kind != "lists" or allowed is None:
            return body
        self.tally.filtered = True
        whole = body if isinstance(body, dict) else {}
        kept = [
            one
            for one in iterate_entities(whole, "iTwins")
            if self._is_allowed(self._read_itwin(one.get("id")), allowed)
        ]
        return {"iTwins": kept, "_links": whole.get("_links")}

    def _read_reach(self, request: Request) -> Reach | None:
        return read_reach(self.keeper.paths, request) if self.keeper.is_platform(request.origin) else None

    # --- the fence ----------------------------------------------------------------------------------------------

    async def judge(self, request: Request) -> None:
        """Judge a request without sending it. Raises PolicyRefused, and what the read of an iModel raises."""
        await self._fence(request, self._read_reach(request))

    async def _fence(self, request: Request, reach: Reach | None) -> None:
        rule, allowed = self.rule, self._allowed()
        if self.closed is not None:
            raise self.closed
        # Other origins hold nothing of the platform; which of them are called is up to whoever wrote the file.
        if rule is None or not self.keeper.is_platform(request.origin):
            return
        if reach is not None and reach.kind == "creates" and not rule.create_itwins:
            place = rule.place("create-itwins")
            raise PolicyRefused(f"The policy does not allow making iTwins ({place}); nothing was sent.", hint=_ASK)
        if allowed is None:
            return
        # What the table does not know, or what cannot be read, might reach anything: refused, never passed.
        if reach is None or reach.kind in ("beyond", "names") or not reach.readable:
            raise self._build_refusal(
                "it reaches beyond the iTwins that are allowed, or it cannot be told what it is about"
            )
        if reach.kind == "within" and not (reach.itwins or reach.things):
            raise self._build_refusal("it names no iTwin")
        await self._require_allowed(reach.itwins, reach.things, allowed)

    def _allowed(self) -> frozenset[str] | None:
        """Return the iTwins that this call may reach; None if it may reach all."""
        if self.permit.by is not None:
            return self.permit.by.itwins
        return self.rule.itwins if self.rule is not None else None

    def _is_allowed(self, itwin: str | None, allowed: frozenset[str]) -> bool:
        if itwin is None or itwin in allowed:
            return itwin is not None
        return self.permit.by is None and self.keeper.locations.has_made(self.caller, itwin)

    async def _require_allowed(
        self, itwins: frozenset[str], things: frozenset[tuple[str, str]], allowed: frozenset[str] | None
    ) -> frozenset[str]:
        """Return these iTwins and those of these things.

        Raises PolicyRefused, which never says where a thing of another iTwin is.
        """
        for itwin in sorted(itwins):
            if allowed is not None and not self._is_allowed(itwin, allowed):
                raise self._build_refusal(f"{self._show_id(ITWIN, itwin)} is none of the iTwins that are allowed")
        if len(things) > MAX_THINGS:
            raise self._build_refusal(f"it names {len(things)} things, and the policy looks at {MAX_THINGS} at most")
        around = set[str]()
        for kind, identifier in sorted(things):
            # A path that names a thing does not name its iTwin, so the thing is read from the platform first.
            home = await self.keeper.locations.find(self.caller, kind, identifier)
            if allowed is not None and not self._is_allowed(home, allowed):
                called = self.keeper.paths.locations[kind].called
                what = f"the {called} {self._show_id(kind, identifier)}"
                raise self._build_refusal(f"{what} is in none of the iTwins that are allowed")
            around.add(home)
        return itwins | around

    def _read_itwin(self, value: Any) -> str | None:
        return self.keeper.paths.read_id(ITWIN, value) if isinstance(value, str) else None

    def _show_id(self, kind: str, text: str) -> str:
        return self.keeper.paths.read_id(kind, text) or "what was named"

    def _build_refusal(self, why: str) -> PolicyRefused:
        by = self.permit.by
        assert self.rule is not None
        place = by.place if by is not None else self.rule.place("itwins")
        hint = f"Work in the iTwins that list-itwins gives. {_ASK}"
        return PolicyRefused(f"The policy does not let {self.name} go on: {why} ({place}). It was not sent.", hint=hint)

    # --- budgets ------------------------------------------------------------------------------------------------

    @property
    def _writes(self) -> tuple[str, str]:
        return self.caller.key, "writes"

    def _spend(self) -> None:
        """Count this call once, before its first write: a flow is never stopped half-way."""
        rule = self.rule
        if self.tally.counted or rule is None:
            return
        budgets, by = self.keeper.budgets, self.permit.by
        # Both budgets are checked before either is charged: what is refused costs nothing.
        if by is not None:
            self._require_budget(budgets.wait((self.caller.key, by), by.per_hour), by.per_hour, by.place)
        if rule.writes_per_hour is not None:
            self._require_budget(budgets.take(self._writes, rule.writes_per_hour), rule.writes_per_hour)
        if by is not None:
            budgets.take((self.caller.key, by), by.per_hour)
        self.tally.counted = True

    def _require_budget(self, seconds: float, most: int, place: str | None = None) -> None:
        assert self.rule is not None
        if most == 0:
            place = self.rule.place("writes-per-hour")
            raise PolicyRefused(f"The policy allows this caller no writes ({place}); nothing was sent.", hint=_ASK)
        if seconds > 0:
            where = place or self.rule.place("writes-per-hour")
            raise PolicyRefused(
                f"The policy's budget of {most} an hour is spent ({where}); nothing was sent.",
                hint=f"Wait {seconds:.0f} seconds, or ask whoever runs this server for more.",
                retry_after=float(round(seconds)) or 1.0,
            )

    # --- what is written down -----------------------------------------------------------------------------------

    @property
    def _caller_facts(self) -> dict[str, Any]:
        caller = self.caller
        who = {"key": caller.key, "issuer": caller.issuer, "subject": caller.subject}
        return {
            "call": self._call,
            "caller": {name: value for name, value in who.items() if value is not None},
            "tool": self.name,
        }

    def _build_facts(self, operation: Operation, request: Request, reach: Reach | None) -> dict[str, Any]:
        return {
            **self._caller_facts,
            "operation": operation.key,
            "method": request.method,
            "origin": self.keeper.name_origin(request.origin),
            "targets": [{"type": kind, "id": text} for kind, text in reach.targets] if reach is not None else [],
            "confirmed": self.confirmed,
        }


def find_meant(tool: Tool, given: Mapping[str, Any], tools: Mapping[str, Tool]) -> tuple[Tool, Mapping[str, Any]]:
    """Return the tool that a call runs in the end, and its arguments: of one that runs others, the other."""
    name = given.get("name") if isinstance(tool.action, BuiltIn) and tool.action.runs else None
    inner = tools.get(name) if isinstance(name, str) else None
    if inner is None:
        return tool, given
    arguments = given.get("arguments")
    return inner, arguments if isinstance(arguments, Mapping) else {}


def _insufficient(needed: Access) -> CallError:
    """Return the refusal of a call that the caller's access does not cover; hosting challenges it earlier."""
    return CallError(
        ErrorCode.INSUFFICIENT_SCOPE,
        f"This caller's token does not allow a call that needs {needed.name.lower()} access.",
        status=403,
        hint=f"Sign in to this server again with the scope itwin:{needed.name.lower()}, then call again.",
    )


def _writes_locally(tool: Tool) -> bool:
    """Return whether all that a tool itself writes is a local file."""
    return not tool.operations and any(argument.local == "target" for argument in tool.arguments)


def _find_targets(tool: Tool, arguments: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the ids in the arguments of a call, each with its kind."""
    for one in tool.arguments:
        given = arguments.get(one.name)
        found = extract_id(given, one.entity) if one.entity is not None and isinstance(given, str) else None
        if one.entity is not None and found is not None:
            yield one.entity.kind, found
