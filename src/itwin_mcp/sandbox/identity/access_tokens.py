"""Issue and verify access tokens.

The issuer of a token is not checked, because one sandbox may have several addresses.
"""

from __future__ import annotations

import secrets
import sqlite3
from datetime import datetime
from typing import Any, Final

from joserfc.jwk import RSAKey

from itwin_mcp.sandbox.callers import Caller
from itwin_mcp.sandbox.errors import ApiError
from itwin_mcp.sandbox.identity import clients, jwt, users

SCOPE: Final = "itwin-platform"
# The issuer of the tokens of `Sandbox.token` is that of the real platform.
DEFAULT_ISSUER: Final = "https://ims.bentley.com"


def issue_access_token(
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
    """Return an access token with the same claims as Bentley's tokens. Its `scope` is an array."""
    issued = int(now.timestamp())
    claims: dict[str, Any] = {
        "iss": issuer,
        "aud": [f"{issuer}/as/token.oauth2", f"{issuer}/resources", SCOPE],
        "client_id": client_id or user["client_id"] or clients.DEFAULT_CLIENT,
        "scope": list(scopes),
        **users.make_user_claims(sql, user),
        "iat": issued,
        "nbf": issued,
        "exp": issued + seconds,
        "jti": secrets.token_hex(16),
    }
    return jwt.sign_jwt(key, claims, "at+jwt")


def verify_access_token(sql: sqlite3.Connection, key: RSAKey, token: str, now: datetime) -> Caller:
    """Return the caller that an access token was issued to.

    Raises:
        ApiError: `Unauthorized`, if the token is not ours, has expired or was revoked, or lacks the platform's scope.
    """
    claims = jwt.decode_jwt(key, token)
    if claims is None:
        raise ApiError("Unauthorized")
    expires = claims.get("exp")
    if not isinstance(expires, int) or expires <= now.timestamp() or SCOPE not in claims.get("scope", ()):
        raise ApiError("Unauthorized")
    if sql.execute("SELECT 1 FROM revoked_tokens WHERE jti = ?", (claims.get("jti"),)).fetchone():
        raise ApiError("Unauthorized")
    user = sql.execute("SELECT * FROM users WHERE id = ?", (claims.get("sub"),)).fetchone()
    if user is None:
        raise ApiError("Unauthorized")
    return Caller(
        id=user["id"],
        email=user["email"],
        given_name=user["given_name"],
        surname=user["surname"],
        account_id=user["account_id"],
        is_admin=bool(user["is_admin"]),
        client_id=str(claims.get("client_id", clients.DEFAULT_CLIENT)),
    )
