"""The input schemas that clients read: the subset of JSON Schema that every client accepts, derived from ours.

Some clients drop a tool whose schema they cannot read, others refuse the whole request. So the published schema says
what all of them understand, and everything else is enforced by us (`executor.validate`) and stated in descriptions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeAlias, cast

from itwin_mcp.capability.expressions import ABSENT
from itwin_mcp.capability.node import JsonSchema

Kind: TypeAlias = Literal["string", "number", "integer", "boolean", "array", "object"]

_BOUNDS = ("minItems", "maxItems", "minimum", "maximum", "minLength", "maxLength")
_COPIED = ("description", "default", *_BOUNDS, "pattern", "format")
_JSON_TYPES: Mapping[type, Kind] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    list: "array",
    dict: "object",
}
_PUBLISHED = frozenset({*_COPIED, "type", "enum", "const", "properties", "required", "items", "additionalProperties"})
_SILENT = frozenset({"examples", "title", "$comment", "minProperties"})
"""What needs no words: notes, and the rule that a change changes something."""
_ONCE = ("once", "unique", "distinct", "different", "repeat")
"""How a description says that elements must not repeat."""


def publish(schema: Mapping[str, Any]) -> JsonSchema:
    """Return the schema as clients read it: one type in every subschema, and only keywords that all of them accept.

    A map is published as a list of `{name, value}`; a list whose elements are not described as one of texts.
    """
    pairs = pairs_of(schema)
    if pairs is not None:
        item = {"type": "object", "properties": pairs, "required": ["name", "value"]}
        return {"type": "array", "description": schema.get("description", "Names and values."), "items": item}
    kind = kind_of(schema) or "string"
    published: JsonSchema = {"type": kind, **_copied(schema)}
    choices = [choice for choice in _choices(schema) if choice is not None]
    if choices and kind == "string":  # some clients take no others
        published["enum"] = choices
    if kind == "array":
        published["items"] = publish(_as_schema(schema.get("items")))
    properties = schema.get("properties", {})
    if kind == "object" and properties:
        published["properties"] = {name: publish(_as_schema(child)) for name, child in properties.items()}
        required = [name for name in schema.get("required", ()) if name in properties]
        if required:
            published["required"] = required
    return published


def _as_schema(value: Any) -> JsonSchema:
    """Return a subschema; true, false and none say nothing that is published."""
    return value if isinstance(value, dict) else {}


def _copied(schema: Mapping[str, Any]) -> JsonSchema:
    return {key: schema[key] for key in _COPIED if schema.get(key) is not None}


def _choices(schema: Mapping[str, Any]) -> list[Any]:
    return list(schema["enum"]) if "enum" in schema else [schema["const"]] if "const" in schema else []


def pairs_of(schema: Mapping[str, Any]) -> JsonSchema | None:
    """Return the `properties` of a `{name, value}` pair for a schema that means a map; None for any other."""
    value = schema.get("additionalProperties")
    if not isinstance(value, dict) or not value or schema.get("properties") or kind_of(schema) != "object":
        return None
    return {"name": {"type": "string"}, "value": publish(value)}


def kinds_of(schema: Mapping[str, Any]) -> tuple[Kind, ...]:
    """The types that a schema accepts, null apart; without `type` those of its choices, or what its keywords imply."""
    declared = schema.get("type")
    if declared is not None:
        kinds = [declared] if isinstance(declared, str) else declared
        return cast("tuple[Kind, ...]", tuple(kind for kind in kinds if kind != "null"))
    choices = _choices(schema)
    if choices:
        return tuple(dict.fromkeys(_JSON_TYPES[type(choice)] for choice in choices if choice is not None))
    return ("object",) if "properties" in schema else ("array",) if "items" in schema else ()


def kind_of(schema: Mapping[str, Any]) -> Kind | None:
    """The type that is published; None where the schema names none."""
    return next(iter(kinds_of(schema)), None)


def is_nullable(schema: Mapping[str, Any]) -> bool:
    """Return whether a schema lets a value be removed by null."""
    declared = schema.get("type")
    return isinstance(declared, list) and "null" in declared and None in schema.get("enum", (None,))


def example_of(schema: Mapping[str, Any]) -> Any:
    """Return a value that fits a schema, to show in a refusal; ABSENT where none can be derived.

    `examples` in the schema come first: a text with a pattern needs one.
    """
    for key in ("examples", "enum"):
        if schema.get(key):
            return next(value for value in schema[key] if value is not None)
    if "const" in schema or "default" in schema:
        return schema.get("const", schema.get("default"))
    if pairs_of(schema) is not None:
        return _together({"name": "name", "value": example_of(schema["additionalProperties"])}, wrap=True)
    kind = kind_of(schema)
    if kind in ("integer", "number"):
        return min(max(1, schema.get("minimum", 1)), schema.get("maximum", math.inf))
    if kind == "boolean":
        return True
    if kind == "array":
        element = example_of(_as_schema(schema.get("items")) or {"type": "string"})
        return [element] if element is not ABSENT and schema.get("minItems", 0) <= 1 else ABSENT
    if kind == "object":
        properties = schema.get("properties", {})
        return _together({name: example_of(_as_schema(properties.get(name))) for name in schema.get("required", ())})
    if kind != "string" or "format" in schema:
        return "2027-01-31T12:00:00Z" if schema.get("format") == "date-time" else ABSENT
    text = "text".ljust(schema.get("minLength", 0), "x")[: schema.get("maxLength")]
    return text if re.search(schema.get("pattern", ""), text) else ABSENT


def _together(members: Mapping[str, Any], *, wrap: bool = False) -> Any:
    """Return the members, in a list if `wrap`; ABSENT if one of them is."""
    if ABSENT in members.values():
        return ABSENT
    return [dict(members)] if wrap else dict(members)


def names_in(schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of all properties in a schema, at every depth."""
    yield from schema.get("properties", {})
    for child in subschemas(schema):
        yield from names_in(child)


