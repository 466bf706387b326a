"""Our processes connect only to the platform and the sign-in server in the settings. There is no telemetry."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.sandbox_process import Platform, running_platform

RECORD = """
import atexit, json, os, sys

seen = set()

def record(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        seen.add(f"{arguments[1][0]}:{arguments[1][1]}")
    elif event == "socket.getaddrinfo":
        seen.add(f"{arguments[0]}:{arguments[1]}")

sys.addaudithook(record)
atexit.register(lambda: open(os.environ["SEEN"], "w").write(json.dumps(sorted(seen))))
from itwin_mcp.cli import main
main()
"""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with running_platform(tmp_path_factory.mktemp("home")) as running:
        yield running


def record_connections(folder: Path, *arguments: str, **environment: str) -> set[str]:
    """Run a command and return the addresses that it connected to or looked up."""
    seen = folder / "seen.json"
    done = subprocess.run(
        [sys.executable, "-c", RECORD, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | environment | {"SEEN": str(seen)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return set(json.loads(seen.read_text()))


@pytest.mark.parametrize(
    "arguments",
    [
        ("serve", "--sandbox"),
        ("tools", "--toolsets", "all"),
        ("call", "list-itwins", "--sandbox"),
        ("doctor",),
        ("sandbox", "coverage"),
    ],
    ids=" ".join,
)
def test_commands_with_the_sandbox_open_no_connection(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "ITWIN_MCP_SANDBOX": "true"}
    assert record_connections(tmp_path, *arguments, **home) == set()


@pytest.mark.parametrize("arguments", [("call", "list-itwins"), ("doctor",)], ids=" ".join)
def test_commands_connect_only_to_the_platform_and_its_sign_in_server(
    platform: Platform, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    service = {"ITWIN_CLIENT_ID": "service-x", "ITWIN_CLIENT_SECRET": "canary"}
    addresses = record_connections(tmp_path, *arguments, **platform.environment | service)
    assert addresses == {urlsplit(platform.url).netloc}
