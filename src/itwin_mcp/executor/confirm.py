"""Asks the person before something is destroyed; what goes on without their word is named for what it is."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import anyio.to_thread

from itwin_mcp.capability.catalog import Tool
from itwin_mcp.capability.confirming import CONFIRMATION
from itwin_mcp.errors import CallError, Unconfirmed
from itwin_mcp.executor.approvals import Approvals
from itwin_mcp.executor.conversation import Answer, Confirmed, Later, Question
from itwin_mcp.executor.names import known_id, refusal
from itwin_mcp.executor.preview import Preview, as_typed, grew, look
from itwin_mcp.executor.seals import Flaw, SealError, Seals
from itwin_mcp.executor.sending import Run

logger = logging.getLogger(__name__)

SECONDS = 300
"""How long a question and its answer are good."""
MOST_ROUNDS = 3
"""How often one call asks anew, because more would be lost than was shown."""

_PURPOSE = "confirmation 1"
_FLAWS: Mapping[Flaw, str] = {
    "unreadable": "it was altered or cut, or another server gave it",
    "expired": "it has expired",
    "of another caller": "it was given to another caller",
    "of another purpose": "it was given for something else",
}
_ASK = "Call again without it to get a new question, if the person wants this."


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a question was about: once, for this call, showing this."""

    nonce: str
    binding: str
    name: str
    measures: Mapping[str, Any]

    def sealed(self) -> dict[str, Any]:
        return {"n": self.nonce, "b": self.binding, "s": self.name, "m": dict(self.measures)}


