"""Output of commands: any encoding of the console, and a pipe that is closed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CP1252 = {"PYTHONIOENCODING": "cp1252"}
NAME = "桥 → 🏗 \U0001f1f3\U0001f1f1"


def run_process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "itwin_mcp", *arguments]
    return subprocess.run(command, capture_output=True, timeout=60, env=os.environ | CP1252 | environment)


def test_call_prints_utf8_into_a_pipe(tmp_path: Path) -> None:
    values = {"displayName": NAME, "class": "Endeavor", "subClass": "Project"}
    process = run_process("call", "create-itwin", "--sandbox", "--json", json.dumps(values), HOME=str(tmp_path))
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout.decode())["iTwin"]["displayName"] == NAME


@pytest.mark.parametrize("command", ["doctor", pytest.param("demo", marks=pytest.mark.slow)])
def test_command_prints_utf8_into_a_pipe(command: str, tmp_path: Path) -> None:
    process = run_process(command, HOME=str(tmp_path), ITWIN_MCP_SANDBOX="1", ITWIN_MCP_TOOLSET="x")
    assert process.returncode == 0, process.stderr
    assert "→" in process.stdout.decode()
    assert b"Traceback" not in process.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX pipe")
@pytest.mark.parametrize("command", ["demo", "doctor", "tools"])
def test_command_exits_quietly_when_its_pipe_is_closed(command: str, tmp_path: Path) -> None:
    environment = os.environ | {"HOME": str(tmp_path), "ITWIN_MCP_SANDBOX": "1", "PYTHONUNBUFFERED": "1"}
    reading, writing = os.pipe()
    os.close(reading)
    words = [sys.executable, "-m", "itwin_mcp", command]
    with os.fdopen(writing, "wb") as pipe:
        process = subprocess.run(words, stdout=pipe, stderr=subprocess.PIPE, timeout=60, env=environment)
    assert process.stderr == b""
