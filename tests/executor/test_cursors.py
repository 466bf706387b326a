"""A cursor is good for the call it was given for, and for no other; what it is not is said before anything is sent."""

import base64
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from itwin_mcp.executor.conversation import LOCAL, Caller
from itwin_mcp.executor.cursors import MOST_CURSOR, MOST_TRAIL, Cursors, Position
from itwin_mcp.executor.seals import SealError, Seals, kept_key
from tests.conftest import connect
from tests.executor.bench import KEY, Bench, bench
from tests.executor.test_paging import Store

pytestmark = pytest.mark.anyio


async def cursor_of(it: Bench, tool: str = "list-things", caller: Caller = LOCAL, **arguments: Any) -> str:
    return str((await it.call(tool, caller, limit=4, **arguments))["page"]["cursor"])


async def refused(it: Bench, cursor: str, tool: str = "list-things", caller: Caller = LOCAL, **arguments: Any) -> str:
    """Why a cursor is refused; nothing is sent for it."""
    sent = len(it.asked)
    error = await it.refused(tool, caller, cursor=cursor, **arguments)
    assert len(it.asked) == sent
    assert error["code"] == "InvalidArguments"
    assert error["details"][0]["target"] == "cursor"
    assert "or leave cursor out to start over" in error["hint"]
    return str(error["message"])


async def test_list_is_given_without_cursor_when_the_key_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "seal.key").write_text("not a key")
    (tmp_path / "seal.key").chmod(0o600)  # a key that others can read would be replaced
    monkeypatch.setenv("ITWIN_MCP_STATE_DIR", str(tmp_path))
    async with connect() as client:
        answer = (await client.call_tool("list-itwins", {"limit": 2})).structured_content or {}
        refused = (await client.call_tool("list-itwins", {"limit": 2, "cursor": "x"})).structured_content or {}
    assert len(answer["iTwins"]) == 2
    assert "cursor" not in answer["page"]
    assert answer["page"]["complete"] is False
    assert "ITWIN_MCP_STATE_DIR" in answer["page"]["stoppedBecause"]
    assert refused["error"]["code"] == "StateUnusable"


async def test_a_cursor_is_bound_to_its_tool_its_arguments_and_its_caller() -> None:
    ann, bob = Caller("ann"), Caller("bob")
    async with bench("things.yaml", Store(30)) as it:
        cursor = await cursor_of(it, caller=ann, kind="x")
        assert "to another caller" in await refused(it, cursor, caller=bob, kind="x")
        assert "by another tool, or for other arguments" in await refused(it, cursor, caller=ann, kind="y")
        assert "by another tool, or for other arguments" in await refused(it, cursor, caller=ann)
        plain = await cursor_of(it, caller=ann)
        for other in ("list-others", "list-within"):
            assert "by another tool, or for other arguments" in await refused(it, plain, tool=other, caller=ann)
        answer = await it.call("list-things", ann, kind="x", cursor=cursor, limit=2)
    assert [one["id"] for one in answer["things"]] == ["t4", "t5"]


async def test_a_cursor_that_is_altered_cut_or_of_another_server_is_refused() -> None:
    async with bench("things.yaml", Store(30)) as it:
        cursor = await cursor_of(it)
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
            assert "altered or cut, or another server" in await refused(it, other)
    async with bench("things.yaml", Store(30), keys=[b"o" * 32]) as other_server:
        assert "altered or cut, or another server" in await refused(other_server, cursor)


async def test_a_cursor_lasts_a_day() -> None:
    async with bench("things.yaml", Store(30)) as it:
        cursor = await cursor_of(it)
        it.clock.time += 24 * 3600 - 1
        await it.call("list-things", cursor=cursor)
        it.clock.time += 2
        assert "it has expired: a cursor lasts a day" in await refused(it, cursor)


async def test_a_cursor_outlives_the_process_that_gave_it_and_its_key_may_be_followed_by_another() -> None:
    new = b"n" * 32
    async with bench("things.yaml", Store(30)) as it:
        cursor = await cursor_of(it)
    async with bench("things.yaml", Store(30), keys=[new, KEY]) as it:
        answer = await it.call("list-things", cursor=cursor, limit=4)
        later = answer["page"]["cursor"]
    assert [one["id"] for one in answer["things"]] == ["t4", "t5", "t6", "t7"]
    async with bench("things.yaml", Store(30), keys=[new]) as it:
        assert (await it.call("list-things", cursor=later, limit=1))["things"][0]["id"] == "t8"
        await refused(it, cursor)


