"""SavedLoginTokens: rotation, refusal, sign-out, and two processes that share a login."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from itwin_mcp.errors import NotSignedIn, Unreachable
from itwin_mcp.upstream.sign_in.login_store import LoginStore, SavedLogin
from itwin_mcp.upstream.sign_in.saved_login import DEFAULT_CLIENT_ID, SavedLoginTokens
from itwin_mcp.upstream.sign_in.sign_in_server import Grant, SignInServer
from itwin_mcp.upstream.sign_in.token import read_token

from ..loopback import Asked  # noqa: TID252
from .identity import USER_AGENT, Clock, Identity, identity, jwt  # noqa: TID252

pytestmark = pytest.mark.anyio

NATIVE = "native-x"


def build_tokens(state: Identity, folder: Path, clock: Clock | None = None, **options: Any) -> SavedLoginTokens:
    clock = clock or Clock()
    server = SignInServer(state.issuer, user_agent=USER_AGENT, now=clock.now)
    store = LoginStore(folder, use_keyring=False)
    return SavedLoginTokens(server, NATIVE, store, now=clock.now, monotonic=clock.monotonic, **options)


async def save_login(state: Identity, folder: Path, clock: Clock | None = None, **options: Any) -> SavedLoginTokens:
    tokens = build_tokens(state, folder, clock, **options)
    await LoginStore(folder, use_keyring=False).save(tokens.key, SavedLogin(state.seed(), 1.0))
    return tokens


def read_refresh_token(tokens: SavedLoginTokens, folder: Path) -> str:
    return str(json.loads(LoginStore(folder).path(tokens.key).read_text())["refresh_token"])


async def test_token_without_login_raises_not_signed_in(tmp_path: Path) -> None:
    async with identity() as state:
        tokens = build_tokens(state, tmp_path, remedy="Use the tool `sign-in`.")
        with pytest.raises(NotSignedIn, match="Nobody has signed in") as caught:
            await tokens.get_token()
        assert not await tokens.has_login()
    assert caught.value.hint == "Use the tool `sign-in`."
    assert state.server.requests == []


async def test_rotated_refresh_token_is_saved_before_use(tmp_path: Path) -> None:
    clock = Clock()
    async with identity() as state:
        tokens = await save_login(state, tmp_path, clock)
        assert (await tokens.get_token()).value == "access-1-canary"
        assert read_refresh_token(tokens, tmp_path) == "refresh-1-canary" == state.refresh_token
        clock.move(4000)
        assert (await tokens.get_token()).value == "access-2-canary"
        assert read_refresh_token(tokens, tmp_path) == "refresh-2-canary"
    form = state.token_requests[0].form
    assert (form["grant_type"], form["client_id"]) == ("refresh_token", NATIVE)
    assert "resource" not in form
    assert "client_secret" not in form


async def test_refresh_token_is_kept_without_rotation(tmp_path: Path) -> None:
    clock = Clock()
    async with identity(rotate=False) as state:
        tokens = await save_login(state, tmp_path, clock)
        await tokens.get_token()
        clock.move(4000)
        await tokens.get_token()
    assert read_refresh_token(tokens, tmp_path) == "refresh-0-canary"


async def test_ended_login_is_deleted(tmp_path: Path) -> None:
    async with identity() as state:
        tokens = await save_login(state, tmp_path)
        state.refresh_token = "another"
        for words in ("invalid_grant", "Nobody has signed in", "Nobody has signed in"):
            with pytest.raises(NotSignedIn, match=words):
                await tokens.get_token()
        assert len(state.token_requests) == 1
        await LoginStore(tmp_path, use_keyring=False).save(tokens.key, SavedLogin(state.seed(), 2.0))
        assert (await tokens.get_token()).value == "access-1-canary"


async def test_outage_keeps_the_login(tmp_path: Path) -> None:
    async def broken(request: Asked) -> bool:
        await request.answer(502, b"<html>")
        return True

    clock = Clock()
    async with identity(misbehave=broken) as state:
        tokens = await save_login(state, tmp_path, clock)
        with pytest.raises(Unreachable):
            await tokens.get_token()
        state.misbehave = None
        clock.move(2)
        assert (await tokens.get_token()).value == "access-1-canary"


async def test_cancellation_during_renewal_keeps_the_login(tmp_path: Path) -> None:
    arrived, release = anyio.Event(), anyio.Event()

    async def slow(request: Asked) -> bool:
        arrived.set()
        await release.wait()
        return False

    async with identity(misbehave=slow) as state:
        tokens = await save_login(state, tmp_path)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tokens.get_token)
            await arrived.wait()
            tasks.cancel_scope.cancel()
            release.set()
        assert read_refresh_token(tokens, tmp_path) == state.refresh_token
        assert (await tokens.get_token()).value == "access-1-canary"
    assert len(state.token_requests) == 1


async def test_concurrent_callers_share_one_refresh(tmp_path: Path) -> None:
    async with identity() as state:
        tokens = await save_login(state, tmp_path)
        async with anyio.create_task_group() as tasks:
            for _ in range(200):
                tasks.start_soon(tokens.get_token)
    assert len(state.token_requests) == 1


async def test_two_sources_share_rotated_refresh_tokens(tmp_path: Path) -> None:
    async with identity() as state:
        first = await save_login(state, tmp_path)
        second = build_tokens(state, tmp_path)
        await first.get_token()
        await second.get_token()
        assert read_refresh_token(first, tmp_path) == state.refresh_token == "refresh-2-canary"


async def test_full_disk_keeps_the_login_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    async with identity() as state:
        tokens = await save_login(state, tmp_path, clock)

        async def raise_no_space(self: LoginStore, key: object, login: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(LoginStore, "save", raise_no_space)
            await tokens.get_token()
        clock.move(4000)
        assert (await tokens.get_token()).value == "access-2-canary"
        assert read_refresh_token(tokens, tmp_path) == state.refresh_token
    assert "No space" in caplog.text
    assert "canary" not in caplog.text


async def test_sign_out_revokes_and_deletes_the_login(tmp_path: Path) -> None:
    async with identity() as state:
        tokens = await save_login(state, tmp_path)
        assert await tokens.sign_out() is True
        assert not await tokens.has_login()
        assert await tokens.sign_out() is False
    assert state.revoked == ["refresh-0-canary"]


async def test_sign_out_deletes_the_login_without_the_server(tmp_path: Path) -> None:
    async with identity(discovery={"revocation_endpoint": None}) as state:
        tokens = await save_login(state, tmp_path)
        assert await tokens.sign_out() is False
        tokens = await save_login(state, tmp_path)
    with pytest.raises(Unreachable):
        await build_tokens(state, tmp_path).sign_out()
    assert not await tokens.has_login()


async def test_sign_out_deletes_a_login_file_with_open_permissions(tmp_path: Path) -> None:
    async with identity() as state:
        tokens = await save_login(state, tmp_path)
        path = LoginStore(tmp_path).path(tokens.key)
        path.chmod(0o644)
        with pytest.raises(NotSignedIn, match="refused"):
            await tokens.get_token()
        assert await tokens.sign_out() is False
    assert not path.exists()
    assert state.server.requests == []


PROCESS = """
import anyio, sys
from pathlib import Path
from itwin_mcp.upstream.sign_in.login_store import LoginStore
from itwin_mcp.upstream.sign_in.saved_login import SavedLoginTokens
from itwin_mcp.upstream.sign_in.sign_in_server import SignInServer

