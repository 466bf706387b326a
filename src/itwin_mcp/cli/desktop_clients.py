"""The clients that we know: where each keeps its servers on this machine, and what is said about us there."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from itwin_mcp.cli.json_text import BYTE_ORDER_MARK, NotJson, read


@dataclass(frozen=True, slots=True)
class DesktopClient:
    """One client; source of each: its own documentation of MCP."""

    key: str
    title: str
    file: str
    """`~` is the home folder, `@` the folder in which this system keeps applications' settings."""
    member: str = "mcpServers"
    """The member of the file that holds the servers."""
    typed: bool = False
    """Whether an entry says `"type": "stdio"`."""
    home: str = ""
    """The variable that moves the file's folder elsewhere, where there is one."""
    strict: bool = False
    """Whether it reads plain JSON only: no byte order mark, no comments, no trailing commas."""

    def servers(self, file: Path) -> tuple[str, ...]:
        """Return the path of the member of `file` that holds the servers; in VS Code's settings it lies deeper."""
        nested = self.key == "vscode" and file.name == "settings.json"
        return ("mcp", self.member) if nested else (self.member,)


CLIENTS = (
    DesktopClient("claude-desktop", "Claude Desktop", "@/Claude/claude_desktop_config.json", strict=True),
    DesktopClient("claude-code", "Claude Code", "~/.claude.json", typed=True, home="CLAUDE_CONFIG_DIR"),
    DesktopClient("cursor", "Cursor", "~/.cursor/mcp.json"),
    DesktopClient("vscode", "VS Code", "@/Code/User/mcp.json", member="servers", typed=True),
    DesktopClient("windsurf", "Windsurf", "~/.codeium/windsurf/mcp_config.json"),
)


def place(client: DesktopClient, environment: Mapping[str, str], system: str = sys.platform) -> Path:
    """The client's file on this machine, whether it is there or not."""
    if environment.get(client.home):
        return Path(environment[client.home]) / Path(client.file).name
    home = Path(environment.get("HOME") or environment.get("USERPROFILE") or Path.home())
    if system == "darwin":
        applications = home / "Library/Application Support"
    elif system == "win32":
        applications = Path(environment.get("APPDATA") or home / "AppData/Roaming")
    else:
        applications = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    return (applications if client.file.startswith("@") else home) / client.file[2:]


@dataclass(frozen=True, slots=True)
class Found:
    """One configuration file that exists: which entries of it start us, or why it cannot be read."""

    client: DesktopClient
    file: Path
    entries: tuple[str, ...] = ()
    problem: str = ""


def look(environment: Mapping[str, str]) -> list[Found]:
    """Every configuration file that is there."""
    places = [(client, place(client, environment)) for client in CLIENTS]
    return [_read(client, file) for client, file in places if file.is_file()]


def _read(client: DesktopClient, file: Path) -> Found:
    try:
        text = file.read_bytes().decode()
        content = read(text)
    except NotJson as error:
        return Found(client, file, problem=str(error))
    except (OSError, ValueError) as error:
        return Found(client, file, problem=f"it cannot be read ({type(error).__name__})")
    problem = explain_unreadable(client, text)
    if problem:
        return Found(client, file, problem=problem)
    servers = content.get(client.member) if isinstance(content, dict) else None
    if servers is None:
        return Found(client, file)
    if not isinstance(servers, dict):
        return Found(client, file, problem=f"its {client.member!r} is not an object")
    ours = {name: entry for name, entry in servers.items() if starts_us(entry)}
    for name, entry in ours.items():
        command = entry.get("command")
        if isinstance(command, str) and shutil.which(os.path.expandvars(command)) is None:
            return Found(client, file, tuple(ours), f"the command of {name!r} is not found: {command}")
    return Found(client, file, tuple(ours))


def explain_unreadable(client: DesktopClient, text: str) -> str:
    """Say why the client cannot read a text that we can; empty if it can."""
    if not client.strict or not text.strip():
        return ""
    if text.startswith(BYTE_ORDER_MARK):
        return f"it begins with a byte order mark: {client.title} cannot read it, and `itwin-mcp install` removes it"
    try:
        json.loads(text)
    except ValueError as error:
        line = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        return f"it has comments or trailing commas{line}, with which {client.title} cannot read it"
    return ""


def starts_us(entry: Any) -> bool:
    """Whether a client that has this entry starts this server."""
    if not isinstance(entry, dict):
        return False
    words = [entry.get("command"), *(entry["args"] if isinstance(entry.get("args"), list) else [])]
    return any(isinstance(word, str) and re.search(r"\bitwin[-_]mcp\b", word) for word in words)
