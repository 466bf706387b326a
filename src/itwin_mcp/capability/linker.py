"""Across files: imports, `call` and `ref` resolve, names are unique, every input is used, every slot has a value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from typing import Any
from urllib.parse import urlsplit

from itwin_mcp.capability import model
from itwin_mcp.capability.catalog import (
    Action,
    Annotations,
    BodyTemplate,
    Call,
    CallStep,
    Catalog,
    Credential,
    LookupStep,
    Operation,
    Output,
    PagePlan,
    PathTemplate,
    Prompt,
    Requirement,
    Resource,
    Slot,
    Step,
    Steps,
    Tool,
    ToolArgument,
    WaitPlan,
    WireParameter,
)
from itwin_mcp.capability.expressions import (
    Argument,
    Expression,
    ExpressionError,
    Literal,
    Path,
    StepValue,
    Text,
    compile_path,
    compile_slots,
    is_name,
    slots,
)
from itwin_mcp.capability.extensions import JsonSchema, Waiting
from itwin_mcp.capability.loader import Document, YamlPath, load
from itwin_mcp.capability.parameters import (
    argument,
    input_schema,
    mapped_output,
    orchestrated_output,
    output_schema,
    page_arguments,
    wait_argument,
)
from itwin_mcp.errors import CapabilityError, Problem

URI_SLOT = re.compile(r"\{([a-zA-Z0-9_]+)\}")


def link_files(files: Iterable[FilePath], *, cache: FilePath | None = None) -> Catalog:
    """Load, check and link capability files into one catalog.

    Nothing is returned unless everything holds. Raises CapabilityError with every problem found; files that passed
    are kept in `cache` for the next start.
    """
    linker = _Linker(cache)
    for file in files:
        linker.add(file)
    catalog = linker.catalog()
    for document in linker.documents.values():
        document.keep()
    return catalog


def checked_files(files: Iterable[FilePath]) -> tuple[FilePath, ...]:
    """The files and every file that they import, in the order of reading. Raises CapabilityError."""
    linker = _Linker(None)
    for file in files:
        linker.add(file)
    linker.catalog()
    return tuple(linker.documents)


@dataclass(slots=True)
class _Scope:
    """What a `with` may refer to: the caller's inputs under a namespace, and earlier steps."""

    namespace: str
    inputs: Mapping[str, model.ToolInput] | frozenset[str]
    steps: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=set)


