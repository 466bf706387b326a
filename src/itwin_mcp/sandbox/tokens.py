"""The token endpoint of the sign-in server: codes, client credentials and refresh tokens become tokens; revocation.

A client id registers itself by its first use, and its secret with it. Errors have OAuth's shape (RFC 6749, 5.2), not
the platform's.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Final
from urllib.parse import parse_qsl, unquote_plus

from itwin_mcp.sandbox import identity
from itwin_mcp.sandbox.identity import SCOPE, Client
from itwin_mcp.sandbox.store import stamp
from itwin_mcp.sandbox.wire import Answer, Call, Json, Route

TOKEN_SECONDS: Final = 3600
REFRESH_LIFE: Final = timedelta(days=30)
OFFLINE: Final = "offline_access"
PERSONAL: Final = ("openid", "profile", "email", "organization")
_UNCACHED: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}")


class OAuthError(Exception):
    """A refusal in OAuth's words."""

    def __init__(self, code: str, description: str, status: int = 400) -> None:
        self.code = code
        self.description = description
        self.status = status
        super().__init__(f"{code}: {description}")


def give_token(call: Call) -> Answer:
    """The token endpoint."""
    try:
        given = form(call)
        grant = GRANTS.get(given.get("grant_type", ""))
        if "grant_type" not in given:
            raise OAuthError("invalid_request", "The grant_type is missing.")
        if grant is None:
            raise OAuthError("unsupported_grant_type", f"The grant type '{given['grant_type']}' is not supported.")
        if "resource" in given:
            raise OAuthError("invalid_target", "Resource indicators are not supported.")
        return Answer(200, grant(call, given), _UNCACHED)
    except OAuthError as error:
        return _refusal(call, error)


def revoke(call: Call) -> Answer:
    """RFC 7009: an unknown token is as good as a revoked one."""
    try:
        given = form(call)
        client, _ = _authenticate(call, given, "native")
        token = given.get("token")
        if not token:
            raise OAuthError("invalid_request", "The token is missing.")
        _revoke(call, client, token)
    except OAuthError as error:
        return _refusal(call, error)
    return Answer(200, None, _UNCACHED)


