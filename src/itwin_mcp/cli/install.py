"""`itwin-mcp install`: put this server into a client's configuration, and take it out again."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from itwin_mcp.cli.client_commands import COMMANDS, CommandFailed, find_program, run
from itwin_mcp.cli.config_file import ConfigFile, Kept, installed, readable, uninstalled
from itwin_mcp.cli.desktop_clients import CLIENTS, DesktopClient, explain_unreadable, place, starts_us
from itwin_mcp.cli.json_text import BYTE_ORDER_MARK, NotJson, get_member, set_member
from itwin_mcp.cli.options import LocalPath, settings_options
from itwin_mcp.cli.start_command import start_command
from itwin_mcp.errors import SettingsError
from itwin_mcp.settings import ENVIRONMENT, Settings, read_settings
from itwin_mcp.upstream.naming import expand_home

INSTALLABLE = ("claude-desktop", "claude-code", "vscode", "cursor")
SECRETS = (
    "ITWIN_ACCESS_TOKEN",
    "ITWIN_CLIENT_SECRET",
    "ITP_SERVICE_CLIENT_SECRET",
    "ITWIN_MCP_HTTP_TOKEN",
    "ITWIN_MCP_STATE_SECRET",
)
_PATHS = ("_FILE", "_DIR", "_ROOT", "_CAPABILITIES", "_POLICY", "_AUDIT_LOG")
PATHS = tuple(name for name in ENVIRONMENT if name.endswith(_PATHS))
_OWN = ("ITWIN_MCP_BUNDLE", "ITP_SERVICE_CLIENT_ID")
"""The desktop extension's own, and an id that is nothing without its secret."""
_NO_PLACE = "a client's configuration is no place for a secret"
_RESTART = {
    "claude-desktop": "Quit Claude Desktop and start it again.",
    "claude-code": "Its next session has it; `/mcp` in it tells.",
    "vscode": "`MCP: List Servers` in its command palette tells.",
    "cursor": "Start Cursor again.",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done for one client: a file to be changed, or lines that the client's own program runs."""

    client: DesktopClient
    file: ConfigFile
    path: tuple[str, ...]
    """Where the entry is in the file."""
    old: Kept
    new: Kept
    lines: tuple[tuple[str, ...], ...] = ()

    @property
    def changes(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.lines) or self.new != self.old


@click.command("install")
@click.argument("client", type=click.Choice(INSTALLABLE))
@click.option("--name", default="itwin", show_default=True, metavar="NAME", help="What the client calls this server.")
@click.option("--uninstall", is_flag=True, help="Take it out of the client again.")
@click.option("--print", "only_print", is_flag=True, help="Print what would be written or run; change nothing.")
@click.option("--file", type=LocalPath(dir_okay=False), help="Edit this file instead of the client's.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@settings_options
@click.pass_context
def command(
    context: click.Context, /, client: str, name: str, uninstall: bool, only_print: bool, file: Path | None,
    as_json: bool, **flags: Any,
) -> None:  # fmt: skip
    """Have a client start this server: by its own command where it has one, else in its configuration file.

    The options of `serve` that are given here, and the settings that this shell has in its environment, go along;
    secrets never do. All else in the file stays as it is, and what it was is kept beside it where it is edited or an
    entry is replaced. An entry of that name that starts another server is left alone.

    \b
    Examples:
      itwin-mcp install claude-desktop --sandbox
      ITWIN_CLIENT_ID=native-… itwin-mcp install vscode --toolsets itwins,imodels
      itwin-mcp install claude-code --read-only --print
      itwin-mcp install cursor --file .cursor/mcp.json
      itwin-mcp install claude-desktop --uninstall
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
        raise SettingsError(f"The name {name!r} must be up to 64 letters, digits, dashes and underscores.")
    known = next(one for one in CLIENTS if one.key == client)
    notes: list[str] = []
    entry = {} if uninstall else _entry(known, context, flags, notes)
    try:
        plan = _plan(known, name, None if uninstall else entry, file, only_print=only_print)
    except NotJson as error:
        told = file or place(known, os.environ)
        raise SettingsError(f"{told}: {error}. Nothing was changed: correct it, then try again.") from None
    notes += _warnings(plan, only_print=only_print)
    if not only_print:
        _carry_out(plan, name)
        if plan.changes and not uninstall:
            notes.append(_RESTART[client])
    if as_json:
        shown = _shown(plan, name, entry or None) | {"printedOnly": only_print, "notes": notes}
        click.echo(json.dumps(shown, indent=2, ensure_ascii=False))
        return
    click.echo(_told(plan, name, entry, uninstall=uninstall, only_print=only_print))
    for note in notes:
        click.echo(note, err=True)


def _entry(client: DesktopClient, context: click.Context, flags: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """What the client is to hold about us; what is worth knowing about it goes to `notes`."""
    from itwin_mcp.runtime import read_catalog

    taken, withheld = _taken(os.environ)
    settings = read_settings(taken, **flags)
    catalog = read_catalog(settings)  # a toolset or file that is wrong is told here, not in the client's log
    credentials = [
        operation.credential for operation in catalog.operations.values() if operation.credential is not None
    ]
    bound = {variable for credential in credentials for variable in credential.variables.values()} - ENVIRONMENT.keys()
    if bound:
        notes.append(
            f"{', '.join(sorted(bound))}, which your capability files bind, is not handed on: it may be a secret. "
            f"Have it in the environment that {client.title} is started with, or in the `env` of this entry."
        )
    if not settings.sandbox:
        notes += withheld
    if not settings.sandbox and not withheld and not _signs_in(settings):
        notes.append(
            "Nothing signs it in yet: set ITWIN_CLIENT_ID to your application and run this again, "
            "then `itwin-mcp auth login`; or try it without an account by --sandbox."
        )
    start = start_command(os.environ)
    entry: dict[str, Any] = {"type": "stdio"} if client.typed else {}
    entry |= {"command": start.program, "args": [*start.args, "serve", *_words(context, flags)]}
    env = {**start.env, **taken}
    return entry | ({"env": env} if env else {})


def _taken(environment: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the settings of this shell that go along, and notes about the credentials that do not.

    Secrets stay here. A client id stays with its secret: alone it would mean another way to sign in.
    """
    found = {name: environment[name].strip() for name in ENVIRONMENT if environment.get(name, "").strip()}
    left_out = {*SECRETS, *_OWN}
    notes = []
    if "ITWIN_ACCESS_TOKEN" in found and "ITWIN_ACCESS_TOKEN_FILE" not in found:
        notes.append(
            f"ITWIN_ACCESS_TOKEN was not handed on: {_NO_PLACE}. Use `itwin-mcp auth login`, or set "
            "ITWIN_ACCESS_TOKEN_FILE to a file that holds the token, and run this again."
        )
    if "ITWIN_CLIENT_SECRET" in found and "ITWIN_CLIENT_SECRET_FILE" not in found:
        left_out.add("ITWIN_CLIENT_ID")
        notes.append(
            f"ITWIN_CLIENT_SECRET and its ITWIN_CLIENT_ID were not handed on: {_NO_PLACE}. For this service "
            "application, put the secret into a file that only you can read, set ITWIN_CLIENT_SECRET_FILE to that file "
            "and run this again. To sign in with your browser instead, unset ITWIN_CLIENT_SECRET, set ITWIN_CLIENT_ID "
            "to a native application and run this again."
        )
    if "ITP_SERVICE_CLIENT_SECRET" in found and "ITWIN_CLIENT_ID" not in found:
        notes.append(
            f"ITP_SERVICE_CLIENT_ID and ITP_SERVICE_CLIENT_SECRET were not handed on: {_NO_PLACE}. Put the secret into "
            "a file that only you can read, set ITWIN_CLIENT_ID to the id and ITWIN_CLIENT_SECRET_FILE to that file, "
            "and run this again."
        )
    taken = {name: value for name, value in found.items() if name not in left_out}
    # The client starts us in a folder of its own.
    return {name: _absolute(value) if name in PATHS else value for name, value in taken.items()}, notes


def _absolute(value: str) -> str:
    parts = [part for part in value.split(os.pathsep) if part]
    return os.pathsep.join(part if part == "-" else str(expand_home(part).absolute()) for part in parts)


def _signs_in(settings: Settings) -> bool:
    return settings.client_id is not None or settings.access_token_file is not None


def _words(context: click.Context, flags: Mapping[str, Any]) -> list[str]:
    """The options of `serve` as they were given, paths made absolute."""
    words: list[str] = []
    for parameter in context.command.params:
        value = flags.get(parameter.name or "")
        if value is None or value is False or value == ():
            continue
        option = parameter.opts[0]
        if value is True:
            words.append(option)
            continue
        for one in value if isinstance(value, tuple) else (value,):
            words += [option, str(one.absolute() if isinstance(one, Path) else one)]
    return words


def _plan(
    client: DesktopClient, name: str, entry: Mapping[str, Any] | None, file: Path | None, *, only_print: bool
) -> Plan:
    """What there is to do; `entry` is None to take ours out. To be printed, it needs no client on this machine."""
    config = ConfigFile.at(file or place(client, os.environ))
    old, path = config.read(), (*client.servers(config.path), name)
    there = None if old.text is None else get_member(old.text, path)
    if there is not None and not starts_us(there):
        raise SettingsError(
            f"{name!r} in {config.path} starts another server, and was left alone: "
            "choose another name by --name, or take that entry out yourself."
        )
    new = uninstalled(old, path) if entry is None else installed(old, path, entry)
    if client.strict and (entry is not None or new != old):
        new = readable(new)
    program = find_program(client.key, os.environ) if file is None else None
    lines = _lines(client.key, program, name, entry, there) if program is not None else None
    if lines is not None:
        replaces = bool(lines) and entry is not None and there is not None
        return Plan(client, config, path, old, replace(old, backup=old.text) if replaces else old, lines)
    if new != old and file is None and not only_print and not config.path.parent.is_dir():
        raise SettingsError(
            f"{client.title} was not found: there is no folder {config.path.parent}. "
            "Start it once, name its configuration file by --file, or see by --print what to put there."
        )
    return Plan(client, config, path, old, new)


def _warnings(plan: Plan, *, only_print: bool) -> list[str]:
    """What the user should know about the file beyond the entry."""
    had_mark = (plan.old.text or "").startswith(BYTE_ORDER_MARK)
    notes = []
    if had_mark and plan.new != plan.old and not (plan.new.text or "").startswith(BYTE_ORDER_MARK):
        would = "would be" if only_print else "was"
        notes.append(
            f"The byte order mark at the start of {plan.file.path} {would} removed: {plan.client.title} cannot read it."
        )
    problem = explain_unreadable(plan.client, plan.new.text or "")
    if problem:
        notes.append(f"Correct {plan.file.path}: {problem}.")
    return notes


def _lines(
    client: str, program: str, name: str, entry: Mapping[str, Any] | None, there: Any
) -> tuple[tuple[str, ...], ...] | None:
    """What the client's own program is to run; None where it has no command for it."""
    own = COMMANDS[client]
    if entry is None:
        if own.remove is None:
            return None
        return ((program, *own.remove(name)),) if there is not None else ()
    if _same(there, entry):
        return ()
    first = ((program, *own.remove(name)),) if there is not None and own.remove is not None else ()
    return (*first, (program, *own.add(name, entry)))


def _same(there: Any, entry: Mapping[str, Any]) -> bool:
    """Whether what is there starts the same: clients write an empty member where we write none."""
    return isinstance(there, dict) and all(
        (there.get(key) or None) == (entry.get(key) or None) for key in ("command", "args", "env")
    )


def _carry_out(plan: Plan, name: str) -> None:
    """Change the file, or keep its backup before a program changes it; ends the process where that program fails."""
    if plan.new != plan.old:
        plan.file.write(plan.old, plan.new)
    try:
        for line in plan.lines:
            run(line)
    except CommandFailed as error:
        click.echo(str(error), err=True)
        if len(plan.lines) > 1 and _put_back(plan):
            click.echo(f"It had taken {name!r} out of {plan.file.path}: that was put back as it was.", err=True)
        click.echo(f"Name the configuration file by --file {plan.file.path} to edit it instead.", err=True)
        sys.exit(1)


def _put_back(plan: Plan) -> bool:
    """Whether an entry that the client's program took out had to be put back, and was. Raises SettingsError."""
    there = None if plan.old.text is None else get_member(plan.old.text, plan.path)
    now = plan.file.read()
    if there is None or get_member(now.text or "", plan.path) is not None:
        return False
    plan.file.write(now, replace(now, text=set_member(now.text or "", plan.path, there)))
    return True


def _shown(plan: Plan, name: str, entry: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "client": plan.client.key,
        "name": name,
        "changes": plan.changes,
        "file": str(plan.file.path),
        "backup": str(plan.file.backup) if plan.new.backup is not None and plan.new != plan.old else None,
        "commands": [list(line) for line in plan.lines],
        "entry": entry,
    }


def _told(plan: Plan, name: str, entry: Mapping[str, Any], *, uninstall: bool, only_print: bool) -> str:
    if not plan.changes:
        return f"{plan.client.title} {'does not name' if uninstall else 'already has'} {name!r}: nothing to do."
    if only_print and plan.lines:
        return "\n".join(_line(line) for line in plan.lines)
    if only_print and uninstall:
        return f"{'.'.join(plan.path)} would be taken out of {plan.file.path}"
    if only_print:
        shown: Any = entry
        for member in reversed(plan.path):
            shown = {member: shown}
        return f"Into {plan.file.path}:\n{json.dumps(shown, indent=2, ensure_ascii=False)}"
    kept = (
        f"; what the file was is in {plan.file.backup}" if plan.new.backup is not None and plan.new != plan.old else ""
    )
    if plan.lines:
        done = "took out" if uninstall else "added"
        return f"{plan.client.title}: `{Path(plan.lines[0][0]).stem}` {done} {name!r}{kept}."
    if uninstall:
        return f"{plan.client.title}: {name!r} was taken out of {plan.file.path}{kept}."
    return f"{plan.client.title}: {name!r} was put into {plan.file.path}{kept}."


def _line(words: Sequence[str]) -> str:
    """A line to paste into this system's shell."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)
