"""Builds requests from operations and values, without any I/O. No value can add a path segment or leave one."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from itwin_mcp.capability.expressions import (
    ABSENT,
    Argument,
    Expression,
    Literal,
    StepValue,
    Text,
    evaluate,
    format_for_wire,
)
from itwin_mcp.capability.operations import BodyTemplate, Code, Operation, PathTemplate, Slot
from itwin_mcp.capability.parameters import FILE_PATH
from itwin_mcp.errors import DetailCode, InvalidArguments
from itwin_mcp.text import make_printable
from itwin_mcp.upstream.messages import Body, FileUpload, FormBody, JsonBody, Request, TextBody

MAX_IN_PATH = 2048
"""Maximum number of characters of one value in a path."""

_FORBIDDEN_IN_PATH = re.compile(r"[\x00-\x1f\x7f/\\?#%\ud800-\udfff]|\.\.")
_TEXT_TYPES = {"text": "text/plain", "xml": "application/xml", "sparql": "application/sparql-query"}


def bind(
    bindings: Mapping[str, Expression], arguments: Mapping[str, Any], results: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the values of an operation's inputs, without those that have none."""
    values = {}
    for name, expression in bindings.items():
        # Most bindings are an argument as it is.
        if isinstance(expression, Argument):
            value = arguments.get(expression.name, ABSENT)
        else:
            value = evaluate(expression, arguments, results)
        if value is not ABSENT:
            values[name] = value
    return values


def build_request(operation: Operation, values: Mapping[str, Any]) -> Request:
    """Return the request of an operation without its credential.

    Raises: InvalidArguments for a value that cannot be part of a path, or a word that `x-codes` does not list.
    """
    query: list[tuple[str, str]] = []
    headers: list[tuple[str, str]] = []
    in_path: dict[str, str] = {}
    if operation.codes:
        values = encode_values(operation.codes, values)
    for parameter in operation.parameters:
        value = values.get(parameter.name, ABSENT)
        if value is ABSENT and parameter.value is not None:
            fixed = parameter.value
            value = fixed.value if isinstance(fixed, Literal) else evaluate(fixed, values, {})
        if value is ABSENT or value is None or value == []:
            continue
        text = value if isinstance(value, str) else format_for_wire(value)
        if parameter.place == "query":
            query.append((parameter.wire, text))
        elif parameter.place == "header":
            headers.append((parameter.wire, text))
        else:
            in_path[parameter.name] = text
    body: Body | None = None
    if operation.file is not None:
        path = Path(values[FILE_PATH])
        body = FileUpload(path, operation.file.types[path.suffix.lower()])
    elif operation.body is not None:
        body = _build_body(operation.body, values)
    return Request(
        method=operation.method,
        origin=operation.origin,
        path=expand_path(operation.path, in_path),
        query=tuple(query),
        headers=tuple(headers),
        body=body,
        permission=operation.permission,
    )


# --- the path ---------------------------------------------------------------------------------------------------


def expand_path(template: PathTemplate, values: Mapping[str, str]) -> str:
    """Fill the slots of a path. Raises InvalidArguments for a value that could add a path segment or leave one."""
    return "".join("/" + _fill_segment(parts, values) for parts in template)


def find_path_problem(value: str) -> str | None:
    """Return why a value cannot be part of a path, or None if it can."""
    if not value:
        return "is empty"
    if len(value) > MAX_IN_PATH:
        return f"has more than {MAX_IN_PATH} characters"
    if value == "." or _FORBIDDEN_IN_PATH.search(value):
        return "has characters that no id has (`..`, `/`, `?`, `#`, `%` or a control character)"
    return None


def _fill_segment(parts: tuple[str | Slot, ...], values: Mapping[str, str]) -> str:
    texts = []
    for part in parts:
        if isinstance(part, str):
            texts.append(quote(part, safe="~!$&'()*+,;=:@%"))
            continue
        value = values.get(part.name, "")
        why = find_path_problem(value)
        if why is not None:
            raise InvalidArguments(
                f"{part.name} {why}; nothing was sent.",
                hint=f"Give {part.name} as an id from an earlier answer.",
                details=[{"code": DetailCode.INVALID_ARGUMENT, "target": part.name, "message": f"{part.name} {why}"}],
            )
        texts.append(quote(value, safe=""))
    return "".join(texts)


# --- the body ---------------------------------------------------------------------------------------------------


def _build_body(template: BodyTemplate, values: Mapping[str, Any]) -> Body:
    if template.kind == "xml" and isinstance(template.data, Text):
        return TextBody(_fill_xml(template.data, values), _TEXT_TYPES["xml"])
    data = _fill_template(template.data, values)
    if template.kind == "json":
        return JsonBody({} if data is ABSENT else data)
    if template.kind == "formUrlEncoded":
        fields = {} if data is ABSENT else data
        return FormBody(tuple((name, format_for_wire(value)) for name, value in fields.items() if value is not None))
    return TextBody("" if data is ABSENT or data is None else format_for_wire(data), _TEXT_TYPES[template.kind])


def _fill_template(template: Any, values: Mapping[str, Any]) -> Any:
    """Fill a template. A member without a value is left out, and so is an object that has no other members."""
    if isinstance(template, dict):
        filled = {key: _fill_template(child, values) for key, child in template.items()}
        members = {key: value for key, value in filled.items() if value is not ABSENT}
        return members if members or not template else ABSENT
    if isinstance(template, list):
        return [value for child in template if (value := _fill_template(child, values)) is not ABSENT]
    assert isinstance(template, (Argument, Literal, StepValue, Text))
    return evaluate(template, values, {})


def _fill_xml(template: Text, values: Mapping[str, Any]) -> str:
    """Fill an XML template. Values are escaped, so that they can neither open nor close an element."""
    from xml.sax.saxutils import escape

    def escape_part(part: Any) -> str:
        if isinstance(part, str):
            return part
        value = evaluate(part, values, {})
        text = "" if value is ABSENT or value is None else format_for_wire(value)
        return escape(text, {'"': "&quot;", "'": "&apos;"})

    return "".join(map(escape_part, template.parts))


# --- values in the platform's own spelling (`x-codes`): sums of bits, joined lists, JSON in Base64 -------------------


def encode_values(codes: Mapping[str, Code], values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the input values of an operation in the platform's spelling."""
    names = codes.keys() & values.keys()
    return {**values, **{name: _encode(name, codes[name], values[name]) for name in names}} if names else values


def _encode(name: str, code: Code, value: Any) -> Any:
    if code.kind == "bits" and isinstance(value, list):
        unknown = [word for word in value if word not in code.table]
        if unknown:  # the schema of a capability file may allow a word that its code does not list
            raise InvalidArguments(
                f"{name} has no word {make_printable(str(unknown[0]))!r}; nothing was sent.",
                hint=f"Use only {', '.join(code.table)}.",
                details=[
                    {"code": DetailCode.INVALID_ARGUMENT, "target": name, "message": f"{name} has an unknown word"}
                ],
            )
        return sum(int(code.table[word]) for word in dict.fromkeys(value))
    if code.kind == "words":
        return code.table.get(value, value) if isinstance(value, str) else value
    if code.kind == "joined" and isinstance(value, list):
        return code.detail.join(map(str, value))
    if code.kind == "json" and isinstance(value, dict):
        return base64.b64encode(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()).decode("ascii")
    return value
