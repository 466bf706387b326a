"""Starts jobs of the platform and waits for them: polls with growing pauses until the job or the time has ended.

A job that is still running, or whose outcome is unknown, must not be started a second time. So a timeout, a lost answer
and an unknown state are never reported as failures: the answer or error names the job, and what was found of it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import anyio

from itwin_mcp.capability.expressions import ABSENT, format_for_wire
from itwin_mcp.capability.operations import Operation, Slot, WaitPlan
from itwin_mcp.capability.tool_actions import Call
from itwin_mcp.errors import CallError, JobFailed, UnexpectedAnswer
from itwin_mcp.executor.answers import Answer, find_last_segment, shape_answer
from itwin_mcp.executor.context import CallContext
from itwin_mcp.executor.requests import bind, find_path_problem
from itwin_mcp.executor.sending import Run
from itwin_mcp.text import clean, clean_text
from itwin_mcp.upstream.origin import Origin, split_url
from itwin_mcp.upstream.wire_format import read_retry_after

FIRST_PAUSE = 0.5
MAX_PAUSE = 5.0
LAST_LOOK = 4.0
"""Seconds; a poll that began in time may take `LAST_LOOK` longer."""
MAX_STATE = 100
"""Characters of a reported state."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EndedJob:
    """The job succeeded. The tool's outputs are taken from `answer`, which `operation` returned."""

    operation: Operation
    answer: Answer
    handle: str
    job: dict[str, Any]
    """The member `job` of an error about the answer."""

    def explain(self, error: UnexpectedAnswer) -> UnexpectedAnswer:
        """Return an error about the answer that says that the job itself succeeded."""
        return _with_job(error, self.job, _ENDED_WELL)


@dataclass(frozen=True, slots=True)
class PendingJob:
    """The job is still running, or its state is unknown; `job` is the answer's member of that name."""

    job: dict[str, Any]
    handle: str | None
    """None if the platform did not return it and it was not found by name."""


async def run_awaited(context: CallContext) -> CallContext:
    """Stage `run` of a tool that starts a job, or follows one. Raises CallError."""
    run, action = context.run, context.tool.action
    assert isinstance(action, Call)
    values = bind(action.bindings, context.arguments, {})
    ended = await run_job(run, action.operation, values, seconds=context.arguments["wait"])
    if isinstance(ended, PendingJob):
        return context.with_answer({"job": ended.job})
    try:
        return context.with_answer(shape_answer(run, ended.operation, action.output, ended.answer))
    except UnexpectedAnswer as error:
        raise ended.explain(error) from None


async def run_job(
    run: Run, operation: Operation, values: Mapping[str, Any], *, seconds: float
) -> EndedJob | PendingJob:
    """Start the job of an operation, or follow the one that its input names, and wait at most `seconds` for it.

    With 0 seconds a started job is not polled, and a followed one is polled once. If the wait is cancelled, the job
    continues on the platform.

    Raises: JobFailed if the job is in a state that `x-wait` lists as failed.
    """
    plan = operation.wait
    assert plan is not None
    # An operation that only observes (its handle is an input, its method GET) has nothing to begin.
    if plan.handle_place == "input" and operation.method == "GET":
        handle = _find_handle(plan, None, values, frozenset())
        return await _Wait(run, plan, handle, values).until(seconds, None)
    try:
        begun = await run.perform(operation, values)
    except CallError as error:
        # The request may have been carried out although its answer was lost or is odd. Before an agent starts the job a
        # second time, look whether it exists.
        if error.members.get("outcomeUnknown") or isinstance(error, UnexpectedAnswer):
            raise await _with_findings(run, operation, plan, values, error) from None
        raise
    handle = _find_handle(plan, begun, values, run.find_origins(operation.origin))
    if find_path_problem(handle) is not None:
        return await _without_handle(run, operation, plan, values)
    return await _Wait(run, plan, handle, values).until(seconds, begun)


async def _with_findings(
    run: Run, operation: Operation, plan: WaitPlan, values: Mapping[str, Any], error: CallError
) -> CallError:
    """Look for the thing after a failure that leaves open whether it was made; return the error with what was found."""
    findings = await find_created(run, operation, plan, values)
    if findings is None:
        return error
    if findings.items is None:
        return error.amended(before=findings.hint)
    members: dict[str, Any] = {"found": list(findings.items)}
    if findings.handle is not None and plan.check is not None:
        members["job"] = _describe_job(run, plan, findings.handle)
    return error.amended(hint=findings.hint, members=members)


