"""Requests that follow another one, compiled: polling its job (`x-wait`) and explaining a refusal (`x-refused`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from itwin_mcp.capability import extensions
from itwin_mcp.capability.documents import Place
from itwin_mcp.capability.expressions import JsonPath
from itwin_mcp.capability.extensions import Refusal, Waiting
from itwin_mcp.capability.operations import Operation, RefusalPlan, RefusalRead, WaitPlan, list_path_slots
from itwin_mcp.text import suggest


def compile_wait(operations: Mapping[str, Operation], name: str, wait: Waiting, place: Place) -> WaitPlan | None:
    """Return how the job that the operation `name` starts is awaited; None, and problems, if that is not clear.

    `operations` are those of the namespace, by name.
    """
    started = operations[name]
    poll = _find_read(operations, wait.poll, place.at("poll"))
    result = _find_read(operations, wait.result, place.at("result")) if wait.result is not None else None
    find = _find_read(operations, wait.find, place.at("find")) if wait.find is not None else None
    if find is not None and find.page is None:
        message = f"{wait.find!r} does not page: name the operation that lists such things"
        place.at("find").report("x-wait", message)
    handle = wait.handle
    if handle.input is not None and handle.input not in started.inputs:
        message = f"the operation has no input {handle.input!r}: {suggest(started.inputs, handle.input)}"
        place.at("handle", "input").report("x-wait", message)
    states = {"pending": wait.pending, "done": wait.done, "failed": wait.failed}
    listed: dict[str, str] = {}
    for kind, words in states.items():
        for state in words:
            other = listed.setdefault(state.casefold(), kind)
            if other != kind:
                place.at(kind).report("x-wait", f"the state {state!r} is both {other} and {kind}")
    body = handle.body
    handle_path = None if body is None else place.at("handle", "body").compile_path(body)
    state_path = place.at("state").compile_path(wait.state)
    reason = wait.reason
    reason_path = None if reason is None else place.at("reason").compile_path(reason)
    poll_slot = _find_handle_slot(poll, started, handle.in_, place.at("poll"))
    result_slot = _find_handle_slot(result, started, handle.in_, place.at("result"))
    if poll is None or poll_slot is None or state_path is None:
        return None
    where: Any = "header" if handle.header is not None else "body" if body is not None else "input"
    return WaitPlan(
        handle_place=where,
        handle_name=(handle.header or "").lower() or body or handle.input or "",
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
    """Return what is read after a refusal of the operation `name`; what is wrong is reported."""
    reads: list[RefusalRead] = []
    known = {"error", "given"}
    for called, read in refusal.reads.items():
        here = place.at("reads", called)
        linked = _compile_refusal_read(operations, operations[name].inputs, called, read, known, here)
        reads += [] if linked is None else [linked]
        known.add(called)
    return RefusalPlan(tuple(reads), refusal.hint)


def _compile_refusal_read(
    operations: Mapping[str, Operation],
    refused: Collection[str],
    name: str,
    read: extensions.RefusalReadSpec,
    known: Collection[str],
    place: Place,
) -> RefusalRead | None:
    """Compile one read. `refused` are the inputs of the refused operation, `known` the names a path may begin with."""
    operation = _find_read(operations, read.call, place.at("call"))
    given = {key: _compile_refusal_value(text, known, place.at("with", key)) for key, text in read.with_.items()}
    among = None if read.among is None else _compile_refusal_value(read.among, known, place.at("among"))
    items = place.at("items").compile_path(read.items)
    if operation is None or items is None:
        return None
    for shared in read.by:
        if shared not in operation.inputs or shared not in refused:
            place.at("by").report("x-refused", f"{shared!r} is not an input of both operations")
    for surplus in sorted(given.keys() - operation.inputs):
        place.at("with", surplus).report("unused-input", f"{operation.key!r} has no input {surplus!r}")
    if among is not None and not isinstance(among, JsonPath):
        place.at("among").report("x-refused", "must be a path such as $.given.changesetId")
        return None
    fields = tuple(read.fields)
    return RefusalRead(name, operation, tuple(read.by), given, items, read.match, among, fields)


def _compile_refusal_value(text: str, known: Collection[str], place: Place) -> str | JsonPath:
    """Return a text as it is, or compiled if it is a path, which must begin with a known name."""
    path = place.compile_path(text) if text.startswith("$") else None
    if path is None:
        return text
    if not path.parts or path.parts[0] not in known:
        place.report("x-refused", f"{text!r} must begin with one of: {', '.join(sorted(known))}")
    return path


def _find_read(operations: Mapping[str, Operation], reference: str, place: Place) -> Operation | None:
    """Return the GET operation of this namespace that `namespace.operation` names; None, and a problem, otherwise."""
    by_key = {operation.key: operation for operation in operations.values()}
    operation = by_key.get(reference)
    if operation is None:
        message = f"there is no operation {reference!r} in this namespace: {suggest(by_key, reference)}"
        place.report("unresolved-call", message)
    elif operation.method != "GET":
        place.report("x-wait", f"{reference!r} is a {operation.method}: use a GET to look at a job or a refusal")
    return operation


def _find_handle_slot(operation: Operation | None, started: Operation, named: str | None, place: Place) -> str | None:
    """Return the path slot that takes the handle of a job; None, and a problem, if that is not clear."""
    if operation is None:
        return None
    in_path = list_path_slots(operation.path)
    slot = named if named in in_path else in_path[0] if named is None and len(in_path) == 1 else None
    if slot is None:
        has = ", ".join(in_path) or "none"
        message = f"{operation.key!r} needs one slot for the handle: name one of these with `handle.in`: {has}"
        place.report("x-wait", message)
        return None
    for other in sorted(set(in_path) - {slot} - started.inputs):
        message = f"the slot {{{{{other}}}}} of {operation.key!r} gets no value: {started.key!r} has no such input"
        place.report("slot-without-value", message)
    return slot
