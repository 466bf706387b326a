"""The plan of `install` for one client: editing its configuration file, or running the client's own commands."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from itwin_mcp.cli.clients.commands import COMMANDS, CommandFailed, find_program, run_command
from itwin_mcp.cli.clients.config_file import (
    ConfigFile,
    FileContents,
    add_entry,
    remove_byte_order_mark,
    remove_entry,
)
from itwin_mcp.cli.clients.json_text import BYTE_ORDER_MARK, get_member, set_member
from itwin_mcp.cli.clients.known_clients import DesktopClient, explain_unreadable, find_config_path, starts_us
from itwin_mcp.errors import ItwinMcpError, SettingsError


class InstallFailed(ItwinMcpError):
    """A client's own command failed; the message says what was restored and what to do instead."""


@dataclass(frozen=True, slots=True)
class InstallPlan:
    """The change for one client: a new version of its file, or commands of the client's own program."""

    client: DesktopClient
    file: ConfigFile
    path: tuple[str, ...]
    """The path of the entry in the file."""
    old: FileContents
    new: FileContents
    commands: tuple[tuple[str, ...], ...] = ()

    @property
    def changes(self) -> bool:
        return bool(self.commands) or self.new != self.old

    @property
    def backup(self) -> Path | None:
        """The path of the backup after the change, or None if there is none."""
        return self.file.backup if self.new.backup is not None and self.new != self.old else None


def make_plan(
    client: DesktopClient, name: str, entry: Mapping[str, Any] | None, file: Path | None, *, only_print: bool
) -> InstallPlan:
    """Plan to add an entry, or to remove it if `entry` is None. Raises SettingsError, NotJson.

    A plan that is only printed does not need the client on this computer.
    """
    config = ConfigFile((file or find_config_path(client, os.environ)).resolve())
    old, path = config.read(), (*client.find_servers_path(config.path), name)
    existing = get_member(old.text or "", path)
    if existing is not None and not starts_us(existing):
        raise SettingsError(
            f"{name!r} in {config.path} starts another server, so nothing was changed. "
            "Choose another name with --name, or remove that entry yourself."
        )
    new = remove_entry(old, path) if entry is None else add_entry(old, path, entry)
    if client.strict and (entry is not None or new != old):
        new = remove_byte_order_mark(new)
    program = find_program(client.key, os.environ) if file is None else None
    commands = _list_commands(client.key, program, name, entry, existing) if program is not None else None
    if commands is not None:
        # The client's program makes no backup of an entry that it replaces.
        replaces = bool(commands) and entry is not None and existing is not None
        return InstallPlan(client, config, path, old, replace(old, backup=old.text) if replaces else old, commands)
    if new != old and file is None and not only_print and not config.path.parent.is_dir():
        raise SettingsError(
            f"{client.title} was not found: the folder {config.path.parent} does not exist. Start {client.title} once, "
            "name its configuration file with --file, or use --print to see what to put there."
        )
    return InstallPlan(client, config, path, old, new)


def carry_out(plan: InstallPlan, name: str) -> None:
    """Write the file, or back it up and run the client's commands. Raises SettingsError, InstallFailed."""
    if plan.new != plan.old:
        plan.file.write(plan.old, plan.new)
    try:
        for command in plan.commands:
            run_command(command)
    except CommandFailed as error:
        lines = [str(error)]
        if len(plan.commands) > 1 and _restore_entry(plan):
            lines.append(f"The entry {name!r} in {plan.file.path} was restored.")
        lines.append(f"Use --file {plan.file.path} to edit the configuration file instead.")
        raise InstallFailed("\n".join(lines)) from None


def list_warnings(plan: InstallPlan, *, only_print: bool) -> list[str]:
    """Return warnings about the file: a byte order mark that is removed, and text that the client cannot read."""
    had_mark = (plan.old.text or "").startswith(BYTE_ORDER_MARK)
    warnings = []
    if had_mark and plan.new != plan.old and not (plan.new.text or "").startswith(BYTE_ORDER_MARK):
        verb = "would be" if only_print else "was"
        warnings.append(
            f"The byte order mark at the start of {plan.file.path} {verb} removed: {plan.client.title} cannot read it."
        )
    problem = explain_unreadable(plan.client, plan.new.text or "")
    if problem:
        warnings.append(f"Correct {plan.file.path}: {problem}.")
    return warnings


def _list_commands(
    client: str, program: str, name: str, entry: Mapping[str, Any] | None, existing: Any
) -> tuple[tuple[str, ...], ...] | None:
    """Return the commands to run, or None if the client has no command for the change."""
    own = COMMANDS[client]
    if entry is None:
        if own.remove is None:
            return None
        return ((program, *own.remove(name)),) if existing is not None else ()
    if _is_same(existing, entry):
        return ()
    # The client's command refuses to replace an entry, so the old entry is removed first.
    removal = ((program, *own.remove(name)),) if existing is not None and own.remove is not None else ()
    return (*removal, (program, *own.add(name, entry)))


def _is_same(existing: Any, entry: Mapping[str, Any]) -> bool:
    """Return whether two entries start the same command. Clients write empty members that we omit."""
    return isinstance(existing, dict) and all(
        (existing.get(key) or None) == (entry.get(key) or None) for key in ("command", "args", "env")
    )


def _restore_entry(plan: InstallPlan) -> bool:
    """Restore an entry that the client's program removed before it failed; return whether that was needed."""
    entry = get_member(plan.old.text or "", plan.path)
    current = plan.file.read()
    if entry is None or get_member(current.text or "", plan.path) is not None:
        return False
    plan.file.write(current, replace(current, text=set_member(current.text or "", plan.path, entry)))
    return True
