"""`call --sandbox` stores the sandbox's state until `sandbox reset`; other commands do not use it."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.test_commands import run, run_json

NEW = ("--arg", "class=Endeavor", "--arg", "subClass=Project", "--arg", "displayName=Quay 7")


def kept() -> Path:
    return Path(os.environ["ITWIN_MCP_STATE_DIR"], "sandbox.db")


def quays(*options: str) -> int:
    """Count the iTwins of the test's name in a new process."""
    return len(run_json("call", "list-itwins", "--sandbox", "--arg", "displayName=Quay 7", *options)["iTwins"])


def test_call_stores_the_sandbox_until_reset(tmp_path: Path) -> None:
    made = run("call", "create-itwin", "--sandbox", *NEW)
    assert made.returncode == 0, made.stderr
    assert made.stderr == f"The sandbox's state is in {kept()}; `itwin-mcp sandbox reset` starts over.\n"
    assert quays() == 1
    assert quays("--sandbox-db", str(tmp_path / "other.db")) == 0
    assert run("sandbox", "reset").stdout == f"Deleted {kept()}.\n"
    assert list(kept().parent.glob("sandbox.db*")) == []
    assert run("sandbox", "reset").stdout == f"Nothing to delete: {kept()} does not exist.\n"
    assert quays() == 0


def test_call_moves_a_sandbox_of_another_version_aside(tmp_path: Path) -> None:
    kept().parent.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(("older", "not a database"), 1):
        if text == "older":
            with closing(sqlite3.connect(kept())) as older:
                older.execute("CREATE TABLE itwins (id)")
                older.execute("PRAGMA user_version = 999")
        else:
            kept().write_text("not a database " * 100)
        before = kept().read_bytes()
        done = run("call", "list-itwins", "--sandbox")
        assert done.returncode == 0, done.stderr
        aside = kept().with_name(f"sandbox.db.set-aside-{number}")
        assert done.stderr.splitlines()[0] == (
            f"The sandbox of another version was moved to {aside}; this one starts fresh."
        )
        assert len(done.stderr.splitlines()) == 2
        assert aside.read_bytes() == before


def test_sandbox_reset_deletes_no_file_of_another_program(tmp_path: Path) -> None:
    file = tmp_path / "other.db"
    with closing(sqlite3.connect(file)) as other, other:
        other.execute("CREATE TABLE theirs (id)")
    done = run("sandbox", "reset", "--sandbox-db", str(file))
    assert (done.returncode, "was not deleted" in done.stderr) == (2, True)
    assert file.exists()


def test_dry_run_names_the_sandbox_and_stores_nothing() -> None:
    shown = run_json("call", "list-itwins", "--sandbox", "--dry-run")
    assert shown["environment"] == "embedded sandbox"
    assert not kept().exists()


@pytest.mark.slow
def test_demo_does_not_use_the_stored_sandbox() -> None:
    assert run("demo").returncode == 0
    assert not kept().exists()
