"""The configuration files of desktop clients on this machine, and what they say about us."""

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


@dataclass(frozen=True, slots=True)
class Found:
    """One configuration file that exists: which entries of it start us, or why it cannot be read."""

    client: str
    file: Path
    entries: tuple[str, ...] = ()
    problem: str = ""


def look(environment: Mapping[str, str]) -> list[Found]:
    """Every configuration file that is there."""
    return [_read(client, file, key) for client, file, key in _places(environment) if file.is_file()]


def _places(environment: Mapping[str, str]) -> list[tuple[str, Path, str]]:
    """Client, file and the member that holds its servers; source: each client's own documentation of MCP."""
    home = Path(environment.get("HOME") or environment.get("USERPROFILE") or Path.home())
    if sys.platform == "darwin":
        applications = home / "Library/Application Support"
    elif sys.platform == "win32":
        applications = Path(environment.get("APPDATA") or home / "AppData/Roaming")
    else:
        applications = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    return [
        ("Claude Desktop", applications / "Claude/claude_desktop_config.json", "mcpServers"),
        ("Claude Code", home / ".claude.json", "mcpServers"),
        ("Cursor", home / ".cursor/mcp.json", "mcpServers"),
        ("VS Code", applications / "Code/User/mcp.json", "servers"),
        ("Windsurf", home / ".codeium/windsurf/mcp_config.json", "mcpServers"),
    ]


def _read(client: str, file: Path, key: str) -> Found:
    try:
        content = json.loads(file.read_text(encoding="utf-8") or "{}")
    except json.JSONDecodeError as error:
        return Found(client, file, problem=f"it is not JSON: {error.msg} in line {error.lineno}")
    except (OSError, ValueError) as error:
        return Found(client, file, problem=f"it cannot be read ({type(error).__name__})")
    servers = content.get(key) if isinstance(content, dict) else None
    if servers is None:
        return Found(client, file)
    if not isinstance(servers, dict):
        return Found(client, file, problem=f"its {key!r} is not an object")
    ours = {name: entry for name, entry in servers.items() if _starts_us(entry)}
    for name, entry in ours.items():
        command = entry.get("command")
        if isinstance(command, str) and shutil.which(os.path.expandvars(command)) is None:
            return Found(client, file, tuple(ours), f"the command of {name!r} is not found: {command}")
    return Found(client, file, tuple(ours))


def _starts_us(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return False
    words = [entry.get("command"), *(entry["args"] if isinstance(entry.get("args"), list) else [])]
    return any(isinstance(word, str) and re.search(r"\bitwin[-_]mcp\b", word) for word in words)
