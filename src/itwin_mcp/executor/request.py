"""An operation and values become one request; pure, and no value can add or climb a path segment."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import replace
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
    wire_text,
)
from itwin_mcp.capability.parameters import FILE_PATH
from itwin_mcp.capability.plans import BodyTemplate, Credential, Operation, PathTemplate, Slot
from itwin_mcp.errors import InvalidArguments, NotSignedIn
from itwin_mcp.executor.codes import encode_values
from itwin_mcp.upstream.client import DECLARED_PLATFORM
from itwin_mcp.upstream.origin import parse_origin
from itwin_mcp.upstream.wire import Body, FileBody, FormBody, JsonBody, Request, TextBody

MOST_IN_PATH = 2048
"""Characters of one value in a path."""

_FORBIDDEN_IN_PATH = re.compile(r"[\x00-\x1f\x7f/\\?#%\ud800-\udfff]|\.\.")
_TEXT_TYPES = {"text": "text/plain", "xml": "application/xml", "sparql": "application/sparql-query"}


def bind(
    bindings: Mapping[str, Expression], arguments: Mapping[str, Any], results: Mapping[str, Any]
) -> dict[str, Any]:
    """The values of an operation's inputs; those without a value are left out."""
    values = {name: evaluate(expression, arguments, results) for name, expression in bindings.items()}
    return {name: value for name, value in values.items() if value is not ABSENT}


def build_request(operation: Operation, values: Mapping[str, Any]) -> Request:
    """The request of an operation, before `sign`. Raises InvalidArguments for a value that cannot stand in a path."""
    query: list[tuple[str, str]] = []
    headers: list[tuple[str, str]] = []
    in_path: dict[str, str] = {}
    values = encode_values(operation.codes, values)
    for parameter in operation.parameters:
        value = values.get(parameter.name, ABSENT)
        if value is ABSENT and parameter.value is not None:
            value = evaluate(parameter.value, values, {})
        if value is ABSENT or value is None or value == []:
            continue
        text = wire_text(value)
        if parameter.place == "query":
            query.append((parameter.wire, text))
        elif parameter.place == "header":
            headers.append((parameter.wire, text))
        else:
            in_path[parameter.name] = text
    return Request(
        method=operation.method,
        origin=operation.origin,
        path=expand_path(operation.path, in_path),
        query=tuple(query),
        headers=tuple(headers),
        body=_body_of(operation, values),
        permission=operation.permission,
    )


# --- the path ---------------------------------------------------------------------------------------------------


def expand_path(template: PathTemplate, values: Mapping[str, str]) -> str:
    """Fill the slots; an id can never add or climb a path segment. Raises InvalidArguments."""
    return "".join("/" + _segment(parts, values) for parts in template)


def unfit_for_path(value: str) -> str | None:
    """Why a value cannot stand in a path, in words; None if it can."""
    if not value:
        return "is empty"
    if len(value) > MOST_IN_PATH:
        return f"has more than {MOST_IN_PATH} characters"
    if value == "." or _FORBIDDEN_IN_PATH.search(value):
        return "has characters that no id has (`..`, `/`, `?`, `#`, `%` or a control character)"
    return None


def _segment(parts: tuple[str | Slot, ...], values: Mapping[str, str]) -> str:
    texts = []
    for part in parts:
        if isinstance(part, str):
            texts.append(quote(part, safe="~!$&'()*+,;=:@%"))
            continue
        value = values.get(part.name, "")
        why = unfit_for_path(value)
        if why is not None:
            raise InvalidArguments(
                f"{part.name} {why}; nothing was sent.",
                hint=f"Give {part.name} as an id from an earlier answer.",
                details=[{"code": "InvalidArgument", "target": part.name, "message": f"{part.name} {why}"}],
            )
        texts.append(quote(value, safe=""))
    return "".join(texts)


# --- the body ---------------------------------------------------------------------------------------------------


def _body_of(operation: Operation, values: Mapping[str, Any]) -> Body | None:
    if operation.file is not None:
        path = Path(values[FILE_PATH])
        return FileBody(path, operation.file.types[path.suffix.lower()])
    return _build_body(operation.body, values) if operation.body is not None else None


def _build_body(template: BodyTemplate, values: Mapping[str, Any]) -> Body:
    if template.kind == "xml" and isinstance(template.data, Text):
        return TextBody(_xml(template.data, values), _TEXT_TYPES["xml"])
    data = _fill(template.data, values)
    if template.kind == "json":
        return JsonBody({} if data is ABSENT else data)
    if template.kind == "formUrlEncoded":
        fields = {} if data is ABSENT else data
        return FormBody(tuple((name, wire_text(value)) for name, value in fields.items() if value is not None))
    return TextBody("" if data is ABSENT or data is None else wire_text(data), _TEXT_TYPES[template.kind])


def _fill(template: Any, values: Mapping[str, Any]) -> Any:
    """The template's value; absent leaves take their key with them, and an object that thereby is empty."""
    if isinstance(template, dict):
        filled = {key: _fill(child, values) for key, child in template.items()}
        kept = {key: value for key, value in filled.items() if value is not ABSENT}
        return kept if kept or not template else ABSENT
    if isinstance(template, list):
        return [value for child in template if (value := _fill(child, values)) is not ABSENT]
    assert isinstance(template, (Argument, Literal, StepValue, Text))
    return evaluate(template, values, {})


def _xml(template: Text, values: Mapping[str, Any]) -> str:
    """XML text whose slots are character data: a value can neither open nor close an element."""
    from xml.sax.saxutils import escape

    def text(part: Any) -> str:
        if isinstance(part, str):
            return part
        value = evaluate(part, values, {})
        return "" if value is ABSENT or value is None else escape(wire_text(value), {'"': "&quot;", "'": "&apos;"})

    return "".join(text(part) for part in template.parts)


# --- the credential of an origin that is not the platform's ------------------------------------------------------


def sign(request: Request, operation: Operation, environment: Mapping[str, str]) -> Request:
    """The request with the credential that the file gives for a foreign origin.

    The platform's own credential comes from the client's token source. `environment` holds the variables that
    capability files bind. Raises NotSignedIn for one that is not set.
    """
    if operation.credential is None or parse_origin(operation.origin) == parse_origin(DECLARED_PLATFORM):
        return request
    place, name, value = _credential(operation.credential, operation.origin, environment)
    if place == "query":
        others = tuple(pair for pair in request.query if pair[0] != name)
        return replace(request, query=(*others, (name, value)))
    return replace(request, headers=(*request.headers, (name, value)))


def _credential(credential: Credential, origin: str, environment: Mapping[str, str]) -> tuple[str, str, str]:
    """Where the credential goes, under which name, and its value."""
    known = {name: environment[variable] for name, variable in credential.variables.items() if variable in environment}
    parts = {key: evaluate(expression, known, {}) for key, expression in credential.parts.items()}
    if any(value is ABSENT for value in parts.values()):
        missing = sorted(variable for variable in credential.variables.values() if variable not in environment)
        raise NotSignedIn(
            f"There is no credential for {origin}; nothing was sent.",
            hint=f"Set {' and '.join(missing)} in the environment that starts itwin-mcp.",
        )
    if credential.kind == "bearer":
        return "header", "Authorization", f"Bearer {parts['token']}"
    if credential.kind == "basic":
        pair = f"{parts['username']}:{parts['password']}".encode()
        return "header", "Authorization", f"Basic {base64.b64encode(pair).decode()}"
    return str(parts["placement"]), str(parts["key"]), str(parts["value"])
