"""The sign-in server: OpenID discovery, its keys, and the page on which somebody signs in; tokens are in `tokens.py`.

An application registers its redirect address by the first sign-in; from then on it must be exactly that.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from datetime import timedelta
from typing import Final
from urllib.parse import urlencode, urlsplit

from itwin_mcp.sandbox import identity, sign_in_page, tokens
from itwin_mcp.sandbox.identity import SCOPE, Client
from itwin_mcp.sandbox.store import stamp
from itwin_mcp.sandbox.tokens import OAuthError
from itwin_mcp.sandbox.wire import Answer, Call, Route, ok

CODE_LIFE: Final = timedelta(minutes=5)
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_ADDRESS: Final = re.compile(r"[a-z][a-z0-9+.-]*:[\x21-\x7e]+", re.IGNORECASE)
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_UNSAFE_SCHEMES: Final = ("javascript", "data", "vbscript", "file", "blob", "about")
_ANSWERS: Final = ("user", "decision")  # what the page's form adds


def discover(call: Call) -> Answer:
    """OpenID Connect Discovery 1.0, with what Bentley's clients and PKCE ask for."""
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
            "scopes_supported": [SCOPE, tokens.OFFLINE, *tokens.PERSONAL],
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": list(tokens.GRANTS),
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "token_endpoint_auth_methods_supported": methods,
            "revocation_endpoint_auth_methods_supported": methods,
            "code_challenge_methods_supported": ["S256"],
            "prompt_values_supported": ["none", "login", "consent", "select_account"],
            "authorization_response_iss_parameter_supported": True,
        }
    )


def get_keys(call: Call) -> Answer:
    """The public half of the signing key."""
    key = identity.signing_key(call.sql, call.now)
    public = key.as_dict(private=False)
    return ok({"keys": [{**public, "use": "sig", "alg": "RS256", "kid": key.kid}]})


def get_user(call: Call) -> Answer:
    """OpenID Connect Core 5.3."""
    return ok(identity.person_claims(call.sql, identity.find_user(call.sql, call.caller.id)))


def authorize(call: Call) -> Answer:
    """The page, or what came of it: GET shows it, POST is its form."""
    try:
        given = tokens.parameters(call.query.pairs) if call.method == "GET" else tokens.form(call)
        if call.headers.get("sec-fetch-site", "same-origin") != "same-origin" and call.method == "POST":
            raise OAuthError("invalid_request", "Only the page itself may send its form.")
        client, redirect_uri = _application(call, given)
    except OAuthError as error:
        return sign_in_page.failure(error.code, error.description)
    try:
        scopes = _check_request(client, given)
        answer = _ask if call.method == "GET" else _grant
        return answer(call, client, given, scopes)
    except OAuthError as error:
        return _redirect(call, redirect_uri, given, {"error": error.code, "error_description": error.description})


def _ask(call: Call, client: Client, given: Mapping[str, str], scopes: tuple[str, ...]) -> Answer:
    prompts = given.get("prompt", "").split()
    if "none" in prompts:
        if len(prompts) > 1:
            raise OAuthError("invalid_request", "The prompt 'none' must stand alone.")
        # The sandbox keeps no session in the browser, so that somebody is always asked.
        raise OAuthError("login_required", "Somebody has to sign in.")
    people = identity.people(call.sql)
    hint = given.get("login_hint", "").lower()
    chosen = next((one["id"] for one in people if hint in (one["id"], one["email"].lower())), people[0]["id"])
    hidden = {name: value for name, value in given.items() if name not in _ANSWERS}
    return sign_in_page.consent(client, people, chosen, scopes, hidden)


