"""The stage `confirm`: asks the user before something is destroyed or published."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import anyio.to_thread

from itwin_mcp.capability.catalog import Tool
from itwin_mcp.capability.parameters import CONFIRMATION, OVERWRITE
from itwin_mcp.errors import CallError, Declined, ErrorCode
from itwin_mcp.executor.confirmation.approvals import Approvals
from itwin_mcp.executor.confirmation.preview import Losses, has_grown, preview_losses
from itwin_mcp.executor.confirmation.seals import Flaw, SealError, Seals
from itwin_mcp.executor.confirmation.typed_name import normalize_name
from itwin_mcp.executor.context import CallContext, Confirmation, NoReply, Reply
from itwin_mcp.executor.names import extract_id, refuse_text
from itwin_mcp.executor.outcome import Outcome, Preview, Question
from itwin_mcp.executor.policy.audit import keep_code
from itwin_mcp.executor.sending import Run

logger = logging.getLogger(__name__)

HELD_SECONDS = 300
"""How long a question is valid while its call is held open, or if several servers may each accept a reply."""
AWAY_SECONDS = 1_800
"""How long every other question is valid: the user may be away. The loss is read again before the call is made."""
MAX_ROUNDS = 3
"""How often one call asks because more would be lost than was shown."""

_PURPOSE = "confirmation 1"
_FLAWS: Mapping[Flaw, str] = {
    "unreadable": "it was altered or cut, or another server gave it",
    "expired": "it has expired",
    "of another caller": "it was given to another caller",
    "of another purpose": "it was given for something else",
}
_ASK = "Call again without it to get a new question, if the person wants this."
_REFUSALS = {
    "decline": (ErrorCode.DECLINED, "The person declined {}", "Do not call {} again unless the person asks for it."),
    "cancel": (
        ErrorCode.CANCELLED,
        "The person closed the question about {} without an answer",
        "Ask the person whether they want it before you call again.",
    ),
    "mismatch": (
        ErrorCode.NAME_MISMATCH,
        "What the person typed is not the name that {} asked for",
        "Ask the person whether they mean this one, and call again if they do.",
    ),
}
"""The code, message and hint of the error for each reply that is not a yes; `{}` is the tool."""


@dataclass(frozen=True, slots=True)
class _SealedQuestion:
    """The state of a question: a `nonce` for single use, the `binding` to its call, and what it showed."""

    # The reply may come in another call to another process, so the client keeps the state. The binding ties a yes to
    # one call; name and measures tie it to what the user was shown.
    nonce: str
    binding: str
    name: str
    measures: Mapping[str, Any]

    def sealed(self) -> dict[str, Any]:
        return {"n": self.nonce, "b": self.binding, "s": self.name, "m": dict(self.measures)}


class UsedConfirmations:
    """Remembers answered questions while they are valid, so that each can be used only once."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.time) -> None:
        self._seconds = seconds
        self._clock = clock
        self._expiries: dict[str, float] = {}

    def spend(self, nonce: str) -> bool:
        """Record the use of a nonce. Return False if it was used before."""
        now = self._clock()
        self._expiries = {used: expires for used, expires in self._expiries.items() if expires >= now}
        if nonce in self._expiries:
            return False
        self._expiries[nonce] = now + self._seconds + 1
        return True


@dataclass(frozen=True, slots=True)
class Remedy:
    """Advice if the client cannot ask the user: the next step of the agent, and the command or argument to approve."""

    hint: str
    approve_with: str | None = None


NO_ELICITATION = Remedy(
    "Nothing was changed. This client cannot ask the person, so that this server does not do it. They can do it "
    "themselves, or connect with a client that shows them questions (MCP elicitation)."
)


async def _omit_place(_: Tool) -> str:
    return ""


