"""Rules of CONTRIBUTING.md that a machine can check."""

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
MAY_CATCH_ALL = {"executor/pipeline.py", "server/app.py"}


def list_imports(file: Path) -> set[str]:
    """Return the top-level packages that a file imports."""
    packages: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            packages.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            packages.add(node.module.split(".")[0])
    return packages


def test_imports_follow_the_layers() -> None:
    # Run the linter in another process, because it disables all existing loggers.
    script = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(sys.argv[1], no_cache=True))"
    linted = subprocess.run(
        [sys.executable, "-c", script, str(ROOT / "pyproject.toml")], capture_output=True, text=True, timeout=120
    )
    assert linted.returncode == 0, linted.stdout


def test_httpx_is_not_imported() -> None:
    files = [*SOURCES, *(ROOT / "tests").rglob("*.py")]
    assert [str(file) for file in files if "httpx" in list_imports(file)] == []


def test_only_pipeline_and_server_catch_every_exception() -> None:
    offenders = []
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ExceptHandler):
                caught = ast.unparse(node.type) if node.type is not None else "BaseException"
                raises_again = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
                if re.search(r"\b(Base)?Exception\b", caught) and not raises_again:
                    offenders.append(str(file.relative_to(ROOT / "src/itwin_mcp")))
    assert set(offenders) == MAY_CATCH_ALL


def test_caught_errors_are_not_modified() -> None:
    attributes = {
        "code",
        "message",
        "hint",
        "status",
        "details",
        "members",
        "completed",
        "retry_after",
        "correlation_id",
    }
    offenders = []
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            for target in targets:
                while isinstance(target, ast.Subscript):
                    target = target.value
                if (
                    isinstance(target, ast.Attribute)
                    and target.attr in attributes
                    and ast.unparse(target.value) == "error"
                ):
                    offenders.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert offenders == []


def test_modules_have_a_docstring() -> None:
    undocumented = [str(file) for file in SOURCES if not ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))]
    assert undocumented == []


def test_module_names_describe_their_contents() -> None:
    meaningless = ("utils", "util", "helpers", "common", "misc", "manager")
    assert [str(file) for file in SOURCES if file.stem in meaningless] == []


def test_source_does_not_call_print() -> None:
    offenders = []
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                offenders.append(str(file))
    assert offenders == []


def test_readme_shows_both_agreed_commands_within_its_first_60_lines() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    beginning, tests = "\n".join(readme.splitlines()[:60]).split("## Run the tests")
    assert "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/itwin-mcp demo" in beginning
    assert "python3 -m venv .venv && .venv/bin/pip install '.[test]' && .venv/bin/pytest" in tests.split("## ")[0]


def test_readme_has_at_most_8_kilobytes() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= 8000


def get_package_name(requirement: str) -> str:
    return re.split(r"[<>=\[]", requirement)[0]


def test_architecture_page_gives_a_reason_for_every_dependency() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8").split("## Dependencies")[1]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [get_package_name(requirement) for requirement in project["dependencies"]]
    packages, extras = page.split("| extra |")
    assert re.findall(r"^\| ([\w-]+) \| \S", packages, re.M)[1:] == declared
    reasons: dict[str, set[str]] = {}
    extra = ""
    for named, names in re.findall(r"^\| (?:`(\w+)` )?\| ([\w, -]+) \| \S.* \|$", extras, re.M):
        extra = named or extra
        reasons.setdefault(extra, set()).update(names.split(", "))
    assert reasons == {
        extra: {get_package_name(requirement) for requirement in requirements}
        for extra, requirements in project["optional-dependencies"].items()
    }


@pytest.mark.skipif(not (ROOT / ".git").exists() or shutil.which("git") is None, reason="this is not a Git clone")
def test_git_attributes_give_every_clone_the_same_bytes() -> None:
    """Without these attributes, `core.autocrlf` would change the SHA-256 of bundles and break scripts in containers."""

    def run_git(*words: str, stdin: bytes = b"") -> bytes:
        return subprocess.run(["git", *words], cwd=ROOT, input=stdin, capture_output=True, check=True).stdout

    names = run_git("ls-files", "-z")
    fields = run_git("check-attr", "-z", "--stdin", "text", "eol", stdin=names).decode().split("\0")[:-1]
    attributes_by_name: dict[str, dict[str, str]] = {}
    for name, attribute, value in zip(fields[::3], fields[1::3], fields[2::3], strict=True):
        attributes_by_name.setdefault(name, {})[attribute] = value
    assert len(attributes_by_name) > 100
    for name, attributes in attributes_by_name.items():
        binary = (ROOT / name).is_file() and b"\0" in (ROOT / name).read_bytes()
        assert attributes["text"] == ("unset" if binary else "auto"), name
        assert binary or attributes["eol"] == "lf", name


def test_dependencies_have_a_lower_bound() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    unbounded = [requirement for requirement in project["dependencies"] if ">=" not in requirement]
    assert unbounded == []


LISTING = """
import sys, anyio
import mcp
imported_by_mcp = set(sys.modules)
from mcp import Client
from itwin_mcp.settings import read_settings
from itwin_mcp.runtime import open_runtime
from itwin_mcp.server.app import build_server
import os

async def main():
    settings = read_settings(os.environ, sandbox={sandbox})
    async with open_runtime(settings, os.environ) as runtime:
        async with Client(build_server(runtime.catalog, runtime.executor)) as client:
            assert (await client.list_tools()).tools

anyio.run(main)
ours = set(sys.modules) - imported_by_mcp
print(" ".join(sorted(name for name in {names} if any(m == name or m.startswith(name + ".") for m in ours))))
"""
HEAVY = [
    *("authlib", "yaml", "jsonpath", "keyring", "uvicorn.server", "jsonschema", "PIL", "filelock"),
    *(f"itwin_mcp.capability.{name}" for name in ("linker", "schema", "flow_schema", "extensions", "tool_compiler")),
]


@pytest.mark.parametrize("sandbox", [False, True])
def test_second_tools_list_imports_nothing_heavy(
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
