"""The stage `authorize`, and `explain_verdict`, which reports what the policy decides about a call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from itwin_mcp.capability.catalog import Tool
from itwin_mcp.errors import CallError, ErrorCode, PolicyRefused
from itwin_mcp.executor.context import CallContext, Caller
from itwin_mcp.executor.policy.gatekeeper import Gatekeeper
from itwin_mcp.upstream.messages import Request, Response


async def authorize(context: CallContext) -> CallContext:
    """Stage: refuse a call that the policy does not allow, before the user is asked. Raises CallError."""
    return replace(context, permit=await context.gate.authorize(context.tool, context.arguments))


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision of the policy about a call.

    `because` explains it in words. `rule` is the line of the entry that applies, None if none names the caller.
    """

    verdict: Literal["allowed", "refused", "unknown"]
    because: str
    rule: str | None = None
    waived: str | None = None
    """Who confirms the call instead of the user, if the tool asks for a confirmation."""

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as the command line prints it."""
        return asdict(self)


class OfflineSender:
    """A sender that sends nothing, so that a verdict which depends on a read is `unknown`."""

    def __init__(self, platform: str) -> None:
        self.platform = platform

    async def send(self, request: Request) -> Response:
        """Raise CallError with the code `Offline`."""
        raise CallError(
            ErrorCode.OFFLINE,
            f"{request.path} would have to be read to know in which iTwin it is.",
            hint="Leave out --offline to read it.",
        )


async def explain_verdict(
    keeper: Gatekeeper, tool: Tool, arguments: Mapping[str, Any], request: Request, caller: Caller
) -> Verdict:
    """Return the verdict on a call with these resolved arguments; `request` is the first request of the call.

    The only request sent is the read that finds out in which iTwin an iModel is.
    """
    rule = keeper.policy.find_rule(caller) if keeper.policy is not None else None
    place = rule.place("entry") if rule is not None else None
    gate = keeper.gate(tool.name, caller)
    try:
        await gate.admit(tool, arguments)
        permit = await gate.authorize(tool, arguments)
        await gate.judge(request)
    except PolicyRefused as error:
        return Verdict("refused", error.message, place)
    except CallError as error:
        return Verdict("unknown", f"{error.message} {error.hint}", place)
    because = [f"{tool.name} is allowed ({rule.allows(tool)[1]})" if rule is not None else "there is no policy"]
    if rule is not None and gate.is_fenced:
        because.append(f"so is every iTwin that it names ({rule.place('itwins')})")
    if rule is not None and rule.writes_per_hour is not None and tool.writes:
        because.append(f"up to {rule.writes_per_hour} writes an hour ({rule.place('writes-per-hour')})")
    if permit.by is not None:
        because.append(f"approved beforehand, up to {permit.by.per_hour} times an hour ({permit.by.place})")
    return Verdict("allowed", "; ".join(because) + ".", place, permit.waived)
