"""OAuth 2.0 parameters, scopes and errors, shared by the endpoints of the sign-in server."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from typing import Final
from urllib.parse import parse_qsl

from itwin_mcp.sandbox.identity.access_tokens import SCOPE
from itwin_mcp.sandbox.identity.clients import Client
from itwin_mcp.sandbox.wire import Call

OFFLINE_SCOPE: Final = "offline_access"
PERSONAL_SCOPES: Final = ("openid", "profile", "email", "organization")


class OAuthError(Exception):
    """An error answer in OAuth's form (RFC 6749, section 5.2)."""

    def __init__(self, code: str, description: str, status: int = 400) -> None:
        self.code = code
        self.description = description
        self.status = status
        super().__init__(f"{code}: {description}")


def read_parameters(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return OAuth parameters by name. An empty value counts as absent (RFC 6749, section 3.1).

    Raises:
        OAuthError: If a parameter is given more than once.
    """
    parameters: dict[str, str] = {}
    for name, value in pairs:
        if name in parameters:
            raise OAuthError("invalid_request", f"The parameter {name} is given more than once.")
        if value:
            parameters[name] = value
    return parameters


def read_form(call: Call) -> dict[str, str]:
    """Return the OAuth parameters of a form in the request's body."""
    try:
        return read_parameters(parse_qsl(call.body.decode("utf-8"), max_num_fields=100, errors="strict"))
    except ValueError as error:
        raise OAuthError("invalid_request", "The parameters are malformed.") from error


def read_scopes(text: str | None, client: Client) -> tuple[str, ...]:
    """Return the requested scopes.

    A service application may not request scopes about a person (reference section 5).

    Raises:
        OAuthError: If there are none, or one is not allowed for the application.
    """
    allowed = (SCOPE,) if client.kind == "service" else (SCOPE, OFFLINE_SCOPE, *PERSONAL_SCOPES)
    requested = tuple(dict.fromkeys((text or "").split()))
    if not requested:
        raise OAuthError("invalid_scope", f"The scope is missing; it is '{SCOPE}'.")
    if unknown := [scope for scope in requested if scope not in allowed]:
        raise OAuthError("invalid_scope", f"Not a scope for this application: {' '.join(unknown)}")
    return requested


def hash_token(text: str) -> str:
    """Return the SHA-256 of a code, token or verifier in the encoding of PKCE. The store contains only hashes."""
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii").rstrip("=")
