"""A token that was given to us and cannot be renewed."""

from __future__ import annotations

from itwin_mcp.upstream.sign_in.token import Token, read_token


class StaticToken:
    """A TokenSource for `ITWIN_ACCESS_TOKEN`, or for the sandbox's own token."""

    def __init__(self, text: str) -> None:
        """Raises: ValueError, which does not quote it, if `text` cannot be a token."""
        self._token = read_token(text)

    def __repr__(self) -> str:
        return "StaticToken(…)"

    async def get_token(self, stale: Token | None = None) -> Token:
        """Return the same token always, by which the client sees that a repeat is pointless."""
        return self._token
