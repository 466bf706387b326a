"""Schemas of a definition as what a capability file can say: arguments of tools, and outputs of answers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from itwin_mcp.capability.openapi_import.definition import Definition, Schema, as_list, as_map, as_text
from itwin_mcp.capability.openapi_import.wording import describe

MAX_DEPTH = 5
"""Levels of objects that are written out. Deeper objects are returned unchanged."""
_PUBLISHED_NAME = re.compile(r"[A-Za-z0-9_-]{1,60}")
_PATH_NAME = re.compile(r"[A-Za-z_][\w-]*", re.ASCII)
_FORMATS = ("date-time", "date", "uuid", "email", "uri")
_IGNORED = (
    "multipleOf",
    "minProperties",
    "maxProperties",
    "patternProperties",
    "propertyNames",
    "dependentRequired",
    "dependentSchemas",
    "contains",
    "prefixItems",
    "not",
    "if",
)
_SCALARS = ("string", "number", "integer", "boolean")
_TYPES = (*_SCALARS, "array", "object")
_MEMBERS = ("properties", "required", "enum")

Note = Callable[[str], None]
"""Reports what a capability file cannot say, in one sentence."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A schema after its references and combinations: one type, or None if it accepts any value."""

    type: str | None
    nullable: bool
    schema: Schema
    trail: frozenset[str]
    """The references that led here: one that returns to itself is not followed again."""


