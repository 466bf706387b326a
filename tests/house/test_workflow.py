"""The workflow on GitHub does what `.ci/run` does, on each system, with nothing that can be changed under it."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.house.documents import ROOT


def workflow() -> dict[str, Any]:
    # BaseLoader: `on` is a word here, and versions are text.
    return dict(yaml.load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"), yaml.BaseLoader))


def ci_steps() -> dict[str, list[str]]:
    """Title -> commands of `.ci/run`, without what it says of itself and its checks of the README."""
    steps: dict[str, list[str]] = {}
    title = ""
    for line in (ROOT / ".ci/run").read_text(encoding="utf-8").split("say() {")[1].splitlines()[1:]:
        if said := re.fullmatch(r'say "(.+)"', line):
            title = said[1]
            steps[title] = []
        elif title and line and not line.startswith(("grep", "rm ", "#")):
            steps[title].append(line)
    return steps


def test_each_step_of_ci_run_is_a_step_of_the_workflow_with_the_same_commands() -> None:
    steps = workflow()["jobs"]["test"]["steps"]
    theirs = {
        step["name"]: [
            line.replace("$BIN/", ".venv/bin/") for line in step["run"].splitlines() if not line.startswith("rm ")
        ]
        for step in steps
        if "run" in step
    }
    assert theirs == ci_steps()
    assert len(theirs) >= 4


def test_it_runs_on_three_systems_with_every_python_from_the_oldest_on() -> None:
    job = workflow()["jobs"]["test"]
    assert job["strategy"]["matrix"]["os"] == ["ubuntu-latest", "macos-latest", "windows-latest"]
    oldest = re.search(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert oldest is not None
    assert job["strategy"]["matrix"]["python"] == [oldest[1], "3.12", "3.13", "3.14"]
    assert job["defaults"]["run"]["shell"] == "bash"
    assert "timeout-minutes" in job


def test_it_may_only_read_and_its_actions_are_pinned_to_commits() -> None:
    assert workflow()["permissions"] == {"contents": "read"}
    used = re.findall(r"uses: (\S+)(.*)", (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    assert len(used) >= 3
    for action, comment in used:
        assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", action), action
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment), action


@pytest.mark.slow
def test_full_test_that_cannot_run_fails(tmp_path: Path) -> None:
    """Without Node, which is looked for in PATH."""
    file = "tests/interop/bentley/test_core_backend.py"
    command = [sys.executable, "-m", "pytest", "-n", "0", "-m", "full", "-p", "no:cacheprovider", file, "-k", "script"]
    environment = os.environ | {"PATH": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search("A test marked `full` must run: .*(npm|node) is not installed", done.stdout)
