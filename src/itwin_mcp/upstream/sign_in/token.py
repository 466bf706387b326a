"""Access tokens: the protocol of their sources, parsing, and reading their claims."""

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
"""Characters. Servers refuse longer headers."""


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token and its properties. `repr` and `str` do not show its value."""

    value: str = field(repr=False)
    expires_at: float | None = None
    """Seconds since 1970 by the wall clock; None if unknown."""
    issuer: str | None = None
    """The issuer in its claims, which are not verified. Use it for messages only."""
    member: str | None = None
    """The address for inviting the service application to an iTwin."""


class TokenSource(Protocol):
    """A way to get a token. Concurrent callers may share it."""

    async def get_token(self, stale: Token | None = None) -> Token:
        """Return the token to send now. `stale` is the token that the platform just refused.

        A source that cannot renew its token returns the same token again.

        Raises: NotSignedIn if there is no token; Unreachable if the sign-in server did not answer.
        """


def read_token(text: str) -> Token:
    """Parse a pasted token, which may begin with `Bearer ` and have white space around it.

    Raises: ValueError if it is empty, too long, or contains characters that a header cannot have. The message does not
    quote the token.
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
    """Return the claims of a JWT (`exp`, `iss`, `scope`, `client_id`, `email` …), or an empty mapping if it is opaque.

    The signature is not verified. Use the claims for messages, never for decisions.
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
    """Return the claim `exp` as seconds since 1970, or None if it is not a plausible number."""
    expiry = claims.get("exp")
    if isinstance(expiry, bool) or not isinstance(expiry, int | float) or not 0 < expiry < 1e11:
        return None
    return float(expiry)


def read_issuer(claims: Mapping[str, Any]) -> str | None:
    """Return the claim `iss`, or None if it is empty, too long or not a text."""
    issuer = claims.get("iss")
    return issuer if isinstance(issuer, str) and 0 < len(issuer) < 500 else None
