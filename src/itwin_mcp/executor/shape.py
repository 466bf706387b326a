"""Shapes what the platform answered into what a tool promises, as leniently as it can be read."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from itwin_mcp.capability.expressions import ABSENT, Every, Path, PathPart
from itwin_mcp.capability.plans import Output
from itwin_mcp.errors import UnexpectedAnswer
from itwin_mcp.upstream.redaction import foreign_text, without_secrets

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")
_BOOLEANS = {"true": True, "false": False}
_MAX_DIGITS = 40
"""Characters of a text that is read as a number."""


class Warnings:
    """What the platform answered in one call that the capability file does not expect; one entry for each path."""

    MAX_ENTRIES = 20
    MAX_GOT = 100

    def __init__(self) -> None:
        self._entries: dict[str, dict[str, Any]] = {}

    def add(self, path: str, expected: str, got: Any) -> None:
        """Count a value of another kind; the first one at each path is shown, without secrets."""
        entry = self._entries.get(path)
        if entry is not None:
            entry["count"] += 1
        elif len(self._entries) < self.MAX_ENTRIES:
            text = got if isinstance(got, str) else json.dumps(got, ensure_ascii=False, separators=(",", ":"))
            shown = foreign_text(text, self.MAX_GOT)
            self._entries[path] = {"path": path, "expected": expected, "got": shown, "count": 1}

    def to_json(self) -> list[dict[str, Any]]:
        """The answer's member `warnings`."""
        return list(self._entries.values())


def shape(
    output: Output, body: Any, headers: Mapping[str, str], warnings: Warnings, *, written: bool = False
) -> dict[str, Any]:
    """Return the answer that the output parameters of one call mean.

    What is missing is null. What is of another kind is converted if nothing is lost, else null and a warning.

    Raises: UnexpectedAnswer for an answer without the member that is its subject, because it has nothing to give. The
    answer to a change that was made (`written`) never raises.
    """
    problem = _find_problem(output, body)
    if problem is not None:
        where, why = problem
        if not written:
            raise _unexpected(where, why)
        if not isinstance(body, dict) or why == _MISSING:
            warnings.add(where, "object", body)
    known = body if isinstance(body, dict) else {}
    if not output.properties:
        return known  # the file declares no fields, as where the platform documents none
    return {name: shape_part(child, known, headers, "$", warnings) for name, child in output.properties}


def shape_part(output: Output, body: Any, headers: Mapping[str, str], where: str, warnings: Warnings) -> Any:
    """Return one part of an answer, found from `body`, which stands at the path `where`."""
    if output.literal is not None:
        return output.literal
    if output.header is not None:
        value: Any = _from_header(output, headers)
    elif output.path is not None:
        value = output.path.find(body)
        if output.last_segment and isinstance(value, str):
            value = last_segment(value) or None
    else:
        value = body
    if output.path is not None and (value is ABSENT or output.path.many):
        warn_on_the_way(output.path, body, where, warnings)
    if value is ABSENT or value is None:
        return None
    if output.kind == "object" and isinstance(value, dict):
        here = _extend(where, output) if output.properties else where
        return {name: shape_part(child, value, headers, here, warnings) for name, child in output.properties} or value
    if output.kind == "array" and isinstance(value, list):
        return shape_items(output.items, value, headers, _extend(where, output), warnings) if output.items else value
    shaped = convert(output.kind, value)
    if shaped is None:
        warnings.add(_extend(where, output), output.kind, value)
    return shaped


def warn_on_the_way(path: Path, value: Any, where: str, warnings: Warnings) -> None:
    """Warn of a value on the way of a path that is of another kind, so that the path leads to nothing.

    Null, and a member that is missing, are no values of another kind.
    """
    for index, part in enumerate(path.parts):
        if value is None:
            return
        if isinstance(part, str):
            if not isinstance(value, dict):
                warnings.add(where, "object", value)
                return
            value, where = value.get(part), f"{where}.{part}"
            continue
        if not isinstance(value, list):
            warnings.add(where, "array", value)
            return
        if isinstance(part, Every):
            rest = replace(path, parts=path.parts[index + 1 :])
            for one in value:
                warn_on_the_way(rest, one, f"{where}[*]", warnings)
            return
        value, where = value[part] if part < len(value) else None, f"{where}[{part}]"


