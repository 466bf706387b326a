"""Stores logins between runs: in the system's keyring, or in files that only their owner can read."""

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
LOCK_SECONDS = 12.0

_log = logging.getLogger("itwin_mcp.upstream")


@dataclass(frozen=True, slots=True)
class LoginKey:
    """Identifies a login: there is one for each sign-in server, application, scope and profile."""

    issuer: str
    client_id: str
    scope: str
    profile: str = "default"

    def digest(self) -> str:
        """Return a name for files and keyring entries that reveals nothing."""
        text = json.dumps([self.issuer, self.client_id, self.scope, self.profile])
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class SavedLogin:
    """What is stored: the refresh token and whose it is; never an access token."""

    refresh_token: str = field(repr=False)
    saved_at: float
    """Seconds since 1970."""
    user: str | None = None
    """Name or address of the user, for display."""


def find_keyring() -> KeyringBackend | None:
    """Return the system's keyring. None if the package is missing, or has only a backend that protects nothing."""
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
        if not _is_real(type(backend).__module__, backend.priority):
            return None
    except (keyring.errors.KeyringError, RuntimeError, OSError):
        return None
    return backend


def _is_real(module: str, priority: float) -> bool:
    return (
        module.startswith("keyring.backends.") and not module.endswith((".fail", ".null", ".chainer")) and priority >= 1
    )


class LoginStore:
    """The logins of one user of this computer. Several processes may call all methods at once."""

    def __init__(self, folder: Path, *, keyring: KeyringBackend | None = None, use_keyring: bool = True) -> None:
        """`folder` holds the lock files, and without a keyring the logins. `keyring` is for tests."""
        self._folder = folder
        self._given = keyring
        self._use_keyring = use_keyring

    def __repr__(self) -> str:
        return f"LoginStore({str(self._folder)!r})"

    def path(self, key: LoginKey) -> Path:
        """Return the file of this login, for a system without a keyring."""
        return self._folder / f"{key.digest()}.json"

    def describe(self) -> str:
        """Return where logins are stored, for people: the keyring's name or the folder."""
        keyring = self._keyring()
        return f"the keyring ({keyring.name})" if keyring is not None else f"a file below {self._folder}, not encrypted"

    async def load(self, key: LoginKey) -> SavedLogin | None:
        """Return the login, or None. Raises NotSignedIn if its file is readable by others or damaged."""
        return await anyio.to_thread.run_sync(self._load, key)

    async def save(self, key: LoginKey, login: SavedLogin) -> None:
        """Save the login, whole or not at all. Raises OSError if the disk refuses."""
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

        # thread_local off: acquired and released by tasks, which threads know nothing about.
        lock = filelock.FileLock(self._folder / f"{key.digest()}.lock", thread_local=False, mode=0o600)
        with anyio.move_on_after(LOCK_SECONDS):
            while not lock.is_locked:
                try:
                    _make_private(self._folder)
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

    def _keyring(self) -> KeyringBackend | None:
        return self._given or (find_keyring() if self._use_keyring else None)

    def _load(self, key: LoginKey) -> SavedLogin | None:
        keyring = self._keyring()
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
        keyring = self._keyring()
        if keyring is not None:
            with _tolerate_keyring("written"):
                keyring.set_password(SERVICE, key.digest(), text)
                self.path(key).unlink(missing_ok=True)
                return
        path = self.path(key)
        _make_private(path.parent)
        write_file(path, text.encode())

    def _delete(self, key: LoginKey) -> None:
        keyring = self._keyring()
        if keyring is not None:
            with _tolerate_keyring("cleared"):
                if keyring.get_password(SERVICE, key.digest()):
                    keyring.delete_password(SERVICE, key.digest())
        self.path(key).unlink(missing_ok=True)


@contextmanager
def _tolerate_keyring(what: str) -> Iterator[None]:
    """Ignore a keyring that is locked or broken; the file is used instead."""
    import keyring.errors

    try:
        yield
    except keyring.errors.KeyringError as error:
        _log.warning("the keyring could not be %s (%s); using a file instead", what, type(error).__name__)


def _read_login(text: str | bytes, where: str) -> SavedLogin:
    try:
        saved = json.loads(text)
        token, saved_at = saved["refresh_token"], saved["saved_at"]
    except (ValueError, KeyError, TypeError):
        token, saved_at = None, None
    if not isinstance(token, str) or not token or not isinstance(saved_at, int | float):
        raise NotSignedIn(
            f"The saved sign-in is damaged ({where}).",
            hint="Sign in again: `itwin-mcp auth login`, or the tool `sign-in`.",
        )
    user = saved.get("user")
    return SavedLogin(token, float(saved_at), clean_text(user, 200) if isinstance(user, str) else None)


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _read_private(path: Path) -> bytes | None:
    """Return the file's content, or None without a file. Raises NotSignedIn if other users can read or own it."""
    flags = os.O_RDONLY
    for name in ("O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK"):  # the last, or a pipe in the file's place would hold us
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
        # Windows has no such bits: there the user profile's access control guards the folder.
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
