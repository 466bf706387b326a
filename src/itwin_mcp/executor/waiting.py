"""Starts jobs of the platform and waits for them: polls with growing pauses until the job or the time has ended.

A job that is still running, or whose outcome is unknown, must not be started a second time. So a timeout, a lost answer
and an unknown state are never reported as failures: the answer or error has the job, and what a search found of it.
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
"""Seconds that a poll may continue after the time is up, if it began before."""
MAX_STATE = 100
"""Characters of a reported state."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EndedJob:
    """A job that succeeded. The tool's outputs are taken from `answer`, which `operation` returned."""

    operation: Operation
    answer: Answer
    handle: str
    job: dict[str, Any]
    """The member `job` of an error about the answer."""

    def explain(self, error: UnexpectedAnswer) -> UnexpectedAnswer:
        """Return an error about the answer, extended with the hint that the job itself succeeded."""
        return _add_job(error, self.job, _SUCCEEDED)


@dataclass(frozen=True, slots=True)
class PendingJob:
    """A job that is still running, or whose state is unknown; `job` is the answer's member of that name."""

    job: dict[str, Any]
    handle: str | None
    """The id of the job; None if the platform did not return it and no search found it."""


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
    # An operation that only follows a job (its handle is an input, its method GET) starts nothing.
    only_follows = plan.handle_place == "input" and operation.method == "GET"
    try:
        begun = None if only_follows else await run.perform(operation, values)
    except CallError as error:
        # The request may have been carried out although its answer was lost or is odd. Before an agent starts the job a
        # second time, look whether it exists.
        if error.members.get("outcomeUnknown") or isinstance(error, UnexpectedAnswer):
            raise await _add_findings(run, operation, plan, values, error) from None
        raise
    handle = _find_handle(plan, begun, values, run.find_origins(operation.origin))
    if not only_follows and find_path_problem(handle) is not None:
        return await _find_job(run, operation, plan, values)
    return await _Wait(run, plan, handle, values).wait(seconds, begun)


async def _add_findings(
    run: Run, operation: Operation, plan: WaitPlan, values: Mapping[str, Any], error: CallError
) -> CallError:
    """Search for the thing after an error that may have created it. Return the error with the results."""
    findings = await find_created(run, operation, plan, values)
    if findings is None:
        return error
    if findings.items is None:
        return error.amended(before=findings.hint)
    members: dict[str, Any] = {"found": list(findings.items)}
    if findings.handle is not None and plan.check is not None:
        members["job"] = _describe_job(run, plan, findings.handle)
    return error.amended(hint=findings.hint, members=members)


async def _find_job(run: Run, operation: Operation, plan: WaitPlan, values: Mapping[str, Any]) -> PendingJob:
    """Search by name for what an accepted call created, if its answer has no id. This is not an error."""
    findings = await find_created(run, operation, plan, values)
    handle = findings.handle if findings is not None else None
    job = _describe_job(run, plan, handle)
    lacks = f"{plan.subject} was begun, but the platform's answer does not say under which {plan.handle_as}."
    if findings is None or findings.items is None:
        next_step = "Do not call again: look for it in a list first."
        job["hint"] = " ".join([lacks, *([] if findings is None else [findings.hint]), next_step])
    else:
        job["hint"] = f"{lacks} {findings.hint}"
        job["found"] = list(findings.items)
    return PendingJob(job, handle)


def _describe_job(run: Run, plan: WaitPlan, handle: str | None) -> dict[str, Any]:
    """Return the member `job` of an answer before the state is known. Without a handle no tool can check the job."""
    job: dict[str, Any] = {"operation": run.name, plan.handle_as: handle, "state": None}
    if plan.check is not None and handle is not None:
        job["checkWith"] = plan.check
    return job


