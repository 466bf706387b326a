"""The sandbox's signing key, and the JSON Web Tokens that it signs."""

from __future__ import annotations

import sqlite3
from datetime import datetime
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from itwin_mcp.sandbox.store import format_timestamp

_ALGORITHMS: Final = ["RS256"]


def generate_signing_key() -> RSAKey:
    """Return a new RSA key whose id is its thumbprint."""
    return RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256"}, auto_kid=True)


def load_signing_key(sql: sqlite3.Connection, now: datetime) -> RSAKey:
    """Return the store's signing key. Create it on first use, which needs a write transaction."""
    row = sql.execute("SELECT kid, private_pem FROM signing_keys").fetchone()
    if row is not None:
        return RSAKey.import_key(row["private_pem"], {"kid": row["kid"], "use": "sig", "alg": "RS256"})
    key = generate_signing_key()
    pem = key.as_pem(private=True).decode("ascii")
    sql.execute("INSERT INTO signing_keys VALUES (?, ?, ?)", (key.kid, pem, format_timestamp(now)))
    return key


def sign_jwt(key: RSAKey, claims: dict[str, Any], token_type: str) -> str:
    """Return a signed JWT. `token_type` is its `typ` header."""
    return jwt.encode({"alg": "RS256", "kid": key.kid, "typ": token_type}, claims, key, algorithms=_ALGORITHMS)


def decode_jwt(key: RSAKey, token: str) -> dict[str, Any] | None:
    """Return the claims of a JWT that we signed, even if it has expired, or None for any other text."""
    try:
        return dict(jwt.decode(token, key, algorithms=_ALGORITHMS).claims)
    except (JoseError, ValueError):
        return None