class SchemaReader:
    """Reads the schemas of one definition for one purpose: `writes` reads arguments, otherwise answers are read."""

    def __init__(self, definition: Definition, *, writes: bool) -> None:
        self._definition = definition
        self._hidden = "readOnly" if writes else "writeOnly"

    def read(self, node: Any, note: Note, trail: frozenset[str] = frozenset()) -> Shape:
        """Return the shape of a schema."""
        found = as_map(node)
        reference = as_text(found.get("$ref"))
        if reference in trail and reference:
            note(f"{reference.rpartition('/')[2]} contains itself: the inner one is returned unchanged")
            return Shape("object", False, {}, trail)
        if self._definition.is_external(found):
            note(f"the reference {reference!r} leads to another file, which is not read: any value is accepted")
        trail = trail | {reference} if reference else trail
        schema = self._definition.resolve(found)
        nullable = schema.get("nullable") is True
        if "allOf" in schema:
            schema = self._merge(schema, [self.read(part, note, trail) for part in as_list(schema["allOf"])])
        for word in ("oneOf", "anyOf"):
            if word in schema:
                parts = [self.read(part, note, trail) for part in as_list(schema[word])]
                nullable = nullable or any(part.type == "null" or part.nullable for part in parts)
                schema = self._choose(schema, word, [part for part in parts if part.type != "null"], note)
        kind, more = self._read_type(schema, note)
        if "const" in schema:
            schema = {**schema, "enum": [schema["const"]]}
        return Shape(kind, nullable or more, schema, trail)

    def list_properties(self, shape: Shape) -> Mapping[str, Any]:
        """Return the properties that are sent, or received."""
        return {
            name: child
            for name, child in as_map(shape.schema.get("properties")).items()
            if self._definition.resolve(child).get(self._hidden) is not True
        }

    def walk_members(
        self, shape: Shape, levels: int, names: tuple[str, ...] = ()
    ) -> Iterator[tuple[tuple[str, ...], Shape]]:
        """Yield the members of an answer, and those of objects in it, with their names from the top."""
        if shape.type != "object" or levels == 0:
            return
        for name, child in self.list_properties(shape).items():
            inner = self.read(child, ignore, shape.trail)
            yield (*names, name), inner
            yield from self.walk_members(inner, levels - 1, (*names, name))

    def _read_type(self, schema: Schema, note: Note) -> tuple[str | None, bool]:
        """Return the type, and whether null is accepted too."""
        declared = schema.get("type")
        kinds = [declared] if isinstance(declared, str) else as_list(declared)
        nullable = "null" in kinds and len(kinds) > 1
        kinds = [kind for kind in kinds if kind in _TYPES or (kind == "null" and not nullable)]
        if len(kinds) > 1 and set(kinds) != {"integer", "number"}:
            note(f"accepts {' or '.join(kinds)}: only {kinds[0]} is used")
        if kinds:
            return ("number" if len(kinds) > 1 and "number" in kinds and kinds[0] == "integer" else kinds[0]), nullable
        if "properties" in schema or "additionalProperties" in schema:
            return "object", nullable
        if "items" in schema:
            return "array", nullable
        values = [value for value in (*as_list(schema.get("enum")), schema.get("const")) if value is not None]
        if values and all(isinstance(value, str) for value in values):
            return "string", nullable
        return None, nullable

    def _merge(self, schema: Schema, parts: Sequence[Shape]) -> Schema:
        """Return `allOf` as one schema."""
        merged: dict[str, Any] = {}
        for part in (*(part.schema for part in parts), {key: schema[key] for key in schema if key != "allOf"}):
            properties = {**as_map(merged.get("properties")), **as_map(part.get("properties"))}
            required = [*as_list(merged.get("required")), *as_list(part.get("required"))]
            merged |= part
            merged |= {"properties": properties} if properties else {}
            merged |= {"required": list(dict.fromkeys(required))} if required else {}
        kinds = [part.type for part in parts if part.type is not None]
        return {"type": kinds[0], **merged} if kinds and "type" not in merged else merged

    def _choose(self, schema: Schema, word: str, parts: Sequence[Shape], note: Note) -> Schema:
        """Return `oneOf` or `anyOf` as one schema: objects are united, of other types the first is taken."""
        own = {key: value for key, value in schema.items() if key not in ("oneOf", "anyOf", "discriminator")}
        kinds = list(dict.fromkeys(part.type for part in parts))
        if not parts:
            return own
        if len(parts) == 1:
            return self._merge(own, parts)
        if kinds == ["object"]:
            note(f"is one of {len(parts)} shapes ({word}): their members are united, and all may be left out")
            shared = set.intersection(*(set(as_list(part.schema.get("required"))) for part in parts))
            united = self._merge({}, [*parts, Shape("object", False, own, frozenset())])
            own_names = as_list(own.get("required"))
            return {**united, "required": [*own_names, *(name for name in shared if name not in own_names)]}
        choices = [as_list(part.schema.get("enum")) for part in parts]
        if len(kinds) == 1 and all(choices):
            return {**own, "type": kinds[0], "enum": [value for values in choices for value in values]}
        if len(kinds) == 1 and kinds[0] in _SCALARS:
            note(f"is one of {len(parts)} forms of {kinds[0]} ({word}): the API checks them")
            return {**own, "type": kinds[0]}
        used = kinds[0] or "the first"
        note(f"is one of {', '.join(str(kind) for kind in kinds)} ({word}): only {used} is used")
        return {**own, **parts[0].schema}

    # --- arguments ----------------------------------------------------------------------------------------------

    def build_fragment(self, shape: Shape, note: Note, depth: int = 1) -> dict[str, Any]:
        """Return a schema with one type, in the keywords that all clients accept. Other keywords are reported."""
        kind = shape.type
        schema = shape.schema
        if kind in (None, "null"):
            note("accepts any value: text is sent")
            kind = "string"
        fragment: dict[str, Any] = {"type": kind}
        facts = [describe(as_text(schema.get("description")), "", 160)] if schema.get("description") else []
        listed = [value for value in as_list(schema.get("enum")) if value is not None]
        choices = [value for value in listed if _is_of_type(value, str(kind))]
        if len(choices) < len(listed):
            note(f"some of its values are not of the type {kind}: they are left out")
        if choices:
            fragment["enum"] = choices
            if kind != "string":
                facts.append(f"One of {', '.join(str(value) for value in choices[:20])}.")
        default = schema.get("default")
        if default is not None and not isinstance(default, (dict, list)) and len(str(default)) <= 40:
            shown = str(default).lower() if isinstance(default, bool) else str(default)
            if shown and not any(shown in fact for fact in facts):
                facts.append(f"Default: {shown}.".replace("{{", "{").replace("}}", "}"))
        ignored = [word for word in _IGNORED if word in schema]
        if ignored:
            note(f"{' and '.join(ignored)} is not checked before a call: the API checks it")
        if kind == "string":
            fragment |= self._read_text_rules(schema, note)
        elif kind in ("number", "integer"):
            fragment |= _read_number_rules(schema, kind, note)
        elif kind == "array":
            fragment |= {word: schema[word] for word in ("minItems", "maxItems") if _is_count(schema.get(word))}
            if schema.get("uniqueItems") is True:
                fragment["uniqueItems"] = True
                facts.append("Each once.")
            items = self.read(schema.get("items"), note, shape.trail)
            fragment["items"] = self.build_fragment(items, note, depth + 1)
        elif kind == "object":
            fragment |= self._read_members(shape, note, depth)
        if facts:
            fragment["description"] = " ".join(facts)
        return fragment

    def _read_text_rules(self, schema: Schema, note: Note) -> dict[str, Any]:
        rules = {word: schema[word] for word in ("minLength", "maxLength") if _is_count(schema.get(word))}
        if schema.get("format") in _FORMATS:
            rules["format"] = schema["format"]
        pattern = as_text(schema.get("pattern"))
        if pattern:
            try:
                re.compile(pattern)
            except (re.error, RecursionError, OverflowError):
                note(f"the pattern {pattern[:60]!r} is not checked before a call")
            else:
                rules["pattern"] = pattern
        return rules

    def _read_members(self, shape: Shape, note: Note, depth: int) -> dict[str, Any]:
        properties = self.list_properties(shape)
        others = shape.schema.get("additionalProperties")
        if not properties:
            is_map = isinstance(others, dict) and others and depth < MAX_DEPTH
            values = self.build_fragment(self.read(others, note, shape.trail), note, depth + 1) if is_map else None
            return {} if values is None else {"additionalProperties": values}
        odd = [name for name in properties if not _PUBLISHED_NAME.fullmatch(name)]
        if odd or depth >= MAX_DEPTH:
            why = f"the name {odd[0][:60]!r}, which some clients refuse" if odd else "too many levels"
            note(f"has {why}: its members are not described")
            return {}
        if isinstance(others, dict) and others:
            note("accepts further members: only those that are named are described")
        members: dict[str, Any] = {}
        for name, child in properties.items():
            inner_note = prefix_note(note, name)
            inner = self.read(child, inner_note, shape.trail)
            members[name] = self.build_fragment(inner, inner_note, depth + 1)
        required = [name for name in as_list(shape.schema.get("required")) if name in members]
        return {"properties": members} | ({"required": required} if required else {})

    # --- answers ------------------------------------------------------------------------------------------------

    def build_output(self, shape: Shape, mapping: str | None, note: Note, depth: int = 1) -> dict[str, Any]:
        """Return an output parameter of this shape, read at `mapping`."""
        kind = shape.type
        at = {} if mapping is None else {"mapping": mapping}
        if kind in _SCALARS:
            return {"type": "number" if kind == "integer" else kind, "mapping": mapping or "$"}
        if kind == "array":
            items = self.read(shape.schema.get("items"), note, shape.trail)
            inside = "$" if items.type in (*_SCALARS, "array") else None
            return {"type": "array", **at, "items": self.build_output(items, inside, note, depth + 1)}
        if kind != "object":
            note("may be any value: only an object is returned")
        properties: dict[str, Any] = {}
        if depth <= MAX_DEPTH:
            for name, child in self.list_properties(shape).items():
                path = write_path(name)
                if name == "_links" and depth > 1:
                    continue
                if path is None:
                    note(f"the member {name[:60]!r} cannot be written as a path: it is not returned")
                    continue
                inner_note = prefix_note(note, name)
                inner = self.read(child, inner_note, shape.trail)
                properties[name] = self.build_output(inner, path, inner_note, depth + 1)
        return {"type": "object", **at, "properties": properties}


