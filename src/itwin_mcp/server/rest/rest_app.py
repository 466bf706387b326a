"""The ASGI app that serves routes: finds the route of a request, calls its tool, and answers with the outcome.

Everything that a tool call passes is in the executor. Host, Origin and tokens are checked by the middleware around it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from itwin_mcp.capability.routes import Route
from itwin_mcp.capability.tool_actions import Access
from itwin_mcp.errors import ErrorCode
from itwin_mcp.executor.context import Caller
from itwin_mcp.executor.pipeline import Executor
from itwin_mcp.server.rest.openapi import build_document
from itwin_mcp.server.rest.request_arguments import BadRequest, read_arguments, split_path
from itwin_mcp.server.rest.responses import build_json, build_refusal, to_response
from itwin_mcp.server.transports.disconnect import cancel_on_disconnect

PREFIX = "rest"
"""The first segment of every path."""
OPENAPI = "openapi.json"
_OWN_SITES = (b"same-origin", b"none")


@dataclass(frozen=True, slots=True)
class Found:
    """The route of a request, and the values in its path."""

    route: Route
    in_path: Mapping[str, str]


class RestApp:
    """Serves routes under `/rest/NAMESPACE/…`, and the OpenAPI document of each namespace."""

    def __init__(self, routes: Sequence[Route], executor: Executor, get_caller: Callable[[], Caller]) -> None:
        """`get_caller` returns the caller of the current request."""
        self._executor = executor
        self._get_caller = get_caller
        self._routes: dict[str, list[Route]] = {}
        # A path without slots is tried first, so that /ships/newest is not the ship "newest".
        for route in sorted(routes, key=lambda route: not route.is_fixed_path):
            self._routes.setdefault(route.namespace, []).append(route)

    @property
    def namespaces(self) -> tuple[str, ...]:
        return tuple(self._routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            response = await self._answer(scope, receive)
            if response is not None:
                await response(scope, receive, send)

    def serves(self, scope: Scope) -> bool:
        """Return whether a request is for this app."""
        return bool(scope["path"].startswith(f"/{PREFIX}/"))

    def find_access(self, scope: Scope) -> Access:
        """Return the access that a request needs; READ for one that reaches no operation."""
        try:
            found = self._find(scope["method"], split_path(scope))
        except BadRequest:
            return Access.READ
        return found.route.tool.access if isinstance(found, Found) else Access.READ

    async def note_refused(self, scope: Scope, caller: Caller) -> None:
        """Write to the audit log that a caller's token does not allow a request."""
        found = self._find(scope["method"], split_path(scope))
        if isinstance(found, Found):
            await self._executor.note_refused(
                ErrorCode.INSUFFICIENT_SCOPE, found.route.tool, dict(found.in_path), caller
            )

    async def _answer(self, scope: Scope, receive: Receive) -> Response | None:
        """Return the response; None if the client went away before there was one."""
        if _comes_from_another_site(scope["headers"]):
            return build_refusal(403, "CrossSite", "Requests from pages of other sites are refused.")
        try:
            segments = split_path(scope)
            if segments[2:] == (OPENAPI,) and segments[1] in self._routes and scope["method"] == "GET":
                return build_json(200, self._describe(segments[1]))
            found = self._find(scope["method"], segments, self._get_caller())
            if not isinstance(found, Found):
                return self._explain_missing(found, segments)
            arguments = await read_arguments(found.route, found.in_path, scope, receive)
        except BadRequest as error:
            headers = {"connection": "close"} if error.status == 413 else {}
            return build_refusal(error.status, "BadRequest", str(error), headers=headers)
        return await self._call(found.route, arguments, receive)

    async def _call(self, route: Route, arguments: Mapping[str, Any], receive: Receive) -> Response | None:
        """Call the tool of a route; a call whose client goes away is cancelled, as over MCP."""
        response: Response | None = None
        with cancel_on_disconnect(receive):
            outcome = await self._executor.call(route.tool, arguments, caller=self._get_caller())
            response = to_response(route, outcome)
        return response  # noqa: RET504 - None if the block was cancelled

    def _find(self, method: str, segments: Sequence[str], caller: Caller | None = None) -> Found | list[str]:
        """Return the route of a request, or the methods that its path has instead.

        With a caller, only what the caller is shown counts.
        """
        if len(segments) < 2 or segments[0] != PREFIX:
            return []
        methods: list[str] = []
        for route in self._routes.get(segments[1], ()):
            in_path = route.match(segments[2:])
            if in_path is None or (caller is not None and not self._executor.shows(caller, route.tool)):
                continue
            if route.method == method:
                return Found(route, in_path)
            methods.append(route.method)
        return methods

    def _explain_missing(self, methods: list[str], segments: Sequence[str]) -> Response:
        if methods:
            allowed = ", ".join(sorted(set(methods)))
            return build_refusal(405, "MethodNotAllowed", f"This path takes {allowed}.", headers={"allow": allowed})
        if len(segments) > 1 and segments[1] in self._routes:
            hint = f"GET /{PREFIX}/{segments[1]}/{OPENAPI} lists the operations."
        else:
            hint = f"The namespaces are: {', '.join(sorted(self._routes))}."
        return build_refusal(404, "NotFound", "There is no such path.", hint)

    def _describe(self, namespace: str) -> dict[str, Any]:
        """Return the OpenAPI document with the operations that the caller may call."""
        caller = self._get_caller()
        shown = [route for route in self._routes[namespace] if self._executor.shows(caller, route.tool)]
        return build_document(namespace, shown, f"/{PREFIX}/{namespace}")


def _comes_from_another_site(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Return whether a browser says that a page of another site caused the request.

    A GET for a picture or a link carries no Origin, which the middleware around this app would check.
    """
    names = {name for name, _ in headers}
    sites = [value for name, value in headers if name == b"sec-fetch-site"]
    return b"origin" not in names and any(site not in _OWN_SITES for site in sites)
