"""Who is calling: the sandbox's own signing key, the tokens it issues, and the check of the Authorization header.

A token is believed for our signature and its `exp`, not for its issuer: one sandbox is reached by several addresses.
"""

from __future__ import annotations

import secrets
import sqlite3
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from itwin_mcp.sandbox.errors import ApiError
from itwin_mcp.sandbox.store import stamp

SCOPE: Final = "itwin-platform"
# What a token issued without an address says; the sandbox stands in for the platform, whose authority this is.
DEFAULT_ISSUER: Final = "https://ims.bentley.com"
DEFAULT_CLIENT: Final = "native-itwin-sandbox"
_ALGORITHMS: Final = ["RS256"]


class UnknownUser(LookupError):
    """A token was asked for someone whom the sandbox does not know."""


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller of one request."""

    id: str
    email: str
    given_name: str
    surname: str
    account_id: str
    is_admin: bool  # Organization Administrator: a power user on every iTwin of the own account
    client_id: str


NOBODY: Final = Principal("", "", "", "", "", False, "")


def signing_key(sql: sqlite3.Connection, now: datetime) -> RSAKey:
    """The key of this store, made on first use inside a write transaction."""
    row = sql.execute("SELECT kid, private_pem FROM signing_keys").fetchone()
    if row is not None:
        return RSAKey.import_key(row["private_pem"], {"kid": row["kid"], "use": "sig", "alg": "RS256"})
    key = RSAKey.generate_key(2048)
    kid = key.thumbprint()
    pem = key.as_pem(private=True).decode("ascii")
    sql.execute("INSERT INTO signing_keys VALUES (?, ?, ?)", (kid, pem, stamp(now)))
    return RSAKey.import_key(pem, {"kid": kid, "use": "sig", "alg": "RS256"})


def find_user(sql: sqlite3.Connection, user: str | None) -> sqlite3.Row:
    """A user by id, e-mail, given name or client id; without one, the first user: the seeded owner."""
    if user is None:
        row = sql.execute("SELECT * FROM users ORDER BY seq LIMIT 1").fetchone()
    else:
        row = sql.execute(
            "SELECT * FROM users WHERE ? IN (id, lower(email), lower(given_name), lower(client_id)) "
            "ORDER BY seq LIMIT 1",
            (user.lower(),),
        ).fetchone()
    if row is None:
        known = ", ".join(found["email"] for found in sql.execute("SELECT email FROM users ORDER BY seq LIMIT 20"))
        raise UnknownUser(f"No user {user!r} in the sandbox. Known: {known or 'nobody'}.")
    found_user: sqlite3.Row = row
    return found_user


def issue(
    sql: sqlite3.Connection,
    key: RSAKey,
    user: sqlite3.Row,
    now: datetime,
    *,
    seconds: int = 3600,
    client_id: str | None = None,
    issuer: str = DEFAULT_ISSUER,
    scopes: tuple[str, ...] = (SCOPE,),
) -> str:
    """An access token with the claims that Bentley's have; `scope` is an array there too."""
    issued = int(now.timestamp())
    account = sql.execute("SELECT display_name FROM itwins WHERE id = ?", (user["account_id"],)).fetchone()
    claims: dict[str, Any] = {
        "iss": issuer,
        "aud": [f"{issuer}/as/token.oauth2", f"{issuer}/resources", SCOPE],
        "sub": user["id"],
        "client_id": client_id or user["client_id"] or DEFAULT_CLIENT,
        "scope": list(scopes),
        "email": user["email"],
        "preferred_username": user["email"],
        "name": f"{user['given_name']} {user['surname']}".strip(),
        "given_name": user["given_name"],
        "family_name": user["surname"],
        "org": user["account_id"],
        "org_name": account["display_name"] if account else "",
        "iat": issued,
        "nbf": issued,
        "exp": issued + seconds,
        "jti": secrets.token_hex(16),
    }
    return jwt.encode({"alg": "RS256", "kid": key.kid, "typ": "at+jwt"}, claims, key, algorithms=_ALGORITHMS)


def authenticate(sql: sqlite3.Connection, key: RSAKey, header: str | None, now: datetime) -> Principal:
    """The caller whom the Authorization header names, or the platform's 401 (reference section 3)."""
    if header is None or not header.strip():
        raise ApiError("HeaderNotFound")
    scheme, _, token = header.strip().partition(" ")
    if scheme.lower() != "bearer":
        raise ApiError("InvalidAuthorizationScheme", f"Authorization scheme '{scheme}' is not valid.")
    return verify(sql, key, token.strip(), now)


def verify(sql: sqlite3.Connection, key: RSAKey, token: str, now: datetime) -> Principal:
    """The user behind one of our access tokens, or 401 Unauthorized."""
    try:
        claims = jwt.decode(token, key, algorithms=_ALGORITHMS).claims
    except (JoseError, ValueError) as error:
        raise ApiError("Unauthorized") from error
    expires = claims.get("exp")
    if not isinstance(expires, int) or expires <= now.timestamp() or SCOPE not in claims.get("scope", ()):
        raise ApiError("Unauthorized")
    if sql.execute("SELECT 1 FROM revoked_tokens WHERE jti = ?", (claims.get("jti"),)).fetchone():
        raise ApiError("Unauthorized")
    user = sql.execute("SELECT * FROM users WHERE id = ?", (claims.get("sub"),)).fetchone()
    if user is None:
        raise ApiError("Unauthorized")
    return Principal(
        id=user["id"],
        email=user["email"],
        given_name=user["given_name"],
        surname=user["surname"],
        account_id=user["account_id"],
        is_admin=bool(user["is_admin"]),
        client_id=str(claims.get("client_id", DEFAULT_CLIENT)),
    )
