"""Flows: requests one after another, each with values from the arguments and from earlier answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import anyio

from itwin_mcp.capability.expressions import (
    ABSENT,
    Argument,
    Expression,
    JsonPath,
    StepValue,
    Text,
    evaluate,
    format_for_wire,
)
from itwin_mcp.capability.operations import Operation, Slot
from itwin_mcp.capability.parameters import MAX_ENTITIES
from itwin_mcp.capability.tool_actions import (
    AcrossPlan,
    Call,
    CallStep,
    Condition,
    EachPlan,
    LookupStep,
    RepeatPlan,
    Requirement,
    Step,
    Steps,
    TransferPlan,
)
from itwin_mcp.capability.transfers import FILE
from itwin_mcp.errors import CallError, PlatformError, UnexpectedAnswer
from itwin_mcp.executor.answers import Warnings, convert, shape_part, warn_about_path
from itwin_mcp.executor.changes import find_changes
from itwin_mcp.executor.context import CallContext
from itwin_mcp.executor.element_lookup import add_fields, check_date, counted, distinct, elements_of, label, look_up
from itwin_mcp.executor.files import describe_file, move_file, stat_replaced_file
from itwin_mcp.executor.paging import MAX_PAGES, ListPlace, Places, list_all
from itwin_mcp.executor.refusals import name_missing_thing
from itwin_mcp.executor.requests import bind, find_path_problem
from itwin_mcp.executor.sending import Run
from itwin_mcp.executor.thing_names import fill_from_steps
from itwin_mcp.executor.waiting import PendingJob, run_job

MAX_ITEMS = 5_000
"""Items that a paged step reads."""
MAX_READS = 25
"""Requests of one call that only reads, those that look up names or read names included."""
MAX_NOT_READ = MAX_ENTITIES
"""Ids that `page.notRead` lists of each kind: as many as an argument takes."""
AT_ONCE = 8
"""Concurrent requests of one `x-each`."""


async def run_flow(context: CallContext) -> CallContext:
    """Stage `run` of a tool with steps. Raises CallError."""
    tool, action = context.tool, context.tool.action
    assert isinstance(action, Steps)
    return context.with_answer(await run_steps(context.run, action, context.arguments, tool.transfer))


async def run_steps(
    run: Run, action: Steps, arguments: Mapping[str, Any], transfer: TransferPlan | None = None
) -> dict[str, Any]:
    """Take the steps in order, move the local file after the step that returns its link, and return the whole answer.

    Waiting steps share the seconds of the `wait` argument. A step that is still waiting then ends the flow with its
    `job`, which names what was written before it and the remaining steps. `page` says what was cut, left out or could
    not be read. If a step fails after others wrote, its error says in `completed` what was written.
    """
    flow = _Flow(run, action, arguments, transfer)
    try:
        return await flow.run()
    except CallError as error:
        completed, unread = (*flow.completed, *error.completed), ""
        if flow.page is not None:
            unread = f"Not everything was read: {flow.page['stoppedBecause']}."
        raise error.amended(after=f"{unread} {_STAYS if completed else ''}".strip(), completed=completed) from None


_STAYS = "What completed names is done and stays: go on from there instead of calling again, or undo it."


async def find_places(run: Run, action: Call, arguments: Mapping[str, Any]) -> Places:
    """Return the places whose lists a call reads: one, or with `x-across` those that its steps and arguments name."""
    values = bind(action.bindings, arguments, {})
    texts = {name: arguments[name].casefold() for name in action.containing if arguments.get(name)}

    def matches(item: Any) -> bool:
        return isinstance(item, dict) and all(
            any(text in str(item.get(member) or "").casefold() for member in action.containing[name])
            for name, text in texts.items()
        )

    filtered = matches if texts else None
    if action.across is None:
        return Places([ListPlace("", values)], None, filtered)
    elements, page = await _Flow(run, action.across.steps, arguments, None).find(action.across)
    places = [
        ListPlace(
            str(element["id"]),
            {**values, action.across.fills: element["id"]},
            {name: element.get(member) for name, member in action.across.label},
        )
        for element in elements
        if isinstance(element, dict) and _is_id(element.get("id"))
    ]
    if len(places) < len(elements):
        nameless = f"{len(elements) - len(places)} of {len(elements)} have no id"
        page = {**page, "stoppedBecause": f"{page['stoppedBecause']}; {nameless}"} if page else {}
        page.setdefault("stoppedBecause", nameless)
    return Places(places, page, filtered)


def pages_left(run: Run, action: Call, places: Places) -> int:
    """Return how many pages a list may take: what is read of several places, or searched by us, is bounded.

    If names are read for what is found, one request is kept for them.
    """
    if len(places.places) == 1 and places.matches is None:
        return MAX_PAGES
    return max(MAX_READS - run.requests.sent - action.output.asks_for_names, 1)


@dataclass(slots=True)
class _StepResult:
    """The result of one request of a step, or of all requests of a list or a repetition."""

    value: Any
    ids: list[str] = field(default_factory=list)
    job: dict[str, Any] | None = None
    items: int = 1
    """The number of items, for a list."""
    cut: str | None = None
    """Why it is incomplete."""
    refused: str | None = None
    """Why there is no value: the status of a tolerated refusal, or that the answer is odd."""
    error: CallError | None = None
    """The error that was tolerated."""


class _Flow:
    def __init__(self, run: Run, action: Steps, arguments: Mapping[str, Any], transfer: TransferPlan | None) -> None:
        self.completed: list[dict[str, Any]] = []
        self._run = run
        self._action = action
        self._arguments = arguments
        self._transfer = transfer
        self._results: dict[str, Any] = {FILE: describe_file(transfer, arguments)} if transfer is not None else {}
        self._replaces = stat_replaced_file(arguments) if transfer is not None else None
        self._returned = 0
        self._cuts: list[str] = []
        self._incomplete: set[str] = set()
        """Steps that did not read everything."""
        self._not_read: dict[str, list[str]] = {}
        self._unreadable: list[UnexpectedAnswer] = []
        self._answered = 0
        self._began = run.now()
        self._names = int(action.output.asks_for_names)
        """Requests for names that follow the steps."""

    def _requests_left(self, step: CallStep) -> int:
        """Return how many requests a step may send; each later step of a flow that only reads keeps one for itself."""
        steps = self._action.steps
        later = [one for one in steps[steps.index(step) + 1 :] if isinstance(one, CallStep)]
        later = [one for one in later if not _is_ruled_out(one.condition, self._arguments)]
        if not self._action.only_reads:
            return MAX_PAGES
        return max(MAX_READS - self._run.requests.sent - len(later) - self._names, 1)

    @property
    def page(self) -> dict[str, Any] | None:
        """The answer's `page`, which says what is missing; None if nothing is."""
        if not self._cuts:
            return None
        unnamed = [
            f"page.notRead names only the first {MAX_NOT_READ} of {len(ids)} {name}: take the others from a list tool"
            for name, ids in self._not_read.items()
            if len(ids) > MAX_NOT_READ
        ]
        why = "; ".join(dict.fromkeys((*self._cuts, *unnamed)))
        page: dict[str, Any] = {"returned": self._returned, "complete": False, "stoppedBecause": why}
        if self._not_read:
            page["notRead"] = {name: ids[:MAX_NOT_READ] for name, ids in self._not_read.items()}
        return page

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
                warn_about_path(source.path, self._results[source.step], source.step, self._run.warnings)
            if value is not ABSENT:
                _put(answer, mapping.target, value if mapping.count is None else counted(value, mapping.count))
        # The flow places every value itself: a member that is not there belongs to a step that was skipped.
        shaped: dict[str, Any] = shape_part(self._action.output, answer, {}, "$", self._run.warnings)
        fill_from_steps(self._action, shaped, self._results)
        return {**shaped, "page": self.page} if self.page is not None else shaped

    async def find(self, across: AcrossPlan) -> tuple[list[Any], dict[str, Any] | None]:
        """Take the steps that look for places. Return these, and the `page` that says what was left out."""
        await self.run()
        found: list[Any] = []
        for expression in across.lists:
            value = self._value(expression)
            found.extend(value if isinstance(value, list) else [] if value is ABSENT or value is None else [value])
        return distinct(_as_element(value) for value in found), self.page

    def _value(self, expression: Expression) -> Any:
        return evaluate(expression, self._arguments, self._results)

    async def _move(self, transfer: TransferPlan) -> None:
        """Move the local file; this does not count towards the seconds of `wait`."""
        began = self._run.now()
        self._results[FILE] = await move_file(self._run, transfer, self._arguments, self._results, self._replaces)
        self._began += self._run.now() - began

    async def _step(self, step: Step) -> dict[str, Any] | None:
        """Take one step. Return its job, if that is still running."""
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
            elements, bound = self._limit_each(step, step.each, elements, bound)
            outcomes = await self._each(step, elements, bound)
            answered = [pair for pair in zip(elements, outcomes, strict=True) if pair[1].refused is None]
            errors = [outcome.error for outcome in outcomes if outcome.error is not None]
            if errors and len(errors) == len(outcomes) and all(map(self._is_given, elements)):
                raise errors[0]
            self._results[step.name] = [_labelled(step.each, *pair) for pair in answered]
            if step.each.name is not None:
                self._results[step.each.name] = [element for element, _ in answered]
            job = next((outcome.job for outcome in outcomes if outcome.job is not None), None)
        if job is None and step.require is not None:
            _require(step.require, self._results.get(step.name, ABSENT))
        return job

    def _look_up(self, step: LookupStep) -> list[dict[str, Any]] | dict[str, list[dict[str, Any]]]:
        per_element = any(
            isinstance(one, CallStep) and one.name == step.index and one.each is not None for one in self._action.steps
        )
        return pick_elements(
            step, self._arguments, self._results, self._run.warnings, self._incomplete, per_element=per_element
        )

    # --- once per element ---------------------------------------------------------------------------------------

    def _elements(self, step: CallStep, each: EachPlan) -> list[Any]:
        """Return the elements that a step runs for."""
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
        found = distinct(map(_as_element, found), [member for _, member in each.label])
        self._leave_out(step, each, found[each.most :], len(found))
        return found[: each.most]

    def _leave_out(self, step: CallStep, each: EachPlan, elements: list[Any], known: int) -> None:
        """Say in `page` what is not read of the `known` elements, and with which argument another call reads it."""
        if not elements:
            return
        cut = f"{step.name}: only the first {known - len(elements)} of {known} are read here"
        if each.again is not None:
            found = [element.get("id") for element in elements if isinstance(element, dict)]
            ids = [str(identifier) for identifier in found if _is_id(identifier)]
            self._not_read.setdefault(each.again, []).extend(ids)
            cut += f", call again with {each.again} from page.notRead"
        self._cuts.append(cut)
        self._incomplete.add(step.name)

    def _is_given(self, element: Any) -> bool:
        """Return whether the caller named this element by its id."""
        ids = [value for value in self._arguments.values() if isinstance(value, str | list)]
        identifier = element.get("id") if isinstance(element, dict) else None
        return any(identifier == value or (isinstance(value, list) and identifier in value) for value in ids)

    def _bind_each(self, step: CallStep, each: EachPlan, elements: list[Any]) -> tuple[list[Any], list[dict[str, Any]]]:
        """Return the elements that a request can be sent for, and the values of each.

        Elements of an answer without an id are counted in `page`. Those of the caller are all taken: a text that is not
        an id is refused before it is sent.
        """
        bound = [bind(step.bindings, self._arguments, {**self._results, "each": element}) for element in elements]
        ours = any(isinstance(expression, StepValue) for expression in each.lists)
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
        self, step: CallStep, each: EachPlan, elements: list[Any], bound: list[dict[str, Any]]
    ) -> tuple[list[Any], list[dict[str, Any]]]:
        """Return no more elements than a call that only reads may send requests for; `page` says what is left out."""
        most = self._requests_left(step) if self._action.only_reads else len(bound)
        self._leave_out(step, each, elements[most:], len(elements))
        return elements[:most], bound[:most]

    async def _each(self, step: CallStep, elements: list[Any], bound: list[dict[str, Any]]) -> list[_StepResult]:
        """Send one request for each element; after a failure no further one is begun.

        Reads are sent several at a time. Changes are sent one after another, because their order may matter.
        """
        share = max(self._requests_left(step) // max(len(bound), 1), 1)
        gathered: list[_StepResult | None] = [None] * len(bound)
        failures: dict[int, CallError] = {}
        limiter = anyio.CapacityLimiter(AT_ONCE)
        reads = step.operation.method == "GET"

        # All that are under way are awaited, also after a failure: a write that was sent belongs into `completed`.
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
                if reads:
                    tasks.start_soon(one, index, values)
                else:
                    await one(index, values)
        done = [(element, outcome) for element, outcome in zip(elements, gathered, strict=True) if outcome is not None]
        self._note(step, [outcome for _, outcome in done], [element for element, _ in done])
        if failures:
            raise failures[min(failures)]
        return [outcome for _, outcome in done]

    # --- one run of a step --------------------------------------------------------------------------------------

    async def _tolerant(self, step: CallStep, values: Mapping[str, Any], requests: int) -> _StepResult:
        """Run a step once, a list in at most so many `requests`; a tolerated refusal is not a failure."""
        try:
            if step.repeat is not None:
                return await self._repeat(step, step.repeat, values, requests)
            return await self._once(step, values, requests)
        except PlatformError as error:
            if error.status not in step.tolerate:
                raise name_missing_thing(error, step) from None
            return _StepResult(None, refused=str(error.status), error=error)
        except UnexpectedAnswer as error:
            # What the other steps read can be given without it, unless something is decided by it.
            if not self._action.only_reads or step.require is not None:
                raise
            self._unreadable.append(error)
            return _StepResult(None, refused="the platform's answer is not what was expected")

    async def _repeat(
        self, step: CallStep, repeat: RepeatPlan, values: Mapping[str, Any], requests: int
    ) -> _StepResult:
        """Repeat a step until its answer says that it was the last; what was done before a failure is noted."""
        most = min(repeat.most, requests)
        outcome: _StepResult | None = None
        try:
            for sent in range(1, most + 1):
                outcome = await self._once(step, values, MAX_PAGES)
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

    async def _once(self, step: CallStep, values: Mapping[str, Any], requests: int) -> _StepResult:
        operation = step.operation
        if operation.page is not None:
            pages = requests if step.most is None else min(requests, ceil(step.most / operation.page.most))
            answer, page = await list_all(self._run, operation, values, most=step.most or MAX_ITEMS, pages=pages)
            items = operation.page.items.find(answer.body)
            cut = page["stoppedBecause"] if page is not None else None
            return _StepResult(self._named(step, answer.body), items=len(items or ()), cut=cut)
        if operation.wait is not None:
            seconds = float(self._arguments.get("wait", operation.wait.default))
            left = max(seconds - (self._run.now() - self._began), 0.0)
            ended = await run_job(self._run, operation, values, seconds=left)
            if isinstance(ended, PendingJob):
                return _StepResult(None, [ended.handle] if ended.handle is not None else [], ended.job)
            return _StepResult(self._named(step, ended.answer.body), [ended.handle])
        body = (await self._run.perform(operation, values)).body
        return _StepResult(self._named(step, body), _ids(body) or _last_in_path(operation, values))

    def _named(self, step: CallStep, body: Any) -> Any:
        """Return the named values that an operation gives to later steps, or its whole answer."""
        if not step.operation.outputs:
            return body
        if isinstance(body, list):  # each element keeps its members, and gets the named values
            return [{**one, **self._named(step, one)} if isinstance(one, dict) else one for one in body]
        named: dict[str, Any] = {}
        for name, path in step.operation.outputs.items():
            value = path.find(body)
            warn_about_path(path, body, step.name, self._run.warnings)
            named[name] = None if value is ABSENT else value
        return named

    def _note(self, step: CallStep, outcomes: list[_StepResult], elements: list[Any] | None = None) -> None:
        """Remember what a step wrote, for `x-each` with its elements, and what is missing from what it read."""
        answered = [outcome for outcome in outcomes if outcome.refused is None]
        self._answered += len(answered)
        if step.operation.method != "GET" and answered:
            ids = list(dict.fromkeys(one for outcome in answered for one in outcome.ids))
            pairs = zip(elements or (), outcomes, strict=False)
            objects = [one for one, outcome in pairs if outcome.refused is None and isinstance(one, dict)]
            self.completed.append({"step": step.name, "ids": ids} | ({"elements": objects} if objects else {}))
        cuts = [outcome.cut for outcome in answered if outcome.cut is not None]
        if step.partial is not None and answered:
            cuts.append(step.partial)
        refused = sorted({outcome.refused for outcome in outcomes if outcome.refused is not None})
        if refused:
            which = f"{len(outcomes) - len(answered)} of {len(outcomes)} " if step.each is not None else ""
            verb = "read" if step.operation.method == "GET" else "done"
            cuts.append(f"{which}could not be {verb} ({', '.join(refused)})")
        if cuts:
            self._incomplete.add(step.name)
            self._cuts.extend(f"{step.name}: {cut}" for cut in cuts)
        if step.name in self._incomplete:
            self._returned += sum(outcome.items for outcome in answered)


def pick_elements(
    step: LookupStep,
    arguments: Mapping[str, Any],
    results: Mapping[str, Any],
    warnings: Warnings,
    incomplete: set[str],
    *,
    per_element: bool = False,
) -> list[dict[str, Any]] | dict[str, list[dict[str, Any]]]:
    """Return what a lookup step picks from the results before it, or the changes that it finds.

    `incomplete` are the steps whose value is not all that there is; the lookup adds itself if it picks from one of
    them, or if an element that gets fields cannot be told from the others.
    """
    elements = elements_of(results.get(step.index), per_element=per_element)
    if step.changes is not None:
        whole = not any(name in incomplete for name in step.changes.otherwise)
        return find_changes(step, step.changes, arguments, results, elements, whole=whole)
    nameless = any(not isinstance(one, dict) or one.get(step.match) is None for one in elements)
    if step.index in incomplete or (step.added and nameless):
        incomplete.add(step.name)
    value = step.value
    if step.within is not None and isinstance(value, StepValue):
        value = StepValue(value.step, JsonPath(value.path.text, value.path.parts[:-1]))
    wanted = evaluate(value, arguments, results)
    return look_up(step, add_fields(step, elements, arguments, results), wanted, warnings)


def first_element(step: CallStep, arguments: Mapping[str, Any], results: Mapping[str, Any]) -> Any:
    """Return the first element that a step runs for; None if it is known to run for none, or runs once."""
    each = step.each
    for expression in () if each is None else each.lists:
        value = evaluate(expression, arguments, results)
        first = next(iter(value), None) if isinstance(value, list) else None if value is ABSENT else value
        if first is not None:
            return _as_element(first) if each is not None and each.most is not None else first
    return None


def _as_element(value: Any) -> Any:
    """Return an element as an object: text is the id of one of which nothing else is known."""
    return {"id": value} if isinstance(value, str) else value


def _labelled(each: EachPlan, element: Any, outcome: _StepResult) -> Any:
    """Return the answer about an element, each item of it with those members of the element that the file names."""
    if not each.label or not isinstance(element, dict):
        return outcome.value
    return label(outcome.value, {name: element.get(member) for name, member in each.label})


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
    """Return whether a step is left out after these results of earlier steps."""
    if condition.when is not None and _says_no(evaluate(condition.when, arguments, results)):
        return True
    return any(not _says_no(evaluate(unless, arguments, results)) for unless in condition.unless)


def _is_ruled_out(condition: Condition, arguments: Mapping[str, Any]) -> bool:
    """Return whether the arguments alone rule a step out, whatever earlier steps return."""
    when = condition.when if isinstance(condition.when, Argument) else None
    unless = tuple(one for one in condition.unless if isinstance(one, Argument))
    return leaves_out(Condition(when, unless), arguments, {})


def _find_lacking(step: CallStep, values: Mapping[str, Any]) -> StepValue | None:
    """Return the place in an earlier answer that lacks an id which the request of a step needs.

    A request needs every value of its path, and every value called an id or an index: without it the request would be
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
    """Return whether a value of an answer can be an id."""
    return (isinstance(value, str) or type(value) is int) and find_path_problem(format_for_wire(value)) is None


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
    """Return whether a value is empty or false."""
    return value is False or _empty(value)


def _unfinished(step: CallStep, repeat: RepeatPlan) -> UnexpectedAnswer:
    return UnexpectedAnswer(
        f"The step {step.name} is sent until {repeat.until.text} is true, but the answer does not say.",
        hint="The platform accepted the change: do not repeat it, look at the result first.",
    )


def _ids(body: Any) -> list[str]:
    """Return the ids in the answer of a write, one level down: `{iModel: {id}}`, `{users: [{id}]}`."""
    if not isinstance(body, dict):
        return []
    found = [body]
    for child in body.values():
        found += child if isinstance(child, list) else [child]
    ids = [one.get("id") for one in found if isinstance(one, dict)]
    return [format_for_wire(identifier) for identifier in ids if _is_id(identifier)]


def _last_in_path(operation: Operation, values: Mapping[str, Any]) -> list[str]:
    """Return what a write without an answer was about: the last id of its path."""
    named = [part.name for segment in operation.path for part in segment if isinstance(part, Slot)]
    return [str(values[named[-1]])] if named and named[-1] in values else []


def _put(answer: dict[str, Any], target: tuple[str, ...], value: Any) -> None:
    for name in target[:-1]:
        inner = answer.get(name)  # it may be a part of the platform's answer, which stays as it came
        answer[name] = dict(inner) if isinstance(inner, dict) else {}
        answer = answer[name]
    answer[target[-1]] = value
