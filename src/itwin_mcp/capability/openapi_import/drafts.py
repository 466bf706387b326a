"""One operation on its way into a capability file: its inputs, arguments, body and answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from itwin_mcp.capability.answer_schema import RESERVED_OUTPUTS
from itwin_mcp.capability.openapi_import.definition import (
    ApiOperation,
    Definition,
    Parameter,
    as_list,
    as_map,
    as_text,
)
from itwin_mcp.capability.openapi_import.page_patterns import PageGuess
from itwin_mcp.capability.openapi_import.schemas import Note, SchemaReader, Shape, prefix_note
from itwin_mcp.capability.openapi_import.wording import describe, make_input_name, make_unique

_ENDINGS = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/gif": ".gif",
    "image/webp": ".webp",
    "image/tiff": ".tif",
    "application/pdf": ".pdf",
    "application/zip": ".zip",
    "application/gzip": ".gz",
    "application/octet-stream": ".bin",
}
_MAX_UPLOAD = 10 * 1024 * 1024
_CLIENT_HEADERS = frozenset({"connection", "content-length", "host", "transfer-encoding"})
_MEDIA_TYPE = re.compile(r"[\w.*+-]+/[\w.*+-]+(?:\s*;[^{}]*)?", re.ASCII)
_FULL = "return=representation"
"""The header `Prefer` that asks for whole items, where an API would return a part of them."""
_DONE = {"delete": "deleted", "put": "updated", "patch": "updated", "post": "done", "get": "done"}


class NotExpressible(Exception):
    """A capability file cannot say what this operation needs; the text says why."""


@dataclass(slots=True)
class Draft:
    """One operation. `bindings` has, for each input of the operation, the argument of the tool that fills it."""

    operation: ApiOperation
    name: str
    tool: str
    path: str
    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    parameters: dict[str, Parameter] = field(default_factory=dict)
    arguments: dict[str, dict[str, Any]] = field(default_factory=dict)
    bindings: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] | None = None
    file: dict[str, Any] | None = None
    status: str = ""
    response: Mapping[str, Any] = field(default_factory=dict)
    answer: Shape | None = None
    """The shape of the JSON that a success returns; None if it returns nothing."""
    output: dict[str, Any] = field(default_factory=dict)
    page: PageGuess | None = None
    wait: dict[str, Any] | None = None
    needs_bearer: bool = False
    """Whether the definition has a header `Authorization`, where others have a security scheme."""
    comments: list[str] = field(default_factory=list)
    """Guesses that the author must review."""

    def drop_argument(self, name: str) -> None:
        """Remove what the engine fills itself: the argument, and its binding to an input."""
        argument = self.bindings.pop(name, None)
        if argument is not None:
            del self.arguments[argument]

    def rename_argument(self, old: str, new: str) -> None:
        """Rename an argument in its place."""
        new = make_unique(new, self.arguments.keys() - {old})
        self.arguments = {new if name == old else name: value for name, value in self.arguments.items()}
        self.bindings = {key: new if name == old else name for key, name in self.bindings.items()}


class DraftReader:
    """Reads the operations of one definition as drafts."""

    def __init__(self, definition: Definition, report: Callable[[str, str], None]) -> None:
        self._definition = definition
        self._report = report
        self._sent = SchemaReader(definition, writes=True)
        self.received = SchemaReader(definition, writes=False)

    def read(self, operation: ApiOperation, name: str, tool: str) -> Draft:
        """Return the draft of an operation. Reports the parts that it leaves out.

        Raises:
            NotExpressible: The operation cannot be called as the definition says.
        """

        def note(text: str) -> None:
            self._report(operation.label, text)

        draft = Draft(operation, name, tool, operation.path)
        if operation.node.get("callbacks"):
            note("its callbacks are not received")
        if operation.node.get("servers"):
            note("its own server is not used: it is called at the server of the whole definition")
        for parameter in operation.parameters:
            self._add_parameter(draft, parameter, prefix_note(note, f"the parameter {parameter.name}"))
        for slot in re.findall(r"\{([^{}]*)\}", draft.path.replace("{{", "").replace("}}", "")):
            self._add_slot(draft, slot, None)
        self._read_answer(draft, note)
        self._read_body(draft, note)
        return draft

    # --- parameters ---------------------------------------------------------------------------------------------

    def _add_parameter(self, draft: Draft, parameter: Parameter, note: Note) -> None:
        lower = parameter.name.lower()
        if parameter.place == "path":
            if f"{{{parameter.name}}}" in draft.path:
                self._add_slot(draft, parameter.name, parameter)
            return
        if parameter.place == "header" and lower in ("accept", "content-type", "authorization"):
            draft.needs_bearer |= lower == "authorization"
            value = _find_fixed_value(parameter) if lower == "accept" else None
            if value is not None:
                draft.inputs["Accept"] = {"in": "header", "value": value}
            return
        if lower == "prefer" and _FULL in f"{parameter.schema} {parameter.description}":
            draft.inputs["Prefer"] = {"in": "header", "value": _FULL}
            return
        problem = _find_parameter_problem(parameter)
        if problem is not None:
            if parameter.required:
                raise NotExpressible(f"its required parameter {parameter.name!r} {problem}")
            note(f"is left out: it {problem}")
            return
        name = make_unique(make_input_name(parameter.name), draft.inputs)
        wire = {} if name == parameter.name else {"x-wire": parameter.name}
        draft.inputs[name] = {"in": parameter.place, **wire}
        draft.parameters[name] = parameter
        shape = self._sent.read(parameter.schema, note)
        if shape.type == "array" and parameter.explode and parameter.place == "query":
            note("takes one value per call: the API expects one parameter per value, and lists are sent with commas")
            shape = self._sent.read(shape.schema.get("items"), note, shape.trail)
        self._add_argument(draft, name, shape, parameter.required, parameter.description, note)

    def _add_slot(self, draft: Draft, slot: str, parameter: Parameter | None) -> None:
        name = make_unique(make_input_name(slot), draft.inputs)
        draft.path = draft.path.replace(f"{{{slot}}}", f"{{{{{name}}}}}")
        draft.inputs[name] = {"in": "path"}
        if parameter is not None:
            draft.parameters[name] = parameter
        note = prefix_note(lambda text: self._report(draft.operation.label, text), f"the parameter {slot}")
        shape = self._sent.read({} if parameter is None else parameter.schema, note)
        if shape.type not in ("string", "integer", "number"):
            shape = Shape("string", False, {}, shape.trail)
        self._add_argument(draft, name, shape, True, "" if parameter is None else parameter.description, note)

    def _add_argument(
        self, draft: Draft, name: str, shape: Shape, required: bool, description: str, note: Note, *, body: bool = False
    ) -> str:
        fragment = self._sent.build_fragment(shape, note)
        kind = fragment.pop("type")
        own = fragment.pop("description", "")
        text = f"{describe(description, '', 160)} {own}".strip() if description and description not in own else own
        words = re.sub(r"(?<=[a-z])(?=[A-Z])|[-_]+", " ", name).strip().replace(" Id", " id")
        argument: dict[str, Any] = {"type": kind}
        if not required:
            argument["required"] = False
        argument["description"] = text or f"{words[:1].upper()}{words[1:]}."
        # Null can remove a value only where an update takes it.
        if shape.nullable and body and not required and draft.operation.method in ("patch", "put"):
            fragment = {"type": [kind, "null"], **fragment}
            fragment |= {"enum": [*fragment["enum"], None]} if "enum" in fragment else {}
        if fragment:
            argument["x-schema"] = fragment
        called = make_unique(f"body-{name}" if body and name in draft.arguments else name, draft.arguments)
        draft.arguments[called] = argument
        draft.bindings[make_unique(name, draft.bindings) if body else name] = called
        return called

    # --- the body -----------------------------------------------------------------------------------------------

    def _read_body(self, draft: Draft, note: Note) -> None:
        request = self._definition.resolve(draft.operation.node.get("requestBody"))
        contents = as_map(request.get("content"))
        if not contents:
            return
        media_type = _choose_media_type(contents)
        schema = as_map(contents[media_type]).get("schema")
        plain = media_type.partition(";")[0].strip().lower()
        shape = self._sent.read(schema, note)
        if draft.operation.method == "get":
            if shape.schema:
                note("the body is not sent: a GET has none")
        elif is_json(plain):
            self._add_json_body(draft, plain, shape, request.get("required") is True, note)
        elif plain == "application/x-www-form-urlencoded" and shape.type == "object":
            draft.body = {"type": "formUrlEncoded", "data": self._add_members(draft, shape, note)}
        elif plain == "text/plain":
            self._add_argument(draft, "body", shape, True, as_text(request.get("description")), note, body=True)
            draft.body = {"type": "text", "data": "{{body}}"}
        elif plain in _ENDINGS and draft.operation.method != "delete":
            ending = _ENDINGS[plain]
            draft.file = {"types": {ending: plain}, "most": _MAX_UPLOAD}
            draft.comments.append(f"Uploads a local file {ending} of at most 10 MiB.")
        else:
            raise NotExpressible(f"its body is {media_type}, which is not supported")
        others = [name for name in contents if name != media_type]
        if others:
            note(f"the body is sent as {media_type}, and never as {' or '.join(others)}")

    def _add_json_body(self, draft: Draft, media_type: str, shape: Shape, required: bool, note: Note) -> None:
        properties = self._list_members(shape)
        if not properties and not shape.schema and not required:
            return  # a body without a schema, which some generators write for every operation
        if media_type != "application/json":
            draft.inputs["Content-Type"] = {"in": "header", "value": media_type}
        if properties and shape.type == "object":
            draft.body = {"type": "json", "data": self._add_members(draft, shape, note)}
            return
        known = shape if shape.type is not None else Shape("object", False, {}, shape.trail)
        fragment_shape = Shape(known.type, False, known.schema, known.trail)
        name = self._add_argument(draft, "body", fragment_shape, True, "The whole body.", note, body=True)
        draft.body = {"type": "json", "data": f"{{{{{_find_input(draft, name)}}}}}"}

    def _add_members(self, draft: Draft, shape: Shape, note: Note) -> dict[str, str]:
        """Add an argument for each member of a body, and return its template."""
        required = as_list(shape.schema.get("required"))
        data: dict[str, str] = {}
        others = shape.schema.get("additionalProperties")
        if isinstance(others, dict) and others:
            note("the body accepts further members: only those that are named can be sent")
        for member, child in self._list_members(shape).items():
            inner_note = prefix_note(note, f"the body's {member}")
            inner = self._sent.read(child, inner_note, shape.trail)
            called = self._add_argument(
                draft, make_input_name(member), inner, member in required, "", inner_note, body=True
            )
            data[member] = f"{{{{{_find_input(draft, called)}}}}}"
        return data

    def _list_members(self, shape: Shape) -> Mapping[str, Any]:
        """Return the members of a body. Links are only received, although few definitions say so."""
        return {name: child for name, child in self._sent.list_properties(shape).items() if name != "_links"}

    # --- the answer ---------------------------------------------------------------------------------------------

    def _read_answer(self, draft: Draft, note: Note) -> None:
        responses = as_map(draft.operation.node.get("responses"))
        statuses = [status for status in sorted(responses) if status[:1] == "2"]
        if not statuses and any(status[:1] == "3" for status in responses):
            raise NotExpressible("it answers with a redirect, which is not followed")
        draft.status = statuses[0] if statuses else "default"
        draft.response = self._definition.resolve(responses.get(draft.status))
        contents = as_map(draft.response.get("content"))
        if not contents:
            draft.output = {"type": "object", "properties": {_DONE[draft.operation.method]: _TRUE}}
            return
        media_type = _choose_media_type(contents)
        if not is_json(media_type.partition(";")[0].strip().lower()):
            raise NotExpressible(f"it answers {media_type}, which is not supported")
        shape = self.received.read(as_map(contents[media_type]).get("schema"), note)
        if shape.type not in ("object", None):
            draft.output = self.received.build_output(shape, "$", prefix_note(note, "the answer"))
            draft.answer = shape
            return
        if shape.type is None:
            note("the answer has no schema: it is returned as it is, and must be an object")
        draft.answer = shape if shape.type == "object" else Shape("object", False, {}, shape.trail)
        draft.output = self.received.build_output(draft.answer, None, prefix_note(note, "the answer"))
        _keep_names_free(draft.output, note)


_TRUE = {"type": "boolean", "value": "true"}


def is_json(media_type: str) -> bool:
    if not _MEDIA_TYPE.fullmatch(media_type):
        return False
    return media_type in ("application/json", "text/json", "*/*") or media_type.endswith("+json")


def _keep_names_free(output: dict[str, Any], note: Note) -> None:
    """Rename the outputs that are named like members which the engine adds to every answer."""
    properties = output["properties"]
    for name in sorted(RESERVED_OUTPUTS & properties.keys()):
        note(f"the answer's member {name!r} is returned as '{name}Data': the engine uses the name {name!r}")
    output["properties"] = {
        f"{name}Data" if name in RESERVED_OUTPUTS else name: child for name, child in properties.items()
    }


def _find_input(draft: Draft, argument: str) -> str:
    return next(name for name, called in draft.bindings.items() if called == argument)


def _choose_media_type(contents: Mapping[str, Any]) -> str:
    """Return the media type to use: JSON if there is one, and of several JSON types the fullest."""
    names = [name for name in contents if is_json(name.partition(";")[0].strip().lower())] or list(contents)
    return next((name for name in names if "representation" in name), names[0])


def _find_parameter_problem(parameter: Parameter) -> str | None:
    if parameter.place not in ("query", "header"):
        return f"is sent in the {parameter.place or 'unknown place'}, which is not supported"
    if parameter.place == "header" and parameter.name.lower() in _CLIENT_HEADERS:
        return "is a header that the HTTP client sets"
    if parameter.content:
        return "is described by a media type instead of a schema, which is not supported"
    if parameter.style not in ("form", "simple"):
        return f"is written in the style {parameter.style}, which is not supported"
    return None


def _list_values(parameter: Parameter) -> list[Any]:
    return as_list(parameter.schema.get("enum"))


def _find_fixed_value(parameter: Parameter) -> str | None:
    """Return the value of a header that never changes, such as the version in `Accept`."""
    values = [*_list_values(parameter), parameter.schema.get("default"), parameter.schema.get("example")]
    return next((value for value in values if isinstance(value, str) and _MEDIA_TYPE.fullmatch(value)), None)
