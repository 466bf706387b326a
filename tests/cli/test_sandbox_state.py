"""`call --sandbox` stores the sandbox's state until `sandbox reset`; other commands do not use it."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.test_commands import run, run_json

NEW = ("--arg", "class=Endeavor", "--arg", "subClass=Project", "--arg", "displayName=Quay 7")


def stored_database() -> Path:
    return Path(os.environ["ITWIN_MCP_STATE_DIR"], "sandbox.db")


def count_quays(*options: str) -> int:
    """Count the iTwins of the test's name in a new process."""
    return len(run_json("call", "list-itwins", "--sandbox", "--arg", "displayName=Quay 7", *options)["iTwins"])


@pytest.mark.slow
def test_call_stores_the_sandbox_until_reset(tmp_path: Path) -> None:
    process = run("call", "create-itwin", "--sandbox", *NEW)
    assert process.returncode == 0, process.stderr
    assert process.stderr == f"The sandbox's state is in {stored_database()}; `itwin-mcp sandbox reset` starts over.\n"
    assert count_quays() == 1
    assert count_quays("--sandbox-db", str(tmp_path / "other.db")) == 0
    assert run("sandbox", "reset").stdout == f"Deleted {stored_database()}.\n"
    assert list(stored_database().parent.glob("sandbox.db*")) == []
    assert run("sandbox", "reset").stdout == f"Nothing to delete: {stored_database()} does not exist.\n"
    assert count_quays() == 0


def test_call_moves_an_unusable_sandbox_database_aside(tmp_path: Path) -> None:
    stored_database().parent.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(("older", "not a database"), 1):
        if text == "older":
            with closing(sqlite3.connect(stored_database())) as older:
                older.execute("CREATE TABLE itwins (id)")
                older.execute("PRAGMA user_version = 999")
        else:
            stored_database().write_text("not a database " * 100)
        before = stored_database().read_bytes()
        process = run("call", "list-itwins", "--sandbox")
        assert process.returncode == 0, process.stderr
        moved = stored_database().with_name(f"sandbox.db.set-aside-{number}")
        assert process.stderr.splitlines()[0] == (
            f"The sandbox of another version was moved to {moved}; this one starts fresh."
        )
        assert len(process.stderr.splitlines()) == 2
        assert moved.read_bytes() == before


def test_sandbox_reset_refuses_a_file_of_another_program(tmp_path: Path) -> None:
    file = tmp_path / "other.db"
    with closing(sqlite3.connect(file)) as other, other:
        other.execute("CREATE TABLE theirs (id)")
    process = run("sandbox", "reset", "--sandbox-db", str(file))
    assert (process.returncode, "was not deleted" in process.stderr) == (2, True)
    assert file.exists()


def test_dry_run_names_the_sandbox_and_stores_nothing() -> None:
    preview = run_json("call", "list-itwins", "--sandbox", "--dry-run")
    assert preview["environment"] == "embedded sandbox"
    assert not stored_database().exists()


@pytest.mark.slow
def test_demo_does_not_use_the_stored_sandbox() -> None:
    assert run("demo").returncode == 0
    assert not stored_database().exists()
