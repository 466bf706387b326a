"""Runs a tool or reads a resource by composing the stages, and does nothing else."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio

from itwin_mcp.capability.catalog import Resource, Tool, ToolArgument
from itwin_mcp.capability.expressions import ABSENT
from itwin_mcp.capability.parameters import OVERWRITE
from itwin_mcp.capability.plans import Call, CallStep, Steps
from itwin_mcp.capability.transfers import FILE
from itwin_mcp.errors import AuditFailed, CallError, InvalidArguments, PlatformError, Unconfirmed, UnexpectedAnswer
from itwin_mcp.executor.blobs import Blob, blob_of
from itwin_mcp.executor.confirm import Confirming
from itwin_mcp.executor.conversation import LOCAL, Caller, Conversation, Silence
from itwin_mcp.executor.conversion import convert_arguments
from itwin_mcp.executor.cursors import Cursors
from itwin_mcp.executor.fit import MAX_RESULT_BYTES, clean, fit, size_of
from itwin_mcp.executor.gate import FENCED, Gate, Gatekeeper
from itwin_mcp.executor.local_files import LocalFiles
from itwin_mcp.executor.lookup import Names
from itwin_mcp.executor.names import read_names
from itwin_mcp.executor.paging import list_pages
from itwin_mcp.executor.request import bind, build_request
from itwin_mcp.executor.saving import name_file, save_list
from itwin_mcp.executor.seals import Seals
from itwin_mcp.executor.sending import Run, Transfers, Upstream, shape_answer
from itwin_mcp.executor.steps import MOST_ITEMS, bind_step, leaves_out, run_steps
from itwin_mcp.executor.targets import name_arguments
from itwin_mcp.executor.transfer import local_file
from itwin_mcp.executor.validate import Check, compile_check
from itwin_mcp.executor.waiting import Pending, run_job
from itwin_mcp.executor.walk import first_request
from itwin_mcp.upstream.redaction import without_secrets
from itwin_mcp.upstream.wire import Request

_AROUND = 1_500
"""Bytes of a list's answer that are no items: its cursor most of all. At most a third of a small limit."""


