"""A token that was given to us ready: it cannot be renewed."""

from __future__ import annotations

import re

from itwin_mcp.upstream.auth.claims import MAX_TOKEN, expiry_of, issuer_of, read_claims
from itwin_mcp.upstream.auth.source import Token

_PREFIX = re.compile(r"bearer[ \t]+", re.IGNORECASE)


def read_token(text: str) -> Token:
    """Read a token as people paste it: with or without `Bearer `, with white space around it.

    Raises ValueError, which never quotes the token, when it is empty or holds what a header cannot.
    """
    value = _PREFIX.sub("", text.strip(), count=1).strip()
    if not value or value.lower() == "bearer":
        raise ValueError("the access token is empty")
    if len(value) > MAX_TOKEN:
        raise ValueError("the access token is too long to be one")
    if not re.fullmatch(r"[!-~]+", value):
        raise ValueError("the access token holds a line break, a space or a character that is not ASCII")
    claims = read_claims(value)
    return Token(value, expires_at=expiry_of(claims), issuer=issuer_of(claims))


class StaticToken:
    """The value of `ITWIN_ACCESS_TOKEN`, or the sandbox's own token."""

    def __init__(self, text: str) -> None:
        """Raise ValueError, in words and without the value, when `text` cannot be a token."""
        self._token = read_token(text)

    def __repr__(self) -> str:
        return "StaticToken(…)"

    async def token(self, stale: Token | None = None) -> Token:
        """The same token always; the client sees by that that there is nothing to repeat with."""
        return self._token
