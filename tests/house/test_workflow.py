"""The workflow on GitHub does what `.ci/run` does, on each system, with pinned actions."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.house.documents import ROOT, text_of


def read_workflow() -> dict[str, Any]:
    # BaseLoader reads `on` and versions as text. The usual loader reads them as a boolean and as numbers.
    return dict(yaml.load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"), yaml.BaseLoader))


def read_ci_steps() -> dict[str, list[str]]:
    """Return the commands of `.ci/run` by the title of their step, without its checks of the README."""
    steps: dict[str, list[str]] = {}
    title = ""
    for line in (ROOT / ".ci/run").read_text(encoding="utf-8").split("say() {")[1].splitlines()[1:]:
        if heading := re.fullmatch(r'say "(.+)"', line):
            title = heading[1]
            steps[title] = []
        elif title and line and not line.startswith(("grep", "rm ", "#")):
            steps[title].append(line)
    return steps


def test_workflow_runs_the_commands_of_ci_run() -> None:
    steps = read_workflow()["jobs"]["test"]["steps"]
    commands = {
        step["name"]: [
            line.replace("$BIN/", ".venv/bin/") for line in step["run"].splitlines() if not line.startswith("rm ")
        ]
        for step in steps
        if "run" in step
    }
    assert commands == read_ci_steps()
    assert len(commands) >= 4


def test_workflow_runs_on_three_systems_with_every_python() -> None:
    job = read_workflow()["jobs"]["test"]
    assert job["strategy"]["matrix"]["os"] == ["ubuntu-latest", "macos-latest", "windows-latest"]
    oldest = re.search(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert oldest is not None
    assert job["strategy"]["matrix"]["python"] == [oldest[1], "3.12", "3.13", "3.14"]
    assert job["defaults"]["run"]["shell"] == "bash"
    assert "timeout-minutes" in job


def test_workflow_keeps_the_desktop_extension_as_an_artifact() -> None:
    job = read_workflow()["jobs"]["extension"]
    (pack,) = [step["run"] for step in job["steps"] if "run" in step]
    assert pack.splitlines()[-1] == ".venv/bin/itwin-mcp bundle"
    (upload,) = [step["with"] for step in job["steps"] if "upload-artifact" in step.get("uses", "")]
    assert upload["path"] == "*.mcpb"
    assert f"`{upload['name']}`" in text_of("docs/clients.md")


def test_workflow_has_read_permission_and_pins_actions_to_commits() -> None:
    assert read_workflow()["permissions"] == {"contents": "read"}
    used = re.findall(r"uses: (\S+)(.*)", (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    assert len(used) >= 3
    for action, comment in used:
        assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", action), action
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment), action


@pytest.mark.slow
def test_full_marked_test_fails_without_node(tmp_path: Path) -> None:
    file = "tests/interop/bentley/test_core_backend.py"
    command = [sys.executable, "-m", "pytest", "-n", "0", "-m", "full", "-p", "no:cacheprovider", file, "-k", "script"]
    environment = os.environ | {"PATH": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search("A test marked `full` must run: .*(npm|node) is not installed", done.stdout)
