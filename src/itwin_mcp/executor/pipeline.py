"""The stages of a call, in order. Each returns the next `CallContext`, or the `Outcome` with which the call ends.

    admit -> convert and validate -> resolve names -> authorize -> confirm -> run -> shape -> limit

`admit` comes first, so that a denied caller causes no request and learns no name. The policy also judges every request
where it is sent (`sending`), because a flow takes its later ids from answers.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import anyio

from itwin_mcp.capability.catalog import Resource, Tool, ToolArgument
from itwin_mcp.capability.expressions import ABSENT
from itwin_mcp.capability.tool_actions import Call
from itwin_mcp.errors import AuditFailed, CallError, ErrorCode, PlatformError
from itwin_mcp.executor.answers import add_warnings, finish, read_blob, shape_answer
from itwin_mcp.executor.arguments import ArgumentCheck, convert_arguments
from itwin_mcp.executor.confirmation.confirm import Confirmer
from itwin_mcp.executor.confirmation.seals import Seals
from itwin_mcp.executor.context import LOCAL, CallContext, Caller, Conversation, NullConversation, Redirect, SaveTarget
from itwin_mcp.executor.dry_run import build_first_request
from itwin_mcp.executor.files import LocalFiles
from itwin_mcp.executor.flow_steps import run_flow, run_steps
from itwin_mcp.executor.further_reads import add_further_reads
from itwin_mcp.executor.limits import limit, note_unserved_tools
from itwin_mcp.executor.listing import run_list
from itwin_mcp.executor.names import Names, replace_links
from itwin_mcp.executor.outcome import Failure, Outcome, Result
from itwin_mcp.executor.policy.authorize import authorize
from itwin_mcp.executor.policy.gatekeeper import Gatekeeper, admit
from itwin_mcp.executor.refusals import name_arguments
from itwin_mcp.executor.requests import bind
from itwin_mcp.executor.save_list import run_saved
from itwin_mcp.executor.sending import RequestCount, Run, Transfers, run_call
from itwin_mcp.executor.thing_names import ThingNames
from itwin_mcp.executor.waiting import run_awaited
from itwin_mcp.settings import DEFAULT_MAX_RESULT_BYTES
from itwin_mcp.text import clean
from itwin_mcp.upstream.messages import Request, Sender
from itwin_mcp.upstream.redaction import remove_secrets

logger = logging.getLogger(__name__)

Stage: TypeAlias = Callable[[CallContext], Awaitable[CallContext | Redirect | Outcome]]
BuiltInTool: TypeAlias = Callable[[CallContext], Awaitable[Outcome | Redirect]]
"""Runs a tool that no capability file declares. Returns its outcome, or a redirect to another tool."""


class Executor:
    """Calls tools and reads resources; one for the whole server."""

    def __init__(
        self,
        upstream: Sender,
        seals: Seals,
        *,
        storage: Transfers | None = None,
        files: LocalFiles | None = None,
        environment: Mapping[str, str] | None = None,
        names: Names | None = None,
        confirming: Confirmer | None = None,
        gatekeeper: Gatekeeper | None = None,
        built_in: Mapping[str, BuiltInTool] | None = None,
        elsewhere: Mapping[str, str] | None = None,
        max_result_bytes: int = DEFAULT_MAX_RESULT_BYTES,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
        now: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Create the executor. The arguments are the services that calls use, and limits.

        `environment` holds the variables that capability files bind. Without `files` no local file is read or written;
        `storage` transfers them. `names` looks up names, `confirming` asks the user. Without a `gatekeeper` there is no
        policy and no audit log. `built_in` maps the tools that no capability file declares to their functions.
        `elsewhere` maps the tools that exist but are not served to the reasons. Tests replace `sleep`, `now` and
        `clock`.
        """
        self.gatekeeper = gatekeeper or Gatekeeper(upstream, {}, now=now)
        self._files = files or LocalFiles()
        self._names = names or Names({})
        self._confirming = confirming or Confirmer(seals)
        self._built_in = built_in or {}
        self._elsewhere = elsewhere or {}
        self._max_result_bytes = max_result_bytes
        self._new_run = partial(
            Run,
            upstream=upstream,
            environment=environment or {},
            seals=seals,
            thing_names=ThingNames(),
            sleep=sleep,
            now=now,
            clock=clock,
            storage=storage,
            max_bytes=max_result_bytes,
        )
        self._stages: dict[Tool, tuple[Stage, ...]] = {}

    async def call(
        self,
        tool: Tool,
        arguments: Mapping[str, Any],
        conversation: Conversation | None = None,
        caller: Caller = LOCAL,
        requests: RequestCount | None = None,
    ) -> Outcome:
        """Call a tool, and count in `requests` what it sends. Errors become outcomes; only cancellation is raised."""
        call = self._run_stages(tool, tool.name, arguments, conversation, caller, requests)
        return await self._settle(call, tool.name)

    async def _run_stages(
        self,
        tool: Tool,
        operation: str,
        arguments: Mapping[str, Any],
        conversation: Conversation | None,
        caller: Caller,
        requests: RequestCount | None,
        save: SaveTarget | None = None,
    ) -> Outcome:
        """Run the stages of a tool, or of the tool that a stage redirects to. Raises what a stage raises."""
        stages = self._stages.get(tool) or self._choose_stages(tool)
        run = self._begin(tool.name, conversation, caller, requests)
        context = CallContext(tool, operation, arguments, run, save=save)
        for stage in stages:
            step = await stage(context)
            if isinstance(step, CallContext):
                context = step
            elif isinstance(step, Redirect):
                # Errors of a saved list name `save-list`; errors of a tool that was found by another name that tool.
                name = operation if step.save is not None else step.tool.name
                redirected = self._run_stages(
                    step.tool, name, step.arguments, conversation, caller, run.requests, step.save
                )
                return await self._settle(redirected, name)
            else:
                return limit(step, self._max_result_bytes, context)
        raise AssertionError("the last stage returns an outcome")

    async def _settle(self, call: Awaitable[Outcome], operation: str) -> Outcome:
        """Await a call and turn an error into a `Failure`.

        An unexpected exception is logged with its traceback; the caller only gets a reference to the log entry.
        """
        try:
            return await call
        except CallError as error:
            failed = note_unserved_tools(error, self._elsewhere)
        except Exception:  # a defect ends this call, but not the server
            reference = uuid.uuid4().hex[:12]
            logger.exception("%s failed with an unexpected error (reference %s)", operation, reference)
            failed = CallError(
                ErrorCode.INTERNAL_ERROR,
                f"itwin-mcp has a defect: {operation} failed unexpectedly (reference {reference}).",
                hint="Nothing more is known here. Report the reference to whoever runs this server; its log has the "
                "details.",
            )
        return limit(Failure({"error": failed.to_json(operation)}, failed), self._max_result_bytes)

    def _choose_stages(self, tool: Tool) -> tuple[Stage, ...]:
        """Choose the stages that a tool needs, and remember them for its next calls."""
        stages: list[Stage] = [admit, ArgumentCheck(tool, self._files)]
        if tool.is_built_in:
            stages.append(self._built_in[tool.name])
        else:
            if any(argument.entity is not None for argument in tool.arguments):
                stages.append(self._names.resolve_names)
            if tool.writes:
                stages.append(authorize)
            if tool.confirms:
                stages.append(self._confirming.confirm)
            stages.append(self._run)
            if isinstance(tool.action, Call) and tool.action.further:
                stages.append(add_further_reads)
            stages.append(finish)
        self._stages[tool] = tuple(stages)
        return self._stages[tool]

    async def _run(self, context: CallContext) -> CallContext:
        """Stage: send the requests of the tool's action, with the permit and the confirmation of the call.

        Raises CallError.
        """
        tool, action = context.tool, context.tool.action
        if context.gate.rule is not None or context.confirmation is not None:
            context = replace(context, run=context.run.under(context.permit, context.confirmation))
        try:
            if context.save is not None:
                return await run_saved(context)
            if not isinstance(action, Call):
                return await run_flow(context)
            if action.operation.page is not None:
                return await run_list(context)
            return await (run_call if action.operation.wait is None else run_awaited)(context)
        except PlatformError as error:
            raise name_arguments(error, tool) from None
        finally:
            if not tool.annotations.read_only:
                self._names.forget(context.caller)

    async def read(
        self,
        resource: Resource,
        variables: Mapping[str, str],
        conversation: Conversation | None = None,
        caller: Caller = LOCAL,
    ) -> Outcome:
        """Read a resource: a JSON object without secrets, or bytes."""
        run = self._begin(resource.name, conversation, caller)
        return await self._settle(self._read(resource, variables, run), f"resources/read {resource.name}")

    async def _read(self, resource: Resource, variables: Mapping[str, str], run: Run) -> Outcome:
        declared = [ToolArgument(name, {}, True, resource.entities.get(name), ABSENT) for name in resource.variables]
        values = replace_links(variables, declared)
        run.gate.admit_resource(resource)
        action = resource.action
        if isinstance(action, Call):
            # The linker rejects resources whose operation pages or waits, so one request reads everything.
            response = await run.perform(action.operation, bind(action.bindings, values, {}))
            if action.operation.binary:
                return Result({}, blobs=(read_blob(response),))
            answer = shape_answer(run, action.operation, action.output, response)
        else:
            answer = await run_steps(run, action, values)
        answer = clean(remove_secrets(add_warnings(answer, run)))
        await run.thing_names.fill(run, action.output, answer)
        return limit(Result(answer), self._max_result_bytes)

    def first_request(self, tool: Tool, arguments: Mapping[str, Any]) -> Request:
        """Build the first request that a call would send, without its credential, and without sending anything.

        Names are not looked up. Raises CallError.
        """
        checked = ArgumentCheck(tool, self._files).check(convert_arguments(tool, arguments))
        return build_first_request(tool, self._names.resolve_offline(tool, checked))

    def shows(self, caller: Caller, tool: Tool) -> bool:
        """Return whether a caller is shown a tool: only those that the policy lets them call."""
        return self.gatekeeper.shows(caller, tool)

    async def note_refused(self, code: str, tool: Tool, arguments: Mapping[str, Any], caller: Caller) -> None:
        """Record in the audit log a call that was refused before it reached the executor."""
        with suppress(AuditFailed):  # the call is refused even if the log cannot be written
            gate = self.gatekeeper.gate(tool.name, caller)
            await gate.note("refused", tool, convert_arguments(tool, arguments), code=code)

    def _begin(
        self, name: str, conversation: Conversation | None, caller: Caller, requests: RequestCount | None = None
    ) -> Run:
        return self._new_run(
            name,
            conversation=conversation or NullConversation(),
            caller=caller,
            gate=self.gatekeeper.gate(name, caller),
            requests=requests or RequestCount(),
        )
