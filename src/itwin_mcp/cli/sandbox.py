"""`itwin-mcp sandbox`: run the emulated platform as a separate server."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from itwin_mcp.cli.options import LocalPath
from itwin_mcp.cli.output import json_option, print_json
from itwin_mcp.errors import SettingsError

if TYPE_CHECKING:
    from itwin_mcp.sandbox import Sandbox

_DATABASE = click.option(
    "--sandbox-db", "database", type=LocalPath(), metavar="FILE", help="Store the state in this file."
)
_USAGE = """\
To use it in this shell, with a token that is valid for 12 hours:

  export ITWIN_API_URL={url} ITWIN_ISSUER_URL={url}
  export ITWIN_ACCESS_TOKEN={token}

Try it:

  curl -H "Authorization: Bearer $ITWIN_ACCESS_TOKEN" $ITWIN_API_URL/itwins/recents
  itwin-mcp call list-recent-itwins

Ctrl-C stops it."""


@click.group("sandbox", invoke_without_command=True)
@click.option("--port", type=click.IntRange(0, 65535), default=0, metavar="N", help="Port on 127.0.0.1; default any.")
@_DATABASE
@click.option(
    "--job-seconds", type=click.FloatRange(0, 3600), default=1.0, metavar="N", help="Seconds per job; default 1."
)
@click.option(
    "--rate-limit",
    type=click.IntRange(1),
    metavar="N",
    help="Requests per minute per application; default no limit (the platform allows 500 or 5000).",
)
@json_option("Print the address and the token as one JSON object.")
@click.pass_context
def command(
    context: click.Context,
    /,
    port: int,
    database: Path | None,
    job_seconds: float,
    rate_limit: int | None,
    as_json: bool,
) -> None:
    """Run the emulated iTwin Platform: its APIs, storage and sign-in server, on one port of this computer.

    Prints its address, a token and an example. Ctrl-C stops it; without --sandbox-db its state is then lost.

    \b
    Examples:
      itwin-mcp sandbox --port 8080
      itwin-mcp sandbox --port 8080 --sandbox-db ./platform.db --job-seconds 5
      itwin-mcp sandbox --rate-limit 500
      itwin-mcp sandbox token --user tomasz --sandbox-db ./platform.db
      itwin-mcp sandbox reset
      itwin-mcp sandbox coverage
    """
    if context.invoked_subcommand is not None:
        return
    import anyio

    from itwin_mcp.runtime import open_sandbox
    from itwin_mcp.sandbox.listener import serve

    logging.basicConfig(level=logging.WARNING)

    async def run(sandbox: Sandbox) -> None:
        def show_address(bound: int) -> None:
            _print_address(f"http://127.0.0.1:{bound}", sandbox.token(seconds=12 * 3600), as_json)

        await serve(sandbox, "127.0.0.1", port, started=show_address)

    try:
        with open_sandbox(database, job_seconds, rate_limit) as sandbox:
            anyio.run(run, sandbox)
    except KeyboardInterrupt:
        # Ctrl-C is the usual way to stop it. Every write that was answered is stored.
        raise SystemExit(0) from None
    except OSError as error:
        raise SettingsError(f"Cannot listen on port {port}: {error.strerror or error}.") from None


def _print_address(url: str, token: str, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"url": url, "token": token}))
        return
    click.secho(f"The sandbox runs at {url}", bold=True)
    click.echo(_USAGE.format(url=url, token=token))


@command.command("token")
@click.option("--user", metavar="NAME", help="A user's given name, e-mail address or id; default the owner.")
@click.option(
    "--seconds", type=click.IntRange(1), default=3600, metavar="N", help="Seconds until expiry; default 3600."
)
@_DATABASE
@json_option("Print a JSON object.")
def token(user: str | None, seconds: int, database: Path | None, as_json: bool) -> None:
    """Print a token for a user of a sandbox whose state is stored in a file.

    \b
    Examples:
      itwin-mcp sandbox token --sandbox-db ./platform.db
      itwin-mcp sandbox token --user priya --sandbox-db ./platform.db --json
    """
    from itwin_mcp.runtime import open_sandbox

    if database is None:
        raise SettingsError(
            "Name the sandbox's file with --sandbox-db: only a sandbox with that file accepts the token."
        )
    with open_sandbox(database) as sandbox:
        try:
            issued = sandbox.token(user, seconds=seconds)
        except LookupError as error:
            raise SettingsError(str(error.args[0])) from None
    click.echo(json.dumps({"token": issued, "seconds": seconds}) if as_json else issued)


@command.command("reset")
@_DATABASE
def reset(database: Path | None) -> None:
    """Delete the state that `call --sandbox` stores, so that the next call starts fresh.

    \b
    Examples:
      itwin-mcp sandbox reset
      itwin-mcp sandbox reset --sandbox-db ./platform.db
    """
    from itwin_mcp.sandbox.store import UnknownDatabase, delete_database
    from itwin_mcp.settings import read_settings

    file = database or read_settings(os.environ).kept_sandbox
    try:
        removed = delete_database(file)
    except UnknownDatabase:
        raise SettingsError(f"{file} is not a file of this version of the sandbox, so it was not deleted.") from None
    except OSError as error:
        raise SettingsError(f"{file} cannot be deleted: {error.strerror or error}.") from None
    click.echo(f"Deleted {file}." if removed else f"Nothing to delete: {file} does not exist.")


@command.command("coverage")
@json_option("Print JSON, with our assumptions about undocumented behavior.")
def coverage(as_json: bool) -> None:
    """Print every documented operation of the platform and whether the sandbox emulates it.

    \b
    Examples:
      itwin-mcp sandbox coverage
      itwin-mcp sandbox coverage --json
    """
    from itwin_mcp.sandbox.coverage import list_coverage
    from itwin_mcp.sandbox.readings import READINGS

    rows = list_coverage()
    if as_json:
        operations = [
            {
                "slug": row.operation.slug,
                "method": row.operation.method,
                "path": row.operation.path,
                "status": row.status,
                "missing": row.missing or None,
            }
            for row in rows
        ]
        readings = [
            {"operations": list(reading.slugs), "unknown": reading.unknown, "reading": reading.reading}
            for reading in READINGS
        ]
        print_json({"operations": operations, "readings": readings})
        return
    colors = {"emulated": "green", "partly": "yellow", "not": "red"}
    for row in rows:
        line = f"{row.operation.method:<6} {row.operation.path}"
        status = click.style(f"{row.status:<8}", fg=colors[row.status])
        click.echo(f"{status}  {line}" + (f"  ({row.missing})" if row.missing else ""))
    counts = {status: sum(row.status == status for row in rows) for status in colors}
    click.echo(f"\n{len(rows)} documented: {', '.join(f'{count} {status}' for status, count in counts.items())}.")
    click.echo("Undocumented behavior follows our assumptions: see --json.")