class _Wait:
    """Waits for one job."""

    def __init__(self, run: Run, plan: WaitPlan, handle: str, values: Mapping[str, Any]) -> None:
        self._run, self._plan, self._handle = run, plan, handle
        self._poll_values = _select_path_values(plan.poll, values) | {plan.poll_slot: handle}
        self._job = _describe_job(run, plan, handle)
        self._began = run.now()

    async def wait(self, seconds: float, begun: Answer | None) -> EndedJob | PendingJob:
        """Return the ended job, or its state when the time is up."""
        try:
            pause, subject = FIRST_PAUSE, self._plan.subject
            if begun is not None:
                if seconds > 0:
                    await self._run.conversation.progress(0, seconds, f"{subject}: begun")
                # The first poll follows at once, unless the platform asks for a pause: many jobs end immediately.
                if not await self._sleep(0, seconds, begun):
                    return PendingJob(self._job, self._handle)
            while True:
                # Use the answer of a poll that began in time, but do not hang much longer than the agent allowed.
                with anyio.move_on_after(max(seconds - self._waited, 0) + LAST_LOOK):
                    answer = await self._poll()
                    state = self._job["state"] or "state not reported"
                    if state.casefold() in self._plan.done:
                        return await self._read_result(answer)
                    if state.casefold() in self._plan.failed:
                        raise await self._build_failure(answer, state)
                    # A state that no list names may be a new word for "pending". Calling it a failure would make agents
                    # start the job a second time, so it is awaited like a pending one and reported as it is.
                    waited = min(self._waited, seconds)
                    text = f"{subject}: {state}, not ready after {waited:.0f} of at most {seconds:.0f} s"
                    await self._run.conversation.progress(waited, seconds, text)
                    if await self._sleep(pause, seconds, answer):
                        pause = min(pause * 1.5, MAX_PAUSE)
                        continue
                return PendingJob(self._job, self._handle)
        except anyio.get_cancelled_exc_class():
            logger.info(
                "%s was cancelled; the job of %s %s goes on", self._run.name, self._plan.handle_as, self._handle
            )
            raise

    @property
    def _waited(self) -> float:
        return self._run.now() - self._began

    async def _sleep(self, pause: float, seconds: float, last: Answer) -> bool:
        """Pause before the next poll, as long as the platform asks for. Return False if that would be too late."""
        # Polling earlier than the platform asks would be refused with 429, so the wait ends instead.
        retry_after = read_retry_after(last.headers, self._run.clock()) or 0.0
        left = seconds - self._waited
        if left < 0.05 or retry_after > left:
            return False
        pause = min(max(pause, retry_after), left)
        if pause > 0:
            await self._run.sleep(pause)
        return True

    async def _poll(self) -> Answer:
        try:
            answer = await self._run.perform(self._plan.poll, self._poll_values)
        except CallError as error:
            # The job continues although its state is unreadable. An agent must not start it a second time.
            raise _add_job(error, self._job, "The job goes on at the platform: do not begin it again.") from None
        state = self._plan.state.find(answer.body)
        self._job["state"] = (
            clean_text(format_for_wire(state), MAX_STATE) if isinstance(state, str | int | float) else None
        )
        return answer

    async def _read_result(self, last: Answer) -> EndedJob:
        plan = self._plan
        if plan.result is None or plan.result_slot is None:
            return EndedJob(plan.poll, last, self._handle, self._job)
        values = _select_path_values(plan.result, self._poll_values) | {plan.result_slot: self._handle}
        try:
            answer = await self._run.perform(plan.result, values)
        except CallError as error:
            raise _add_job(error, self._job, _SUCCEEDED) from None
        return EndedJob(plan.result, answer, self._handle, self._job)

    async def _build_failure(self, answer: Answer, state: str) -> JobFailed:
        plan = self._plan
        text = plan.reason.find(answer.body) if plan.reason is not None else None
        reason = text if isinstance(text, str) else ""
        because = f", because: {reason}" if reason else ""
        # A job about a thing that existed before leaves nothing to remove.
        fix = "Correct"
        if plan.handle_place != "input":
            fix = f"Remove what it left ({plan.handle_as} {self._handle}), correct"
        advice = plan.causes.get(state.casefold()) or f"{fix} the cause, then begin again."
        return JobFailed(
            f"{plan.subject} has failed: the platform says {state}{because}.",
            hint=" ".join(filter(None, ["It will not become ready any more.", advice, plan.left])),
            details=[{"code": state, "message": reason or f"The platform's state of the job is {state}."}],
            members={"job": dict(self._job)} | await self._describe_remnant(),
        )

    async def _describe_remnant(self) -> dict[str, Any]:
        """Return the member `left`: the thing that a failed job leaves, with its id and, if readable, its state."""
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