def _grant(call: Call, client: Client, given: Mapping[str, str], scopes: tuple[str, ...]) -> Answer:
    if given.get("decision") != "allow":
        raise OAuthError("access_denied", "The user did not consent.")
    user = next((one for one in identity.people(call.sql) if one["id"] == given.get("user")), None)
    if user is None:
        raise OAuthError("access_denied", "Nobody was chosen to sign in.")
    identity.register(call.sql, client, call.now, redirect_uri=given["redirect_uri"])
    code = secrets.token_urlsafe(32)
    call.sql.execute(
        "INSERT INTO oauth_codes (code_hash, client_id, user_id, redirect_uri, scope, code_challenge, "
        "code_challenge_method, nonce, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            tokens.digest(code),
            client.id,
            user["id"],
            given["redirect_uri"],
            " ".join(scopes),
            given.get("code_challenge"),
            "S256" if "code_challenge" in given else None,
            given.get("nonce"),
            stamp(call.now + CODE_LIFE),
        ),
    )
    return _redirect(call, given["redirect_uri"], given, {"code": code})


def _application(call: Call, given: Mapping[str, str]) -> tuple[Client, str]:
    """The application and its redirect address; where they are in doubt nothing is sent back to it."""
    client = identity.find_client(call.sql, given.get("client_id", ""), "native")
    if client is None:
        raise OAuthError("invalid_request", "The client_id is missing or malformed.")
    if client.kind == "service":
        raise OAuthError("unauthorized_client", "A service application has nobody who could sign in.")
    redirect_uri = given.get("redirect_uri", "")
    if client.redirect_uris and redirect_uri not in client.redirect_uris:
        known = ", ".join(client.redirect_uris)
        raise OAuthError("invalid_request", f"The redirect_uri is not the registered one. Registered: {known}")
    if not _is_address(redirect_uri):
        raise OAuthError(
            "invalid_request", "The redirect_uri must be an https or loopback address, or an app's own scheme."
        )
    return client, redirect_uri


def _check_request(client: Client, given: Mapping[str, str]) -> tuple[str, ...]:
    if given.get("response_type") != "code":
        raise OAuthError("unsupported_response_type", "Only the response type 'code' is supported.")
    if given.get("response_mode", "query") != "query":
        raise OAuthError("invalid_request", "Only the response mode 'query' is supported.")
    for name in ("request", "request_uri"):
        if name in given:
            raise OAuthError(f"{name}_not_supported", "Request objects are not supported.")
    if "resource" in given:
        raise OAuthError("invalid_target", "Resource indicators are not supported.")
    if "code_challenge" not in given:
        if client.is_public:
            raise OAuthError("invalid_request", "A code_challenge is required.")
    elif given.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(given["code_challenge"]):
        raise OAuthError("invalid_request", "The code_challenge must be made with S256.")
    return tokens.scopes_of(given.get("scope"), client)


def _redirect(call: Call, redirect_uri: str, given: Mapping[str, str], parameters: Mapping[str, str]) -> Answer:
    """Back to the application, with its state and our issuer (RFC 9207)."""
    state = {"state": given["state"]} if "state" in given else {}
    query = urlencode({**parameters, **state, "iss": call.base_url})
    location = f"{redirect_uri}{'&' if urlsplit(redirect_uri).query else '?'}{query}"
    return Answer(302 if call.method == "GET" else 303, None, {"Location": location, "Cache-Control": "no-store"})


def _is_address(text: str) -> bool:
    if not _ADDRESS.fullmatch(text) or "#" in text:
        return False
    try:
        parts = urlsplit(text)
        host = parts.hostname
    except ValueError:
        return False
    if parts.scheme == "http":
        return host in _LOOPBACK
    return bool(host) if parts.scheme == "https" else parts.scheme not in _UNSAFE_SCHEMES


ROUTES: Final = (
    Route("GET", "/.well-known/openid-configuration", discover, signed_in=False),
    Route("GET", "/.well-known/openid-configuration/jwks", get_keys, signed_in=False),
    Route("GET", "/connect/authorize", authorize, signed_in=False),
    Route("POST", "/connect/authorize", authorize, signed_in=False),
    Route("GET", "/connect/userinfo", get_user),
    Route("POST", "/connect/userinfo", get_user, writes=False),
)
