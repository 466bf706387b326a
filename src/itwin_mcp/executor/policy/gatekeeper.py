"""Checks a tool, and every request of a call before it is sent, against the policy.

The built request is judged, not the arguments, because later ids of a call come from answers: links of pages, handles
of jobs, ids that a flow has read. A request cannot reach anything that it does not name itself.
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
"""The maximum number of things in one request whose iTwins are read."""
_ASK = "Ask whoever runs this server if it should be allowed; calling again will not help."


async def admit(context: CallContext) -> CallContext:
    """Stage: refuse a caller who may not use this tool, whatever its arguments. Raises CallError."""
    await context.gate.admit(context.tool, context.given)
    return context


class Gatekeeper:
    """Holds the policy, the budgets, the audit log and the cached locations. A server has one."""

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
        """`tools` are all existing tools. Without a policy the local caller may do everything.

        `place` is the name of the platform in the audit log, by default its origin. `paths` is the table that says
        what requests are about, by default that of the package.
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
        """Return whether a caller may call a tool. Other tools are not listed for them."""
        return self.gate(tool.name, caller).find_refusal(tool) is None

    def name_origin(self, origin: str) -> str:
        """Return the name of an origin in the audit log."""
        return self._place if self.is_platform(origin) else origin

    def is_platform(self, origin: str) -> bool:
        """Return whether a request to this origin goes to the platform."""
        return parse_origin(origin) in self._platforms


@dataclass(slots=True)
class Tally:
    """The state of one call, shared by all its requests."""

    counted: bool = False
    """Whether the call was counted against its budgets. It is counted once, however many writes it sends."""
    filtered: bool = False
    """Whether a list of iTwins was filtered by the policy."""


