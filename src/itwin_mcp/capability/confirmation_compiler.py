"""Compiler of confirmations: `x-confirm`, and the default for destructive tools without it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from itwin_mcp.capability import flow_schema
from itwin_mcp.capability.action_compiler import ActionCompiler
from itwin_mcp.capability.catalog import Annotations, ToolArgument
from itwin_mcp.capability.documents import Place
from itwin_mcp.capability.expressions import Argument, Expression, Literal
from itwin_mcp.capability.operations import Operation
from itwin_mcp.capability.policy_paths import shipped_policy_paths
from itwin_mcp.capability.references import Scope
from itwin_mcp.capability.tool_actions import (
    Action,
    ConfirmPlan,
    LookupStep,
    Loss,
    PreviewRead,
    TransferPlan,
    list_called_operations,
)
from itwin_mcp.settings import PLATFORM_ORIGIN
from itwin_mcp.text import suggest

TARGET = "target"
"""The name by which texts and paths of `x-confirm` refer to the thing that would be destroyed."""
_FIRST_NAME = re.compile(r"\$\.([a-zA-Z0-9-]+)(?=[.\[]|\Z)")


def compile_confirmation(
    confirm: flow_schema.Confirm, actions: ActionCompiler, inputs: Scope, place: Place
) -> ConfirmPlan:
    """Compile `x-confirm`. Problems are reported at its place."""
    scope = Scope(inputs.namespace, inputs.inputs)
    target = None
    if confirm.target is not None:
        target = actions.compile_preview_read(TARGET, confirm.target, scope, place.at(TARGET))
        scope.steps.add(TARGET)
    reads: list[PreviewRead] = []
    for name, read in confirm.reads.items():
        here = place.at("reads", name)
        if name == TARGET or name in scope.inputs:
            here.report("unique-name", f"the name {name!r} is already used for the target or an input: rename the read")
        compiled_read = actions.compile_preview_read(name, read, scope, here)
        reads += [] if compiled_read is None else [compiled_read]
    scope.steps.update(confirm.reads)
    lookups: list[LookupStep] = []
    for name, lookup in confirm.lookups.items():
        here = place.at("lookups", name)
        if name == TARGET or name in scope.inputs or name in confirm.reads:
            here.report(
                "unique-name",
                f"the name {name!r} is already used for the target, a read or an input: rename the lookup",
            )
        lookups.append(actions.compile_preview_lookup(name, lookup, scope, here))
        scope.steps.add(name)
    about = {key: _compile_loss_path(text, scope, place.at("about", key)) for key, text in confirm.about.items()}
    question = scope.compile_value(confirm.question, place.at("question"))
    typed = scope.compile_value(confirm.name, place.at("name"))
    loses = {key: _compile_loss(loss, scope, place.at("loses", key)) for key, loss in confirm.loses.items()}
    when = None if confirm.when is None else _compile_loss_path(confirm.when, scope, place.at("when"))
    unless = None if confirm.unless is None else _compile_loss(confirm.unless, scope, place.at("unless"))
    return ConfirmPlan(
        question=question or Literal(None),
        name=typed or Literal(None),
        target=target,
        reads=tuple(reads),
        lookups=tuple(lookups),
        about={key: part.path for key, part in about.items() if part is not None},
        loses={key: loss for key, loss in loses.items() if loss is not None},
        when=when,
        unless=unless,
        person=confirm.gravity == "person",
        alike=frozenset(confirm.alike),
    )


def _compile_loss(loss: flow_schema.LossSpec, scope: Scope, place: Place) -> Loss | None:
    plain_loss = _compile_loss_path(loss.value, scope, place.at("value"))
    if (loss.match is None) != (loss.lookupValue is None):
        place.report("x-confirm", "`match` and `lookupValue` go together: a field of an element, and its value")
    wanted_value = (
        None if loss.lookupValue is None else scope.compile_step_value(loss.lookupValue, place.at("lookupValue"))
    )
    if loss.replacedBy is not None:
        place.at("replacedBy").check_known(loss.replacedBy, scope.inputs, "unresolved-input", "there is no input")
    if plain_loss is None:
        return None
    kept_values = loss.without.values if loss.without is not None else ()
    empty = loss.whileEmpty
    while_empty = None if empty is None else _compile_loss_path(empty, scope, place.at("whileEmpty"))
    return replace(
        plain_loss,
        match=loss.match,
        wanted=wanted_value,
        fields=tuple(loss.outputParameters),
        replaced_by=loss.replacedBy,
        kept_field=None if loss.without is None else loss.without.match,
        kept=tuple(scope.compile_step_value(text, place.at("without")) for text in kept_values),
        while_empty=None if while_empty is None else while_empty.path,
        most=loss.most,
    )


def _compile_loss_path(text: str, scope: Scope, place: Place) -> Loss | None:
    """Compile a path that must begin with the name of a read. If it does not, report it and return None."""
    path, match = place.compile_path(text), _FIRST_NAME.match(text)
    if path is None:
        return None
    read = "" if match is None else match[1]
    if read not in scope.steps:
        message = f"{text[:80]!r} must be `$.`, the name of a read, and a path into its answer"
        place.report("unresolved-step", f"{message}: {suggest(scope.steps, read)}")
        return None
    return Loss(read, path)


# --- tools without x-confirm ------------------------------------------------------------------------------------


def destroys(operation: Operation) -> bool:
    """Return whether an operation deletes something on the platform. The hints in its file do not count."""
    # Other environments of the platform, such as qa-api.bentley.com, end in the same host.
    on_platform = operation.origin.endswith(PLATFORM_ORIGIN.removeprefix("https://"))
    if operation.method != "DELETE" or not on_platform:
        return False
    return not shipped_policy_paths().destroys_nothing(_list_segments(operation))


def needs_person(action: Action) -> bool:
    """Return whether only a person may confirm an action, because it deletes an iTwin or iModel."""
    return any(
        destroys(operation) and shipped_policy_paths().destroys_whole(_list_segments(operation))
        for operation in list_called_operations(action)
    )


def _list_segments(operation: Operation) -> tuple[str, ...]:
    """Return the segments of the path, with `{}` for each slot."""
    segments = ("".join(part if isinstance(part, str) else "{}" for part in segment) for segment in operation.path)
    return tuple("/".join(segments).strip("/").split("/"))


def must_confirm(annotations: Annotations, action: Action, transfer: TransferPlan | None) -> bool:
    """Return whether a tool may destroy something on the platform. A download can only replace a local file."""
    downloads = transfer is not None and transfer.direction == "download"
    only_reads = all(operation.method == "GET" for operation in list_called_operations(action))
    return annotations.destructive and not (downloads and only_reads)


def make_default_confirmation(title: str, arguments: Sequence[ToolArgument]) -> ConfirmPlan:
    """Return the confirmation of a tool without `x-confirm`: ask its title, and have its last required id typed."""
    required = [argument for argument in arguments if argument.required]
    ids = [argument for argument in required if argument.entity is not None]
    name: Expression = Argument((ids or required)[-1].name) if required else Literal(title)
    return ConfirmPlan(Literal(f"{title}?"), name)
