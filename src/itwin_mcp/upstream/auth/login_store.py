"""Where a login is kept between runs: the system's keyring, or a file that only its owner can read."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from itwin_mcp.errors import NotSignedIn, StateUnusable, Unreachable
from itwin_mcp.upstream.redaction import clean_text

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

SERVICE = "itwin-mcp"
"""The name under which the keyring shows our entries."""
MAX_FILE = 64 * 1024
LOCK_SECONDS = 12.0

_log = logging.getLogger("itwin_mcp.upstream")


@dataclass(frozen=True, slots=True)
class LoginKey:
    """Which login: one for each sign-in server, application, scope and profile."""

    issuer: str
    client_id: str
    scope: str
    profile: str = "default"

    def digest(self) -> str:
        """A name for files and keyring entries that says nothing."""
        text = json.dumps([self.issuer, self.client_id, self.scope, self.profile])
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class SavedLogin:
    """What is kept: the refresh token, since when and whose it is; never an access token."""

    refresh_token: str = field(repr=False)
    saved_at: float
    """Seconds since 1970."""
    user: str | None = None
    """Name or address of the user, for display."""


def find_keyring() -> KeyringBackend | None:
    """The system's keyring; None when the package is missing or all it has is a stand-in that hides nothing."""
    try:
        import keyring
        import keyring.backends.chainer
        import keyring.errors
    except ImportError:
        return None
    try:
        found = keyring.get_keyring()
        if isinstance(found, keyring.backends.chainer.ChainerBackend):
            found = next(iter(found.backends), found)
        if not _is_real(type(found).__module__, found.priority):
            return None
    except (keyring.errors.KeyringError, RuntimeError, OSError):
        return None
    return found


def _is_real(module: str, priority: float) -> bool:
    return (
        module.startswith("keyring.backends.") and not module.endswith((".fail", ".null", ".chainer")) and priority >= 1
    )


class LoginStore:
    """Keeps the logins of one user of this computer. All methods may be called by several processes at once."""

    def __init__(self, folder: Path, *, keyring: KeyringBackend | None = None, use_keyring: bool = True) -> None:
        """`folder` holds the lock files, and the logins where there is no keyring. `keyring` is for tests."""
        self._folder = folder
        self._given = keyring
        self._use_keyring = use_keyring

    def __repr__(self) -> str:
        return f"LoginStore({str(self._folder)!r})"

    def path(self, key: LoginKey) -> Path:
        """The file of this login, where there is no keyring."""
        return self._folder / f"{key.digest()}.json"

    def describe(self) -> str:
        """Where logins go, for people: the keyring's name or the folder."""
        keyring = self._keyring()
        return f"the keyring ({keyring.name})" if keyring is not None else f"a file below {self._folder}, not encrypted"

    async def load(self, key: LoginKey) -> SavedLogin | None:
        """The login, or None. NotSignedIn when its file is open to others or damaged."""
        return await anyio.to_thread.run_sync(self._load, key)

    async def save(self, key: LoginKey, login: SavedLogin) -> None:
        """Keep the login; whoever reads meanwhile gets the old or the new one, whole. OSError if the disk refuses."""
        await anyio.to_thread.run_sync(self._save, key, login)

    async def delete(self, key: LoginKey) -> None:
        """Forget the login, wherever it is."""
        await anyio.to_thread.run_sync(self._delete, key)

    @asynccontextmanager
    async def lock(self, key: LoginKey) -> AsyncIterator[None]:
        """Hold this login against other processes.

        Raises: Unreachable when one of them holds it for 12 seconds; StateUnusable when the folder cannot be written.
        """
        import filelock

        # thread_local off: acquired and released by tasks, which threads know nothing about.
        lock = filelock.FileLock(self._folder / f"{key.digest()}.lock", thread_local=False, mode=0o600)
        with anyio.move_on_after(LOCK_SECONDS):
            while not lock.is_locked:
                try:
                    _private_folder(self._folder)
                    lock.acquire(blocking=False)
                except filelock.Timeout:
                    await anyio.sleep(0.02)
                except OSError as error:
                    _log.error("The folder %s cannot be used: %s", self._folder, error.strerror or error)
                    raise StateUnusable from None
        if not lock.is_locked:
            raise Unreachable(
                "SignInBusy",
                "Another itwin-mcp process is renewing this sign-in and does not finish.",
                hint="Nothing was sent. Call again in a while; if it stays, end the other process.",
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
            with _keyring_trouble("read"):
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
            with _keyring_trouble("written"):
                keyring.set_password(SERVICE, key.digest(), text)
                self.path(key).unlink(missing_ok=True)
                return
        _write_private(self.path(key), text.encode())

    def _delete(self, key: LoginKey) -> None:
        keyring = self._keyring()
        if keyring is not None:
            with _keyring_trouble("cleared"):
                if keyring.get_password(SERVICE, key.digest()):
                    keyring.delete_password(SERVICE, key.digest())
        self.path(key).unlink(missing_ok=True)


@contextmanager
def _keyring_trouble(what: str) -> Iterator[None]:
    """A keyring that is locked or broken is passed over: the file takes its place."""
    import keyring.errors

    try:
        yield
    except keyring.errors.KeyringError as error:
        _log.warning("the keyring could not be %s (%s); using a file instead", what, type(error).__name__)


def _read_login(text: str | bytes, where: str) -> SavedLogin:
    try:
        kept = json.loads(text)
        token, saved_at = kept["refresh_token"], kept["saved_at"]
    except (ValueError, KeyError, TypeError):
        token, saved_at = None, None
    if not isinstance(token, str) or not token or not isinstance(saved_at, int | float):
        raise NotSignedIn(
            f"The saved sign-in is damaged ({where}).",
            hint="Sign in again: `itwin-mcp auth login`, or the tool `sign-in`.",
        )
    user = kept.get("user")
    return SavedLogin(token, float(saved_at), clean_text(user, 200) if isinstance(user, str) else None)


def _private_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _read_private(path: Path) -> bytes | None:
    """The file's content, None without a file; NotSignedIn when it is not ours alone."""
    flags = os.O_RDONLY
    for name in ("O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK"):  # the last, or a pipe in the file's place would hold us
        flags |= getattr(os, name, 0)
    try:
        handle = os.open(path, flags)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _not_private(path, error.strerror or "it cannot be opened") from None
    try:
        state = os.fstat(handle)
        if not stat.S_ISREG(state.st_mode):
            raise _not_private(path, "it is not a file")
        # Windows has no such bits: there the user profile's access control guards the folder.
        if os.name != "nt" and (state.st_uid != os.getuid() or stat.S_IMODE(state.st_mode) & 0o077):
            raise _not_private(path, "others can read it or own it")
        return os.read(handle, MAX_FILE)
    finally:
        os.close(handle)


def _not_private(path: Path, why: str) -> NotSignedIn:
    return NotSignedIn(
        f"The saved sign-in {path} is refused: {why}.",
        hint=f"Delete it and sign in again, or correct it: `chmod 600 {path}`, owned by you.",
    )


def _write_private(path: Path, content: bytes) -> None:
    """Write beside and move over, so that no reader and no crash ever sees half of it."""
    _private_folder(path.parent)
    beside = path.with_name(f"{path.name}.{secrets.token_hex(6)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        with os.fdopen(os.open(beside, flags, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()
