"""Runs flows: requests one after another, each with values from the arguments and from earlier answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    Step,
    Steps,
    TransferPlan,
)
from itwin_mcp.capability.transfers import FILE
from itwin_mcp.errors import CallError, PlatformError, UnexpectedAnswer
from itwin_mcp.executor.answers import Warnings, convert, shape_part, warn_about_path
from itwin_mcp.executor.changes import find_changes
from itwin_mcp.executor.context import CallContext
from itwin_mcp.executor.element_lookup import (
    add_fields,
    add_members,
    check_date,
    count_duplicates,
    drop_duplicates,
    find_elements,
    look_up,
)
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
    """Run the steps in order, move the local file after the step that returns its link, and return the whole answer.

    Waiting steps share the seconds of the `wait` argument. If a step is still waiting then, the flow ends with its
    `job`, which lists the completed writes and the remaining steps. `page` reports what was cut, left out or could not
    be read. If a step fails after others wrote, `completed` of its error lists what was written.
    """
    flow = _Flow(run, action, arguments, transfer)
    try:
        return await flow.run()
    except CallError as error:
        completed, unread = (*flow.completed, *error.completed), ""
        if flow.page is not None:
            unread = f"Not everything was read: {flow.page['stoppedBecause']}."
        raise error.amended(after=f"{unread} {_IS_DONE if completed else ''}".strip(), completed=completed) from None


_IS_DONE = "What completed names is done and stays: continue from there instead of calling again, or undo it."


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
    elements, page = await _Flow(run, action.across.steps, arguments, None).find_places(action.across)
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


def count_requests_left(run: Run, action: Call, places: Places) -> int:
    """Return how many requests a list may take: fewer if several places are read or the server filters the items.

    One request is reserved if the names of the items must be looked up.
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
    """Why there is no value: the status of a tolerated error, or that the answer is unreadable."""
    error: CallError | None = None
    """The tolerated error of the platform."""


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

    def _count_requests_left(self, step: CallStep) -> int:
        """Return how many requests a step may send. In a flow that only reads, one is reserved for each later step."""
        if not self._action.only_reads:
            return MAX_PAGES
        later = self._action.steps[self._action.steps.index(step) + 1 :]
        reserved = sum(isinstance(call, CallStep) and not _is_ruled_out(call, self._arguments) for call in later)
        return max(MAX_READS - self._run.requests.sent - reserved - self._names, 1)

    @property
    def page(self) -> dict[str, Any] | None:
        """The answer's `page`, which reports what is missing; None if nothing is."""
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
            if is_skipped(step.condition, self._arguments, self._results):
                continue
            before = list(self.completed)
            job = await self._run_step(step)
            if job is not None:
                remaining = [later.name for later in self._action.steps[index + 1 :]]
                others = {"completed": before, "remaining": remaining}
                return {"job": {**job, **{name: steps for name, steps in others.items() if steps}}}
            if self._transfer is not None and self._transfer.link.step == step.name:
                await self._move(self._transfer)
        if self._unreadable and not self._answered:
            raise self._unreadable[0]
        answer: dict[str, Any] = {}
        for mapping in self._action.mappings:
            source, value = mapping.value, self._evaluate(mapping.value)
            if isinstance(source, StepValue) and source.step in self._results:
                warn_about_path(source.path, self._results[source.step], source.step, self._run.warnings)
            if value is not ABSENT:
                _set_member(
                    answer, mapping.target, value if mapping.count is None else count_duplicates(value, mapping.count)
                )
        # The mappings fill every member, so a missing member belongs to a step that was skipped and needs no warning.
        shaped: dict[str, Any] = shape_part(self._action.output, answer, {}, "$", self._run.warnings)
        fill_from_steps(self._action, shaped, self._results)
        return {**shaped, "page": self.page} if self.page is not None else shaped

    async def find_places(self, across: AcrossPlan) -> tuple[list[Any], dict[str, Any] | None]:
        """Run the steps that find places. Return the places, and the `page` that reports what was left out."""
        await self.run()
        elements: list[Any] = []
        for value in map(self._evaluate, across.lists):
            elements.extend(value if isinstance(value, list) else [] if value is ABSENT or value is None else [value])
        return drop_duplicates(map(_as_element, elements)), self.page

    def _evaluate(self, expression: Expression) -> Any:
        return evaluate(expression, self._arguments, self._results)

    async def _move(self, transfer: TransferPlan) -> None:
        """Move the local file; this does not count towards the seconds of `wait`."""
        began = self._run.now()
        self._results[FILE] = await move_file(self._run, transfer, self._arguments, self._results, self._replaces)
        self._began += self._run.now() - began

    async def _run_step(self, step: Step) -> dict[str, Any] | None:
        """Run one step. Return its job, if that is still running."""
        job = None
        if isinstance(step, LookupStep):
            per_element = any(
                isinstance(call, CallStep) and call.name == step.index and call.each is not None
                for call in self._action.steps
            )
            self._results[step.name] = pick_elements(
                step, self._arguments, self._results, self._run.warnings, self._incomplete, per_element=per_element
            )
        elif step.each is None:
            values, defaults = bind_step(step, self._arguments, self._results)
            if step.defaults is not None:
                self._results[step.defaults.name] = defaults
            missing = _find_missing_id(step, values)
            if missing is not None:
                raise self._unreadable[0] if self._unreadable else _report_missing_id(step, missing)
            result = await self._run_tolerantly(step, values, self._count_requests_left(step))
            self._record(step, [result])
            if result.refused is None:
                self._results[step.name] = result.value
            job = result.job
        else:
            pairs = self._bind_each(step, step.each)
            if self._action.only_reads:
                limit = self._count_requests_left(step)
                self._leave_out(step, step.each, [element for element, _ in pairs[limit:]], len(pairs))
                pairs = pairs[:limit]
            results = await self._run_each(step, pairs)
            elements = [element for element, _ in pairs]
            answered = [pair for pair in zip(elements, results, strict=True) if pair[1].refused is None]
            errors = [result.error for result in results if result.error is not None]
            if errors and len(errors) == len(results) and all(map(self._is_argument, elements)):
                raise errors[0]
            self._results[step.name] = [_add_label(step.each, *pair) for pair in answered]
            if step.each.name is not None:
                self._results[step.each.name] = [element for element, _ in answered]
            job = next((result.job for result in results if result.job is not None), None)
        if job is not None or step.require is None:
            return job
        if _is_empty_or_false(step.require.path.find(self._results.get(step.name, ABSENT))):
            raise CallError(step.require.code, step.require.message, hint=step.require.hint)
        return None

    # --- once per element ---------------------------------------------------------------------------------------

    def _find_elements(self, step: CallStep, each: EachPlan) -> list[Any]:
        """Return the elements that a step runs for."""
        elements: list[Any] = []
        for value in map(self._evaluate, each.lists):
            if isinstance(value, list):
                elements.extend(value)
            elif value is not ABSENT and value is not None:
                if each.most is not None:
                    elements.append(value)
                else:
                    self._cuts.append(f"{step.name}: what it goes through is not a list in the platform's answer")
        if each.most is None:
            return elements
        elements = drop_duplicates(map(_as_element, elements), [member for _, member in each.label])
        self._leave_out(step, each, elements[each.most :], len(elements))
        return elements[: each.most]

    def _leave_out(self, step: CallStep, each: EachPlan, elements: list[Any], total: int) -> None:
        """Report in `page` which of the `total` elements are not read, and which argument would read them."""
        if not elements:
            return
        cut = f"{step.name}: only the first {total - len(elements)} of {total} are read here"
        if each.again is not None:
            ids = [element.get("id") for element in elements if isinstance(element, dict)]
            self._not_read.setdefault(each.again, []).extend(map(str, filter(_is_id, ids)))
            cut += f", call again with {each.again} from page.notRead"
        self._cuts.append(cut)
        self._incomplete.add(step.name)

    def _is_argument(self, element: Any) -> bool:
        """Return whether the caller named this element by its id."""
        identifier = element.get("id") if isinstance(element, dict) else None
        return any(
            identifier in value if isinstance(value, list) else isinstance(value, str) and identifier == value
            for value in self._arguments.values()
        )

    def _bind_each(self, step: CallStep, each: EachPlan) -> list[tuple[Any, dict[str, Any]]]:
        """Return the elements that a request can be sent for, each with the values of its request.

        Elements of an answer without an id are counted in `page`. Elements of an argument are all returned: a text that
        is not an id is rejected before it is sent.
        """
        elements = self._find_elements(step, each)
        from_answer = any(isinstance(expression, StepValue) for expression in each.lists)
        pairs = []
        for element in elements:
            values = bind(step.bindings, self._arguments, {**self._results, "each": element})
            missing = _find_missing_id(step, values)
            if missing is not None and missing.step != "each":
                raise _report_missing_id(step, missing)
            if missing is None or not from_answer:
                pairs.append((element, values))
        if len(pairs) < len(elements):
            self._cuts.append(f"{step.name}: {len(elements) - len(pairs)} of {len(elements)} have no id")
        return pairs

    async def _run_each(self, step: CallStep, pairs: list[tuple[Any, dict[str, Any]]]) -> list[_StepResult]:
        """Send one request for each element, and none after a failure.

        Reads are sent several at a time. Changes are sent one after another, because their order may matter.
        """
        share = max(self._count_requests_left(step) // max(len(pairs), 1), 1)
        results: list[_StepResult | None] = [None] * len(pairs)
        failures: dict[int, CallError] = {}
        limiter = anyio.CapacityLimiter(AT_ONCE)

        # After a failure, await the requests that were sent already: `completed` must list every write.
        async def run_one(index: int, values: dict[str, Any]) -> None:
            async with limiter:
                if failures:
                    return
                try:
                    results[index] = await self._run_tolerantly(step, values, share)
                except CallError as error:
                    failures[index] = error

        async with anyio.create_task_group() as tasks:
            for index, (_, values) in enumerate(pairs):
                if step.operation.method == "GET":
                    tasks.start_soon(run_one, index, values)
                else:
                    await run_one(index, values)
        done = [(pair[0], result) for pair, result in zip(pairs, results, strict=True) if result is not None]
        self._record(step, [result for _, result in done], [element for element, _ in done])
        if failures:
            raise failures[min(failures)]
        return [result for _, result in done]

    # --- one run of a step --------------------------------------------------------------------------------------

    async def _run_tolerantly(self, step: CallStep, values: Mapping[str, Any], max_requests: int) -> _StepResult:
        """Run a step, a list with at most `max_requests`. Errors that the step tolerates become part of the result."""
        try:
            if step.repeat is not None:
                return await self._repeat(step, step.repeat, values, max_requests)
            return await self._run_once(step, values, max_requests)
        except PlatformError as error:
            if error.status not in step.tolerate:
                raise name_missing_thing(error, step) from None
            return _StepResult(None, refused=str(error.status), error=error)
        except UnexpectedAnswer as error:
            # The results of other steps are useful without this one, unless something is decided by it.
            if not self._action.only_reads or step.require is not None:
                raise
            self._unreadable.append(error)
            return _StepResult(None, refused="the platform's answer is not what was expected")

    async def _repeat(
        self, step: CallStep, repeat: RepeatPlan, values: Mapping[str, Any], max_requests: int
    ) -> _StepResult:
        """Repeat a step until its answer says that it was the last. A failure lists the earlier runs in `completed`."""
        limit = min(repeat.most, max_requests)
        result: _StepResult | None = None
        try:
            for sent in range(1, limit + 1):
                result = await self._run_once(step, values, MAX_PAGES)
                is_last = convert("boolean", repeat.until.find(result.value))
                if is_last is None:
                    raise UnexpectedAnswer(
                        f"The step {step.name} is sent until {repeat.until.text} is true, but the answer does not say.",
                        hint="The platform accepted the change: do not repeat it, look at the result first.",
                    )
                if is_last:
                    return result
                message = f"{step.name}: {sent} requests done, at most {limit}"
                await self._run.conversation.progress(sent, limit, message)
        except CallError:
            self._record(step, [result] if result is not None else [])
            raise
        assert result is not None
        result.cut = f"not all is done after {limit} requests, call again to continue"
        return result

    async def _run_once(self, step: CallStep, values: Mapping[str, Any], max_requests: int) -> _StepResult:
        operation = step.operation
        if operation.page is not None:
            if step.most is not None:
                max_requests = min(max_requests, ceil(step.most / operation.page.most))
            answer, page = await list_all(
                self._run, operation, values, limit=step.most or MAX_ITEMS, max_requests=max_requests
            )
            items = operation.page.items.find(answer.body)
            cut = page["stoppedBecause"] if page is not None else None
            return _StepResult(self._select_outputs(step, answer.body), items=len(items or ()), cut=cut)
        if operation.wait is not None:
            seconds = float(self._arguments.get("wait", operation.wait.default))
            seconds_left = max(seconds - (self._run.now() - self._began), 0.0)
            job = await run_job(self._run, operation, values, seconds=seconds_left)
            if isinstance(job, PendingJob):
                return _StepResult(None, [job.handle] if job.handle is not None else [], job.job)
            return _StepResult(self._select_outputs(step, job.answer.body), [job.handle])
        body = (await self._run.perform(operation, values)).body
        ids = _find_ids(body) or _find_last_path_value(operation, values)
        return _StepResult(self._select_outputs(step, body), ids)

    def _select_outputs(self, step: CallStep, body: Any) -> Any:
        """Return the named outputs that an operation gives to later steps, or its whole answer if it names none."""
        if not step.operation.outputs:
            return body
        if isinstance(body, list):  # each element keeps its members, and gets the named values
            return [{**item, **self._select_outputs(step, item)} if isinstance(item, dict) else item for item in body]
        outputs: dict[str, Any] = {}
        for name, path in step.operation.outputs.items():
            value = path.find(body)
            warn_about_path(path, body, step.name, self._run.warnings)
            outputs[name] = None if value is ABSENT else value
        return outputs

    def _record(self, step: CallStep, results: list[_StepResult], elements: Sequence[Any] = ()) -> None:
        """Record what a step wrote, with the elements of `x-each`, and what is missing from what it read."""
        answered = [result for result in results if result.refused is None]
        self._answered += len(answered)
        is_read = step.operation.method == "GET"
        if answered and not is_read:
            ids = list(dict.fromkeys(identifier for result in answered for identifier in result.ids))
            pairs = zip(elements, results, strict=False)
            objects = [element for element, result in pairs if result.refused is None and isinstance(element, dict)]
            self.completed.append({"step": step.name, "ids": ids} | ({"elements": objects} if objects else {}))
        cuts = [result.cut for result in answered if result.cut is not None]
        if step.partial is not None and answered:
            cuts.append(step.partial)
        refused = sorted({result.refused for result in results if result.refused is not None})
        if refused:
            count = f"{len(results) - len(answered)} of {len(results)} " if step.each is not None else ""
            cuts.append(f"{count}could not be {'read' if is_read else 'done'} ({', '.join(refused)})")
        if cuts:
            self._incomplete.add(step.name)
            self._cuts.extend(f"{step.name}: {cut}" for cut in cuts)
        if step.name in self._incomplete:
            self._returned += sum(result.items for result in answered)


def pick_elements(
    step: LookupStep,
    arguments: Mapping[str, Any],
    results: Mapping[str, Any],
    warnings: Warnings,
    incomplete: set[str],
    *,
    per_element: bool = False,
) -> list[dict[str, Any]] | dict[str, list[dict[str, Any]]]:
    """Return the elements that a lookup step picks from earlier results, or the changes that it finds.

    `incomplete` holds the steps that did not read everything. The lookup adds itself if it picks from one of them, or
    if it adds fields and an element has no value to match them by.
    """
    elements = find_elements(results.get(step.index), per_element=per_element)
    if step.changes is not None:
        whole = not any(name in incomplete for name in step.changes.otherwise)
        return find_changes(step, step.changes, arguments, results, elements, whole=whole)
    lacks_match = any(not isinstance(element, dict) or element.get(step.match) is None for element in elements)
    if step.index in incomplete or (step.added and lacks_match):
        incomplete.add(step.name)
    value = step.value
    if step.within is not None and isinstance(value, StepValue):
        value = StepValue(value.step, JsonPath(value.path.text, value.path.parts[:-1]))
    wanted = evaluate(value, arguments, results)
    return look_up(step, add_fields(step, elements, arguments, results), wanted, warnings)


def first_element(step: CallStep, arguments: Mapping[str, Any], results: Mapping[str, Any]) -> Any:
    """Return the first element that a step runs for, or None if it has none or no `x-each`."""
    if step.each is None:
        return None
    for expression in step.each.lists:
        value = evaluate(expression, arguments, results)
        first = next(iter(value), None) if isinstance(value, list) else None if value is ABSENT else value
        if first is not None:
            return first if step.each.most is None else _as_element(first)
    return None


def _as_element(value: Any) -> Any:
    """Return an element as an object. A text is taken for its id."""
    return {"id": value} if isinstance(value, str) else value


def _add_label(each: EachPlan, element: Any, result: _StepResult) -> Any:
    """Return the result for an element. Each of its items gets the members of the element that `label` names."""
    if not each.label or not isinstance(element, dict):
        return result.value
    return add_members(result.value, {name: element.get(member) for name, member in each.label})


def bind_step(
    step: CallStep, arguments: Mapping[str, Any], results: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the values of a step's inputs, and the defaults among them."""
    values = bind(step.bindings, arguments, results)
    defaults: dict[str, Any] = {}
    for name, expression, words in () if step.defaults is None else step.defaults.values:
        value = evaluate(expression, arguments, results) if name not in values else None
        if words is not None:
            value = words.get(value) if isinstance(value, str) else None
        if value is not ABSENT and value is not None:
            defaults[name] = value
    return values | defaults, defaults


def is_skipped(condition: Condition, arguments: Mapping[str, Any], results: Mapping[str, Any]) -> bool:
    """Return whether `x-when` or `x-unless` skips a step after these results of earlier steps."""
    if condition.when is not None and _is_empty_or_false(evaluate(condition.when, arguments, results)):
        return True
    return any(not _is_empty_or_false(evaluate(unless, arguments, results)) for unless in condition.unless)


def _is_ruled_out(step: CallStep, arguments: Mapping[str, Any]) -> bool:
    """Return whether the arguments alone skip a step, whatever earlier steps return."""
    when = step.condition.when if isinstance(step.condition.when, Argument) else None
    unless = tuple(expression for expression in step.condition.unless if isinstance(expression, Argument))
    return is_skipped(Condition(when, unless), arguments, {})


def _find_missing_id(step: CallStep, values: Mapping[str, Any]) -> StepValue | None:
    """Return the place in an earlier answer that should have an id for the request of a step, but has none.

    A request needs every required value, and every value called an id or an index. Without it the request would be
    about another thing.
    """
    for name, expression in step.bindings.items():
        parts = expression.parts if isinstance(expression, Text) else (expression,)
        source = next((part for part in parts if isinstance(part, StepValue) and part.step != FILE), None)
        if source is None or _is_id(values.get(name)):
            continue
        member = source.path.parts[-1] if source.path.parts else None
        if name in step.operation.required or (isinstance(member, str) and member.endswith(("id", "Id", "Index"))):
            return source
    return None


def _is_id(value: Any) -> bool:
    """Return whether a value of an answer can be an id."""
    return (isinstance(value, str) or type(value) is int) and find_path_problem(format_for_wire(value)) is None


def _report_missing_id(step: CallStep, source: StepValue) -> UnexpectedAnswer:
    path = f"{source.step}{source.path.text.removeprefix('$')}"
    return UnexpectedAnswer(
        f"The platform's answer has no id at {path}, without which the step {step.name} cannot be done.",
        hint="Look at what is there before you call again. If it stays so, report it with this message.",
    )


def _is_empty_or_false(value: Any) -> bool:
    return value is False or value is ABSENT or value is None or value in ("", [], {})


def _find_ids(body: Any) -> list[str]:
    """Return the ids in the answer of a write, at the top and one level down: `{iModel: {id}}`, `{users: [{id}]}`."""
    if not isinstance(body, dict):
        return []
    objects = [body]
    for child in body.values():
        objects += child if isinstance(child, list) else [child]
    ids = [candidate.get("id") for candidate in objects if isinstance(candidate, dict)]
    return [format_for_wire(identifier) for identifier in ids if _is_id(identifier)]


def _find_last_path_value(operation: Operation, values: Mapping[str, Any]) -> list[str]:
    """Return the last value in the path of a write: the id of its subject, if the answer has none."""
    names = [part.name for segment in operation.path for part in segment if isinstance(part, Slot)]
    return [str(values[names[-1]])] if names and names[-1] in values else []


def _set_member(answer: dict[str, Any], target: tuple[str, ...], value: Any) -> None:
    for name in target[:-1]:
        member = answer.get(name)  # copied, as it may be a part of the platform's answer, which must not change
        answer[name] = dict(member) if isinstance(member, dict) else {}
        answer = answer[name]
    answer[target[-1]] = value
