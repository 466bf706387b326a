"""Input and output parameters, and the JSON Schema (draft 2020-12) that they mean."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from itwin_mcp.capability.catalog import ChangesetForm, ToolArgument
from itwin_mcp.capability.expressions import ABSENT, Path
from itwin_mcp.capability.extensions import Entity, EntityForm
from itwin_mcp.capability.flows import (
    Mapped,
    MappedArray,
    MappedObject,
    MappedScalar,
    Orchestrated,
    OrchestratedArray,
    OrchestratedObject,
    ToolInput,
)
from itwin_mcp.capability.fragments import check_fragment, check_values
from itwin_mcp.capability.node import JsonSchema
from itwin_mcp.capability.place import Place
from itwin_mcp.capability.plans import Output
from itwin_mcp.capability.published import is_nullable, names_in, publish
from itwin_mcp.capability.wording import shorten

ENTITY_SCHEMA: JsonSchema = {"type": "string", "minLength": 1, "maxLength": 2048}

_LIMIT = {
    "type": "integer",
    "minimum": 1,
    "maximum": 10_000,
    "default": 50,
    "description": "How many items in all.",
}
_CURSOR = {
    "type": "string",
    "minLength": 1,
    "maxLength": 4096,
    "description": "Goes on where an earlier answer's page.cursor stopped.",
}
_FIELDS = {
    "type": "string",
    "enum": ["default", "all"],
    "default": "default",
    "description": "all: every field of each item.",
}
FILE_PATH = "filePath"
OVERWRITE = "overwrite"
CLEAR = "clear"
"""The argument that lists the arguments whose values are removed."""
LOCAL_PATH: JsonSchema = {"type": "string", "minLength": 1, "maxLength": 4096}
_FILE_PATH = {
    "upload": "Local file to read, in a folder that the person allowed.",
    "download": "Local file to write, in a folder that the person allowed.",
}
_OVERWRITE = {"type": "boolean", "default": False, "description": "Replace the file if it is there already."}


_PUBLISHED_NAME = re.compile(r"[A-Za-z0-9_-]{1,60}")

RESERVED_OUTPUTS = frozenset({"error", "job", "page", "preview", "resolved", "truncated", "warnings"})
"""What the engine puts beside an answer, or in its place."""


def argument(name: str, parameter: ToolInput, place: Place) -> ToolArgument:
    """One argument as it is published and enforced; what is wrong with it is reported at its place."""
    if parameter.entity is not None and parameter.type != "string":
        message = f"an argument that names an entity is text, not {parameter.type!r}: make its type string"
        place.at("x-entity").report("x-entity", message)
    sound = check_fragment(parameter.x_schema, place.at("x-schema"))
    fragment = parameter.x_schema if sound and parameter.x_schema else {}
    for each in (name, *names_in(fragment)):
        if not _PUBLISHED_NAME.fullmatch(each):
            message = f"the name {shorten(each)!r} is refused by some clients: use at most 60 letters, digits, - and _"
            place.report("name", message)
    schema: dict[str, Any] = {"type": parameter.type}
    if parameter.entity is not None:
        schema |= ENTITY_SCHEMA
    schema["description"] = parameter.description
    schema |= fragment
    if sound:
        check_values(schema, place.at("x-schema"))
    default = schema.get("default", ABSENT)
    required = parameter.required and default is ABSENT
    entity, changeset = _entity(parameter.entity)
    return ToolArgument(name, schema, required, entity, default, changeset=changeset)


def _entity(word: Entity | EntityForm | None) -> tuple[str | None, ChangesetForm | None]:
    if isinstance(word, EntityForm):
        return word.kind, ChangesetForm(word.takes == "id", word.baseline)
    return word, ChangesetForm() if word == "changeset" else None


def page_arguments() -> tuple[ToolArgument, ...]:
    """The arguments that every tool takes which reaches a paged operation."""
    return (
        ToolArgument("limit", _LIMIT, False, None, _LIMIT["default"]),
        ToolArgument("cursor", _CURSOR, False, None, ABSENT),
        ToolArgument("fields", _FIELDS, False, None, _FIELDS["default"]),
    )


def file_arguments(direction: Literal["upload", "download"]) -> tuple[ToolArgument, ...]:
    """The arguments that every tool takes which moves a local file."""
    schema = {**LOCAL_PATH, "description": _FILE_PATH[direction]}
    if direction == "upload":
        return (ToolArgument(FILE_PATH, schema, True, None, ABSENT, "source"),)
    overwrite = ToolArgument(OVERWRITE, _OVERWRITE, False, None, _OVERWRITE["default"])
    return (ToolArgument(FILE_PATH, schema, True, None, ABSENT, "target"), overwrite)


def wait_argument(default: int) -> ToolArgument:
    """The argument that every tool takes which starts or follows a job."""
    schema = {
        "type": "integer",
        "minimum": 0,
        "maximum": 55,
        "default": default,
        "description": "Seconds to wait for it to finish; 0 returns at once.",
    }
    return ToolArgument("wait", schema, False, None, default)


def removable_arguments(arguments: Sequence[ToolArgument]) -> list[str]:
    """Return the names of the arguments whose values `clear` can remove."""
    return [argument.name for argument in arguments if is_nullable(argument.schema)]


def clear_argument(arguments: Sequence[ToolArgument]) -> tuple[ToolArgument, ...]:
    """The argument that every tool takes with arguments whose values can be removed: those that are nullable."""
    removable = removable_arguments(arguments)
    if not removable:
        return ()
    schema = {
        "type": "array",
        "items": {"type": "string", "enum": removable},
        "description": "Values to remove; arguments that are left out, empty or null change nothing.",
    }
    return (ToolArgument(CLEAR, schema, False, None, ABSENT),)


def published_schema(arguments: Sequence[ToolArgument]) -> JsonSchema:
    """Return the schema of a tool's arguments as clients read it; rules across arguments are not in it."""
    schema: JsonSchema = {"type": "object", "properties": {one.name: publish(one.schema) for one in arguments}}
    required = [one.name for one in arguments if one.required]
    return schema | ({"required": required} if required else {})