class Spent:
    """Remembers for as long as they are good which questions were answered, so that each counts once."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}

    def spend(self, nonce: str) -> bool:
        """Whether this is the first time."""
        now = self._clock()
        self._until = {one: until for one, until in self._until.items() if until >= now}
        if nonce in self._until:
            return False
        self._until[nonce] = now + SECONDS + 1
        return True


@dataclass(frozen=True, slots=True)
class Remedy:
    """What a client that cannot ask the person is told: what approves the call, and what the agent does next."""

    hint: str
    approve_with: str | None = None


NOBODY = Remedy(
    "Nothing was changed. This client cannot ask the person, so that this server does not do it. They can do it "
    "themselves, or connect with a client that shows them questions (MCP elicitation)."
)


class Confirming:
    """The stage before anything is sent. One for the whole server: it knows which questions were answered."""

    def __init__(
        self,
        seals: Seals,
        *,
        approvals: Approvals | None = None,
        approve_with: Callable[[str], str] = "itwin-mcp approve {}".format,
        remedy: Remedy = NOBODY,
        two_step: bool = False,
    ) -> None:
        """Where the person cannot be asked, `approvals` keeps the question for `approve_with`; else `remedy` is told.

        With `two_step` the model confirms in their place, where a tool lets it.
        """
        self._seals = seals
        self._approvals = approvals
        self._approve_with = approve_with
        self._remedy = remedy
        self._two_step = two_step
        self._spent = Spent()

    async def confirm(
        self,
        run: Run,
        tool: Tool,
        arguments: Mapping[str, Any],
        resolved: Sequence[Mapping[str, Any]],
        waived: Literal["policy"] | None = None,
    ) -> Confirmed | None:
        """On whose word the call goes on; None where nothing would be destroyed.

        `waived` says that nobody is to be asked. Raises Unconfirmed, which carries the preview, where the answer is
        still to come, and an error of the CallError family where it was no.
        """
        if not tool.confirms:
            return None
        if waived is not None:
            _need_ids(tool, resolved, "a call that nobody is asked about")
            return Confirmed(waived)
        shown = await look(run, tool, arguments)
        if shown is None:
            return None
        binding = _binding(run, tool, arguments)
        if self._two_step and not (tool.confirm is not None and tool.confirm.person):
            confirmed = self._by_model(run, tool, arguments, binding, shown)
        else:
            confirmed = await self._by_person(run, tool, arguments, binding, shown)
        if confirmed.by == "yes-flag":
            _need_ids(tool, resolved, "--yes")
        logger.info("%s goes on by the word of %s (%s)", tool.name, confirmed.by, confirmed.how or "as configured")
        return confirmed

    async def _by_person(
        self, run: Run, tool: Tool, arguments: Mapping[str, Any], binding: str, shown: Preview
    ) -> Confirmed:
        for _ in range(MOST_ROUNDS):
            asked = _Asked(secrets.token_hex(16), binding, shown.name, shown.measures)
            question = Question(
                shown.message, shown.name, self._seals.seal(_PURPOSE, run.caller, asked.sealed()), SECONDS
            )
            answer = await run.conversation.ask(question)
            if isinstance(answer, Later):
                if not answer.asked and self._approvals is not None:
                    return await self._approved(self._approvals, tool, binding, shown)
                raise Unconfirmed(_told(shown, self._remedy, SECONDS), asked=answer.asked)
            if answer.state is not None:
                asked = self._opened(run, answer.state, binding)
            self._accept(tool, answer, asked)
            if answer.state is None:
                now = await look(run, tool, arguments)
                if now is None:
                    return answer.confirmed
                shown = now
            if shown.name == asked.name and not grew(asked.measures, shown.measures):
                return answer.confirmed
        raise CallError(
            "ConfirmationInvalid",
            f"What {tool.name} would destroy changes faster than the person can answer; nothing was sent.",
            hint="Tell the person, and call again when nobody works on it.",
        )

    def _by_model(self, run: Run, tool: Tool, arguments: Mapping[str, Any], binding: str, shown: Preview) -> Confirmed:
        """Two steps of the same model: a guard against accidents, and nobody's consent."""
        given = arguments.get(CONFIRMATION)
        if given is not None:
            asked = self._opened(run, given, binding)
            self._spend(asked)
            if shown.name == asked.name and not grew(asked.measures, shown.measures):
                return Confirmed("two-step")
        asked = _Asked(secrets.token_hex(16), binding, shown.name, shown.measures)
        token = self._seals.seal(_PURPOSE, run.caller, asked.sealed())
        more = "More would be lost now than was shown before. " if given is not None else ""
        remedy = Remedy(
            f"Nothing was changed. {more}Show the person the question and what is lost. Once they agree, repeat the "
            f"call with the same arguments and {CONFIRMATION} set to preview.{CONFIRMATION}; it is good once.",
            f"the argument {CONFIRMATION}",
        )
        raise Unconfirmed({**_told(shown, remedy, SECONDS), CONFIRMATION: token})

    async def _approved(self, approvals: Approvals, tool: Tool, binding: str, shown: Preview) -> Confirmed:
        """By what the person approved on the terminal; else the question is put there."""
        given = await anyio.to_thread.run_sync(approvals.take, binding)
        if given is not None and given.name == shown.name and not grew(given.measures, shown.measures):
            return Confirmed("person", "approval")
        waiting = await anyio.to_thread.run_sync(approvals.ask, tool.name, binding, shown, SECONDS)
        command = self._approve_with(waiting.id)
        remedy = Remedy(
            f"Nothing was changed. Show the person the question, and ask them to run `{command}` in a terminal of "
            "theirs; never run it yourself. When they have, repeat this call as it is.",
            command,
        )
        raise Unconfirmed(_told(shown, remedy, waiting.expires - time.time()))

    def _opened(self, run: Run, state: str, binding: str) -> _Asked:
        """The question that an answer belongs to. Raises CallError for any other."""
        try:
            kept = self._seals.open(state, _PURPOSE, run.caller, seconds=SECONDS)
        except SealError as broken:
            code = "ConfirmationExpired" if broken.flaw == "expired" else "ConfirmationInvalid"
            raise _no(code, f"The confirmation cannot be used: {_FLAWS[broken.flaw]}", _ASK) from None
        asked = _Asked(kept["n"], kept["b"], kept["s"], kept["m"])
        if asked.binding != binding:
            why = "it was given for another tool or other arguments"
            raise _no("ConfirmationInvalid", f"The confirmation cannot be used: {why}", _ASK)
        return asked

    def _accept(self, tool: Tool, answer: Answer, asked: _Asked) -> None:
        """Take an answer, once. Raises CallError unless it is a yes with the right name."""
        if answer.action == "expire":
            raise _no("ConfirmationExpired", f"The person did not answer in {SECONDS // 60} minutes", _ASK)
        self._spend(asked)
        if answer.action == "decline":
            hint = f"Do not call {tool.name} again unless the person asks for it."
            raise _no("Declined", f"The person declined {tool.name}", hint)
        if answer.action == "cancel":
            hint = "Ask the person whether they want it before you call again."
            raise _no("Cancelled", f"The person closed the question about {tool.name} without an answer", hint)
        if as_typed(answer.typed) != asked.name:
            hint = "Ask the person whether they mean this one, and call again if they do."
            raise _no("NameMismatch", f"What the person typed is not the name that {tool.name} asked for", hint)

    def _spend(self, asked: _Asked) -> None:
        if not self._spent.spend(asked.nonce):
            raise _no("ConfirmationUsed", "The confirmation cannot be used: it was used before", _ASK)


def _no(code: str, why: str, hint: str) -> CallError:
    return CallError(code, f"{why}; nothing was sent.", hint=hint)


def _need_ids(tool: Tool, resolved: Sequence[Mapping[str, Any]], what: str) -> None:
    """Nobody sees which thing a name was taken for: then it must be the id. Raises InvalidArguments."""
    entities = {one.name: one.entity for one in tool.arguments if one.entity is not None}
    for one in resolved:
        entity = entities[one["argument"]]
        if entity != "changeset" and known_id(one["given"], entity) is None:
            raise refusal(one["given"], entity, one["argument"], f"; {what} takes no name for what may be destroyed")


def _told(shown: Preview, remedy: Remedy, seconds: float) -> dict[str, Any]:
    expires = datetime.fromtimestamp(time.time() + seconds, UTC).isoformat(timespec="seconds")
    told: dict[str, Any] = {
        "question": shown.question,
        "loses": dict(shown.loses),
        "expiresAt": expires.replace("+00:00", "Z"),
    }
    if remedy.approve_with is not None:
        told["approveWith"] = remedy.approve_with
    return told | {"hint": remedy.hint}


def _binding(run: Run, tool: Tool, arguments: Mapping[str, Any]) -> str:
    """A fingerprint of the call: caller, tool, arguments, and in them the ids that names were read as."""
    others = {name: value for name, value in arguments.items() if name != CONFIRMATION}
    text = json.dumps([run.caller.key, tool.name, others], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
