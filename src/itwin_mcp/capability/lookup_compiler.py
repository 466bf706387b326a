"""Compiler of lookup steps, which pick elements of an earlier step's result and may add fields to them."""

from __future__ import annotations

from datetime import datetime

from itwin_mcp.capability import flow_schema
from itwin_mcp.capability.documents import Place
from itwin_mcp.capability.expressions import Argument, Expression, Literal, StepValue
from itwin_mcp.capability.references import Scope
from itwin_mcp.capability.tool_actions import ChangesPlan, Condition, FieldPlan, LookupStep, Requirement


def compile_lookup(
    name: str,
    step: flow_schema.LookupStepSpec,
    scope: Scope,
    place: Place,
    require: Requirement | None,
    condition: Condition,
) -> LookupStep:
    """Compile a lookup step. Problems are reported at its place."""
    place.at("index").check_known(step.index, scope.steps, "unresolved-step", "there is no earlier step")
    value = _compile_lookup_value(step, scope, place.at("lookupValue"))
    if step.compare is not None and step.count is not None:
        place.at("x-count").report("x-count", "counts equal values, but x-compare looks for dates: remove one of them")
    if step.compare is not None and isinstance(value, StepValue) and value.path.many:
        place.at("lookupValue").report("x-compare", "must be one date: a path with [*] gives a list")
    if step.count in step.outputParameters:
        place.at("x-count").report("x-count", f"the element has a field {step.count!r} already: use another name")
    last = value.path.parts[-1:] if isinstance(value, StepValue) else ()
    if step.within is not None and (step.compare is not None or not last or not isinstance(last[0], str)):
        message = "`lookupValue` must be a path to a member of objects that have this field, without x-compare"
        place.at("x-within").report("x-within", message)
    added = tuple(_compile_added_field(key, added, scope, place.at("x-add", key)) for key, added in step.add.items())
    return LookupStep(
        name,
        step.index,
        step.match,
        value,
        tuple(step.outputParameters),
        require,
        condition,
        step.compare,
        step.count,
        added,
        _compile_changes(step, value, scope, place.at("x-changes")),
        step.within,
    )


def _compile_lookup_value(step: flow_schema.LookupStepSpec, scope: Scope, place: Place) -> Expression:
    """Compile `lookupValue`, which is a path, or else the value itself."""
    if step.lookupValue.startswith("$"):
        return scope.compile_step_value(step.lookupValue, place)
    if step.compare is not None:
        try:
            datetime.fromisoformat(step.lookupValue)
        except ValueError:
            place.report("x-compare", f"{step.lookupValue[:80]!r} is not a date such as 2026-01-31")
    return Literal(step.lookupValue)


def _compile_added_field(name: str, added: flow_schema.AddedField, scope: Scope, place: Place) -> FieldPlan:
    only = None if added.only is None else frozenset(added.only)
    path = None if added.take is None else place.at("take").compile_path(added.take)
    if added.in_ is None:
        return FieldPlan(name, added.value, path, only=only)
    elements = scope.compile_step_value(added.in_, place.at("in"))
    return FieldPlan(name, None, path, elements, added.match or "", added.of or "", only)


def _compile_changes(
    step: flow_schema.LookupStepSpec, value: Expression, scope: Scope, place: Place
) -> ChangesPlan | None:
    changes = step.changes
    if changes is None:
        return None
    if not isinstance(value, Argument):
        place.report("x-changes", "takes the wanted entries from an input: write `lookupValue: $.<input>`")
    if step.compare is not None or step.count is not None or step.add:
        place.report(
            "x-changes", "cannot be combined: remove x-compare, x-count and x-add, or add fields in an earlier step"
        )
    for index, name in enumerate(changes.otherwise):
        place.at("otherwise", index).check_known(name, scope.steps, "unresolved-step", "there is no earlier step")
    place.at("keep").check_known(changes.keep, scope.inputs, "unresolved-input", "there is no input")
    scope.used.add(changes.keep)
    keys, has = (None, None) if changes.first is None else (changes.first.keys, changes.first.has)
    return ChangesPlan(
        changes.field,
        tuple(changes.otherwise),
        tuple(changes.called),
        None if keys is None else scope.compile_step_value(keys, place.at("first")),
        None if has is None else scope.compile_step_value(has, place.at("first")),
        changes.keep,
    )
