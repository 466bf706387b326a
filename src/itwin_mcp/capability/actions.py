"""What a tool, flow or resource does: one call or steps, linked to operations and to what its caller gives."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from itwin_mcp.capability import flows
from itwin_mcp.capability.consumed import path_slots
from itwin_mcp.capability.expressions import (
    Argument,
    Expression,
    ExpressionError,
    Literal,
    Path,
    StepValue,
    Text,
    compile_path,
    is_name,
)
from itwin_mcp.capability.node import JsonSchema
from itwin_mcp.capability.parameters import FILE_PATH, mapped_output, orchestrated_output
from itwin_mcp.capability.place import Place
from itwin_mcp.capability.plans import (
    Action,
    Call,
    CallStep,
    Condition,
    DefaultsPlan,
    EachPlan,
    LookupStep,
    Operation,
    Output,
    PreviewRead,
    RepeatPlan,
    Requirement,
    Step,
    StepMapping,
    Steps,
)
from itwin_mcp.capability.suggestions import there_is
from itwin_mcp.capability.targets import check_targets
from itwin_mcp.capability.transfers import FILE, check_fact

Namespaces = Mapping[str, Mapping[str, Operation] | None]
"""The operations that a file may call, by namespace; None for a namespace whose import failed."""

EACH = "each"
"""What an element of `x-each` is called in the `with` of its step."""

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
"""What is said in the structured answer of an operation that gives bytes."""

_STEP_SLOT = re.compile(r"([a-zA-Z0-9-]+)((?:[.\[].*)?)", re.DOTALL)
_QUALIFIED = re.compile(r"([a-zA-Z0-9-]+)\.([a-zA-Z0-9-_*]+)")


@dataclass(slots=True)
class Scope:
    """What a `with` may refer to: the caller's inputs under a namespace, and earlier steps.

    `inputs` says of each whether it always has a value.
    """

    namespace: str
    inputs: Mapping[str, bool]
    steps: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class ActionLinker:
    """Links the actions of one file."""

    operations: Namespaces

    def link(self, body: flows.Action, scope: Scope, place: Place) -> tuple[Action, JsonSchema] | None:
        """The action and the schema of what it gives; None, and the problems reported, where it cannot be."""
        if body.call is not None and body.steps:
            place.report("one-action", "has both `call` and `steps`: keep one")
            return None
        if body.call is not None:
            if body.mappings:
                place.at("mappings").report("one-action", "`mappings` go with `steps`; a `call` maps in its outputs")
            return self._call(body.call, body, scope, place)
        if body.steps:
            if body.with_:
                place.at("with").report("one-action", "`with` stands in each step, not beside `steps`")
            return self._steps(body, scope, place)
        scope.used.update(scope.inputs)  # they are not the problem
        place.report("required-key", "needs one of `call`, `steps` or (a tool) `ref`")
        return None

    # --- one call -----------------------------------------------------------------------------------------------

    def _call(self, reference: str, body: flows.Action, scope: Scope, place: Place) -> tuple[Action, JsonSchema] | None:
        operation = self._operation(reference, place.at("call"))
        bindings = self._bindings(body.with_, operation, scope, place)
        parameters = body.outputParameters
        if operation is not None and operation.binary and parameters is None:
            return Call(operation, bindings, _BYTES), _BYTES_SCHEMA
        if not isinstance(parameters, list) or len(parameters) != 1 or parameters[0].type != "object":
            message = "with `call`, `outputParameters` is a list of exactly one object: `- type: object`"
            place.at("outputParameters").report("output", message)
            return None
        output, schema = mapped_output(parameters[0], place.at("outputParameters", 0))
        return None if operation is None else (Call(operation, bindings, output), schema)

    # --- what x-confirm reads and says --------------------------------------------------------------------------

    def read(self, name: str, read: flows.PreviewRead, scope: Scope, place: Place) -> PreviewRead | None:
        """One request that only reads, for a preview."""
        operation = self._operation(read.call, place.at("call"))
        bindings = self._bindings(read.with_, operation, scope, place)
        if operation is None:
            return None
        if operation.method != "GET" or operation.wait is not None:
            message = f"{operation.key!r} changes or awaits something: what would be lost is only looked at"
            place.at("call").report("x-confirm", message)
        return PreviewRead(name, operation, bindings)

    def text(self, text: str, scope: Scope, place: Place) -> Expression | None:
        """A text with slots over inputs and earlier steps."""
        return self._binding(text, scope, place)

    def value(self, text: str, scope: Scope, place: Place) -> Expression:
        """`$.step.field…`, or `$.input`."""
        return self._step_value(text, scope, place)

    def _operation(self, reference: str, place: Place) -> Operation | None:
        namespace, _, name = reference.partition(".")
        if namespace not in self.operations:
            message = f"there is no consumed namespace {namespace!r}: {there_is(self.operations, namespace)}"
            place.report("unresolved-call", message)
            return None
        named = self.operations[namespace]
        if named is None:
            return None
        if name not in named:
            message = f"the namespace {namespace!r} has no operation {name!r}: {there_is(named, name)}"
            place.report("unresolved-call", message)
            return None
        return named[name]

    def _bindings(
        self, with_: flows.With, operation: Operation | None, scope: Scope, place: Place, *, guarded: bool = False
    ) -> dict[str, Expression]:
        """What fills an operation's inputs; `guarded` says that the step is left out where a value is missing."""
        bindings: dict[str, Expression] = {}
        if operation is not None and operation.file is not None:
            bindings[FILE_PATH] = Argument(FILE_PATH)
        for key, value in with_.items():
            here = place.at("with", key)
            expression = self._binding(value, scope, here)
            bindings[key] = Literal(None) if expression is None else expression
            if operation is not None and key not in operation.inputs:
                message = f"the operation {operation.key!r} has no input {key!r}: {there_is(operation.inputs, key)}"
                here.report("unknown-input", message)
        if operation is None:
            return bindings
        page = operation.page
        for name in (page.size, page.skip, page.token) if page is not None else ():
            if name is None or name not in bindings:
                continue
            place.at("with", name).report("reserved-input", f"the engine sets {name!r} to page: leave it out")
        fixed = {parameter.name for parameter in operation.parameters if parameter.value is not None}
        for missing in sorted(operation.required - set(bindings) - fixed):
            message = f"the slot {{{{{missing}}}}} of {operation.key!r} gets no value: bind {missing!r} in `with`"
            place.at("with").report("slot-without-value", message)
        if not guarded:
            for name in path_slots(operation.path):
                if name in bindings and not _always(bindings[name], scope):
                    message = f"the path of {operation.key!r} needs {name!r}, but its input may be left out"
                    place.at("with", name).report("slot-without-value", f"{message}: make it required")
        return bindings

    def _binding(self, value: str | float, scope: Scope, place: Place) -> Expression | None:
        if not isinstance(value, str):
            return Literal(value)
        qualified = _QUALIFIED.fullmatch(value)
        if qualified is not None:
            namespace, name = qualified.groups()
            if namespace == scope.namespace:
                return self._input(name, scope, place)
            if name in scope.inputs:
                scope.used.add(name)
                message = f"{value!r} would be sent as it stands: the input is {scope.namespace}.{name}"
                place.report("unresolved-input", message)
                return None
        if value.startswith("$this."):
            message = f"{value!r} would be sent as it stands: write {scope.namespace}.<input> or {{{{input}}}}"
            place.report("unresolved-input", message)
            return None

        def resolve(slot: str) -> Argument | StepValue | Literal:
            found = _STEP_SLOT.fullmatch(slot)
            if found is not None and found.group(1) in scope.steps:
                path = compile_path(f"${found.group(2)}")
                if found.group(1) == FILE:
                    check_fact(path, place)
                return StepValue(found.group(1), path)
            return self._input(slot, scope, place)

        return place.slots_of(value, resolve)

    def _input(self, name: str, scope: Scope, place: Place) -> Argument:
        if not is_name(name):
            raise ExpressionError(f"{{{{{name[:80]}}}}} is neither an input nor a value of an earlier step")
        if name not in scope.inputs:
            message = f"there is no input {name!r}: {there_is([*scope.inputs, *scope.steps], name)}"
            place.report("slot-without-value", message)
        scope.used.add(name)
        return Argument(name)

    # --- steps --------------------------------------------------------------------------------------------------

    def _steps(self, body: flows.Action, scope: Scope, place: Place) -> tuple[Action, JsonSchema] | None:
        steps: list[Step] = []
        for name, step in body.steps.items():
            here = place.at("steps", name)
            _check_name(name, scope, here)
            linked = self._step(name, step, scope, here)
            scope.steps.add(name)
            if linked is not None:
                steps.append(linked)
        mappings = self._mappings(body, scope, place.at("mappings"))
        if not isinstance(body.outputParameters, dict):
            message = "with `steps`, `outputParameters` is a map of names, which `mappings` fill"
            place.at("outputParameters").report("output", message)
            return None
        check_targets(body.outputParameters, mappings, steps, place)
        output, schema = orchestrated_output(body.outputParameters, place.at("outputParameters"))
        if not any(isinstance(step, CallStep) for step in steps):
            if len(steps) == len(body.steps):
                place.at("steps").report("one-action", "no step calls an operation")
            return None
        return Steps(tuple(steps), mappings, output), schema

    def _mappings(self, body: flows.Action, scope: Scope, place: Place) -> tuple[StepMapping, ...]:
        mappings: list[StepMapping] = []
        for index, mapping in enumerate(body.mappings):
            value = self._step_value(mapping.value, scope, place.at(index, "value"))
            mappings.append(StepMapping(tuple(mapping.target.split(".")), value, mapping.count))
        return tuple(mappings)

    def _step(self, name: str, step: flows.Step, scope: Scope, place: Place) -> Step | None:
        require = None
        if step.require is not None:
            wanted = step.require
            path = place.at("x-require", "path").path_of(wanted.path)
            require = None if path is None else Requirement(path, wanted.code, wanted.message, wanted.hint)
        when, unless = (
            None if text is None else self._step_value(text, scope, place.at(word))
            for word, text in (("x-when", step.when), ("x-unless", step.unless))
        )
        condition = Condition(when, unless)
        if isinstance(step, flows.LookupStep):
            return self._lookup(name, step, scope, place, require, condition)
        operation = self._operation(step.call, place.at("call"))
        each = self._each(name, step.each, scope, place.at("x-each"))
        if each is not None:
            scope.steps.add(EACH)
        bindings = self._bindings(step.with_, operation, scope, place, guarded=when is not None)
        scope.steps.discard(EACH)
        if each is not None and each.name is not None:
            scope.steps.add(each.name)
        repeat = None
        if step.repeat is not None:
            until = place.at("x-repeat", "until").path_of(step.repeat.until)
            repeat = None if until is None else RepeatPlan(until, step.repeat.most)
        if operation is None:
            return None
        if repeat is not None and (each is not None or operation.page is not None or operation.wait is not None):
            message = "sends one request again and again: not with x-each, nor an operation that pages or waits"
            place.at("x-repeat").report("x-repeat", message)
        if step.most is not None and operation.page is None:
            message = f"{operation.key!r} does not page, so that there is nothing to stop: remove x-most"
            place.at("x-most").report("x-most", message)
        tolerate = frozenset(step.tolerate or ())
        return CallStep(
            name,
            operation,
            bindings,
            require,
            condition,
            each,
            step.most,
            repeat,
            tolerate,
            step.partial,
            self._defaults(name, step, operation, scope, place.at("x-defaults")),
        )

    def _defaults(
        self, name: str, step: flows.CallStep, operation: Operation, scope: Scope, place: Place
    ) -> DefaultsPlan | None:
        if step.defaults is None:
            return None
        if step.each is not None:
            place.report("x-defaults", "one value for each of many requests: not with x-each")
        values = []
        for key, default in step.defaults.values.items():
            if key not in operation.inputs:
                place.at("values", key).report("unused-input", f"{operation.key!r} has no input {key!r}")
            value = self._step_value(default.value, scope, place.at("values", key, "value"))
            values.append((key, value, default.words))
        _check_name(step.defaults.as_, scope, place.at("as"), name)
        scope.steps.add(step.defaults.as_)
        return DefaultsPlan(tuple(values), step.defaults.as_)

    def _lookup(
        self,
        name: str,
        step: flows.LookupStep,
        scope: Scope,
        place: Place,
        require: Requirement | None,
        condition: Condition,
    ) -> LookupStep:
        if step.index not in scope.steps:
            message = f"there is no earlier step {step.index!r}: {there_is(scope.steps, step.index)}"
            place.at("index").report("unresolved-step", message)
        value = self._step_value(step.lookupValue, scope, place.at("lookupValue"))
        if step.compare is not None and step.count is not None:
            place.at("x-count").report("x-count", "counts values that are equal: remove x-compare or x-count")
        if step.compare is not None and isinstance(value, StepValue) and value.path.many:
            place.at("lookupValue").report("x-compare", "compares with one date: a path with [*] gives a list")
        if step.count in step.outputParameters:
            place.at("x-count").report("x-count", f"the element has a field {step.count!r} already: call it otherwise")
        fields = tuple(step.outputParameters)
        return LookupStep(name, step.index, step.match, value, fields, require, condition, step.compare, step.count)

    def _each(self, step: str, each: str | flows.Each | None, scope: Scope, place: Place) -> EachPlan | None:
        if each is None:
            return None
        if isinstance(each, str):
            return EachPlan((self._step_value(each, scope, place),))
        lists = tuple(self._step_value(text, scope, place.at("in", index)) for index, text in enumerate(each.in_))
        if each.as_ is not None:
            _check_name(each.as_, scope, place.at("as"), step)
        return EachPlan(lists, each.most, each.as_)

    def _step_value(self, text: str, scope: Scope, place: Place) -> Expression:
        """`$.step.field…`, or `$.input` for the caller's own argument."""
        compiled = place.path_of(text)
        if compiled is None:
            return Literal(None)
        if compiled.query is not None or not compiled.parts or not isinstance(compiled.parts[0], str):
            message = f"{text[:80]!r} must be `$.`, the name of an earlier step or input, and plain keys, [0] or [*]"
            place.report("expression", message)
            return Literal(None)
        first = compiled.parts[0]
        if first in scope.steps:
            found = Path(text, compiled.parts[1:])
            if first == FILE:
                check_fact(found, place)
            return StepValue(first, found)
        if first in scope.inputs:
            scope.used.add(first)
            if len(compiled.parts) > 1:
                place.report("expression", f"{text[:80]!r} looks into the input {first!r}: an input is used whole")
            return Argument(first)
        message = f"there is no earlier step or input {first!r}: {there_is([*scope.steps, *scope.inputs], first)}"
        place.report("unresolved-step", message)
        return Literal(None)


def called_operations(action: Action) -> tuple[Operation, ...]:
    """The operations that an action calls, in order."""
    if isinstance(action, Call):
        return (action.operation,)
    return tuple(step.operation for step in action.steps if isinstance(step, CallStep))


def _always(expression: Expression, scope: Scope) -> bool:
    """Whether an expression has a value whatever the caller leaves out."""
    match expression:
        case Argument(name):
            return scope.inputs.get(name, True)
        case Text(parts):
            return all(_always(part, scope) for part in parts if isinstance(part, (Argument, StepValue)))
    return True


def _check_name(name: str, scope: Scope, place: Place, step: str | None = None) -> None:
    """Report a name of a step, or of what a step gives, that means something else already."""
    if name in (EACH, step) or name in scope.inputs or name in scope.steps:
        others = {EACH: "the element of x-each", FILE: "the file of x-transfer", step: "its own step"}
        other = others.get(name, "an input" if name in scope.inputs else "another step")
        place.report("unique-name", f"the step {name!r} is called like {other}: rename the step")
