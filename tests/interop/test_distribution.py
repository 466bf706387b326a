"""Wheel and source distribution: build, check, install into an empty environment, and print every help text."""

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from itwin_mcp import __version__
from itwin_mcp.cli import group
from tests.interop import makers

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.interop


def run(*command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True, timeout=300)


def run_successfully(*command: str | Path, cwd: Path | None = None) -> str:
    done = run(*command, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the source distribution, and the wheel from it; return their folder."""
    folder = tmp_path_factory.mktemp("dist")
    run_successfully(makers.packaging(), "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (file,) = built.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into an empty environment; return the path of its command."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    run_successfully(sys.executable, "-m", "venv", folder)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    run_successfully(scripts / "python", "-m", "pip", "install", "--quiet", wheel)
    return scripts / "itwin-mcp"


def test_wheel_and_source_distribution_pass_twine_and_check_wheel_contents(built: Path, wheel: Path) -> None:
    assert len(list(built.iterdir())) == 2
    run_successfully(makers.packaging(), "-m", "twine", "check", "--strict", *built.iterdir())
    run_successfully(makers.packaging(), "-m", "check_wheel_contents", wheel)


def test_wheel_contains_only_the_package_and_its_capability_files(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.split("/")[0] for name in names} == {"itwin_mcp", f"itwin_mcp-{__version__}.dist-info"}
    capabilities = {file.relative_to(ROOT).as_posix() for file in (ROOT / "capabilities").rglob("*") if file.is_file()}
    assert {name.removeprefix("itwin_mcp/") for name in names if "capabilities/" in name} == capabilities


def test_source_distribution_contains_what_builds_and_tests_need(built: Path) -> None:
    (file,) = built.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"LICENSE", "PRIVACY.md", "README.md", "icon.png", "manifest.json", "pyproject.toml", "uv.lock"}
    more = {".mcpbignore", "tests/conftest.py", "capabilities/itwins.yaml", "docs/index.md", "deploy/Dockerfile"}
    assert wanted | more <= names


def list_command_paths(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from list_command_paths(child, (*path, name))


def test_every_installed_command_prints_its_help(installed: Path, tmp_path: Path) -> None:
    assert run_successfully(installed, "--version", cwd=tmp_path) == f"itwin-mcp, version {__version__}\n"
    paths = list(list_command_paths(group))
    assert len(paths) > 15
    for path in paths:
        text = run_successfully(installed, *path, "--help", cwd=tmp_path)
        assert re.match(rf"Usage: {' '.join(('itwin-mcp', *path))} ", text), path
        assert len(text.splitlines()) > 5, path


def test_installed_package_calls_a_tool_and_bundles_only_from_sources(installed: Path, tmp_path: Path) -> None:
    called = run_successfully(installed, "call", "list-recent-itwins", "--sandbox", cwd=tmp_path)
    assert json.loads(called)["iTwins"]
    refused = run(installed, "bundle", cwd=tmp_path)
    assert refused.returncode == 2
    assert "packed from the sources of itwin-mcp" in refused.stderr
    assert run_successfully(installed, "bundle", ROOT, "--output", tmp_path / "x.mcpb").count("SHA-256") == 1
