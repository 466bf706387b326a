"""The clients' own commands to add and remove a server."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from itwin_mcp.errors import ItwinMcpError

Words = list[str]
TIMEOUT_SECONDS = 60.0


class CommandFailed(ItwinMcpError):
    """A client's command failed."""


@dataclass(frozen=True, slots=True)
class ClientCommand:
    """A client's program, with the arguments that add and remove a server; `remove` is None if it cannot remove one."""

    program: str
    add: Callable[[str, Mapping[str, Any]], Words]
    remove: Callable[[str], Words] | None = None


def _add_to_claude(name: str, entry: Mapping[str, Any]) -> Words:
    # The name comes first, because -e takes all words that follow it.
    pairs = [word for key, value in entry.get("env", {}).items() for word in ("-e", f"{key}={value}")]
    return ["mcp", "add", name, "--scope", "user", *pairs, "--", entry["command"], *entry["args"]]


def _remove_from_claude(name: str) -> Words:
    return ["mcp", "remove", name, "--scope", "user"]


def _add_to_vscode(name: str, entry: Mapping[str, Any]) -> Words:
    return ["--add-mcp", json.dumps({"name": name, **entry}, ensure_ascii=False)]


COMMANDS: Mapping[str, ClientCommand] = {
    # https://code.claude.com/docs/en/mcp
    "claude-code": ClientCommand("claude", _add_to_claude, _remove_from_claude),
    # https://code.visualstudio.com/docs/copilot/guides/mcp-developer-guide
    "vscode": ClientCommand("code", _add_to_vscode),
}


def find_program(client: str, environment: Mapping[str, str]) -> str | None:
    """Return the path of the client's program, or None.

    Batch files of Windows are ignored, because the shell that runs them would interpret quotes in our arguments.
    """
    if client not in COMMANDS:
        return None
    program = shutil.which(COMMANDS[client].program, path=environment.get("PATH"))
    return None if program is None or program.lower().endswith((".cmd", ".bat")) else program


def run_command(words: Sequence[str]) -> None:
    """Run a command and wait for it. Raises CommandFailed with its output."""
    try:
        process = subprocess.run(  # noqa: S603 - a list of words, without a shell
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise CommandFailed(f"{words[0]} did not end within {TIMEOUT_SECONDS:.0f} seconds.") from None
    except OSError as error:
        raise CommandFailed(f"{words[0]} cannot be run: {error.strerror or error}.") from None
    if process.returncode:
        output = (process.stderr.strip() or process.stdout.strip() or "it printed nothing")[-500:]
        raise CommandFailed(f"{words[0]} exited with {process.returncode}: {output}")
