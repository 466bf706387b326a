"""This server as an OAuth protected resource: its metadata (RFC 9728), its challenges (RFC 6750), and its routes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from itwin_mcp.capability.tool_actions import Access
from itwin_mcp.hosting.tokens import list_scopes

WELL_KNOWN = "/.well-known/oauth-protected-resource"


def build_refusal(status: int, error: str, description: str, **headers: str) -> JSONResponse:
    """Return a response that refuses a request; `error` is for programs, `description` for people."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = {"error": error, "error_description": description}
    return JSONResponse(body, status, {"cache-control": "no-store", **named})


@dataclass(frozen=True, slots=True)
class ProtectedResource:
    """This server as its callers know it: its public address and the server that signs them in."""

    address: str
    issuer: str
    first: Access = Access.READ
    """The access that a caller without a token is asked to request. A call that needs more asks for more."""

    @property
    def metadata_address(self) -> str:
        """The public address of the metadata."""
        parts = urlsplit(self.address)
        return urlunsplit((parts.scheme, parts.netloc, WELL_KNOWN + parts.path.rstrip("/"), "", ""))

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The metadata document. It omits `offline_access`, which a resource never asks for."""
        return {
            "resource": self.address,
            "authorization_servers": [self.issuer],
            "scopes_supported": list_scopes(self.first),
            "bearer_methods_supported": ["header"],
            "resource_name": "itwin-mcp",
        }

    def build_unauthorized(self, reason: str | None = None) -> JSONResponse:
        """Return a 401. Without `reason` no token was sent, and RFC 6750 then wants no error code in the challenge."""
        error = {} if reason is None else {"error": "invalid_token", "error_description": reason}
        description = reason or "Send an access token for this server"
        return self._challenge(401, error, self.first, "unauthorized", description)

    def build_insufficient_scope(self, needed: Access) -> JSONResponse:
        """Return a 403 that names every scope the call needs, so that the client asks the user only once."""
        description = "The token does not allow this call"
        error = {"error": "insufficient_scope", "error_description": description}
        return self._challenge(403, error, needed, "insufficient_scope", description)

    def _challenge(
        self, status: int, error: Mapping[str, str], needed: Access, code: str, description: str
    ) -> JSONResponse:
        parameters = {**error, "scope": " ".join(list_scopes(needed)), "resource_metadata": self.metadata_address}
        challenge = "Bearer " + ", ".join(f'{name}="{value}"' for name, value in parameters.items())
        return build_refusal(status, error.get("error", code), description, www_authenticate=challenge)


@dataclass(frozen=True, slots=True)
class ResourceRoutes:
    """Serve the metadata to anyone, pass the app's own paths to `app`, and answer 404 to everything else."""

    app: ASGIApp
    path: str
    resource: ProtectedResource
    prefixes: tuple[str, ...] = ()
    """The app's paths besides the protocol's, each with all that is below it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == self.path or scope["path"].startswith(self.prefixes):
            await self.app(scope, receive, send)
            return
        if scope["path"] in self._metadata_paths() and scope["method"] in ("GET", "HEAD"):
            response = JSONResponse(self.resource.metadata, headers={"cache-control": "public, max-age=3600"})
        else:
            response = build_refusal(404, "not_found", "Not found")
        await response(scope, receive, send)

    def _metadata_paths(self) -> tuple[str, ...]:
        """Return the paths that clients try, by the public path and by ours: a proxy may strip a prefix."""
        public = urlsplit(self.resource.address).path.rstrip("/")
        return WELL_KNOWN, WELL_KNOWN + public, WELL_KNOWN + self.path
