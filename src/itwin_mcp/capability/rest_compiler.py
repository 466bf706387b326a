"""Compiler of `exposes` entries of type `rest`: each operation becomes a tool that only HTTP clients reach."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from itwin_mcp.capability import schema
from itwin_mcp.capability.action_compiler import ActionCompiler
from itwin_mcp.capability.documents import Place
from itwin_mcp.capability.entities import Entities
from itwin_mcp.capability.expressions import find_slots
from itwin_mcp.capability.flow_schema import ActionSpec, ToolInput
from itwin_mcp.capability.operations import PathTemplate, Slot
from itwin_mcp.capability.rest_schema import ExposesRest, RestInput, RestOperationSpec, RestResource
from itwin_mcp.capability.routes import InputPlace, Route, RouteResponse
from itwin_mcp.capability.tool_actions import Call, list_called_operations
from itwin_mcp.capability.tool_compiler import ExposesCompiler, PlacedFlow
from itwin_mcp.errors import Problem

OPENAPI = "openapi.json"
"""The last part of the path of a namespace's OpenAPI document."""
_PROTECTED_HEADERS = frozenset(
    {
        "authorization", "connection", "content-length", "content-type", "cookie", "host", "keep-alive", "origin",
        "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
"""Headers that carry credentials or belong to one connection. No input may be read from them."""
_BYTES = {"type": "string", "format": "binary"}
_SLOT = re.compile(r"\{\{\s*([a-zA-Z0-9_*-]+)\s*\}\}|\{([a-zA-Z0-9_*-]+)\}")


class RestCompiler:
    """Compiles one entry of type `rest`; problems are reported at its place."""

    def __init__(
        self,
        exposes: ExposesRest,
        actions: ActionCompiler,
        flows: Mapping[str, PlacedFlow],
        entities: Entities,
        place: Place,
    ) -> None:
        self._exposes = exposes
        self._actions = actions
        self._flows = flows
        self._place = place
        # The tools of MCP and of REST are compiled by the same code, so that a call passes the same checks.
        as_mcp = schema.Exposes.model_construct(type="mcp", namespace=exposes.namespace, toolset=None, tools={})
        self._tools = ExposesCompiler(as_mcp, actions, flows, entities, place)
        self._taken: set[tuple[str, str]] = set()
        self._names: set[str] = set()

    @property
    def warnings(self) -> list[Problem]:
        """Notes for the author of a file that breaks no rule."""
        return self._tools.warnings

    def compile_routes(self) -> Iterable[Route]:
        """Yield the routes of this entry."""
        for name, resource in self._exposes.resources.items():
            here = self._place.at("resources", name)
            template = self._compile_path(resource, here.at("path"))
            if resource.forward is not None:
                message = "`forward` is not served: declare the operations, each with `call`"
                self._warn("not-served", message, here.at("forward"))
            for key, operation in resource.operations.items():
                route = self._compile_operation(key, operation, resource, template, here.at("operations", key))
                if route is not None:
                    yield route

    def _compile_path(self, resource: RestResource, place: Place) -> PathTemplate:
        path = resource.path.removeprefix("/").removesuffix("/")
        if re.search(r"[?#\\\s]", path) or any(segment in (".", "..") for segment in path.split("/")):
            place.report("path", f"{resource.path[:80]!r} is not a path: write /ships/{{{{imo}}}}")
        template = tuple(_split_segment(segment) for segment in path.split("/")) if path else ()
        if template == ((OPENAPI,),):
            place.report("path", f"/{OPENAPI} is the path of the OpenAPI document: use another one")
        slots = [part.name for segment in template for part in segment if isinstance(part, Slot)]
        if len(set(slots)) < len(slots):
            place.report("path", "names a slot twice: rename one")
        return template

    def _compile_operation(
        self, name: str, spec: RestOperationSpec, resource: RestResource, template: PathTemplate, place: Place
    ) -> Route | None:
        if name in self._names:
            place.report("unique-operation", f"the operation {name!r} is already defined in this entry: rename one")
        self._names.add(name)
        shape = "/".join("".join("{}" if isinstance(part, Slot) else part for part in segment) for segment in template)
        if (spec.method, shape) in self._taken:
            place.report("unique-operation", f"{spec.method} of this path is already defined: remove one")
        self._taken.add((spec.method, shape))
        inputs = {**resource.inputParameters, **spec.inputParameters}
        self._check_inputs(inputs, template, place)
        in_path = [part.name for segment in template for part in segment if isinstance(part, Slot)]
        slots = {slot: RestInput.model_validate(_make_slot_input(slot)) for slot in in_path if slot not in inputs}
        places: dict[str, InputPlace] = {key: part.in_ for key, part in {**inputs, **slots}.items()}
        tool = self._compile_tool(name, spec, resource, {**inputs, **slots}, place)
        if tool is None:
            return None
        if spec.method == "GET" and not tool.annotations.read_only:
            operation = next(each for each in list_called_operations(tool.action) if each.method != "GET")
            message = f"a GET should only read, but {operation.key!r} is a {operation.method}: use another method"
            self._warn("rest-method", message, place.at("method"))
        binary = isinstance(tool.action, Call) and tool.action.operation.binary
        short = spec.responseBinary
        declares_bytes = short is not None or any(
            content.binary for response in spec.responses.values() for content in response.content.values()
        )
        if declares_bytes and not binary:
            message = "declares a binary response, which needs a `call` whose operation has `outputRawFormat: binary`"
            place.at("responseBinary" if short is not None else "responses").report("response", message)
        return Route(
            namespace=self._exposes.namespace,
            name=name,
            method=spec.method,
            path=template,
            tool=tool,
            places=places,
            fixed={key: part.value for key, part in inputs.items() if part.value is not None},
            status=short.status if short is not None else _find_status(spec),
            media_type=short.mediaType if short is not None else _find_binary_type(spec),
            responses=_compile_responses(spec),
            tags=(*resource.tags, *spec.tags),
        )

    def _compile_tool(
        self, name: str, spec: RestOperationSpec, resource: RestResource, inputs: Mapping[str, RestInput], place: Place
    ) -> Any:
        flow = self._flows.get(spec.ref) if spec.ref is not None else None
        required = self._find_required(spec)
        parameters: dict[str, ToolInput] = {}
        for key, part in inputs.items():
            inherited = flow.flow.inputParameters.get(key) if flow is not None else None
            always = part.in_ == "path" or part.value is not None or key in required
            declared = {
                "type": part.type,
                "description": part.description,
                "required": always or (inherited is not None and inherited.required),
                **({} if part.pattern is None else {"x-schema": {"pattern": part.pattern}}),
            }
            parameters[key] = ToolInput.model_validate(declared)
        described = spec.description or resource.description or spec.display or resource.display
        if flow is None and described is None:
            described = f"{spec.method} {resource.path}"
        action = {key: getattr(spec, key) for key in ActionSpec.model_fields}
        as_tool = schema.ToolSpec.model_construct(
            **action, display=spec.display, description=described, ref=spec.ref, inputParameters=parameters
        )
        tool = self._tools.compile_tool(name, as_tool, place)
        return None if tool is None else replace(tool, name=f"{self._exposes.namespace}.{name}")

    def _find_required(self, spec: RestOperationSpec) -> set[str]:
        """Return the inputs without which no request can be built. The format has no word for a required input."""
        namespace, _, called = (spec.call or "").partition(".")
        operations = self._actions.operations.get(namespace) or {}
        operation = operations.get(called)
        if operation is None:
            return set()
        values = [str(value) for key, value in spec.with_.items() if key in operation.required]
        prefix = f"{self._exposes.namespace}."
        direct = {value.removeprefix(prefix) for value in values if value.startswith(prefix)}
        return direct | {slot for value in values for slot in find_slots(value)}

    def _check_inputs(self, inputs: Mapping[str, RestInput], template: PathTemplate, place: Place) -> None:
        slots = {part.name for segment in template for part in segment if isinstance(part, Slot)}
        for key, part in inputs.items():
            here = place.at("inputParameters", key)
            if part.in_ == "header" and key.lower() in _PROTECTED_HEADERS:
                here.report("header", f"the header {key!r} is never read as an input: use another name")
            if part.in_ == "path" and key not in slots:
                here.report("unused-input", f"the path has no slot {{{{{key}}}}}: add it, or remove the input")
            if part.in_ != "path" and key in slots:
                here.at("in").report("unused-input", f"fills a slot of the path: write `in: path`, not {part.in_!r}")
            if part.value is not None and "{{" in part.value:
                message = "`value` must be a constant: a caller sends everything else"
                here.at("value").report("not-served", message)

    def _warn(self, rule: str, message: str, place: Place) -> None:
        self.warnings.append(place.document.make_problem(place.path, rule, message))


def _split_segment(segment: str) -> tuple[str | Slot, ...]:
    return tuple(_split_parts(segment))


def _split_parts(segment: str) -> Iterator[str | Slot]:
    end = 0
    for found in _SLOT.finditer(segment):
        if found.start() > end:
            yield segment[end : found.start()]
        yield Slot(found[1] or found[2])
        end = found.end()
    if end < len(segment):
        yield segment[end:]


def _make_slot_input(name: str) -> dict[str, str]:
    return {"in": "path", "type": "string", "description": f"The part {name} of the path."}


def _find_status(spec: RestOperationSpec) -> int:
    """Return the status of a success: the first that the file declares, or 200."""
    return next((int(code) for code in spec.responses if code.startswith("2") and code.isdigit()), 200)


def _find_binary_type(spec: RestOperationSpec) -> str | None:
    types = (
        media_type
        for code, response in spec.responses.items()
        if code.startswith("2")
        for media_type, content in response.content.items()
        if content.binary
    )
    return next(types, None)


def _compile_responses(spec: RestOperationSpec) -> Mapping[str, RouteResponse]:
    if spec.responseBinary is not None:
        short = spec.responseBinary
        return {str(short.status): RouteResponse(short.description, {short.mediaType: dict(_BYTES)})}
    return {
        code: RouteResponse(
            response.description,
            {
                media_type: dict(_BYTES) if content.binary else dict(content.schema_ or {})
                for media_type, content in response.content.items()
            },
        )
        for code, response in spec.responses.items()
    }