class _Linker:
    def __init__(self, cache: FilePath | None) -> None:
        self.documents: dict[FilePath, Document] = {}
        self._cache = cache
        self._problems: list[Problem] = []
        self._consumed: dict[FilePath, dict[str, dict[str, Operation]]] = {}
        self._tools: dict[str, Tool] = {}
        self._resources: dict[str, Resource] = {}
        self._prompts: dict[str, Prompt] = {}

    def add(self, file: FilePath) -> None:
        document = self._load(file)
        if document is None:
            return
        capability = document.model.capability
        if capability is None:
            self._report(document, (), "capability", "has no `capability`: a section file is only imported")
            return
        operations = self._operations_of(document)
        flows = self._flows_of(document)
        self._binds_of(document)
        for index, exposes in enumerate(capability.exposes):
            path: YamlPath = ("capability", "exposes", index)
            if isinstance(exposes, model.Import):
                self._report(document, path, "inline-exposes", "an exposition is written in its own file, not imported")
                continue
            surface = _Surface(self, document, exposes, path, operations, flows)
            surface.link(self._tools, self._resources, self._prompts)

    def catalog(self) -> Catalog:
        if self._problems:
            raise CapabilityError(self._problems)
        operations = {
            operation.key: operation
            for namespaces in self._consumed.values()
            for named in namespaces.values()
            for operation in named.values()
        }
        return Catalog(self._tools, tuple(self._resources.values()), self._prompts, operations)

    def _report(self, document: Document, path: YamlPath, rule: str, message: str) -> None:
        self._problems.append(document.problem(path, rule, message))

    report = _report

    def _load(self, file: FilePath) -> Document | None:
        file = file.resolve()
        if file not in self.documents:
            try:
                self.documents[file] = load(file, cache=self._cache)
            except CapabilityError as error:
                self._problems.extend(error.problems)
                return None
        return self.documents[file]

    # --- consumes and aggregates --------------------------------------------------------------------------------

    def _operations_of(self, document: Document) -> dict[str, dict[str, Operation]]:
        """The operations that a file may call: namespace -> name -> operation."""
        if document.file in self._consumed:
            return self._consumed[document.file]
        capability = document.model.capability
        sections: list[tuple[YamlPath, Sequence[Any]]] = [(("consumes",), document.model.consumes)]
        if capability is not None:
            sections.append((("capability", "consumes"), capability.consumes))
        binds = self._binds_of(document)
        found: dict[str, dict[str, Operation]] = {}
        own: dict[str, dict[str, Operation]] = {}
        for base, section in sections:
            for index, consumes in enumerate(section):
                path = (*base, index)
                if isinstance(consumes, model.Import):
                    imported = self._imported(document, path, consumes)
                    namespace, operations = consumes.as_ or consumes.import_, imported
                else:
                    namespace = consumes.namespace
                    operations = _ConsumedApi(self, document, consumes, path, binds).operations()
                    own[namespace] = operations
                if namespace in found:
                    self._report(document, path, "unique-namespace", f"the namespace {namespace!r} stands twice")
                found[namespace] = operations
        self._consumed[document.file] = own
        return found

    def _imported(self, document: Document, path: YamlPath, entry: model.Import) -> dict[str, Operation]:
        source = self._load(document.file.parent / entry.from_)
        if source is None:
            return {}
        if source.model.capability is not None:
            message = f"{entry.from_} is a whole capability: only a file of one section is imported"
            self._report(document, path, "import", message)
            return {}
        offered = self._operations_of(source)
        if entry.import_ not in offered:
            there = ", ".join(sorted(offered)) or "none"
            message = f"{entry.from_} has no namespace {entry.import_!r} in `consumes` (it has: {there})"
            self._report(document, (*path, "import"), "import", message)
            return {}
        return offered[entry.import_]

    def _flows_of(self, document: Document) -> dict[str, tuple[model.Flow, str, YamlPath]]:
        """The flows of a file: `namespace.flow` -> the flow, its namespace, its place."""
        capability = document.model.capability
        flows: dict[str, tuple[model.Flow, str, YamlPath]] = {}
        for index, aggregate in enumerate(capability.aggregates if capability else ()):
            path: YamlPath = ("capability", "aggregates", index)
            if isinstance(aggregate, model.Import):
                self._report(document, path, "inline-aggregates", "flows are written in the file that uses them")
                continue
            for name, flow in aggregate.flows.items():
                flows[f"{aggregate.namespace}.{name}"] = (flow, aggregate.namespace, (*path, "flows", name))
        return flows

    def _binds_of(self, document: Document) -> dict[str, str]:
        """Variable in the file -> variable of the process environment."""
        capability = document.model.capability
        variables: dict[str, str] = {}
        for base, section in (
            (("binds",), document.model.binds),
            (("capability", "binds"), capability.binds if capability else []),
        ):
            for index, bind in enumerate(section):
                if isinstance(bind, model.Import):
                    self._report(document, (*base, index), "inline-binds", "binds are written in the file itself")
                else:
                    variables.update(bind.keys)
        return variables


