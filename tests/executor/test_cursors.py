"""A cursor is valid only for its own call; any other cursor is rejected before a request is sent."""

import base64
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from itwin_mcp.executor.confirmation.seals import SealError, Seals, load_or_create_key
from itwin_mcp.executor.context import LOCAL, Caller
from itwin_mcp.executor.paging import MAX_CURSOR, MAX_TRAIL, Cursors, Position
from tests.conftest import connect
from tests.executor.bench import KEY, Bench, bench
from tests.executor.test_paging import Store

pytestmark = pytest.mark.anyio


async def read_cursor(harness: Bench, tool: str = "list-things", caller: Caller = LOCAL, **arguments: Any) -> str:
    return str((await harness.call(tool, caller, limit=4, **arguments))["page"]["cursor"])


async def check_rejected(
    harness: Bench, cursor: str, tool: str = "list-things", caller: Caller = LOCAL, **arguments: Any
) -> str:
    """Return the message that rejects a cursor; check that nothing was sent."""
    sent = len(harness.asked)
    error = await harness.refused(tool, caller, cursor=cursor, **arguments)
    assert len(harness.asked) == sent
    assert error["code"] == "InvalidArguments"
    assert error["details"][0]["target"] == "cursor"
    assert "or leave cursor out to start over" in error["hint"]
    return str(error["message"])


async def test_list_has_no_cursor_if_the_seal_key_is_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "seal.key").write_text("not a key")
    (tmp_path / "seal.key").chmod(0o600)  # a key that others can read would be replaced
    monkeypatch.setenv("ITWIN_MCP_STATE_DIR", str(tmp_path))
    async with connect() as client:
        answer = (await client.call_tool("list-itwins", {"limit": 2})).structured_content or {}
        refused_call = (await client.call_tool("list-itwins", {"limit": 2, "cursor": "x"})).structured_content or {}
    assert len(answer["iTwins"]) == 2
    assert "cursor" not in answer["page"]
    assert answer["page"]["complete"] is False
    assert "ITWIN_MCP_STATE_DIR" in answer["page"]["stoppedBecause"]
    assert refused_call["error"]["code"] == "StateUnusable"


async def test_cursor_is_bound_to_tool_arguments_and_caller() -> None:
    ann, bob = Caller("ann"), Caller("bob")
    async with bench("things.yaml", Store(30)) as harness:
        cursor = await read_cursor(harness, caller=ann, kind="x")
        assert "to another caller" in await check_rejected(harness, cursor, caller=bob, kind="x")
        assert "by another tool, or for other arguments" in await check_rejected(harness, cursor, caller=ann, kind="y")
        assert "by another tool, or for other arguments" in await check_rejected(harness, cursor, caller=ann)
        plain = await read_cursor(harness, caller=ann)
        for other in ("list-others", "list-within"):
            assert "by another tool, or for other arguments" in await check_rejected(
                harness, plain, tool=other, caller=ann
            )
        answer = await harness.call("list-things", ann, kind="x", cursor=cursor, limit=2)
    assert [item["id"] for item in answer["things"]] == ["t4", "t5"]


async def test_altered_truncated_or_foreign_cursor_is_rejected() -> None:
    async with bench("things.yaml", Store(30)) as harness:
        cursor = await read_cursor(harness)
        flipped = cursor[:40] + ("A" if cursor[40] != "A" else "B") + cursor[41:]
        for other in (
            flipped,
            cursor[:-1],
            cursor[:20],
            cursor + "A",
            cursor + "=",
            cursor + "\n",
            " " + cursor,
            "x",
            "é",
        ):
            assert "altered or cut, or another server" in await check_rejected(harness, other)
    async with bench("things.yaml", Store(30), keys=[b"o" * 32]) as other_server:
        assert "altered or cut, or another server" in await check_rejected(other_server, cursor)


async def test_cursor_expires_after_a_day() -> None:
    async with bench("things.yaml", Store(30)) as harness:
        cursor = await read_cursor(harness)
        harness.clock.time += 24 * 3600 - 1
        await harness.call("list-things", cursor=cursor)
        harness.clock.time += 2
        assert "it has expired: a cursor lasts a day" in await check_rejected(harness, cursor)


async def test_cursor_survives_restart_and_key_rotation() -> None:
    new = b"n" * 32
    async with bench("things.yaml", Store(30)) as harness:
        cursor = await read_cursor(harness)
    async with bench("things.yaml", Store(30), keys=[new, KEY]) as harness:
        answer = await harness.call("list-things", cursor=cursor, limit=4)
        later = answer["page"]["cursor"]
    assert [item["id"] for item in answer["things"]] == ["t4", "t5", "t6", "t7"]
    async with bench("things.yaml", Store(30), keys=[new]) as harness:
        assert (await harness.call("list-things", cursor=later, limit=1))["things"][0]["id"] == "t8"
        await check_rejected(harness, cursor)


