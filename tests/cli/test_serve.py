"""`itwin-mcp serve` as a process: start, output and end."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}


def start(
    *arguments: str, environment: dict[str, str] | None = None, module: str = "itwin_mcp"
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | (environment or {}),
    )


def send_line(process: subprocess.Popen[str], message: dict[str, Any]) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(message) + "\n")
    process.stdin.flush()


def read_line(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    return dict(json.loads(process.stdout.readline()))


def test_serve_exits_cleanly_at_end_of_input() -> None:
    process = start("serve", "--sandbox")
    send_line(process, HELLO)
    assert read_line(process)["result"]["serverInfo"]["name"] == "itwin-mcp"
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "", "")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send to another process on Windows")
def test_serve_exits_cleanly_on_ctrl_c() -> None:
    process = start("serve", "--sandbox")
    send_line(process, HELLO)
    read_line(process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "", "")


def test_serve_refuses_a_bad_capability_file_with_line_and_rule(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text('ikanos: "1.0.0-beta5"\ncapability:\n  exposed: []\n')
    process = start("serve", "--capabilities", str(bad))
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (2, "")
    assert f"{bad}:3:" in err
    assert "unknown key 'exposed'" in err


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"ITWIN_ACCESS_TOKEN": "two words"}, "ITWIN_ACCESS_TOKEN cannot be used"),
        ({"ITWIN_API_URL": "http://api.bentley.com"}, "ITWIN_API_URL must be https"),
        ({"ITWIN_MCP_TOOLSETS": "nonsense"}, "There is no toolset 'nonsense'"),
        ({"ITWIN_MCP_READ_ONLY": "perhaps"}, "set it to true or false"),
    ],
)
def test_serve_refuses_an_invalid_setting_with_a_message(environment: dict[str, str], words: str) -> None:
    process = start("serve", environment=environment)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (2, "")
    assert words in err
    assert "Traceback" not in err
    assert "two words" not in err


def test_read_only_serves_only_reading_tools() -> None:
    process = start("serve", "--sandbox", "--read-only", "--toolsets", "itwins")
    send_line(process, HELLO)
    read_line(process)
    send_line(process, {"jsonrpc": "2.0", "method": "notifications/initialized"})
    send_line(process, {"jsonrpc": "2.0", "id": 2, "method": "tools/list"})
    tools = read_line(process)["result"]["tools"]
    process.communicate(timeout=20)
    assert "list-itwins" in {tool["name"] for tool in tools}
    assert "delete-itwin" not in {tool["name"] for tool in tools}
    assert all(tool["annotations"]["readOnlyHint"] for tool in tools)


CHATTY = """
import sys, warnings
from itwin_mcp.executor.outcome import Result
from itwin_mcp.executor.pipeline import Executor

async def chatty(self, *_, **__):
    print("stray words on stdout")
    sys.stdout.write("more\\n")
    sys.stdout.flush()
    warnings.warn("a stray warning")
    return Result({"iTwins": [], "page": {"returned": 0, "complete": True}}, "{}")

Executor.call = chatty
from itwin_mcp.cli import main
sys.argv = ["itwin-mcp", "serve", "--sandbox"]
main()
"""


def test_stdio_survives_stray_prints_and_warnings() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", CHATTY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    send_line(process, HELLO)
    assert read_line(process)["id"] == 1
    send_line(process, {"jsonrpc": "2.0", "method": "notifications/initialized"})
    for number in (2, 3):
        call = {"name": "list-itwins", "arguments": {}}
        send_line(process, {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": call})
        assert read_line(process)["id"] == number
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, "")
    assert "stray words on stdout" in err
    assert "a stray warning" in err
