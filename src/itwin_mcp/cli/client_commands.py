"""The commands by which clients that have one add and remove a server themselves."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from itwin_mcp.errors import ItwinMcpError

Line = list[str]
SECONDS = 60.0


class CommandFailed(ItwinMcpError):
    """A client's own command did not do what it was asked to."""


@dataclass(frozen=True, slots=True)
class ClientCommand:
    """A client's program; `remove` is None where it cannot take a server away."""

    program: str
    add: Callable[[str, Mapping[str, Any]], Line]
    remove: Callable[[str], Line] | None = None


def _claude_add(name: str, entry: Mapping[str, Any]) -> Line:
    # The name comes first: -e takes every word that follows it.
    pairs = [word for key, value in entry.get("env", {}).items() for word in ("-e", f"{key}={value}")]
    return ["mcp", "add", name, "--scope", "user", *pairs, "--", entry["command"], *entry["args"]]


def _claude_remove(name: str) -> Line:
    return ["mcp", "remove", name, "--scope", "user"]


def _code_add(name: str, entry: Mapping[str, Any]) -> Line:
    return ["--add-mcp", json.dumps({"name": name, **entry}, ensure_ascii=False)]


COMMANDS: Mapping[str, ClientCommand] = {
    # https://code.claude.com/docs/en/mcp
    "claude-code": ClientCommand("claude", _claude_add, _claude_remove),
    # https://code.visualstudio.com/docs/copilot/guides/mcp-developer-guide
    "vscode": ClientCommand("code", _code_add),
}


def find_program(client: str, environment: Mapping[str, str]) -> str | None:
    """The client's program, where there is one to run. A batch file of Windows is none: it would read our quotes."""
    command = COMMANDS.get(client)
    found = shutil.which(command.program, path=environment.get("PATH")) if command is not None else None
    return None if found is None or found.lower().endswith((".cmd", ".bat")) else found


def run(line: Sequence[str]) -> None:
    """Run one to its end. Raises CommandFailed, with what it said."""
    try:
        done = subprocess.run(  # noqa: S603 - a list of words, without a shell
            line, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        raise CommandFailed(f"{line[0]} did not end within {SECONDS:.0f} seconds.") from None
    except OSError as error:
        raise CommandFailed(f"{line[0]} cannot be run: {error.strerror or error}.") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing")[-500:]
        raise CommandFailed(f"{line[0]} ended with {done.returncode}: {said}")
