"""The MCP clients that we know, where each stores its servers, and which of these entries start itwin-mcp."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from itwin_mcp.cli.clients.json_text import BYTE_ORDER_MARK, NotJson, parse


@dataclass(frozen=True, slots=True)
class DesktopClient:
    """An MCP client with a configuration file on this computer. Source: each client's documentation of MCP."""

    key: str
    title: str
    file: str
    """Its configuration file: `~` is the home folder, `@` the system's folder for application settings."""
    member: str = "mcpServers"
    """The member of the file that lists the servers."""
    typed: bool = False
    """Whether an entry needs `"type": "stdio"`."""
    folder_variable: str = ""
    """The environment variable that moves the file to another folder, if the client has one."""
    strict: bool = False
    """Whether the client reads only plain JSON, without a byte order mark, comments and trailing commas."""

    def find_servers_path(self, file: Path) -> tuple[str, ...]:
        """Return the path of the member that lists the servers; in VS Code's settings.json it is nested."""
        is_nested = self.key == "vscode" and file.name == "settings.json"
        return ("mcp", self.member) if is_nested else (self.member,)


CLIENTS = (
    DesktopClient("claude-desktop", "Claude Desktop", "@/Claude/claude_desktop_config.json", strict=True),
    DesktopClient("claude-code", "Claude Code", "~/.claude.json", typed=True, folder_variable="CLAUDE_CONFIG_DIR"),
    DesktopClient("cursor", "Cursor", "~/.cursor/mcp.json"),
    DesktopClient("vscode", "VS Code", "@/Code/User/mcp.json", member="servers", typed=True),
    DesktopClient("windsurf", "Windsurf", "~/.codeium/windsurf/mcp_config.json"),
)


def find_config_path(client: DesktopClient, environment: Mapping[str, str], system: str = sys.platform) -> Path:
    """Return the path of the client's file on this computer, whether or not it exists."""
    if environment.get(client.folder_variable):
        return Path(environment[client.folder_variable]) / Path(client.file).name
    home = Path(environment.get("HOME") or environment.get("USERPROFILE") or Path.home())
    if system == "darwin":
        applications = home / "Library/Application Support"
    elif system == "win32":
        applications = Path(environment.get("APPDATA") or home / "AppData/Roaming")
    else:
        applications = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    return (applications if client.file.startswith("@") else home) / client.file[2:]


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """An existing configuration file: its entries that start itwin-mcp, or why it cannot be read."""

    client: DesktopClient
    file: Path
    entries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    problem: str = ""


def read_configs(environment: Mapping[str, str]) -> list[ClientConfig]:
    """Read the configuration file of every client that has one."""
    paths = [(client, find_config_path(client, environment)) for client in CLIENTS]
    return [_read_config(client, file) for client, file in paths if file.is_file()]


def _read_config(client: DesktopClient, file: Path) -> ClientConfig:
    try:
        text = file.read_bytes().decode()
        content = parse(text)
    except NotJson as error:
        return ClientConfig(client, file, problem=str(error))
    except (OSError, ValueError) as error:
        return ClientConfig(client, file, problem=f"it cannot be read ({type(error).__name__})")
    problem = explain_unreadable(client, text)
    if problem:
        return ClientConfig(client, file, problem=problem)
    servers = content.get(client.member) if isinstance(content, dict) else None
    if servers is None:
        return ClientConfig(client, file)
    if not isinstance(servers, dict):
        return ClientConfig(client, file, problem=f"its {client.member!r} is not an object")
    ours = {name: entry for name, entry in servers.items() if starts_us(entry)}
    for name, entry in ours.items():
        command = entry.get("command")
        if isinstance(command, str) and shutil.which(os.path.expandvars(command)) is None:
            return ClientConfig(client, file, ours, f"the command of {name!r} was not found: {command}")
    return ClientConfig(client, file, ours)


def explain_unreadable(client: DesktopClient, text: str) -> str:
    """Explain why a strict client cannot read a text that we can read. Return an empty text if it can."""
    if not client.strict or not text.strip():
        return ""
    if text.startswith(BYTE_ORDER_MARK):
        return f"it begins with a byte order mark: {client.title} cannot read it, and `itwin-mcp install` removes it"
    try:
        json.loads(text)
    except ValueError as error:
        line = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        return f"it has comments or trailing commas{line}, which {client.title} cannot read"
    return ""


def starts_us(entry: Any) -> bool:
    """Return whether an entry of a client starts this server."""
    if not isinstance(entry, dict):
        return False
    words = [entry.get("command"), *(entry["args"] if isinstance(entry.get("args"), list) else [])]
    return any(isinstance(word, str) and re.search(r"\bitwin[-_]mcp\b", word) for word in words)
