"""An operation and values become one request; pure, and no value can add or climb a path segment."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from itwin_mcp.capability.catalog import BodyTemplate, Credential, Operation, PathTemplate, Slot
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
from itwin_mcp.errors import InvalidArguments, NotSignedIn
from itwin_mcp.upstream.client import DECLARED_PLATFORM
from itwin_mcp.upstream.wire import Body, FormBody, JsonBody, Request, TextBody

MOST_IN_PATH = 2048
"""Characters of one value in a path."""

_FORBIDDEN_IN_PATH = re.compile(r"[\x00-\x1f\x7f/\\?#%]")
_TEXT_TYPES = {"text": "text/plain", "xml": "application/xml", "sparql": "application/sparql-query"}


def bind(
    bindings: Mapping[str, Expression], arguments: Mapping[str, Any], results: Mapping[str, Any]
) -> dict[str, Any]:
    """The values of an operation's inputs; those without a value are left out."""
    values = {name: evaluate(expression, arguments, results) for name, expression in bindings.items()}
    return {name: value for name, value in values.items() if value is not ABSENT}


def build_request(operation: Operation, values: Mapping[str, Any], environment: Mapping[str, str]) -> Request:
    """The request of an operation.

    `environment` holds the variables that capability files bind, for origins other than the platform's. Raises
    InvalidArguments for a value that cannot stand in a path, NotSignedIn for a bound variable that is not set.
    """
    query: list[tuple[str, str]] = []
    headers: list[tuple[str, str]] = []
    in_path: dict[str, str] = {}
    for parameter in operation.parameters:
        value = values.get(parameter.name, ABSENT)
        if value is ABSENT and parameter.value is not None:
            value = evaluate(parameter.value, values, {})
        if value is ABSENT or value is None:
            continue
        text = wire_text(value)
        if parameter.place == "query":
            query.append((parameter.wire, text))
        elif parameter.place == "header":
            headers.append((parameter.wire, text))
        else:
            in_path[parameter.name] = text
    if operation.credential is not None and operation.origin != DECLARED_PLATFORM:
        _add_credential(operation.credential, environment, headers, query)
    return Request(
        method=operation.method,
        origin=operation.origin,
        path=expand_path(operation.path, in_path),
        query=tuple(query),
        headers=tuple(headers),
        body=_build_body(operation.body, values) if operation.body is not None else None,
        permission=operation.permission,
    )


def expand_path(template: PathTemplate, values: Mapping[str, str]) -> str:
    """Fill the slots; an id can never add or climb a path segment. Raises InvalidArguments."""
    return "".join("/" + _segment(parts, values) for parts in template)


def _segment(parts: tuple[str | Slot, ...], values: Mapping[str, str]) -> str:
    texts = []
    for part in parts:
        if isinstance(part, str):
            texts.append(quote(part, safe="~!$&'()*+,;=:@%"))
            continue
        value = values.get(part.name, "")
        why = None
        if not value:
            why = "is empty"
        elif len(value) > MOST_IN_PATH:
            why = f"has more than {MOST_IN_PATH} characters"
        elif _FORBIDDEN_IN_PATH.search(value) or ".." in value or value == ".":
            why = "has characters that no id has (`..`, `/`, `?`, `#`, `%` or a control character)"
        if why is not None:
            raise InvalidArguments(
                f"{part.name} {why}; nothing was sent.",
                hint=f"Give {part.name} as an id from an earlier answer.",
                details=[{"code": "InvalidArgument", "target": part.name, "message": f"{part.name} {why}"}],
            )
        texts.append(quote(value, safe=""))
    return "".join(texts)


def _build_body(template: BodyTemplate, values: Mapping[str, Any]) -> Body:
    data = _fill(template.data, values)
    if template.kind == "json":
        return JsonBody({} if data is ABSENT else data)
    if template.kind == "formUrlEncoded":
        fields = {} if data is ABSENT else data
        return FormBody(tuple((name, wire_text(value)) for name, value in fields.items() if value is not None))
    return TextBody("" if data is ABSENT else wire_text(data), _TEXT_TYPES[template.kind])


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


def _add_credential(
    credential: Credential,
    environment: Mapping[str, str],
    headers: list[tuple[str, str]],
    query: list[tuple[str, str]],
) -> None:
    """What a file says of an origin that is not the platform's: its own credential, from bound variables."""
    known: dict[str, str] = {}
    for name, variable in credential.variables.items():
        if variable in environment:
            known[name] = environment[variable]
    parts = {key: evaluate(expression, known, {}) for key, expression in credential.parts.items()}
    if any(value is ABSENT for value in parts.values()):
        missing = sorted(variable for variable in credential.variables.values() if variable not in environment)
        raise NotSignedIn(
            "The capability file's credential is not set; nothing was sent.",
            hint=f"Set {' and '.join(missing)} in the environment that starts itwin-mcp.",
        )
    if credential.kind == "bearer":
        headers.append(("Authorization", f"Bearer {parts['token']}"))
    elif credential.kind == "basic":
        pair = f"{parts['username']}:{parts['password']}".encode()
        headers.append(("Authorization", f"Basic {base64.b64encode(pair).decode()}"))
    elif parts["placement"] == "query":
        query.append((str(parts["key"]), str(parts["value"])))
    else:
        headers.append((str(parts["key"]), str(parts["value"])))
