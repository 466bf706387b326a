"""`itwin-mcp install`: add this server to an MCP client, or remove it."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from itwin_mcp.cli.clients.json_text import NotJson, nest
from itwin_mcp.cli.clients.known_clients import CLIENTS, DesktopClient, find_config_path
from itwin_mcp.cli.clients.plan import InstallFailed, InstallPlan, carry_out, list_warnings, make_plan
from itwin_mcp.cli.clients.start_command import find_start_command
from itwin_mcp.cli.options import LocalPath, settings_options
from itwin_mcp.cli.output import json_option, print_json
from itwin_mcp.errors import SettingsError
from itwin_mcp.setting_parsers import expand_home
from itwin_mcp.settings import ALL_SETTINGS, ENVIRONMENT, is_set, read_settings

INSTALLABLE = ("claude-desktop", "claude-code", "vscode", "cursor")
SECRETS = tuple(name for row in ALL_SETTINGS if row.is_secret for name in row.variables)
PATHS = tuple(name for row in ALL_SETTINGS if row.is_path for name in row.variables)
_NEVER_COPIED = ("ITWIN_MCP_BUNDLE", "ITP_SERVICE_CLIENT_ID")
"""Settings that are useless in a client's entry: that of the desktop extension, and an id without its secret."""
_NO_SIGN_IN = (
    "No sign-in is configured yet. Set ITWIN_CLIENT_ID to your application, run this command again, and then "
    "`itwin-mcp auth login`. Or try the server without an account with --sandbox."
)
_NO_SECRETS = "secrets do not belong in a client's configuration"
QUESTION = "Which iTwins did I work on recently, and which iModels are in the first one?"
"""A first question to ask the assistant."""
_RESTART = {
    "claude-desktop": "Quit Claude Desktop and start it again.",
    "claude-code": "Its next session uses the server; `/mcp` shows it.",
    "vscode": "`MCP: List Servers` in the command palette shows the server.",
    "cursor": "Restart Cursor.",
}


@click.command("install")
@click.argument("client", type=click.Choice(INSTALLABLE))
@click.option("--name", default="itwin", show_default=True, metavar="NAME", help="Name of this server in the client.")
@click.option("--uninstall", is_flag=True, help="Remove the server from the client.")
@click.option("--print", "only_print", is_flag=True, help="Print what would be written or run; change nothing.")
@click.option("--file", type=LocalPath(dir_okay=False), help="Edit this file instead of the client's.")
@json_option("Print the result as JSON.")
@settings_options
@click.pass_context
def command(
    context: click.Context, /, client: str, name: str, uninstall: bool, only_print: bool, file: Path | None,
    as_json: bool, **flags: Any,
) -> None:  # fmt: skip
    """Add this server to a client: by the client's own command if it has one, otherwise in its configuration file.

    The options of `serve` that you give here, and the settings in this shell's environment, are copied; secrets never
    are. Nothing else in the file changes. The previous file is backed up as `….before-itwin-mcp` if it is edited or an
    entry is replaced. An entry of the same name that starts another server is never changed.

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
    known_client = next(candidate for candidate in CLIENTS if candidate.key == client)
    notes: list[str] = []
    entry = {} if uninstall else _build_entry(known_client, context, flags, notes)
    try:
        plan = make_plan(known_client, name, None if uninstall else entry, file, only_print=only_print)
    except NotJson as error:
        path = file or find_config_path(known_client, os.environ)
        raise SettingsError(f"{path}: {error}. Nothing was changed. Correct the file, then try again.") from None
    notes += list_warnings(plan, only_print=only_print)
    if not only_print:
        try:
            carry_out(plan, name)
        except InstallFailed as error:
            click.echo(str(error), err=True)
            sys.exit(1)
        if plan.changes and not uninstall:
            notes.append(_RESTART[client])
    if as_json:
        print_json(_to_json(plan, name, entry or None) | {"printedOnly": only_print, "notes": notes})
        return
    click.echo(_describe(plan, name, entry, uninstall=uninstall, only_print=only_print))
    for note in notes:
        click.echo(note, err=True)
    if not (uninstall or only_print):
        needs_login = "ITWIN_CLIENT_ID" in entry.get("env", {}) and "--sandbox" not in entry["args"]
        click.echo(f"Next, run:  itwin-mcp {'auth login' if needs_login else 'doctor'}")
        click.echo(f"Then ask {known_client.title}:  {QUESTION}")


def _build_entry(
    client: DesktopClient, context: click.Context, flags: Mapping[str, Any], notes: list[str]
) -> dict[str, Any]:
    """Return the client's entry for this server, and add to `notes` what the user should know about it."""
    from itwin_mcp.runtime import read_catalog

    variables, credential_notes = _select_variables(os.environ)
    settings = read_settings(variables, **flags)
    catalog = read_catalog(settings)  # reports a wrong toolset or file now, and not only in the client's log
    credentials = [operation.credential for operation in catalog.operations.values()]
    bound = {name for credential in credentials if credential is not None for name in credential.variables.values()}
    bound -= ENVIRONMENT.keys()
    if bound:
        notes.append(
            f"{', '.join(sorted(bound))} (bound by your capability files) may be a secret and was not copied. Set it "
            f"in the environment that starts {client.title}, or in the `env` of this entry."
        )
    if not settings.sandbox:
        has_sign_in = settings.client_id is not None or settings.access_token_file is not None
        notes += credential_notes or ([] if has_sign_in else [_NO_SIGN_IN])
    start = find_start_command(os.environ)
    entry: dict[str, Any] = {"type": "stdio"} if client.typed else {}
    entry |= {"command": start.program, "args": [*start.args, "serve", *_repeat_options(context, flags)]}
    env = {**start.env, **variables}
    return entry | ({"env": env} if env else {})