async def test_cursor_content_is_encrypted() -> None:
    async with bench("things.yaml", Store(30)) as harness:
        cursor = await read_cursor(harness)
    for part in (cursor, cursor + "=" * (-len(cursor) % 4)):
        try:
            content = base64.urlsafe_b64decode(part)
        except ValueError:
            continue
        assert b"list-things" not in content


POSITIONS = st.builds(
    Position,
    query=st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    offset=st.integers(0, 1000),
    given=st.text("0123456789abcdef", max_size=16),
    before=st.integers(0, 10_000),
    size=st.integers(0, 1000),
    trail=st.lists(st.text("0123456789abcdef", min_size=8, max_size=8), max_size=MAX_TRAIL).map(tuple),
)
# The clock is fixed: a whole run opens minutes later what is sealed when this file is imported.
SEALS = Seals(lambda: [KEY], clock=lambda: 1_800_000_000.0)


@given(
    position=POSITIONS, arguments=st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3)
)
def test_cursors_open_what_they_seal(position: Position, arguments: dict[str, Any]) -> None:
    cursors = Cursors(SEALS, "list-things", arguments, LOCAL)
    cursor = cursors.seal(position)
    assert cursor is not None
    assert len(cursor) <= MAX_CURSOR
    assert Cursors(SEALS, "list-things", {**arguments, "limit": 7, "cursor": cursor}, LOCAL).open(cursor) == position


SEALED = SEALS.seal("p", LOCAL, {"n": 1})


@given(st.text(max_size=300) | st.binary(max_size=200).map(lambda content: base64.urlsafe_b64encode(content).decode()))
def test_seals_reject_any_other_text_as_unreadable(text: str) -> None:
    with pytest.raises(SealError, match="unreadable"):
        SEALS.open(text, "p", LOCAL, seconds=60)


@given(at=st.integers(0, len(SEALED) - 1), character=st.characters())
@example(at=0, character=SEALED[0])
def test_seal_with_one_changed_character_is_rejected(at: int, character: str) -> None:
    changed = SEALED[:at] + character + SEALED[at + 1 :]
    if changed == SEALED:
        assert SEALS.open(changed, "p", LOCAL, seconds=60) == {"n": 1}
        return
    with pytest.raises(SealError, match="unreadable"):
        SEALS.open(changed, "p", LOCAL, seconds=60)


def test_seals_seal_with_the_first_key_and_open_with_all() -> None:
    old, new = b"1" * 32, b"2" * 32
    sealed_by_old = Seals(lambda: [old]).seal("p", LOCAL, {"n": 1})
    both = Seals(lambda: [new, old])
    assert both.open(sealed_by_old, "p", LOCAL, seconds=60) == {"n": 1}
    sealed = both.seal("p", LOCAL, {"n": 2})
    assert Seals(lambda: [new]).open(sealed, "p", LOCAL, seconds=60) == {"n": 2}
    with pytest.raises(SealError):
        Seals(lambda: [old]).open(sealed, "p", LOCAL, seconds=60)


def test_concurrent_load_or_create_key_returns_one_key(tmp_path: Path) -> None:
    file = tmp_path / "state" / "seal.key"
    with ThreadPoolExecutor(16) as pool:
        keys = set(pool.map(lambda _: load_or_create_key(file), range(64)))
    assert [len(key) for key in keys] == [32]
    assert sys.platform == "win32" or file.stat().st_mode & 0o777 == 0o600
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_load_or_create_key_replaces_a_key_that_others_can_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "seal.key"
    file.write_bytes(bytes(32))
    file.chmod(0o644)
    with ThreadPoolExecutor(16) as pool:
        keys = set(pool.map(lambda _: load_or_create_key(file), range(64)))
    assert keys == {file.read_bytes()} != {bytes(32)}
    assert file.stat().st_mode & 0o777 == 0o600
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert load_or_create_key(file) in keys


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_concurrent_processes_agree_on_a_replaced_key(tmp_path: Path) -> None:
    file = tmp_path / "seal.key"
    file.write_bytes(bytes(32))
    file.chmod(0o640)
    module = "itwin_mcp.executor.confirmation.seals"
    code = f"import pathlib, sys, {module} as s; print(s.load_or_create_key(pathlib.Path(sys.argv[1])).hex())"
    command = [sys.executable, "-c", code, str(file)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    keys = {process.communicate(timeout=60)[0].strip() for process in started}
    assert keys == {file.read_bytes().hex()} != {bytes(32).hex()}
