"""LoginStore with files: permissions, damaged files, failed writes and locks."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import anyio
import pytest

from itwin_mcp.errors import NotSignedIn, Unreachable
from itwin_mcp.upstream.sign_in import login_store
from itwin_mcp.upstream.sign_in.login_store import LoginKey, LoginStore, SavedLogin

pytestmark = pytest.mark.anyio

KEY = LoginKey("https://ims.bentley.com", "native-x", "itwin-platform offline_access")
LOGIN = SavedLogin("refresh-canary", 1_800_000_000.0)


@pytest.fixture
def store(tmp_path: Path) -> LoginStore:
    return LoginStore(tmp_path / "state" / "logins", use_keyring=False)


async def test_saved_login_is_loaded_until_deleted(store: LoginStore) -> None:
    assert await store.load(KEY) is None
    await store.save(KEY, LOGIN)
    assert await store.load(KEY) == LOGIN
    await store.delete(KEY)
    await store.delete(KEY)
    assert await store.load(KEY) is None


@pytest.mark.skipif(os.name == "nt", reason="mode bits are not Windows' way")
async def test_login_file_is_private(store: LoginStore) -> None:
    mask = os.umask(0)
    try:
        await store.save(KEY, LOGIN)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(store.path(KEY).stat().st_mode) == 0o600
    assert stat.S_IMODE(store.path(KEY).parent.stat().st_mode) == 0o700
    assert [path.name for path in store.path(KEY).parent.iterdir()] == [store.path(KEY).name]


async def test_login_file_has_only_refresh_token_and_date(store: LoginStore) -> None:
    await store.save(KEY, LOGIN)
    path = store.path(KEY)
    assert json.loads(path.read_text()) == {"refresh_token": "refresh-canary", "saved_at": 1_800_000_000.0}
    assert "native" not in path.name


@pytest.mark.skipif(os.name == "nt", reason="mode bits are not Windows' way")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
async def test_login_file_with_open_permissions_is_refused(store: LoginStore, mode: int) -> None:
    await store.save(KEY, LOGIN)
    store.path(KEY).chmod(mode)
    with pytest.raises(NotSignedIn, match="refused") as caught:
        await store.load(KEY)
    assert "chmod 600" in caught.value.hint


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
async def test_link_or_folder_instead_of_login_file_is_refused(store: LoginStore, tmp_path: Path) -> None:
    await store.save(KEY, LOGIN)
    store.path(KEY).rename(tmp_path / "elsewhere")
    store.path(KEY).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotSignedIn):
        await store.load(KEY)
    store.path(KEY).unlink()
    store.path(KEY).mkdir()
    with pytest.raises(NotSignedIn):
        await store.load(KEY)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "{}", '{"refresh_token": 5, "saved_at": 1}', '{"refresh_token": ""}']
)
async def test_load_reports_a_damaged_login_file(store: LoginStore, content: str) -> None:
    await store.save(KEY, LOGIN)
    store.path(KEY).write_text(content)
    with pytest.raises(NotSignedIn, match="damaged"):
        await store.load(KEY)


async def test_failed_save_keeps_the_previous_login(store: LoginStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await store.save(KEY, LOGIN)

    def raise_no_space(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(login_store.os, "fsync", raise_no_space)
    with pytest.raises(OSError, match="No space"):
        await store.save(KEY, SavedLogin("new", 1.0))
    assert await store.load(KEY) == LOGIN
    assert len(list(store.path(KEY).parent.iterdir())) == 1


async def test_logins_are_separate_by_server_application_and_profile(store: LoginStore) -> None:
    others = [
        LoginKey("https://qa-ims.bentley.com", KEY.client_id, KEY.scope),
        LoginKey(KEY.issuer, "native-y", KEY.scope),
        LoginKey(KEY.issuer, KEY.client_id, "other"),
        LoginKey(KEY.issuer, KEY.client_id, KEY.scope, "work"),
    ]
    await store.save(KEY, LOGIN)
    assert [await store.load(key) for key in others] == [None] * 4


async def test_lock_is_exclusive_and_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_store, "LOCK_SECONDS", 0.05)
    first, second = LoginStore(tmp_path), LoginStore(tmp_path)
    async with first.lock(KEY):
        with pytest.raises(Unreachable, match="Another itwin-mcp process"):
            async with second.lock(KEY):
                pass
    async with second.lock(KEY):
        pass


async def test_cancelled_holder_releases_the_lock(tmp_path: Path) -> None:
    store = LoginStore(tmp_path)
    held = anyio.Event()

    async def hold() -> None:
        async with store.lock(KEY):
            held.set()
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hold)
        await held.wait()
        tasks.cancel_scope.cancel()
    async with store.lock(KEY):
        pass
    assert "canary" not in repr(LOGIN) + repr(store)
