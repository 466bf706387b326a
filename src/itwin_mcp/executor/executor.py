"""Runs a tool or reads a resource by composing the stages, and does nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio

from itwin_mcp.capability.catalog import Call, Resource, Steps, Tool, ToolArgument
from itwin_mcp.capability.expressions import ABSENT
from itwin_mcp.executor.conversation import LOCAL, Caller, Conversation, Silence
from itwin_mcp.executor.names import read_names
from itwin_mcp.executor.paging import list_pages
from itwin_mcp.executor.request import bind, build_request
from itwin_mcp.executor.seals import Seals
from itwin_mcp.executor.sending import Run, Upstream
from itwin_mcp.executor.shape import shape
from itwin_mcp.executor.steps import run_steps
from itwin_mcp.executor.validate import Check, compile_check
from itwin_mcp.executor.waiting import Pending, await_job
from itwin_mcp.upstream.wire import Request


class Executor:
    """One for the whole server; it keeps nothing of a call but the compiled checks of the tools."""

    def __init__(
        self,
        upstream: Upstream,
        seals: Seals,
        *,
        environment: Mapping[str, str] | None = None,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
        now: Callable[[], float] = anyio.current_time,
    ) -> None:
        self._upstream = upstream
        self._seals = seals
        self._environment = environment or {}
        self._sleep = sleep
        self._now = now
        self._checks: dict[str, Check] = {}

    async def call(
        self,
        tool: Tool,
        arguments: Mapping[str, Any],
        conversation: Conversation | None = None,
        caller: Caller = LOCAL,
    ) -> dict[str, Any]:
        """The structured answer of one tool call. Raises an error of the CallError family."""
        ready, resolved = self._ready(tool, arguments)
        run = self._run(conversation, caller)
        result = await self._perform(run, tool, ready)
        if resolved:
            result["resolved"] = resolved
        return result

    async def read(
        self,
        resource: Resource,
        variables: Mapping[str, str],
        conversation: Conversation | None = None,
        caller: Caller = LOCAL,
    ) -> dict[str, Any] | bytes:
        """What a resource holds: a JSON object, or bytes. Raises an error of the CallError family."""
        declared = [
            ToolArgument(name, {}, True, resource.entities.get(name), ABSENT) for name in resource.variables
        ]
        values, _ = read_names(variables, declared)
        run = self._run(conversation, caller)
        action = resource.action
        if isinstance(action, Steps):
            return dict(shape(action.output, await run_steps(run, action, values), {}))
        answer = await run.perform(action.operation, bind(action.bindings, values, {}))
        if action.operation.binary:
            return bytes(answer.body)
        return dict(shape(action.output, answer.body, answer.headers))

    def preview(self, tool: Tool, arguments: Mapping[str, Any]) -> Request:
        """The first request that a call would send; nothing is sent. Raises an error of the CallError family."""
        ready, _ = self._ready(tool, arguments)
        action = tool.action
        first = action if isinstance(action, Call) else next(s for s in action.steps if hasattr(s, "operation"))
        return build_request(first.operation, bind(first.bindings, ready, {}), {})

    def _ready(self, tool: Tool, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, str]]]:
        check = self._checks.get(tool.name)
        if check is None:
            check = self._checks[tool.name] = compile_check(tool)
        return read_names(check(arguments), tool.arguments)

    def _run(self, conversation: Conversation | None, caller: Caller) -> Run:
        return Run(self._upstream, self._environment, conversation or Silence(), caller, self._sleep, self._now)

    async def _perform(self, run: Run, tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
        action = tool.action
        if isinstance(action, Steps):
            return dict(shape(action.output, await run_steps(run, action, arguments), {}))
        operation, values = action.operation, bind(action.bindings, arguments, {})
        if operation.page is not None:
            listing = await list_pages(
                run,
                operation,
                values,
                limit=arguments["limit"],
                cursor=arguments.get("cursor"),
                seals=self._seals,
                tool=tool.name,
                arguments=arguments,
            )
            return {**shape(action.output, listing.answer.body, listing.answer.headers), "page": listing.page}
        wait = operation.wait
        if wait is None:
            answer = await run.perform(operation, values)
            return dict(shape(action.output, answer.body, answer.headers))
        # An operation that only observes (its handle is an input, its method GET) has nothing to start.
        observes = wait.handle_place == "input" and operation.method == "GET"
        started = None if observes else await run.perform(operation, values)
        outcome = await await_job(run, wait, started, values, seconds=arguments["wait"], tool=tool.name)
        if isinstance(outcome, Pending):
            return {"job": outcome.job}
        return dict(shape(action.output, outcome.answer.body, outcome.answer.headers))
