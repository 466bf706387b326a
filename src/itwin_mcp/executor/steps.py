"""A flow: requests one after another, each with what the earlier ones gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio

from itwin_mcp.capability.catalog import (
    CallStep,
    LookupStep,
    Operation,
    Requirement,
    Slot,
    Step,
    Steps,
    TransferPlan,
)
from itwin_mcp.capability.expressions import ABSENT, evaluate
from itwin_mcp.capability.transfers import FILE
from itwin_mcp.errors import CallError, UnexpectedAnswer
from itwin_mcp.executor.paging import list_all
from itwin_mcp.executor.request import bind
from itwin_mcp.executor.sending import Run
from itwin_mcp.executor.shape import shape_part
from itwin_mcp.executor.transfer import local_file, move_file
from itwin_mcp.executor.waiting import Pending, run_job

MOST_ITEMS = 5_000
"""Items that a paged step takes."""
AT_ONCE = 8
"""Requests of one `x-each` under way at the same time."""


async def run_steps(
    run: Run, action: Steps, arguments: Mapping[str, Any], transfer: TransferPlan | None = None
) -> dict[str, Any]:
    """The steps in order, and the local file moved after the one that gives its link; gives the whole answer.

    The waiting steps share the seconds of the `wait` argument; one whose time is up ends the flow with its `job`, which
    names the steps that remain. A paged step that is cut says so in `page`. A step that fails after others wrote
    raises its error with `completed`: what was written and stays.
    """
    flow = _Flow(run, action, arguments, transfer)
    try:
        return await flow.run()
    except CallError as error:
        error.completed = tuple(flow.completed)
        if flow.page is not None:
            error.hint = f"{error.hint} Not everything was read: {flow.page['stoppedBecause']}."
        if flow.completed:
            error.hint = (
                f"{error.hint} What completed names is done and stays: go on from there instead of calling again, or "
                "undo it."
            )
        raise


@dataclass(slots=True)
class _Outcome:
    """What one request of a step gave."""

    value: Any
    ids: list[str] = field(default_factory=list)
    job: dict[str, Any] | None = None
    page: dict[str, Any] | None = None


class _Flow:
    def __init__(self, run: Run, action: Steps, arguments: Mapping[str, Any], transfer: TransferPlan | None) -> None:
        self.completed: list[dict[str, Any]] = []
        self._run = run
        self._action = action
        self._arguments = arguments
        self._transfer = transfer
        self._results: dict[str, Any] = {FILE: local_file(transfer, arguments)} if transfer is not None else {}
        self.page: dict[str, Any] | None = None
        self._began = run.now()

    async def run(self) -> dict[str, Any]:
        for index, step in enumerate(self._action.steps):
            if step.when is not None and _skips(evaluate(step.when, self._arguments, self._results)):
                continue
            job = await self._step(step)
            if job is not None:
                remaining = [later.name for later in self._action.steps[index + 1 :]]
                return {"job": {**job, "remaining": remaining} if remaining else job}
            if self._transfer is not None and self._transfer.link.step == step.name:
                await self._move(self._transfer)
        answer: dict[str, Any] = {}
        for target, expression in self._action.mappings:
            value = evaluate(expression, self._arguments, self._results)
            if value is not ABSENT:
                _put(answer, target, value)
        # The flow places every value itself: a member that is not there belongs to a step that was skipped.
        shaped: dict[str, Any] = shape_part(self._action.output, answer, {}, "$")
        return {**shaped, "page": self.page} if self.page is not None else shaped

    async def _move(self, transfer: TransferPlan) -> None:
        """Move the local file; the seconds of `wait` are not spent on it."""
        began = self._run.now()
        self._results[FILE] = await move_file(self._run, transfer, self._arguments, self._results)
        self._began += self._run.now() - began

    async def _step(self, step: Step) -> dict[str, Any] | None:
        """Take one step; gives the job that it is left waiting for, if it is."""
        if isinstance(step, LookupStep):
            self._results[step.name] = self._look_up(step)
        elif step.each is None:
            outcome = await self._once(step.operation, bind(step.bindings, self._arguments, self._results))
            self._note(step, [outcome])
            self._results[step.name] = outcome.value
            if outcome.job is not None:
                return outcome.job
        else:
            outcomes = await self._each(step, evaluate(step.each, self._arguments, self._results))
            self._results[step.name] = [outcome.value for outcome in outcomes]
            jobs = [outcome.job for outcome in outcomes if outcome.job is not None]
            if jobs:
                return jobs[0]
        if step.require is not None:
            _require(step.require, self._results[step.name])
        return None

    async def _each(self, step: CallStep, elements: Any) -> list[_Outcome]:
        """One request per element, in the order of the list; after a failure none is begun that was not under way."""
        if elements is ABSENT or elements is None:
            elements = []
        if not isinstance(elements, list):
            raise UnexpectedAnswer(
                f"The step {step.name} runs once per element, but was not given a list.",
                hint="Report this to the makers of the capability file.",
            )
        gathered: list[_Outcome | None] = [None] * len(elements)
        failures: dict[int, CallError] = {}
        limiter = anyio.CapacityLimiter(AT_ONCE)

        async def one(index: int, element: Any) -> None:
            async with limiter:
                if failures:
                    return
                try:
                    values = bind(step.bindings, self._arguments, {**self._results, "each": element})
                    gathered[index] = await self._once(step.operation, values)
                except CallError as error:
                    failures[index] = error

        async with anyio.create_task_group() as tasks:
            for index, element in enumerate(elements):
                tasks.start_soon(one, index, element)
        done = [outcome for outcome in gathered if outcome is not None]
        self._note(step, done)
        if failures:
            raise failures[min(failures)]
        return done

    def _note(self, step: CallStep, outcomes: list[_Outcome]) -> None:
        """Remember what a step wrote, and whether a list was cut."""
        if step.operation.method != "GET" and outcomes:
            self.completed.append({"step": step.name, "ids": [one for outcome in outcomes for one in outcome.ids]})
        for outcome in outcomes:
            if outcome.page is not None:
                told = f"{step.name}: {outcome.page['stoppedBecause']}"
                earlier = f"{self.page['stoppedBecause']}; " if self.page is not None else ""
                self.page = {**outcome.page, "stoppedBecause": earlier + told}

    async def _once(self, operation: Operation, values: Mapping[str, Any]) -> _Outcome:
        if operation.page is not None:
            answer, page = await list_all(self._run, operation, values, most=MOST_ITEMS)
            return _Outcome(_named(operation, answer.body), page=page)
        if operation.wait is not None:
            seconds = float(self._arguments.get("wait", operation.wait.default))
            left = max(seconds - (self._run.now() - self._began), 0.0)
            ended = await run_job(self._run, operation, values, seconds=left)
            if isinstance(ended, Pending):
                return _Outcome(None, [ended.handle], ended.job)
            return _Outcome(_named(operation, ended.answer.body), [ended.handle])
        body = (await self._run.perform(operation, values)).body
        return _Outcome(_named(operation, body), _ids(body) or _last_in_path(operation, values))

    def _look_up(self, step: LookupStep) -> list[dict[str, Any]]:
        wanted = evaluate(step.value, self._arguments, self._results)
        values = [value for value in (wanted if isinstance(wanted, list) else [wanted]) if value is not None]
        index = self._results.get(step.index)
        if isinstance(index, dict):
            index = next((value for value in index.values() if isinstance(value, list)), [])
        return [
            {name: element.get(name) for name in step.fields}
            for element in index or []
            if isinstance(element, dict) and element.get(step.match) in values
        ]


def _named(operation: Operation, body: Any) -> Any:
    """The named values that an operation gives to later steps, or its whole answer."""
    if not operation.outputs:
        return body
    found = {name: path.find(body) for name, path in operation.outputs.items()}
    return {name: None if value is ABSENT else value for name, value in found.items()}


def _require(requirement: Requirement, result: Any) -> None:
    if _empty(requirement.path.find(result)):
        raise CallError(requirement.code, requirement.message, hint=requirement.hint)


def _empty(value: Any) -> bool:
    return value is ABSENT or value is None or value in ("", [], {})


def _skips(value: Any) -> bool:
    """`x-when` skips where nothing is, and where an argument says no."""
    return value is False or _empty(value)


def _ids(body: Any) -> list[str]:
    """The ids in what a writing step answered, one level down: `{iModel: {id}}`, `{users: [{id}]}`."""
    if not isinstance(body, dict):
        return []
    found = [body]
    for child in body.values():
        found += child if isinstance(child, list) else [child]
    ids = [one.get("id") for one in found if isinstance(one, dict)]
    return [identifier for identifier in ids if isinstance(identifier, str)]


def _last_in_path(operation: Operation, values: Mapping[str, Any]) -> list[str]:
    """What a write without an answer was about: the last id of its path."""
    named = [part.name for segment in operation.path for part in segment if isinstance(part, Slot)]
    return [str(values[named[-1]])] if named and named[-1] in values else []


def _put(answer: dict[str, Any], target: tuple[str, ...], value: Any) -> None:
    for name in target[:-1]:
        answer = answer.setdefault(name, {})
    answer[target[-1]] = value
