"""The command that starts an installation again, for each way to install it."""

import os
from pathlib import Path

import pytest

from itwin_mcp.cli.clients.start_command import StartCommand, choose_command, find_start_command

SCRIPT = "itwin-mcp.exe" if os.name == "nt" else "itwin-mcp"
PYTHON = Path("/envs/x/bin/python")


def create_environment(prefix: Path, *, pipx: bool = False) -> Path:
    """Create a Python environment with only our script, and pipx's metadata if wanted; return its scripts folder."""
    scripts = prefix / "bin"
    scripts.mkdir(parents=True)
    (scripts / SCRIPT).write_text("")
    if pipx:
        (prefix / "pipx_metadata.json").write_text("{}")
    return scripts


def create_program(folder: Path, name: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / (f"{name}.exe" if os.name == "nt" else name)
    file.write_text("")
    file.chmod(0o755)
    return str(file)


@pytest.mark.parametrize("folder", ["project/.venv", ".local/share/uv/tools/itwin-mcp", ".local/pipx/venvs/itwin-mcp"])
def test_choose_command_uses_the_script_of_a_permanent_environment(tmp_path: Path, folder: str) -> None:
    prefix = tmp_path / folder
    scripts = create_environment(prefix, pipx="pipx" in folder)
    start = choose_command(prefix, scripts, PYTHON, {"PATH": ""}, "itwin-mcp==1.0")
    assert start == StartCommand(str(scripts / SCRIPT))


def test_choose_command_uses_uvx_for_its_temporary_environment(tmp_path: Path) -> None:
    prefix = tmp_path / "uv/archive-v0/abc"
    scripts = create_environment(prefix)
    uv, uvx = create_program(tmp_path / "tools", "uv"), create_program(tmp_path / "tools", "uvx")
    start = choose_command(prefix, scripts, PYTHON, {"UV": uv, "PATH": ""}, "/src/itwin-mcp")
    assert start == StartCommand(uvx, ("--from", "/src/itwin-mcp", "itwin-mcp"))


def test_choose_command_uses_pipx_for_its_temporary_environment(tmp_path: Path) -> None:
    prefix = tmp_path / "pipx/.cache/48947"
    scripts = create_environment(prefix, pipx=True)
    pipx = create_program(tmp_path / "tools", "pipx")
    start = choose_command(prefix, scripts, PYTHON, {"PATH": str(tmp_path / "tools")}, "itwin-mcp==1.0")
    assert start == StartCommand(pipx, ("run", "--spec", "itwin-mcp==1.0", "itwin-mcp"))


def test_choose_command_uses_python_and_path_for_a_source_tree(tmp_path: Path) -> None:
    start = choose_command(tmp_path, tmp_path / "bin", PYTHON, {}, None)
    assert (start.program, start.args) == (str(PYTHON), ("-m", "itwin_mcp"))
    assert (Path(start.env["PYTHONPATH"]) / "itwin_mcp/__main__.py").is_file()


def test_choose_command_uses_the_module_without_a_script(tmp_path: Path) -> None:
    assert choose_command(tmp_path, tmp_path / "bin", PYTHON, {}, "itwin-mcp==1.0").args == ("-m", "itwin_mcp")


def test_find_start_command_returns_an_existing_program() -> None:
    start = find_start_command(os.environ)
    assert Path(start.program).is_absolute() and Path(start.program).is_file()