def ignore(_: str) -> None:
    """Report nothing: the answer is read once more when its outputs are written, and reported then."""


def prefix_note(note: Note, name: str) -> Note:
    """Return a function that reports what concerns the member of this name."""
    return lambda text: note(f"{name}: {text}")


def write_path(*names: str) -> str | None:
    """Return the JSONPath of nested members; None if a name cannot be written in one."""
    path = "$"
    for name in names:
        if _PATH_NAME.fullmatch(name):
            path += f".{name}"
        elif "'" in name or "\\" in name:
            return None
        else:
            path += f"['{name}']"
    return path


def _read_number_rules(schema: Schema, kind: str, note: Note) -> dict[str, Any]:
    rules = {word: schema[word] for word in ("minimum", "maximum") if _is_number(schema.get(word))}
    for word, exclusive, step in (("minimum", "exclusiveMinimum", 1), ("maximum", "exclusiveMaximum", -1)):
        bound = schema.get(exclusive)
        bound = rules.get(word) if bound is True else bound  # OpenAPI 3.0 has a boolean next to the bound
        if not _is_number(bound):
            continue
        if kind == "integer" and isinstance(bound, int):
            rules[word] = bound + step
        else:
            rules[word] = bound
            note(f"{exclusive} {bound} is checked as {word}: the API refuses the bound itself")
    return rules


_CHECKS: Mapping[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "number": lambda value: _is_number(value),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


def _is_of_type(value: Any, kind: str) -> bool:
    return _CHECKS[kind](value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
