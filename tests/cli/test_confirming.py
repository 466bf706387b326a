"""Confirmation in the shell: `call` asks for the name or takes `--yes`, and `approve` confirms agents' calls."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from itwin_mcp.executor.confirmation.approvals import Approvals, PendingApproval
from itwin_mcp.executor.confirmation.preview import Losses
from tests.cli.test_commands import run, run_json

ROADS = "A12 Interchange - Roads"
PREVIEW = Losses("Delete it?", "Pier 7", {"changesets": 12}, {"changesets": 12}, about={"description": "Old"})

needs_terminals = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")


@pytest.fixture
def sandbox(tmp_path: Path) -> tuple[str, ...]:
    return ("--sandbox", "--sandbox-db", str(tmp_path / "sandbox"))


@pytest.fixture
def roads(sandbox: tuple[str, ...]) -> str:
    found = run_json("call", "find-imodel", *sandbox, "--arg", f"name={ROADS}")
    return str(found["matches"]["byName"][0]["id"])


@pytest.fixture
def approvals() -> Approvals:
    return Approvals(Path(os.environ["ITWIN_MCP_STATE_DIR"]) / "approvals")


@contextmanager
def open_terminal(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run a command on a terminal; if its first word is `sh`, run that shell."""
    import pty

    ours, theirs = pty.openpty()
    command = arguments if arguments[0] == "sh" else [sys.executable, "-m", "itwin_mcp", *arguments]
    process = subprocess.Popen(command, stdin=theirs, stderr=theirs, stdout=subprocess.PIPE, env=os.environ)
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.communicate()
        os.close(ours)


def answer_on_terminal(name: bytes, *arguments: str) -> tuple[int, str, str]:
    """Return exit code, output and the terminal's text after the user typed a name."""
    with open_terminal(*arguments) as (process, terminal):
        shown = b""
        while b"Name:" not in shown:
            shown += os.read(terminal, 4096)
        os.write(terminal, name + b"\n")
        out, _ = process.communicate(timeout=60)
        with suppress(OSError):  # how the terminal of a process that has ended says that there is no more
            while piece := os.read(terminal, 4096):
                shown += piece
        return process.returncode, out.decode(), shown.decode()


@pytest.mark.slow
def test_call_without_terminal_previews_and_yes_needs_an_id(sandbox: tuple[str, ...], roads: str) -> None:
    preview = run_json("call", "delete-imodel", *sandbox, "--arg", f"iModelId={roads}", code=1)["preview"]
    assert "approveWith" not in preview
    assert "Only the user may pass --yes" in preview["hint"]
    assert preview["loses"]["changesets"] == 12
    by_name = run_json("call", "delete-imodel", *sandbox, "--yes", "--arg", f"iModelId={ROADS}", code=1)["error"]
    assert "--yes takes no name" in by_name["message"]
    assert run_json("call", "get-imodel", *sandbox, "--arg", f"iModelId={roads}")["iModel"]["name"] == ROADS
    assert run_json("call", "delete-imodel", *sandbox, "--yes", "--arg", f"iModelId={roads}") == {"deleted": True}


@needs_terminals
@pytest.mark.slow
def test_call_requires_typing_the_name_before_deleting(sandbox: tuple[str, ...], roads: str) -> None:
    call = ("call", "delete-imodel", *sandbox, "--arg", f"iModelId={roads}")
    for typed, code in ((b"", "Cancelled"), (b"yes", "NameMismatch")):
        status, out, shown = answer_on_terminal(typed, *call)
        assert (status, json.loads(out)["error"]["code"]) == (1, code)
        assert f"Delete the iModel “{ROADS}”" in shown
        assert "- changesets: 12" in shown
    assert answer_on_terminal(ROADS.encode(), *call)[:2] == (0, '{\n  "deleted": true\n}\n')


@needs_terminals
@pytest.mark.slow
def test_ctrl_c_at_the_question_ends_the_call(sandbox: tuple[str, ...], roads: str) -> None:
    with open_terminal("call", "delete-imodel", *sandbox, "--arg", f"iModelId={roads}") as (process, terminal):
        shown = b""
        while b"Name:" not in shown:
            shown += os.read(terminal, 4096)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 1
    assert run_json("call", "get-imodel", *sandbox, "--arg", f"iModelId={roads}")["iModel"]["name"] == ROADS


