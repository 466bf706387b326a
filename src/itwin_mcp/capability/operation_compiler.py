"""Compiler of `consumes` entries: paths, parameters, bodies, credentials and paging of operations."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from itwin_mcp.capability.body_templates import TYPED, parse_json_template
from itwin_mcp.capability.documents import Place
from itwin_mcp.capability.expressions import (
    Argument,
    Expression,
    JsonPath,
    Literal,
    Text,
    find_slots,
)
from itwin_mcp.capability.extensions import MemberCode
from itwin_mcp.capability.follow_ups import compile_refusal, compile_wait
from itwin_mcp.capability.operations import (
    BodyTemplate,
    Code,
    Credential,
    FilePlan,
    NamesPlan,
    Operation,
    PagePlan,
    PathTemplate,
    Slot,
    WireParameter,
    list_arguments,
    list_path_slots,
)
from itwin_mcp.capability.parameters import FILE_PATH
from itwin_mcp.capability.schema import (
    ApiKeyAuthentication,
    Authentication,
    ConsumedOperation,
    ConsumedParameter,
    Consumes,
    JsonRequestBody,
    RequestBody,
)
from itwin_mcp.settings import PLATFORM_ORIGIN
from itwin_mcp.text import shorten

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Only the HTTP client may set these headers.
_CLIENT_HEADERS = frozenset({"authorization", "connection", "content-length", "host", "transfer-encoding"})
_DEFAULT_PORTS = {"http": 80, "https": 443}


class ApiCompiler:
    """Compiles one HTTP API that a file consumes; problems are reported at its place.

    `binds` maps variables of the file to environment variables. With None, unbound variables are allowed, because the
    importing file may bind them.
    """

    def __init__(self, consumes: Consumes, binds: Mapping[str, str] | None, place: Place) -> None:
        self._consumes = consumes
        self._place = place
        self._origin, self._base = self._split_base(consumes.baseUri)
        self._binds = binds
        self._credential = self._compile_credential(consumes.authentication, binds)

    def compile_operations(self) -> dict[str, Operation]:
        """Return the operations by name, including those with problems."""
        compiled: dict[str, Operation] = {}
        declared: list[tuple[str, ConsumedOperation, Place]] = []
        for resource_name, resource in self._consumes.resources.items():
            resource_place = self._place.at("resources", resource_name)
            template = self._compile_path(resource.path, resource_place.at("path"))
            for name, operation in resource.operations.items():
                place = resource_place.at("operations", name)
                if name in compiled:
                    message = f"the operation {name!r} is defined twice in the namespace {self._consumes.namespace!r}"
                    place.report("unique-operation", f"{message}: rename one")
                compiled[name] = self._compile_operation(name, operation, template, place)
                declared.append((name, operation, place))
        plain = dict(compiled)  # plans refer to operations without plans, so an operation cannot refer to itself
        for name, operation, place in declared:
            if operation.wait is not None:
                wait = compile_wait(plain, name, operation.wait, place.at("x-wait"))
                compiled[name] = replace(compiled[name], wait=wait)
            if operation.refused:
                here = place.at("x-refused")
                refusals = {
                    code: compile_refusal(plain, name, refusal, here.at(code))
                    for code, refusal in operation.refused.items()
                }
                compiled[name] = replace(compiled[name], refusals=refusals)
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
            place.report("base-uri", "has a `.` or `..` segment: write the path without it")
        host = parts.netloc.lower()
        if port == _DEFAULT_PORTS[parts.scheme]:
            host = host.rpartition(":")[0]
        return f"{parts.scheme}://{host}", parts.path.rstrip("/")

    def _compile_credential(
        self, authentication: Authentication | None, binds: Mapping[str, str] | None
    ) -> Credential | None:
        if authentication is None:
            return None
        place = self._place.at("authentication")
        variables = dict(binds or {})
        parts: dict[str, Expression] = {}
        for key, text in authentication.model_dump(exclude={"type", "placement"}).items():
            expression = place.at(key).compile_slots(text)
            if expression is None:
                continue
            parts[key] = expression
            for name in find_slots(text):
                self._check_variable(name, variables, binds is not None, place.at(key))
        if isinstance(authentication, ApiKeyAuthentication):
            parts["placement"] = Literal(authentication.placement)
        return Credential(authentication.type, parts, variables)

    def _check_variable(self, name: str, binds: Mapping[str, str], complete: bool, place: Place) -> None:
        if name not in binds:
            if complete:
                message = f"{{{{{name}}}}} is not bound: add it to `binds`, here or in the file that imports this one"
                place.report("slot-without-value", message)
            return
        variable = binds[name]
        if self._origin != PLATFORM_ORIGIN and variable.upper().startswith(("ITWIN_", "ITP_")):
            message = f"{variable} holds a credential for {PLATFORM_ORIGIN} and is never sent to {self._origin}"
            place.report("platform-token", f"{message}: bind another variable")

    def _compile_operation(
        self, name: str, operation: ConsumedOperation, template: PathTemplate, place: Place
    ) -> Operation:
        parameters = {**self._consumes.inputParameters, **operation.inputParameters}
        in_path = set(list_path_slots(template))
        # The format lets a path have slots that no parameter declares.
        parameters = {**{slot: ConsumedParameter.model_validate({"in": "path"}) for slot in in_path}, **parameters}
        declared = {key for key, parameter in parameters.items() if parameter.in_ == "path"}
        for other in sorted(in_path - declared):
            message = f"the slot {{{{{other}}}}} of the path is declared as an input elsewhere: declare it {{in: path}}"
            place.at("inputParameters", other).report("slot-without-value", message)
        for surplus in sorted(declared & set(operation.inputParameters) - in_path):
            message = f"the path has no slot {{{{{surplus}}}}}: remove the parameter, or add the slot"
            place.at("inputParameters", surplus).warn("unused-input", message)
        compiled, in_values = self._compile_parameters(operation, parameters, in_path, place)
        bound = tuple(parameter for parameter in compiled if self._list_bound(parameter))
        wire = tuple(parameter for parameter in compiled if parameter not in bound)
        variables = {name: (self._binds or {})[name] for parameter in bound for name in self._list_bound(parameter)}
        body, in_body, needed = _compile_body(operation.body, place.at("body", "data"))
        file = self._compile_file(operation, in_values | in_body | set(parameters), place)
        if operation.wait is not None and operation.page is not None:
            place.at("x-wait").report(
                "x-wait", "an operation cannot both page and start a job: remove x-page or x-wait"
            )
        outputs = {
            key: place.at("outputParameters", key, "value").compile_path(output.value)
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
            page=self._compile_page(operation, frozenset(parameters), place.at("x-page")),
            wait=None,
            doc=operation.doc,
            permission=operation.permission,
            file=file,
            codes={key: _compile_code(code) for key, code in {**self._consumes.codes, **operation.codes}.items()},
            names=self._compile_names(operation, frozenset(parameters) | in_body, place),
            raw_format=operation.outputRawFormat,
            bound=bound,
            variables=variables,
        )

    def _compile_names(self, operation: ConsumedOperation, inputs: frozenset[str], place: Place) -> NamesPlan | None:
        names = operation.names
        if names is None:
            return None
        here = place.at("x-names")
        if operation.method not in ("GET", "POST") or operation.page is not None or operation.wait is not None:
            here.report("x-names", "needs a GET or POST that neither pages nor starts a job")
        here.at("ids").check_known(names.ids, inputs, "x-names", "the operation has no input")
        items = here.at("items").compile_path(names.items)
        texts = [here.at("texts", index).compile_slots(text) for index, text in enumerate(names.texts)]
        pattern = None if names.pattern is None else here.at("pattern").compile_pattern(names.pattern, "x-names")
        if items is None:
            return None
        compiled_texts = tuple(text for text in texts if text is not None)
        return NamesPlan(names.ids, pattern, names.most, items, names.id, compiled_texts)

    def _compile_file(self, operation: ConsumedOperation, inputs: Collection[str], place: Place) -> FilePlan | None:
        """Compile `x-body`: the body is a local file, which the engine takes from its argument `filePath`."""
        plan = operation.file
        if plan is None:
            return None
        here = place.at("x-body")
        if operation.body is not None:
            here.report("x-body", "has both x-body and `body`: remove one")
        if operation.method in ("GET", "DELETE"):
            here.report("x-body", f"a {operation.method} has no body: remove x-body")
        if FILE_PATH in inputs:
            here.report("x-body", f"the engine adds the input {FILE_PATH!r}: use another name for yours")
        return FilePlan(dict(plan.types), plan.most)

    def _compile_parameters(
        self,
        operation: ConsumedOperation,
        parameters: Mapping[str, ConsumedParameter],
        in_path: set[str],
        place: Place,
    ) -> tuple[tuple[WireParameter, ...], frozenset[str]]:
        """Compile the parameters of an operation. Return them, and the names of the inputs in their values."""
        compiled: list[WireParameter] = []
        names: set[str] = set()
        sent_as: dict[tuple[str, str], str] = {}
        for key, parameter in parameters.items():
            if parameter.in_ == "path" and key not in in_path:
                continue
            here = (place if key in operation.inputParameters else self._place).at("inputParameters", key)
            value = None
            if parameter.value is not None:
                slots = find_slots(parameter.value)
                value = here.at("value").compile_slots(parameter.value)
                if isinstance(value, Text) and key in slots:
                    message = f"the value has a slot {{{{{key}}}}} with the name of its own parameter: rename the slot"
                    here.at("value").report("expression", message)
                bound = set(slots) & (self._binds or {}).keys()
                if bound and (bound != set(slots) or parameter.in_ == "path"):
                    message = f"{sorted(bound)[0]} is bound: it may be a query parameter or header, without an input"
                    here.at("value").report("expression", message)
                for name in bound:
                    self._check_variable(name, self._binds or {}, True, here.at("value"))
                names.update(set(slots) - bound)
            wire = parameter.wire or key
            self._check_wire_name(parameter, wire, here)
            place_on_wire = (parameter.in_, wire.lower() if parameter.in_ == "header" else wire)
            other = sent_as.setdefault(place_on_wire, key)
            if other != key:
                here.report("unique-wire", f"{other!r} is also sent as the {parameter.in_} {wire!r}: remove one")
            compiled.append(WireParameter(key, parameter.in_, wire, value))
        return tuple(compiled), frozenset(names)

    def _list_bound(self, parameter: WireParameter) -> list[str]:
        """Return the bound variables in the value of a parameter."""
        names = () if parameter.value is None else list_arguments(parameter.value)
        return [name for name in names if name in (self._binds or {})]

    def _check_wire_name(self, parameter: ConsumedParameter, wire: str, place: Place) -> None:
        if parameter.wire is not None and parameter.in_ == "path":
            place.at("x-wire").report("x-wire", "does not apply to a path parameter: remove x-wire")
        if not wire:
            place.at("x-wire").report("x-wire", "must not be empty")
        elif parameter.in_ == "header":
            if not _HEADER_NAME.fullmatch(wire):
                place.report("header", f"{wire[:80]!r} is not a valid header name")
            elif wire.lower() in _CLIENT_HEADERS:
                place.report(
                    "header", f"the header {wire!r} is set by the HTTP client: remove it, or use `authentication`"
                )

    def _compile_path(self, text: str, place: Place) -> PathTemplate:
        segments: list[tuple[str | Slot, ...]] = []
        for segment in (self._base + "/" + text.removeprefix("/")).split("/")[1:]:
            if segment in (".", ".."):
                place.report("path", "has a `.` or `..` segment: write the path without it")
            compiled = place.compile_slots(segment)
            parts: tuple[Any, ...] = compiled.parts if isinstance(compiled, Text) else (compiled,)
            segments.append(tuple(_compile_segment_part(part) for part in parts))
        return tuple(segments)

    def _compile_page(self, operation: ConsumedOperation, inputs: frozenset[str], place: Place) -> PagePlan | None:
        page = operation.page
        if page is None:
            return None
        if operation.method != "GET":
            place.report("x-page", f"only a GET pages, not a {operation.method}")
        for role, name in (("size", page.size), ("skip", page.skip), ("token", page.token)):
            if name is not None:
                place.at(role).check_known(name, inputs, "x-page", "the operation has no input parameter")

        def compile_optional(role: str, text: str | None) -> JsonPath | None:
            return None if text is None else place.at(role).compile_path(text)

        items = place.at("items").compile_path(page.items)
        if items is None:
            return None
        if items.many:
            place.at("items").report("x-page", f"{page.items!r} is not the path of one list, such as $.iModels or $")
        return PagePlan(
            style=page.style,
            items=items,
            next=compile_optional("next", page.next),
            size=page.size,
            most=page.most,
            skip=page.skip,
            token=page.token,
            count=compile_optional("count", page.count),
            within=page.within,
            counts=compile_optional("counts", page.counts),
        )


def _compile_code(code: MemberCode) -> Code:
    if code.bits is not None:
        return Code("bits", dict(code.bits))
    if code.words is not None:
        return Code("words", dict(code.words))
    return Code("json", detail=code.other) if code.other is not None else Code("joined", detail=code.joined or "")


def _compile_segment_part(part: Any) -> str | Slot:
    if isinstance(part, Argument):
        return Slot(part.name)
    return str(part.value) if isinstance(part, Literal) else str(part)


def _compile_body(body: RequestBody | None, place: Place) -> tuple[BodyTemplate | None, frozenset[str], frozenset[str]]:
    """Return the compiled body, the names of all its slots, and the names of the slots that need a value."""
    if body is None:
        return None, frozenset(), frozenset()
    names: set[str] = set()
    needed: set[str] = set()
    data: Any = body.data
    template = isinstance(body, JsonRequestBody) and isinstance(data, str)
    if template:
        try:
            data = parse_json_template(data)
        except ValueError as error:
            template = False
            if data.lstrip().startswith(("{", "[")):
                message = f"is not JSON with slots: {shorten(str(error))}. Write it as values, or use `type: text`"
                place.report("body", message)

    def compile_part(value: Any, here: Place) -> Any:
        if isinstance(value, dict):
            return {key: compile_part(child, here.at(key)) for key, child in value.items()}
        if isinstance(value, list):
            return [compile_part(child, here.at(index)) for index, child in enumerate(value)]
        if not isinstance(value, str):
            return Literal(value)
        if template and value.startswith(TYPED):
            names.update(find_slots(value))
            return here.compile_slots(value.removeprefix(TYPED)) or Literal(value)
        expression = here.compile_slots(value)
        if template and isinstance(expression, Argument):  # in quotes, so it is text
            names.add(expression.name)
            return Text((expression,))
        if expression is None:
            return Literal(value)
        names.update(find_slots(value))
        if isinstance(expression, Text):  # text with a missing slot has no value
            needed.update(find_slots(value))
        return expression

    return BodyTemplate(body.type, compile_part(data, place)), frozenset(names), frozenset(needed)
