"""`itwin-mcp sandbox`: the emulated platform as a server of its own."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from itwin_mcp.cli.options import LocalPath
from itwin_mcp.errors import SettingsError

if TYPE_CHECKING:
    from itwin_mcp.sandbox import Sandbox

_DATABASE = click.option(
    "--sandbox-db", "database", type=LocalPath(), metavar="FILE", help="Keep the state in this file."
)


@click.group("sandbox", invoke_without_command=True)
@click.option("--port", type=click.IntRange(0, 65535), default=0, metavar="N", help="Port on 127.0.0.1; a free one.")
@_DATABASE
@click.option("--job-seconds", type=click.FloatRange(0, 3600), default=1.0, metavar="N", help="How long jobs take; 1.")
@click.option(
    "--rate-limit",
    type=click.IntRange(1),
    metavar="N",
    help="Requests per minute that an application may send, as on the platform, where it is 500 or 5000; no limit.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the address and the token as one JSON object.")
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
    """Run the emulated iTwin Platform: both APIs, their storage and their sign-in server, on one port of this machine.

    Prints its address, a ready token and an example to try. Ctrl-C ends it; without --sandbox-db its state is gone.

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
        def tell(bound: int) -> None:
            _introduce(f"http://127.0.0.1:{bound}", sandbox.token(seconds=12 * 3600), as_json)

        await serve(sandbox, "127.0.0.1", port, started=tell)

    try:
        with open_sandbox(database, job_seconds, rate_limit) as sandbox:
            anyio.run(run, sandbox)
    except KeyboardInterrupt:
        # Ctrl-C is how a person ends it; what was acknowledged is kept.
        raise SystemExit(0) from None
    except OSError as error:
        raise SettingsError(f"Port {port} cannot be listened on: {error.strerror or error}.") from None


def _introduce(url: str, token: str, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"url": url, "token": token}))
        return
    click.secho(f"The sandbox answers at {url}", bold=True)
    click.echo("With a token of its owner, good for 12 hours, in this shell:\n")
    click.echo(f"  export ITWIN_API_URL={url} ITWIN_ISSUER_URL={url}")
    click.echo(f"  export ITWIN_ACCESS_TOKEN={token}\n")
    click.echo("Try it:\n")
    click.echo('  curl -H "Authorization: Bearer $ITWIN_ACCESS_TOKEN" $ITWIN_API_URL/itwins/recents')
    click.echo("  itwin-mcp call list-recent-itwins\n")
    click.echo("Ctrl-C ends it.")


@command.command("token")
@click.option(
    "--user", metavar="NAME", help="Whose: a given name, an e-mail address or an id; the owner when left out."
)
@click.option("--seconds", type=click.IntRange(1), default=3600, metavar="N", help="How long it is good; 3600.")
@_DATABASE
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def token(user: str | None, seconds: int, database: Path | None, as_json: bool) -> None:
    """Print a token for a user of a sandbox whose state is kept in a file.

    \b
    Examples:
      itwin-mcp sandbox token --sandbox-db ./platform.db
      itwin-mcp sandbox token --user priya --sandbox-db ./platform.db --json
    """
    from itwin_mcp.runtime import open_sandbox

    if database is None:
        raise SettingsError("Name the sandbox's file with --sandbox-db: without it no running sandbox knows the token.")
    with open_sandbox(database) as sandbox:
        try:
            issued = sandbox.token(user, seconds=seconds)
        except LookupError as error:
            raise SettingsError(str(error.args[0])) from None
    click.echo(json.dumps({"token": issued, "seconds": seconds}) if as_json else issued)


@command.command("reset")
@_DATABASE
def reset(database: Path | None) -> None:
    """Delete the state that `call --sandbox` keeps, so that the next call starts over.

    \b
    Examples:
      itwin-mcp sandbox reset
      itwin-mcp sandbox reset --sandbox-db ./platform.db
    """
    from itwin_mcp.sandbox.store import UnknownDatabase, remove
    from itwin_mcp.settings import read_settings

    file = database or read_settings(os.environ).kept_sandbox
    try:
        removed = remove(file)
    except UnknownDatabase:
        raise SettingsError(f"{file} is not a file of this version of the sandbox: it was not deleted.") from None
    except OSError as error:
        raise SettingsError(f"{file} cannot be deleted: {error.strerror or error}.") from None
    click.echo(f"Deleted {file}." if removed else f"Nothing to delete: {file} does not exist.")


@command.command("coverage")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with our readings of what is documented nowhere.")
def coverage(as_json: bool) -> None:
    """Print every documented operation of the platform and whether the sandbox emulates it.

    \b
    Examples:
      itwin-mcp sandbox coverage
      itwin-mcp sandbox coverage --json
    """
    from itwin_mcp.sandbox.app import coverage as covered
    from itwin_mcp.sandbox.readings import READINGS

    rows = covered()
    if as_json:
        shown: dict[str, Any] = {
            "operations": [
                {
                    "slug": row.operation.slug,
                    "method": row.operation.method,
                    "path": row.operation.path,
                    "status": row.status,
                    "missing": row.missing or None,
                }
                for row in rows
            ],
            "readings": [
                {"operations": list(one.slugs), "unknown": one.unknown, "reading": one.reading} for one in READINGS
            ],
        }
        click.echo(json.dumps(shown, indent=2, ensure_ascii=False))
        return
    colours = {"emulated": "green", "partly": "yellow", "not": "red"}
    for row in rows:
        line = f"{row.operation.method:<6} {row.operation.path}"
        status = click.style(f"{row.status:<8}", fg=colours[row.status])
        click.echo(f"{status}  {line}" + (f"  ({row.missing})" if row.missing else ""))
    counts = {status: sum(row.status == status for row in rows) for status in colours}
    click.echo(f"\n{len(rows)} documented: {', '.join(f'{count} {status}' for status, count in counts.items())}.")
    click.echo("What is documented nowhere is emulated by our reading: see --json.")
