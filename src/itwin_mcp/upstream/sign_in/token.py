"""A token: where it comes from, how it is read, and what it says about itself."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

_PREFIX = re.compile(r"bearer[ \t]+", re.IGNORECASE)
MAX_TOKEN = 128 * 1024
"""Characters; every server refuses a longer header."""


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token and what is known about it; neither `repr` nor `str` shows its value."""

    value: str = field(repr=False)
    expires_at: float | None = None
    """Seconds since 1970 by the wall clock; None when unknown."""
    issuer: str | None = None
    """Its issuer, as it says itself; for messages, never for trust."""
    member: str | None = None
    """The address by which an iTwin invites the service application."""


class TokenSource(Protocol):
    """One way to get a token. Safe to share between any number of concurrent callers."""

    async def get_token(self, stale: Token | None = None) -> Token:
        """Return the token to send now; `stale` is the one that the platform just refused.

        A source that cannot renew returns the same token again.

        Raises: NotSignedIn if there is none; Unreachable if the sign-in server did not answer.
        """
        ...


def read_token(text: str) -> Token:
    """Read a token as people paste it: with or without `Bearer `, with white space around it.

    Raises: ValueError, which never quotes the token, if it is empty or holds what a header cannot.
    """
    value = _PREFIX.sub("", text.strip(), count=1).strip()
    if not value or value.lower() == "bearer":
        raise ValueError("the access token is empty")
    if len(value) > MAX_TOKEN:
        raise ValueError("the access token is too long to be one")
    if not re.fullmatch(r"[!-~]+", value):
        raise ValueError("the access token holds a line break, a space or a character that is not ASCII")
    claims = read_claims(value)
    return Token(value, expires_at=read_expiry(claims), issuer=read_issuer(claims))


def read_claims(value: str) -> Mapping[str, Any]:
    """Return the claims of a JWT (`exp`, `iss`, `scope`, `client_id`, `email` …), or none if it is opaque.

    They are read without proof: for messages, never for decisions.
    """
    parts = value.split(".")
    if len(parts) != 3 or len(value) > MAX_TOKEN:
        return {}
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def read_expiry(claims: Mapping[str, Any]) -> float | None:
    """Return `exp` as seconds since 1970, if it is a sane number."""
    expiry = claims.get("exp")
    if isinstance(expiry, bool) or not isinstance(expiry, int | float) or not 0 < expiry < 1e11:
        return None
    return float(expiry)


def read_issuer(claims: Mapping[str, Any]) -> str | None:
    """Return `iss`, if it is a text of a sane length."""
    issuer = claims.get("iss")
    return issuer if isinstance(issuer, str) and 0 < len(issuer) < 500 else None
