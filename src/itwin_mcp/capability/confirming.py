"""`x-confirm`: what is shown before a tool destroys something and what is typed, linked; and how every other asks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from itwin_mcp.capability import flows
from itwin_mcp.capability.actions import ActionLinker, Scope, called_operations
from itwin_mcp.capability.catalog import Annotations, Catalog, Tool, ToolArgument
from itwin_mcp.capability.consumed import PLATFORM_ORIGIN
from itwin_mcp.capability.expressions import ABSENT, Argument, Expression, Literal
from itwin_mcp.capability.parameters import published_schema
from itwin_mcp.capability.place import Place
from itwin_mcp.capability.plans import Action, ConfirmPlan, Loss, Operation, PreviewRead, TransferPlan
from itwin_mcp.capability.suggestions import there_is

TARGET = "target"
"""What the other texts and paths of `x-confirm` call the thing itself."""
CONFIRMATION = "confirmation"
"""The argument in which a model gives a two-step confirmation back."""

_FIRST = re.compile(r"\$\.([a-zA-Z0-9-]+)(?=[.\[]|\Z)")
_WHOLE = re.compile(r"(?:itwins|imodels|[^/]*\{\}[^/]*)/[^/]+", re.IGNORECASE)
"""The path of an iTwin or an iModel itself, or one that may turn out to be."""
_MARK = re.compile(r"(?:itwins|imodels)/(?:favorites|recents)/[^/]+", re.IGNORECASE)
"""What may be deleted on the platform without a loss: the caller's own mark on a thing."""
_CONFIRMATION = {
    "type": "string",
    "minLength": 1,
    "maxLength": 4096,
    "description": "preview.confirmation of the same call before, once the person has agreed.",
}


def link_confirm(confirm: flows.Confirm, actions: ActionLinker, inputs: Scope, place: Place) -> ConfirmPlan:
    """The compiled plan; what is wrong with it is reported at its place."""
    scope = Scope(inputs.namespace, inputs.inputs)
    target = None
    if confirm.target is not None:
        target = actions.read(TARGET, confirm.target, scope, place.at(TARGET))
        scope.steps.add(TARGET)
    reads: list[PreviewRead] = []
    for name, read in confirm.reads.items():
        here = place.at("reads", name)
        if name == TARGET or name in scope.inputs:
            here.report("unique-name", f"{name!r} is called like the target or an input: rename the read")
        linked = actions.read(name, read, scope, here)
        reads += [] if linked is None else [linked]
    scope.steps.update(confirm.reads)
    question = actions.text(confirm.question, scope, place.at("question"))
    name_typed = actions.text(confirm.name, scope, place.at("name"))
    loses = {key: _loss(one, actions, scope, place.at("loses", key)) for key, one in confirm.loses.items()}
    when = None if confirm.when is None else _found(confirm.when, scope, place.at("when"))
    unless = None if confirm.unless is None else _loss(confirm.unless, actions, scope, place.at("unless"))
    return ConfirmPlan(
        question=question or Literal(None),
        name=name_typed or Literal(None),
        target=target,
        reads=tuple(reads),
        loses={key: one for key, one in loses.items() if one is not None},
        when=when,
        unless=unless,
        person=confirm.gravity == "person",
        alike=frozenset(confirm.alike),
    )


def _loss(loss: flows.Loss, actions: ActionLinker, scope: Scope, place: Place) -> Loss | None:
    found = _found(loss.value, scope, place.at("value"))
    if (loss.match is None) != (loss.lookupValue is None):
        place.report("x-confirm", "`match` and `lookupValue` go together: the field of an element, and what it must be")
    wanted = None if loss.lookupValue is None else actions.value(loss.lookupValue, scope, place.at("lookupValue"))
    if loss.replacedBy is not None and loss.replacedBy not in scope.inputs:
        message = f"there is no input {loss.replacedBy!r}: {there_is(scope.inputs, loss.replacedBy)}"
        place.at("replacedBy").report("unresolved-input", message)
    if found is None:
        return None
    without = loss.without
    kept = [] if without is None else [actions.value(text, scope, place.at("without")) for text in without.values]
    while_empty = None if loss.whileEmpty is None else _found(loss.whileEmpty, scope, place.at("whileEmpty"))
    return replace(
        found,
        match=loss.match,
        wanted=wanted,
        fields=tuple(loss.outputParameters),
        replaced_by=loss.replacedBy,
        kept_field=None if without is None else without.match,
        kept=tuple(value for value in kept if value is not None),
        while_empty=None if while_empty is None else while_empty.path,
    )


def _found(text: str, scope: Scope, place: Place) -> Loss | None:
    """A path that begins with the name of a read."""
    path, first = place.path_of(text), _FIRST.match(text)
    if path is None:
        return None
    if first is None or first[1] not in scope.steps:
        message = f"{text[:80]!r} must be `$.`, the name of a read, and where in its answer: "
        place.report("unresolved-step", message + there_is(scope.steps, "" if first is None else first[1]))
        return None
    return Loss(first[1], path)


# --- what no file says ------------------------------------------------------------------------------------------


def destroys(operation: Operation) -> bool:
    """Whether an operation deletes something of the platform, whatever a file says of it."""
    on_platform = operation.origin.endswith(PLATFORM_ORIGIN.removeprefix("https://"))
    return operation.method == "DELETE" and on_platform and _MARK.fullmatch(_path(operation)) is None


def needs_person(action: Action) -> bool:
    """Whether it deletes an iTwin or an iModel: then nothing less than a person will do."""
    return any(destroys(one) and _WHOLE.fullmatch(_path(one)) for one in called_operations(action))


def _path(operation: Operation) -> str:
    """The path without its first and last slash, and `{}` for each slot."""
    segments = ("".join(part if isinstance(part, str) else "{}" for part in segment) for segment in operation.path)
    return "/".join(segments).strip("/")


def must_confirm(annotations: Annotations, action: Action, transfer: TransferPlan | None) -> bool:
    """Whether a tool may destroy something on the platform; a download can only replace a local file."""
    downloads = transfer is not None and transfer.direction == "download"
    only_reads = all(operation.method == "GET" for operation in called_operations(action))
    return annotations.destructive and not (downloads and only_reads)


def plain_plan(title: str, arguments: Sequence[ToolArgument]) -> ConfirmPlan:
    """How a tool asks whose file does not say: its title, and the last id that it needs is typed."""
    needed = [one.name for one in arguments if one.required]
    ids = [one.name for one in arguments if one.required and one.entity is not None]
    name: Expression = Argument((ids or needed)[-1]) if needed else Literal(title)
    return ConfirmPlan(Literal(f"{title}?"), name)


def with_confirmations(catalog: Catalog) -> Catalog:
    """The catalog in which every tool that asks takes a two-step confirmation, but for those that need a person."""
    return replace(
        catalog,
        tools={name: _with_confirmation(tool) for name, tool in catalog.tools.items()},
        reachable={name: _with_confirmation(tool) for name, tool in catalog.reachable.items()},
    )


def _with_confirmation(tool: Tool) -> Tool:
    if not tool.confirms or (tool.confirm is not None and tool.confirm.person):
        return tool
    arguments = (*tool.arguments, ToolArgument(CONFIRMATION, _CONFIRMATION, False, None, ABSENT))
    return replace(tool, arguments=arguments, input_schema=published_schema(arguments))