def enforced_schema(arguments: Sequence[ToolArgument], rule: Mapping[str, Any]) -> JsonSchema:
    """Return the schema that converted arguments must fit; `rule` is the tool's own rule across arguments."""
    return {
        "type": "object",
        "properties": {one.name: dict(one.schema) for one in arguments},
        "additionalProperties": False,
        "required": [one.name for one in arguments if one.required],
        **rule,
    }


# --- outputs ----------------------------------------------------------------------------------------------------

_ERROR = {
    "type": "object",
    "properties": {
        "code": {"type": "string"},
        "message": {"type": "string"},
        "retryable": {"type": "boolean"},
        "hint": {"type": "string"},
    },
    "required": ["code", "message", "retryable", "hint"],
}
_PAGE = {
    "type": "object",
    "properties": {
        "returned": {"type": "integer"},
        "complete": {"type": "boolean"},
        "cursor": {"type": "string"},
        "total": {"type": "integer"},
        "stoppedBecause": {"type": "string"},
        "note": {"type": "string"},
    },
    "required": ["returned", "complete"],
}
_JOB = {
    "type": "object",
    "properties": {
        "operation": {"type": "string"},
        "state": {"type": ["string", "null"]},
        "checkWith": {"type": "string"},
    },
    "required": ["operation", "state"],
}
_RESOLVED = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "argument": {"type": "string"},
            "given": {"type": "string"},
            "id": {"type": "string"},
            "index": {"type": "integer"},
        },
        "required": ["argument", "given"],
    },
}
_PREVIEW = {
    "type": "object",
    "properties": {
        "question": {"type": "string"},
        "loses": {"type": "object"},
        "expiresAt": {"type": "string"},
        "approveWith": {"type": "string"},
        "hint": {"type": "string"},
    },
    "required": ["question", "loses", "expiresAt", "hint"],
}
_WARNINGS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "path": {"type": "string"},
            "expected": {"type": "string"},
            "got": {"type": "string"},
            "count": {"type": "integer"},
        },
        "required": ["path", "expected", "got", "count"],
    },
}
_TRUNCATED = {"type": "object", "properties": {"fields": {"type": "array"}}}


def output_schema(
    output: Output,
    schema: JsonSchema,
    *,
    paged: bool,
    cut: bool,
    waits: bool,
    resolves: bool,
    confirms: bool = False,
) -> JsonSchema:
    """The schema of a tool's whole answer: what the operation gives, or a job, a preview or an error.

    `cut` says that steps may give less than there is, and say so.
    """
    properties: dict[str, Any] = dict(schema.get("properties", {}))
    answers: list[JsonSchema] = [{"required": [name for name, _ in output.properties]}]
    if paged or cut:
        properties["page"] = _PAGE
    if waits:
        properties["job"] = _JOB
        answers.append({"required": ["job"]})
    if confirms:
        properties["preview"] = _PREVIEW
        answers.append({"required": ["preview"]})
    if resolves:
        properties["resolved"] = _RESOLVED
    properties["truncated"] = _TRUNCATED
    properties["warnings"] = _WARNINGS
    properties["error"] = _ERROR
    answers.append({"required": ["error"]})
    return {"type": "object", "properties": properties, "anyOf": answers}