async def test_nobody_can_read_what_a_cursor_holds() -> None:
    async with bench("things.yaml", Store(30)) as it:
        cursor = await cursor_of(it)
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
    trail=st.lists(st.text("0123456789abcdef", min_size=8, max_size=8), max_size=MOST_TRAIL).map(tuple),
)
# The clock stands: what is sealed when this file is read is opened minutes later in a whole run.
SEALS = Seals(lambda: [KEY], clock=lambda: 1_800_000_000.0)


@given(
    position=POSITIONS, arguments=st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3)
)
def test_a_cursor_gives_back_the_position_it_was_made_of(position: Position, arguments: dict[str, Any]) -> None:
    cursors = Cursors(SEALS, "list-things", arguments, LOCAL)
    given_ = cursors.give(position)
    assert given_ is not None
    assert len(given_) <= MOST_CURSOR
    assert Cursors(SEALS, "list-things", {**arguments, "limit": 7, "cursor": given_}, LOCAL).take(given_) == position


SEALED = SEALS.seal("p", LOCAL, {"n": 1})


@given(st.text(max_size=300) | st.binary(max_size=200).map(lambda content: base64.urlsafe_b64encode(content).decode()))
def test_whatever_text_is_no_seal_of_ours_is_refused_in_the_same_words(text: str) -> None:
    with pytest.raises(SealError, match="unreadable"):
        SEALS.open(text, "p", LOCAL, seconds=60)


@given(at=st.integers(0, len(SEALED) - 1), by=st.characters())
@example(at=0, by=SEALED[0])
def test_a_seal_of_which_one_character_is_another_is_refused(at: int, by: str) -> None:
    changed = SEALED[:at] + by + SEALED[at + 1 :]
    if changed == SEALED:
        assert SEALS.open(changed, "p", LOCAL, seconds=60) == {"n": 1}
        return
    with pytest.raises(SealError, match="unreadable"):
        SEALS.open(changed, "p", LOCAL, seconds=60)


def test_the_first_key_seals_and_all_keys_open() -> None:
    old, new = b"1" * 32, b"2" * 32
    sealed_by_old = Seals(lambda: [old]).seal("p", LOCAL, {"n": 1})
    both = Seals(lambda: [new, old])
    assert both.open(sealed_by_old, "p", LOCAL, seconds=60) == {"n": 1}
    sealed = both.seal("p", LOCAL, {"n": 2})
    assert Seals(lambda: [new]).open(sealed, "p", LOCAL, seconds=60) == {"n": 2}
    with pytest.raises(SealError):
        Seals(lambda: [old]).open(sealed, "p", LOCAL, seconds=60)


def test_all_who_start_at_once_have_the_same_key(tmp_path: Path) -> None:
    file = tmp_path / "state" / "seal.key"
    with ThreadPoolExecutor(16) as pool:
        keys = set(pool.map(lambda _: kept_key(file), range(64)))
    assert [len(key) for key in keys] == [32]
    assert sys.platform == "win32" or file.stat().st_mode & 0o777 == 0o600
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_kept_key_replaces_a_key_that_others_can_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "seal.key"
    file.write_bytes(bytes(32))
    file.chmod(0o644)
    with ThreadPoolExecutor(16) as pool:
        keys = set(pool.map(lambda _: kept_key(file), range(64)))
    assert keys == {file.read_bytes()} != {bytes(32)}
    assert file.stat().st_mode & 0o777 == 0o600
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert kept_key(file) in keys


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_processes_that_start_together_agree_on_a_replaced_key(tmp_path: Path) -> None:
    file = tmp_path / "seal.key"
    file.write_bytes(bytes(32))
    file.chmod(0o640)
    code = "import pathlib, sys, itwin_mcp.executor.seals as s; print(s.kept_key(pathlib.Path(sys.argv[1])).hex())"
    command = [sys.executable, "-c", code, str(file)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    keys = {process.communicate(timeout=60)[0].strip() for process in started}
    assert keys == {file.read_bytes().hex()} != {bytes(32).hex()}
