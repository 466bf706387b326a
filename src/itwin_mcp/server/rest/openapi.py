"""Builds the OpenAPI 3.1 document of a namespace from its routes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from itwin_mcp import __version__
from itwin_mcp.capability.catalog import ToolArgument
from itwin_mcp.capability.json_schema import publish
from itwin_mcp.capability.routes import Route
from itwin_mcp.capability.tool_actions import RESULT
from itwin_mcp.server.rest.responses import returns_bytes, wraps_root

JSON = "application/json"
_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {"code": {"type": "string"}, "message": {"type": "string"}, "hint": {"type": "string"}},
            "required": ["code", "message"],
        }
    },
    "required": ["error"],
}
_PREVIEW = {
    "type": "object",
    "properties": {"preview": {"type": "object"}},
    "description": "Nothing was changed: what would be lost, and how the user approves it.",
}


def build_document(namespace: str, routes: Sequence[Route], base: str) -> dict[str, Any]:
    """Return the document; `base` is the path before the paths of the routes."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.template, {})[route.method.lower()] = _describe_operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": namespace, "version": __version__},
        "servers": [{"url": base}],
        "paths": paths,
        "components": {"schemas": {"Error": _ERROR, "Preview": _PREVIEW}},
    }


def _describe_operation(route: Route) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.tool.title,
        "description": route.tool.description,
    }
    if route.tags:
        described["tags"] = list(dict.fromkeys(route.tags))
    arguments = [argument for argument in route.tool.arguments if argument.name not in route.fixed]
    parameters = [_describe_parameter(route, each) for each in arguments if route.find_place(each.name) != "body"]
    if parameters:
        described["parameters"] = parameters
    in_body = [argument for argument in arguments if route.find_place(argument.name) == "body"]
    if in_body:
        required = [argument.name for argument in in_body if argument.required]
        schema: dict[str, Any] = {
            "type": "object",
            "properties": {argument.name: publish(argument.schema) for argument in in_body},
        }
        if required:
            schema["required"] = required
        described["requestBody"] = {"required": bool(required), "content": {JSON: {"schema": schema}}}
    described["responses"] = _describe_responses(route)
    return described


def _describe_parameter(route: Route, argument: ToolArgument) -> dict[str, Any]:
    schema = dict(publish(argument.schema))
    description = schema.pop("description", "")
    place = route.find_place(argument.name)
    return {
        "name": argument.name,
        "in": place,
        "required": argument.required or place == "path",
        "description": description,
        "schema": schema,
    }


def _describe_responses(route: Route) -> dict[str, Any]:
    responses: dict[str, Any] = {str(route.status): _describe_success(route)}
    for code, declared in route.responses.items():
        response: dict[str, Any] = {"description": declared.description or f"Status {code}."}
        if declared.content:
            response["content"] = {media: {"schema": dict(schema)} for media, schema in declared.content.items()}
        responses[code] = response if declared.content else {**responses.get(code, {}), **response}
    if route.tool.confirms:
        responses.setdefault("409", _refer("Preview", "The call needs a confirmation."))
    responses["default"] = _refer("Error", "The request failed.")
    return responses


def _describe_success(route: Route) -> dict[str, Any]:
    if returns_bytes(route.tool):
        media = route.media_type or "application/octet-stream"
        return {"description": "The bytes.", "content": {media: {"schema": {"type": "string", "format": "binary"}}}}
    if route.status in (204, 205):
        return {"description": "Done."}
    schema: Mapping[str, Any] = route.tool.output_schema
    if wraps_root(route.tool):
        schema = schema.get("properties", {}).get(RESULT, schema)
    return {"description": "The answer.", "content": {JSON: {"schema": schema}}}


def _refer(name: str, description: str) -> dict[str, Any]:
    return {"description": description, "content": {JSON: {"schema": {"$ref": f"#/components/schemas/{name}"}}}}
