"""Input and output parameters, and the JSON Schema (draft 2020-12) that they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from itwin_mcp.capability.catalog import Output, ToolArgument
from itwin_mcp.capability.expressions import ABSENT, ExpressionError, compile_path
from itwin_mcp.capability.extensions import JsonSchema
from itwin_mcp.capability.model import (
    Mapped,
    MappedArray,
    MappedObject,
    MappedScalar,
    Orchestrated,
    OrchestratedArray,
    OrchestratedObject,
    ToolInput,
)

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


def argument(name: str, parameter: ToolInput) -> ToolArgument:
    """One argument as it is published and enforced."""
    schema: dict[str, Any] = {"type": parameter.type}
    if parameter.entity is not None:
        schema |= ENTITY_SCHEMA
    schema["description"] = parameter.description
    schema |= parameter.x_schema or {}
    default = schema.get("default", ABSENT)
    required = parameter.required and default is ABSENT
    return ToolArgument(name, schema, required, parameter.entity, default)


def page_arguments() -> tuple[ToolArgument, ...]:
    """The arguments that every tool takes which reaches a paged operation."""
    return (
        ToolArgument("limit", _LIMIT, False, None, _LIMIT["default"]),
        ToolArgument("cursor", _CURSOR, False, None, ABSENT),
    )


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


def input_schema(arguments: Sequence[ToolArgument], more: JsonSchema | None = None) -> JsonSchema:
    """The schema of a tool's arguments; `more` is the tool's own rule across arguments."""
    schema: JsonSchema = {
        "type": "object",
        "properties": {one.name: dict(one.schema) for one in arguments},
        "additionalProperties": False,
    }
    required = [one.name for one in arguments if one.required]
    if required:
        schema["required"] = required
    return schema | (more or {})


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
        "properties": {"argument": {"type": "string"}, "given": {"type": "string"}, "id": {"type": "string"}},
        "required": ["argument", "given", "id"],
    },
}


def output_schema(output: Output, schema: JsonSchema, *, paged: bool, waits: bool, resolves: bool) -> JsonSchema:
    """The schema of a tool's whole answer: what the operation gives, or a job, or an error."""
    properties: dict[str, Any] = dict(schema["properties"])
    answers: list[JsonSchema] = [{"required": [name for name, _ in output.properties]}]
    if paged:
        properties["page"] = _PAGE
    if waits:
        properties["job"] = _JOB
        answers.append({"required": ["job"]})
    if resolves:
        properties["resolved"] = _RESOLVED
    properties["error"] = _ERROR
    answers.append({"required": ["error"]})
    return {"type": "object", "properties": properties, "anyOf": answers}


def mapped_output(parameter: Mapped, name: str = "") -> tuple[Output, JsonSchema]:
    """An output parameter of a single call, compiled, and the schema that it means.

    Scalars are nullable except an `id`; unknown fields are allowed. Raises ExpressionError.
    """
    path = compile_path(parameter.mapping) if parameter.mapping is not None else None
    more = parameter.x_schema or {}
    if isinstance(parameter, MappedObject):
        parts = [(key, *mapped_output(child, key)) for key, child in parameter.properties.items()]
        schema: JsonSchema = {"type": ["object", "null"] if name else "object"}
        if parts:
            schema["properties"] = {key: child_schema for key, _, child_schema in parts}
        return Output("object", path, properties=tuple((key, child) for key, child, _ in parts)), schema | more
    if isinstance(parameter, MappedArray):
        items, items_schema = mapped_output(parameter.items)
        return Output("array", path, items=items), {"type": ["array", "null"], "items": items_schema} | more
    header = parameter.header
    required = name == "id"
    output = Output(
        parameter.type,
        path,
        literal=_literal(parameter),
        header=header.name.lower() if header else None,
        last_segment=header is not None and header.take == "last-segment",
        required=required,
    )
    return output, {"type": parameter.type if required else [parameter.type, "null"]} | more


def _literal(parameter: MappedScalar) -> str | float | bool | None:
    """The format writes static values as text; they are of the parameter's type."""
    if parameter.value is None:
        if parameter.mapping is None and parameter.header is None:
            raise ExpressionError(f"an output of type {parameter.type!r} needs a mapping or a value")
        return None
    if parameter.type == "string":
        return parameter.value
    if parameter.type == "boolean":
        return {"true": True, "false": False}[parameter.value]
    return float(parameter.value)


def orchestrated_output(
    parameters: Mapping[str, Orchestrated], *, root: bool = True
) -> tuple[Output, JsonSchema]:
    """The output parameters of a flow, whose values its mappings place, and the schema that they mean."""
    parts: list[tuple[str, Output]] = []
    schemas: dict[str, JsonSchema] = {}
    for name, parameter in parameters.items():
        more = parameter.x_schema or {}
        path = compile_path(f"$['{name}']")
        if isinstance(parameter, OrchestratedObject):
            child, schema = orchestrated_output(parameter.properties, root=False)
            parts.append((name, Output("object", path, properties=child.properties)))
            schemas[name] = schema | more
        elif isinstance(parameter, OrchestratedArray):
            child, schema = orchestrated_output(parameter.items, root=False)
            items = Output("object", None, properties=child.properties)
            parts.append((name, Output("array", path, items=items)))
            schemas[name] = {"type": ["array", "null"], "items": schema | {"type": "object"}} | more
        else:
            required = name == "id"
            parts.append((name, Output(parameter.type, path, required=required)))
            schemas[name] = {"type": parameter.type if required else [parameter.type, "null"]} | more
    result: JsonSchema = {"type": "object" if root else ["object", "null"]}
    if schemas:
        result["properties"] = schemas
    return Output("object", None, properties=tuple(parts)), result