def ask(approvals: Approvals, seconds: float = 300) -> PendingApproval:
    return approvals.ask("delete-imodel", "of this call", PREVIEW, seconds)


@needs_terminals
def test_approve_lists_pending_calls_and_each_approval_is_used_once(approvals: Approvals) -> None:
    assert run("approve").stdout == "No call waits for approval.\n"
    waiting = ask(approvals)
    assert ask(approvals).id == waiting.id
    listed = run_json("approve", "--json")["pending"]
    (one,) = listed
    assert (one["id"], one["tool"]) == (waiting.id, "delete-imodel")
    assert (one["about"], one["loses"]) == ({"description": "Old"}, {"changesets": 12})
    assert waiting.id in run("approve").stdout
    assert approvals.take("of this call") is None
    silent = run("approve", waiting.id)
    assert (silent.returncode, silent.stdout) == (2, "")
    assert "There is no terminal" in silent.stderr
    assert run("approve", waiting.id, "--yes").returncode == 2
    status, out, _ = answer_on_terminal(b"Pier 7", "approve", waiting.id.lower(), "--json")
    assert (status, json.loads(out)["approved"]["id"]) == (0, waiting.id)
    assert "error" in run_json("approve", waiting.id, "--json", code=1)
    assert approvals.take("of another call") is None
    taken = approvals.take("of this call")
    assert taken is not None and taken.id == waiting.id
    assert approvals.take("of this call") is None


@needs_terminals
def test_approve_shows_the_preview_and_asks_for_the_name(approvals: Approvals) -> None:
    waiting = ask(approvals)
    status, _, shown = answer_on_terminal(b"Pier 8", "approve", waiting.id)
    assert status == 1
    assert "Delete it?" in shown and "- changesets: 12" in shown
    assert approvals.take("of this call") is None
    assert answer_on_terminal(b"Pier 7", "approve", waiting.id)[0] == 0
    assert approvals.take("of this call") is not None


def test_expired_call_is_neither_approved_nor_used(approvals: Approvals) -> None:
    waiting = ask(approvals, seconds=-1)
    assert run("approve", waiting.id).returncode == 1
    now = [0.0]
    late = Approvals(Path(os.environ["ITWIN_MCP_STATE_DIR"]) / "late", clock=lambda: now[0])
    given = late.ask("delete-imodel", "of this call", PREVIEW, 300)
    assert late.approve(given.id) is not None
    now[0] = 300.0
    assert late.take("of this call") is None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
def test_pending_files_are_private_and_damaged_ones_are_skipped(approvals: Approvals) -> None:
    waiting = ask(approvals)
    folder = Path(os.environ["ITWIN_MCP_STATE_DIR"]) / "approvals"
    (file,) = folder.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert file.stat().st_mode & 0o777 == 0o600
    forged = json.loads(file.read_text()) | {"id": "22222222"}
    for text in (
        *("", "[]", '{"id": "22222222"}', "{"),
        json.dumps(forged | {"expires": "soon"}),
        json.dumps(forged | {"expires": forged["expires"] + 100_000}),
        json.dumps(forged | {"measures": None}),
    ):
        (folder / "22222222.approved").write_text(text)
        assert approvals.take("of this call") is None
    (folder / "22222222.approved").write_bytes(file.read_bytes())
    assert approvals.take("of this call") is None, "an approval copied to another id is invalid"
    assert [one.id for one in approvals.pending()] == [waiting.id]


@needs_terminals
def test_approve_names_the_folder_that_cannot_be_written(approvals: Approvals) -> None:
    waiting = ask(approvals)
    state = Path(os.environ["ITWIN_MCP_STATE_DIR"])
    (state / "approvals" / f"{waiting.id}.approved").mkdir()  # in the way, for root too
    status, out, shown = answer_on_terminal(b"Pier 7", "approve", waiting.id)
    assert (status, out) == (2, "")
    assert f"{state} cannot be used, so nothing was approved" in shown


def test_at_most_fifty_calls_are_pending(approvals: Approvals) -> None:
    ids: list[Any] = [approvals.ask("t", str(number), PREVIEW, 300 + number).id for number in range(52)]
    assert [one.id for one in approvals.pending()] == ids[2:]
