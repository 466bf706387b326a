"""What a server that asks for tokens says about them: its metadata (RFC 9728) and its challenges (RFC 6750)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from itwin_mcp.capability.access import Access
from itwin_mcp.hosting.answers import Answer, refusal
from itwin_mcp.hosting.scopes import words

WELL_KNOWN = "/.well-known/oauth-protected-resource"


@dataclass(frozen=True, slots=True)
class Resource:
    """This server as its callers know it: its public address, and who signs them in."""

    address: str
    issuer: str
    first: Access = Access.READ
    """What a caller without a token is told to ask for; more follows when a call needs it."""

    @property
    def metadata_address(self) -> str:
        """Where the metadata are, by the public address."""
        parts = urlsplit(self.address)
        return urlunsplit((parts.scheme, parts.netloc, WELL_KNOWN + parts.path.rstrip("/"), "", ""))

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The protected-resource metadata. `offline_access` is nothing that a resource asks for."""
        return {
            "resource": self.address,
            "authorization_servers": [self.issuer],
            "scopes_supported": words(self.first).split(),
            "bearer_methods_supported": ["header"],
            "resource_name": "itwin-mcp",
        }

    def unauthorized(self, told: str | None = None) -> Answer:
        """401. Without `told` no token was sent, and then there is no error to name."""
        error = {} if told is None else {"error": "invalid_token", "error_description": told}
        return self._challenge(401, error, self.first, "unauthorized", told or "Send an access token for this server")

    def insufficient(self, needed: Access) -> Answer:
        """403, with every scope that the call needs at once."""
        told = "The token does not allow this call"
        error = {"error": "insufficient_scope", "error_description": told}
        return self._challenge(403, error, needed, "insufficient_scope", told)

    def _challenge(self, status: int, error: Mapping[str, str], needed: Access, word: str, told: str) -> Answer:
        said = {**error, "scope": words(needed), "resource_metadata": self.metadata_address}
        challenge = "Bearer " + ", ".join(f'{name}="{value}"' for name, value in said.items())
        return refusal(status, error.get("error", word), told, www_authenticate=challenge)
