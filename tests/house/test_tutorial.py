"""Run the blocks of the tutorial in order, beginning with an empty folder."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from itwin_mcp.capability.linker import link_files
from itwin_mcp.cli.capability_new import make_starter
from tests.house.documents import Block, blocks, shell_lines, text_of
from tests.sandbox_process import free_port

TUTORIAL = "docs/tutorial.md"
PORT = "8765"


def matches(expected: Any, answer: Any) -> bool:
    """Return whether an answer is the expected one. The text "…" in `expected` matches any value."""
    if expected == "…":
        return True
    if isinstance(expected, dict) and isinstance(answer, dict):
        return expected.keys() == answer.keys() and all(matches(expected[key], answer[key]) for key in expected)
    if isinstance(expected, list) and isinstance(answer, list):
        return len(expected) == len(answer) and all(map(matches, expected, answer))
    return bool(expected == answer)


class Reader:
    """A reader of the tutorial, who writes its files and runs its commands in a folder."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.services: list[subprocess.Popen[bytes]] = []
        self.printed = ""

    def follow(self, block: Block) -> None:
        text = block.text.replace(PORT, str(self.port))
        key, _, value = block.words.partition("=")
        if block.language in ("python", "yaml") and "=" not in block.words:
            (self.folder / block.words).write_text(text, encoding="utf-8")
        elif block.language == "yaml":
            self.insert(text, f"# {value}" if key == "at" else value)
        elif block.words == "service":
            self.start(text)
        elif block.language == "sh":
            for line in shell_lines(block):
                self.run(line, int(value) if key == "exit" else 0)
        elif block.language == "json":
            expected, answer = json.loads(text), json.loads(self.printed)
            if "headers" in expected:
                answer["headers"] = {}
            assert matches(expected, answer), f"line {block.line}: {self.printed}"
        else:
            assert block.language == "text"
            assert self.printed == text, f"line {block.line}"

    def insert(self, text: str, before: str) -> None:
        """Insert text into the capability file, before the only line that begins with `before`."""
        file = self.folder / "stations.yaml"
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        (place,) = [number for number, line in enumerate(lines) if line.strip().startswith(before)]
        file.write_text("".join([*lines[:place], text, *lines[place:]]), encoding="utf-8")

    def start(self, text: str) -> None:
        """Start a service and wait until it accepts connections."""
        (line,) = text.splitlines()
        self.services.append(subprocess.Popen([sys.executable, *line.split()[1:]], cwd=self.folder, stderr=-3))
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
        raise AssertionError(f"{line} does not answer")

    def run(self, line: str, code: int) -> None:
        scripts = str(Path(sys.executable).parent)
        environment = os.environ | {"PATH": os.pathsep.join([scripts, os.environ["PATH"]]), "NO_PROXY": "127.0.0.1"}
        home = {"HOME": str(self.folder), "XDG_CONFIG_HOME": str(self.folder / ".config")}
        (self.folder / ".cursor").mkdir(exist_ok=True)
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            env=environment | home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == code, f"{line}\n{done.stdout}{done.stderr}"
        self.printed = done.stdout


def test_every_authentication_of_the_table_is_accepted(tmp_path: Path) -> None:
    rows = re.findall(r"^\| `(\{type: \w+, .*\})` \|", text_of(TUTORIAL), re.MULTILINE)
    assert {row.split(",")[0] for row in rows} == {"{type: bearer", "{type: basic", "{type: apikey"}
    starter = make_starter("parts", tmp_path / "parts.yaml")
    for row in rows:
        text = starter.replace('{type: bearer, token: "{{PARTS_TOKEN}}"}', row.replace("{{KEY}}", "{{PARTS_TOKEN}}"))
        assert text.count(row.split(",")[0]) >= 1
        (tmp_path / "parts.yaml").write_text(text, encoding="utf-8")
        operation = link_files([tmp_path / "parts.yaml"]).operations["parts-api.get-item"]
        assert operation.credential is not None


@pytest.mark.slow
def test_tutorial_blocks_run_in_order(tmp_path: Path) -> None:
    reader = Reader(tmp_path, free_port())
    try:
        for block in blocks(TUTORIAL):
            reader.follow(block)
    finally:
        for service in reader.services:
            service.terminate()
            service.wait(timeout=20)
    assert "create-station-note" in (tmp_path / "stations.yaml").read_text(encoding="utf-8")
