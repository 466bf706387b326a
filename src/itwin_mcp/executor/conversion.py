"""Arguments as models send them, converted to the types that a tool declares. Nothing is refused here.

Models send numbers, booleans, lists and objects as text, numbers where a text is meant, and null or an empty text for
what they leave out. What cannot be converted without loss stays as it is, for `validate` to refuse.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from itwin_mcp.capability.catalog import Tool
from itwin_mcp.capability.parameters import CLEAR, removable_arguments
from itwin_mcp.capability.published import Kind, kinds_of, pairs_of

MAX_VALUES = 10_000
"""Values in the arguments of one call, each member and element counted. No tool takes nearly as many."""

_NUMBER = re.compile(r"(-?(?:0|[1-9][0-9]*))(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d)(:\d\d(?:\.\d+)?)?)?", re.ASCII)
"""A date, or a date and time without a zone."""
_NATIVE: Mapping[Kind, type | tuple[type, ...]] = {
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "array": list,
    "object": dict,
}


def convert_arguments(tool: Tool, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call in the types that the tool declares, at every depth.

    An argument that is null is left out, and so is an optional one that is an empty text: neither was given. Unknown
    arguments stay, to be refused.
    """
    declared = {argument.name: argument for argument in tool.arguments}
    converted: dict[str, Any] = {}
    for name, value in given.items():
        argument = declared.get(name)
        if argument is None:
            converted[name] = value
        elif value is not None and (argument.required or value != ""):
            converted[name] = _convert(value, argument.schema)
    if converted.get(CLEAR) == [] and removable_arguments(tool.arguments):
        del converted[CLEAR]
    return converted


def _convert(value: Any, schema: Mapping[str, Any]) -> Any:
    kinds = kinds_of(schema)
    is_map = pairs_of(schema) is not None
    if isinstance(value, str) and kinds == ("array",):
        value = _split_choices(value, schema)
    if not any(_is(value, kind) for kind in kinds):
        candidates = (_FROM[kind](value) for kind in kinds)
        value = next((candidate for candidate in candidates if candidate is not value), value)
    if isinstance(value, str) and is_map:
        value = _parse(value, list)
    if isinstance(value, str):
        value = _respell(value, schema)
    if isinstance(value, list):
        if len(value) > MAX_VALUES:  # refused as it is: not worth the look at each
            return value
        if is_map:
            value = _from_pairs(value)
        elif isinstance(schema.get("items"), dict):
            return [_convert(element, schema["items"]) for element in value]
    if isinstance(value, dict) and len(value) <= MAX_VALUES:
        properties = schema.get("properties", {})
        if properties or is_map:
            schemas = {name: properties.get(name, schema.get("additionalProperties")) for name in value}
            members = ((name, child) for name, child in value.items() if child is not None)
            return {
                name: _convert(child, schemas[name]) if isinstance(schemas[name], dict) else child
                for name, child in members
            }
    return value


def _split_choices(text: str, schema: Mapping[str, Any]) -> Any:
    """Return the list of choices that a text joins by commas; any other text stays, because it may have commas."""
    items = schema.get("items")
    choices = items.get("enum", ()) if isinstance(items, dict) else ()
    parts = [part.strip() for part in text.split(",")]
    folded = {choice.casefold() for choice in choices if isinstance(choice, str)}
    return parts if len(parts) > 1 and {part.casefold() for part in parts} <= folded else text


def _respell(text: str, schema: Mapping[str, Any]) -> str:
    """Return a text in the spelling that its schema wants: the case of a choice or of an id, or a whole moment.

    A text that is not such a spelling stays as it is. Ascending order is what a choice such as `name` means, next to
    `name desc`.
    """
    choices = [choice for choice in schema.get("enum", ()) if isinstance(choice, str)]
    if choices and text not in choices:
        folded = " ".join(text.split()).casefold()
        spellings = {choice.casefold(): choice for choice in choices}
        ascending = {f"{key} asc": choice for key, choice in spellings.items() if f"{key} desc" in spellings}
        return (ascending | spellings).get(folded, text)
    pattern = schema.get("pattern")
    if isinstance(pattern, str) and not re.search(ecma_pattern(pattern), text):
        lowered = text.lower()
        return lowered if re.search(ecma_pattern(pattern), lowered) else text
    if schema.get("format") == "date-time":
        return _to_moment(text)
    return text


def _to_moment(text: str) -> str:
    """A date is its beginning, and a moment without a zone is one in UTC."""
    found = _MOMENT.fullmatch(text.strip())
    if found is None:
        return text
    date, clock, seconds = found.groups()
    return f"{date}T{clock or '00:00'}{seconds or ':00'}Z"


def ecma_pattern(pattern: str) -> str:
    """The pattern as JSON Schema means it: `$` is the end of the text, and not before a last line feed as in Python."""
    translated, in_class, escaped = [], False, False
    for character in pattern:
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif in_class:
            in_class = character != "]"
        elif character == "[":
            in_class = True
        elif character == "$":
            character = r"\Z"
        translated.append(character)
    return "".join(translated)


def _is(value: Any, kind: Kind) -> bool:
    return isinstance(value, _NATIVE[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _to_string(value: Any) -> Any:
    is_scalar = isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))
    try:
        return json.dumps(value) if is_scalar else value
    except ValueError:  # more digits than Python writes
        return value


def _to_number(value: Any) -> Any:
    found = _NUMBER.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        return value
    try:
        number = json.loads(found[0])
    except ValueError:  # more digits than Python reads
        return value
    return value if number in (math.inf, -math.inf) else number


def _to_integer(value: Any) -> Any:
    found = _NUMBER.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is not None and found[3] is None and not (found[2] or "").strip(".0"):
        return _to_number(found[1])  # exactly, however many digits
    number = _to_number(value)
    return int(number) if isinstance(number, float) and number.is_integer() else value


def _to_boolean(value: Any) -> Any:
    return {"true": True, "false": False}.get(value.strip().lower(), value) if isinstance(value, str) else value


def _to_array(value: Any) -> Any:
    """JSON text of a list is that list; any other text, and any other scalar, is a list of one."""
    parsed = _parse(value, list)
    return [parsed] if isinstance(parsed, str | bool | int | float) else parsed


def _to_object(value: Any) -> Any:
    return _parse(value, dict)


_FROM: Mapping[Kind, Callable[[Any], Any]] = {
    "string": _to_string,
    "boolean": _to_boolean,
    "integer": _to_integer,
    "number": _to_number,
    "array": _to_array,
    "object": _to_object,
}


def _parse(text: Any, kind: type) -> Any:
    """Return what JSON text says if it is of the kind, else what was given."""
    opening = "[" if kind is list else "{"
    if not isinstance(text, str) or not text.lstrip().startswith(opening):
        return text
    try:
        parsed = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return text
    return parsed if isinstance(parsed, kind) else text


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _from_pairs(pairs: list[Any]) -> Any:
    """Return the map that a list of `{name, value}` means; the list itself if it is not one, or repeats a name."""
    found: dict[str, Any] = {}
    for pair in pairs:
        if not isinstance(pair, dict) or set(pair) != {"name", "value"}:
            return pairs
        name = _to_string(pair["name"])
        if not isinstance(name, str) or name in found:
            return pairs
        found[name] = pair["value"]
    return found