def _select_variables(environment: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the settings of this shell to copy, and notes about the credentials that are not copied.

    A client id is not copied without its secret, because alone it would select another way to sign in.
    """
    present = {name: environment[name].strip() for name in ENVIRONMENT if environment.get(name, "").strip()}
    omitted = {*SECRETS, *_NEVER_COPIED}
    notes = []
    if "ITWIN_ACCESS_TOKEN" in present and "ITWIN_ACCESS_TOKEN_FILE" not in present:
        notes.append(
            f"ITWIN_ACCESS_TOKEN was not copied: {_NO_SECRETS}. Use `itwin-mcp auth login`, or set "
            "ITWIN_ACCESS_TOKEN_FILE to a file that contains the token, and run this command again."
        )
    if "ITWIN_CLIENT_SECRET" in present and "ITWIN_CLIENT_SECRET_FILE" not in present:
        omitted.add("ITWIN_CLIENT_ID")
        notes.append(
            f"ITWIN_CLIENT_SECRET and its ITWIN_CLIENT_ID were not copied: {_NO_SECRETS}. For this service "
            "application, put the secret into a file that only you can read, set ITWIN_CLIENT_SECRET_FILE to that file "
            "and run this command again. To sign in with your browser instead, unset ITWIN_CLIENT_SECRET, set "
            "ITWIN_CLIENT_ID to a native application and run this command again."
        )
    if "ITP_SERVICE_CLIENT_SECRET" in present and "ITWIN_CLIENT_ID" not in present:
        notes.append(
            f"ITP_SERVICE_CLIENT_ID and ITP_SERVICE_CLIENT_SECRET were not copied: {_NO_SECRETS}. Put the secret into "
            "a file that only you can read, set ITWIN_CLIENT_ID to the id and ITWIN_CLIENT_SECRET_FILE to that file, "
            "and run this command again."
        )
    copied = {name: value for name, value in present.items() if name not in omitted}
    # The client starts the server in another folder, so that relative paths would not be found.
    return {name: _make_absolute(value) if name in PATHS else value for name, value in copied.items()}, notes


def _make_absolute(value: str) -> str:
    parts = [part for part in value.split(os.pathsep) if part]
    return os.pathsep.join(part if part == "-" else str(expand_home(part).absolute()) for part in parts)


def _repeat_options(context: click.Context, flags: Mapping[str, Any]) -> list[str]:
    """Return the options that the user gave as options of `serve`, with absolute paths."""
    words: list[str] = []
    for parameter in context.command.params:
        option, value = parameter.opts[0], flags.get(parameter.name or "")
        if value is True:
            words.append(option)
        elif is_set(value):
            for item in value if isinstance(value, tuple) else (value,):
                words += [option, str(item.absolute() if isinstance(item, Path) else item)]
    return words


def _to_json(plan: InstallPlan, name: str, entry: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "client": plan.client.key,
        "name": name,
        "changes": plan.changes,
        "file": str(plan.file.path),
        "backup": str(plan.backup) if plan.backup is not None else None,
        "commands": [list(command) for command in plan.commands],
        "entry": entry,
    }


def _describe(plan: InstallPlan, name: str, entry: Mapping[str, Any], *, uninstall: bool, only_print: bool) -> str:
    if not plan.changes:
        return f"{plan.client.title} {'does not have' if uninstall else 'already has'} {name!r}: nothing to do."
    if only_print and plan.commands:
        quote = subprocess.list2cmdline if os.name == "nt" else shlex.join
        return "\n".join(quote(words) for words in plan.commands)
    if only_print and uninstall:
        return f"{'.'.join(plan.path)} would be removed from {plan.file.path}"
    if only_print:
        return f"Add to {plan.file.path}:\n{json.dumps(nest(plan.path, entry), indent=2, ensure_ascii=False)}"
    backup = f"; the previous file is {plan.backup}" if plan.backup is not None else ""
    if plan.commands:
        verb = "removed" if uninstall else "added"
        return f"{plan.client.title}: `{Path(plan.commands[0][0]).stem}` {verb} {name!r}{backup}."
    change = "removed from" if uninstall else "added to"
    return f"{plan.client.title}: {name!r} was {change} {plan.file.path}{backup}."
