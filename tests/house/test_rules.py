"""The rules of the house that a machine can hold."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
MAY_CATCH_ALL = {"server/results.py", "server/app.py"}


def imports(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found.add(node.module.split(".")[0])
    return found


def test_the_layers_hold() -> None:
    # In a process of its own: the linter silences every logger that exists, for good.
    script = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(sys.argv[1], no_cache=True))"
    linted = subprocess.run(
        [sys.executable, "-c", script, str(ROOT / "pyproject.toml")], capture_output=True, text=True, timeout=120
    )
    assert linted.returncode == 0, linted.stdout


def test_httpx_itself_is_imported_nowhere() -> None:
    files = [*SOURCES, *(ROOT / "tests").rglob("*.py")]
    assert [str(file) for file in files if "httpx" in imports(file)] == []


def test_every_error_is_caught_by_name_except_where_a_call_ends() -> None:
    offenders = []
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ExceptHandler):
                caught = ast.unparse(node.type) if node.type is not None else "BaseException"
                passes_on = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
                if re.search(r"\b(Base)?Exception\b", caught) and not passes_on:
                    offenders.append(str(file.relative_to(ROOT / "src/itwin_mcp")))
    assert set(offenders) == MAY_CATCH_ALL


def test_every_module_opens_with_one_sentence() -> None:
    silent = [str(file) for file in SOURCES if not ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))]
    assert silent == []


def test_no_module_says_nothing_by_its_name() -> None:
    empty = ("utils", "util", "helpers", "common", "misc", "manager")
    assert [str(file) for file in SOURCES if file.stem in empty] == []


def test_nothing_but_the_command_line_prints() -> None:
    offenders = []
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                offenders.append(str(file))
    assert offenders == []


def test_the_readme_holds_its_two_commands_and_gives_a_reason_for_every_dependency() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    first_screen = "\n".join(readme.splitlines()[:20])
    assert "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/itwin-mcp demo" in first_screen
    assert "python3 -m venv .venv && .venv/bin/pip install '.[test]' && .venv/bin/pytest" in first_screen
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [re.split(r"[<>=\[]", one)[0] for one in project["dependencies"]]
    assert re.findall(r"^\| ([\w-]+) \| \S", readme.split("## Dependencies")[1], re.M)[1:] == declared
    for extra, group in project["optional-dependencies"].items():
        said = readme.split(f"Extra `{extra}`: ")[1].split("Extra `")[0]
        assert [name for one in group if (name := re.split(r"[<>=\[]", one)[0]) not in said] == [], extra


@pytest.mark.skipif(not (ROOT / ".git").exists() or shutil.which("git") is None, reason="this is no clone")
def test_a_clone_has_the_same_bytes_on_every_system() -> None:
    """Whatever `core.autocrlf` says: a bundle has one SHA-256, and scripts run in containers."""

    def git(*words: str, given: bytes = b"") -> bytes:
        return subprocess.run(["git", *words], cwd=ROOT, input=given, capture_output=True, check=True).stdout

    listed = git("ls-files", "-z")
    told = git("check-attr", "-z", "--stdin", "text", "eol", given=listed).decode().split("\0")[:-1]
    held: dict[str, dict[str, str]] = {}
    for name, attribute, value in zip(told[::3], told[1::3], told[2::3], strict=True):
        held.setdefault(name, {})[attribute] = value
    assert len(held) > 100
    for name, attributes in held.items():
        binary = (ROOT / name).is_file() and b"\0" in (ROOT / name).read_bytes()
        assert attributes["text"] == ("unset" if binary else "auto"), name
        assert binary or attributes["eol"] == "lf", name


def test_every_dependency_is_bounded_below() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    unbounded = [one for one in project["dependencies"] if ">=" not in one]
    assert unbounded == []


LISTING = """
import sys, anyio
import mcp
brought = set(sys.modules)
from mcp import Client
from itwin_mcp.settings import read_settings
from itwin_mcp.runtime import open_runtime
from itwin_mcp.server.app import build_server
import os

async def main():
    settings = read_settings(os.environ, sandbox={sandbox})
    async with open_runtime(settings, os.environ) as runtime:
        async with Client(build_server(runtime.catalog, runtime.executor, runtime.session)) as client:
            assert (await client.list_tools()).tools

anyio.run(main)
ours = set(sys.modules) - brought
print(" ".join(sorted(name for name in {names} if any(m == name or m.startswith(name + ".") for m in ours))))
"""
HEAVY = ["authlib", "yaml", "jsonpath", "keyring", "uvicorn.server", "jsonschema", "PIL", "stamina", "filelock"]


@pytest.mark.parametrize("sandbox", [False, True])
def test_listing_the_tools_a_second_time_imports_nothing_heavy(
    sandbox: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ITWIN_MCP_CACHE_DIR", str(tmp_path))
    script = LISTING.format(sandbox=sandbox, names=HEAVY)
    runs = [
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60) for _ in range(2)
    ]
    for run in runs:
        assert run.returncode == 0, run.stderr
    assert "yaml" in runs[0].stdout.split()
    assert runs[1].stdout.split() == []