@dataclass(frozen=True, slots=True)
class Gate:
    """Checks one call: `admit` judges its tool, `pass_request` each of its requests.

    A gate is immutable: `under` returns another one after the call was permitted and confirmed.
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
        """Whether the policy limits the caller to some iTwins."""
        return self.rule is not None and self.rule.itwins is not None

    def under(self, permit: Permit, confirmed: str | None) -> Gate:
        """Return the gate of the same call once it is permitted and confirmed.

        A call that the policy confirmed is limited to the iTwins of that pre-approval.
        """
        permit = permit if confirmed == permit.waived else Permit()
        return replace(self, permit=permit, confirmed=confirmed, tally=Tally())

    # --- a tool, before anything is sent --------------------------------------------------------------------------

    async def admit(self, tool: Tool, arguments: Mapping[str, Any]) -> None:
        """Raise CallError if the caller may not call this tool. The refusal of a tool that writes is audited."""
        error = self.find_refusal(tool)
        if error is not None:
            final, final_arguments = find_meant(tool, convert_arguments(tool, arguments), self.keeper.tools)
            gate = self if final is tool else self.keeper.gate(final.name, self.caller)
            await gate.note("refused", final, convert_arguments(final, final_arguments), code=keep_code(error.code))
            raise error

    def find_refusal(self, tool: Tool) -> CallError | None:
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
        """Raise PolicyRefused if the caller may not read this resource."""
        if self.closed is not None:
            raise self.closed
        if self.rule is not None:
            allowed, place = self.rule.allows_resource(resource, self.keeper.tools.values())
            if not allowed:
                raise PolicyRefused(
                    f"The policy does not allow the resource {resource.name} ({place}); nothing was sent.", hint=_ASK
                )

    async def authorize(self, tool: Tool, arguments: Mapping[str, Any]) -> Permit:
        """Check the ids in the arguments of a call and its budget, before the user is asked to confirm it.

        Raises: PolicyRefused, or CallError if a thing cannot be read to find out in which iTwin it is.
        """
        rule = self.rule
        if rule is None or not tool.writes:
            return Permit()
        try:
            itwins = frozenset[str]()
            if self.is_fenced or any(tool.name in entry.tools for entry in rule.pre_approved):
                targets = list(_find_targets(tool, arguments))
                itwins = await self._require_allowed(
                    frozenset(identifier for kind, identifier in targets if kind in (ITWIN, "account")),
                    frozenset(target for target in targets if target[0] in self.keeper.paths.locations),
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
        """Count and audit the writing of a local file with the items that the tool `source` lists.

        Raises PolicyRefused, AuditFailed, and any error of the body of the `async with`.
        """
        audit = self.keeper.audit
        facts = {
            **self._caller_facts,
            "operation": self.name,
            "origin": "local",
            "targets": [{"type": "tool", "id": source}],
        }
        async with _audit_refusal(audit, facts):
            self._spend()
        if audit is None:
            yield
            return
        await audit.before("allowed", facts)
        code: str | None = ErrorCode.CANCELLED
        try:
            yield
            code = None
        except CallError as error:
            code = keep_code(error.code)
            raise
        finally:
            await audit.after("done" if code is None else "failed", {**facts, "code": code})

    async def note(self, decision: Decision, tool: Tool, arguments: Mapping[str, Any], **facts: Any) -> None:
        """Audit a decision on a call, if its tool writes. Raises AuditFailed."""
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
        # Most requests are reads without policy limits. What they are about does not matter.
        if not changes and not self.is_fenced and self.permit.by is None:
            if self.closed is not None:
                raise self.closed
            return await send()
        reach = self._read_reach(request)
        audit = self.keeper.audit if changes else None
        facts = self._build_facts(operation, request, reach)
        async with _audit_refusal(audit, facts):
            # The limits come first: a call that they refuse must not use up the budget.
            await self._check_limits(request, reach)
            if changes:
                self._spend()
        if audit is None:
            return await send()
        # Written before the request: if the process dies in between, the log shows that the write may have happened.
        await audit.before("allowed", facts)
        try:
            response = await send()
        except CallError as error:
            failure = {
                "status": error.status,
                "code": keep_code(error.code),
                "correlationId": keep_code(error.correlation_id),
                "outcomeUnknown": True if error.members.get("outcomeUnknown") else None,
            }
            await audit.after("failed", {**facts, **failure})
            raise
        except anyio.get_cancelled_exc_class():
            await audit.after("failed", {**facts, "code": ErrorCode.CANCELLED, "outcomeUnknown": True})
            raise
        correlation_id = keep_code(read_correlation_id(response))
        await audit.after("done", {**facts, "status": response.status, "correlationId": correlation_id})
        return response

    def names_entry(self, operation: Operation) -> str | None:
        """Return the number of the policy entry that lets this caller see names from an operation.

        Return None if no entry does, and an empty text without a policy. An entry that does not allow the tools that
        describe users also hides the names next to ids.
        """
        if self.closed is not None:
            return None
        rule, tools, policy = self.rule, self.keeper.tools, self.keeper.policy
        if rule is None or policy is None:
            return ""
        if self.keeper.is_platform(operation.origin):
            people_tools = [tools.get(name) for name in NAME_PEOPLE]
            if not all(tool is not None and rule.allows(tool)[0] for tool in people_tools):
                return None
        return str(policy.number_of(rule))  # not the line, because a whole file may be one line

    async def pass_names_request(
        self, operation: Operation, request: Request, send: Callable[[], Awaitable[Response]]
    ) -> Response:
        """Send a request for names if the policy allows it.

        The table of paths says which POST of the platform only reads names. Policy limits do not apply to it, because
        its ids come from answers that they allowed. It is not counted or audited, as no read is. Any other POST to the
        platform is refused, so that no capability file can make a reading tool write.

        Raises PolicyRefused, or what `send` raises.
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
        """Return the answer that the caller may see: a list of iTwins has only those that are allowed."""
        reach = self._read_reach(request) if self.rule is not None else None
        if reach is None:
            return body
        self.keeper.locations.learn(self.caller, request, body)
        if reach.kind == "creates":
            self.keeper.locations.learn_created(self.caller, body)
        allowed = self._allowed()
        if reach.kind != "lists" or allowed is None:
            return body
        self.tally.filtered = True
        itwins = [
            itwin
            for itwin in iterate_entities(body, "iTwins")
            if isinstance(identifier := itwin.get("id"), str)
            and self._is_allowed(self.keeper.paths.read_id(ITWIN, identifier), allowed)
        ]
        return {"iTwins": itwins, "_links": body.get("_links") if isinstance(body, dict) else None}

    def _read_reach(self, request: Request) -> Reach | None:
        return read_reach(self.keeper.paths, request) if self.keeper.is_platform(request.origin) else None

    # --- limits to some iTwins ----------------------------------------------------------------------------------

    async def judge(self, request: Request) -> None:
        """Check a request against the policy limits without sending it.

        Raises: PolicyRefused, or CallError if a thing cannot be read to find out in which iTwin it is.
        """
        await self._check_limits(request, self._read_reach(request))

    async def _check_limits(self, request: Request, reach: Reach | None) -> None:
        rule, allowed = self.rule, self._allowed()
        if self.closed is not None:
            raise self.closed
        # Other origins hold nothing of the platform. The author of a capability file decides which are called.
        if rule is None or not self.keeper.is_platform(request.origin):
            return
        if reach is not None and reach.kind == "creates" and not rule.create_itwins:
            place = rule.place("create-itwins")
            raise PolicyRefused(f"The policy does not allow making iTwins ({place}); nothing was sent.", hint=_ASK)
        if allowed is None:
            return
        # A request that the table lacks, or whose body cannot be read, might reach anything. So it is refused.
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
        # A pre-approval holds for its own iTwins only, not for those that the caller created.
        return self.permit.by is None and self.keeper.locations.has_created(self.caller, itwin)

    async def _require_allowed(
        self, itwins: frozenset[str], things: frozenset[tuple[str, str]], allowed: frozenset[str] | None
    ) -> frozenset[str]:
        """Return these iTwins and the iTwins of these things.

        Raises PolicyRefused if one is not allowed. The error never says in which iTwin a refused thing is.
        """
        for itwin in sorted(itwins):
            if allowed is not None and not self._is_allowed(itwin, allowed):
                raise self._build_refusal(f"{self._show_id(ITWIN, itwin)} is none of the iTwins that are allowed")
        if len(things) > MAX_THINGS:
            raise self._build_refusal(f"it names {len(things)} things, and the policy looks at {MAX_THINGS} at most")
        containers = set[str]()
        for kind, identifier in sorted(things):
            # A path that names a thing does not name its iTwin, so the thing is read from the platform first.
            container = await self.keeper.locations.find(self.caller, kind, identifier)
            if allowed is not None and not self._is_allowed(container, allowed):
                thing = f"the {self.keeper.paths.locations[kind].called} {self._show_id(kind, identifier)}"
                raise self._build_refusal(f"{thing} is in none of the iTwins that are allowed")
            containers.add(container)
        return itwins | containers

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
        """Count this call once, before its first write, so that a flow is never stopped half-way.

        Raises PolicyRefused if a budget is spent.
        """
        rule = self.rule
        if self.tally.counted or rule is None:
            return
        budgets, by = self.keeper.budgets, self.permit.by
        # Both budgets are checked before either is charged, so that a refused call is not counted.
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

    # --- facts for the audit log --------------------------------------------------------------------------------

    @property
    def _caller_facts(self) -> dict[str, Any]:
        caller = {"key": self.caller.key, "issuer": self.caller.issuer, "subject": self.caller.subject}
        return {
            "call": self._call,
            "caller": {name: value for name, value in caller.items() if value is not None},
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


@asynccontextmanager
async def _audit_refusal(audit: Audit | None, facts: Mapping[str, Any]) -> AsyncIterator[None]:
    """Write a CallError of the body of the `async with` into the audit log as a refusal, and raise it again."""
    try:
        yield
    except CallError as error:
        if audit is not None:
            await audit.before("refused", {**facts, "code": keep_code(error.code)})
        raise


def find_meant(tool: Tool, arguments: Mapping[str, Any], tools: Mapping[str, Tool]) -> tuple[Tool, Mapping[str, Any]]:
    """Return the tool that a call finally runs, and its arguments.

    This is the tool itself, except for a dynamic tool, which runs another one by its name.
    """
    name = arguments.get("name") if isinstance(tool.action, BuiltIn) and tool.action.runs else None
    inner = tools.get(name) if isinstance(name, str) else None
    if inner is None:
        return tool, arguments
    inner_arguments = arguments.get("arguments")
    return inner, inner_arguments if isinstance(inner_arguments, Mapping) else {}


def _insufficient(needed: Access) -> CallError:
    """Return the refusal of a call that the caller's access does not cover; hosting challenges it earlier."""
    return CallError(
        ErrorCode.INSUFFICIENT_SCOPE,
        f"This caller's token does not allow a call that needs {needed.name.lower()} access.",
        status=403,
        hint=f"Sign in to this server again with the scope itwin:{needed.name.lower()}, then call again.",
    )


def _writes_locally(tool: Tool) -> bool:
    """Return whether a tool writes a local file and nothing on the platform."""
    return not tool.operations and any(argument.local == "target" for argument in tool.arguments)


def _find_targets(tool: Tool, arguments: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the ids in the arguments of a call, each with its kind."""
    for argument in tool.arguments:
        entity, value = argument.entity, arguments.get(argument.name)
        identifier = extract_id(value, entity) if entity is not None and isinstance(value, str) else None
        if entity is not None and identifier is not None:
            yield entity.kind, identifier
