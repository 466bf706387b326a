"""The sign-in server's discovery document, its public keys and its user info endpoint."""

from __future__ import annotations

from itwin_mcp.sandbox.identity import jwt, oauth, token_endpoint, users
from itwin_mcp.sandbox.identity.access_tokens import SCOPE
from itwin_mcp.sandbox.wire import Answer, Call, ok


def get_discovery(call: Call) -> Answer:
    """Return the discovery document (OpenID Connect Discovery 1.0) with the members that Bentley's clients read."""
    issuer = call.base_url
    methods = ["client_secret_basic", "client_secret_post", "none"]
    return ok(
        {
            "issuer": issuer,
            "authorization_endpoint": f"{issuer}/connect/authorize",
            "token_endpoint": f"{issuer}/connect/token",
            "userinfo_endpoint": f"{issuer}/connect/userinfo",
            "revocation_endpoint": f"{issuer}/connect/revocation",
            "jwks_uri": f"{issuer}/.well-known/openid-configuration/jwks",
            "scopes_supported": [SCOPE, oauth.OFFLINE_SCOPE, *oauth.PERSONAL_SCOPES],
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": list(token_endpoint.GRANTS),
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "token_endpoint_auth_methods_supported": methods,
            "revocation_endpoint_auth_methods_supported": methods,
            "code_challenge_methods_supported": ["S256"],
            "prompt_values_supported": ["none", "login", "consent", "select_account"],
            "authorization_response_iss_parameter_supported": True,
        }
    )


def get_public_keys(call: Call) -> Answer:
    key = jwt.load_signing_key(call.sql, call.now)
    public = key.as_dict(private=False)
    return ok({"keys": [{**public, "use": "sig", "alg": "RS256", "kid": key.kid}]})


def get_user_info(call: Call) -> Answer:
    """Return the claims of the signed-in user (OpenID Connect Core, section 5.3)."""
    return ok(users.make_user_claims(call.sql, users.find_user(call.sql, call.caller.id)))