class Executor:
    """One for the whole server; it keeps compiled checks and, for a minute, what names meant."""

    def __init__(
        self,
        upstream: Upstream,
        seals: Seals,
        *,
        storage: Transfers | None = None,
        files: LocalFiles | None = None,
        environment: Mapping[str, str] | None = None,
        names: Names | None = None,
        confirming: Confirming | None = None,
        gatekeeper: Gatekeeper | None = None,
        max_result_bytes: int = MAX_RESULT_BYTES,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
        now: Callable[[], float] = anyio.current_time,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`environment` holds the variables that capability files bind; `sleep`, `now` and `clock` are for tests.

        Without `files` no local file is read or written; `storage` is where they go and come from. Without `names`
        nothing is looked up. `confirming` is how the person is asked. Without a `gatekeeper` there is no policy and no
        audit log.
        """
        self._upstream = upstream
        self._seals = seals
        self._storage = storage
        self._files = files or LocalFiles()
        self._environment = environment or {}
        self._names = names or Names({})
        self._confirming = confirming or Confirming(seals)
        self._gatekeeper = gatekeeper or Gatekeeper(upstream, {}, {}, now=now)
        self.max_result_bytes = max_result_bytes
        self._sleep = sleep
        self._now = now
        self._clock = clock
        self._checks: dict[str, Check] = {}

    async def call(
        self,
        tool: Tool,
        arguments: Mapping[str, Any],
        conversation: Conversation | None = None,
        caller: Caller = LOCAL,
        blobs: list[Blob] | None = None,
    ) -> dict[str, Any]:
        """The structured answer of one tool call. Raises an error of the CallError family, or Unconfirmed.

        Bytes that are the answer, such as a picture's, go into `blobs`.
        """
        gate = self._gatekeeper.gate(tool.name, caller)
        run = self._run(tool.name, conversation, caller, gate)
        given = convert_arguments(tool, arguments)
        await gate.admit(tool, given)
        checked = self._files.read(tool, self._check(tool)(given))
        ready, resolved = await self._names.resolve(run, tool, given, checked)
        permit = await gate.permit(tool, ready)
        try:
            confirmed = await self._confirming.confirm(run, tool, ready, resolved, permit.waived)
        except Unconfirmed as waits:
            if waits.asked:
                await gate.note("asked", tool, ready)
            else:
                await gate.note("refused", tool, ready, code="NobodyToAsk")
            raise
        except CallError as error:
            await gate.note("declined" if type(error) is CallError else "refused", tool, ready, code=error.code)
            raise
        if confirmed is None and tool.transfer is not None and OVERWRITE in ready:
            ready = {**ready, OVERWRITE: False}  # nothing was there to lose: what comes there by now stays
        gate.begin(permit, None if confirmed is None else confirmed.word)
        try:
            # What the engine adds counts too, so that a list leaves room for it.
            room = self.max_result_bytes - min(_AROUND, self.max_result_bytes // 3) - size_of(resolved)
            answer = await self._answer(run, tool, ready, blobs, room)
            result = clean(_with_warnings(answer, run))
        except PlatformError as error:
            name_arguments(error, tool)
            raise
        finally:
            if not tool.annotations.read_only:
                self._names.forget(caller)
        notes: list[str] = []
        if tool.empty is not None and "cursor" not in ready and tool.empty.is_meant_by(result):
            notes.append(tool.empty.note)
            result.setdefault("page", {"returned": 0, "complete": True})
        if gate.filtered and isinstance(result.get("page"), dict):
            notes.append(FENCED)
        if notes:
            result["page"]["note"] = " ".join(notes)
        if resolved:
            result["resolved"] = clean(resolved)
        return fit(result, self.max_result_bytes, tool.lists, wrote=not tool.annotations.read_only)

    async def save_list(
        self,
        saving: Tool,
        arguments: Mapping[str, Any],
        choose: Callable[[str], Tool],
        conversation: Conversation | None = None,
        caller: Caller = LOCAL,
    ) -> dict[str, Any]:
        """Return the answer of `save-list`: the tool that lists is judged as if it were called, then the local write.

        `choose` returns the tool of a name that the caller may save. Raises an error of the CallError family.
        """
        writing = self._gatekeeper.gate(saving.name, caller)
        given = convert_arguments(saving, arguments)
        await writing.admit(saving, given)
        checked = self._files.read(saving, name_file(self._check(saving)(given)))
        tool = choose(checked["tool"])
        gate = self._gatekeeper.gate(tool.name, caller)
        run = self._run(tool.name, conversation, caller, gate)
        asked = convert_arguments(tool, checked["arguments"])
        await gate.admit(tool, asked)
        if "cursor" in asked:
            raise InvalidArguments("save-list saves the whole list, without cursor.", hint="Leave cursor out.")
        ready, resolved = await self._names.resolve(run, tool, asked, self._check(tool)(asked))
        gate.begin(await gate.permit(tool, ready), None)
        async with writing.write_locally(tool.name):
            answer = await save_list(run, tool, ready, Path(checked["path"]), asked.get("limit"))
        if gate.filtered:
            answer["page"]["note"] = FENCED
        result = clean(_with_warnings(answer, run))
        if resolved:
            result["resolved"] = clean(resolved)
        return fit(result, self.max_result_bytes, wrote=True)

    async def note_refused(self, code: str, tool: Tool, arguments: Mapping[str, Any], caller: Caller) -> None:
        """Write into the audit log that a call was refused before it came here; without its line it still is."""
        with suppress(AuditFailed):
            given = convert_arguments(tool, arguments)
            await self._gatekeeper.gate(tool.name, caller).note("refused", tool, given, code=code)

    async def _answer(
        self, run: Run, tool: Tool, ready: Mapping[str, Any], blobs: list[Blob] | None, room: int
    ) -> dict[str, Any]:
        if isinstance(tool.action, Call) and tool.action.operation.binary:
            answer = await run.perform(tool.action.operation, bind(tool.action.bindings, ready, {}))
            blob = blob_of(answer)
            if blobs is not None:
                blobs.append(blob)
            return blob.told()
        return await self._perform(run, tool, ready, room)

    async def read(
        self,
        resource: Resource,
        variables: Mapping[str, str],
        conversation: Conversation | None = None,
        caller: Caller = LOCAL,
    ) -> dict[str, Any] | Blob:
        """What a resource holds, without secrets: a JSON object, or bytes. Raises an error of the CallError family."""
        declared = [ToolArgument(name, {}, True, resource.entities.get(name), ABSENT) for name in resource.variables]
        values, _ = read_names(variables, declared)
        gate = self._gatekeeper.gate(resource.name, caller)
        gate.admit_resource(resource)
        run = self._run(resource.name, conversation, caller, gate)
        action = resource.action
        if isinstance(action, Steps):
            whole = _with_warnings(await run_steps(run, action, values), run)
            return fit(clean(without_secrets(whole)), self.max_result_bytes)
        # The linker lets no operation here that pages or waits: a resource is read at once.
        answer = await run.perform(action.operation, bind(action.bindings, values, {}))
        if action.operation.binary:
            return blob_of(answer)
        shaped = _with_warnings(shape_answer(run, action.operation, action.output, answer), run)
        return fit(clean(without_secrets(shaped)), self.max_result_bytes)

    def preview(self, tool: Tool, arguments: Mapping[str, Any]) -> Request:
        """The first request that a call would send, without its credential; nothing is sent, so no name is looked up.

        Raises an error of the CallError family.
        """
        given = convert_arguments(tool, arguments)
        ready = self._files.read(tool, self._names.known(tool, self._check(tool)(given)))
        results = {FILE: local_file(tool.transfer, ready)} if tool.transfer else {}
        first = _first_sent(tool, ready, results)
        if isinstance(first, CallStep):
            values, _ = bind_step(first, ready, results)
        else:
            values = bind(first.bindings, ready, results)
        if first.operation.page is not None:
            most = first.most if isinstance(first, CallStep) else ready.get("limit")
            return first_request(first.operation, values, most or MOST_ITEMS)
        return build_request(first.operation, values)

    def _check(self, tool: Tool) -> Check:
        check = self._checks.get(tool.name)
        if check is None:
            check = self._checks[tool.name] = compile_check(tool)
        return check

    def _run(self, name: str, conversation: Conversation | None, caller: Caller, gate: Gate | None = None) -> Run:
        told = conversation or Silence()
        return Run(
            name,
            self._upstream,
            self._environment,
            told,
            caller,
            self._sleep,
            self._now,
            self._clock,
            self._storage,
            gate,
        )

    async def _perform(self, run: Run, tool: Tool, arguments: Mapping[str, Any], room: int) -> dict[str, Any]:
        """`room` is how many bytes the items of a list may have."""
        action = tool.action
        if isinstance(action, Steps):
            return await run_steps(run, action, arguments, tool.transfer)
        operation, values = action.operation, bind(action.bindings, arguments, {})
        if operation.page is not None:
            listing = await list_pages(
                run,
                operation,
                values,
                action.output,
                limit=arguments["limit"],
                cursor=arguments.get("cursor"),
                cursors=Cursors(self._seals, tool.name, arguments, run.caller),
                most_bytes=room,
                full=arguments["fields"] == "all",
            )
            return {**listing.result, "page": listing.page}
        if operation.wait is not None:
            ended = await run_job(run, operation, values, seconds=arguments["wait"])
            if isinstance(ended, Pending):
                return {"job": ended.job}
            try:
                return shape_answer(run, ended.operation, action.output, ended.answer)
            except UnexpectedAnswer as error:
                ended.explain(error)
                raise
        return shape_answer(run, operation, action.output, await run.perform(operation, values))


def _with_warnings(answer: dict[str, Any], run: Run) -> dict[str, Any]:
    """Return the answer with what the platform answered in it that was not expected."""
    warnings = run.warnings.to_json()
    return {**answer, "warnings": warnings} if warnings else answer


def _first_sent(tool: Tool, arguments: Mapping[str, Any], results: Mapping[str, Any]) -> Call | CallStep:
    """What sends a call's first request. Raises InvalidArguments where the arguments leave out every step."""
    if isinstance(tool.action, Call):
        return tool.action
    for step in tool.action.steps:
        if isinstance(step, CallStep) and not leaves_out(step.condition, arguments, results):
            return step
    raise InvalidArguments(
        f"With these arguments {tool.name} sends nothing.",
        hint=f"Give more of them: `itwin-mcp tools describe {tool.name}` names all.",
    )