_SUCCEEDED = "The job has ended well, only reading its result failed: do not begin it again."


_Error = TypeVar("_Error", bound=CallError)


def _add_job(error: _Error, job: Mapping[str, Any], hint: str) -> _Error:
    return error.amended(before=hint, members={"job": dict(job), **error.members})


def _find_handle(plan: WaitPlan, begun: Answer | None, values: Mapping[str, Any], origins: frozenset[Origin]) -> str:
    """Return the id of the job, or an empty text if the answer has none. A link must lead to one of `origins`."""
    handle: Any = ABSENT
    if plan.handle_place == "input":
        handle = values.get(plan.handle_name)
    elif begun is not None and plan.handle_place == "header":
        link = begun.headers.get(plan.handle_name, "")
        handle = find_last_segment(link) if _is_link_to(link, origins) else ABSENT
    elif begun is not None and plan.handle_path is not None:
        handle = plan.handle_path.find(begun.body)
    return format_for_wire(handle) if isinstance(handle, str) or type(handle) is int else ""


def _is_link_to(link: str, origins: frozenset[Origin]) -> bool:
    """Return whether a link is relative or leads to one of these origins; ids of other servers mean nothing here."""
    if not link.isascii() or "/" not in link or " " in link:
        return False
    try:
        parts = urlsplit(link)
        return not (parts.scheme or parts.netloc) or split_url(link)[0] in origins
    except ValueError:
        return False


def _select_path_values(operation: Operation, values: Mapping[str, Any]) -> dict[str, Any]:
    names = {part.name for segment in operation.path for part in segment if isinstance(part, Slot)}
    return {name: value for name, value in values.items() if name in names}


# --- after a write of unknown result: search for the thing by name before an agent creates it a second time ----------

MAX_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Findings:
    """The result of searching for a thing: `items` in short form, None if the list could not be read."""

    items: tuple[Mapping[str, Any], ...] | None
    hint: str
    """The search and the next step, as a text for the agent."""
    handle: str | None = None
    """The id of the thing, if exactly one was found."""


async def find_created(run: Run, operation: Operation, plan: WaitPlan, values: Mapping[str, Any]) -> Findings | None:
    """Search the list that `find` of `x-wait` names. Return None if there is nothing to search by.

    The search uses the inputs that the list shares with the operation, such as `iTwinId` and `name`, except those that
    the capability file fixes, such as `Accept`. An item matches if it has the same values. If one of the inputs has no
    value, for example because a clone takes over the name of its source, no search is made.
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
    is_unique = len(matches) == 1 and isinstance(identifier, str) and find_path_problem(identifier) is None
    check = f" ({plan.check})" if plan.check else ""
    return Findings(
        brief,
        f"Looked for {by}: it is there, see found. Unless it is older than this call, this call has made it: go on "
        f"with it{check}, and do not call again.",
        identifier if is_unique else None,
    )


def _is_match(item: Any, wanted: Mapping[str, Any]) -> bool:
    """Return whether an item can be the created thing. A list may omit a field that it was filtered by."""
    return isinstance(item, dict) and all(name not in item or item[name] == value for name, value in wanted.items())
