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

IMODEL_NAME = "A12 Interchange - Roads"
PREVIEW = Losses("Delete it?", "Pier 7", {"changesets": 12}, {"changesets": 12}, about={"description": "Old"})

needs_terminals = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")


@pytest.fixture
def sandbox(tmp_path: Path) -> tuple[str, ...]:
    return ("--sandbox", "--sandbox-db", str(tmp_path / "sandbox"))


@pytest.fixture
def imodel_id(sandbox: tuple[str, ...]) -> str:
    answer = run_json("call", "find-imodel", *sandbox, "--arg", f"name={IMODEL_NAME}")
    return str(answer["matches"]["byName"][0]["id"])


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
        with suppress(OSError):  # reading from the terminal of a process that has ended fails
            while piece := os.read(terminal, 4096):
                shown += piece
        return process.returncode, out.decode(), shown.decode()


@pytest.mark.slow
def test_call_without_terminal_previews_and_yes_needs_an_id(sandbox: tuple[str, ...], imodel_id: str) -> None:
    preview = run_json("call", "delete-imodel", *sandbox, "--arg", f"iModelId={imodel_id}", code=1)["preview"]
    assert "approveWith" not in preview
    assert "Only the user may pass --yes" in preview["hint"]
    assert preview["loses"]["changesets"] == 12
    by_name = run_json("call", "delete-imodel", *sandbox, "--yes", "--arg", f"iModelId={IMODEL_NAME}", code=1)["error"]
    assert "--yes takes no name" in by_name["message"]
    assert run_json("call", "get-imodel", *sandbox, "--arg", f"iModelId={imodel_id}")["iModel"]["name"] == IMODEL_NAME
    assert run_json("call", "delete-imodel", *sandbox, "--yes", "--arg", f"iModelId={imodel_id}") == {"deleted": True}


@needs_terminals
@pytest.mark.slow
def test_call_requires_typing_the_name_before_deleting(sandbox: tuple[str, ...], imodel_id: str) -> None:
    call = ("call", "delete-imodel", *sandbox, "--arg", f"iModelId={imodel_id}")
    for typed, code in ((b"", "Cancelled"), (b"yes", "NameMismatch")):
        status, out, shown = answer_on_terminal(typed, *call)
        assert (status, json.loads(out)["error"]["code"]) == (1, code)
        assert f"Delete the iModel “{IMODEL_NAME}”" in shown
        assert "- changesets: 12" in shown
    assert answer_on_terminal(IMODEL_NAME.encode(), *call)[:2] == (0, '{\n  "deleted": true\n}\n')


@needs_terminals
@pytest.mark.slow
def test_ctrl_c_at_the_question_cancels_the_call(sandbox: tuple[str, ...], imodel_id: str) -> None:
    with open_terminal("call", "delete-imodel", *sandbox, "--arg", f"iModelId={imodel_id}") as (process, terminal):
        shown = b""
        while b"Name:" not in shown:
            shown += os.read(terminal, 4096)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 1
    assert run_json("call", "get-imodel", *sandbox, "--arg", f"iModelId={imodel_id}")["iModel"]["name"] == IMODEL_NAME


def add_pending_call(approvals: Approvals, seconds: float = 300) -> PendingApproval:
    return approvals.ask("delete-imodel", "of this call", PREVIEW, seconds)


@pytest.mark.slow
@needs_terminals
def test_approve_lists_pending_calls_and_approves_a_call_once(approvals: Approvals) -> None:
    assert run("approve").stdout == "No call waits for approval.\n"
    pending = add_pending_call(approvals)
    assert add_pending_call(approvals).id == pending.id
    (listed,) = run_json("approve", "--json")["pending"]
    assert (listed["id"], listed["tool"]) == (pending.id, "delete-imodel")
    assert (listed["about"], listed["loses"]) == ({"description": "Old"}, {"changesets": 12})
    assert pending.id in run("approve").stdout
    assert approvals.take("of this call") is None
    without_terminal = run("approve", pending.id)
    assert (without_terminal.returncode, without_terminal.stdout) == (2, "")
    assert "There is no terminal" in without_terminal.stderr
    assert run("approve", pending.id, "--yes").returncode == 2
    status, out, _ = answer_on_terminal(b"Pier 7", "approve", pending.id.lower(), "--json")
    assert (status, json.loads(out)["approved"]["id"]) == (0, pending.id)
    assert "error" in run_json("approve", pending.id, "--json", code=1)
    assert approvals.take("of another call") is None
    taken = approvals.take("of this call")
    assert taken is not None and taken.id == pending.id
    assert approvals.take("of this call") is None


@needs_terminals
def test_approve_shows_the_preview_and_requires_the_name(approvals: Approvals) -> None:
    pending = add_pending_call(approvals)
    status, _, shown = answer_on_terminal(b"Pier 8", "approve", pending.id)
    assert status == 1
    assert "Delete it?" in shown and "- changesets: 12" in shown
    assert approvals.take("of this call") is None
    assert answer_on_terminal(b"Pier 7", "approve", pending.id)[0] == 0
    assert approvals.take("of this call") is not None


def test_expired_calls_and_approvals_are_rejected(approvals: Approvals) -> None:
    pending = add_pending_call(approvals, seconds=-1)
    assert run("approve", pending.id).returncode == 1
    now = [0.0]
    approvals_with_clock = Approvals(Path(os.environ["ITWIN_MCP_STATE_DIR"]) / "with-clock", clock=lambda: now[0])
    pending = approvals_with_clock.ask("delete-imodel", "of this call", PREVIEW, 300)
    assert approvals_with_clock.approve(pending.id) is not None
    now[0] = 300.0
    assert approvals_with_clock.take("of this call") is None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
def test_approval_files_are_private_and_damaged_ones_are_ignored(approvals: Approvals) -> None:
    pending = add_pending_call(approvals)
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
    assert [call.id for call in approvals.pending()] == [pending.id]


@needs_terminals
def test_approve_reports_an_unwritable_state_folder(approvals: Approvals) -> None:
    pending = add_pending_call(approvals)
    state = Path(os.environ["ITWIN_MCP_STATE_DIR"])
    (state / "approvals" / f"{pending.id}.approved").mkdir()  # in the way, for root too
    status, out, shown = answer_on_terminal(b"Pier 7", "approve", pending.id)
    assert (status, out) == (2, "")
    assert f"{state} cannot be used, so nothing was approved" in shown


def test_only_the_newest_fifty_calls_are_pending(approvals: Approvals) -> None:
    ids: list[Any] = [approvals.ask("t", str(number), PREVIEW, 300 + number).id for number in range(52)]
    assert [call.id for call in approvals.pending()] == ids[2:]
