"""`itwin-mcp install claude-code` with the real Claude Code, in a temporary home folder."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.documents import text_of
from tests.interop import makers

pytestmark = pytest.mark.interop


def test_install_claude_code_adds_replaces_and_removes_the_server(environment: dict[str, str], tmp_path: Path) -> None:
    claude = makers.claude_code()
    path = os.pathsep.join([str(claude.parent), environment["PATH"]])
    quiet = {"DISABLE_AUTOUPDATER": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}
    surroundings = {**environment, **quiet, "PATH": path, "HOME": str(tmp_path), "ITWIN_CLIENT_ID": "native-x"}
    surroundings.pop("CLAUDE_CONFIG_DIR", None)
    config = tmp_path / ".claude.json"
    config.write_text('{"mcpServers": {"other": {"type": "stdio", "command": "x", "args": []}}}')

    def install(*arguments: str) -> dict[str, object]:
        line = [sys.executable, "-m", "itwin_mcp", "install", "claude-code", "--json", *arguments]
        done = subprocess.run(line, capture_output=True, text=True, timeout=120, env=surroundings)
        assert done.returncode == 0, done.stdout + done.stderr
        return dict(json.loads(done.stdout))

    answer = install("--sandbox")
    assert [line[1:4] for line in answer["commands"]] == [["mcp", "add", "itwin"]]  # type: ignore[attr-defined]
    servers = json.loads(config.read_text())["mcpServers"]
    assert list(servers) == ["other", "itwin"]
    assert servers["itwin"]["args"] == ["serve", "--sandbox"]
    assert servers["itwin"]["env"]["ITWIN_CLIENT_ID"] == "native-x"

    listed = subprocess.run(
        [str(claude), "mcp", "get", "itwin"], capture_output=True, text=True, timeout=120, env=surroundings
    )
    assert "serve --sandbox" in listed.stdout, listed.stdout + listed.stderr

    assert install("--sandbox")["changes"] is False
    install("--read-only", "--sandbox")
    assert "--read-only" in json.loads(config.read_text())["mcpServers"]["itwin"]["args"]
    install("--uninstall")
    assert list(json.loads(config.read_text())["mcpServers"]) == ["other"]
    assert install("--uninstall")["changes"] is False


def test_claude_code_accepts_the_command_for_a_server_by_url(environment: dict[str, str], tmp_path: Path) -> None:
    shown = re.search(r"`(claude mcp add [^`]+)`, then", text_of("docs/clients.md"))
    assert shown is not None
    program, *arguments = shlex.split(shown[1])
    claude = makers.claude_code().with_name(program)
    surroundings = {**environment, "DISABLE_AUTOUPDATER": "1", "HOME": str(tmp_path)}
    surroundings.pop("CLAUDE_CONFIG_DIR", None)
    command = [str(claude), *arguments, "--scope", "user"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=surroundings, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    entry = json.loads((tmp_path / ".claude.json").read_text())["mcpServers"]["itwin"]
    assert (entry["type"], entry["url"]) == ("http", "https://mcp.example.com/mcp")