def subschemas(schema: Mapping[str, Any]) -> Iterator[JsonSchema]:
    """Yield the schemas of the members and elements; one that is only true or false says nothing."""
    children = (*schema.get("properties", {}).values(), schema.get("items"))
    yield from (child for child in children if isinstance(child, dict))


# --- rules that only descriptions state -------------------------------------------------------------------------


def unstated_rules(rule: Mapping[str, Any], arguments: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield the keywords that are enforced, not published and stated in no description, each with what it is about.

    `rule` is the one across `arguments`, which are schemas by name. A rule between arguments is stated where the
    description of one of them names another. A rule inside an argument is stated where its description has the names,
    values and numbers of the rule.
    """
    for keyword, part in _rules_between(rule):
        names = list(dict.fromkeys(_names_in(part)))
        texts = {name: _text_of(arguments.get(name, {})) for name in names}
        if not any(_has(text, other) for name, text in texts.items() for other in names if other != name):
            yield keyword, " and ".join(names)
    for name, schema in arguments.items():
        for keyword, part, text in _rules_inside(schema, ""):
            stated = _ONCE if keyword == "uniqueItems" else tuple(_facts_in(keyword, part))
            if not (any if keyword == "uniqueItems" else all)(_has(text, fact) for fact in stated):
                yield keyword, name


def _rules_between(rule: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for keyword, value in rule.items():
        if keyword == "not":
            yield from ((keyword, part) for part in value.get("anyOf", [value]))
        elif keyword == "dependentRequired":
            yield from ((keyword, {"required": [name, *others]}) for name, others in value.items())
        elif keyword not in _SILENT:
            yield keyword, value


def _rules_inside(schema: Mapping[str, Any], text: str) -> Iterator[tuple[str, Any, str]]:
    """Every keyword that is not published, with its value and the descriptions around it."""
    text = f"{text} {_text_of(schema)}"
    shown = _SILENT | (_PUBLISHED if kind_of(schema) in ("string", None) else _PUBLISHED - {"enum", "const"})
    yield from ((key, value, text) for key, value in schema.items() if key not in shown and value)
    for child in subschemas(schema):
        yield from _rules_inside(child, text)


def _names_in(part: Any) -> Iterator[str]:
    """The arguments that a part of a rule is about."""
    if isinstance(part, dict):
        yield from part.get("properties", {})
        yield from part.get("required", ())
        part = [part.get(key) for key in ("anyOf", "oneOf", "allOf", "not", "if", "then", "else")]
    if isinstance(part, list):
        for child in part:
            yield from _names_in(child)


def _facts_in(keyword: str, value: Any) -> Iterator[str]:
    """The names, choices and numbers in the value of a keyword."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield from _facts_in(key, child)
    elif isinstance(value, list):
        for child in value:
            yield from _facts_in(keyword, child)
    elif keyword not in ("type", "additionalProperties"):
        yield str(value)


def _text_of(schema: Mapping[str, Any]) -> str:
    return str(schema.get("description", ""))


def _has(text: str, fact: str) -> bool:
    """Return whether a description has a word; an ending (`repeated`) does not matter."""
    return re.search(rf"(?<![\w-]){re.escape(fact)}", text, re.IGNORECASE) is not None
