"""The authorization endpoint, where a user signs in with a browser and consents.

The first sign-in registers the redirect URI of an application. Later ones must use exactly that URI.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from datetime import timedelta
from typing import Final
from urllib.parse import urlencode, urlsplit

from itwin_mcp.sandbox.identity import clients, oauth, sign_in_pages, users
from itwin_mcp.sandbox.identity.clients import Client
from itwin_mcp.sandbox.identity.oauth import OAuthError
from itwin_mcp.sandbox.store import format_timestamp
from itwin_mcp.sandbox.wire import Answer, Call

CODE_LIFETIME: Final = timedelta(minutes=5)
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_ADDRESS: Final = re.compile(r"[a-z][a-z0-9+.-]*:[\x21-\x7e]+", re.IGNORECASE)
_LOOPBACK_HOSTS: Final = ("localhost", "127.0.0.1", "::1")
_UNSAFE_SCHEMES: Final = ("javascript", "data", "vbscript", "file", "blob", "about")
_FORM_FIELDS: Final = ("user", "decision")  # added by the form of the consent page


def authorize(call: Call) -> Answer:
    """Show the consent page on GET, and redirect to the application when its form is posted."""
    try:
        parameters = oauth.read_parameters(call.query.pairs) if call.method == "GET" else oauth.read_form(call)
        if call.headers.get("sec-fetch-site", "same-origin") != "same-origin" and call.method == "POST":
            raise OAuthError("invalid_request", "The form must be submitted from the sign-in page.")
        client, redirect_uri = _identify_application(call, parameters)
    except OAuthError as error:
        return sign_in_pages.render_error_page(error.code, error.description)
    try:
        scopes = _check_request(client, parameters)
        answer = _ask_for_consent if call.method == "GET" else _grant_code
        return answer(call, client, parameters, scopes)
    except OAuthError as error:
        return _redirect_to_application(
            call, redirect_uri, parameters, {"error": error.code, "error_description": error.description}
        )


def _ask_for_consent(call: Call, client: Client, parameters: Mapping[str, str], scopes: tuple[str, ...]) -> Answer:
    prompts = parameters.get("prompt", "").split()
    if "none" in prompts:
        if len(prompts) > 1:
            raise OAuthError("invalid_request", "The prompt 'none' cannot be combined with others.")
        # The sandbox keeps no session in the browser, so the user must always sign in.
        raise OAuthError("login_required", "The user must sign in.")
    people = users.list_people(call.sql)
    hint = parameters.get("login_hint", "").lower()
    selected = next(
        (person["id"] for person in people if hint in (person["id"], person["email"].lower())), people[0]["id"]
    )
    hidden = {name: value for name, value in parameters.items() if name not in _FORM_FIELDS}
    return sign_in_pages.render_consent_page(client, people, selected, scopes, hidden)


def _grant_code(call: Call, client: Client, parameters: Mapping[str, str], scopes: tuple[str, ...]) -> Answer:
    if parameters.get("decision") != "allow":
        raise OAuthError("access_denied", "The user did not consent.")
    user = next((person for person in users.list_people(call.sql) if person["id"] == parameters.get("user")), None)
    if user is None:
        raise OAuthError("access_denied", "No user was selected.")
    clients.register_client(call.sql, client, call.now, redirect_uri=parameters["redirect_uri"])
    code = secrets.token_urlsafe(32)
    call.sql.execute(
        "INSERT INTO oauth_codes (code_hash, client_id, user_id, redirect_uri, scope, code_challenge, "
        "code_challenge_method, nonce, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            oauth.hash_token(code),
            client.id,
            user["id"],
            parameters["redirect_uri"],
            " ".join(scopes),
            parameters.get("code_challenge"),
            "S256" if "code_challenge" in parameters else None,
            parameters.get("nonce"),
            format_timestamp(call.now + CODE_LIFETIME),
        ),
    )
    return _redirect_to_application(call, parameters["redirect_uri"], parameters, {"code": code})


def _identify_application(call: Call, parameters: Mapping[str, str]) -> tuple[Client, str]:
    """Return the application and its redirect URI.

    Raises:
        OAuthError: If either is invalid. The error must be shown to the user and not sent to the redirect URI.
    """
    client = clients.find_client(call.sql, parameters.get("client_id", ""), "native")
    if client is None:
        raise OAuthError("invalid_request", "The client_id is missing or malformed.")
    if client.kind == "service":
        raise OAuthError("unauthorized_client", "A service application cannot sign in users.")
    redirect_uri = parameters.get("redirect_uri", "")
    if client.redirect_uris and redirect_uri not in client.redirect_uris:
        registered = ", ".join(client.redirect_uris)
        raise OAuthError("invalid_request", f"The redirect_uri is not the registered one. Registered: {registered}")
    if not _is_redirect_uri(redirect_uri):
        raise OAuthError(
            "invalid_request", "The redirect_uri must be an https or loopback address, or an app's own scheme."
        )
    return client, redirect_uri


def _check_request(client: Client, parameters: Mapping[str, str]) -> tuple[str, ...]:
    """Check the parameters of an authorization request and return the requested scopes."""
    if parameters.get("response_type") != "code":
        raise OAuthError("unsupported_response_type", "Only the response type 'code' is supported.")
    if parameters.get("response_mode", "query") != "query":
        raise OAuthError("invalid_request", "Only the response mode 'query' is supported.")
    for name in ("request", "request_uri"):
        if name in parameters:
            raise OAuthError(f"{name}_not_supported", "Request objects are not supported.")
    if "resource" in parameters:
        raise OAuthError("invalid_target", "Resource indicators are not supported.")
    if "code_challenge" not in parameters:
        if client.is_public:
            raise OAuthError("invalid_request", "A code_challenge is required.")
    elif parameters.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(parameters["code_challenge"]):
        raise OAuthError("invalid_request", "The code_challenge must be made with S256.")
    return oauth.read_scopes(parameters.get("scope"), client)


def _redirect_to_application(
    call: Call, redirect_uri: str, parameters: Mapping[str, str], answer: Mapping[str, str]
) -> Answer:
    """Redirect to the application with an answer, its `state` and our issuer (RFC 9207)."""
    state = {"state": parameters["state"]} if "state" in parameters else {}
    query = urlencode({**answer, **state, "iss": call.base_url})
    location = f"{redirect_uri}{'&' if urlsplit(redirect_uri).query else '?'}{query}"
    return Answer(302 if call.method == "GET" else 303, None, {"Location": location, "Cache-Control": "no-store"})


def _is_redirect_uri(text: str) -> bool:
    if not _ADDRESS.fullmatch(text) or "#" in text:
        return False
    try:
        parts = urlsplit(text)
        host = parts.hostname
    except ValueError:
        return False
    if parts.scheme == "http":
        return host in _LOOPBACK_HOSTS
    return bool(host) if parts.scheme == "https" else parts.scheme not in _UNSAFE_SCHEMES
