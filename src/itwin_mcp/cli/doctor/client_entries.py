"""Checks of MCP clients on this computer: start each entry for this server once, as the client does."""

from __future__ import annotations

import os
import shlex
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from itwin_mcp.cli.doctor.check import FAILED, NOTED, OK, SKIPPED, Check
from itwin_mcp.cli.doctor.installation import find_misspelled
from itwin_mcp.errors import ErrorCode

START_SECONDS = 30.0
"""Time limit for an entry to start and answer."""


async def check_clients(environment: Mapping[str, str]) -> AsyncIterator[Check]:
    """Check the configuration file of each client, and start the entries for this server in it."""
    from itwin_mcp.cli.clients.known_clients import read_configs

    configs = read_configs(environment)
    if not configs:
        yield Check("desktop clients", SKIPPED, "no client's configuration file was found")
    for config in configs:
        title = config.client.title
        if config.problem:
            fix = f"Correct {config.file}; until then the client starts no server."
            yield Check(title, FAILED, config.problem, fix)
        elif config.entries:
            for name, entry in config.entries.items():
                yield await _start_entry(title, name, entry, config.file)
        else:
            yield Check(title, NOTED, f"{config.file} does not name itwin-mcp", _suggest_install(config.client.key))


async def _start_entry(title: str, name: str, entry: Mapping[str, Any], file: Path) -> Check:
    """Start a client's entry, count its tools, and ask it who is signed in."""
    import anyio
    from mcp import Client, MCPError, StdioServerParameters, stdio_client

    from itwin_mcp.server.built_in_tools import SIGN_IN, WHO_AM_I

    entry_name = f"{name} in {file}"
    variables = {str(key): str(value) for key, value in (entry.get("env") or {}).items()}
    words = [str(word) for word in (entry["command"], *entry.get("args", ()))]
    if any("${" in word for word in (*words, *variables.values())):
        return Check(title, OK, f"{entry_name}; not started here, because the client fills in some values")
    misspelled = find_misspelled(variables)
    if misspelled:
        return Check(title, FAILED, f"{entry_name}: {misspelled}", f"Correct the names in {file}.")
    command, *args = map(os.path.expandvars, words)
    server = StdioServerParameters(command=command, args=args, env=variables)
    tools: list[str] | None = None
    answer: Mapping[str, Any] = {}
    try:
        with anyio.fail_after(START_SECONDS), _open_null_device() as null_device:
            async with Client(stdio_client(server, errlog=null_device)) as client:
                tools = [tool.name for tool in (await client.list_tools()).tools]
                if WHO_AM_I in tools:
                    answer = (await client.call_tool(WHO_AM_I, {})).structured_content or {}
    except* (OSError, TimeoutError, MCPError, anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass
    if tools is None:
        fix = f"Run this in a shell to see why: {shlex.join(words)}"
        return Check(title, FAILED, f"{entry_name} does not start", fix)
    finding = f"{entry_name}: serves {len(tools)} tools"
    if "error" in answer:
        # If the tool `sign-in` is served, the entry is right and signing in is the user's next step.
        can_sign_in = answer["error"]["code"] == ErrorCode.NOT_SIGNED_IN and SIGN_IN in tools
        status = NOTED if can_sign_in else FAILED
        return Check(title, status, f"{finding}, but: {answer['error']['message']}", answer["error"]["hint"])
    session = answer.get("session") or {}
    return Check(title, OK, finding + (f" of {session['environment']}" if session.get("environment") else ""))


def _open_null_device() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")


def _suggest_install(client: str) -> str:
    from itwin_mcp.cli.install import INSTALLABLE

    if client in INSTALLABLE:
        return f"To use it there, run `itwin-mcp install {client}`."
    return "To use it there, add it as docs/clients.md describes."
