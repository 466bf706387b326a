"""`resources/list`, `resources/templates/list` and `resources/read`, the same way as a tool call."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import mcp.types as t
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.shared.uri_template import UriTemplate

from itwin_mcp.capability.catalog import Catalog, Resource, StaticResource
from itwin_mcp.executor.blobs import Blob
from itwin_mcp.executor.conversation import Caller
from itwin_mcp.executor.executor import Executor
from itwin_mcp.server.conversation import McpConversation
from itwin_mcp.server.results import compact, outcome

_NOT_FOUND = frozenset({404})


class Resources:
    """The resources and resource templates of one server."""

    def __init__(self, catalog: Catalog, executor: Executor, caller: Callable[[], Caller]) -> None:
        self._executor = executor
        self._caller = caller
        self._skills = catalog.skills
        self._statics = {static.uri: static for static in catalog.statics}
        self._fixed = [resource for resource in catalog.resources if not resource.variables]
        self._templates = [
            (UriTemplate.parse(resource.uri), resource) for resource in catalog.resources if resource.variables
        ]

    async def list(self, _: ServerRequestContext[Any], __: t.PaginatedRequestParams | None) -> t.ListResourcesResult:
        """The resources with one address; of a skill its SKILL.md, which links to its other files."""
        skills = [skill.files[0] for skill in self._skills()]
        listed: list[Resource | StaticResource] = [*self._fixed, *self._statics.values(), *skills]
        return t.ListResourcesResult(
            resources=[
                t.Resource(
                    name=one.name, title=one.title, uri=one.uri, description=one.description, mime_type=one.mime_type
                )
                for one in listed
            ]
        )

    async def list_templates(
        self, _: ServerRequestContext[Any], __: t.PaginatedRequestParams | None
    ) -> t.ListResourceTemplatesResult:
        """The templates, one per kind of entity."""
        return t.ListResourceTemplatesResult(
            resource_templates=[
                t.ResourceTemplate(
                    name=one.name,
                    title=one.title,
                    uri_template=one.uri,
                    description=one.description,
                    mime_type=one.mime_type,
                )
                for _, one in self._templates
            ]
        )

    async def read(
        self, context: ServerRequestContext[Any], params: t.ReadResourceRequestParams
    ) -> t.ReadResourceResult:
        """Read one resource. A resource that is not there, or never could be, is -32602 with its `uri`."""
        uri = str(params.uri)
        static = self._static(uri)
        if static is not None:
            guide = t.TextResourceContents(uri=uri, mime_type=static.mime_type, text=static.text)
            return t.ReadResourceResult(contents=[guide], ttl_ms=300_000, cache_scope="public")
        resource, variables = self._match(uri)
        content: list[Blob] = []

        async def perform() -> dict[str, Any]:
            found = await self._executor.read(resource, variables, McpConversation(context), self._caller())
            if isinstance(found, Blob):
                content.append(found)
                return {}
            return found

        structured, is_error = await outcome(f"resources/read {resource.name}", perform)
        if is_error:
            error = structured["error"]
            absent = error.get("status") in _NOT_FOUND or error["code"] == "InvalidArguments"
            code = t.INVALID_PARAMS if absent else t.INTERNAL_ERROR
            raise MCPError(code, f"{error['message']} {error['hint']}", {"uri": uri, "error": error})
        if content:
            blob = base64.b64encode(content[0].content).decode()
            return t.ReadResourceResult(
                contents=[t.BlobResourceContents(uri=uri, mime_type=content[0].media_type, blob=blob)]
            )
        text = compact(structured)
        return t.ReadResourceResult(contents=[t.TextResourceContents(uri=uri, mime_type=resource.mime_type, text=text)])

    def _static(self, uri: str) -> StaticResource | None:
        if not uri.startswith("skill://"):
            return self._statics.get(uri)
        return next((file for skill in self._skills() for file in skill.files if file.uri == uri), None)

    def _match(self, uri: str) -> tuple[Resource, dict[str, str]]:
        for resource in self._fixed:
            if resource.uri == uri:
                return resource, {}
        for template, resource in self._templates:
            found = template.match(uri)
            if found is not None:
                return resource, {name: str(value) for name, value in found.items()}
        raise MCPError(t.INVALID_PARAMS, "Resource not found", {"uri": uri[:2048]})
