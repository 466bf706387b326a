"""Paths and handlers of the sign-in server."""

from __future__ import annotations

from typing import Final

from itwin_mcp.sandbox.identity import authorization, discovery, token_endpoint
from itwin_mcp.sandbox.wire import Route

ROUTES: Final = (
    Route("GET", "/.well-known/openid-configuration", discovery.get_discovery, signed_in=False),
    Route("GET", "/.well-known/openid-configuration/jwks", discovery.get_public_keys, signed_in=False),
    Route("GET", "/connect/authorize", authorization.authorize, signed_in=False),
    Route("POST", "/connect/authorize", authorization.authorize, signed_in=False),
    Route("GET", "/connect/userinfo", discovery.get_user_info),
    Route("POST", "/connect/userinfo", discovery.get_user_info, writes=False),
    Route("POST", "/connect/token", token_endpoint.issue_token, signed_in=False),
    Route("POST", "/connect/revocation", token_endpoint.revoke_token, signed_in=False),
)
