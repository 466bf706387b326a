"""The command that starts us again, for each way to be installed."""

import os
from pathlib import Path

import pytest

from itwin_mcp.cli.start_command import StartCommand, find, start_command

SCRIPT = "itwin-mcp.exe" if os.name == "nt" else "itwin-mcp"
PYTHON = Path("/envs/x/bin/python")


def environment_at(prefix: Path, *, pipx: bool = False) -> Path:
    """A Python environment as far as we look at it; its folder of scripts."""
    scripts = prefix / "bin"
    scripts.mkdir(parents=True)
    (scripts / SCRIPT).write_text("")
    if pipx:
        (prefix / "pipx_metadata.json").write_text("{}")
    return scripts


def program_at(folder: Path, name: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / (f"{name}.exe" if os.name == "nt" else name)
    file.write_text("")
    file.chmod(0o755)
    return str(file)


@pytest.mark.parametrize("place", ["project/.venv", ".local/share/uv/tools/itwin-mcp", ".local/pipx/venvs/itwin-mcp"])
def test_an_environment_that_stays_is_started_by_its_own_script(tmp_path: Path, place: str) -> None:
    prefix = tmp_path / place
    scripts = environment_at(prefix, pipx="pipx" in place)
    found = find(prefix, scripts, PYTHON, {"PATH": ""}, "itwin-mcp==1.0")
    assert found == StartCommand(str(scripts / SCRIPT))


def test_what_uvx_made_for_one_run_is_made_anew_by_uvx(tmp_path: Path) -> None:
    prefix = tmp_path / "uv/archive-v0/abc"
    scripts = environment_at(prefix)
    uv, uvx = program_at(tmp_path / "tools", "uv"), program_at(tmp_path / "tools", "uvx")
    found = find(prefix, scripts, PYTHON, {"UV": uv, "PATH": ""}, "/src/itwin-mcp")
    assert found == StartCommand(uvx, ("--from", "/src/itwin-mcp", "itwin-mcp"))


def test_what_pipx_made_for_one_run_is_made_anew_by_pipx(tmp_path: Path) -> None:
    prefix = tmp_path / "pipx/.cache/48947"
    scripts = environment_at(prefix, pipx=True)
    pipx = program_at(tmp_path / "tools", "pipx")
    found = find(prefix, scripts, PYTHON, {"PATH": str(tmp_path / "tools")}, "itwin-mcp==1.0")
    assert found == StartCommand(pipx, ("run", "--spec", "itwin-mcp==1.0", "itwin-mcp"))


def test_a_source_tree_that_is_not_installed_is_started_by_its_python_and_path(tmp_path: Path) -> None:
    found = find(tmp_path, tmp_path / "bin", PYTHON, {}, None)
    assert (found.program, found.args) == (str(PYTHON), ("-m", "itwin_mcp"))
    assert (Path(found.env["PYTHONPATH"]) / "itwin_mcp/__main__.py").is_file()


def test_an_installation_without_its_script_is_started_as_a_module(tmp_path: Path) -> None:
    assert find(tmp_path, tmp_path / "bin", PYTHON, {}, "itwin-mcp==1.0").args == ("-m", "itwin_mcp")


def test_the_installation_that_runs_this_test_has_a_command_that_is_there() -> None:
    found = start_command(os.environ)
    assert Path(found.program).is_absolute() and Path(found.program).is_file()
