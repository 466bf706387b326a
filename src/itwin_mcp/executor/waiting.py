"""A job of the platform, awaited: polled with growing pauses until it has ended or the time is up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from itwin_mcp.capability.catalog import Operation, Slot, WaitPlan
from itwin_mcp.capability.expressions import ABSENT
from itwin_mcp.errors import CallError, JobFailed, UnexpectedAnswer
from itwin_mcp.executor.sending import Answer, Run
from itwin_mcp.executor.shape import last_segment

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 5.0
"""Seconds."""


class Ended:
    """The job has ended well; `answer` is what the tool's outputs are taken from."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer


class Pending:
    """The job goes on; `job` is the answer's member of that name."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job


async def await_job(
    run: Run, plan: WaitPlan, started: Answer | None, values: Mapping[str, Any], *, seconds: float, tool: str
) -> Ended | Pending:
    """Wait at most `seconds` for a job.

    `started` is the answer that began it, None when `values` already hold its handle. Raises JobFailed when the job
    ended in a state that is not success. A cancelled wait leaves the job running on the platform.
    """
    handle = _handle(plan, started, values)
    polled = {name: value for name, value in values.items() if name in _path_slots(plan.poll)}
    polled[plan.poll_slot] = handle
    job: dict[str, Any] = {"operation": tool, plan.handle_as: handle, "state": None}
    if plan.check is not None:
        job["checkWith"] = plan.check
    if seconds <= 0:
        return Pending(job)
    began, pause = run.now(), FIRST_PAUSE
    while True:
        answer = await _poll(run, plan, polled, job)
        state = plan.state.find(answer.body)
        if not isinstance(state, str):
            raise UnexpectedAnswer(
                f"The state of the job is missing from the platform's answer at {plan.state.text}.",
                hint=f"The job {handle} goes on; look again later with {plan.check or tool}.",
            )
        job["state"] = state
        if state in plan.done:
            return Ended(await _result(run, plan, polled, handle, answer))
        if state not in plan.pending:
            raise _failed(plan, answer, state, job)
        waited = run.now() - began
        await run.conversation.progress(min(waited, seconds), seconds, f"{plan.subject}: {state}, {waited:.0f} s so far")
        if waited + pause >= seconds:
            if waited >= seconds:
                return Pending(job)
            pause = max(seconds - waited, 0.05)
        await run.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE)


async def _poll(run: Run, plan: WaitPlan, polled: Mapping[str, Any], job: Mapping[str, Any]) -> Answer:
    try:
        return await run.perform(plan.poll, polled)
    except CallError as error:
        # What was begun goes on whether or not we can see it: nobody should begin it a second time.
        error.members.setdefault("job", dict(job))
        error.hint = f"The job goes on at the platform: do not begin it again. {error.hint}"
        raise


async def _result(run: Run, plan: WaitPlan, polled: Mapping[str, Any], handle: Any, last: Answer) -> Answer:
    if plan.result is None or plan.result_slot is None:
        return last
    values = {name: value for name, value in polled.items() if name in _path_slots(plan.result)}
    return await run.perform(plan.result, {**values, plan.result_slot: handle})


def _failed(plan: WaitPlan, answer: Answer, state: str, job: Mapping[str, Any]) -> JobFailed:
    reason = plan.reason.find(answer.body) if plan.reason is not None else None
    because = f" because {reason}" if isinstance(reason, str) and reason else ""
    return JobFailed(
        f"{plan.subject} has failed{because}: the platform's state is {state}.",
        hint="Nothing more will come of this job. Remove what it left, if anything, and begin again after the cause.",
        members={"job": dict(job)},
    )


def _handle(plan: WaitPlan, started: Answer | None, values: Mapping[str, Any]) -> Any:
    found: Any = ABSENT
    if plan.handle_place == "input":
        found = values.get(plan.handle_name, ABSENT)
    elif started is not None and plan.handle_place == "header":
        link = started.headers.get(plan.handle_name, "")
        found = last_segment(link) or ABSENT
    elif started is not None and plan.handle_path is not None:
        found = plan.handle_path.find(started.body)
    if found is ABSENT or found is None:
        raise UnexpectedAnswer(
            f"{plan.subject} was begun, but the platform's answer does not say under which id.",
            hint="Do not begin it again: look for it in a list first.",
        )
    return found


def _path_slots(operation: Operation) -> frozenset[str]:
    return frozenset(part.name for segment in operation.path for part in segment if isinstance(part, Slot))
