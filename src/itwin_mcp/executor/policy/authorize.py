"""The stage `authorize`, and the same explained: what the policy says of a call whose arguments are ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from itwin_mcp.capability.catalog import Tool
from itwin_mcp.errors import CallError, ErrorCode, PolicyRefused
from itwin_mcp.executor.context import CallContext, Caller
from itwin_mcp.executor.policy.gatekeeper import Gatekeeper
from itwin_mcp.upstream.messages import Request, Response


async def authorize(context: CallContext) -> CallContext:
    """Refuse a call about something that the policy does not allow, before anybody is asked. Raises CallError."""
    return replace(context, permit=await context.gate.authorize(context.tool, context.arguments))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the policy says of a call.

    `because` is in words; `rule` is the entry that counts, None where none names the caller.
    """

    verdict: Literal["allowed", "refused", "unknown"]
    because: str
    rule: str | None = None
    waived: str | None = None
    """Who confirms in the user's place, if the tool asks to be confirmed."""

    def to_json(self) -> dict[str, Any]:
        """Return it as the command line prints it."""
        return {"verdict": self.verdict, "because": self.because, "rule": self.rule, "waived": self.waived}


class Offline:
    """Takes the client's place and sends nothing: what would have to be read stays unknown."""

    def __init__(self, platform: str) -> None:
        self.platform = platform

    async def send(self, request: Request) -> Response:
        """Raises CallError."""
        raise CallError(
            ErrorCode.OFFLINE,
            f"{request.path} would have to be read to know in which iTwin it is.",
            hint="Leave out --offline to read it.",
        )


async def explain_verdict(
    keeper: Gatekeeper, tool: Tool, arguments: Mapping[str, Any], request: Request, caller: Caller
) -> Verdict:
    """Return the verdict on a call; `arguments` are ids, `request` is the first that it would send.

    Nothing is sent but the read that finds an iModel's iTwin.
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
