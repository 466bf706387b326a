"""A flow: requests one after another, each with what the earlier ones gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import anyio

from itwin_mcp.capability.expressions import ABSENT, Expression, StepValue, Text, evaluate, wire_text
from itwin_mcp.capability.plans import (
    CallStep,
    Condition,
    EachPlan,
    LookupStep,
    Operation,
    RepeatPlan,
    Requirement,
    Slot,
    Step,
    Steps,
    TransferPlan,
)
from itwin_mcp.capability.transfers import FILE
from itwin_mcp.errors import CallError, PlatformError, UnexpectedAnswer
from itwin_mcp.executor.elements import check_date, counted, distinct, elements_of, look_up
from itwin_mcp.executor.paging import MOST_PAGES, list_all
from itwin_mcp.executor.request import bind, unfit_for_path
from itwin_mcp.executor.sending import Run
from itwin_mcp.executor.shape import convert, shape_part, warn_on_the_way
from itwin_mcp.executor.transfer import local_file, move_file, replaceable
from itwin_mcp.executor.waiting import Pending, run_job

MOST_ITEMS = 5_000
"""Items that a paged step takes."""
MAX_READS = 25
"""Requests of one call that only reads, those that look up names included."""
AT_ONCE = 8
"""Requests of one `x-each` under way at the same time."""


async def run_steps(
    run: Run, action: Steps, arguments: Mapping[str, Any], transfer: TransferPlan | None = None
) -> dict[str, Any]:
    """The steps in order, and the local file moved after the one that gives its link; gives the whole answer.

    The waiting steps share the seconds of the `wait` argument; one whose time is up ends the flow with its `job`, which
    names what was written before it and the steps that remain. What was cut, left out or could not be read is said in
    `page`. A step that fails after others wrote raises its error with `completed`: what was written and stays.
    """
    flow = _Flow(run, action, arguments, transfer)
    try:
        return await flow.run()
    except CallError as error:
        error.completed = (*flow.completed, *error.completed)
        if flow.page is not None:
            error.hint = f"{error.hint} Not everything was read: {flow.page['stoppedBecause']}."
        if error.completed:
            error.hint = (
                f"{error.hint} What completed names is done and stays: go on from there instead of calling again, or "
                "undo it."
            )
        raise


@dataclass(slots=True)
class _Outcome:
    """What one request of a step gave, or all those of a list or a repetition."""

    value: Any
    ids: list[str] = field(default_factory=list)
    job: dict[str, Any] | None = None
    items: int = 1
    """Of a list, how many came."""
    cut: str | None = None
    """Why it is not all."""
    refused: str | None = None
    """Why there is no value: the status of a refusal that the step tolerates, or that the answer is an odd one."""


class _Flow:
    def __init__(self, run: Run, action: Steps, arguments: Mapping[str, Any], transfer: TransferPlan | None) -> None:
        self.completed: list[dict[str, Any]] = []
        self._run = run
        self._action = action
        self._arguments = arguments
        self._transfer = transfer
        self._results: dict[str, Any] = {FILE: local_file(transfer, arguments)} if transfer is not None else {}
        self._replaces = replaceable(arguments) if transfer is not None else None
        self._returned = 0
        self._cuts: list[str] = []
        self._unreadable: list[UnexpectedAnswer] = []
        self._answered = 0
        self._began = run.now()

    def _requests_left(self, step: CallStep) -> int:
        """Return how many requests a step may send; each later step of a flow that only reads keeps one for itself."""
        steps = self._action.steps
        later = [one for one in steps[steps.index(step) + 1 :] if isinstance(one, CallStep)]
        if not self._action.only_reads:
            return MOST_PAGES
        return max(MAX_READS - self._run.requests.sent - len(later), 1)

    @property
    def page(self) -> dict[str, Any] | None:
        """What is missing from the answer, in words; None where it is whole."""
        if not self._cuts:
            return None
        why = "; ".join(dict.fromkeys(self._cuts))
        return {"returned": self._returned, "complete": False, "stoppedBecause": why}

    async def run(self) -> dict[str, Any]:
        for step in self._action.steps:
            if isinstance(step, LookupStep):
                check_date(step, self._arguments)
        for index, step in enumerate(self._action.steps):
            if leaves_out(step.condition, self._arguments, self._results):
                continue
            before = list(self.completed)
            job = await self._step(step)
            if job is not None:
                remaining = [later.name for later in self._action.steps[index + 1 :]]
                around = {"completed": before, "remaining": remaining}
                return {"job": {**job, **{name: steps for name, steps in around.items() if steps}}}
            if self._transfer is not None and self._transfer.link.step == step.name:
                await self._move(self._transfer)
        if self._unreadable and not self._answered:
            raise self._unreadable[0]
        answer: dict[str, Any] = {}
        for mapping in self._action.mappings:
            value = self._value(mapping.value)
            source = mapping.value
            if isinstance(source, StepValue) and source.step in self._results:
                warn_on_the_way(source.path, self._results[source.step], source.step, self._run.warnings)
            if value is not ABSENT:
                _put(answer, mapping.target, value if mapping.count is None else counted(value, mapping.count))
        # The flow places every value itself: a member that is not there belongs to a step that was skipped.
        shaped: dict[str, Any] = shape_part(self._action.output, answer, {}, "$", self._run.warnings)
        return {**shaped, "page": self.page} if self.page is not None else shaped

    def _value(self, expression: Expression) -> Any:
        return evaluate(expression, self._arguments, self._results)

    async def _move(self, transfer: TransferPlan) -> None:
        """Move the local file; the seconds of `wait` are not spent on it."""
        began = self._run.now()
        self._results[FILE] = await move_file(self._run, transfer, self._arguments, self._results, self._replaces)
        self._began += self._run.now() - began

    async def _step(self, step: Step) -> dict[str, Any] | None:
        """Take one step; gives the job that it is left waiting for, if it is."""
        job = None
        if isinstance(step, LookupStep):
            self._results[step.name] = self._look_up(step)
        elif step.each is None:
            values, defaults = bind_step(step, self._arguments, self._results)
            if step.defaults is not None:
                self._results[step.defaults.name] = defaults
            lacking = _find_lacking(step, values)
            if lacking is not None:
                raise self._unreadable[0] if self._unreadable else _without_id(step, lacking)
            outcome = await self._tolerant(step, values, self._requests_left(step))
            self._note(step, [outcome])
            if outcome.refused is None:
                self._results[step.name] = outcome.value
            job = outcome.job
        else:
            elements, bound = self._bind_each(step, step.each, self._elements(step, step.each))
            elements, bound = self._limit_each(step, elements, bound)
            outcomes = await self._each(step, bound)
            answered = [pair for pair in zip(elements, outcomes, strict=True) if pair[1].refused is None]
            self._results[step.name] = [outcome.value for _, outcome in answered]
            if step.each.name is not None:
                self._results[step.each.name] = [element for element, _ in answered]
            job = next((outcome.job for outcome in outcomes if outcome.job is not None), None)
        if job is None and step.require is not None:
            _require(step.require, self._results.get(step.name, ABSENT))
        return job

    def _look_up(self, step: LookupStep) -> list[dict[str, Any]]:
        per_element = any(
            isinstance(one, CallStep) and one.name == step.index and one.each is not None for one in self._action.steps
        )
        elements = elements_of(self._results.get(step.index), per_element=per_element)
        return look_up(step, elements, self._value(step.value), self._run.warnings)

    # --- once per element ---------------------------------------------------------------------------------------

    def _elements(self, step: CallStep, each: EachPlan) -> list[Any]:
        """What a step runs once for each of."""
        found: list[Any] = []
        for expression in each.lists:
            value = self._value(expression)
            if isinstance(value, list):
                found.extend(value)
            elif value is ABSENT or value is None:
                continue
            elif each.most is not None:
                found.append(value)
            else:
                self._cuts.append(f"{step.name}: what it goes through is not a list in the platform's answer")
        if each.most is None:
            return found
        found = distinct(found)
        if len(found) > each.most:
            self._cuts.append(f"{step.name}: only the first {each.most} of {len(found)} are read here")
        return found[: each.most]

    def _bind_each(self, step: CallStep, each: EachPlan, elements: list[Any]) -> tuple[list[Any], list[dict[str, Any]]]:
        """Return the elements that a request can be sent for, and the values of each.

        Elements of an answer that have no id are counted in `page`. Those that the caller gave are all taken: one that
        is no id is refused before it is sent.
        """
        bound = [bind(step.bindings, self._arguments, {**self._results, "each": element}) for element in elements]
        ours = all(isinstance(expression, StepValue) for expression in each.lists)
        pairs = []
        for element, values in zip(elements, bound, strict=True):
            lacking = _find_lacking(step, values)
            if lacking is not None and lacking.step != "each":
                raise _without_id(step, lacking)
            if lacking is None or not ours:
                pairs.append((element, values))
        if len(pairs) < len(elements):
            self._cuts.append(f"{step.name}: {len(elements) - len(pairs)} of {len(elements)} have no id")
        return [element for element, _ in pairs], [values for _, values in pairs]

    def _limit_each(
        self, step: CallStep, elements: list[Any], bound: list[dict[str, Any]]
    ) -> tuple[list[Any], list[dict[str, Any]]]:
        """Return no more elements than a call that only reads may send requests for; `page` says what is left out."""
        most = self._requests_left(step) if self._action.only_reads else len(bound)
        if len(bound) > most:
            self._cuts.append(f"{step.name}: only the first {most} of {len(bound)} are read here")
        return elements[:most], bound[:most]

    async def _each(self, step: CallStep, bound: list[dict[str, Any]]) -> list[_Outcome]:
        """Send one request for each; after a failure begin none that was not under way."""
        share = max(self._requests_left(step) // max(len(bound), 1), 1)
        gathered: list[_Outcome | None] = [None] * len(bound)
        failures: dict[int, CallError] = {}
        limiter = anyio.CapacityLimiter(AT_ONCE)

        async def one(index: int, values: dict[str, Any]) -> None:
            async with limiter:
                if failures:
                    return
                try:
                    gathered[index] = await self._tolerant(step, values, share)
                except CallError as error:
                    failures[index] = error

        async with anyio.create_task_group() as tasks:
            for index, values in enumerate(bound):
                tasks.start_soon(one, index, values)
        done = [outcome for outcome in gathered if outcome is not None]
        self._note(step, done)
        if failures:
            raise failures[min(failures)]
        return done

    # --- one run of a step --------------------------------------------------------------------------------------

    async def _tolerant(self, step: CallStep, values: Mapping[str, Any], requests: int) -> _Outcome:
        """Run a step once, a list in at most so many `requests`; a refusal that it tolerates is no failure."""
        try:
            if step.repeat is not None:
                return await self._repeat(step, step.repeat, values, requests)
            return await self._once(step, values, requests)
        except PlatformError as error:
            if error.status not in step.tolerate:
                raise
            return _Outcome(None, refused=str(error.status))
        except UnexpectedAnswer as error:
            # What the other steps read can be given without it, unless something is decided by it.
            if not self._action.only_reads or step.require is not None:
                raise
            self._unreadable.append(error)
            return _Outcome(None, refused="the platform's answer is not what was expected")

    async def _repeat(self, step: CallStep, repeat: RepeatPlan, values: Mapping[str, Any], requests: int) -> _Outcome:
        """Send until the answer says that it was the last; what was done before a failure is noted."""
        most = min(repeat.most, requests)
        outcome: _Outcome | None = None
        try:
            for sent in range(1, most + 1):
                outcome = await self._once(step, values, MOST_PAGES)
                last = convert("boolean", repeat.until.find(outcome.value))
                if last is None:
                    raise _unfinished(step, repeat)
                if last:
                    return outcome
                told = f"{step.name}: {sent} requests done, at most {most}"
                await self._run.conversation.progress(sent, most, told)
        except CallError:
            self._note(step, [outcome] if outcome is not None else [])
            raise
        assert outcome is not None
        outcome.cut = f"not all is done after {most} requests, call again to go on"
        return outcome

    async def _once(self, step: CallStep, values: Mapping[str, Any], requests: int) -> _Outcome:
        operation = step.operation
        if operation.page is not None:
            pages = requests if step.most is None else min(requests, ceil(step.most / operation.page.most))
            answer, page = await list_all(self._run, operation, values, most=step.most or MOST_ITEMS, pages=pages)
            items = operation.page.items.find(answer.body)
            cut = page["stoppedBecause"] if page is not None else None
            return _Outcome(self._named(step, answer.body), items=len(items or ()), cut=cut)
        if operation.wait is not None:
            seconds = float(self._arguments.get("wait", operation.wait.default))
            left = max(seconds - (self._run.now() - self._began), 0.0)
            ended = await run_job(self._run, operation, values, seconds=left)
            if isinstance(ended, Pending):
                return _Outcome(None, [ended.handle] if ended.handle is not None else [], ended.job)
            return _Outcome(self._named(step, ended.answer.body), [ended.handle])
        body = (await self._run.perform(operation, values)).body
        return _Outcome(self._named(step, body), _ids(body) or _last_in_path(operation, values))

    def _named(self, step: CallStep, body: Any) -> Any:
        """The named values that an operation gives to later steps, or its whole answer."""
        if not step.operation.outputs:
            return body
        named: dict[str, Any] = {}
        for name, path in step.operation.outputs.items():
            value = path.find(body)
            warn_on_the_way(path, body, step.name, self._run.warnings)
            named[name] = None if value is ABSENT else value
        return named

    def _note(self, step: CallStep, outcomes: list[_Outcome]) -> None:
        """Remember what a step wrote, and what is missing from what it read."""
        answered = [outcome for outcome in outcomes if outcome.refused is None]
        self._answered += len(answered)
        if step.operation.method != "GET" and answered:
            self.completed.append({"step": step.name, "ids": [one for outcome in answered for one in outcome.ids]})
        cuts = [outcome.cut for outcome in answered if outcome.cut is not None]
        if step.partial is not None and answered:
            cuts.append(step.partial)
        refused = sorted({outcome.refused for outcome in outcomes if outcome.refused is not None})
        if refused:
            which = f"{len(outcomes) - len(answered)} of {len(outcomes)} " if step.each is not None else ""
            verb = "read" if step.operation.method == "GET" else "done"
            cuts.append(f"{which}could not be {verb} ({', '.join(refused)})")
        if cuts:
            self._cuts.extend(f"{step.name}: {cut}" for cut in cuts)
            self._returned += sum(outcome.items for outcome in answered)


def bind_step(
    step: CallStep, arguments: Mapping[str, Any], results: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the values of a step's inputs, and those among them that are defaults."""
    values = bind(step.bindings, arguments, results)
    defaults: dict[str, Any] = {}
    for name, expression, words in () if step.defaults is None else step.defaults.values:
        found = evaluate(expression, arguments, results) if name not in values else None
        value = found if words is None else words.get(found) if isinstance(found, str) else None
        if value is not ABSENT and value is not None:
            defaults[name] = value
    return values | defaults, defaults


