"""`itwin-mcp skills`: each export writes the same folders and leaves others unchanged."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from itwin_mcp.cli import group, main
from tests.skills.bundles import bundles


def run_skills(*arguments: str) -> Any:
    """Run a command and return the JSON that it prints."""
    done = CliRunner().invoke(group, ["skills", *arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def read_folder(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def run_rejected(*arguments: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a command that exits with code 2 and return its message."""
    monkeypatch.setattr(sys, "argv", ["itwin-mcp", "skills", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_skills_list_shows_names_and_descriptions() -> None:
    listed = {skill["name"]: skill for skill in run_skills("list")["skills"]}
    for bundle in bundles():
        assert listed[bundle.skill.name]["description"] == bundle.skill.front["description"]
        assert listed[bundle.skill.name]["files"][0] == f"skill://{bundle.skill.name}/SKILL.md"
    plain = CliRunner().invoke(group, ["skills", "list"]).stdout
    assert "version-history\n  Reads and marks the history" in plain


def test_export_writes_the_served_files_and_is_idempotent(tmp_path: Path) -> None:
    written = run_skills("export", str(tmp_path / "skills"))["files"]
    first = read_folder(tmp_path / "skills")
    assert {str(tmp_path / "skills" / name) for name in first} == set(written)
    served = {f"{bundle.skill.name}/{path}": text for bundle in bundles() for path, text in bundle.files.items()}
    assert first == {path: text.encode() for path, text in served.items()}
    assert run_skills("export", str(tmp_path / "skills"))["files"] == written
    assert read_folder(tmp_path / "skills") == first


def test_export_does_not_depend_on_settings(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "itwin_mcp", "skills", "export", str(tmp_path / "there")]
    other = {"PYTHONHASHSEED": "7", "ITWIN_MCP_TOOLSETS": "users", "ITWIN_ID": "eba2c893-b536-5d8b-b103-56b7b184efcf"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ | other)
    assert done.returncode == 0, done.stderr
    run_skills("export", str(tmp_path / "here"))
    assert read_folder(tmp_path / "there") == read_folder(tmp_path / "here")


def test_export_updates_an_earlier_export_and_keeps_other_files(tmp_path: Path) -> None:
    run_skills("export", str(tmp_path))
    whole = read_folder(tmp_path)
    guide = tmp_path / "version-history" / "SKILL.md"
    older = guide.read_bytes().replace(b"# Version history", b"# An older text")
    guide.write_bytes(older + b"\nAnd [old](references/old.md).\n")
    (tmp_path / "version-history" / "references" / "old.md").write_text("of that export", encoding="utf-8")
    (tmp_path / "version-history" / "references" / "notes.md").write_text("mine", encoding="utf-8")
    (tmp_path / "other-skill").mkdir()
    (tmp_path / "other-skill" / "SKILL.md").write_text("theirs", encoding="utf-8")
    run_skills("export", str(tmp_path))
    extra = {"version-history/references/notes.md": b"mine", "other-skill/SKILL.md": b"theirs"}
    assert read_folder(tmp_path) == whole | extra


FOREIGN = "---\nname: version-history\ndescription: Another project's.\nmetadata:\n  made-by: somebody\n---\n"


@pytest.mark.parametrize("text", [FOREIGN, "no front matter", "---\n{: \n---\n", None], ids=lambda text: str(text)[:9])
def test_export_rejects_a_folder_that_no_export_made(
    text: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign_file = tmp_path / "version-history" / ("notes.txt" if text is None else "SKILL.md")
    foreign_file.parent.mkdir()
    foreign_file.write_text(text or "mine", encoding="utf-8")
    before = read_folder(tmp_path)
    message = run_rejected("export", str(tmp_path), capsys=capsys, monkeypatch=monkeypatch)
    assert f"{foreign_file.parent}: not made by itwin-mcp, so nothing was written." in message
    assert read_folder(tmp_path) == before


def test_export_does_not_follow_links(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "skills").mkdir()
    (tmp_path / "skills" / "version-history").symlink_to(tmp_path / "elsewhere")
    assert "nothing was written" in run_rejected(
        "export", str(tmp_path / "skills"), capsys=capsys, monkeypatch=monkeypatch
    )
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_export_reports_an_unwritable_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    message = run_rejected("export", str(tmp_path / "file" / "skills"), capsys=capsys, monkeypatch=monkeypatch)
    assert "cannot be written" in message
