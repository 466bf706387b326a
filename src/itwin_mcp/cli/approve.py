"""`itwin-mcp approve`: the person's own word for a call of an agent whose client cannot ask them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from itwin_mcp.cli.options import account_options, make_settings
from itwin_mcp.errors import SettingsError, StateUnusable

if TYPE_CHECKING:
    from itwin_mcp.executor.approvals import Approvals, Pending


@click.command("approve")
@click.argument("identifier", metavar="[ID]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@account_options
def command(identifier: str | None, as_json: bool, **flags: Any) -> None:
    """Approve what an agent asks to destroy or publish; without ID, list what waits.

    Shows what would be lost and asks for the name. An approval is good for one call, with the very arguments that were
    shown, for 30 minutes (ITWIN_MCP_CONFIRM_MINUTES) after the agent asked. Only the person runs this command: no flag
    answers in their place. Exits with 1 if nothing was approved.

    \b
    Examples:
      itwin-mcp approve
      itwin-mcp approve K7QX2M9P
    """
    from itwin_mcp.runtime import approvals

    settings = make_settings(**flags)
    try:
        _approve(approvals(settings), identifier, as_json)
    except StateUnusable:
        raise SettingsError(
            f"{settings.state_dir} cannot be used: nothing was approved. The line above says why."
        ) from None


def _approve(kept: Approvals, identifier: str | None, as_json: bool) -> None:
    from itwin_mcp.executor.preview import as_typed

    if identifier is None:
        _list(kept.pending(), as_json)
        return
    found = kept.find(identifier)
    if found is None:
        _end(f"Nothing of the id {identifier[:40]!r} waits: it was approved, has expired, or never was.", as_json)
        return
    if not put_question(f"{found.tool}\n\n{found.message}"):
        raise SettingsError("There is no terminal to ask on. Only the person approves, in a terminal of theirs.")
    if as_typed(read_answer()) != found.name:
        _end("That is not the name: nothing was approved.", as_json)
        return
    if kept.approve(found.id) is None:
        _end("It has expired meanwhile, or was approved elsewhere: nothing was approved here.", as_json)
        return
    if as_json:
        click.echo(json.dumps({"approved": _told(found)}, indent=2, ensure_ascii=False))
    else:
        click.echo(f"Approved: {found.tool}. The agent can repeat its call within {_left(found)} seconds.")


def put_question(message: str) -> bool:
    """Show it, and ask for the name; False where there is no terminal, and nobody to ask."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    click.echo(f"{message}\nName: ", nl=False, err=True)
    return True


def read_answer() -> str:
    """The line that the person types; empty for nothing."""
    return sys.stdin.buffer.readline().decode(sys.stdin.encoding, "replace").strip()


def _list(waiting: Sequence[Pending], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"pending": [_told(one) for one in waiting]}, indent=2, ensure_ascii=False))
    elif not waiting:
        click.echo("Nothing waits for approval.")
    for one in () if as_json else waiting:
        click.echo(f"{one.id}  {one.tool}, {_left(one)} seconds left\n          {one.question}")


def _told(one: Pending) -> dict[str, Any]:
    shown = {"id": one.id, "tool": one.tool, "question": one.question, "name": one.name, "loses": dict(one.loses)}
    return shown | {"secondsLeft": _left(one)}


def _left(one: Pending) -> int:
    return max(0, round(one.expires - time.time()))


def _end(why: str, as_json: bool) -> None:
    click.echo(json.dumps({"error": why}, ensure_ascii=False) if as_json else why, err=not as_json)
    sys.exit(1)