def leaves_out(condition: Condition, arguments: Mapping[str, Any], results: Mapping[str, Any]) -> bool:
    """Whether a step is left out after these results of the steps before it."""
    if condition.when is not None and _says_no(evaluate(condition.when, arguments, results)):
        return True
    return condition.unless is not None and not _says_no(evaluate(condition.unless, arguments, results))


def _find_lacking(step: CallStep, values: Mapping[str, Any]) -> StepValue | None:
    """Return the place of an earlier answer where an id is missing that the request of a step needs.

    It needs whatever stands in its path, and whatever is called an id or an index: without them the request would be
    about another thing.
    """
    for name, expression in step.bindings.items():
        parts = expression.parts if isinstance(expression, Text) else (expression,)
        source = next((one for one in parts if isinstance(one, StepValue) and one.step != FILE), None)
        if source is not None and _is_needed(step, name, source) and not _is_id(values.get(name)):
            return source
    return None


def _is_needed(step: CallStep, name: str, source: StepValue) -> bool:
    leaf = source.path.parts[-1] if source.path.parts else None
    return name in step.operation.required or (isinstance(leaf, str) and leaf.endswith(("id", "Id", "Index")))


def _is_id(value: Any) -> bool:
    """Whether a value of an answer can be the id of something."""
    return (isinstance(value, str) or type(value) is int) and unfit_for_path(wire_text(value)) is None


