"""What the policy would say of a call: explained, and nothing sent but the read that finds an iModel's iTwin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from itwin_mcp.capability.catalog import Tool
from itwin_mcp.errors import CallError, PolicyRefused
from itwin_mcp.executor.conversation import Caller
from itwin_mcp.executor.gate import Gatekeeper
from itwin_mcp.executor.policy import writes
from itwin_mcp.upstream.wire import Request, Response


@dataclass(frozen=True, slots=True)
class Verdict:
    """`because` is in words; `rule` is the entry that counts, None where none names the caller."""

    verdict: Literal["allowed", "refused", "unknown"]
    because: str
    rule: str | None = None
    waived: str | None = None
    """Who confirms in the person's place, if the tool asks to be confirmed."""

    def to_json(self) -> dict[str, Any]:
        """As the command line prints it."""
        return {"verdict": self.verdict, "because": self.because, "rule": self.rule, "waived": self.waived}


class Offline:
    """In the client's place: whatever would be sent stays unknown."""

    def __init__(self, platform: str) -> None:
        self.platform = platform

    async def send(self, request: Request) -> Response:
        """Raises CallError."""
        raise CallError(
            "Offline",
            f"{request.path} would have to be read to know in which iTwin it is.",
            hint="Leave --offline away to read it.",
        )


async def judge(
    keeper: Gatekeeper, tool: Tool, arguments: Mapping[str, Any], request: Request, caller: Caller
) -> Verdict:
    """The verdict on a call; `arguments` are ids, `request` is the first that it would send."""
    rule = keeper.policy.rule_for(caller) if keeper.policy is not None else None
    place = rule.place("entry") if rule is not None else None
    gate = keeper.gate(tool.name, caller)
    try:
        await gate.admit(tool, arguments)
        permit = await gate.permit(tool, arguments)
        await gate.judge(request)
    except PolicyRefused as error:
        return Verdict("refused", error.message, place)
    except CallError as error:
        return Verdict("unknown", f"{error.message} {error.hint}", place)
    because = [f"{tool.name} is allowed ({rule.allows(tool)[1]})" if rule is not None else "there is no policy"]
    if rule is not None and gate.fenced:
        because.append(f"so is every iTwin that it names ({rule.place('itwins')})")
    if rule is not None and rule.writes_per_hour is not None and writes(tool.operations):
        because.append(f"up to {rule.writes_per_hour} writes an hour ({rule.place('writes-per-hour')})")
    if permit.by is not None:
        because.append(f"approved beforehand, up to {permit.by.per_hour} times an hour ({permit.by.place})")
    return Verdict("allowed", "; ".join(because) + ".", place, permit.waived)