def parameters(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """OAuth's parameters by name; an empty one counts as none, and none may come twice (RFC 6749, 3.1)."""
    given: dict[str, str] = {}
    for name, value in pairs:
        if name in given:
            raise OAuthError("invalid_request", f"The parameter {name} is given more than once.")
        if value:
            given[name] = value
    return given


def form(call: Call) -> dict[str, str]:
    """The parameters in the body."""
    try:
        return parameters(parse_qsl(call.body.decode("utf-8"), max_num_fields=100, errors="strict"))
    except ValueError as error:
        raise OAuthError("invalid_request", "The parameters are malformed.") from error


def scopes_of(text: str | None, client: Client) -> tuple[str, ...]:
    """What is asked for; a service application may ask for nothing about a person (reference section 5)."""
    known = (SCOPE,) if client.kind == "service" else (SCOPE, OFFLINE, *PERSONAL)
    wanted = tuple(dict.fromkeys((text or "").split()))
    if not wanted:
        raise OAuthError("invalid_scope", f"The scope is missing; it is '{SCOPE}'.")
    if unknown := [scope for scope in wanted if scope not in known]:
        raise OAuthError("invalid_scope", f"Not a scope for this application: {' '.join(unknown)}")
    return wanted


def digest(text: str) -> str:
    """SHA-256 as PKCE writes it: codes and refresh tokens are kept only so."""
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii").rstrip("=")


def _by_code(call: Call, given: Mapping[str, str]) -> Json:
    client, secret = _authenticate(call, given, "native")
    if client.kind == "service":
        raise OAuthError("unauthorized_client", "A service application uses client credentials.")
    family = digest(given.get("code", ""))
    row = call.one("SELECT * FROM oauth_codes WHERE code_hash = ? AND client_id = ?", family, client.id)
    if row is None or row["expires_at"] <= call.stamp:
        raise OAuthError("invalid_grant", "The code is unknown or has expired.")
    if row["used_at"] is not None:
        _revoke_family(call, family)  # RFC 6749, 4.1.2: somebody else has it too
        raise OAuthError("invalid_grant", "The code has been used before.")
    if given.get("redirect_uri") != row["redirect_uri"]:
        raise OAuthError("invalid_grant", "The redirect_uri is not the one that the code was sent to.")
    verifier = given.get("code_verifier", "")
    if row["code_challenge"] is None:
        if verifier:
            raise OAuthError("invalid_grant", "The code was asked for without a code_challenge.")
    elif not _VERIFIER.fullmatch(verifier) or not hmac.compare_digest(digest(verifier), row["code_challenge"]):
        raise OAuthError("invalid_grant", "The code_verifier does not fit.")
    call.sql.execute("UPDATE oauth_codes SET used_at = ? WHERE code_hash = ?", (call.stamp, family))
    identity.register(call.sql, client, call.now, secret=secret)
    return _tokens(call, client, row["user_id"], tuple(row["scope"].split()), family, nonce=row["nonce"])


def _by_refresh_token(call: Call, given: Mapping[str, str]) -> Json:
    client, _ = _authenticate(call, given, "native")
    row = call.one(
        "SELECT * FROM oauth_refresh_tokens WHERE token_hash = ? AND client_id = ?",
        digest(given.get("refresh_token", "")),
        client.id,
    )
    if row is None or row["revoked_at"] is not None or row["expires_at"] <= call.stamp:
        raise OAuthError("invalid_grant", "The refresh token is unknown, revoked or has expired.")
    if row["used_at"] is not None:
        _revoke_family(call, row["family"])  # RFC 9700, 4.14.2: it was stolen, or its successor was
        raise OAuthError("invalid_grant", "The refresh token has been used before; sign in again.")
    scopes = tuple(row["scope"].split())
    if "scope" in given:
        wanted = scopes_of(given["scope"], client)
        if not set(wanted) <= set(scopes):
            raise OAuthError("invalid_scope", "More was asked for than was consented to.")
        scopes = wanted
    statement = "UPDATE oauth_refresh_tokens SET used_at = ? WHERE token_hash = ?"
    call.sql.execute(statement, (call.stamp, row["token_hash"]))
    # The next refresh token keeps the whole consent, whatever this access token is narrowed to.
    return _tokens(call, client, row["user_id"], scopes, row["family"], consented=row["scope"])


def _by_credentials(call: Call, given: Mapping[str, str]) -> Json:
    client, secret = _authenticate(call, given, "service")
    if client.kind != "service":
        raise OAuthError("unauthorized_client", "Only a service application may use client credentials.")
    scopes = scopes_of(given.get("scope"), client)
    identity.register(call.sql, client, call.now, secret=secret)
    return _tokens(call, client, identity.service_user(call.sql, client)["id"], scopes, "")


def _tokens(
    call: Call,
    client: Client,
    user_id: str,
    scopes: tuple[str, ...],
    family: str,
    *,
    consented: str | None = None,
    nonce: str | None = None,
) -> Json:
    user = identity.find_user(call.sql, user_id)
    key = identity.signing_key(call.sql, call.now)
    about = {"client_id": client.id, "issuer": call.base_url}
    body: Json = {
        "access_token": identity.issue(call.sql, key, user, call.now, seconds=TOKEN_SECONDS, scopes=scopes, **about),
        "expires_in": TOKEN_SECONDS,
        "token_type": "Bearer",
        "scope": " ".join(scopes),
    }
    if "openid" in scopes:
        issued = int(call.now.timestamp())
        claims = identity.person_claims(call.sql, user) | {"iss": call.base_url, "aud": client.id, "iat": issued}
        claims |= {"exp": issued + TOKEN_SECONDS} | ({"nonce": nonce} if nonce else {})
        body["id_token"] = identity.sign(key, claims, "JWT")
    kept = consented or " ".join(scopes)
    if OFFLINE in kept.split():
        body["refresh_token"] = secrets.token_urlsafe(32)
        call.sql.execute(
            "INSERT INTO oauth_refresh_tokens (token_hash, family, client_id, user_id, scope, expires_at) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (digest(body["refresh_token"]), family, client.id, user_id, kept, stamp(call.now + REFRESH_LIFE)),
        )
    return body


def _authenticate(call: Call, given: Mapping[str, str], otherwise: str) -> tuple[Client, str | None]:
    """The application that calls, by Basic with url-encoded parts (RFC 6749, 2.3.1) or by its id in the body."""
    client_id, secret = given.get("client_id", ""), given.get("client_secret")
    scheme, _, encoded = call.headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() == "basic":
        if secret is not None:
            raise OAuthError("invalid_request", "The client authenticates in two ways at once.")
        try:
            told_id, _, told_secret = base64.b64decode(encoded, validate=True).decode("ascii").partition(":")
        except (binascii.Error, ValueError) as error:
            raise OAuthError("invalid_client", "The Authorization header is malformed.", 401) from error
        if client_id not in ("", unquote_plus(told_id)):
            raise OAuthError("invalid_client", "The body names another client than the header.", 401)
        client_id, secret = unquote_plus(told_id), unquote_plus(told_secret)
    client = identity.find_client(call.sql, client_id, otherwise)
    if client is None:
        raise OAuthError("invalid_client", "The client_id is missing or malformed.", 401)
    if secret and not client.is_known:
        raise OAuthError("invalid_client", "The application is not known.", 401)
    if not client.is_public and (not secret or not client.accepts(secret)):
        raise OAuthError("invalid_client", "The client_secret is missing or not the one of the first use.", 401)
    return client, secret


def _revoke(call: Call, client: Client, token: str) -> None:
    row = call.one("SELECT * FROM oauth_refresh_tokens WHERE token_hash = ?", digest(token))
    claims = None if row is not None else identity.claims_of(identity.signing_key(call.sql, call.now), token)
    owner = row["client_id"] if row is not None else (claims or {}).get("client_id", client.id)
    if owner != client.id:
        raise OAuthError("invalid_grant", "The token was issued to another client.")
    if row is not None:
        _revoke_family(call, row["family"])
    elif claims is not None and "jti" in claims:
        call.sql.execute("INSERT OR IGNORE INTO revoked_tokens VALUES (?, ?)", (claims["jti"], call.stamp))


def _revoke_family(call: Call, family: str) -> None:
    statement = "UPDATE oauth_refresh_tokens SET revoked_at = ? WHERE family = ? AND revoked_at IS NULL"
    call.sql.execute(statement, (call.stamp, family))


def _refusal(call: Call, error: OAuthError) -> Answer:
    headers = dict(_UNCACHED)
    if error.status == 401 and call.headers.get("authorization", "").lower().startswith("basic"):
        headers["WWW-Authenticate"] = 'Basic realm="itwin-sandbox"'
    return Answer(error.status, {"error": error.code, "error_description": error.description}, headers)


GRANTS: Final[Mapping[str, Callable[[Call, Mapping[str, str]], Json]]] = {
    "authorization_code": _by_code,
    "client_credentials": _by_credentials,
    "refresh_token": _by_refresh_token,
}

ROUTES: Final = (
    Route("POST", "/connect/token", give_token, signed_in=False),
    Route("POST", "/connect/revocation", revoke, signed_in=False),
)
