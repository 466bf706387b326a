"""A job of the platform, begun and awaited: polled with growing pauses until it has ended or the time is up."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import anyio

from itwin_mcp.capability.expressions import ABSENT, wire_text
from itwin_mcp.capability.plans import Operation, Slot, WaitPlan
from itwin_mcp.errors import CallError, JobFailed, UnexpectedAnswer
from itwin_mcp.executor.finding import look_for
from itwin_mcp.executor.fit import clean
from itwin_mcp.executor.request import unfit_for_path
from itwin_mcp.executor.sending import Answer, Run
from itwin_mcp.executor.shape import last_segment
from itwin_mcp.upstream.envelope import retry_after
from itwin_mcp.upstream.origin import Origin, split_url
from itwin_mcp.upstream.redaction import clean_text

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 5.0
LAST_LOOK = 4.0
"""Seconds; the last one is what a look that began in time may take beyond it."""
MAX_STATE = 100
"""Characters of a state that are reported."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ended:
    """The job has ended well; `answer` is what the tool's outputs are taken from, `operation` is what gave it."""

    operation: Operation
    answer: Answer
    handle: str
    job: dict[str, Any]
    """The member `job` of an error, for when the answer cannot be shown."""

    def explain(self, error: CallError) -> None:
        """Add to an error about the answer that the job itself has ended well."""
        _add_job(error, self.job, _ENDED_WELL)


@dataclass(frozen=True, slots=True)
class Pending:
    """The job goes on, or its state is unknown; `job` is the answer's member of that name."""

    job: dict[str, Any]
    handle: str | None
    """None when the platform did not say, and a look by name did not tell."""


async def run_job(run: Run, operation: Operation, values: Mapping[str, Any], *, seconds: float) -> Ended | Pending:
    """Begin the job of an operation, or follow the one that its input names, and wait at most `seconds` for it.

    With 0 seconds a job that was begun is not looked at, and one that is followed is looked at once. A cancelled wait
    leaves the job running on the platform.

    Raises: JobFailed when the job is in a state that `x-wait` lists as failed.
    """
    plan = operation.wait
    assert plan is not None
    # An operation that only observes (its handle is an input, its method GET) has nothing to begin.
    if plan.handle_place == "input" and operation.method == "GET":
        handle = _handle(plan, None, values, frozenset())
        return await _Wait(run, plan, handle, values).until(seconds, None)
    try:
        begun = await run.perform(operation, values)
    except CallError as error:
        if error.members.get("outcomeUnknown") or isinstance(error, UnexpectedAnswer):
            await _add_findings(run, operation, plan, values, error)
        raise
    handle = _handle(plan, begun, values, run.origins_of(operation.origin))
    if unfit_for_path(handle) is not None:
        return await _without_handle(run, operation, plan, values)
    return await _Wait(run, plan, handle, values).until(seconds, begun)


async def _add_findings(
    run: Run, operation: Operation, plan: WaitPlan, values: Mapping[str, Any], error: CallError
) -> None:
    """Look for the thing after a failure that leaves open whether it was made; add `found` and `job` to the error."""
    findings = await look_for(run, operation, plan, values)
    if findings is None:
        return
    if findings.items is None:
        error.hint = f"{findings.hint} {error.hint}"
        return
    error.members["found"] = list(findings.items)
    error.hint = findings.hint
    if findings.handle is not None and plan.check is not None:
        error.members["job"] = _job(run, plan, findings.handle)


async def _without_handle(run: Run, operation: Operation, plan: WaitPlan, values: Mapping[str, Any]) -> Pending:
    """The platform accepted the call but did not say what it made: look for it by name, and claim no failure."""
    findings = await look_for(run, operation, plan, values)
    job = _job(run, plan, findings.handle if findings is not None else None)
    lacks = f"{plan.subject} was begun, but the platform's answer does not say under which {plan.handle_as}."
    if findings is None or findings.items is None:
        next_step = "Do not call again: look for it in a list first."
        job["hint"] = " ".join([lacks, *([] if findings is None else [findings.hint]), next_step])
    else:
        job["hint"] = f"{lacks} {findings.hint}"
        job["found"] = list(findings.items)
    return Pending(job, findings.handle if findings is not None else None)


def _job(run: Run, plan: WaitPlan, handle: str | None) -> dict[str, Any]:
    """The `job` of an answer before its state is known; without a handle no tool can look at it."""
    job: dict[str, Any] = {"operation": run.name, plan.handle_as: handle, "state": None}
    if plan.check is not None and handle is not None:
        job["checkWith"] = plan.check
    return job