def mapped_output(parameter: Mapped, place: Place, name: str = "") -> tuple[Output, JsonSchema]:
    """An output parameter of a single call, compiled, and the schema that it means.

    Every value that the platform owns is nullable, except the objects of a list; unknown fields are allowed. What is
    wrong is reported at its place.
    """
    mapping = parameter.mapping
    path = place.at("mapping").path_of(mapping) if mapping is not None else None
    check_fragment(parameter.x_schema, place.at("x-schema"))
    more = _annotations(parameter.x_schema)
    if isinstance(parameter, MappedObject):
        parts = [
            (key, *mapped_output(child, place.at("properties", key), key))
            for key, child in parameter.properties.items()
        ]
        schema: JsonSchema = {"type": ["object", "null"] if name else "object"}
        if parts:
            schema["properties"] = {key: child_schema for key, _, child_schema in parts}
        return Output("object", path, properties=tuple((key, child) for key, child, _ in parts)), schema | more
    if isinstance(parameter, MappedArray):
        items, items_schema = mapped_output(parameter.items, place.at("items"))
        return Output("array", path, items=items), {"type": ["array", "null"], "items": items_schema} | more
    header = parameter.header
    output = Output(
        parameter.type,
        path,
        literal=_literal(parameter, place),
        header=header.name.lower() if header else None,
        last_segment="last-segment" in (parameter.take, header.take if header else None),
    )
    return output, {"type": [parameter.type, "null"]} | more


def _annotations(fragment: JsonSchema | None) -> JsonSchema:
    """Return what a fragment says of an output that no answer of the platform can contradict."""
    return {name: value for name, value in (fragment or {}).items() if name in ("title", "description")}


def _literal(parameter: MappedScalar, place: Place) -> str | float | bool | None:
    """The format writes static values as text; they are of the parameter's type."""
    sources = [source for source in (parameter.mapping, parameter.value, parameter.header) if source is not None]
    if len(sources) != 1:
        message = f"an output of type {parameter.type!r} needs exactly one of `mapping`, `value` and `x-header`"
        place.report("output", message)
    value = parameter.value
    if value is None or parameter.type == "string":
        return value
    if parameter.type == "boolean" and value in ("true", "false"):
        return value == "true"
    if parameter.type == "number":
        try:
            number = json.loads(value)
        except ValueError:
            number = None
        if isinstance(number, (int, float)) and not isinstance(number, bool) and math.isfinite(number):
            return number
    place.at("value").report("output", f"{shorten(value)!r} is not a {parameter.type}")
    return None


def orchestrated_output(
    parameters: Mapping[str, Orchestrated], place: Place, *, root: bool = True
) -> tuple[Output, JsonSchema]:
    """The output parameters of a flow, whose values its mappings place, and the schema that they mean."""
    parts: list[tuple[str, Output]] = []
    schemas: dict[str, JsonSchema] = {}
    for name, parameter in parameters.items():
        here = place.at(name)
        check_fragment(parameter.x_schema, here.at("x-schema"))
        more = _annotations(parameter.x_schema)
        path = Path(f"$['{name}']", (name,))
        if isinstance(parameter, OrchestratedObject):
            child, schema = orchestrated_output(parameter.properties, here.at("properties"), root=False)
            parts.append((name, Output("object", path, properties=child.properties)))
            schemas[name] = schema | more
        elif isinstance(parameter, OrchestratedArray):
            child, schema = orchestrated_output(parameter.items, here.at("items"), root=False)
            # The format describes only elements with fields: without any, every element is passed on.
            items = Output("object", None, properties=child.properties) if parameter.items else None
            parts.append((name, Output("array", path, items=items)))
            schemas[name] = {"type": ["array", "null"]} | more
            if items is not None:
                schemas[name]["items"] = schema | {"type": "object"}
        else:
            parts.append((name, Output(parameter.type, path, last_segment=parameter.take == "last-segment")))
            schemas[name] = {"type": [parameter.type, "null"]} | more
    result: JsonSchema = {"type": "object" if root else ["object", "null"]}
    if schemas:
        result["properties"] = schemas
    return Output("object", None, properties=tuple(parts)), result


def choices_of(schema: Mapping[str, Any]) -> Sequence[Any]:
    """Return the values that an argument, or each element of it, may have; empty if they are not listed."""
    items = schema.get("items")
    choices = schema.get("enum") or (items.get("enum") if isinstance(items, dict) else None)
    return choices if isinstance(choices, list) else ()