async def main(issuer, folder, rounds):
    store = LoginStore(Path(folder), use_keyring=False)
    tokens = SavedLoginTokens(SignInServer(issuer, user_agent="t"), "native-x", store)
    token = await tokens.get_token()
    for _ in range(rounds - 1):
        token = await tokens.get_token(stale=token)
    print(token.value)

anyio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]))
"""


async def test_two_processes_share_a_login(tmp_path: Path) -> None:
    rounds, processes = 8, 2
    async with identity() as state:
        tokens = await save_login(state, tmp_path)
        completed: list[subprocess.CompletedProcess[str]] = []

        async def run() -> None:
            command = [sys.executable, "-c", PROCESS, state.issuer, str(tmp_path), str(rounds)]
            completed.append(
                await anyio.to_thread.run_sync(
                    lambda: subprocess.run(command, capture_output=True, text=True, check=False)
                )
            )

        async with anyio.create_task_group() as tasks:
            for _ in range(processes):
                tasks.start_soon(run)
        assert [process.returncode for process in completed] == [0] * processes, completed
        assert read_refresh_token(tokens, tmp_path) == state.refresh_token
    assert state.issued == rounds * processes


def test_default_client_id_is_empty() -> None:
    assert DEFAULT_CLIENT_ID == ""


async def test_read_user_returns_name_of_the_first_token(tmp_path: Path) -> None:
    async with identity() as state:
        tokens = build_tokens(state, tmp_path)
        assert await tokens.read_user() is None
        token = read_token(jwt(name="Anna de Vries", email="anna@example.com"))
        await tokens.save_grant(Grant(token, state.seed()))
        assert await tokens.read_user() == "Anna de Vries"
        await tokens.get_token()  # the renewed token is opaque
        assert await build_tokens(state, tmp_path).read_user() == "Anna de Vries"
