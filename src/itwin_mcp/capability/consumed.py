"""One `consumes` entry, compiled into operations: paths, parameters, bodies, paging and waiting."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from itwin_mcp.capability import extensions
from itwin_mcp.capability.expressions import (
    Argument,
    Expression,
    ExpressionError,
    Literal,
    Path,
    Text,
    argument_slot,
    compile_slots,
    slots,
)
from itwin_mcp.capability.extensions import MemberCode, Refusal, Waiting
from itwin_mcp.capability.model import (
    ApiKeyAuthentication,
    Authentication,
    ConsumedOperation,
    ConsumedParameter,
    Consumes,
    RequestBody,
)
from itwin_mcp.capability.parameters import FILE_PATH
from itwin_mcp.capability.place import Place
from itwin_mcp.capability.plans import (
    BodyTemplate,
    Code,
    Credential,
    FilePlan,
    Operation,
    PagePlan,
    PathTemplate,
    RefusalPlan,
    RefusalRead,
    Slot,
    WaitPlan,
    WireParameter,
)
from itwin_mcp.capability.suggestions import there_is

PLATFORM_ORIGIN = "https://api.bentley.com"
"""The origin that stands for the configured platform; `upstream` says the same, and a test holds the two together."""

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CLIENTS_OWN = frozenset({"authorization", "connection", "content-length", "host", "transfer-encoding"})
_DEFAULT_PORTS = {"http": 80, "https": 443}


class ConsumedApi:
    """One HTTP API as a file consumes it; problems are reported at its place.

    `binds` are the variables that the file binds, or those of the file that imports it.
    """

    def __init__(self, consumes: Consumes, binds: Mapping[str, str] | None, place: Place) -> None:
        self._consumes = consumes
        self._place = place
        self._origin, self._base = self._split_base(consumes.baseUri)
        self._credential = self._credential_of(consumes.authentication, binds)

    def operations(self) -> dict[str, Operation]:
        """The operations by name. One that broke a rule may be there all the same; the problems say so."""
        compiled: dict[str, Operation] = {}
        waits: list[tuple[str, Waiting, Place]] = []
        refusals: list[tuple[str, Mapping[str, Refusal], Place]] = []
        for resource_name, resource in self._consumes.resources.items():
            resource_place = self._place.at("resources", resource_name)
            template = self._path_template(resource.path, resource_place.at("path"))
            for name, operation in resource.operations.items():
                place = resource_place.at("operations", name)
                if name in compiled:
                    message = f"the operation {name!r} stands twice in the namespace {self._consumes.namespace!r}"
                    place.report("unique-operation", f"{message}: rename one")
                compiled[name] = self._operation(name, operation, template, place)
                if operation.wait is not None:
                    waits.append((name, operation.wait, place.at("x-wait")))
                if operation.refused:
                    refusals.append((name, operation.refused, place.at("x-refused")))
        plain = dict(compiled)
        for name, wait, place in waits:
            plan = self._wait(plain, name, wait, place)
            if plan is not None:
                compiled[name] = replace(compiled[name], wait=plan)
        for name, refused, place in refusals:
            plans = {code: self._refusal(plain, name, refusal, place.at(code)) for code, refusal in refused.items()}
            compiled[name] = replace(compiled[name], refusals=plans)
        return compiled

    def _split_base(self, base_uri: str) -> tuple[str, str]:
        parts = urlsplit(base_uri)
        place = self._place.at("baseUri")
        try:
            port = parts.port
        except ValueError:
            place.report("base-uri", "the port is not a number up to 65535")
            port = None
        if any(segment in (".", "..") for segment in parts.path.split("/")):
            place.report("base-uri", "has a `.` or `..` segment: write the path that is meant")
        host = parts.netloc.lower()
        if port == _DEFAULT_PORTS[parts.scheme]:
            host = host.rpartition(":")[0]
        return f"{parts.scheme}://{host}", parts.path.rstrip("/")

    def _credential_of(
        self, authentication: Authentication | None, binds: Mapping[str, str] | None
    ) -> Credential | None:
        if authentication is None:
            return None
        place = self._place.at("authentication")
        known = binds or {}
        parts: dict[str, Expression] = {}
        for key, text in authentication.model_dump(exclude={"type", "placement"}).items():
            expression = place.at(key).slots_of(text)
            if expression is None:
                continue
            parts[key] = expression
            for name in slots(text):
                self._check_variable(name, known, binds is not None, place.at(key))
        if isinstance(authentication, ApiKeyAuthentication):
            parts["placement"] = Literal(authentication.placement)
        return Credential(authentication.type, parts, dict(known))

    def _check_variable(self, name: str, binds: Mapping[str, str], complete: bool, place: Place) -> None:
        if name not in binds:
            if complete:
                message = (
                    f"{{{{{name}}}}} is bound nowhere: add it to `binds`, here or in the file that imports this one"
                )
                place.report("slot-without-value", message)
            return
        variable = binds[name]
        if self._origin != PLATFORM_ORIGIN and variable.upper().startswith(("ITWIN_", "ITP_")):
            message = f"{variable} holds a credential for {PLATFORM_ORIGIN} and is never sent to {self._origin}"
            place.report("platform-token", f"{message}: bind another variable")

    def _operation(self, name: str, operation: ConsumedOperation, template: PathTemplate, place: Place) -> Operation:
        parameters = {**self._consumes.inputParameters, **operation.inputParameters}
        in_path = set(path_slots(template))
        declared = {key for key, parameter in parameters.items() if parameter.in_ == "path"}
        for missing in sorted(in_path - declared):
            message = f"the slot {{{{{missing}}}}} of the path has no input parameter: add {missing}: {{in: path}}"
            place.report("slot-without-value", message)
        for surplus in sorted(declared & set(operation.inputParameters) - in_path):
            message = f"the path has no slot {{{{{surplus}}}}}: remove the parameter, or add the slot"
            place.at("inputParameters", surplus).report("unused-input", message)
        wire, in_values = self._wire_parameters(operation, parameters, in_path, place)
        body, in_body, needed = _compile_body(operation.body, place.at("body", "data"))
        file = self._file(operation, in_values | in_body | set(parameters), place)
        if operation.wait is not None and operation.page is not None:
            place.at("x-wait").report("x-wait", "an operation either pages or starts a job: remove x-page or x-wait")
        outputs = {
            key: place.at("outputParameters", key, "value").path_of(output.value)
            for key, output in operation.outputParameters.items()
        }
        return Operation(
            namespace=self._consumes.namespace,
            name=name,
            method=operation.method,
            origin=self._origin,
            path=template,
            parameters=wire,
            body=body,
            inputs=frozenset(parameter.name for parameter in wire) | in_body | in_values,
            required=frozenset(in_path) | needed | in_values,
            credential=self._credential,
            binary=operation.outputRawFormat == "binary",
            outputs={key: path for key, path in outputs.items() if path is not None},
            page=self._page(operation, frozenset(parameters), place.at("x-page")),
            wait=None,
            doc=operation.doc,
            permission=operation.permission,
            file=file,
            codes={key: _code(code) for key, code in {**self._consumes.codes, **operation.codes}.items()},
        )

    def _file(self, operation: ConsumedOperation, inputs: Collection[str], place: Place) -> FilePlan | None:
        """The plan of a body that is a file; the engine fills the input `filePath` itself."""
        plan = operation.file
        if plan is None:
            return None
        here = place.at("x-body")
        if operation.body is not None:
            here.report("x-body", "the body is a file or `body`, not both: remove one")
        if operation.method in ("GET", "DELETE"):
            here.report("x-body", f"a {operation.method} has no body: remove x-body")
        if FILE_PATH in inputs:
            here.report("x-body", f"the engine fills {FILE_PATH!r} with the file: call your input something else")
        return FilePlan(dict(plan.types), plan.most)

    def _wire_parameters(
        self,
        operation: ConsumedOperation,
        parameters: Mapping[str, ConsumedParameter],
        in_path: set[str],
        place: Place,
    ) -> tuple[tuple[WireParameter, ...], frozenset[str]]:
        """The parameters, and the names of the slots in their values."""
        compiled: list[WireParameter] = []
        names: set[str] = set()
        taken: dict[tuple[str, str], str] = {}
        for key, parameter in parameters.items():
            if parameter.in_ == "path" and key not in in_path:
                continue
            here = (place if key in operation.inputParameters else self._place).at("inputParameters", key)
            value = None
            if parameter.value is not None:
                text = parameter.value
                value = here.at("value").slots_of(text)
                if isinstance(value, Text) and key in slots(text):
                    message = f"the value holds the slot {{{{{key}}}}} of the parameter's own name: rename the slot"
                    here.at("value").report("expression", message)
                names.update(slots(text))
            wire = parameter.wire or key
            self._check_wire(parameter, wire, here)
            same = (parameter.in_, wire.lower() if parameter.in_ == "header" else wire)
            if same in taken:
                here.report("unique-wire", f"{taken[same]!r} is sent as the {parameter.in_} {wire!r} too: remove one")
            taken[same] = key
            compiled.append(WireParameter(key, parameter.in_, wire, value))
        return tuple(compiled), frozenset(names)

    def _check_wire(self, parameter: ConsumedParameter, wire: str, place: Place) -> None:
        if parameter.wire is not None and parameter.in_ == "path":
            place.at("x-wire").report("x-wire", "a path has no names on the wire: remove x-wire")
        if not wire:
            place.at("x-wire").report("x-wire", "the name on the wire is empty")
        elif parameter.in_ == "header":
            if not _HEADER_NAME.fullmatch(wire):
                place.report("header", f"{wire[:80]!r} is not a name of a header")
            elif wire.lower() in _CLIENTS_OWN:
                place.report("header", f"the header {wire!r} is the client's own: remove it, or use `authentication`")

    def _path_template(self, text: str, place: Place) -> PathTemplate:
        segments: list[tuple[str | Slot, ...]] = []
        for segment in (self._base + text).split("/")[1:]:
            if segment in (".", ".."):
                place.report("path", "has a `.` or `..` segment: write the path that is meant")
            try:
                compiled = compile_slots(segment, argument_slot)
            except ExpressionError as error:
                place.report("expression", str(error))
                continue
            parts: tuple[Any, ...] = compiled.parts if isinstance(compiled, Text) else (compiled,)
            segments.append(tuple(_segment_part(part) for part in parts))
        return tuple(segments)

    def _page(self, operation: ConsumedOperation, inputs: frozenset[str], place: Place) -> PagePlan | None:
        page = operation.page
        if page is None:
            return None
        if operation.method != "GET":
            place.report("x-page", f"only a GET pages, not a {operation.method}")
        for role, name in (("size", page.size), ("skip", page.skip), ("token", page.token)):
            if name is not None and name not in inputs:
                message = f"the operation has no input parameter {name!r}: {there_is(inputs, name)}"
                place.at(role).report("x-page", message)

        def path(role: str, text: str | None) -> Path | None:
            return None if text is None else place.at(role).path_of(text)

        items = path("items", page.items)
        if items is None:
            return None
        if items.many or not items.parts:
            place.at("items").report("x-page", f"{page.items!r} is not the place of one list, such as $.iModels")
        return PagePlan(
            style=page.style,
            items=items,
            next=path("next", page.next),
            size=page.size,
            most=page.most,
            skip=page.skip,
            token=page.token,
            count=path("count", page.count),
            within=page.within,
            counts=path("counts", page.counts),
        )

    def _wait(self, operations: Mapping[str, Operation], name: str, wait: Waiting, place: Place) -> WaitPlan | None:
        started = operations[name]
        poll = self._observed(operations, wait.poll, place.at("poll"))
        result = self._observed(operations, wait.result, place.at("result")) if wait.result is not None else None
        find = self._observed(operations, wait.find, place.at("find")) if wait.find is not None else None
        if find is not None and find.page is None:
            message = f"{wait.find!r} does not page: name the list in which the thing would stand"
            place.at("find").report("x-wait", message)
        handle = wait.handle
        if handle.input is not None and handle.input not in started.inputs:
            message = f"the operation has no input {handle.input!r}: {there_is(started.inputs, handle.input)}"
            place.at("handle", "input").report("x-wait", message)
        states = {"pending": wait.pending, "done": wait.done, "failed": wait.failed}
        listed: dict[str, str] = {}
        for kind, words in states.items():
            for state in words:
                other = listed.setdefault(state.casefold(), kind)
                if other != kind:
                    place.at(kind).report("x-wait", f"the state {state!r} is both {other} and {kind}")
        body = handle.body
        handle_path = None if body is None else place.at("handle", "body").path_of(body)
        state_path = place.at("state").path_of(wait.state)
        reason = wait.reason
        reason_path = None if reason is None else place.at("reason").path_of(reason)
        poll_slot = self._handle_slot(poll, started, handle.in_, place.at("poll"))
        result_slot = self._handle_slot(result, started, handle.in_, place.at("result"))
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

    def _refusal(self, operations: Mapping[str, Operation], name: str, refusal: Refusal, place: Place) -> RefusalPlan:
        reads: list[RefusalRead] = []
        known = {"error", "given"}
        for called, read in refusal.reads.items():
            here = place.at("reads", called)
            linked = self._refusal_read(operations, operations[name].inputs, called, read, known, here)
            reads += [] if linked is None else [linked]
            known.add(called)
        return RefusalPlan(tuple(reads), refusal.hint)

    def _refusal_read(
        self,
        operations: Mapping[str, Operation],
        refused: Collection[str],
        name: str,
        read: extensions.RefusalRead,
        known: Collection[str],
        place: Place,
    ) -> RefusalRead | None:
        """`refused` are the inputs of the refused operation, `known` the names with which a path may begin."""
        operation = self._observed(operations, read.call, place.at("call"))
        given = {key: self._refusal_value(text, known, place.at("with", key)) for key, text in read.with_.items()}
        among = None if read.among is None else self._refusal_value(read.among, known, place.at("among"))
        items = place.at("items").path_of(read.items)
        if operation is None or items is None:
            return None
        for shared in read.by:
            if shared not in operation.inputs or shared not in refused:
                place.at("by").report("x-refused", f"{shared!r} is not an input of both operations")
        for surplus in sorted(given.keys() - operation.inputs):
            place.at("with", surplus).report("unused-input", f"{operation.key!r} has no input {surplus!r}")
        if among is not None and not isinstance(among, Path):
            place.at("among").report("x-refused", "must be a path such as $.given.changesetId")
            return None
        fields = tuple(read.fields)
        return RefusalRead(name, operation, tuple(read.by), given, items, read.match, among, fields)

    def _refusal_value(self, text: str, known: Collection[str], place: Place) -> str | Path:
        """The text itself, or the path that it is, which begins with a name that is known there."""
        path = place.path_of(text) if text.startswith("$") else None
        if path is None:
            return text
        if not path.parts or path.parts[0] not in known:
            place.report("x-refused", f"{text!r} must begin with one of: {', '.join(sorted(known))}")
        return path

    def _observed(self, operations: Mapping[str, Operation], reference: str, place: Place) -> Operation | None:
        namespace, _, called = reference.partition(".")
        if namespace != self._consumes.namespace or called not in operations:
            known = [f"{self._consumes.namespace}.{name}" for name in operations]
            message = f"there is no operation {reference!r} in this namespace: {there_is(known, reference)}"
            place.report("unresolved-call", message)
            return None
        if operations[called].method != "GET":
            place.report("x-wait", f"{reference!r} is a {operations[called].method}: a job is looked at with a GET")
        return operations[called]

    def _handle_slot(
        self, operation: Operation | None, started: Operation, named: str | None, place: Place
    ) -> str | None:
        if operation is None:
            return None
        in_path = path_slots(operation.path)
        slot = named if named in in_path else in_path[0] if named is None and len(in_path) == 1 else None
        if slot is None:
            has = ", ".join(in_path) or "none"
            message = f"say with `handle.in` which slot of {operation.key!r} takes the handle: it has {has}"
            place.report("x-wait", message)
            return None
        for other in sorted(set(in_path) - {slot} - started.inputs):
            message = f"the slot {{{{{other}}}}} of {operation.key!r} gets no value: {started.key!r} has no such input"
            place.report("slot-without-value", message)
        return slot


def _code(code: MemberCode) -> Code:
    if code.bits is not None:
        return Code("bits", dict(code.bits))
    if code.words is not None:
        return Code("words", dict(code.words))
    return Code("json", detail=code.other) if code.other is not None else Code("joined", detail=code.joined or "")


def path_slots(template: PathTemplate) -> tuple[str, ...]:
    """The names of the slots in a path, in order."""
    return tuple(part.name for segment in template for part in segment if isinstance(part, Slot))


def _segment_part(part: Any) -> str | Slot:
    if isinstance(part, Argument):
        return Slot(part.name)
    return str(part.value) if isinstance(part, Literal) else str(part)


def _compile_body(body: RequestBody | None, place: Place) -> tuple[BodyTemplate | None, frozenset[str], frozenset[str]]:
    """The compiled body, the names of all its slots, and of those inside text, which need a value."""
    if body is None:
        return None, frozenset(), frozenset()
    names: set[str] = set()
    needed: set[str] = set()

    def compiled(value: Any, here: Place) -> Any:
        if isinstance(value, dict):
            return {key: compiled(child, here.at(key)) for key, child in value.items()}
        if isinstance(value, list):
            return [compiled(child, here.at(index)) for index, child in enumerate(value)]
        if not isinstance(value, str):
            return Literal(value)
        expression = here.slots_of(value)
        if expression is None:
            return Literal(value)
        names.update(slots(value))
        if isinstance(expression, Text):
            needed.update(slots(value))
        return expression

    return BodyTemplate(body.type, compiled(body.data, place)), frozenset(names), frozenset(needed)
