"""`x-schema`: the JSON Schema fragments of a file, checked where they stand."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from itwin_mcp.capability.node import JsonSchema
from itwin_mcp.capability.place import Place

_REFERENCES = frozenset({"$ref", "$dynamicRef", "$id", "$schema", "$anchor", "$dynamicAnchor", "$defs", "definitions"})
_DATA = frozenset({"const", "enum", "default", "examples"})
_NAMED = frozenset({"properties", "patternProperties", "dependentSchemas"})
_OURS = frozenset({"type", "properties", "required", "additionalProperties"})


def check_fragment(fragment: JsonSchema | None, place: Place) -> bool:
    """Whether a fragment is a sound schema that stands alone; what is not is reported.

    A file that was in the cache has passed, and the import costs start-up time: then nothing is checked.
    """
    if fragment is None or not place.document.fresh:
        return True
    import jsonschema

    sound = True
    try:
        jsonschema.Draft202012Validator.check_schema(fragment)
    except jsonschema.SchemaError as error:
        where = place.at(*error.absolute_path)
        where.report("json-schema", f"is not JSON Schema: {_first_line(error.message)}")
        return False
    for path, key, value in _keywords(fragment):
        if key in _REFERENCES:
            place.at(*path).report("json-schema", f"uses {key!r}: a fragment stands alone, write the schema out")
            sound = False
        elif key == "pattern" and not _is_pattern(value):
            place.at(*path).report("json-schema", f"the pattern {value[:80]!r} is not a regular expression")
            sound = False
    return sound


def check_values(schema: Mapping[str, Any], place: Place) -> None:
    """Report a default or an enumerated value that does not fit the schema it stands in."""
    if not place.document.fresh:
        return
    import jsonschema

    validator = jsonschema.Draft202012Validator(schema)
    if "default" in schema and not validator.is_valid(schema["default"]):
        place.at("default").report("json-schema", "the default does not fit its own schema: correct one of the two")
    typed = jsonschema.Draft202012Validator({"type": schema["type"]})
    for index, value in enumerate(schema.get("enum", ())):
        if not typed.is_valid(value):
            message = f"{str(value)[:80]} is not of the type {schema['type']}: put text in quotes"
            place.at("enum", index).report("json-schema", message)


def check_tool_rule(fragment: JsonSchema | None, place: Place) -> JsonSchema:
    """Return a tool's own `x-schema`, a rule across its arguments; what it may not say is reported."""
    if not check_fragment(fragment, place) or fragment is None:
        return {}
    for key in sorted(_OURS & set(fragment)):
        place.at(key).report("json-schema", f"{key!r} follows from the inputs: say it there")
    return fragment


def _keywords(schema: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str, Any]]:
    """The keywords of a schema and of the schemas in it; data and names are no keywords."""
    if isinstance(schema, list):
        for index, item in enumerate(schema):
            yield from _keywords(item, (*path, index))
    elif isinstance(schema, dict):
        for key, value in schema.items():
            here = (*path, key)
            yield here, key, value
            if key in _NAMED:
                for name, child in value.items():
                    yield from _keywords(child, (*here, name))
            elif key not in _DATA:
                yield from _keywords(value, here)


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except (re.error, RecursionError, OverflowError):
        return False
    return True


def _first_line(message: str) -> str:
    line = message.splitlines()[0]
    return line if len(line) <= 200 else line[:200] + "…"
