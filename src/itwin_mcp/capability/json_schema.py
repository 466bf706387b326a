"""JSON Schema: the part that clients see, and checks of the fragments in capability files (`x-schema`).

Some clients drop a tool whose schema they cannot read, others refuse the whole request. So we publish only the
keywords that every client accepts. Everything else is enforced by `executor.arguments` and stated in descriptions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from itwin_mcp.capability.expressions import ABSENT
from itwin_mcp.text import shorten

if TYPE_CHECKING:
    from itwin_mcp.capability.documents import Place
    from itwin_mcp.capability.schema_types import JsonSchema

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
"""Keywords that descriptions need not state: notes, and the rule that an update must change something."""
_UNIQUENESS_WORDS = ("once", "unique", "distinct", "different", "repeat")
"""A description that contains one of these words states that elements must be unique."""


def publish(schema: Mapping[str, Any]) -> JsonSchema:
    """Return the schema that clients see: one type in every subschema, and only keywords that all clients accept.

    A map is published as a list of `{name, value}`. Elements without a schema are published as text.
    """
    pairs = describe_pairs(schema)
    if pairs is not None:
        item = {"type": "object", "properties": pairs, "required": ["name", "value"]}
        return {"type": "array", "description": schema.get("description", "Names and values."), "items": item}
    kind = get_type(schema) or "string"
    published: JsonSchema = {"type": kind} | {key: schema[key] for key in _COPIED if schema.get(key) is not None}
    choices = [choice for choice in _list_choices(schema) if choice is not None]
    if choices and kind == "string":  # some clients refuse an `enum` of any other type
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
    """Return a subschema. For true, false and None, return an empty one, because they have no keywords."""
    return value if isinstance(value, dict) else {}


def _list_choices(schema: Mapping[str, Any]) -> list[Any]:
    return list(schema["enum"]) if "enum" in schema else [schema["const"]] if "const" in schema else []


def describe_pairs(schema: Mapping[str, Any]) -> JsonSchema | None:
    """Return the `properties` of a `{name, value}` pair if the schema describes a map, otherwise None."""
    value = schema.get("additionalProperties")
    if not isinstance(value, dict) or not value or schema.get("properties") or get_type(schema) != "object":
        return None
    return {"name": {"type": "string"}, "value": publish(value)}


def list_types(schema: Mapping[str, Any]) -> tuple[Kind, ...]:
    """Return the types that a schema accepts, without null. Without `type`, its keywords imply them."""
    declared = schema.get("type")
    if declared is not None:
        kinds = [declared] if isinstance(declared, str) else declared
        return cast("tuple[Kind, ...]", tuple(kind for kind in kinds if kind != "null"))
    choices = _list_choices(schema)
    if choices:
        return tuple(dict.fromkeys(_JSON_TYPES[type(choice)] for choice in choices if choice is not None))
    return ("object",) if "properties" in schema else ("array",) if "items" in schema else ()


def get_type(schema: Mapping[str, Any]) -> Kind | None:
    """Return the type that is published; None if the schema implies none."""
    return next(iter(list_types(schema)), None)


def is_nullable(schema: Mapping[str, Any]) -> bool:
    """Return whether a schema accepts null. A caller can then clear the field."""
    declared = schema.get("type")
    return isinstance(declared, list) and "null" in declared and None in schema.get("enum", (None,))


def make_example(schema: Mapping[str, Any]) -> Any:
    """Return a valid value to show in an error message; ABSENT if none can be derived.

    The first of the schema's `examples` takes precedence. Most texts with a `pattern` need one.
    """
    for key in ("examples", "enum"):
        if schema.get(key):
            return next(value for value in schema[key] if value is not None)
    if "const" in schema or "default" in schema:
        return schema.get("const", schema.get("default"))
    if describe_pairs(schema) is not None:
        value = make_example(schema["additionalProperties"])
        return ABSENT if value is ABSENT else [{"name": "name", "value": value}]
    kind = get_type(schema)
    if kind in ("integer", "number"):
        return min(max(1, schema.get("minimum", 1)), schema.get("maximum", math.inf))
    if kind == "boolean":
        return True
    if kind == "array":
        element = make_example(_as_schema(schema.get("items")) or {"type": "string"})
        return [element] if element is not ABSENT and schema.get("minItems", 0) <= 1 else ABSENT
    if kind == "object":
        properties = schema.get("properties", {})
        example = {name: make_example(_as_schema(properties.get(name))) for name in schema.get("required", ())}
        return ABSENT if ABSENT in example.values() else example
    if kind != "string" or "format" in schema:
        return "2027-01-31T12:00:00Z" if schema.get("format") == "date-time" else ABSENT
    text = "text".ljust(schema.get("minLength", 0), "x")[: schema.get("maxLength")]
    return text if re.search(schema.get("pattern", ""), text) else ABSENT


def iterate_names(schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of all properties in a schema, at every depth."""
    yield from schema.get("properties", {})
    for child in iterate_subschemas(schema):
        yield from iterate_names(child)


