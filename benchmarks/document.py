"""The OpenAPI document for FastMCP: every platform operation that the capability files consume."""

from itwin_mcp.capability.documents import find_shipped_files
from itwin_mcp.capability.linker import link_files
from itwin_mcp.capability.operations import Slot
from itwin_mcp.settings import PLATFORM_ORIGIN


def make_document(base_url: str) -> dict:
    paths: dict = {}
    for operation in link_files(find_shipped_files()).operations.values():
        if operation.origin != PLATFORM_ORIGIN:
            continue
        path = "/" + "/".join(
            "".join(f"{{{part.name}}}" if isinstance(part, Slot) else part for part in segment)
            for segment in operation.path
        )
        entry: dict = {
            "operationId": operation.name.replace("-", "_"),
            "summary": operation.name.replace("-", " ").capitalize(),
            "parameters": [
                {
                    "name": parameter.wire,
                    "in": parameter.place,
                    "required": parameter.place == "path",
                    "schema": {"type": "string"},
                }
                for parameter in operation.parameters
                if parameter.place != "header"
            ],
            "responses": {"200": {"description": "The answer."}},
        }
        if operation.body is not None and isinstance(operation.body.data, dict):
            schema = {"type": "object", "properties": {name: {} for name in operation.body.data}}
            entry["requestBody"] = {"content": {"application/json": {"schema": schema}}}
        paths.setdefault(path, {}).setdefault(
            operation.method.lower(), entry
        )  # two operations may consume the same method and path
    info = {"title": "iTwin Platform", "version": "1"}
    return {"openapi": "3.1.0", "info": info, "servers": [{"url": base_url}], "paths": paths}