class _Wait:
    """One job being awaited."""

    def __init__(self, run: Run, plan: WaitPlan, handle: str, values: Mapping[str, Any]) -> None:
        self._run, self._plan, self._handle = run, plan, handle
        known = _in_path(plan.poll)
        self._polled = {name: value for name, value in values.items() if name in known} | {plan.poll_slot: handle}
        self._job = _job(run, plan, handle)
        self._began = run.now()

    async def until(self, seconds: float, begun: Answer | None) -> Ended | Pending:
        """The end of the job, or where it stands when the time is up."""
        try:
            return await self._until(seconds, begun)
        except anyio.get_cancelled_exc_class():
            logger.info(
                "%s was cancelled; the job of %s %s goes on", self._run.name, self._plan.handle_as, self._handle
            )
            raise

    async def _until(self, seconds: float, begun: Answer | None) -> Ended | Pending:
        pause, subject = FIRST_PAUSE, self._plan.subject
        if begun is not None:
            if seconds > 0:
                await self._run.conversation.progress(0, seconds, f"{subject}: begun")
            if not await self._sleep(0, seconds, begun):
                return Pending(self._job, self._handle)
        while True:
            with anyio.move_on_after(max(seconds - self._waited, 0) + LAST_LOOK):
                answer = await self._look()
                state = self._job["state"] or "state not reported"
                if state.casefold() in self._plan.done:
                    return await self._end(answer)
                if state.casefold() in self._plan.failed:
                    raise await self._failed(answer, state)
                # A state that no list names may be a new word for "pending". Calling it a failure would make agents
                # start the job a second time, so it is awaited like a pending one and reported as it is.
                waited = min(self._waited, seconds)
                text = f"{subject}: {state}, not ready after {waited:.0f} of at most {seconds:.0f} s"
                await self._run.conversation.progress(waited, seconds, text)
                if await self._sleep(pause, seconds, answer):
                    pause = min(pause * 1.5, LONGEST_PAUSE)
                    continue
            return Pending(self._job, self._handle)

    @property
    def _waited(self) -> float:
        return self._run.now() - self._began

    async def _sleep(self, pause: float, seconds: float, last: Answer) -> bool:
        """Pause before the next look, as long as the platform asks for; False when that would be too late."""
        asked = retry_after(last.headers, self._run.clock()) or 0.0
        left = seconds - self._waited
        if left < 0.05 or asked > left:
            return False
        wanted = min(max(pause, asked), left)
        if wanted > 0:
            await self._run.sleep(wanted)
        return True

    async def _look(self) -> Answer:
        try:
            answer = await self._run.perform(self._plan.poll, self._polled)
        except CallError as error:
            # What was begun goes on whether or not we can see it: nobody should begin it a second time.
            _add_job(error, self._job, "The job goes on at the platform: do not begin it again.")
            raise
        state = self._plan.state.find(answer.body)
        self._job["state"] = clean_text(wire_text(state), MAX_STATE) if isinstance(state, str | int | float) else None
        return answer

    async def _end(self, last: Answer) -> Ended:
        plan = self._plan
        if plan.result is None or plan.result_slot is None:
            return Ended(plan.poll, last, self._handle, self._job)
        known = _in_path(plan.result)
        values = {name: value for name, value in self._polled.items() if name in known}
        try:
            answer = await self._run.perform(plan.result, {**values, plan.result_slot: self._handle})
        except CallError as error:
            _add_job(error, self._job, _ENDED_WELL)
            raise
        return Ended(plan.result, answer, self._handle, self._job)

    async def _failed(self, answer: Answer, state: str) -> JobFailed:
        found = self._plan.reason.find(answer.body) if self._plan.reason is not None else None
        reason = found if isinstance(found, str) and found else None
        because = f", because: {reason}" if reason else ""
        cause = self._plan.causes.get(state.casefold())
        # A job about a thing that existed before leaves nothing to remove.
        made = self._plan.handle_place != "input"
        left = f"Remove what it left ({self._plan.handle_as} {self._handle}), correct" if made else "Correct"
        hints = [
            cause or f"{left} the cause, then begin again.",
            *([] if self._plan.left is None else [self._plan.left]),
        ]
        error = JobFailed(
            f"{self._plan.subject} has failed: the platform says {state}{because}.",
            hint=" ".join(["It will not become ready any more.", *hints]),
            members={"job": dict(self._job)} | await self._remnant(),
        )
        error.details = ({"code": state, "message": reason or f"The platform's state of the job is {state}."},)
        return error

    async def _remnant(self) -> dict[str, Any]:
        """`left`: the thing that a failed job leaves, by its id and, where it can be read, its name and state."""
        plan = self._plan
        if plan.left is None:
            return {}
        remnant: dict[str, Any] = {"id": self._handle}
        if plan.result is not None and plan.result_slot is not None:
            with suppress(CallError):
                body = (await self._run.perform(plan.result, {plan.result_slot: self._handle})).body
                things = body.values() if isinstance(body, dict) else ()
                thing = next((value for value in things if isinstance(value, dict)), {})
                remnant |= {name: thing[name] for name in ("name", "displayName", "state") if name in thing}
        return {"left": clean(remnant)}


_ENDED_WELL = "The job has ended well, only reading its result failed: do not begin it again."


def _add_job(error: CallError, job: Mapping[str, Any], hint: str) -> None:
    error.members.setdefault("job", dict(job))
    error.hint = f"{hint} {error.hint}"


def _handle(plan: WaitPlan, begun: Answer | None, values: Mapping[str, Any], origins: frozenset[Origin]) -> str:
    """The id of the job; an empty text when the answer has none. A link counts if it leads to one of `origins`."""
    found: Any = ABSENT
    if plan.handle_place == "input":
        found = values.get(plan.handle_name, ABSENT)
    elif begun is not None and plan.handle_place == "header":
        link = begun.headers.get(plan.handle_name, "")
        found = last_segment(link) if _leads_to(link, origins) else ABSENT
    elif begun is not None and plan.handle_path is not None:
        found = plan.handle_path.find(begun.body)
    return wire_text(found) if isinstance(found, str) or type(found) is int else ""


def _leads_to(link: str, origins: frozenset[Origin]) -> bool:
    """Whether a link is relative or leads to one of these origins; another server's ids are not the platform's."""
    if not link.isascii() or "/" not in link or " " in link:
        return False
    try:
        parts = urlsplit(link)
        return not (parts.scheme or parts.netloc) or split_url(link)[0] in origins
    except ValueError:
        return False


def _in_path(operation: Operation) -> frozenset[str]:
    return frozenset(part.name for segment in operation.path for part in segment if isinstance(part, Slot))
