"""A flow: requests one after another, each with what the earlier ones gave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio

from itwin_mcp.capability.catalog import CallStep, LookupStep, Operation, Requirement, Steps
from itwin_mcp.capability.expressions import ABSENT, evaluate
from itwin_mcp.errors import CallError
from itwin_mcp.executor.paging import list_all
from itwin_mcp.executor.request import bind
from itwin_mcp.executor.sending import Run
from itwin_mcp.executor.waiting import Ended, await_job

MOST_ITEMS = 5_000
"""Items that a paged step takes."""
AT_ONCE = 8
"""Requests of one `x-each` under way at the same time."""


async def run_steps(run: Run, action: Steps, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The steps in order; gives the object that the mappings build.

    A step that fails after others wrote raises its error with `completed`: what was written and stays.
    """
    results: dict[str, Any] = {}
    completed: list[dict[str, Any]] = []
    for step in action.steps:
        if step.when is not None and _empty(evaluate(step.when, arguments, results)):
            continue
        try:
            if isinstance(step, LookupStep):
                results[step.name] = _look_up(step, arguments, results)
            else:
                results[step.name] = await _call(run, step, arguments, results)
            if step.require is not None:
                _require(step.require, results[step.name])
        except CallError as error:
            error.completed = tuple(completed)
            raise
        if isinstance(step, CallStep) and step.operation.method != "GET":
            completed.append({"step": step.name, "ids": _ids(results[step.name])})
    answer: dict[str, Any] = {}
    for target, expression in action.mappings:
        value = evaluate(expression, arguments, results)
        if value is not ABSENT:
            _put(answer, target, value)
    return answer


async def _call(run: Run, step: CallStep, arguments: Mapping[str, Any], results: Mapping[str, Any]) -> Any:
    if step.each is None:
        return await _once(run, step.operation, bind(step.bindings, arguments, results), arguments)
    elements = evaluate(step.each, arguments, results)
    elements = elements if isinstance(elements, list) else []
    gathered: list[Any] = [None] * len(elements)
    limiter = anyio.CapacityLimiter(AT_ONCE)
    failures: list[CallError] = []

    async def one(index: int, element: Any) -> None:
        async with limiter:
            values = bind(step.bindings, arguments, {**results, "each": element})
            try:
                gathered[index] = await _once(run, step.operation, values, arguments)
            except CallError as error:
                failures.append(error)
                tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        for index, element in enumerate(elements):
            tasks.start_soon(one, index, element)
    if failures:
        raise failures[0]
    return gathered


async def _once(run: Run, operation: Operation, values: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
    if operation.page is not None:
        body = (await list_all(run, operation, values, most=MOST_ITEMS)).body
    else:
        answer = await run.perform(operation, values)
        wait = operation.wait
        if wait is not None:
            seconds = float(arguments.get("wait", wait.default))
            outcome = await await_job(run, wait, answer, values, seconds=seconds, tool=operation.name)
            body = outcome.answer.body if isinstance(outcome, Ended) else {"job": outcome.job}
        else:
            body = answer.body
    if not operation.outputs:
        return body
    found = {name: path.find(body) for name, path in operation.outputs.items()}
    return {name: None if value is ABSENT else value for name, value in found.items()}


def _look_up(step: LookupStep, arguments: Mapping[str, Any], results: Mapping[str, Any]) -> list[dict[str, Any]]:
    wanted = evaluate(step.value, arguments, results)
    values = wanted if isinstance(wanted, list) else [wanted]
    index = results.get(step.index)
    if isinstance(index, dict):
        index = next((value for value in index.values() if isinstance(value, list)), [])
    return [
        {name: element.get(name) for name in step.fields}
        for element in index or []
        if isinstance(element, dict) and element.get(step.match) in values
    ]


def _require(requirement: Requirement, result: Any) -> None:
    if _empty(requirement.path.find(result)):
        raise CallError(requirement.code, requirement.message, hint=requirement.hint)


def _empty(value: Any) -> bool:
    return value is ABSENT or value is None or value in ("", [], {})


def _ids(result: Any) -> list[str]:
    """The ids in what a writing step answered, one level down: `{iModel: {id}}`."""
    if not isinstance(result, dict):
        return []
    found = [result.get("id")]
    found += [child.get("id") for child in result.values() if isinstance(child, dict)]
    return [identifier for identifier in found if isinstance(identifier, str)]


def _put(answer: dict[str, Any], target: tuple[str, ...], value: Any) -> None:
    for name in target[:-1]:
        answer = answer.setdefault(name, {})
    answer[target[-1]] = value