class _ConsumedApi:
    """One `consumes` entry, compiled into operations."""

    def __init__(
        self, linker: _Linker, document: Document, consumes: model.Consumes, path: YamlPath, binds: Mapping[str, str]
    ) -> None:
        self._linker = linker
        self._document = document
        self._consumes = consumes
        self._path = path
        parts = urlsplit(consumes.baseUri)
        self._origin = f"{parts.scheme}://{parts.netloc}".lower()
        self._base = parts.path.rstrip("/")
        self._credential = self._credential_of(consumes.authentication, binds)

    def operations(self) -> dict[str, Operation]:
        compiled: dict[str, Operation] = {}
        waits: list[tuple[str, Waiting, YamlPath]] = []
        for resource_name, resource in self._consumes.resources.items():
            for name, operation in resource.operations.items():
                path = (*self._path, "resources", resource_name, "operations", name)
                if name in compiled:
                    self._report(path, "unique-operation", f"the operation {name!r} stands twice in this namespace")
                try:
                    compiled[name] = self._operation(name, operation, resource.path, path)
                except ExpressionError as error:
                    self._report(path, "expression", str(error))
                if operation.wait is not None:
                    waits.append((name, operation.wait, (*path, "x-wait")))
        plain = dict(compiled)
        for name, wait, path in waits:
            plan = self._wait(plain, name, wait, path)
            if plan is not None:
                compiled[name] = replace(compiled[name], wait=plan)
        return compiled

    def _report(self, path: YamlPath, rule: str, message: str) -> None:
        self._linker.report(self._document, path, rule, message)

    def _credential_of(
        self, authentication: model.Authentication | None, binds: Mapping[str, str]
    ) -> Credential | None:
        if authentication is None:
            return None
        fields = authentication.model_dump(exclude={"type", "placement"})
        parts: dict[str, Expression] = {}
        for key, text in fields.items():
            for name in slots(text):
                if name not in binds:
                    message = f"{{{{{name}}}}} is not bound: add it to `binds`"
                    self._report((*self._path, "authentication", key), "slot-without-value", message)
            try:
                parts[key] = compile_slots(text, Argument)
            except ExpressionError as error:
                self._report((*self._path, "authentication", key), "expression", str(error))
        if isinstance(authentication, model.ApiKeyAuthentication):
            parts["placement"] = Literal(authentication.placement)
        return Credential(authentication.type, parts, dict(binds))

    def _operation(
        self, name: str, operation: model.ConsumedOperation, path_text: str, path: YamlPath
    ) -> Operation:
        parameters = {**self._consumes.inputParameters, **operation.inputParameters}
        template = self._path_template(path_text)
        in_path = {part.name for segment in template for part in segment if isinstance(part, Slot)}
        declared = {key for key, parameter in parameters.items() if parameter.in_ == "path"}
        for missing in sorted(in_path - declared):
            message = f"the slot {{{{{missing}}}}} of the path has no input parameter `in: path`"
            self._report(path, "slot-without-value", message)
        for surplus in sorted(declared - in_path):
            self._report((*path, "inputParameters", surplus), "unused-input", f"the path has no slot {surplus!r}")
        wire = tuple(
            WireParameter(
                key,
                parameter.in_,
                parameter.wire or key,
                compile_slots(parameter.value, Argument) if parameter.value is not None else None,
            )
            for key, parameter in parameters.items()
        )
        body, in_body, needed = _body(operation.body)
        if operation.wait is not None and operation.page is not None:
            self._report(path, "x-wait", "an operation either pages or starts a job")
        return Operation(
            namespace=self._consumes.namespace,
            name=name,
            method=operation.method,
            origin=self._origin,
            path=template,
            parameters=wire,
            body=body,
            inputs=frozenset(parameters) | in_body,
            required=frozenset(in_path) | needed,
            credential=self._credential,
            binary=operation.outputRawFormat == "binary",
            outputs={key: compile_path(output.value) for key, output in operation.outputParameters.items()},
            page=self._page(operation, frozenset(parameters), path),
            wait=None,
            doc=operation.doc,
            permission=operation.permission,
        )

    def _path_template(self, text: str) -> PathTemplate:
        def slot(name: str) -> Argument:
            return Argument(name)

        segments: list[tuple[str | Slot, ...]] = []
        for segment in (self._base + text).split("/")[1:]:
            compiled = compile_slots(segment, slot)
            parts = compiled.parts if isinstance(compiled, Text) else (compiled,)
            segments.append(
                tuple(
                    Slot(part.name) if isinstance(part, Argument) else part
                    for part in (p.value if isinstance(p, Literal) else p for p in parts)
                    if isinstance(part, (Argument, str))
                )
            )
        return tuple(segments)

    def _page(self, operation: model.ConsumedOperation, inputs: frozenset[str], path: YamlPath) -> PagePlan | None:
        page = operation.page
        if page is None:
            return None
        for role, name in (("size", page.size), ("skip", page.skip), ("token", page.token)):
            if name is not None and name not in inputs:
                self._report((*path, "x-page", role), "x-page", f"the operation has no input parameter {name!r}")
        return PagePlan(
            style=page.style,
            items=compile_path(page.items),
            next=compile_path(page.next) if page.next else None,
            size=page.size,
            most=page.most,
            skip=page.skip,
            token=page.token,
            count=compile_path(page.count) if page.count else None,
            within=page.within,
        )

    def _wait(
        self, operations: Mapping[str, Operation], name: str, wait: Waiting, path: YamlPath
    ) -> WaitPlan | None:
        def operation(reference: str, key: str) -> Operation | None:
            namespace, _, called = reference.partition(".")
            if namespace != self._consumes.namespace or called not in operations:
                self._report((*path, key), "unresolved-call", f"there is no operation {reference!r} in this namespace")
                return None
            return operations[called]

        poll = operation(wait.poll, "poll")
        result = operation(wait.result, "result") if wait.result is not None else None
        if poll is None or name not in operations or (wait.result is not None and result is None):
            return None
        handle = wait.handle
        place, handle_name = next(
            (place, value)
            for place, value in (("header", handle.header), ("body", handle.body), ("input", handle.input))
            if value is not None
        )
        poll_slot = self._handle_slot(poll, handle.in_, path)
        result_slot = self._handle_slot(result, handle.in_, path) if result is not None else None
        if poll_slot is None:
            return None
        return WaitPlan(
            handle_place=place,  # type: ignore[arg-type]  # one of the three literals above
            handle_name=handle_name.lower() if place == "header" else handle_name,
            handle_path=compile_path(handle_name) if place == "body" else None,
            handle_as=handle.as_,
            poll=poll,
            poll_slot=poll_slot,
            state=compile_path(wait.state),
            pending=frozenset(wait.pending),
            done=frozenset(wait.done),
            result=result,
            result_slot=result_slot,
            reason=compile_path(wait.reason) if wait.reason else None,
            subject=wait.subject,
            check=wait.check,
            default=wait.default,
        )

    def _handle_slot(self, operation: Operation, named: str | None, path: YamlPath) -> str | None:
        in_path = [part.name for segment in operation.path for part in segment if isinstance(part, Slot)]
        if named is not None and named in in_path:
            return named
        if named is None and len(in_path) == 1:
            return in_path[0]
        message = f"say with `in` which slot of {operation.key!r} takes the handle (it has: {', '.join(in_path)})"
        self._report((*path, "handle"), "x-wait", message)
        return None


