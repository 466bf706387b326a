"""A token in a file that another program keeps fresh."""

from __future__ import annotations

from pathlib import Path

from itwin_mcp.errors import NotSignedIn
from itwin_mcp.upstream.sign_in.token import MAX_TOKEN, Token, read_token


class TokenFile:
    """A TokenSource over the file of `ITWIN_ACCESS_TOKEN_FILE`, read again whenever it changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._token: Token | None = None

    def __repr__(self) -> str:
        return f"TokenFile({str(self._path)!r})"

    async def get_token(self, stale: Token | None = None) -> Token:
        """Return the token in the file. Raises NotSignedIn if it cannot be read or holds none."""
        try:
            state = self._path.stat()
            seen = (state.st_mtime_ns, state.st_size, state.st_ino)
            # After a refusal the file is read even if it looks unchanged: clocks of file systems are coarse.
            if self._token is None or seen != self._seen or stale is not None:
                with self._path.open("rb") as file:
                    self._token = read_token(file.read(MAX_TOKEN + 100).decode("ascii"))
                self._seen = seen
        except OSError as error:
            self._token = None
            raise self._unusable(error.strerror or "it cannot be read") from None
        except UnicodeDecodeError:
            self._token = None
            raise self._unusable("it holds characters that are not ASCII") from None
        except ValueError as error:
            self._token = None
            raise self._unusable(str(error)) from None
        return self._token

    def _unusable(self, why: str) -> NotSignedIn:
        return NotSignedIn(
            f"The token file {self._path} cannot be used: {why}.",
            hint="Have the program that writes ITWIN_ACCESS_TOKEN_FILE write a fresh access token, then call again.",
        )
