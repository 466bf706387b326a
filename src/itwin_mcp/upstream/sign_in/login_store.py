"""Stores logins between runs, in the system's keyring or in files that only their owner can read."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from itwin_mcp.atomic_files import write_file
from itwin_mcp.errors import ErrorCode, NotSignedIn, StateUnusable, Unreachable
from itwin_mcp.text import clean_text

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

SERVICE = "itwin-mcp"
"""The name under which the keyring shows our entries."""
MAX_FILE = 64 * 1024
"""Bytes of a login file that are read."""
LOCK_SECONDS = 12.0
"""The time limit for waiting for another process."""

_log = logging.getLogger("itwin_mcp.upstream")


@dataclass(frozen=True, slots=True)
class LoginKey:
    """Identifies a login. Each sign-in server, application, scope and profile has its own."""

    issuer: str
    client_id: str
    scope: str
    profile: str = "default"

    def digest(self) -> str:
        """Return a name for the file or keyring entry, from which the parts cannot be read."""
        text = json.dumps([self.issuer, self.client_id, self.scope, self.profile])
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class SavedLogin:
    """A stored login: the refresh token and its user. Access tokens are not stored."""

    refresh_token: str = field(repr=False)
    saved_at: float
    """Seconds since 1970."""
    user: str | None = None
    """The name or address of the user, for display."""


def find_keyring() -> KeyringBackend | None:
    """Return the system's keyring. Return None if the package is missing or its backend does not protect secrets."""
    try:
        import keyring
        import keyring.backends.chainer
        import keyring.errors
    except ImportError:
        return None
    try:
        backend = keyring.get_keyring()
        if isinstance(backend, keyring.backends.chainer.ChainerBackend):
            backend = next(iter(backend.backends), backend)
        module = type(backend).__module__
        # Backends of other packages may store plain text, and so does a backend with a priority below 1.
        is_own = module.startswith("keyring.backends.") and not module.endswith((".fail", ".null", ".chainer"))
        return backend if is_own and backend.priority >= 1 else None
    except (keyring.errors.KeyringError, RuntimeError, OSError):
        return None


