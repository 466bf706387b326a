"""An access token in a file that another program keeps up to date."""

from __future__ import annotations

from pathlib import Path

from itwin_mcp.errors import NotSignedIn
from itwin_mcp.upstream.sign_in.token import MAX_TOKEN, Token, read_token


class TokenFile:
    """A TokenSource over the file of `ITWIN_ACCESS_TOKEN_FILE`, read again whenever it changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version: tuple[int, int, int] | None = None
        """Modification time, size and inode of the file when `_token` was read; None if there is no token."""
        self._token = Token("")

    async def get_token(self, stale: Token | None = None) -> Token:
        """Return the token in the file. Raises NotSignedIn if the file cannot be read or does not contain a token."""
        try:
            state = self._path.stat()
            version = (state.st_mtime_ns, state.st_size, state.st_ino)
            # After a refusal the file is read even if it looks unchanged, because file systems have coarse clocks.
            if version != self._version or stale is not None:
                with self._path.open("rb") as file:
                    self._token = read_token(file.read(MAX_TOKEN + 100).decode("ascii"))
                self._version = version
            return self._token
        except OSError as error:
            why = error.strerror or "it cannot be read"
        except UnicodeDecodeError:
            why = "it holds characters that are not ASCII"
        except ValueError as error:
            why = str(error)
        self._version = None
        raise NotSignedIn(
            f"The token file {self._path} cannot be used: {why}.",
            hint="Have the program that writes ITWIN_ACCESS_TOKEN_FILE write a fresh access token, then call again.",
        )
