"""Compiler of actions: the call or the steps of a tool, flow or resource, linked to operations and inputs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from itwin_mcp.capability import flow_schema
from itwin_mcp.capability.answer_schema import RESERVED_OUTPUTS
from itwin_mcp.capability.documents import Place
from itwin_mcp.capability.expressions import Argument, Every, Expression, JsonPath, Literal, PathPart
from itwin_mcp.capability.lookup_compiler import compile_lookup
from itwin_mcp.capability.not_served import find_unserved
from itwin_mcp.capability.operations import Operation, list_path_slots
from itwin_mcp.capability.outputs import (
    accept_single,
    check_mappings,
    compile_flow_outputs,
    compile_mapped_output,
    compile_root_output,
    warn_of_reserved_outputs,
    wrap_output,
)
from itwin_mcp.capability.parameters import FILE_PATH
from itwin_mcp.capability.references import Scope
from itwin_mcp.capability.schema_types import JsonSchema
from itwin_mcp.capability.tool_actions import (
    RESULT,
    AcrossPlan,
    Action,
    Call,
    CallStep,
    Condition,
    DefaultsPlan,
    EachPlan,
    FurtherRead,
    LookupStep,
    NameSource,
    Output,
    PreviewRead,
    RepeatPlan,
    Requirement,
    Step,
    StepMapping,
    Steps,
)
from itwin_mcp.capability.transfers import FILE
from itwin_mcp.text import suggest

Namespaces = Mapping[str, Mapping[str, Operation] | None]
"""The operations that a file may call, by namespace; None for a namespace whose import failed."""


_BYTES = Output("object", properties=(("content", Output("object")),))
_BYTES_SCHEMA: JsonSchema = {
    "type": "object",
    "properties": {
        "content": {
            "type": "object",
            "properties": {"mediaType": {"type": "string"}, "bytes": {"type": "integer"}},
            "required": ["mediaType", "bytes"],
        }
    },
}
"""The structured answer of an operation that returns bytes: their media type and number."""


@dataclass(frozen=True, slots=True)
class ActionCompiler:
    """Compiles the actions of one file."""

    operations: Namespaces
    servers: Mapping[str, Any] = field(default_factory=dict)
    """The consumed MCP servers, by namespace. They are not called."""

    def find_unserved(self, body: flow_schema.ActionSpec) -> str | None:
        """Return why an action cannot be served; None if it can be."""
        return find_unserved(body, self.servers)

    def compile(self, body: flow_schema.ActionSpec, scope: Scope, place: Place) -> tuple[Action, JsonSchema] | None:
        """Return the action and the schema of its answer. If it cannot be compiled, report problems and return None."""
        if body.call is not None and body.steps:
            place.report("one-action", "has both `call` and `steps`: keep one")
            return None
        if body.call is not None:
            if body.mappings:
                place.at("mappings").report(
                    "one-action", "`mappings` need `steps`: map the answer of a `call` in its outputs"
                )
            return self._compile_call(body.call, body, scope, place)
        for word, value in (("x-across", body.across), ("x-containing", body.containing)):
            if value:
                place.at(word).report("one-action", f"`{word}` needs `call`, and an operation that pages")
        if body.steps:
            if body.with_:
                place.at("with").report("one-action", "move `with` into the steps that need it")
            return self._compile_steps(body, scope, place)
        if isinstance(body.outputParameters, dict) and body.outputParameters:
            return self._compile_mock(body.outputParameters, scope, place.at("outputParameters"))
        scope.used.update(scope.inputs)  # otherwise every input would also be reported as unused
        place.report("required-key", "needs one of `call`, `steps` or (a tool) `ref`")
        return None

    def _compile_mock(
        self, outputs: Mapping[str, flow_schema.Orchestrated], scope: Scope, place: Place
    ) -> tuple[Action, JsonSchema]:
        """Compile an action that calls nothing: its answer is written in the file. Inputs need not be used."""
        scope.used.update(scope.inputs)
        mappings = []
        for name, parameter in outputs.items():
            if not isinstance(parameter, flow_schema.OrchestratedScalar) or parameter.value is None:
                place.at(name).report("output", f"{name!r} needs a `value`: the tool has neither `call` nor `steps`")
                continue
            value = scope.compile_value(parameter.value, place.at(name, "value"))
            if value is not None:
                mappings.append(StepMapping((name,), value))
        output, schema = compile_flow_outputs(outputs, place, self._find_name_source)
        reserved = sorted(RESERVED_OUTPUTS & outputs.keys())
        if reserved:
            warn_of_reserved_outputs(reserved, place)
            output, schema = wrap_output(output, schema)
        return Steps((), tuple(mappings), output), schema

    # --- one call -----------------------------------------------------------------------------------------------

    def _compile_call(
        self, reference: str, body: flow_schema.ActionSpec, scope: Scope, place: Place
    ) -> tuple[Action, JsonSchema] | None:
        operation = self._find_operation(reference, place.at("call"))
        bindings = self._compile_bindings(body.with_, operation, scope, place, guarded=body.across is not None)
        across = (
            None if body.across is None else self._compile_across(body.across, operation, scope, place.at("x-across"))
        )
        for name in body.containing:
            here = place.at("x-containing", name)
            here.check_known(name, scope.inputs, "unresolved-input", "there is no input")
            scope.used.add(name)
        if (body.across or body.containing) and operation is not None and operation.page is None:
            word = "x-across" if body.across else "x-containing"
            place.at(word).report(word, f"{operation.key!r} does not page: choose one that lists things")
        parameters = body.outputParameters
        if operation is not None and operation.binary and parameters is None:
            return Call(operation, bindings, _BYTES), _BYTES_SCHEMA
        if isinstance(parameters, dict):
            message = "with `call`, `outputParameters` must be a list of one output: `- type: object`"
            place.at("outputParameters").report("output", message)
            return None
        if parameters:
            here = place.at("outputParameters", 0)
            paged = operation is not None and operation.page is not None
            output, schema = compile_root_output(parameters[0], here, self._find_name_source, paged=paged)
            within = (RESULT,) if output.wraps else ()
            further = tuple(self._compile_further_reads(parameters[0], scope, here, operation, within))
            if len(parameters) > 1:
                place.at("outputParameters", 1).warn("output", "only the first output is returned: use an object")
        else:
            (output, schema), further = wrap_output(Output("any"), {}), ()
        if operation is None:
            return None
        if operation.raw_format == "xml":
            output = accept_single(output)
        bindings = _bind_by_name(bindings, operation, scope, set(scope.inputs) - scope.used)
        containing = {name: tuple(members) for name, members in body.containing.items()}
        return Call(operation, bindings, output, across, containing, further), schema

    def _compile_across(
        self, across: flow_schema.Across, operation: Operation | None, scope: Scope, place: Place
    ) -> AcrossPlan | None:
        steps = self._compile_step_list(across.steps, scope, place.at("steps"))
        for step in steps:
            if isinstance(step, CallStep) and step.operation.method != "GET":
                message = f"{step.operation.key!r} changes something: use a GET to find the places"
                place.at("steps", step.name, "call").report("x-across", message)
        lists = tuple(scope.compile_step_value(text, place.at("in", index)) for index, text in enumerate(across.in_))
        if operation is not None:
            _check_operation_input(across.fills, operation, place.at("fills"))
        return AcrossPlan(across.fills, lists, Steps(steps, (), Output("object")), tuple(across.label.items()))

    def _find_name_source(
        self, take: flow_schema.NameOf, place: Place, scope: Scope | None = None
    ) -> NameSource | None:
        """Return the source of a name: an operation with `x-names` or, in a flow, a step."""
        if "." not in take.name:
            steps = scope.steps - {FILE} if scope is not None else set[str]()
            place.check_known(take.name, steps, "x-take", "there is no step")
            return NameSource(take.of, step=take.name)
        operation = self._find_operation(take.name, place)
        if operation is None:
            return None
        if operation.names is None:
            place.report("x-take", f"{take.name!r} does not return names: add x-names to it")
        return NameSource(take.of, operation=operation)

    # --- further reads ------------------------------------------------------------------------------------------

    def _compile_further_reads(
        self,
        parameter: flow_schema.Mapped,
        scope: Scope,
        place: Place,
        after: Operation | None,
        within: tuple[PathPart, ...] = (),
    ) -> Iterator[FurtherRead]:
        """Yield the compiled `x-read`s in an output of the operation `after`. `within` is the path of the output."""
        if isinstance(parameter, flow_schema.MappedArray):
            items = place.at("items")
            yield from self._compile_further_reads(parameter.items, scope, items, after, (*within, Every.EVERY))
        elif isinstance(parameter, flow_schema.MappedObject):
            for name, child in parameter.properties.items():
                here = place.at("properties", name)
                if isinstance(child, flow_schema.MappedArray) or child.read is None:
                    yield from self._compile_further_reads(child, scope, here, after, (*within, name))
                    continue
                read = self._compile_further_read(name, child, child.read, scope, here, within)
                if read is not None:
                    yield read
                if after is not None and after.page is not None and child.read.when is None:
                    message = "sends a request for every item: name in `when` the argument that asks for it"
                    here.at("x-read").report("x-read", message)

    def _compile_further_read(
        self,
        name: str,
        parameter: flow_schema.MappedScalar | flow_schema.MappedObject,
        read: flow_schema.FurtherReadSpec,
        scope: Scope,
        place: Place,
        within: tuple[PathPart, ...],
    ) -> FurtherRead | None:
        here = place.at("x-read")
        operation = self._find_operation(read.call, here.at("call"))
        when = None if read.when is None else scope.compile_step_value(read.when, here.at("when"))
        bindings = self._compile_bindings(read.with_, operation, scope.add_each(), here)
        if operation is None:
            return None
        if operation.method != "GET" or operation.binary or operation.wait is not None or operation.page is not None:
            message = f"{operation.key!r} changes, awaits or pages something, or returns bytes: read one small answer"
            here.at("call").report("x-read", message)
        if list(self._compile_further_reads(parameter, scope, place, None)):
            here.report("x-read", "contains another x-read: put both next to each other")
        output, _ = compile_mapped_output(parameter, place, self._find_name_source)
        path = JsonPath("$" + "".join(f".{part}" if isinstance(part, str) else "[*]" for part in within), within)
        return FurtherRead(path, name, operation, bindings, output, Condition(when))

    # --- previews -----------------------------------------------------------------------------------------------

    def compile_preview_read(
        self, name: str, read: flow_schema.CallSpec, scope: Scope, place: Place
    ) -> PreviewRead | None:
        """Compile one read of `x-confirm`."""
        operation = self._find_operation(read.call, place.at("call"))
        bindings = self._compile_bindings(read.with_, operation, scope, place)
        if operation is None:
            return None
        if operation.method != "GET" or operation.wait is not None:
            message = f"{operation.key!r} changes or awaits something: a preview only reads"
            place.at("call").report("x-confirm", message)
        return PreviewRead(name, operation, bindings)

    def compile_preview_lookup(
        self, name: str, step: flow_schema.LookupStepSpec, scope: Scope, place: Place
    ) -> LookupStep:
        """Compile a lookup of `x-confirm`."""
        for word, value in (("x-require", step.require), ("x-when", step.when), ("x-unless", step.unless)):
            if value is not None:
                place.at(word).report("x-confirm", "belongs to the steps of a flow: a preview has no conditions")
        return compile_lookup(name, step, scope, place, None, Condition())

    # --- operations ---------------------------------------------------------------------------------------------

    def _find_operation(self, reference: str, place: Place) -> Operation | None:
        """Return the operation called `namespace.operation`. If it does not exist, report it and return None."""
        namespace, _, name = reference.partition(".")
        if not place.check_known(namespace, self.operations, "unresolved-call", "there is no consumed namespace"):
            return None
        operations = self.operations[namespace]
        if operations is None:  # the import failed and was reported
            return None
        place.check_known(name, operations, "unresolved-call", f"the namespace {namespace!r} has no operation")
        return operations.get(name)

    def _compile_bindings(
        self, with_: flow_schema.With, operation: Operation | None, scope: Scope, place: Place, *, guarded: bool = False
    ) -> dict[str, Expression]:
        """Return the expressions for the inputs of an operation.

        `guarded` allows path slots whose value may be missing, because the request is then not sent.
        """
        bindings: dict[str, Expression] = {}
        if operation is not None and operation.file is not None:
            bindings[FILE_PATH] = Argument(FILE_PATH)
        for key, value in with_.items():
            here = place.at("with", key)
            expression = scope.compile_value(value, here)
            bindings[key] = Literal(None) if expression is None else expression
            if operation is not None:
                _warn_of_unknown_input(key, operation, here)
        if operation is None:
            return bindings
        page = operation.page
        paging = (page.size, page.skip, page.token) if page is not None else ()
        for name in bindings.keys() & paging:
            place.at("with", name).report("reserved-input", f"the engine sets {name!r} itself, to page: remove it")
        fixed = {parameter.name for parameter in operation.parameters if parameter.value is not None}
        for missing in sorted(operation.required - set(bindings) - fixed):
            if missing in scope.inputs:  # the format passes an input on to the slot with its name
                bindings[missing] = scope.compile_value(f"{{{{{missing}}}}}", place) or Literal(None)
                continue
            message = f"the slot {{{{{missing}}}}} of {operation.key!r} gets no value: bind {missing!r} in `with`"
            place.at("with").report("slot-without-value", message)
        if not guarded:
            for name in list_path_slots(operation.path):
                if name in bindings and not scope.always_has(bindings[name]):
                    message = f"the path of {operation.key!r} needs {name!r}, but its input may be left out"
                    place.at("with", name).warn("slot-without-value", f"{message}: make it required")
        return bindings

    # --- steps --------------------------------------------------------------------------------------------------

    def _compile_step_list(
        self, steps: Mapping[str, flow_schema.StepSpec], scope: Scope, place: Place
    ) -> tuple[Step, ...]:
        """Compile steps in order. Later steps may refer to every step, even one that cannot be compiled."""
        compiled: list[Step] = []
        for name, step in steps.items():
            here = place.at(name)
            scope.check_new_name(name, here)
            if isinstance(step, flow_schema.ScriptStepSpec):  # the whole action is left out before
                continue
            compiled_step = self._compile_step(name, step, scope, here)
            scope.steps.add(name)
            if isinstance(compiled_step, LookupStep) and compiled_step.changes is None:
                scope.lookups.add(name)
            if compiled_step is not None:
                compiled.append(compiled_step)
        return tuple(compiled)

    def _compile_steps(
        self, body: flow_schema.ActionSpec, scope: Scope, place: Place
    ) -> tuple[Action, JsonSchema] | None:
        compiled = self._compile_step_list(body.steps, scope, place.at("steps"))
        mappings = tuple(
            StepMapping(
                tuple(mapping.target.split(".")),
                scope.compile_step_value(mapping.value, place.at("mappings", index, "value")),
                mapping.count,
            )
            for index, mapping in enumerate(body.mappings)
        )
        unused = set(scope.inputs) - scope.used
        steps = tuple(
            replace(step, bindings=_bind_by_name(step.bindings, step.operation, scope, unused))
            if isinstance(step, CallStep)
            else step
            for step in compiled
        )
        if not isinstance(body.outputParameters, dict):
            message = "with `steps`, `outputParameters` must be a map of names, which `mappings` fill"
            place.at("outputParameters").report("output", message)
            return None
        check_mappings(body.outputParameters, mappings, steps, place)
        output, schema = compile_flow_outputs(
            body.outputParameters,
            place.at("outputParameters"),
            lambda take, at: self._find_name_source(take, at, scope),
        )
        reserved = sorted(RESERVED_OUTPUTS & body.outputParameters.keys())
        if reserved:
            warn_of_reserved_outputs(reserved, place.at("outputParameters"))
            output, schema = wrap_output(output, schema)
        if not any(isinstance(step, CallStep) for step in steps):
            if len(steps) == len(body.steps):
                place.at("steps").report("one-action", "no step calls an operation")
            return None
        return Steps(steps, mappings, output), schema

    def _compile_step(
        self, name: str, step: flow_schema.CallStepSpec | flow_schema.LookupStepSpec, scope: Scope, place: Place
    ) -> Step | None:
        require = None
        if step.require is not None:
            path = place.at("x-require", "path").compile_path(step.require.path)
            if path is not None:
                require = Requirement(path, step.require.code, step.require.message, step.require.hint)
        when = None if step.when is None else scope.compile_step_value(step.when, place.at("x-when"))
        unless = [step.unless] if isinstance(step.unless, str) else step.unless or ()
        condition = Condition(when, tuple(scope.compile_step_value(text, place.at("x-unless")) for text in unless))
        if isinstance(step, flow_schema.LookupStepSpec):
            return compile_lookup(name, step, scope, place, require, condition)
        operation = self._find_operation(step.call, place.at("call"))
        each = self._compile_each(name, step.each, scope, place.at("x-each"))
        inner_scope = scope if each is None else scope.add_each()
        bindings = self._compile_bindings(step.with_, operation, inner_scope, place, guarded=when is not None)
        if each is not None and each.name is not None:
            scope.steps.add(each.name)
        repeat = None
        if step.repeat is not None:
            until = place.at("x-repeat", "until").compile_path(step.repeat.until)
            repeat = None if until is None else RepeatPlan(until, step.repeat.most)
        if operation is None:
            return None
        if repeat is not None and (each is not None or operation.page is not None or operation.wait is not None):
            message = "repeats one request: it cannot be combined with x-each, or with an operation that pages or waits"
            place.at("x-repeat").report("x-repeat", message)
        if step.most is not None and operation.page is None:
            message = f"{operation.key!r} does not page, so there is nothing to limit: remove x-most"
            place.at("x-most").report("x-most", message)
        return CallStep(
            name,
            operation,
            bindings,
            require,
            condition,
            each,
            step.most,
            repeat,
            frozenset(step.tolerate or ()),
            step.partial,
            self._compile_defaults(name, step, operation, scope, place.at("x-defaults")),
        )

    def _compile_defaults(
        self, name: str, step: flow_schema.CallStepSpec, operation: Operation, scope: Scope, place: Place
    ) -> DefaultsPlan | None:
        if step.defaults is None:
            return None
        if step.each is not None:
            place.report("x-defaults", "cannot be combined with x-each, which sends many requests")
        values = []
        for key, default in step.defaults.values.items():
            if key not in operation.inputs:
                place.at("values", key).report("unused-input", f"{operation.key!r} has no input {key!r}")
            value = scope.compile_step_value(default.value, place.at("values", key, "value"))
            values.append((key, value, default.words))
        scope.check_new_name(step.defaults.as_, place.at("as"), name)
        scope.steps.add(step.defaults.as_)
        return DefaultsPlan(tuple(values), step.defaults.as_)

    def _compile_each(
        self, step: str, each: str | flow_schema.Each | None, scope: Scope, place: Place
    ) -> EachPlan | None:
        if each is None:
            return None
        if isinstance(each, str):
            return EachPlan((scope.compile_step_value(each, place),))
        lists = tuple(scope.compile_step_value(text, place.at("in", index)) for index, text in enumerate(each.in_))
        if each.as_ is not None:
            scope.check_new_name(each.as_, place.at("as"), step)
        if each.again is not None:
            place.at("again").check_known(each.again, scope.inputs, "unresolved-input", "there is no input")
        return EachPlan(lists, each.most, each.as_, tuple(each.label.items()), each.again)


def _warn_of_unknown_input(name: str, operation: Operation, place: Place) -> None:
    if name not in operation.inputs:
        hint = suggest(operation.inputs, name)
        place.warn("unknown-input", f"the operation {operation.key!r} has no input {name!r}, so it is not sent: {hint}")


def _bind_by_name(
    bindings: Mapping[str, Expression], operation: Operation, scope: Scope, unused: Collection[str]
) -> dict[str, Expression]:
    """Return the bindings, and the inputs that nothing refers to and that the operation takes under their own names.

    The format passes them on without `with`.
    """
    added = sorted(operation.inputs & set(unused) - bindings.keys())
    scope.used.update(added)
    return {**bindings, **{name: Argument(name) for name in added}}


def _check_operation_input(name: str, operation: Operation, place: Place) -> None:
    place.check_known(name, operation.inputs, "unknown-input", f"the operation {operation.key!r} has no input")