async def _without_handle(run: Run, operation: Operation, plan: WaitPlan, values: Mapping[str, Any]) -> PendingJob:
    """Look by name for what an accepted call created, if the answer does not say; this is not a failure."""
    findings = await find_created(run, operation, plan, values)
    job = _describe_job(run, plan, findings.handle if findings is not None else None)
    lacks = f"{plan.subject} was begun, but the platform's answer does not say under which {plan.handle_as}."
    if findings is None or findings.items is None:
        next_step = "Do not call again: look for it in a list first."
        job["hint"] = " ".join([lacks, *([] if findings is None else [findings.hint]), next_step])
    else:
        job["hint"] = f"{lacks} {findings.hint}"
        job["found"] = list(findings.items)
    return PendingJob(job, findings.handle if findings is not None else None)


def _describe_job(run: Run, plan: WaitPlan, handle: str | None) -> dict[str, Any]:
    """Return the `job` of an answer before its state is known; without a handle no tool can check it."""
    job: dict[str, Any] = {"operation": run.name, plan.handle_as: handle, "state": None}
    if plan.check is not None and handle is not None:
        job["checkWith"] = plan.check
    return job


class _Wait:
    """Waits for one job."""

    def __init__(self, run: Run, plan: WaitPlan, handle: str, values: Mapping[str, Any]) -> None:
        self._run, self._plan, self._handle = run, plan, handle
        known = _in_path(plan.poll)
        self._polled = {name: value for name, value in values.items() if name in known} | {plan.poll_slot: handle}
        self._job = _describe_job(run, plan, handle)
        self._began = run.now()

    async def until(self, seconds: float, begun: Answer | None) -> EndedJob | PendingJob:
        """Return the end of the job, or its state when the time is up."""
        try:
            return await self._until(seconds, begun)
        except anyio.get_cancelled_exc_class():
            logger.info(
                "%s was cancelled; the job of %s %s goes on", self._run.name, self._plan.handle_as, self._handle
            )
            raise

    async def _until(self, seconds: float, begun: Answer | None) -> EndedJob | PendingJob:
        pause, subject = FIRST_PAUSE, self._plan.subject
        if begun is not None:
            if seconds > 0:
                await self._run.conversation.progress(0, seconds, f"{subject}: begun")
            # The first poll follows at once, unless the platform asks for a pause: many jobs end immediately.
            if not await self._sleep(0, seconds, begun):
                return PendingJob(self._job, self._handle)
        while True:
            # A poll that began in time is worth its answer, but must not hang beyond the time that the agent gave.
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
                    pause = min(pause * 1.5, MAX_PAUSE)
                    continue
            return PendingJob(self._job, self._handle)

    @property
    def _waited(self) -> float:
        return self._run.now() - self._began

    async def _sleep(self, pause: float, seconds: float, last: Answer) -> bool:
        """Pause before the next poll, as long as the platform asks for. Return False if that would be too late."""
        # Polling earlier than the platform asks would be refused with 429, so the wait ends instead.
        asked = read_retry_after(last.headers, self._run.clock()) or 0.0
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
            raise _with_job(error, self._job, "The job goes on at the platform: do not begin it again.") from None
        state = self._plan.state.find(answer.body)
        self._job["state"] = (
            clean_text(format_for_wire(state), MAX_STATE) if isinstance(state, str | int | float) else None
        )
        return answer

    async def _end(self, last: Answer) -> EndedJob:
        plan = self._plan
        if plan.result is None or plan.result_slot is None:
            return EndedJob(plan.poll, last, self._handle, self._job)
        known = _in_path(plan.result)
        values = {name: value for name, value in self._polled.items() if name in known}
        try:
            answer = await self._run.perform(plan.result, {**values, plan.result_slot: self._handle})
        except CallError as error:
            raise _with_job(error, self._job, _ENDED_WELL) from None
        return EndedJob(plan.result, answer, self._handle, self._job)

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
        return JobFailed(
            f"{self._plan.subject} has failed: the platform says {state}{because}.",
            hint=" ".join(["It will not become ready any more.", *hints]),
            details=[{"code": state, "message": reason or f"The platform's state of the job is {state}."}],
            members={"job": dict(self._job)} | await self._remnant(),
        )

    async def _remnant(self) -> dict[str, Any]:
        """Return `left`: the thing that a failed job leaves, by its id and, if it can be read, its name and state."""
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