def _without_id(step: CallStep, lacking: StepValue) -> UnexpectedAnswer:
    where = f"{lacking.step}{lacking.path.text.removeprefix('$')}"
    return UnexpectedAnswer(
        f"The platform's answer has no id at {where}, without which the step {step.name} cannot be done.",
        hint="Look at what is there before you call again. If it stays so, report it with this message.",
    )


def _require(requirement: Requirement, result: Any) -> None:
    if _says_no(requirement.path.find(result)):
        raise CallError(requirement.code, requirement.message, hint=requirement.hint)


def _empty(value: Any) -> bool:
    return value is ABSENT or value is None or value in ("", [], {})


def _says_no(value: Any) -> bool:
    """Whether a path leads to nothing, or to a plain no."""
    return value is False or _empty(value)


def _unfinished(step: CallStep, repeat: RepeatPlan) -> UnexpectedAnswer:
    return UnexpectedAnswer(
        f"The step {step.name} is sent until {repeat.until.text} is true, but the answer does not say.",
        hint="The platform accepted the change: do not repeat it, look at the result first.",
    )


def _ids(body: Any) -> list[str]:
    """The ids in what a writing step answered, one level down: `{iModel: {id}}`, `{users: [{id}]}`."""
    if not isinstance(body, dict):
        return []
    found = [body]
    for child in body.values():
        found += child if isinstance(child, list) else [child]
    ids = [one.get("id") for one in found if isinstance(one, dict)]
    return [wire_text(identifier) for identifier in ids if _is_id(identifier)]


def _last_in_path(operation: Operation, values: Mapping[str, Any]) -> list[str]:
    """What a write without an answer was about: the last id of its path."""
    named = [part.name for segment in operation.path for part in segment if isinstance(part, Slot)]
    return [str(values[named[-1]])] if named and named[-1] in values else []


def _put(answer: dict[str, Any], target: tuple[str, ...], value: Any) -> None:
    for name in target[:-1]:
        inner = answer.get(name)  # it may be a part of the platform's answer, which stays as it came
        answer[name] = dict(inner) if isinstance(inner, dict) else {}
        answer = answer[name]
    answer[target[-1]] = value
