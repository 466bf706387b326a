"""One `exposes` entry, linked into the tools, resources and prompts that clients see."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from itwin_mcp.capability import flows, model
from itwin_mcp.capability.actions import ActionLinker, Scope, called_operations
from itwin_mcp.capability.catalog import (
    Annotations,
    EmptyAnswer,
    Prompt,
    Resource,
    StaticResource,
    Tool,
    ToolArgument,
    shipped,
)
from itwin_mcp.capability.confirming import destroys, link_confirm, must_confirm, needs_person, plain_plan
from itwin_mcp.capability.expressions import slots
from itwin_mcp.capability.extensions import EmptyNote
from itwin_mcp.capability.fragments import check_tool_rule
from itwin_mcp.capability.node import JsonSchema
from itwin_mcp.capability.parameters import (
    RESERVED_OUTPUTS,
    argument,
    clear_argument,
    file_arguments,
    output_schema,
    page_arguments,
    published_schema,
    wait_argument,
)
from itwin_mcp.capability.place import Place
from itwin_mcp.capability.plans import Action, Call, Steps, TransferPlan, WaitPlan
from itwin_mcp.capability.published import unstated_rules
from itwin_mcp.capability.statics import static_resources
from itwin_mcp.capability.suggestions import there_is
from itwin_mcp.capability.transfers import FILE, link_transfer
from itwin_mcp.errors import Problem

_URI_SLOT = re.compile(r"\{([a-zA-Z0-9_]+)\}")
_QUOTED = re.compile(r"`([a-z0-9-]+)`")
_URI = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:[^\s{}]+")


@dataclass(frozen=True, slots=True)
class PlacedFlow:
    """A flow of the file, with the namespace of its inputs and where it stands."""

    flow: flows.Flow
    namespace: str
    place: Place


@dataclass(slots=True)
class Taken:
    """What earlier files and entries expose, and where."""

    tools: dict[str, Place] = field(default_factory=dict)
    resources: dict[str, Place] = field(default_factory=dict)
    prompts: dict[str, Place] = field(default_factory=dict)


class Surface:
    """Links one `exposes` entry; problems are reported at its place."""

    def __init__(
        self, exposes: model.Exposes, actions: ActionLinker, placed: Mapping[str, PlacedFlow], place: Place
    ) -> None:
        self._exposes = exposes
        self._actions = actions
        self._flows = placed
        self._place = place
        self._toolset = exposes.toolset or exposes.namespace
        self.warnings: list[Problem] = []
        """What is no problem, but what the author of a file should know."""

    def tools(self, taken: Taken) -> Iterable[Tool]:
        """The tools of this entry."""
        for name, tool in self._exposes.tools.items():
            place = self._place.at("tools", name)
            if _is_free(name, taken.tools, place, "unique-tool", f"the tool {name!r}"):
                linked = self._tool(name, tool, place)
                if linked is not None:
                    yield linked

    def resources(self, taken: Taken) -> Iterable[Resource]:
        """The resources and resource templates of this entry."""
        for name, resource in self._exposes.resources.items():
            if resource.location is not None:
                continue
            place = self._place.at("resources", name)
            shape = _URI_SLOT.sub("{}", resource.uri)
            if _is_free(shape, taken.resources, place.at("uri"), "unique-resource", f"the URI {resource.uri[:80]!r}"):
                linked = self._resource(name, resource, place)
                if linked is not None:
                    yield linked

    def statics(self, taken: Taken) -> Iterable[StaticResource]:
        """The static resources of this entry, one for each file."""
        for name, resource in self._exposes.resources.items():
            if resource.location is None:
                continue
            place = self._place.at("resources", name)
            if resource.call or resource.steps or resource.with_ or resource.binary or resource.entities:
                place.report("one-action", "`location` beside a call: keep one")
            if not _URI.fullmatch(resource.uri):
                place.at("uri").report("uri", f"{resource.uri[:80]!r} is not a URI without variables")
            for static in static_resources(resource, place):
                if _is_free(static.uri, taken.resources, place.at("uri"), "unique-resource", f"the URI {static.uri!r}"):
                    yield static

    def prompts(self, taken: Taken) -> Iterable[Prompt]:
        """The prompts of this entry."""
        for name, prompt in self._exposes.prompts.items():
            place = self._place.at("prompts", name)
            if _is_free(name, taken.prompts, place, "unique-prompt", f"the prompt {name!r}"):
                yield self._prompt(name, prompt, place)

    # --- tools --------------------------------------------------------------------------------------------------

    def _tool(self, name: str, tool: model.Tool, place: Place) -> Tool | None:
        placed = None
        if tool.ref is not None:
            placed = self._referred(tool, tool.ref, place)
            if placed is None:
                return None
        body: flows.Action = tool if placed is None else placed.flow
        inputs = {key: (one, place) for key, one in tool.inputParameters.items()}
        if placed is not None:
            inputs = {key: (one, placed.place) for key, one in placed.flow.inputParameters.items()} | inputs
        arguments = [argument(key, one, where.at("inputParameters", key)) for key, (one, where) in inputs.items()]
        namespace = self._exposes.namespace if placed is None else placed.namespace
        steps = {FILE} if tool.transfer is not None else set[str]()
        scope = Scope(namespace, {one.name: one.required or "default" in one.schema for one in arguments}, steps)
        linked = self._actions.link(body, scope, place if placed is None else placed.place)
        for unused in sorted(set(inputs) - scope.used):
            where = inputs[unused][1].at("inputParameters", unused)
            where.report("unused-input", f"the input {unused!r} is used nowhere: use it in `with`, or remove it")
        rule = check_tool_rule(tool.x_schema, place.at("x-schema"))
        self._warn_of_unstated_rules(rule, arguments, place)
        description = tool.description or (placed.flow.description if placed is not None else None)
        if description is None:
            place.report("required-key", "the key 'description' is missing")
        if linked is None or description is None:
            return None
        action, schema = linked
        transfer = None
        if tool.transfer is not None:
            transfer = link_transfer(tool.transfer, action, place.at("x-transfer"))
        semantics = flows.Semantics() if placed is None else placed.flow.semantics
        annotations = _annotations(tool, semantics, action, transfer, place)
        confirm = None
        if tool.confirm is not None:
            confirm = link_confirm(tool.confirm, self._actions, scope, place.at("x-confirm"))
        elif must_confirm(annotations, action, transfer):
            if place.document.file in shipped():
                place.report(
                    "x-confirm", "may destroy something: say with x-confirm what the person is shown and types"
                )
            confirm = plain_plan(tool.display or name, arguments)
        if confirm is not None and needs_person(action):
            confirm = replace(confirm, person=True)
        arguments += (*clear_argument(arguments), *_engine_arguments(action, transfer))
        _check_inputs(inputs, arguments[len(inputs) :], place)
        _check_outputs(body, schema, place if placed is None else placed.place)
        return Tool(
            name=name,
            title=tool.display or name,
            description=description,
            toolset=tool.toolset or self._toolset,
            annotations=annotations,
            arguments=tuple(arguments),
            input_schema=published_schema(arguments),
            rule=rule,
            output_schema=output_schema(
                action.output,
                schema,
                paged=_paged(action),
                cut=(isinstance(action, Steps) and action.may_be_cut) or tool.empty is not None,
                waits=_awaited(action) is not None,
                resolves=any(one.entity for one in arguments),
                confirms=confirm is not None or (transfer is not None and transfer.direction == "download"),
            ),
            action=action,
            file=str(place.document.file),
            transfer=transfer,
            confirm=confirm,
            empty=None if tool.empty is None else _empty_answer(tool.empty, place.at("x-empty")),
        )

    def _warn_of_unstated_rules(self, rule: JsonSchema, arguments: Sequence[ToolArgument], place: Place) -> None:
        """Note them; a file that was in the cache has been looked at."""
        schemas = {one.name: one.schema for one in arguments} if place.document.fresh else {}
        for keyword, subject in unstated_rules(rule if schemas else {}, schemas):
            message = (
                f"{keyword!r} of {subject} is enforced, but clients are not shown it, and no description says it: "
                f"describe in words what it asks for, with the names and values it is about"
            )
            self.warnings.append(place.document.problem(place.path, "unstated-rule", message))

    def _referred(self, tool: model.Tool, reference: str, place: Place) -> PlacedFlow | None:
        for key, given in (
            ("call", tool.call),
            ("with", tool.with_),
            ("steps", tool.steps),
            ("mappings", tool.mappings),
            ("outputParameters", tool.outputParameters),
        ):
            if given:
                place.at(key).report("one-action", f"`{key}` beside `ref`: it belongs to the flow, or `ref` goes")
        if reference not in self._flows:
            message = f"there is no flow {reference!r}: {there_is(self._flows, reference)}"
            place.at("ref").report("unresolved-ref", message)
            return None
        return self._flows[reference]

    # --- resources and prompts ----------------------------------------------------------------------------------

    def _resource(self, name: str, resource: model.Resource, place: Place) -> Resource | None:
        variables = tuple(_URI_SLOT.findall(resource.uri))
        if not _URI.fullmatch(_URI_SLOT.sub("x", resource.uri)) or len(set(variables)) < len(variables):
            message = f"{resource.uri[:80]!r} is not a URI with variables like {{iModelId}}, each once"
            place.at("uri").report("uri", message)
        scope = Scope(self._exposes.namespace, dict.fromkeys(variables, True))
        linked = self._actions.link(resource, scope, place)
        for unused in sorted(set(variables) - scope.used):
            message = f"the variable {{{unused}}} is used nowhere: use it in `with`, or remove it"
            place.at("uri").report("unused-input", message)
        for entity in sorted(set(resource.entities) - set(variables)):
            message = f"the URI has no variable {{{entity}}}: {there_is(variables, entity)}"
            place.at("x-entity", entity).report("x-entity", message)
        if linked is None:
            return None
        action, _ = linked
        for operation in called_operations(action):
            if operation.method != "GET":
                message = f"{operation.key!r} is a {operation.method}: reading a resource changes nothing, use a tool"
                place.report("resource-reads", message)
            elif operation.wait is not None or (operation.page is not None and isinstance(action, Call)):
                message = f"{operation.key!r} pages or waits: a resource is read at once, use a tool"
                place.report("resource-reads", message)
        if resource.binary != (isinstance(action, Call) and action.operation.binary):
            message = "`binary` and the operation's `outputRawFormat: binary` go together: set both or neither"
            place.report("resource-reads", message)
        return Resource(
            name=name,
            title=resource.display,
            uri=resource.uri,
            description=resource.description,
            mime_type=resource.mimeType,
            variables=variables,
            entities=dict(resource.entities),
            action=action,
            toolset=self._toolset,
        )

    def _prompt(self, name: str, prompt: model.Prompt, place: Place) -> Prompt:
        used: set[str] = set()
        for index, message in enumerate(prompt.template):
            here, content = place.at("template", index, "content"), message.content
            if here.slots_of(content) is None:
                used.update(prompt.arguments)  # they are not the problem
            for slot in dict.fromkeys(slots(content)):
                used.add(slot)
                if slot not in prompt.arguments:
                    message_text = f"there is no argument {slot[:80]!r}: {there_is(prompt.arguments, slot)}"
                    here.report("slot-without-value", message_text)
        for unused in sorted(set(prompt.arguments) - used):
            message_text = f"the argument {unused!r} is used nowhere: use it in `template`, or remove it"
            place.at("arguments", unused).report("unused-input", message_text)
        return Prompt(
            name=name,
            title=prompt.display,
            description=prompt.description,
            arguments=tuple((key, one.display, one.description, one.required) for key, one in prompt.arguments.items()),
            messages=tuple((message.role, message.content) for message in prompt.template),
            toolset=self._toolset,
            choices={
                key: tuple(one.x_schema.enum) for key, one in prompt.arguments.items() if one.x_schema is not None
            },
            quoted=frozenset(quoted for message in prompt.template for quoted in _QUOTED.findall(message.content)),
        )


def _is_free(name: str, taken: dict[str, Place], place: Place, rule: str, noun: str) -> bool:
    if name in taken:
        place.report(rule, f"{noun} stands already in {taken[name].document.file}: rename one of the two")
        return False
    taken[name] = place
    return True


def _empty_answer(empty: EmptyNote, place: Place) -> EmptyAnswer:
    paths = (place.at("of", index).path_of(text) for index, text in enumerate(empty.of))
    return EmptyAnswer(tuple(path for path in paths if path is not None), empty.note)


def _engine_arguments(action: Action, transfer: TransferPlan | None) -> tuple[ToolArgument, ...]:
    added: tuple[ToolArgument, ...] = page_arguments() if _paged(action) else ()
    if transfer is not None:
        added += file_arguments(transfer.direction)
    elif any(operation.file is not None for operation in called_operations(action)):
        added += file_arguments("upload")
    wait = _awaited(action)
    if wait is not None:
        added += (wait_argument(wait.default),)
    return added


def _check_inputs(inputs: Iterable[str], added: Iterable[ToolArgument], place: Place) -> None:
    for one in added:
        if one.name in inputs:
            message = f"the engine adds {one.name!r} to this tool: call yours something else"
            place.at("inputParameters", one.name).report("reserved-input", message)


def _check_outputs(action: flows.Action, schema: JsonSchema, place: Place) -> None:
    outputs = place.at("outputParameters")
    if isinstance(action.outputParameters, list):
        outputs = outputs.at(0, "properties")
    for name in sorted(RESERVED_OUTPUTS & set(schema.get("properties", {}))):
        message = f"the engine gives {name!r} beside the answer: call yours something else"
        outputs.at(name).report("reserved-output", message)


def _paged(action: Action) -> bool:
    """A paged call gives its pages to the caller; inside steps all pages are taken, up to a bound."""
    return isinstance(action, Call) and action.operation.page is not None


def _awaited(action: Action) -> WaitPlan | None:
    return next((one.wait for one in reversed(called_operations(action)) if one.wait is not None), None)


def _annotations(
    tool: model.Tool, semantics: flows.Semantics, action: Action, transfer: TransferPlan | None, place: Place
) -> Annotations:
    """The tool's hints, else the flow's semantics, else what the methods of its requests mean.

    A download changes this machine: it writes a file, and may replace one. A tool that confirms is destructive.
    """
    hints = tool.hints
    methods = {operation.method for operation in called_operations(action)}
    writes_here = transfer is not None and transfer.direction == "download"

    def first(*values: bool | None) -> bool:
        return next(value for value in values if value is not None)

    read_only = first(hints.readOnly, semantics.safe, methods == {"GET"} and not writes_here)
    if read_only and writes_here:
        place.at("hints").report("hints", "is said to be read-only, but writes a local file")
    writes = sorted(methods & {"PUT", "PATCH", "DELETE"})
    if read_only and writes:
        message = f"is said to be read-only, but sends a {writes[0]}: `--read-only` would serve it"
        place.at("hints").report("hints", message)
    if read_only and hints.destructive:
        place.at("hints", "destructive").report("hints", "is said to be both read-only and destructive")
    deletes = [one.key for one in called_operations(action) if destroys(one)]
    if hints.destructive is False and deletes:
        message = f"is said to destroy nothing, but {deletes[0]!r} deletes something of the platform: leave it out"
        place.at("hints", "destructive").report("hints", message)
    destructive = first(hints.destructive, ("DELETE" in methods or writes_here) and not read_only)
    if tool.confirm is not None and (read_only or hints.destructive is False):
        place.at("hints").report("hints", "has x-confirm: a tool that asks before it acts is destructive")
    return Annotations(
        read_only=read_only,
        destructive=destructive or tool.confirm is not None,
        idempotent=first(hints.idempotent, semantics.idempotent, read_only or methods <= {"GET", "PUT", "DELETE"}),
        open_world=first(hints.openWorld, True),
    )
