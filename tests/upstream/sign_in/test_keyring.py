"""LoginStore with the system's keyring, if the optional package is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from itwin_mcp.upstream.sign_in.login_store import LoginKey, LoginStore, SavedLogin, find_keyring

keyring = pytest.importorskip("keyring", reason="the extra [keyring] is not installed")
backend = pytest.importorskip("keyring.backend")
errors = pytest.importorskip("keyring.errors")
fail = pytest.importorskip("keyring.backends.fail")

pytestmark = pytest.mark.anyio

KEY = LoginKey("https://ims.bentley.com", "native-x", "itwin-platform offline_access")
LOGIN = SavedLogin("refresh-canary", 1_800_000_000.0)


class MemoryKeyring(backend.KeyringBackend):
    """A keyring in memory that can be locked."""

    priority: ClassVar[float] = 5

    def __init__(self) -> None:
        self.passwords: dict[tuple[str, str], str] = {}
        self.locked = False

    def _open(self) -> None:
        if self.locked:
            raise errors.KeyringLocked("locked")

    def get_password(self, service: str, username: str) -> str | None:
        self._open()
        return self.passwords.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self._open()
        self.passwords[(service, username)] = password

    def delete_password(self, service: str, username: str) -> None:
        self._open()
        del self.passwords[(service, username)]


async def test_keyring_is_preferred_over_a_file(tmp_path: Path) -> None:
    memory_keyring = MemoryKeyring()
    plain = LoginStore(tmp_path, use_keyring=False)
    await plain.save(KEY, SavedLogin("old", 1.0))
    store = LoginStore(tmp_path, keyring=memory_keyring)
    assert await store.load(KEY) == SavedLogin("old", 1.0)
    await store.save(KEY, LOGIN)
    assert await store.load(KEY) == LOGIN
    assert not store.path(KEY).exists()
    await store.delete(KEY)
    assert memory_keyring.passwords == {}


async def test_locked_keyring_falls_back_to_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    memory_keyring = MemoryKeyring()
    memory_keyring.locked = True
    store = LoginStore(tmp_path, keyring=memory_keyring)
    await store.save(KEY, LOGIN)
    assert await store.load(KEY) == LOGIN
    await store.delete(KEY)
    assert await store.load(KEY) is None
    assert "canary" not in caplog.text


def test_find_keyring_ignores_backends_without_protection(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_with_backend(backend: Any) -> Any:
        monkeypatch.setattr(keyring, "get_keyring", lambda: backend)
        return find_keyring()

    assert find_with_backend(fail.Keyring()) is None
    assert find_with_backend(MemoryKeyring()) is None  # not one of keyring's own

    def raise_error() -> Any:
        raise RuntimeError("no D-Bus")

    monkeypatch.setattr(keyring, "get_keyring", raise_error)
    assert find_keyring() is None
