"""The token endpoint: exchange codes, client credentials and refresh tokens for tokens, and revoke them.

The first use of a client registers it and its secret. Errors have OAuth's form (RFC 6749, section 5.2) and not the
platform's.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import secrets
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final
from urllib.parse import unquote_plus

from itwin_mcp.sandbox.identity import access_tokens, clients, jwt, oauth, users
from itwin_mcp.sandbox.identity.clients import Client
from itwin_mcp.sandbox.identity.oauth import OAuthError
from itwin_mcp.sandbox.store import format_timestamp
from itwin_mcp.sandbox.wire import Answer, Call, Json

TOKEN_SECONDS: Final = 3600
REFRESH_TOKEN_LIFETIME: Final = timedelta(days=30)
_NO_STORE: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}")


def issue_token(call: Call) -> Answer:
    """Exchange a grant for tokens."""
    try:
        parameters = oauth.read_form(call)
        grant = GRANTS.get(parameters.get("grant_type", ""))
        if "grant_type" not in parameters:
            raise OAuthError("invalid_request", "The grant_type is missing.")
        if grant is None:
            raise OAuthError("unsupported_grant_type", f"The grant type '{parameters['grant_type']}' is not supported.")
        if "resource" in parameters:
            raise OAuthError("invalid_target", "Resource indicators are not supported.")
        return Answer(200, grant(call, parameters), _NO_STORE)
    except OAuthError as error:
        return _refuse(call, error)


def revoke_token(call: Call) -> Answer:
    """Revoke a token. An unknown token counts as revoked (RFC 7009)."""
    try:
        parameters = oauth.read_form(call)
        client, _ = _authenticate_client(call, parameters, "native")
        token = parameters.get("token")
        if not token:
            raise OAuthError("invalid_request", "The token is missing.")
        _revoke_if_owned(call, client, token)
    except OAuthError as error:
        return _refuse(call, error)
    return Answer(200, None, _NO_STORE)


def _redeem_code(call: Call, parameters: Mapping[str, str]) -> Json:
    client, secret = _authenticate_client(call, parameters, "native")
    if client.kind == "service":
        raise OAuthError("unauthorized_client", "A service application uses client credentials.")
    family = oauth.hash_token(parameters.get("code", ""))
    row = call.fetch_one("SELECT * FROM oauth_codes WHERE code_hash = ? AND client_id = ?", family, client.id)
    if row is None or row["expires_at"] <= call.timestamp:
        raise OAuthError("invalid_grant", "The code is unknown or has expired.")
    if row["used_at"] is not None:
        _revoke_family(call, family)  # RFC 6749, 4.1.2: the code may have been stolen
        raise OAuthError("invalid_grant", "The code has been used before.")
    if parameters.get("redirect_uri") != row["redirect_uri"]:
        raise OAuthError("invalid_grant", "The redirect_uri is not that of the authorization request.")
    verifier = parameters.get("code_verifier", "")
    if row["code_challenge"] is None:
        if verifier:
            raise OAuthError("invalid_grant", "The authorization request had no code_challenge.")
    elif not _VERIFIER.fullmatch(verifier) or not hmac.compare_digest(
        oauth.hash_token(verifier), row["code_challenge"]
    ):
        raise OAuthError("invalid_grant", "The code_verifier does not match the code_challenge.")
    call.sql.execute("UPDATE oauth_codes SET used_at = ? WHERE code_hash = ?", (call.timestamp, family))
    clients.register_client(call.sql, client, call.now, secret=secret)
    return _issue_tokens(call, client, row["user_id"], tuple(row["scope"].split()), family, nonce=row["nonce"])


def _redeem_refresh_token(call: Call, parameters: Mapping[str, str]) -> Json:
    client, _ = _authenticate_client(call, parameters, "native")
    row = call.fetch_one(
        "SELECT * FROM oauth_refresh_tokens WHERE token_hash = ? AND client_id = ?",
        oauth.hash_token(parameters.get("refresh_token", "")),
        client.id,
    )
    if row is None or row["revoked_at"] is not None or row["expires_at"] <= call.timestamp:
        raise OAuthError("invalid_grant", "The refresh token is unknown, revoked or has expired.")
    if row["used_at"] is not None:
        _revoke_family(call, row["family"])  # RFC 9700, 4.14.2: it or its successor was stolen
        raise OAuthError("invalid_grant", "The refresh token has been used before; sign in again.")
    scopes = tuple(row["scope"].split())
    if "scope" in parameters:
        requested = oauth.read_scopes(parameters["scope"], client)
        if not set(requested) <= set(scopes):
            raise OAuthError("invalid_scope", "The scope exceeds what the user consented to.")
        scopes = requested
    statement = "UPDATE oauth_refresh_tokens SET used_at = ? WHERE token_hash = ?"
    call.sql.execute(statement, (call.timestamp, row["token_hash"]))
    # The next refresh token keeps all scopes of the consent, even if this access token has fewer.
    return _issue_tokens(call, client, row["user_id"], scopes, row["family"], consented=row["scope"])


def _grant_client_credentials(call: Call, parameters: Mapping[str, str]) -> Json:
    client, secret = _authenticate_client(call, parameters, "service")
    if client.kind != "service":
        raise OAuthError("unauthorized_client", "Only a service application may use client credentials.")
    scopes = oauth.read_scopes(parameters.get("scope"), client)
    clients.register_client(call.sql, client, call.now, secret=secret)
    return _issue_tokens(call, client, users.find_service_user(call.sql, client)["id"], scopes, "")


def _issue_tokens(
    call: Call,
    client: Client,
    user_id: str,
    scopes: tuple[str, ...],
    family: str,
    *,
    consented: str | None = None,
    nonce: str | None = None,
) -> Json:
    """Return the token response.

    `family` identifies the sign-in, so that all refresh tokens that descend from it can be revoked together.
    `consented` is the scope of a new refresh token, if it differs from `scopes`.
    """
    user = users.find_user(call.sql, user_id)
    key = jwt.load_signing_key(call.sql, call.now)
    client_claims = {"client_id": client.id, "issuer": call.base_url}
    body: Json = {
        "access_token": access_tokens.issue_access_token(
            call.sql, key, user, call.now, seconds=TOKEN_SECONDS, scopes=scopes, **client_claims
        ),
        "expires_in": TOKEN_SECONDS,
        "token_type": "Bearer",
        "scope": " ".join(scopes),
    }
    if "openid" in scopes:
        issued = int(call.now.timestamp())
        claims = users.make_user_claims(call.sql, user) | {"iss": call.base_url, "aud": client.id, "iat": issued}
        claims |= {"exp": issued + TOKEN_SECONDS} | ({"nonce": nonce} if nonce else {})
        body["id_token"] = jwt.sign_jwt(key, claims, "JWT")
    refresh_scope = consented or " ".join(scopes)
    if oauth.OFFLINE_SCOPE in refresh_scope.split():
        body["refresh_token"] = secrets.token_urlsafe(32)
        call.sql.execute(
            "INSERT INTO oauth_refresh_tokens (token_hash, family, client_id, user_id, scope, expires_at) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (
                oauth.hash_token(body["refresh_token"]),
                family,
                client.id,
                user_id,
                refresh_scope,
                format_timestamp(call.now + REFRESH_TOKEN_LIFETIME),
            ),
        )
    return body


def _authenticate_client(call: Call, parameters: Mapping[str, str], default_kind: str) -> tuple[Client, str | None]:
    """Return the calling application and its secret.

    The credentials are in a Basic header with URL-encoded parts (RFC 6749, section 2.3.1) or in the body.
    `default_kind` is the kind of an application whose id has no prefix that names one.

    Raises:
        OAuthError: If they are missing, malformed, given twice or wrong.
    """
    client_id, secret = parameters.get("client_id", ""), parameters.get("client_secret")
    scheme, _, encoded = call.headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() == "basic":
        if secret is not None:
            raise OAuthError("invalid_request", "Send the client_secret in the header or in the body, not in both.")
        try:
            header_id, _, header_secret = base64.b64decode(encoded, validate=True).decode("ascii").partition(":")
        except (binascii.Error, ValueError) as error:
            raise OAuthError("invalid_client", "The Authorization header is malformed.", 401) from error
        if client_id not in ("", unquote_plus(header_id)):
            raise OAuthError("invalid_client", "The body names another client than the header.", 401)
        client_id, secret = unquote_plus(header_id), unquote_plus(header_secret)
    client = clients.find_client(call.sql, client_id, default_kind)
    if client is None:
        raise OAuthError("invalid_client", "The client_id is missing or malformed.", 401)
    if secret and not client.is_known:
        raise OAuthError("invalid_client", "The application is not registered.", 401)
    if not client.is_public and (not secret or not client.accepts_secret(secret)):
        raise OAuthError("invalid_client", "The client_secret is missing or differs from that of the first use.", 401)
    return client, secret


def _revoke_if_owned(call: Call, client: Client, token: str) -> None:
    """Revoke a refresh token with its family, or an access token.

    Raises:
        OAuthError: If the token was issued to another client.
    """
    row = call.fetch_one("SELECT * FROM oauth_refresh_tokens WHERE token_hash = ?", oauth.hash_token(token))
    claims = None if row is not None else jwt.decode_jwt(jwt.load_signing_key(call.sql, call.now), token)
    owner = row["client_id"] if row is not None else (claims or {}).get("client_id", client.id)
    if owner != client.id:
        raise OAuthError("invalid_grant", "The token was issued to another client.")
    if row is not None:
        _revoke_family(call, row["family"])
    elif claims is not None and "jti" in claims:
        call.sql.execute("INSERT OR IGNORE INTO revoked_tokens VALUES (?, ?)", (claims["jti"], call.timestamp))


def _revoke_family(call: Call, family: str) -> None:
    statement = "UPDATE oauth_refresh_tokens SET revoked_at = ? WHERE family = ? AND revoked_at IS NULL"
    call.sql.execute(statement, (call.timestamp, family))


def _refuse(call: Call, error: OAuthError) -> Answer:
    headers = dict(_NO_STORE)
    if error.status == 401 and call.headers.get("authorization", "").lower().startswith("basic"):
        headers["WWW-Authenticate"] = 'Basic realm="itwin-sandbox"'
    return Answer(error.status, {"error": error.code, "error_description": error.description}, headers)


GRANTS: Final[Mapping[str, Callable[[Call, Mapping[str, str]], Json]]] = {
    "authorization_code": _redeem_code,
    "client_credentials": _grant_client_credentials,
    "refresh_token": _redeem_refresh_token,
}
