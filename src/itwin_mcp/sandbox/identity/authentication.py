"""Authenticate a request by its Authorization header."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import datetime

from joserfc.jwk import RSAKey

from itwin_mcp.sandbox.callers import ANONYMOUS, Caller, ShareGrant
from itwin_mcp.sandbox.errors import ApiError
from itwin_mcp.sandbox.identity import access_tokens
from itwin_mcp.sandbox.store import format_timestamp


def authenticate(
    sql: sqlite3.Connection, key: RSAKey, header: str | None, now: datetime, *, by_share: bool = False
) -> Caller:
    """Return the caller that the Authorization header identifies.

    With `by_share`, which only the iModels API uses, `Basic {shareKey}` is accepted too (create-imodel-share).

    Raises:
        ApiError: One of the platform's 401 errors (reference section 3).
    """
    if header is None or not header.strip():
        raise ApiError("HeaderNotFound")
    scheme, _, token = header.strip().partition(" ")
    if by_share and scheme.lower() == "basic":
        return _authenticate_share(sql, token.strip(), now)
    if scheme.lower() != "bearer":
        raise ApiError("InvalidAuthorizationScheme", f"Authorization scheme '{scheme}' is not valid.")
    return access_tokens.verify_access_token(sql, key, token.strip(), now)


def _authenticate_share(sql: sqlite3.Connection, share_key: str, now: datetime) -> Caller:
    row = sql.execute(
        "SELECT * FROM shares WHERE share_key = ? AND expires_at > ?", (share_key, format_timestamp(now))
    ).fetchone()
    if row is None:
        raise ApiError("Unauthorized")
    return replace(ANONYMOUS, share=ShareGrant(row["imodel_id"], row["permission"]))
