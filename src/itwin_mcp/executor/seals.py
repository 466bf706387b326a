"""What we hand out and take back later is sealed: nobody can read, alter or swap it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from itwin_mcp.executor.conversation import Caller


class SealBroken(Exception):
    """The text is not one of ours for this purpose and caller; the message says why."""


class Seals:
    """Seals values under keys of 32 bytes, the first for new ones, all for old ones.

    `keys` is asked once, when the first value is sealed or opened.
    """

    def __init__(self, keys: Callable[[], Sequence[bytes]]) -> None:
        self._keys = keys
        self._fernet: Any = None

    def seal(self, purpose: str, caller: Caller, value: Mapping[str, Any]) -> str:
        """The value as text that only `open` with the same purpose and caller reads."""
        payload = {"p": purpose, "c": caller.key, "v": value}
        sealed: bytes = self._cipher().encrypt(json.dumps(payload, separators=(",", ":")).encode())
        return sealed.decode().rstrip("=")

    def open(self, text: str, purpose: str, caller: Caller, *, seconds: int) -> dict[str, Any]:
        """The sealed value, at most `seconds` old. Raises SealBroken."""
        from cryptography.fernet import InvalidToken

        try:
            padded = text + "=" * (-len(text) % 4)
            payload = json.loads(self._cipher().decrypt(padded.encode("utf-8", "replace"), ttl=seconds))
        except InvalidToken:
            raise SealBroken("it was altered, has expired, or is not from this server") from None
        if payload["c"] != caller.key:
            raise SealBroken("it was given to another caller")
        if payload["p"] != purpose:
            raise SealBroken(f"it was given for {payload['p']}")
        value: dict[str, Any] = payload["v"]
        return value

    def _cipher(self) -> Any:
        if self._fernet is None:
            # Imported for the first cursor, not at start-up.
            import base64

            from cryptography.fernet import Fernet, MultiFernet

            self._fernet = MultiFernet([Fernet(base64.urlsafe_b64encode(key)) for key in self._keys()])
        return self._fernet
