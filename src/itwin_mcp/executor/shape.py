"""A body and output parameters become the answer; pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from itwin_mcp.capability.expressions import ABSENT
from itwin_mcp.capability.plans import Output
from itwin_mcp.errors import UnexpectedAnswer
from itwin_mcp.upstream.redaction import without_secrets

_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
}


def shape(output: Output, body: Any, headers: Mapping[str, str]) -> Any:
    """The answer that the output parameters of one call mean.

    A declared field that is missing becomes null. Raises UnexpectedAnswer, with the path, for a field of another
    JSON type, an entity without its id, or an answer without the member that is its subject.
    """
    _check_subject(output, body)
    return shape_part(output, {} if body is None else body, headers, "$")


def shape_part(output: Output, body: Any, headers: Mapping[str, str], where: str) -> Any:
    """One part of an answer, found from `body`, which stands at the path `where`. Raises UnexpectedAnswer."""
    if output.literal is not None:
        return output.literal
    if output.header is not None:
        value: Any = _from_header(output, headers)
        where = f"header {output.header}"
    elif output.path is not None:
        value = output.path.find(body)
        where += output.path.text.removeprefix("$")
    else:
        value = body
    if value is ABSENT or value is None:
        if output.required:
            raise _unexpected(where, "is missing")
        return None
    if not _fits(output.kind, value):
        raise _unexpected(where, f"is not {_ARTICLES[output.kind]}")
    if output.kind == "object" and output.properties:
        return {name: shape_part(child, value, headers, where) for name, child in output.properties}
    if output.items is not None:
        return [shape_part(output.items, item, headers, f"{where}[{i}]") for i, item in enumerate(value)]
    return value


def widen(shaped: Any, body: Any) -> Any:
    """An item with every other field that the platform gave and that is no secret."""
    if not isinstance(shaped, dict) or not isinstance(body, dict):
        return shaped
    return {**shaped, **{name: child for name, child in without_secrets(body).items() if name not in shaped}}


_ARTICLES = {
    "string": "a text",
    "number": "a number",
    "boolean": "true or false",
    "object": "an object",
    "array": "a list",
}


def _fits(kind: str, value: Any) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _TYPES[kind]) and not (isinstance(value, float) and not math.isfinite(value))


def _from_header(output: Output, headers: Mapping[str, str]) -> Any:
    """A header's value, which is text, as the type that is declared."""
    text = headers.get(output.header or "")
    if text is None:
        return ABSENT
    if output.last_segment:
        return last_segment(text) or ABSENT
    try:
        if output.kind == "number":
            return float(text) if set(text) & set(".eE") else int(text)
    except ValueError:
        return text
    if output.kind == "boolean":
        return {"true": True, "false": False}.get(text.lower(), text)
    return text


def _check_subject(output: Output, body: Any) -> None:
    """An answer in another wrapper is not an answer whose every field is null."""
    if not (body is None or isinstance(body, dict)):
        raise _unexpected("$", "is not an object")
    for _, child in output.properties:
        subject = child.path.parts[:1] if child.path is not None and child.kind in ("object", "array") else ()
        found = ABSENT if body is None or not subject else body.get(subject[0], ABSENT)
        if subject and (found is ABSENT or (found is None and child.kind == "object")):
            raise _unexpected(f"$.{subject[0]}", "is missing")
    mapped = list(_mapped(output))
    if mapped and not any(path.find(body) is not ABSENT for path in mapped):
        raise _unexpected("$", "has none of the fields that belong to it")


def _mapped(output: Output) -> Iterator[Any]:
    for _, child in output.properties:
        if child.path is not None:
            yield child.path


def _unexpected(where: str, why: str) -> UnexpectedAnswer:
    return UnexpectedAnswer(
        f"The platform's answer is not what this operation gives: {where} {why}.",
        hint="The platform may have changed. If it stays so, report it to the makers of itwin-mcp with this message.",
    )


def last_segment(link: str) -> str:
    """The last segment of a link's path: the id of the thing that a `Location` header points to."""
    try:
        return urlsplit(link).path.rstrip("/").rpartition("/")[2]
    except ValueError:
        return ""