def iterate_subschemas(schema: Mapping[str, Any]) -> Iterator[JsonSchema]:
    """Yield the schemas of members and elements. Schemas that are just true or false are left out."""
    children = (*schema.get("properties", {}).values(), schema.get("items"))
    yield from (child for child in children if isinstance(child, dict))


# --- rules that descriptions must state -------------------------------------------------------------------------


def find_unstated_rules(
    rule: Mapping[str, Any], arguments: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, str]]:
    """Yield each enforced keyword that clients do not see and that no description states, with its arguments.

    A `rule` across arguments counts as stated if the description of one argument names another. A rule within one
    argument counts as stated if its description contains the names, values and numbers of the rule.
    """
    for keyword, part in _split_rule(rule):
        names = list(dict.fromkeys(_iterate_arguments(part)))
        texts = {name: _get_description(arguments.get(name, {})) for name in names}
        if not any(_mentions(text, other) for name, text in texts.items() for other in names if other != name):
            yield keyword, " and ".join(names)
    for name, schema in arguments.items():
        for keyword, part, text in _iterate_unpublished(schema, ""):
            facts = _UNIQUENESS_WORDS if keyword == "uniqueItems" else _iterate_facts(keyword, part)
            is_stated = any if keyword == "uniqueItems" else all
            if not is_stated(_mentions(text, fact) for fact in facts):
                yield keyword, name


