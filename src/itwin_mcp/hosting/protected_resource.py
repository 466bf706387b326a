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
    """Return a response that refuses a request. `error` is for programs, `description` for people."""
    extra = {name.replace("_", "-"): value for name, value in headers.items()}
    body = {"error": error, "error_description": description}
    return JSONResponse(body, status, {"cache-control": "no-store", **extra})


@dataclass(frozen=True, slots=True)
class ProtectedResource:
    """The public address of this server, and the server that signs its callers in."""

    address: str
    issuer: str
    first: Access = Access.READ
    """The access that a caller without a token should request first."""

    @property
    def metadata_address(self) -> str:
        """The public address of the metadata."""
        parts = urlsplit(self.address)
        return urlunsplit((parts.scheme, parts.netloc, WELL_KNOWN + parts.path.rstrip("/"), "", ""))

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The metadata document (RFC 9728). It omits the scope `offline_access`, which clients add themselves."""
        return {
            "resource": self.address,
            "authorization_servers": [self.issuer],
            "scopes_supported": list_scopes(self.first),
            "bearer_methods_supported": ["header"],
            "resource_name": "itwin-mcp",
        }

    def build_unauthorized(self, reason: str | None = None) -> JSONResponse:
        """Return a 401. `reason` is None if no token was sent: RFC 6750 then wants no error code in the challenge."""
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
        # Clients derive the path from the public address. A proxy may strip a prefix of it, so ours may differ.
        public_path = urlsplit(self.resource.address).path.rstrip("/")
        metadata_paths = (WELL_KNOWN, WELL_KNOWN + public_path, WELL_KNOWN + self.path)
        if scope["path"] in metadata_paths and scope["method"] in ("GET", "HEAD"):
            response = JSONResponse(self.resource.metadata, headers={"cache-control": "public, max-age=3600"})
        else:
            response = build_refusal(404, "not_found", "Not found")
        await response(scope, receive, send)