class LoginStore:
    """The logins of one user of this computer. Several processes may use the same store at once."""

    def __init__(self, folder: Path, *, keyring: KeyringBackend | None = None, use_keyring: bool = True) -> None:
        """`folder` is for the lock files and, without a keyring, for the logins. `keyring` is for tests."""
        self._folder = folder
        self._test_keyring = keyring
        self._use_keyring = use_keyring

    def path(self, key: LoginKey) -> Path:
        """Return the file of this login, for a system without a keyring."""
        return self._folder / f"{key.digest()}.json"

    def describe(self) -> str:
        """Return where logins are stored, as text for people: the keyring's name or the folder."""
        keyring = self._open_keyring()
        return f"the keyring ({keyring.name})" if keyring is not None else f"a file below {self._folder}, not encrypted"

    async def load(self, key: LoginKey) -> SavedLogin | None:
        """Return the login, or None. Raises NotSignedIn if its file is readable by others or damaged."""
        return await anyio.to_thread.run_sync(self._load, key)

    async def save(self, key: LoginKey, login: SavedLogin) -> None:
        """Save the login atomically. Raises OSError if the file cannot be written."""
        await anyio.to_thread.run_sync(self._save, key, login)

    async def delete(self, key: LoginKey) -> None:
        """Delete the login from the keyring and from its file."""
        await anyio.to_thread.run_sync(self._delete, key)

    @asynccontextmanager
    async def lock(self, key: LoginKey) -> AsyncIterator[None]:
        """Lock this login against other processes.

        Raises: Unreachable if another process holds it for 12 seconds; StateUnusable if the folder cannot be written.
        """
        import filelock

        # Not thread-local, because tasks acquire and release the lock, possibly on different threads.
        lock = filelock.FileLock(self._folder / f"{key.digest()}.lock", thread_local=False, mode=0o600)
        with anyio.move_on_after(LOCK_SECONDS):
            while not lock.is_locked:
                try:
                    self._make_folder()
                    lock.acquire(blocking=False)
                except filelock.Timeout:
                    await anyio.sleep(0.02)
                except OSError as error:
                    _log.error("The folder %s cannot be used: %s", self._folder, error.strerror or error)
                    raise StateUnusable from None
        if not lock.is_locked:
            raise Unreachable(
                ErrorCode.SIGN_IN_BUSY,
                "Another itwin-mcp process is renewing this sign-in and has not finished.",
                hint="Nothing was sent. Call again in a while. If it happens again, end the other process.",
            )
        try:
            yield
        finally:
            lock.release()

    def _open_keyring(self) -> KeyringBackend | None:
        return self._test_keyring or (find_keyring() if self._use_keyring else None)

    def _make_folder(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _load(self, key: LoginKey) -> SavedLogin | None:
        keyring = self._open_keyring()
        if keyring is not None:
            with _tolerate_keyring("read"):
                text = keyring.get_password(SERVICE, key.digest())
                if text:
                    return _read_login(text, "the keyring's entry")
        path = self.path(key)
        content = _read_private(path)
        return None if content is None else _read_login(content, str(path))

    def _save(self, key: LoginKey, login: SavedLogin) -> None:
        text = json.dumps({name: value for name, value in asdict(login).items() if value is not None})
        keyring = self._open_keyring()
        if keyring is not None:
            with _tolerate_keyring("written"):
                keyring.set_password(SERVICE, key.digest(), text)
                self.path(key).unlink(missing_ok=True)
                return
        self._make_folder()
        write_file(self.path(key), text.encode())

    def _delete(self, key: LoginKey) -> None:
        keyring = self._open_keyring()
        if keyring is not None:
            with _tolerate_keyring("cleared"):
                if keyring.get_password(SERVICE, key.digest()):
                    keyring.delete_password(SERVICE, key.digest())
        self.path(key).unlink(missing_ok=True)


@contextmanager
def _tolerate_keyring(participle: str) -> Iterator[None]:
    """Log an error of a keyring that is locked or broken. The code after the block uses the file instead."""
    import keyring.errors

    try:
        yield
    except keyring.errors.KeyringError as error:
        _log.warning("the keyring could not be %s (%s); using a file instead", participle, type(error).__name__)


def _read_login(text: str | bytes, where: str) -> SavedLogin:
    """Parse a stored login. Raises NotSignedIn, which says `where` it was, if it is damaged."""
    try:
        members = json.loads(text)
        token, saved_at = members["refresh_token"], members["saved_at"]
    except (ValueError, KeyError, TypeError):
        token, saved_at = None, None
    if not isinstance(token, str) or not token or not isinstance(saved_at, int | float):
        raise NotSignedIn(
            f"The saved sign-in is damaged ({where}).",
            hint="Sign in again: `itwin-mcp auth login`, or the tool `sign-in`.",
        )
    user = members.get("user")
    return SavedLogin(token, float(saved_at), clean_text(user, 200) if isinstance(user, str) else None)


def _read_private(path: Path) -> bytes | None:
    """Return the file's content, or None if there is no file. Raises NotSignedIn if others can read or own it."""
    flags = os.O_RDONLY
    for name in ("O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK"):  # O_NONBLOCK, because opening a pipe could wait forever
        flags |= getattr(os, name, 0)
    try:
        handle = os.open(path, flags)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _build_not_private(path, error.strerror or "it cannot be opened") from None
    try:
        state = os.fstat(handle)
        if not stat.S_ISREG(state.st_mode):
            raise _build_not_private(path, "it is not a file")
        # Windows has no such bits. There the access control of the user profile protects the folder.
        if os.name != "nt" and (state.st_uid != os.getuid() or stat.S_IMODE(state.st_mode) & 0o077):
            raise _build_not_private(path, "others can read it or own it")
        return os.read(handle, MAX_FILE)
    finally:
        os.close(handle)


def _build_not_private(path: Path, why: str) -> NotSignedIn:
    return NotSignedIn(
        f"The saved sign-in {path} is refused: {why}.",
        hint=f"Delete it and sign in again, or correct it: `chmod 600 {path}`, owned by you.",
    )
