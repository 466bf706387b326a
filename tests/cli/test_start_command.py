"""The command that starts an installation again, for each way to install it."""

import os
from pathlib import Path

import pytest

from itwin_mcp.cli.clients.start_command import StartCommand, choose_command, find_start_command

SCRIPT = "itwin-mcp.exe" if os.name == "nt" else "itwin-mcp"
PYTHON = Path("/envs/x/bin/python")


def environment_at(prefix: Path, *, pipx: bool = False) -> Path:
    """Create the parts of a Python environment that matter here; return its scripts folder."""
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
def test_choose_command_uses_the_script_of_a_permanent_environment(tmp_path: Path, place: str) -> None:
    prefix = tmp_path / place
    scripts = environment_at(prefix, pipx="pipx" in place)
    found = choose_command(prefix, scripts, PYTHON, {"PATH": ""}, "itwin-mcp==1.0")
    assert found == StartCommand(str(scripts / SCRIPT))


def test_choose_command_uses_uvx_for_its_temporary_environment(tmp_path: Path) -> None:
    prefix = tmp_path / "uv/archive-v0/abc"
    scripts = environment_at(prefix)
    uv, uvx = program_at(tmp_path / "tools", "uv"), program_at(tmp_path / "tools", "uvx")
    found = choose_command(prefix, scripts, PYTHON, {"UV": uv, "PATH": ""}, "/src/itwin-mcp")
    assert found == StartCommand(uvx, ("--from", "/src/itwin-mcp", "itwin-mcp"))


def test_choose_command_uses_pipx_for_its_temporary_environment(tmp_path: Path) -> None:
    prefix = tmp_path / "pipx/.cache/48947"
    scripts = environment_at(prefix, pipx=True)
    pipx = program_at(tmp_path / "tools", "pipx")
    found = choose_command(prefix, scripts, PYTHON, {"PATH": str(tmp_path / "tools")}, "itwin-mcp==1.0")
    assert found == StartCommand(pipx, ("run", "--spec", "itwin-mcp==1.0", "itwin-mcp"))


def test_choose_command_uses_python_and_path_for_a_source_tree(tmp_path: Path) -> None:
    found = choose_command(tmp_path, tmp_path / "bin", PYTHON, {}, None)
    assert (found.program, found.args) == (str(PYTHON), ("-m", "itwin_mcp"))
    assert (Path(found.env["PYTHONPATH"]) / "itwin_mcp/__main__.py").is_file()


def test_choose_command_uses_the_module_without_a_script(tmp_path: Path) -> None:
    assert choose_command(tmp_path, tmp_path / "bin", PYTHON, {}, "itwin-mcp==1.0").args == ("-m", "itwin_mcp")


def test_find_start_command_exists_for_this_installation() -> None:
    found = find_start_command(os.environ)
    assert Path(found.program).is_absolute() and Path(found.program).is_file()