def _split_rule(rule: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the parts of a rule across arguments that can be stated separately, each with its keyword."""
    for keyword, value in rule.items():
        if keyword == "not":
            yield from ((keyword, part) for part in value.get("anyOf", [value]))
        elif keyword == "dependentRequired":
            yield from ((keyword, {"required": [name, *required]}) for name, required in value.items())
        elif keyword not in _SILENT:
            yield keyword, value


def _iterate_unpublished(schema: Mapping[str, Any], text: str) -> Iterator[tuple[str, Any, str]]:
    """Yield every keyword that is not published, with its value and the descriptions that apply to it."""
    text = f"{text} {_get_description(schema)}"
    omitted = _SILENT | (_PUBLISHED if get_type(schema) in ("string", None) else _PUBLISHED - {"enum", "const"})
    yield from ((key, value, text) for key, value in schema.items() if key not in omitted and value)
    for child in iterate_subschemas(schema):
        yield from _iterate_unpublished(child, text)


def _iterate_arguments(part: Any) -> Iterator[str]:
    """Yield the arguments that a part of a rule refers to."""
    if isinstance(part, dict):
        yield from part.get("properties", {})
        yield from part.get("required", ())
        part = [part.get(key) for key in ("anyOf", "oneOf", "allOf", "not", "if", "then", "else")]
    if isinstance(part, list):
        for child in part:
            yield from _iterate_arguments(child)


def _iterate_facts(keyword: str, value: Any) -> Iterator[str]:
    """Yield the names, choices and numbers in the value of a keyword."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield from _iterate_facts(key, child)
    elif isinstance(value, list):
        for child in value:
            yield from _iterate_facts(keyword, child)
    elif keyword not in ("type", "additionalProperties"):
        yield str(value)


def _get_description(schema: Mapping[str, Any]) -> str:
    return str(schema.get("description", ""))


def _mentions(text: str, fact: str) -> bool:
    """Return whether a word of the text begins with the fact: `repeat` matches `repeated`."""
    return re.search(rf"(?<![\w-]){re.escape(fact)}", text, re.IGNORECASE) is not None


# --- checks of `x-schema` ---------------------------------------------------------------------------------------

_REFERENCES = frozenset({"$ref", "$dynamicRef", "$id", "$schema", "$anchor", "$dynamicAnchor", "$defs", "definitions"})
_DATA = frozenset({"const", "enum", "default", "examples"})
"""Keywords whose values are data."""
_NAMED = frozenset({"properties", "patternProperties", "dependentSchemas"})
"""Keywords whose values map names to schemas."""
_DERIVED = frozenset({"type", "properties", "required", "additionalProperties"})
"""Keywords of a tool's schema that its inputs determine."""


def check_fragment(fragment: JsonSchema | None, place: Place) -> bool:
    """Return whether a fragment is a valid schema without references. Problems are reported.

    Files from the cache are not checked. They passed when they were cached, and importing jsonschema is slow.
    """
    if fragment is None or not place.document.is_fresh:
        return True
    import jsonschema

    sound = True
    try:
        jsonschema.Draft202012Validator.check_schema(fragment)
    except jsonschema.SchemaError as error:
        message = shorten(error.message.splitlines()[0], 200)
        place.at(*error.absolute_path).report("json-schema", f"is not JSON Schema: {message}")
        return False
    for path, key, value in _iterate_keywords(fragment):
        if key in _REFERENCES:
            place.at(*path).report("json-schema", f"uses {key!r}: references are not allowed, write the schema out")
            sound = False
        elif key == "pattern" and place.at(*path).compile_pattern(value, "json-schema") is None:
            sound = False
    return sound


def check_values(schema: Mapping[str, Any], place: Place) -> None:
    """Report a default or an enumerated value that its own schema refuses."""
    if not place.document.is_fresh:
        return
    import jsonschema

    validator = jsonschema.Draft202012Validator(schema)
    if "default" in schema and not validator.is_valid(schema["default"]):
        place.at("default").report("json-schema", "the default does not match its own schema: correct one of them")
    typed = jsonschema.Draft202012Validator({"type": schema["type"]})
    for index, value in enumerate(schema.get("enum", ())):
        if not typed.is_valid(value):
            message = f"{str(value)[:80]} is not of the type {schema['type']}: put text in quotes"
            place.at("enum", index).report("json-schema", message)


def check_tool_rule(fragment: JsonSchema | None, place: Place) -> JsonSchema:
    """Check the `x-schema` of a tool, which is a rule across its arguments, and return it; empty if it is invalid."""
    if not check_fragment(fragment, place) or fragment is None:
        return {}
    for key in sorted(_DERIVED & set(fragment)):
        place.at(key).report("json-schema", f"{key!r} is derived from the inputs: move it there")
    return fragment


def _iterate_keywords(
    schema: Any, path: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], str, Any]]:
    """Yield the keywords of a schema and of its subschemas with their paths. Data and names are not keywords."""
    if isinstance(schema, list):
        for index, item in enumerate(schema):
            yield from _iterate_keywords(item, (*path, index))
    elif isinstance(schema, dict):
        for key, value in schema.items():
            here = (*path, key)
            yield here, key, value
            if key in _NAMED:
                for name, child in value.items():
                    yield from _iterate_keywords(child, (*here, name))
            elif key not in _DATA:
                yield from _iterate_keywords(value, here)