def _body(body: model.RequestBody | None) -> tuple[BodyTemplate | None, frozenset[str], frozenset[str]]:
    """The compiled body, the names of all its slots, and of those inside text, which need a value."""
    if body is None:
        return None, frozenset(), frozenset()
    names: set[str] = set()
    needed: set[str] = set()

    def compiled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: compiled(child) for key, child in value.items()}
        if isinstance(value, list):
            return [compiled(child) for child in value]
        if not isinstance(value, str):
            return Literal(value)
        names.update(slots(value))
        expression = compile_slots(value, Argument)
        if isinstance(expression, Text):
            needed.update(slots(value))
        return expression

    return BodyTemplate(body.type, compiled(body.data)), frozenset(names), frozenset(needed)


class _Surface:
    """One `exposes` entry, linked into tools, resources and prompts."""

    def __init__(
        self,
        linker: _Linker,
        document: Document,
        exposes: model.Exposes,
        path: YamlPath,
        operations: Mapping[str, Mapping[str, Operation]],
        flows: Mapping[str, tuple[model.Flow, str, YamlPath]],
    ) -> None:
        self._linker = linker
        self._document = document
        self._exposes = exposes
        self._path = path
        self._operations = operations
        self._flows = flows

    def link(self, tools: dict[str, Tool], resources: dict[str, Resource], prompts: dict[str, Prompt]) -> None:
        toolset = self._exposes.toolset or self._exposes.namespace
        for name, tool in self._exposes.tools.items():
            path = (*self._path, "tools", name)
            if name in tools:
                message = f"the tool {name!r} stands already in {tools[name].file}"
                self._report(path, "unique-tool", message)
            else:
                linked = self._tool(name, tool, toolset, path)
                if linked is not None:
                    tools[name] = linked
        for name, resource in self._exposes.resources.items():
            path = (*self._path, "resources", name)
            if resource.uri in resources:
                self._report((*path, "uri"), "unique-resource", f"the URI {resource.uri!r} stands already")
                continue
            linked_resource = self._resource(name, resource, toolset, path)
            if linked_resource is not None:
                resources[resource.uri] = linked_resource
        for name, prompt in self._exposes.prompts.items():
            path = (*self._path, "prompts", name)
            if name in prompts:
                self._report(path, "unique-prompt", f"the prompt {name!r} stands already")
            prompts[name] = self._prompt(name, prompt, toolset, path)

    def _report(self, path: YamlPath, rule: str, message: str) -> None:
        self._linker.report(self._document, path, rule, message)

    # --- tools --------------------------------------------------------------------------------------------------

    def _tool(self, name: str, tool: model.Tool, toolset: str, path: YamlPath) -> Tool | None:
        body: model.Action = tool
        inputs = tool.inputParameters
        namespace, semantics, description = self._exposes.namespace, model.Semantics(), tool.description
        if tool.ref is not None:
            if tool.ref not in self._flows:
                there = ", ".join(sorted(self._flows)) or "none"
                self._report((*path, "ref"), "unresolved-ref", f"there is no flow {tool.ref!r} (there are: {there})")
                return None
            flow, namespace, path = self._flows[tool.ref]
            body, semantics = flow, flow.semantics
            inputs = {**flow.inputParameters, **inputs}
            description = description or flow.description
        if description is None:
            self._report(path, "required-key", "the key 'description' is missing")
            return None
        scope = _Scope(namespace, inputs)
        linked = self._action(body, scope, path)
        for unused in sorted(set(inputs) - scope.used):
            self._report((*path, "inputParameters", unused), "unused-input", f"the input {unused!r} is used nowhere")
        if linked is None:
            return None
        action, schema = linked
        arguments = [argument(key, parameter) for key, parameter in inputs.items()]
        arguments += self._engine_arguments(action, {one.name for one in arguments}, path)
        more = tool.x_schema
        one = Tool(
            name=name,
            title=tool.display or name,
            description=description,
            toolset=tool.toolset or toolset,
            annotations=_annotations(tool.hints, semantics, action),
            arguments=tuple(arguments),
            input_schema=input_schema(arguments, more),
            output_schema=output_schema(
                action.output,
                schema,
                paged=_paged(action),
                waits=_awaited(action) is not None,
                resolves=any(one.entity for one in arguments),
            ),
            action=action,
            file=str(self._document.file),
        )
        if self._document.fresh:
            self._check_schemas(one, path)
        return one

    def _engine_arguments(self, action: Action, taken: set[str], path: YamlPath) -> tuple[ToolArgument, ...]:
        added: tuple[ToolArgument, ...] = ()
        if _paged(action):
            added += page_arguments()
        wait = _awaited(action)
        if wait is not None:
            added += (wait_argument(wait.default),)
        for one in added:
            if one.name in taken:
                message = f"the engine adds {one.name!r} to this tool: call yours something else"
                self._report((*path, "inputParameters", one.name), "reserved-input", message)
        return added

    def _check_schemas(self, tool: Tool, path: YamlPath) -> None:
        # Only for a file that was not in the cache: what is cached has passed, and the import costs start-up time.
        import jsonschema

        for schema in (tool.input_schema, tool.output_schema):
            try:
                jsonschema.Draft202012Validator.check_schema(schema)
            except jsonschema.SchemaError as error:
                where = "/".join(str(part) for part in error.absolute_path)
                self._report(path, "json-schema", f"the schema that follows is not valid at {where}: {error.message}")
        validator = jsonschema.Draft202012Validator
        for one in tool.arguments:
            if "default" in one.schema and not validator(one.schema).is_valid(one.schema["default"]):
                message = f"the default of {one.name!r} does not fit its own schema"
                self._report((*path, "inputParameters", one.name), "json-schema", message)

    # --- actions ------------------------------------------------------------------------------------------------

    def _action(self, body: model.Action, scope: _Scope, path: YamlPath) -> tuple[Action, JsonSchema] | None:
        try:
            if body.call is not None:
                return self._call(body, scope, path)
            if body.steps:
                return self._steps(body, scope, path)
        except ExpressionError as error:
            self._report(path, "expression", str(error))
            return None
        self._report(path, "required-key", "needs one of `call`, `steps` or `ref`")
        return None

    def _call(self, body: model.Action, scope: _Scope, path: YamlPath) -> tuple[Action, JsonSchema] | None:
        assert body.call is not None
        operation = self._operation(body.call, (*path, "call"))
        if operation is None:
            # The inputs are not the problem; what they fill is missing.
            scope.used.update(scope.inputs)
            return None
        bindings = self._bindings(body.with_, operation, scope, path)
        parameters = body.outputParameters
        if operation.binary and parameters is None:
            return Call(operation, bindings, Output("object")), {"type": "object", "properties": {}}
        if not isinstance(parameters, list) or len(parameters) != 1 or parameters[0].type != "object":
            message = "a tool with `call` has `outputParameters` of exactly one object"
            self._report((*path, "outputParameters"), "output", message)
            return None
        output, schema = mapped_output(parameters[0])
        return Call(operation, bindings, output), schema

    def _steps(self, body: model.Action, scope: _Scope, path: YamlPath) -> tuple[Action, JsonSchema] | None:
        steps: list[Step] = []
        for name, step in body.steps.items():
            here = (*path, "steps", name)
            linked = self._step(name, step, scope, here)
            scope.steps.add(name)
            if linked is not None:
                steps.append(linked)
        mappings = tuple(
            (tuple(mapping.target.split(".")), self._step_value(mapping.value, scope, (*path, "mappings", index)))
            for index, mapping in enumerate(body.mappings)
        )
        if not isinstance(body.outputParameters, dict):
            message = "a tool with `steps` has `outputParameters` as a map"
            self._report((*path, "outputParameters"), "output", message)
            return None
        for index, (target, _) in enumerate(mappings):
            if target[0] not in body.outputParameters:
                message = f"there is no output parameter {target[0]!r}"
                self._report((*path, "mappings", index), "unresolved-target", message)
        output, schema = orchestrated_output(body.outputParameters)
        return Steps(tuple(steps), mappings, output), schema

    def _step(self, name: str, step: model.Step, scope: _Scope, path: YamlPath) -> Step | None:
        require = None
        if step.require is not None:
            wanted = step.require
            require = Requirement(compile_path(wanted.path), wanted.code, wanted.message, wanted.hint)
        when = self._condition(step.when, scope, (*path, "x-when"))
        if isinstance(step, model.LookupStep):
            if step.index not in scope.steps:
                self._report((*path, "index"), "unresolved-step", f"there is no earlier step {step.index!r}")
            value = self._step_value(step.lookupValue, scope, (*path, "lookupValue"))
            fields = tuple(step.outputParameters)
            return LookupStep(name, step.index, step.match, value, fields, require, when)
        operation = self._operation(step.call, (*path, "call"))
        if operation is None:
            return None
        each = self._condition(step.each, scope, (*path, "x-each"))
        if each is not None:
            scope.steps.add("each")
        bindings = self._bindings(step.with_, operation, scope, path)
        scope.steps.discard("each")
        return CallStep(name, operation, bindings, require, when, each)

    def _condition(self, text: str | None, scope: _Scope, path: YamlPath) -> Expression | None:
        return None if text is None else self._step_value(text, scope, path)

    def _step_value(self, text: str, scope: _Scope, path: YamlPath) -> Expression:
        """`$.step.field…`, or `$.input` for the caller's own argument."""
        compiled = compile_path(text)
        if compiled.query is not None or not compiled.parts or not isinstance(compiled.parts[0], str):
            raise ExpressionError(f"{text!r} must begin with `$.` and the name of a step or input")
        first = compiled.parts[0]
        if first in scope.steps:
            return StepValue(first, Path(text, compiled.parts[1:]))
        if first in scope.inputs:
            scope.used.add(first)
            if len(compiled.parts) > 1:
                raise ExpressionError(f"{text!r} looks into the input {first!r}: an input is used whole")
            return Argument(first)
        self._report(path, "unresolved-step", f"there is no earlier step or input {first!r}")
        return Literal(None)

    def _operation(self, reference: str, path: YamlPath) -> Operation | None:
        namespace, _, name = reference.partition(".")
        if namespace not in self._operations:
            there = ", ".join(sorted(self._operations)) or "none"
            message = f"there is no consumed namespace {namespace!r} (there are: {there})"
            self._report(path, "unresolved-call", message)
            return None
        if name not in self._operations[namespace]:
            self._report(path, "unresolved-call", f"the namespace {namespace!r} has no operation {name!r}")
            return None
        return self._operations[namespace][name]

    def _bindings(
        self, with_: model.With, operation: Operation, scope: _Scope, path: YamlPath
    ) -> dict[str, Expression]:
        bindings: dict[str, Expression] = {}
        for key, value in with_.items():
            here = (*path, "with", key)
            if key not in operation.inputs:
                message = f"the operation {operation.key!r} has no input {key!r}"
                self._report(here, "unknown-input", message)
            bindings[key] = self._binding(value, scope, here)
        fixed = {parameter.name for parameter in operation.parameters if parameter.value is not None}
        for missing in sorted(operation.required - set(bindings) - fixed):
            message = f"the slot {missing!r} of {operation.key!r} gets no value: bind it in `with`"
            self._report((*path, "with"), "slot-without-value", message)
        return bindings

    def _binding(self, value: str | float, scope: _Scope, path: YamlPath) -> Expression:
        if not isinstance(value, str):
            return Literal(value)
        namespace, dot, name = value.partition(".")
        if dot and namespace == scope.namespace and is_name(name):
            return self._input(name, scope, path)

        def resolve(slot: str) -> Argument | StepValue | Literal:
            first, _, rest = slot.partition(".")
            if first in scope.steps:
                return StepValue(first, compile_path(f"$.{rest}" if rest else "$"))
            return self._input(slot, scope, path)

        return compile_slots(value, resolve)

    def _input(self, name: str, scope: _Scope, path: YamlPath) -> Argument:
        if name not in scope.inputs:
            there = ", ".join(sorted(scope.inputs)) or "none"
            message = f"there is no input {name!r} (there are: {there})"
            self._report(path, "slot-without-value", message)
        scope.used.add(name)
        return Argument(name)

    # --- resources and prompts ----------------------------------------------------------------------------------

    def _resource(self, name: str, resource: model.Resource, toolset: str, path: YamlPath) -> Resource | None:
        variables = tuple(URI_SLOT.findall(resource.uri))
        scope = _Scope(self._exposes.namespace, frozenset(variables))
        linked = self._action(resource, scope, path)
        for unused in sorted(set(variables) - scope.used):
            self._report((*path, "uri"), "unused-input", f"the variable {unused!r} is used nowhere")
        for entity in sorted(set(resource.entities) - set(variables)):
            self._report((*path, "x-entity"), "x-entity", f"the URI has no variable {entity!r}")
        if linked is None:
            return None
        action, _ = linked
        return Resource(
            name=name,
            title=resource.display,
            uri=resource.uri,
            description=resource.description,
            mime_type=resource.mimeType,
            variables=variables,
            entities=dict(resource.entities),
            action=action,
            toolset=toolset,
        )

    def _prompt(self, name: str, prompt: model.Prompt, toolset: str, path: YamlPath) -> Prompt:
        used = {slot for message in prompt.template for slot in slots(message.content)}
        for unknown in sorted(used - set(prompt.arguments)):
            self._report((*path, "template"), "slot-without-value", f"there is no argument {unknown!r}")
        for unused in sorted(set(prompt.arguments) - used):
            self._report((*path, "arguments", unused), "unused-input", f"the argument {unused!r} is used nowhere")
        return Prompt(
            name=name,
            title=prompt.display,
            description=prompt.description,
            arguments=tuple(
                (key, one.display, one.description, one.required) for key, one in prompt.arguments.items()
            ),
            messages=tuple((message.role, message.content) for message in prompt.template),
            toolset=toolset,
        )


def _operations_of(action: Action) -> tuple[Operation, ...]:
    if isinstance(action, Call):
        return (action.operation,)
    return tuple(step.operation for step in action.steps if isinstance(step, CallStep))


def _paged(action: Action) -> bool:
    """A paged call gives its pages to the caller; inside steps all pages are taken, up to a bound."""
    return isinstance(action, Call) and action.operation.page is not None


def _awaited(action: Action) -> WaitPlan | None:
    return next((one.wait for one in reversed(_operations_of(action)) if one.wait is not None), None)


def _annotations(hints: model.Hints, semantics: model.Semantics, action: Action) -> Annotations:
    """The tool's hints, else the flow's semantics, else what the methods of its requests mean."""
    methods = {operation.method for operation in _operations_of(action)}

    def first(*values: bool | None) -> bool:
        return next(value for value in values if value is not None)

    read_only = first(hints.readOnly, semantics.safe, methods == {"GET"})
    return Annotations(
        read_only=read_only,
        destructive=first(hints.destructive, "DELETE" in methods and not read_only),
        idempotent=first(hints.idempotent, semantics.idempotent, methods <= {"GET", "PUT", "DELETE"}),
        open_world=first(hints.openWorld, True),
    )