def shape_items(
    item: Output, values: Sequence[Any], headers: Mapping[str, str], where: str, warnings: Warnings
) -> list[Any]:
    """Return the items of the list at the path `where`; where objects are expected, what is none is left out."""
    where = f"{where}[*]"
    objects = item.kind == "object"
    shaped = []
    for value in values:
        one = shape_part(item, value, headers, where, warnings)
        if one is not None or not objects:
            shaped.append(one)
        elif value is None:
            warnings.add(where, item.kind, value)
    return shaped


def convert(kind: str, value: Any) -> str | int | float | bool | None:
    """Return a scalar as one of another kind if nothing is lost by it, else None."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if kind == "string" and isinstance(value, str | int | float):
        return value if isinstance(value, str) else json.dumps(value)
    if kind == "number":
        if isinstance(value, str):
            return _read_number(value)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None
    if kind == "boolean":
        return value if isinstance(value, bool) else _BOOLEANS.get(value.lower()) if isinstance(value, str) else None
    return None


def _read_number(text: str) -> int | float | None:
    """Return the number that a text spells as JSON does, unless it has more digits than a float holds."""
    found = _NUMBER.fullmatch(text) if len(text) <= _MAX_DIGITS else None
    if found is None:
        return None
    if found[1] is None and found[2] is None:
        return int(text)
    number = float(text)
    return number if math.isfinite(number) and Decimal(text) == Decimal(repr(number)) else None


def _extend(where: str, output: Output) -> str:
    """Return the path of a part."""
    if output.header is not None:
        return f"header {output.header}"
    return where + output.path.text.removeprefix("$") if output.path is not None else where


def widen(shaped: Any, body: Any) -> Any:
    """An item with every other field that the platform gave and that is no secret."""
    if not isinstance(shaped, dict) or not isinstance(body, dict):
        return shaped
    return {**shaped, **{name: child for name, child in without_secrets(body).items() if name not in shaped}}


def _from_header(output: Output, headers: Mapping[str, str]) -> Any:
    """Return a header's value, which is text."""
    text = headers.get(output.header or "")
    if text is None:
        return ABSENT
    return last_segment(text) or ABSENT if output.last_segment else text


def _find_problem(output: Output, body: Any) -> tuple[str, str] | None:
    """Return what an answer lacks that has nothing to give: where, and why.

    An answer in another wrapper is not an answer whose every field is null.
    """
    if not (body is None or isinstance(body, dict)):
        return "$", "is not an object"
    body = body or {}
    subjects = [
        (child, child.path.parts[0])
        for _, child in output.properties
        if child.path is not None and child.path.parts and child.kind in ("object", "array")
    ]
    lacking = [problem for child, name in subjects if (problem := _judge_subject(child, name, body)) is not None]
    if lacking and len(lacking) == len(subjects):
        return lacking[0]
    mapped = [child.path for _, child in output.properties if child.path is not None]
    if mapped and not subjects and not any(path.find(body) is not ABSENT for path in mapped):
        return "$", "has none of the fields that belong to it"
    return None


def _judge_subject(child: Output, name: PathPart, body: Mapping[Any, Any]) -> tuple[str, str] | None:
    """Return why the member that holds a part of the answer is not there; null is there."""
    found = body.get(name, ABSENT)
    where = f"$.{name}"
    if found is ABSENT:
        return where, _MISSING
    assert child.path is not None
    kind = child.kind if len(child.path.parts) == 1 else "object" if isinstance(child.path.parts[1], str) else "array"
    if found is not None and not isinstance(found, dict if kind == "object" else list):
        return where, f"is not {_ARTICLES[kind]}"
    return None


_MISSING = "is missing"
_ARTICLES = {"object": "an object", "array": "a list"}


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
