"""An access token from the settings, which cannot be renewed."""

from __future__ import annotations

from itwin_mcp.upstream.sign_in.token import Token, read_token


class StaticToken:
    """A TokenSource for `ITWIN_ACCESS_TOKEN`, or for the sandbox's own token."""

    def __init__(self, text: str) -> None:
        """Raises: ValueError if `text` cannot be a token. The message does not quote it."""
        self._token = read_token(text)

    async def get_token(self, stale: Token | None = None) -> Token:
        """Return the same token every time, even if it is `stale`. The client then does not repeat the request."""
        return self._token