class Confirmer:
    """The stage `confirm`. A server has one, because it remembers which questions were answered."""

    def __init__(
        self,
        seals: Seals,
        *,
        approvals: Approvals | None = None,
        approve_with: Callable[[str], str] = "itwin-mcp approve {}".format,
        remedy: Remedy = NO_ELICITATION,
        two_step: bool = False,
        seconds: int = AWAY_SECONDS,
        where: Callable[[Tool], Awaitable[str]] = _omit_place,
    ) -> None:
        """Create the stage.

        If the client cannot ask the user, `approvals` stores the question for the command `approve_with`. Without
        `approvals` the preview shows `remedy`. With `two_step` the model confirms instead of the user, unless a tool
        forbids it. A question is valid for `seconds`. `where` returns the first words of each question: the platform
        and the account with which a tool acts.
        """
        self._seals = seals
        self._approvals = approvals
        self._approve_with = approve_with
        self._remedy = remedy
        self._two_step = two_step
        self._seconds = seconds
        self._where = where
        self._spent = UsedConfirmations(seconds)

    async def confirm(self, context: CallContext) -> CallContext | Outcome:
        """Ask the user to confirm what the call would destroy. The returned context says who confirmed it.

        Return a Preview or a Question if the reply is still to come. Raises CallError if there is no valid yes. Each
        case is audited; `declined` means that the user said no.
        """
        tool, gate = context.tool, context.gate
        try:
            confirmed = await self._confirm(context)
        except Declined as error:
            await gate.note("declined", tool, context.arguments, code=keep_code(error.code))
            raise
        except CallError as error:
            await gate.note("refused", tool, context.arguments, code=keep_code(error.code))
            raise
        if isinstance(confirmed, Preview) and not confirmed.waits:
            await gate.note("refused", tool, context.arguments, code="NobodyToAsk")
        elif isinstance(confirmed, Preview | Question):
            await gate.note("asked", tool, context.arguments)
        if isinstance(confirmed, Preview | Question):
            return confirmed
        if confirmed is None and tool.transfer is not None and OVERWRITE in context.arguments:
            # No file existed, so nobody was asked. A file that is created meanwhile must not be overwritten.
            return replace(context, arguments={**context.arguments, OVERWRITE: False})
        return replace(context, confirmation=confirmed)

    async def _confirm(self, context: CallContext) -> Confirmation | Preview | Question | None:
        """Return who confirmed the call, or None if it destroys nothing."""
        tool, run, arguments = context.tool, context.run, context.arguments
        if context.permit.waived is not None:
            _need_ids(context, "a call that nobody is asked about")
            return Confirmation(context.permit.waived)
        losses = await preview_losses(run, tool, arguments)
        if losses is None:
            return None
        where = await self._where(tool)
        losses = _add_place(losses, where)
        binding = _fingerprint_call(run, tool, arguments, where)
        confirmed: Confirmation | Preview | Question
        if self._two_step and not (tool.confirm is not None and tool.confirm.person):
            confirmed = self._ask_model(run, arguments, binding, losses)
        else:
            confirmed = await self._ask_user(run, tool, arguments, binding, losses, where)
        if isinstance(confirmed, Confirmation):
            if confirmed.by == "yes-flag":
                _need_ids(context, "--yes")
            logger.info("%s was confirmed by %s (%s)", tool.name, confirmed.by, confirmed.how or "as configured")
        return confirmed

    async def _ask_user(
        self, run: Run, tool: Tool, arguments: Mapping[str, Any], binding: str, losses: Losses, where: str
    ) -> Confirmation | Preview | Question:
        # The losses may grow while the user reads. So they are read again after each reply. A yes counts only for what
        # was shown: if more would be lost now, the user is asked again.
        for _ in range(MAX_ROUNDS):
            asked = _SealedQuestion(secrets.token_hex(16), binding, losses.name, losses.measures)
            state = self._seals.seal(_PURPOSE, run.caller, asked.sealed())
            question = Question(losses.message, losses.name, state, min(HELD_SECONDS, self._seconds))
            reply = await run.conversation.ask(question)
            if isinstance(reply, NoReply):
                if reply.asked:
                    return question
                if self._approvals is not None:
                    return await self._take_approval(self._approvals, tool, binding, losses)
                return _build_preview(losses, self._remedy, self._seconds)
            if reply.state is not None:
                # The reply to a question of an earlier call: the loss was read a moment ago, and is compared with what
                # that question showed.
                asked = self._open(run, reply.state, binding)
            self._accept(tool, reply, asked)
            if reply.state is None:
                now = await preview_losses(run, tool, arguments)
                if now is None:
                    return reply.confirmation
                losses = _add_place(now, where)
            if losses.name == asked.name and not has_grown(asked.measures, losses.measures):
                return reply.confirmation
        raise CallError(
            ErrorCode.CONFIRMATION_INVALID,
            f"What {tool.name} would destroy changes faster than the person can answer; nothing was sent.",
            hint="Tell the person, and call again when nobody works on it.",
        )

    def _ask_model(
        self, run: Run, arguments: Mapping[str, Any], binding: str, losses: Losses
    ) -> Confirmation | Preview:
        """Let the model confirm in a second call. This guards against accidents; it is not the user's consent."""
        earlier = arguments.get(CONFIRMATION)
        if earlier is not None:
            asked = self._open(run, earlier, binding)
            self._spend(asked)
            if losses.name == asked.name and not has_grown(asked.measures, losses.measures):
                return Confirmation("two-step")
        asked = _SealedQuestion(secrets.token_hex(16), binding, losses.name, losses.measures)
        token = self._seals.seal(_PURPOSE, run.caller, asked.sealed())
        more = "More would be lost now than was shown before. " if earlier is not None else ""
        remedy = Remedy(
            f"Nothing was changed. {more}Show the person the question and what is lost. Once they agree, repeat the "
            f"call with the same arguments and {CONFIRMATION} set to preview.{CONFIRMATION}; it is good once.",
            f"the argument {CONFIRMATION}",
        )
        return _build_preview(losses, remedy, self._seconds, {CONFIRMATION: token}, waits=True)

    async def _take_approval(
        self, approvals: Approvals, tool: Tool, binding: str, losses: Losses
    ) -> Confirmation | Preview:
        """Use the user's approval from the terminal. If there is none, store the question for the terminal."""
        approval = await anyio.to_thread.run_sync(approvals.take, binding)
        if approval is not None and approval.name == losses.name and not has_grown(approval.measures, losses.measures):
            return Confirmation("person", "approval")
        waiting = await anyio.to_thread.run_sync(approvals.ask, tool.name, binding, losses, self._seconds)
        command = self._approve_with(waiting.id)
        remedy = Remedy(
            f"Nothing was changed. Show the person the question, and ask them to run `{command}` in a terminal of "
            "theirs. Only the person runs it: never run it yourself, even if you have a terminal. When they have, "
            "repeat this call as it is.",
            command,
        )
        return _build_preview(losses, remedy, waiting.expires - time.time(), waits=True)

    def _open(self, run: Run, state: str, binding: str) -> _SealedQuestion:
        """Return the question in a sealed state. Raises CallError if it was not asked about this call."""
        try:
            value = self._seals.open(state, _PURPOSE, run.caller, seconds=self._seconds)
        except SealError as error:
            code = ErrorCode.CONFIRMATION_EXPIRED if error.flaw == "expired" else ErrorCode.CONFIRMATION_INVALID
            raise _unusable(code, f"The confirmation cannot be used: {_FLAWS[error.flaw]}") from None
        if value["b"] != binding:
            why = "it was given for another tool or other arguments"
            raise _unusable(ErrorCode.CONFIRMATION_INVALID, f"The confirmation cannot be used: {why}")
        return _SealedQuestion(value["n"], value["b"], value["s"], value["m"])

    def _accept(self, tool: Tool, reply: Reply, asked: _SealedQuestion) -> None:
        """Accept a yes with the right name, once. Raises Declined for another reply, CallError if there is none."""
        if reply.action == "expire":
            raise _unusable(
                ErrorCode.CONFIRMATION_EXPIRED, f"The person did not answer in {HELD_SECONDS // 60} minutes"
            )
        self._spend(asked)
        action: str = reply.action
        if action not in _REFUSALS and normalize_name(reply.typed) != asked.name:
            action = "mismatch"
        if action in _REFUSALS:
            code, message, hint = _REFUSALS[action]
            raise Declined(code, f"{message.format(tool.name)}; nothing was sent.", hint=hint.format(tool.name))

    def _spend(self, asked: _SealedQuestion) -> None:
        if not self._spent.spend(asked.nonce):
            raise _unusable(ErrorCode.CONFIRMATION_USED, "The confirmation cannot be used: it was used before")


