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
    process = run()
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    for number, step in enumerate(STEPS, 1):
        assert f"{number}. {step.question}" in process.stdout
    assert "iModelExists (HTTP 409)" in process.stdout
    assert "Every step had the expected result." in process.stdout
    *_, heading, command, prompt, question = process.stdout.splitlines()
    assert heading == "Next, connect your own assistant:"
    assert command.split()[:4] == ["itwin-mcp", "install", "claude-desktop", "--sandbox"]
    assert (prompt, question.endswith("?")) == ("Then ask it:", True)
    assert "\x1b" not in process.stdout, "no colour where there is no terminal"


@pytest.mark.slow
def test_demo_json_prints_one_object_per_line() -> None:
    process = run("--json")
    assert process.returncode == 0, process.stderr
    lines = [json.loads(line) for line in process.stdout.splitlines()]
    assert [line["tool"] for line in lines[1:-1]] == [step.tool for step in STEPS]
    assert lines[-1] == {"ok": True}
