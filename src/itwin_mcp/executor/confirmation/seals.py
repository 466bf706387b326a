"""Encrypts and signs values that a client returns later, such as cursors and questions.

A client cannot read or alter them, or use them for another purpose or as another caller. A seal is a Fernet token
(AES-128-CBC with HMAC-SHA256) over the value, its purpose, its caller and the time.
"""

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

from itwin_mcp.atomic_files import write_file
from itwin_mcp.executor.context import Caller

logger = logging.getLogger(__name__)

_LOCK_SECONDS = 10.0
Flaw = Literal["unreadable", "expired", "of another caller", "of another purpose"]


class SealError(Exception):
    """The text is not a seal for this purpose and caller; `flaw` says why."""

    def __init__(self, flaw: Flaw) -> None:
        super().__init__(flaw)
        self.flaw = flaw


class Seals:
    """Seals with the first of the keys, and opens with any of them; a key has 32 bytes.

    `keys` is called once, when the first value is sealed or opened; `clock` returns seconds since 1970.
    """

    def __init__(self, keys: Callable[[], Sequence[bytes]], *, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._clock = clock
        self._fernet: Any = None

    def seal(self, purpose: str, caller: Caller, value: Mapping[str, Any]) -> str:
        """Return the value as text that only `open` with the same purpose and caller reads."""
        payload = {"p": purpose, "c": caller.key, "t": int(self._clock()), "v": value}
        sealed: bytes = self._cipher().encrypt(json.dumps(payload, separators=(",", ":")).encode())
        return sealed.decode().rstrip("=")

    def open(self, text: str, purpose: str, caller: Caller, *, seconds: int) -> dict[str, Any]:
        """Return the sealed value, at most `seconds` old. Raises SealError."""
        from cryptography.fernet import InvalidToken

        try:
            payload = json.loads(self._cipher().decrypt(_restore_padding(text)))
        except (InvalidToken, ValueError):
            raise SealError("unreadable") from None
        # Purpose and caller are sealed too, so that a cursor never counts as a confirmation, and no caller can use the
        # seal of another one.
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


def derive_keys(secrets: Sequence[str]) -> tuple[bytes, ...]:
    """Derive keys for `Seals` from secrets that several servers share, so that each opens what another sealed.

    A seal does not ensure single use: two servers that share nothing else may each open the same text.
    """
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return tuple(HKDF(SHA256(), 32, salt=None, info=b"itwin-mcp seals 1").derive(text.encode()) for text in secrets)


def load_or_create_key(file: Path) -> bytes:
    """Return the key in a file. A missing one is created; on POSIX one that others can read is replaced.

    Raises: OSError, also if the file does not hold a key.
    """
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not file.exists():
        # Another process that starts meanwhile must not read half a key, nor make a second.
        with suppress(FileExistsError):
            write_file(file, secrets.token_bytes(32), replace=False)
    key = _read_private_key(file)
    if key is None:
        # Under a lock, so that of several processes that start together one makes the new key and all others read it.
        from filelock import FileLock

        with FileLock(file.with_name(f"{file.name}.lock"), timeout=_LOCK_SECONDS, mode=0o600):
            key = _read_private_key(file)
            if key is None:
                logger.warning("Others could read the key %s, so it was replaced; earlier cursors are invalid", file)
                key = secrets.token_bytes(32)
                write_file(file, key)
    if len(key) != 32:
        raise OSError("it is damaged; without it cursors given so far are invalid, and a new one is made")
    return key


def _read_private_key(file: Path) -> bytes | None:
    """Return the content of a key file; None on POSIX if other users can read it."""
    with file.open("rb") as stream:
        status = os.fstat(stream.fileno())
        if os.name == "posix" and (status.st_mode & 0o077 or status.st_uid != os.geteuid()):
            return None
        return stream.read(64)


def _restore_padding(text: str) -> bytes:
    """Return the token with its padding. Raises ValueError for any text that base64 decoders would silently repair."""
    token = (text + "=" * (-len(text) % 4)).encode("ascii")
    if "=" in text or base64.urlsafe_b64encode(base64.urlsafe_b64decode(token)) != token:
        raise ValueError("not the text that was given")
    return token