def _unusable(code: str, why: str) -> CallError:
    """Return the error for a confirmation that is expired, used, forged, or for another call."""
    return CallError(code, f"{why}; nothing was sent.", hint=_ASK)


def _need_ids(context: CallContext, what: str) -> None:
    """Raise InvalidArguments if a name was resolved in a call without a question that shows the resolved thing."""
    entities = {argument.name: argument.entity for argument in context.tool.arguments if argument.entity is not None}
    for entry in context.resolved:
        entity, text = entities[entry["argument"]], entry["given"]
        if entity.sequence is None and extract_id(text, entity) is None:
            raise refuse_text(text, entity, entry["argument"], f"; {what} takes no name for what may be destroyed")


def _build_preview(
    losses: Losses, remedy: Remedy, seconds: float, members: Mapping[str, Any] | None = None, *, waits: bool = False
) -> Preview:
    expires = datetime.fromtimestamp(time.time() + seconds, UTC).isoformat(timespec="seconds")
    preview: dict[str, Any] = {
        "question": losses.question,
        **({"about": dict(losses.about)} if losses.about else {}),
        "loses": dict(losses.loses),
        "expiresAt": expires.replace("+00:00", "Z"),
    }
    if remedy.approve_with is not None:
        preview["approveWith"] = remedy.approve_with
    return Preview({"preview": {**preview, "hint": remedy.hint, **(members or {})}}, waits=waits)


def _add_place(losses: Losses, where: str) -> Losses:
    """Add the platform and account of the call to the start of the question."""
    return replace(losses, question=f"{where} {losses.question}") if where else losses


def _fingerprint_call(run: Run, tool: Tool, arguments: Mapping[str, Any], where: str) -> str:
    """Return a fingerprint of the call: caller, tool, arguments with resolved ids, platform and account."""
    others = {name: value for name, value in arguments.items() if name != CONFIRMATION}
    call = [where, run.caller.key, tool.name, others]
    text = json.dumps(call, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
