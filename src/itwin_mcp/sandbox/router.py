"""Find the route of a request by method and path, and check its Accept header."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

from itwin_mcp.sandbox.errors import ApiError, make_resource_not_found
from itwin_mcp.sandbox.operations import OPERATIONS, Operation
from itwin_mcp.sandbox.wire import Route

VERSIONS: Final[Mapping[str, str]] = {"itwins": "v1", "imodels": "v2", "accesscontrol": "v2", "users": "v1"}
COMPLETE_APIS: Final = frozenset({"itwins", "imodels"})
VENDOR_PREFIX: Final = "application/vnd.bentley."


@dataclass(slots=True)
class _Node:
    """A node in the tree of path segments."""

    words: dict[str, _Node] = field(default_factory=dict)
    slot: _Node | None = None
    is_path: bool = False
    routes: dict[str, tuple[Route, tuple[str, ...]]] = field(default_factory=dict)

    def find(self, segments: tuple[str, ...]) -> tuple[_Node, tuple[str, ...]] | None:
        """Return the node of a path and the values of its slots. A literal segment takes precedence over a slot."""
        if not segments:
            return (self, ()) if self.is_path else None
        first, others = segments[0], segments[1:]
        child = self.words.get(first.lower())
        if child is not None and (match := child.find(others)) is not None:
            return match
        if self.slot is not None and first and (match := self.slot.find(others)) is not None:
            return match[0], (first, *match[1])
        return None


class Router:
    """The tree of all routes.

    It includes documented paths without a handler. Otherwise `exports` in such a path would match a slot for an id.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self._root = _Node()
        documented = {operation.slug: operation for operation in OPERATIONS}
        for operation in OPERATIONS:
            self._add_path(operation.path)
        for route in routes:
            if route.slug and _get_shape(route) != _get_shape(documented[route.slug]):
                raise ValueError(f"{route.slug} is documented as {documented[route.slug]}, not as {route.path}")
            node, names = self._add_path(route.path)
            if route.method in node.routes:
                raise ValueError(f"{route.method} {route.path} is served twice")
            node.routes[route.method] = (route, names)

    def match(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """Return the route of a raw path and the values of its slots. Case and a trailing slash are ignored.

        Raises:
            ApiError: If nothing serves the method and path.
        """
        # Split before decoding: a slash inside an id stays inside it.
        segments = tuple(unquote(part) for part in path.removesuffix("/").split("/")[1:])
        match = self._root.find(segments)
        entry = match[0].routes.get(method) if match else None
        if match is None or entry is None:
            raise _make_unknown_operation_error(method, segments, path)
        route, names = entry
        return route, dict(zip(names, match[1], strict=True))

    def _add_path(self, path: str) -> tuple[_Node, tuple[str, ...]]:
        node, names = self._root, []
        for part in path.removesuffix("/").split("/")[1:]:
            if part.startswith("{"):
                names.append(part[1:-1])
                node.slot = node.slot or _Node()
                node = node.slot
            else:
                node = node.words.setdefault(part.lower(), _Node())
        node.is_path = True
        return node, tuple(names)


def _make_unknown_operation_error(method: str, segments: tuple[str, ...], path: str) -> ApiError:
    """Return the error for a request that no operation serves.

    In the completely emulated APIs it is the gateway's 404. Elsewhere the platform may have an operation that we do not
    emulate, so the error is `NotEmulated`.
    """
    if segments and segments[0].lower() in COMPLETE_APIS:
        return make_resource_not_found()
    return ApiError("NotEmulated", f"{method} {unquote(path)} is not emulated by this sandbox.")


def check_accept(accept: str, path: str) -> None:
    """Reject an Accept header that names only other versions of the API.

    A header without a version, such as that of Bentley's iTwins client, is accepted.

    Raises:
        ApiError: `ResourceNotFound`.
    """
    version = VERSIONS.get(path.split("/")[1].lower())
    accepted = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    names_only_versions = all(media_type.startswith(VENDOR_PREFIX) for media_type in accepted)
    if version is not None and names_only_versions and f"{VENDOR_PREFIX}itwin-platform.{version}+json" not in accepted:
        raise make_resource_not_found()


def _get_shape(operation: Route | Operation) -> tuple[str, tuple[str, ...]]:
    """Return the method and the path without the names of its slots."""
    return operation.method, tuple("{}" if part.startswith("{") else part for part in operation.path.split("/"))
