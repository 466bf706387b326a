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


@dataclass(frozen=True, slots=True)
class _SealedQuestion:
    """What is sealed into a question: that it counts once (`nonce`), for which call, and what it showed."""

    # The reply comes back in another call, perhaps to another process, so that nothing can be remembered here. The
    # binding keeps a yes to one call from another one; name and measures keep it to what the user was shown.
    nonce: str
    binding: str
    name: str
    measures: Mapping[str, Any]

    def sealed(self) -> dict[str, Any]:
        return {"n": self.nonce, "b": self.binding, "s": self.name, "m": dict(self.measures)}


class UsedConfirmations:
    """Remembers which questions were answered, for as long as they are valid, so that each counts once."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.time) -> None:
        self._seconds = seconds
        self._clock = clock
        self._until: dict[str, float] = {}

    def spend(self, nonce: str) -> bool:
        """Return whether this is the first use."""
        now = self._clock()
        self._until = {one: until for one, until in self._until.items() if until >= now}
        if nonce in self._until:
            return False
        self._until[nonce] = now + self._seconds + 1
        return True


@dataclass(frozen=True, slots=True)
class Remedy:
    """What to do where the client cannot ask the user: what approves the call, and what the agent does next."""

    hint: str
    approve_with: str | None = None


NOBODY = Remedy(
    "Nothing was changed. This client cannot ask the person, so that this server does not do it. They can do it "
    "themselves, or connect with a client that shows them questions (MCP elicitation)."
)


async def _nowhere(_: Tool) -> str:
    return ""


class Confirmer:
    """The stage `confirm`; one for the whole server, because it knows which questions were answered."""

    def __init__(
        self,
        seals: Seals,
        *,
        approvals: Approvals | None = None,
        approve_with: Callable[[str], str] = "itwin-mcp approve {}".format,
        remedy: Remedy = NOBODY,
        two_step: bool = False,
        seconds: int = AWAY_SECONDS,
        where: Callable[[Tool], Awaitable[str]] = _nowhere,
    ) -> None:
        """Where the client cannot ask, `approvals`, if given, stores the question for the command `approve_with`.

        Otherwise the preview shows `remedy`. With `two_step` the model confirms in the user's place, unless a tool
        forbids it. A question is valid for `seconds`. `where` returns the words with which each begins: on which
        platform a tool acts, and as whom.
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
        """Ask about what the call would destroy; the context that is returned says who confirmed it.

        The outcome is a Preview or a Question where the reply is still to come. Raises CallError where there is no
        valid yes. Both are audited: `declined` is only what the user themselves said no to.
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
            # Nothing was there to lose. A file that comes there by now stays: nobody was asked about it.
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
        # What is lost may grow while the user reads. So it is read again after each reply, and a yes counts only for
        # what was shown: if more would be lost now, the user is asked anew.
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
        """Have the same model confirm in a second step: a guard against accidents, and nobody's consent."""
        given = arguments.get(CONFIRMATION)
        if given is not None:
            asked = self._open(run, given, binding)
            self._spend(asked)
            if losses.name == asked.name and not has_grown(asked.measures, losses.measures):
                return Confirmation("two-step")
        asked = _SealedQuestion(secrets.token_hex(16), binding, losses.name, losses.measures)
        token = self._seals.seal(_PURPOSE, run.caller, asked.sealed())
        more = "More would be lost now than was shown before. " if given is not None else ""
        remedy = Remedy(
            f"Nothing was changed. {more}Show the person the question and what is lost. Once they agree, repeat the "
            f"call with the same arguments and {CONFIRMATION} set to preview.{CONFIRMATION}; it is good once.",
            f"the argument {CONFIRMATION}",
        )
        return _build_preview(losses, remedy, self._seconds, {CONFIRMATION: token}, waits=True)

    async def _take_approval(
        self, approvals: Approvals, tool: Tool, binding: str, losses: Losses
    ) -> Confirmation | Preview:
        """Take what the user approved on the terminal; else put the question there."""
        given = await anyio.to_thread.run_sync(approvals.take, binding)
        if given is not None and given.name == losses.name and not has_grown(given.measures, losses.measures):
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
        """Return the question that a reply belongs to. Raises CallError for any other."""
        try:
            kept = self._seals.open(state, _PURPOSE, run.caller, seconds=self._seconds)
        except SealError as broken:
            code = ErrorCode.CONFIRMATION_EXPIRED if broken.flaw == "expired" else ErrorCode.CONFIRMATION_INVALID
            raise _unusable(code, f"The confirmation cannot be used: {_FLAWS[broken.flaw]}") from None
        asked = _SealedQuestion(kept["n"], kept["b"], kept["s"], kept["m"])
        if asked.binding != binding:
            why = "it was given for another tool or other arguments"
            raise _unusable(ErrorCode.CONFIRMATION_INVALID, f"The confirmation cannot be used: {why}")
        return asked

    def _accept(self, tool: Tool, reply: Reply, asked: _SealedQuestion) -> None:
        """Take a reply, once. Raises Declined unless it is a yes with the right name, CallError if there is none."""
        if reply.action == "expire":
            raise _unusable(
                ErrorCode.CONFIRMATION_EXPIRED, f"The person did not answer in {HELD_SECONDS // 60} minutes"
            )
        self._spend(asked)
        if reply.action == "decline":
            hint = f"Do not call {tool.name} again unless the person asks for it."
            raise _declined(ErrorCode.DECLINED, f"The person declined {tool.name}", hint)
        if reply.action == "cancel":
            hint = "Ask the person whether they want it before you call again."
            raise _declined(
                ErrorCode.CANCELLED, f"The person closed the question about {tool.name} without an answer", hint
            )
        if normalize_name(reply.typed) != asked.name:
            hint = "Ask the person whether they mean this one, and call again if they do."
            raise _declined(
                ErrorCode.NAME_MISMATCH, f"What the person typed is not the name that {tool.name} asked for", hint
            )

    def _spend(self, asked: _SealedQuestion) -> None:
        if not self._spent.spend(asked.nonce):
            raise _unusable(ErrorCode.CONFIRMATION_USED, "The confirmation cannot be used: it was used before")


def _declined(code: str, why: str, hint: str) -> Declined:
    return Declined(code, f"{why}; nothing was sent.", hint=hint)


def _unusable(code: str, why: str) -> CallError:
    """Return the refusal of a confirmation that is no reply of the user: expired, used, forged, or for another call."""
    return CallError(code, f"{why}; nothing was sent.", hint=_ASK)


def _need_ids(context: CallContext, what: str) -> None:
    """Require ids where nobody is shown which thing a name was resolved to. Raises InvalidArguments."""
    entities = {argument.name: argument.entity for argument in context.tool.arguments if argument.entity is not None}
    for entry in context.resolved:
        entity, given = entities[entry["argument"]], entry["given"]
        if entity.sequence is None and extract_id(given, entity) is None:
            raise refuse_text(given, entity, entry["argument"], f"; {what} takes no name for what may be destroyed")


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
    """Return the losses with a question that begins with where the call acts."""
    return replace(losses, question=f"{where} {losses.question}") if where else losses


def _fingerprint_call(run: Run, tool: Tool, arguments: Mapping[str, Any], where: str) -> str:
    """Return a fingerprint of the call: caller, tool, arguments with resolved ids, platform and account."""
    others = {name: value for name, value in arguments.items() if name != CONFIRMATION}
    told = [where, run.caller.key, tool.name, others]
    text = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
