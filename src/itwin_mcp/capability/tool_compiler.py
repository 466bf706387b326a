"""Compiler of `exposes` entries: the tools, resources and prompts that clients see."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from itwin_mcp.capability import flow_schema, schema
from itwin_mcp.capability.action_compiler import ActionCompiler
from itwin_mcp.capability.answer_schema import RESERVED_OUTPUTS, build_output_schema
from itwin_mcp.capability.catalog import Annotations, EmptyAnswer, Prompt, Resource, StaticResource, Tool, ToolArgument
from itwin_mcp.capability.confirmation_compiler import (
    compile_confirmation,
    destroys,
    make_default_confirmation,
    must_confirm,
    needs_person,
)
from itwin_mcp.capability.documents import Place, find_shipped_files
from itwin_mcp.capability.entities import Entities
from itwin_mcp.capability.expressions import find_slots
from itwin_mcp.capability.extensions import EmptyNote
from itwin_mcp.capability.json_schema import check_tool_rule, find_unstated_rules
from itwin_mcp.capability.not_served import RULE as NOT_SERVED
from itwin_mcp.capability.operations import WaitPlan
from itwin_mcp.capability.parameters import (
    build_input_schema,
    compile_argument,
    find_entity,
    make_clear_argument,
    make_file_arguments,
    make_page_arguments,
    make_wait_argument,
)
from itwin_mcp.capability.references import Scope
from itwin_mcp.capability.schema_types import JsonSchema
from itwin_mcp.capability.static_resources import read_static_resources
from itwin_mcp.capability.tool_actions import Action, Call, Steps, TransferPlan, list_called_operations
from itwin_mcp.capability.transfers import FILE, compile_transfer
from itwin_mcp.errors import Problem

_URI_SLOT = re.compile(r"\{([a-zA-Z0-9_]+)\}")
_QUOTED = re.compile(r"`([a-z0-9-]+)`")
_URI = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:[^\s{}]+")


@dataclass(frozen=True, slots=True)
class PlacedFlow:
    """A flow of the file, with the namespace of its inputs and its place."""

    flow: flow_schema.Flow
    namespace: str
    place: Place


@dataclass(slots=True)
class TakenNames:
    """The names that earlier files and entries exposed, with their places."""

    tools: dict[str, Place] = field(default_factory=dict)
    resources: dict[str, Place] = field(default_factory=dict)
    prompts: dict[str, Place] = field(default_factory=dict)


class ExposesCompiler:
    """Compiles one `exposes` entry. Problems are reported at its place."""

    def __init__(
        self,
        exposes: schema.Exposes,
        actions: ActionCompiler,
        flows: Mapping[str, PlacedFlow],
        entities: Entities,
        place: Place,
    ) -> None:
        self._entities = entities
        self._exposes = exposes
        self._actions = actions
        self._flows = flows
        self._place = place
        self._toolset = exposes.toolset or exposes.namespace
        self.warnings: list[Problem] = []
        """Warnings for the author of the file. They break no rule, so the file is linked."""

    def compile_tools(self, taken: TakenNames) -> Iterable[Tool]:
        """Yield the tools of this entry."""
        for name, tool in self._exposes.tools.items():
            place = self._place.at("tools", name)
            if _claim_name(name, taken.tools, place, "unique-tool", f"the tool {name!r}"):
                compiled = self.compile_tool(name, tool, place)
                if compiled is not None:
                    yield compiled

    def compile_resources(self, taken: TakenNames) -> Iterable[Resource]:
        """Yield the resources and resource templates of this entry."""
        for name, resource in self._exposes.resources.items():
            if resource.location is not None:
                continue
            place = self._place.at("resources", name)
            shape = _URI_SLOT.sub("{}", resource.uri)
            if _claim_name(
                shape, taken.resources, place.at("uri"), "unique-resource", f"the URI {resource.uri[:80]!r}"
            ):
                compiled = self._compile_resource(name, resource, place)
                if compiled is not None:
                    yield compiled

    def compile_static_resources(self, taken: TakenNames) -> Iterable[StaticResource]:
        """Yield the static resources of this entry, one for each file."""
        for name, resource in self._exposes.resources.items():
            if resource.location is None:
                continue
            place = self._place.at("resources", name)
            if resource.call or resource.steps or resource.with_ or resource.binary or resource.entities:
                place.report("one-action", "has both `location` and a call: keep one")
            if not _URI.fullmatch(resource.uri):
                place.at("uri").report("uri", f"{resource.uri[:80]!r} is not a URI without variables")
            for static in read_static_resources(resource, place):
                if _claim_name(
                    static.uri, taken.resources, place.at("uri"), "unique-resource", f"the URI {static.uri!r}"
                ):
                    yield static

    def compile_prompts(self, taken: TakenNames) -> Iterable[Prompt]:
        """Yield the prompts of this entry."""
        for name, prompt in self._exposes.prompts.items():
            place = self._place.at("prompts", name)
            if _claim_name(name, taken.prompts, place, "unique-prompt", f"the prompt {name!r}"):
                yield self._compile_prompt(name, prompt, place)

    # --- tools --------------------------------------------------------------------------------------------------

    def compile_tool(self, name: str, tool: schema.ToolSpec, place: Place) -> Tool | None:
        """Compile one tool; None, and problems, if that fails."""
        # The action comes from the tool itself, or from the flow that it refers to.
        body: flow_schema.ActionSpec = tool
        namespace, body_place, description = self._exposes.namespace, place, tool.description
        semantics = flow_schema.Semantics()
        inputs = {key: (parameter, place) for key, parameter in tool.inputParameters.items()}
        placed = None if tool.ref is None else self._find_flow(tool, tool.ref, place)
        if placed is not None:
            body, namespace, body_place = placed.flow, placed.namespace, placed.place
            description = description or placed.flow.description
            semantics = placed.flow.semantics
            inputs = {key: (parameter, body_place) for key, parameter in placed.flow.inputParameters.items()} | inputs
        if (tool.ref is not None and placed is None) or self._is_unserved(body, place):
            return None
        arguments = [
            compile_argument(key, parameter, self._entities, input_place.at("inputParameters", key))
            for key, (parameter, input_place) in inputs.items()
        ]
        always_has = {argument.name: argument.required or "default" in argument.schema for argument in arguments}
        scope = Scope(namespace, always_has, {FILE} if tool.transfer is not None else set())
        compiled = self._actions.compile(body, scope, body_place)
        for unused in sorted(set(inputs) - scope.used):
            input_place = inputs[unused][1].at("inputParameters", unused)
            input_place.warn("unused-input", f"the input {unused!r} is not used: use it in `with`, or remove it")
        rule = check_tool_rule(tool.x_schema, place.at("x-schema"))
        self._warn_of_unstated_rules(rule, arguments, place)
        if description is None:
            place.report("required-key", "the key 'description' is missing")
        if compiled is None or description is None:
            return None
        action, schema = compiled
        transfer = None
        if tool.transfer is not None:
            transfer = compile_transfer(tool.transfer, action, place.at("x-transfer"))
        annotations = _derive_annotations(tool, semantics, action, transfer, place)
        confirm = None
        if tool.confirm is not None:
            confirm = compile_confirmation(tool.confirm, self._actions, scope, place.at("x-confirm"))
            people = tuple(entity.people for entity in self._entities.values() if entity.people is not None)
            confirm = replace(confirm, people=people)
        elif must_confirm(annotations, action, transfer):
            if place.document.file in find_shipped_files():
                place.report("x-confirm", "may destroy something: describe with x-confirm what the user sees and types")
            confirm = make_default_confirmation(tool.display or name, arguments)
        if confirm is not None and needs_person(action):
            confirm = replace(confirm, person=True)
        arguments += (*make_clear_argument(arguments), *_make_engine_arguments(action, transfer))
        _check_reserved_inputs(inputs, arguments[len(inputs) :], place)
        for argument in arguments:
            if argument.entity is not None and not argument.is_one and not annotations.read_only:
                message = (
                    "a list of entities needs a tool that only reads: a tool that changes something takes one entity"
                )
                place.at("inputParameters", argument.name, "x-entity").report("x-entity", message)
        _check_reserved_outputs(body, schema, body_place)
        return Tool(
            name=name,
            title=tool.display or name,
            description=description,
            toolset=tool.toolset or self._toolset,
            annotations=annotations,
            arguments=tuple(arguments),
            input_schema=build_input_schema(arguments),
            rule=rule,
            output_schema=build_output_schema(
                action.output,
                schema,
                paged=_is_paged(action),
                cut=(isinstance(action, Steps) and action.may_be_cut) or tool.empty is not None,
                waits=_find_wait(action) is not None,
                resolves=any(argument.entity for argument in arguments),
                confirms=confirm is not None or (transfer is not None and transfer.direction == "download"),
            ),
            action=action,
            file=str(place.document.file),
            transfer=transfer,
            confirm=confirm,
            empty=None if tool.empty is None else _compile_empty_answer(tool.empty, place.at("x-empty")),
        )

    def _is_unserved(self, body: flow_schema.ActionSpec, place: Place) -> bool:
        """Return whether an action cannot be served. If so, warn of it."""
        why = self._actions.find_unserved(body)
        if why is not None:
            place.warn(NOT_SERVED, f"{place.path[-1]!r} is left out: {why}, which this server does not do")
        return why is not None

    def _warn_of_unstated_rules(self, rule: JsonSchema, arguments: Sequence[ToolArgument], place: Place) -> None:
        """Add a warning for each rule that no description states. Files from the cache were checked before."""
        schemas = {argument.name: argument.schema for argument in arguments} if place.document.is_fresh else {}
        for keyword, subject in find_unstated_rules(rule if schemas else {}, schemas):
            message = (
                f"{keyword!r} of {subject} is enforced, but clients do not see it, and no description states it: "
                "describe the rule in words, with its names and values"
            )
            self.warnings.append(place.document.make_problem(place.path, "unstated-rule", message))

    def _find_flow(self, tool: schema.ToolSpec, reference: str, place: Place) -> PlacedFlow | None:
        own_action = {
            "call": tool.call,
            "with": tool.with_,
            "steps": tool.steps,
            "mappings": tool.mappings,
            "outputParameters": tool.outputParameters,
        }
        for key, value in own_action.items():
            if value:
                place.at(key).report("one-action", f"`{key}` belongs to the flow of `ref`: remove one of them")
        place.at("ref").check_known(reference, self._flows, "unresolved-ref", "there is no flow")
        return self._flows.get(reference)

    # --- resources and prompts ----------------------------------------------------------------------------------

    def _compile_resource(self, name: str, resource: schema.ResourceSpec, place: Place) -> Resource | None:
        variables = tuple(_URI_SLOT.findall(resource.uri))
        if not _URI.fullmatch(_URI_SLOT.sub("x", resource.uri)) or len(set(variables)) < len(variables):
            message = f"{resource.uri[:80]!r} is not a URI with variables like {{iModelId}}, each once"
            place.at("uri").report("uri", message)
        if self._is_unserved(resource, place):
            return None
        scope = Scope(self._exposes.namespace, dict.fromkeys(variables, True))
        compiled = self._actions.compile(resource, scope, place)
        for unused in sorted(set(variables) - scope.used):
            message = f"the variable {{{unused}}} is not used: use it in `with`, or remove it"
            place.at("uri").warn("unused-input", message)
        entities = {}
        for variable, kind in resource.entities.items():
            here = place.at("x-entity", variable)
            here.check_known(variable, variables, "x-entity", "the URI has no variable")
            entities[variable] = find_entity(kind, self._entities, here)
        if compiled is None:
            return None
        action, _ = compiled
        for operation in list_called_operations(action):
            if operation.method != "GET":
                message = f"{operation.key!r} is a {operation.method}, but a resource must only read: use a tool"
                place.report("resource-reads", message)
            elif operation.wait is not None or (operation.page is not None and isinstance(action, Call)):
                message = f"{operation.key!r} pages or waits, but a resource is read with one request: use a tool"
                place.report("resource-reads", message)
        if isinstance(action, Call) and action.further:
            place.report("resource-reads", "has x-read, but a resource is read with one request: use a tool")
        if resource.binary != (isinstance(action, Call) and action.operation.binary):
            message = "`binary` and `outputRawFormat: binary` of the operation go together: set both or neither"
            place.report("resource-reads", message)
        return Resource(
            name=name,
            title=resource.display,
            uri=resource.uri,
            description=resource.description,
            mime_type=resource.mimeType,
            variables=variables,
            entities={variable: entity for variable, entity in entities.items() if entity is not None},
            action=action,
            toolset=self._toolset,
        )

    def _compile_prompt(self, name: str, prompt: schema.PromptSpec, place: Place) -> Prompt:
        used: set[str] = set()
        for index, message in enumerate(prompt.template):
            here = place.at("template", index, "content")
            if here.compile_slots(message.content) is None:
                used.update(prompt.arguments)  # otherwise every argument would also be reported as unused
            slots = find_slots(message.content)
            used.update(slots)
            for slot in slots:
                here.check_known(slot, prompt.arguments, "slot-without-value", "there is no argument")
        for unused in sorted(set(prompt.arguments) - used):
            here = place.at("arguments", unused)
            here.warn("unused-input", f"the argument {unused!r} is not used: use it in `template`, or remove it")
        return Prompt(
            name=name,
            title=prompt.display,
            description=prompt.description,
            arguments=tuple(
                (key, part.display, part.description, part.required) for key, part in prompt.arguments.items()
            ),
            messages=tuple((message.role, message.content) for message in prompt.template),
            toolset=self._toolset,
            choices={
                key: tuple(part.x_schema.enum) for key, part in prompt.arguments.items() if part.x_schema is not None
            },
            quoted=frozenset(word for message in prompt.template for word in _QUOTED.findall(message.content)),
        )


def _claim_name(name: str, places: dict[str, Place], place: Place, rule: str, noun: str) -> bool:
    """Record a name. If it is already taken, report that and return False."""
    if name in places:
        place.report(rule, f"{noun} is already defined in {places[name].document.file}: rename one of them")
        return False
    places[name] = place
    return True


def _compile_empty_answer(empty: EmptyNote, place: Place) -> EmptyAnswer:
    paths = (place.at("of", index).compile_path(text) for index, text in enumerate(empty.of))
    return EmptyAnswer(tuple(path for path in paths if path is not None), empty.note)


def _make_engine_arguments(action: Action, transfer: TransferPlan | None) -> tuple[ToolArgument, ...]:
    """Return the arguments that the engine adds to a tool: for pages, a local file, and a job."""
    added: tuple[ToolArgument, ...] = make_page_arguments() if _is_paged(action) else ()
    if transfer is not None:
        added += make_file_arguments(transfer.direction)
    elif any(operation.file is not None for operation in list_called_operations(action)):
        added += make_file_arguments("upload")
    wait = _find_wait(action)
    if wait is not None:
        added += (make_wait_argument(wait.default),)
    return added


def _check_reserved_inputs(inputs: Iterable[str], added: Iterable[ToolArgument], place: Place) -> None:
    for argument in added:
        if argument.name in inputs:
            message = f"the engine adds the input {argument.name!r} to this tool: use another name for yours"
            place.at("inputParameters", argument.name).report("reserved-input", message)


def _check_reserved_outputs(action: flow_schema.ActionSpec, schema: JsonSchema, place: Place) -> None:
    outputs = place.at("outputParameters")
    if isinstance(action.outputParameters, list):
        outputs = outputs.at(0, "properties")
    for name in sorted(RESERVED_OUTPUTS & set(schema.get("properties", {}))):
        message = f"the engine adds {name!r} to the answer: use another name for yours"
        outputs.at(name).report("reserved-output", message)


def _is_paged(action: Action) -> bool:
    """Return whether the caller pages through the answer. Inside steps, the engine reads all pages up to a limit."""
    return isinstance(action, Call) and action.operation.page is not None


def _find_wait(action: Action) -> WaitPlan | None:
    waits = [operation.wait for operation in list_called_operations(action) if operation.wait is not None]
    return waits[-1] if waits else None


def _derive_annotations(
    tool: schema.ToolSpec, semantics: flow_schema.Semantics, action: Action, transfer: TransferPlan | None, place: Place
) -> Annotations:
    """Derive annotations from the tool's hints, then from the flow's semantics, then from the methods of its requests.

    A download writes a local file and may replace one, so it is not read-only. A tool that confirms is destructive.
    """
    hints = tool.hints
    methods = {operation.method for operation in list_called_operations(action)}
    writes_here = transfer is not None and transfer.direction == "download"

    def first(*values: bool | None) -> bool:
        return next(value for value in values if value is not None)

    read_only = first(hints.readOnly, semantics.safe, methods <= {"GET"} and not writes_here)
    if read_only and writes_here:
        place.at("hints").report("hints", "`readOnly: true` contradicts the download, which writes a local file")
    writes = sorted(methods & {"PUT", "PATCH", "DELETE"})
    if read_only and writes:
        message = f"`readOnly: true` contradicts the {writes[0]} request: `--read-only` would serve this tool"
        place.at("hints").report("hints", message)
    if read_only and hints.destructive:
        place.at("hints", "destructive").report("hints", "a tool cannot be both read-only and destructive")
    deletes = [operation.key for operation in list_called_operations(action) if destroys(operation)]
    if hints.destructive is False and deletes:
        message = f"`destructive: false` contradicts the DELETE operation {deletes[0]!r}: remove it"
        place.at("hints", "destructive").report("hints", message)
    destructive = first(hints.destructive, ("DELETE" in methods or writes_here) and not read_only)
    if tool.confirm is not None and (read_only or hints.destructive is False):
        place.at("hints").report("hints", "contradicts x-confirm: a tool that confirms is destructive")
    return Annotations(
        read_only=read_only,
        destructive=destructive or tool.confirm is not None,
        idempotent=first(hints.idempotent, semantics.idempotent, read_only or methods <= {"GET", "PUT", "DELETE"}),
        open_world=first(hints.openWorld, True),
    )
