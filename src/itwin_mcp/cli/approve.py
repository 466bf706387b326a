"""`itwin-mcp approve`: confirm a call of an agent whose client cannot ask the user."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from itwin_mcp.cli.options import account_options, make_settings
from itwin_mcp.cli.output import json_option, print_json
from itwin_mcp.errors import SettingsError, StateUnusable

if TYPE_CHECKING:
    from itwin_mcp.executor.confirmation.approvals import Approvals, PendingApproval


@click.command("approve")
@click.argument("identifier", metavar="[ID]", required=False)
@json_option("Print JSON.")
@account_options
def command(identifier: str | None, as_json: bool, **flags: Any) -> None:
    """Approve a call that destroys or publishes something. Without ID, list the pending calls.

    Shows what would be lost and asks you to type the name. An approval is valid for one call with exactly the arguments
    shown, for 30 minutes (ITWIN_MCP_CONFIRM_MINUTES) after the agent asked. Only you can approve: there is no flag that
    answers for you. Exits with 1 if nothing was approved.

    \b
    Examples:
      itwin-mcp approve
      itwin-mcp approve K7QX2M9P
    """
    from itwin_mcp.runtime import open_approvals

    settings = make_settings(**flags)
    try:
        _approve(open_approvals(settings), identifier, as_json)
    except StateUnusable:
        raise SettingsError(
            f"{settings.state_dir} cannot be used, so nothing was approved. The line above says why."
        ) from None


def _approve(approvals: Approvals, identifier: str | None, as_json: bool) -> None:
    from itwin_mcp.executor.confirmation.typed_name import normalize_name

    if identifier is None:
        _print_pending(approvals.pending(), as_json)
        return
    pending = approvals.find(identifier)
    if pending is None:
        _fail(f"No pending call has the id {identifier[:40]!r}. It was approved, has expired, or is wrong.", as_json)
    if not show_question(f"{pending.tool}\n\n{pending.message}"):
        raise SettingsError("There is no terminal to ask on. Only the user can approve, in their own terminal.")
    if normalize_name(read_answer()) != pending.name:
        _fail("The name does not match, so nothing was approved.", as_json)
    if approvals.approve(pending.id) is None:
        _fail("It has just expired or was approved elsewhere, so nothing was approved here.", as_json)
    if as_json:
        print_json({"approved": _to_json(pending)})
    else:
        click.echo(
            f"Approved: {pending.tool}. The agent can repeat its call within {_count_seconds_left(pending)} seconds."
        )


def show_question(message: str) -> bool:
    """Show a question and prompt for the name. Return False, and show nothing, if there is no terminal."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    click.echo(f"{message}\nName: ", nl=False, err=True)
    return True


def read_answer() -> str:
    """Return the line that the user types, without surrounding whitespace."""
    return sys.stdin.buffer.readline().decode(sys.stdin.encoding, "replace").strip()


def _print_pending(approvals: Sequence[PendingApproval], as_json: bool) -> None:
    if as_json:
        print_json({"pending": [_to_json(approval) for approval in approvals]})
        return
    if not approvals:
        click.echo("No call waits for approval.")
    for approval in approvals:
        seconds = _count_seconds_left(approval)
        click.echo(f"{approval.id}  {approval.tool}, {seconds} seconds left\n          {approval.question}")


def _to_json(approval: PendingApproval) -> dict[str, Any]:
    return {
        "id": approval.id,
        "tool": approval.tool,
        "question": approval.question,
        "name": approval.name,
        "about": dict(approval.about),
        "loses": dict(approval.loses),
        "secondsLeft": _count_seconds_left(approval),
    }


def _count_seconds_left(approval: PendingApproval) -> int:
    return max(0, round(approval.expires - time.time()))


def _fail(reason: str, as_json: bool) -> NoReturn:
    if as_json:
        print_json({"error": reason})
    else:
        click.echo(reason, err=True)
    sys.exit(1)
