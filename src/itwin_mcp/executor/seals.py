"""What we hand out and take back later is sealed: nobody can read, alter or swap it."""

from __future__ import annotations

import base64
import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from itwin_mcp.executor.conversation import Caller

logger = logging.getLogger(__name__)

_LOCK_SECONDS = 10.0
Flaw = Literal["unreadable", "expired", "of another caller", "of another purpose"]


class SealError(Exception):
    """The text is not one of ours for this purpose and caller; `flaw` says why."""

    def __init__(self, flaw: Flaw) -> None:
        super().__init__(flaw)
        self.flaw = flaw


class Seals:
    """Seals values under keys of 32 bytes, the first for new ones, all for old ones.

    `keys` is asked once, when the first value is sealed or opened; `clock` gives seconds since 1970.
    """

    def __init__(self, keys: Callable[[], Sequence[bytes]], *, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._clock = clock
        self._fernet: Any = None

    def seal(self, purpose: str, caller: Caller, value: Mapping[str, Any]) -> str:
        """The value as text that only `open` with the same purpose and caller reads."""
        payload = {"p": purpose, "c": caller.key, "t": int(self._clock()), "v": value}
        sealed: bytes = self._cipher().encrypt(json.dumps(payload, separators=(",", ":")).encode())
        return sealed.decode().rstrip("=")

    def open(self, text: str, purpose: str, caller: Caller, *, seconds: int) -> dict[str, Any]:
        """The sealed value, at most `seconds` old. Raises SealError."""
        from cryptography.fernet import InvalidToken

        try:
            payload = json.loads(self._cipher().decrypt(_token(text)))
        except (InvalidToken, ValueError):
            raise SealError("unreadable") from None
        if payload["c"] != caller.key:
            raise SealError("of another caller")
        if payload["p"] != purpose:
            raise SealError("of another purpose")
        if self._clock() - payload["t"] > seconds:
            raise SealError("expired")
        value: dict[str, Any] = payload["v"]
        return value

    def _cipher(self) -> Any:
        if self._fernet is None:
            # Imported for the first cursor, not at start-up.
            from cryptography.fernet import Fernet, MultiFernet

            self._fernet = MultiFernet([Fernet(base64.urlsafe_b64encode(key)) for key in self._keys()])
        return self._fernet


def derived_keys(secrets: Sequence[str]) -> tuple[bytes, ...]:
    """Keys for `Seals` from secrets that several servers share, in their order: what one seals, another opens.

    Single use is no promise of a seal: two servers that share nothing else may each open the same text.
    """
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return tuple(HKDF(SHA256(), 32, salt=None, info=b"itwin-mcp seals 1").derive(one.encode()) for one in secrets)


def kept_key(file: Path) -> bytes:
    """The key in the file, which is made if it does not exist, and replaced on POSIX if others can read it.

    Raises: OSError, also for a file that holds no key.
    """
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not file.exists():
        # Written beside it first: another process that starts meanwhile must not read half a key, nor make a second.
        beside = _write_beside(file, secrets.token_bytes(32))
        try:
            with suppress(FileExistsError):
                os.link(beside, file)
        finally:
            beside.unlink()
    key = _private_key(file)
    if key is None:
        # Under a lock, so that of several processes that start together one makes the new key and all others read it.
        from filelock import FileLock

        with FileLock(file.with_name(f"{file.name}.lock"), timeout=_LOCK_SECONDS, mode=0o600):
            key = _private_key(file)
            if key is None:
                logger.warning("Others could read the key %s, so it was replaced; earlier cursors are invalid", file)
                key = secrets.token_bytes(32)
                beside = _write_beside(file, key)
                beside.replace(file)
    if len(key) != 32:
        raise OSError("it is damaged; without it cursors given so far are invalid, and a new one is made")
    return key


def _private_key(file: Path) -> bytes | None:
    """What the file holds; None on POSIX if other users can read it."""
    with file.open("rb") as stream:
        status = os.fstat(stream.fileno())
        if os.name == "posix" and (status.st_mode & 0o077 or status.st_uid != os.geteuid()):
            return None
        return stream.read(64)


def _write_beside(file: Path, key: bytes) -> Path:
    """Write the key into a new file next to the given one, so that no other process reads half of it."""
    beside = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(key)
    return beside


def _token(text: str) -> bytes:
    """The text as it was before its padding went; base64 decoders overlook what is changed in other ways."""
    token = (text + "=" * (-len(text) % 4)).encode("ascii")
    if "=" in text or base64.urlsafe_b64encode(base64.urlsafe_b64decode(token)) != token:
        raise ValueError("not the text that was given")
    return token
