"""Routes: tools that are served at a path over HTTP, and the mapping by which every tool can be."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from itwin_mcp.capability.catalog import Tool
from itwin_mcp.capability.operations import PathTemplate, Slot

InputPlace: TypeAlias = Literal["query", "header", "path", "cookie", "body"]


@dataclass(frozen=True, slots=True)
class RouteResponse:
    """A response that a file declares, for the OpenAPI document: its description, and a schema by media type."""

    description: str | None
    content: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One operation that is served over HTTP. A request becomes a call of its tool."""

    namespace: str
    name: str
    method: str
    path: PathTemplate
    tool: Tool
    places: Mapping[str, InputPlace] = field(default_factory=dict)
    """Where each argument arrives that the file declares."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Arguments that the file sets and no request can change."""
    status: int = 200
    media_type: str | None = None
    """The type that a file declares for the bytes that the operation returns; otherwise that of the bytes counts."""
    responses: Mapping[str, RouteResponse] = field(default_factory=dict)
    tags: tuple[str, ...] = ()

    def match(self, segments: Sequence[str]) -> dict[str, str] | None:
        """Return the values of the path's slots, or None if these decoded segments are not this path."""
        if len(segments) != len(self.path):
            return None
        found: dict[str, str] = {}
        for template, segment in zip(self.path, segments, strict=True):
            values = _match_segment(template, segment)
            if values is None:
                return None
            found |= values
        return found

    def find_place(self, argument: str) -> InputPlace:
        """Return where an argument arrives; without a declaration in the query of GET and DELETE, else in the body."""
        return self.places.get(argument, "query" if self.method in ("GET", "DELETE") else "body")

    @property
    def template(self) -> str:
        """Return the path in the form of OpenAPI, below the namespace: `/ships/{imo}`."""
        return "".join("/" + "".join(_show_part(part) for part in segment) for segment in self.path) or "/"

    @property
    def is_fixed_path(self) -> bool:
        """Return whether the path has no slot. Such a path is preferred to one with slots."""
        return not any(isinstance(part, Slot) for segment in self.path for part in segment)


def _match_segment(template: tuple[str | Slot, ...], segment: str) -> dict[str, str] | None:
    pattern = "".join("(.+)" if isinstance(part, Slot) else re.escape(part) for part in template)
    found = re.fullmatch(pattern, segment, re.DOTALL)
    if found is None:
        return None
    return dict(zip((part.name for part in template if isinstance(part, Slot)), found.groups(), strict=True))


def _show_part(part: str | Slot) -> str:
    return f"{{{part.name}}}" if isinstance(part, Slot) else part


def derive_routes(tools: Iterable[Tool]) -> tuple[Route, ...]:
    """Return a route for each tool: `/TOOLSET/TOOL`, with GET for tools that only read and POST for all others.

    A GET takes the arguments from the query, a POST from a JSON object.
    """
    return tuple(_derive_route(tool) for tool in tools)


def _derive_route(tool: Tool) -> Route:
    method = "GET" if tool.annotations.read_only else "POST"
    return Route(tool.toolset, tool.name, method, ((tool.name,),), tool, tags=(tool.toolset,))
