"""`itwin-mcp demo`: text for people, JSON for programs, and failure if a step has an unexpected result."""

import json
import subprocess
import sys

import pytest

from itwin_mcp.cli.demo import STEPS


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "itwin_mcp", "demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_demo_runs_every_step_and_exits_with_zero() -> None:
    done = run()
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for number, step in enumerate(STEPS, 1):
        assert f"{number}. {step.question}" in done.stdout
    assert "iModelExists (HTTP 409)" in done.stdout
    assert "Every step had the expected result." in done.stdout
    *_, here, command, then, question = done.stdout.splitlines()
    assert here == "Next, connect your own assistant:"
    assert command.split()[:4] == ["itwin-mcp", "install", "claude-desktop", "--sandbox"]
    assert (then, question.endswith("?")) == ("Then ask it:", True)
    assert "\x1b" not in done.stdout, "no colour where there is no terminal"


@pytest.mark.slow
def test_demo_json_prints_one_object_per_line() -> None:
    done = run("--json")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["tool"] for line in lines[1:-1]] == [step.tool for step in STEPS]
    assert lines[-1] == {"ok": True}
