"""Compiler of the requests that follow another one: `x-wait` polls its job, `x-refused` explains a refusal."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from itwin_mcp.capability import extensions
from itwin_mcp.capability.documents import Place
from itwin_mcp.capability.expressions import JsonPath
from itwin_mcp.capability.extensions import Refusal, Waiting
from itwin_mcp.capability.operations import Operation, RefusalPlan, RefusalRead, WaitPlan, list_path_slots


def compile_wait(operations: Mapping[str, Operation], name: str, wait: Waiting, place: Place) -> WaitPlan | None:
    """Compile the `x-wait` of the operation `name`. If it cannot be compiled, report problems and return None.

    `operations` are all operations of the namespace, by name.
    """
    started = operations[name]
    poll = _find_read(operations, wait.poll, place.at("poll"))
    result = _find_read(operations, wait.result, place.at("result")) if wait.result is not None else None
    find = _find_read(operations, wait.find, place.at("find")) if wait.find is not None else None
    if find is not None and find.page is None:
        message = f"{wait.find!r} does not page: name the operation that lists such things"
        place.at("find").report("x-wait", message)
    handle = wait.handle
    if handle.input is not None:
        place.at("handle", "input").check_known(handle.input, started.inputs, "x-wait", "the operation has no input")
    kinds: dict[str, str] = {}
    for kind, states in (("pending", wait.pending), ("done", wait.done), ("failed", wait.failed)):
        for state in states:
            other = kinds.setdefault(state.casefold(), kind)
            if other != kind:
                place.at(kind).report("x-wait", f"the state {state!r} is both {other} and {kind}")
    handle_path = None if handle.body is None else place.at("handle", "body").compile_path(handle.body)
    state_path = place.at("state").compile_path(wait.state)
    reason_path = None if wait.reason is None else place.at("reason").compile_path(wait.reason)
    poll_slot = _find_handle_slot(poll, started, handle.in_, place.at("poll"))
    result_slot = _find_handle_slot(result, started, handle.in_, place.at("result"))
    if poll is None or poll_slot is None or state_path is None:
        return None
    return WaitPlan(
        handle_place="header" if handle.header is not None else "body" if handle.body is not None else "input",
        handle_name=(handle.header or "").lower() or handle.body or handle.input or "",
        handle_path=handle_path,
        handle_as=handle.as_,
        poll=poll,
        poll_slot=poll_slot,
        state=state_path,
        done=frozenset(state.casefold() for state in wait.done),
        failed=frozenset(state.casefold() for state in wait.failed),
        result=result,
        result_slot=result_slot,
        reason=reason_path,
        causes={state.casefold(): text for state, text in wait.causes.items()},
        left=wait.left,
        subject=wait.subject,
        check=wait.check,
        default=wait.default,
        find=find,
    )


def compile_refusal(operations: Mapping[str, Operation], name: str, refusal: Refusal, place: Place) -> RefusalPlan:
    """Compile one entry of the `x-refused` of the operation `name`. Problems are reported."""
    reads: list[RefusalRead] = []
    sources = {"error", "given"}
    for read_name, read in refusal.reads.items():
        here = place.at("reads", read_name)
        compiled_read = _compile_refusal_read(operations, operations[name].inputs, read_name, read, sources, here)
        reads += [] if compiled_read is None else [compiled_read]
        sources.add(read_name)
    return RefusalPlan(tuple(reads), refusal.hint)


def _compile_refusal_read(
    operations: Mapping[str, Operation],
    refused: Collection[str],
    name: str,
    read: extensions.RefusalReadSpec,
    sources: Collection[str],
    place: Place,
) -> RefusalRead | None:
    """Compile one read. Paths begin with one of the `sources`; `refused` are the inputs of the refused operation."""
    operation = _find_read(operations, read.call, place.at("call"))
    bindings = {key: _compile_refusal_value(text, sources, place.at("with", key)) for key, text in read.with_.items()}
    among = None if read.among is None else _compile_refusal_value(read.among, sources, place.at("among"))
    items = place.at("items").compile_path(read.items)
    if operation is None or items is None:
        return None
    for shared in read.by:
        if shared not in operation.inputs or shared not in refused:
            place.at("by").report("x-refused", f"{shared!r} is not an input of both operations")
    for surplus in sorted(bindings.keys() - operation.inputs):
        place.at("with", surplus).report("unused-input", f"{operation.key!r} has no input {surplus!r}")
    if among is not None and not isinstance(among, JsonPath):
        place.at("among").report("x-refused", "must be a path such as $.given.changesetId")
        return None
    return RefusalRead(name, operation, tuple(read.by), bindings, items, read.match, among, tuple(read.fields))


def _compile_refusal_value(text: str, sources: Collection[str], place: Place) -> str | JsonPath:
    """Compile a text that is a path, which must begin with one of the sources. Return any other text unchanged."""
    path = place.compile_path(text) if text.startswith("$") else None
    if path is None:
        return text
    if not path.parts or path.parts[0] not in sources:
        place.report("x-refused", f"{text!r} must begin with one of: {', '.join(sorted(sources))}")
    return path


def _find_read(operations: Mapping[str, Operation], reference: str, place: Place) -> Operation | None:
    """Return the GET operation called `namespace.operation` in this namespace. If there is none, report it."""
    by_key = {operation.key: operation for operation in operations.values()}
    operation = by_key.get(reference)
    if operation is None:
        place.check_known(reference, by_key, "unresolved-call", "this namespace has no operation")
    elif operation.method != "GET":
        place.report("x-wait", f"{reference!r} is a {operation.method}: use a GET to look at a job or a refusal")
    return operation


def _find_handle_slot(operation: Operation | None, started: Operation, slot: str | None, place: Place) -> str | None:
    """Return the path slot that takes the handle of a job. If there is no such slot, report it and return None."""
    if operation is None:
        return None
    in_path = list_path_slots(operation.path)
    if slot is None and len(in_path) == 1:
        slot = in_path[0]
    if slot is None or slot not in in_path:
        has = ", ".join(in_path) or "none"
        message = f"{operation.key!r} needs one slot for the handle: name one of these with `handle.in`: {has}"
        place.report("x-wait", message)
        return None
    for other in sorted(set(in_path) - {slot} - started.inputs):
        message = f"the slot {{{{{other}}}}} of {operation.key!r} gets no value: {started.key!r} has no such input"
        place.report("slot-without-value", message)
    return slot