_Error = TypeVar("_Error", bound=CallError)


def _with_job(error: _Error, job: Mapping[str, Any], hint: str) -> _Error:
    return error.amended(before=hint, members={"job": dict(job), **error.members})


def _find_handle(plan: WaitPlan, begun: Answer | None, values: Mapping[str, Any], origins: frozenset[Origin]) -> str:
    """Return the id of the job; an empty text if the answer has none. A link must lead to one of `origins`."""
    found: Any = ABSENT
    if plan.handle_place == "input":
        found = values.get(plan.handle_name, ABSENT)
    elif begun is not None and plan.handle_place == "header":
        link = begun.headers.get(plan.handle_name, "")
        found = find_last_segment(link) if _is_link_to(link, origins) else ABSENT
    elif begun is not None and plan.handle_path is not None:
        found = plan.handle_path.find(begun.body)
    return format_for_wire(found) if isinstance(found, str) or type(found) is int else ""


def _is_link_to(link: str, origins: frozenset[Origin]) -> bool:
    """Return whether a link is relative or leads to one of these origins: ids of other servers mean nothing here."""
    if not link.isascii() or "/" not in link or " " in link:
        return False
    try:
        parts = urlsplit(link)
        return not (parts.scheme or parts.netloc) or split_url(link)[0] in origins
    except ValueError:
        return False


def _in_path(operation: Operation) -> frozenset[str]:
    return frozenset(part.name for segment in operation.path for part in segment if isinstance(part, Slot))


# --- after a write whose result is not known: look for the thing by name before anyone makes it a second time --------

MAX_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Findings:
    """The result of looking for a thing: `items` in short form, None if the list could not be read."""

    items: tuple[Mapping[str, Any], ...] | None
    hint: str
    """What was looked for and what to do next."""
    handle: str | None = None
    """The id of the thing, if exactly one was found."""


async def find_created(run: Run, operation: Operation, plan: WaitPlan, values: Mapping[str, Any]) -> Findings | None:
    """Look in the list that `x-wait` names with `find`; return None if there is nothing to look for.

    The list is narrowed by the inputs that it shares with the operation (`iTwinId`, `name`; not what the file fixes,
    such as `Accept`). An element is the thing if it has the same values. If one of them has no value, as for a clone
    that takes over its source's name, nothing is looked for.
    """
    listing = plan.find
    if listing is None or listing.page is None:
        return None
    fixed = {parameter.name for parameter in listing.parameters if parameter.value is not None}
    paging = {listing.page.size, listing.page.skip, listing.page.token}
    shared = sorted((listing.inputs & operation.inputs) - fixed - paging)
    wanted = {name: values[name] for name in shared if values.get(name) is not None}
    if not shared or len(wanted) < len(shared):
        return None
    by = " and ".join(f"{name} {value!r}" for name, value in wanted.items())
    try:
        items = listing.page.items.find((await run.perform(listing, wanted)).body)
    except CallError as failure:
        return Findings(None, f"Looking for {by} failed too ({failure.code}).")
    matches = [item for item in items if _is_match(item, wanted)] if isinstance(items, list) else []
    shown = ("id", *shared, "state", "createdDateTime")
    brief = tuple({key: item[key] for key in shown if key in item} for item in matches[:MAX_SHOWN])
    if not matches:
        return Findings(
            brief,
            f"Looked for {by}: it is not there (yet). Look once more with the list tool in a minute, and only if it is "
            "still missing then call again.",
        )
    identifier = matches[0].get("id")
    known = len(matches) == 1 and isinstance(identifier, str) and find_path_problem(identifier) is None
    check = f" ({plan.check})" if plan.check else ""
    return Findings(
        brief,
        f"Looked for {by}: it is there, see found. Unless it is older than this call, this call has made it: go on "
        f"with it{check}, and do not call again.",
        identifier if known else None,
    )


def _is_match(item: Any, wanted: Mapping[str, Any]) -> bool:
    """Return whether an element is the created thing; a list may omit a field that it was filtered by."""
    return isinstance(item, dict) and all(name not in item or item[name] == value for name, value in wanted.items())
