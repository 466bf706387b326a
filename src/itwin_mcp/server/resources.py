"""`resources/list`, `resources/templates/list` and `resources/read`. Reads pass the same stages as tool calls."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import mcp.types as t
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.shared.uri_template import UriTemplate

from itwin_mcp.capability.catalog import Catalog, Resource, StaticResource
from itwin_mcp.errors import ErrorCode
from itwin_mcp.executor.context import Caller
from itwin_mcp.executor.outcome import Failure, Result
from itwin_mcp.executor.pipeline import Executor
from itwin_mcp.server.conversation import McpConversation


class Resources:
    """The resources and resource templates of one server."""

    def __init__(self, catalog: Catalog, executor: Executor, get_caller: Callable[[], Caller]) -> None:
        self._executor = executor
        self._get_caller = get_caller
        self._skills = catalog.skills
        self._statics = {static.uri: static for static in catalog.statics}
        self._fixed = [resource for resource in catalog.resources if not resource.variables]
        self._templates = [
            (UriTemplate.parse(resource.uri), resource) for resource in catalog.resources if resource.variables
        ]

    async def list(self, _: ServerRequestContext[Any], __: t.PaginatedRequestParams | None) -> t.ListResourcesResult:
        """Return every resource with a fixed URI. Of a skill, only SKILL.md is listed: it links to the other files."""
        skills = [skill.files[0] for skill in self._skills()]
        resources: list[Resource | StaticResource] = [*self._fixed, *self._statics.values(), *skills]
        return t.ListResourcesResult(
            resources=[
                t.Resource(
                    name=resource.name,
                    title=resource.title,
                    uri=resource.uri,
                    description=resource.description,
                    mime_type=resource.mime_type,
                )
                for resource in resources
            ]
        )

    async def list_templates(
        self, _: ServerRequestContext[Any], __: t.PaginatedRequestParams | None
    ) -> t.ListResourceTemplatesResult:
        """Return the resource templates, one per kind of entity."""
        return t.ListResourceTemplatesResult(
            resource_templates=[
                t.ResourceTemplate(
                    name=resource.name,
                    title=resource.title,
                    uri_template=resource.uri,
                    description=resource.description,
                    mime_type=resource.mime_type,
                )
                for _, resource in self._templates
            ]
        )

    async def read(
        self, context: ServerRequestContext[Any], params: t.ReadResourceRequestParams
    ) -> t.ReadResourceResult:
        """Read one resource. If it does not exist, the error is -32602 with its `uri`."""
        uri = str(params.uri)
        static = self._find_static(uri)
        if static is not None:
            text = t.TextResourceContents(uri=uri, mime_type=static.mime_type, text=static.text)
            return t.ReadResourceResult(contents=[text], ttl_ms=300_000, cache_scope="public")
        resource, variables = self._match(uri)
        outcome = await self._executor.read(resource, variables, McpConversation(context), self._get_caller())
        if isinstance(outcome, Failure):
            error = outcome.answer["error"]
            is_absent = error.get("status") == 404 or error["code"] == ErrorCode.INVALID_ARGUMENTS
            code = t.INVALID_PARAMS if is_absent else t.INTERNAL_ERROR
            raise MCPError(code, f"{error['message']} {error['hint']}", {"uri": uri, "error": error})
        assert isinstance(outcome, Result)
        if outcome.blobs:
            blob = outcome.blobs[0]
            data = base64.b64encode(blob.content).decode()
            return t.ReadResourceResult(
                contents=[t.BlobResourceContents(uri=uri, mime_type=blob.media_type, blob=data)]
            )
        text = t.TextResourceContents(uri=uri, mime_type=resource.mime_type, text=outcome.text)
        return t.ReadResourceResult(contents=[text])

    def _find_static(self, uri: str) -> StaticResource | None:
        if not uri.startswith("skill://"):
            return self._statics.get(uri)
        return next((file for skill in self._skills() for file in skill.files if file.uri == uri), None)

    def _match(self, uri: str) -> tuple[Resource, dict[str, str]]:
        for resource in self._fixed:
            if resource.uri == uri:
                return resource, {}
        for template, resource in self._templates:
            variables = template.match(uri)
            if variables is not None:
                return resource, {name: str(value) for name, value in variables.items()}
        raise MCPError(t.INVALID_PARAMS, "Resource not found", {"uri": uri[:2048]})
