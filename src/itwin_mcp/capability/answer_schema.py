"""The JSON Schema of a tool's whole answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from itwin_mcp.capability.tool_actions import Output

if TYPE_CHECKING:
    from itwin_mcp.capability.schema_types import JsonSchema

RESERVED_OUTPUTS = frozenset({"error", "job", "page", "preview", "resolved", "truncated", "warnings"})
"""Members that the engine adds to an answer, or returns instead of it."""

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
        "notRead": {"type": "object"},
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
        "about": {"type": "object"},
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


def build_output_schema(
    output: Output,
    schema: JsonSchema,
    *,
    paged: bool,
    cut: bool,
    waits: bool,
    resolves: bool,
    confirms: bool = False,
) -> JsonSchema:
    """Return the schema of a tool's whole answer, which is the output, a job, a preview or an error.

    Args:
        paged: The caller pages through a list.
        cut: Steps may return only a part of a list. The member `page` then reports that.
        waits: The tool may return a job that has not finished.
        resolves: Arguments may be names. The member `resolved` shows them with their ids.
        confirms: The tool may return a preview for the user to confirm.
    """
    properties: dict[str, Any] = dict(schema.get("properties", {}))
    if paged or cut:
        properties["page"] = _PAGE
    if waits:
        properties["job"] = _JOB
    if confirms:
        properties["preview"] = _PREVIEW
    if resolves:
        properties["resolved"] = _RESOLVED
    properties |= {"truncated": _TRUNCATED, "warnings": _WARNINGS, "error": _ERROR}
    alternatives = [name for name in ("job", "preview", "error") if name in properties]
    answers = [[name for name, _ in output.properties], *([name] for name in alternatives)]
    return {"type": "object", "properties": properties, "anyOf": [{"required": names} for names in answers]}
