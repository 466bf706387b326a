"""`itwin-mcp call`: call one tool from the command line, as an agent does."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from itwin_mcp.cli.approve import read_answer, show_question
from itwin_mcp.cli.options import find_tool, make_settings, select_all_tools, settings_options
from itwin_mcp.cli.output import print_json
from itwin_mcp.errors import CallError, ErrorCode, SettingsError
from itwin_mcp.executor.context import Confirmation, NoReply, NullConversation, Reply
from itwin_mcp.executor.outcome import Failure, Preview, Question
from itwin_mcp.settings import Settings


@click.command("call")
@click.argument("tool")
@click.option("--arg", "pairs", multiple=True, metavar="NAME=VALUE", help="One argument; repeat for more.")
@click.option(
    "--json",
    "text",
    metavar="JSON",
    help="All arguments as one JSON object; @FILE reads a file, - standard input.",
)
@click.option("--dry-run", is_flag=True, help="Print the first request, without credentials; send nothing.")
@click.option("--yes", is_flag=True, help="Confirm a destructive call without a question.")
@settings_options
def command(tool: str, pairs: Sequence[str], text: str | None, dry_run: bool, yes: bool, **flags: Any) -> None:
    """Call a tool and print its answer as JSON.

    Exits with 0 on success, with 1 if the answer is an error or a preview, and with 2 if the command, a setting or a
    file is wrong. With --sandbox, the sandbox's state is stored in the state folder for the next call.

    \b
    Examples:
      itwin-mcp call list-itwins --sandbox --arg search=bridge --arg subClass=Asset,Project
      itwin-mcp call create-imodel --json '{"iTwinId": "…", "name": "Pier 7"}'
      itwin-mcp call create-itwin --json @itwin.json
      itwin-mcp call get-imodel --arg iModelId=… --dry-run
      itwin-mcp call delete-imodel --arg iModelId=… --yes
    """
    import anyio

    settings = select_all_tools(make_settings(**flags))
    if settings.sandbox and settings.sandbox_db is None and not dry_run:
        settings = _store_sandbox(settings)
    answer, failed = anyio.run(_call, settings, tool, pairs, text, dry_run, yes)
    print_json(answer)
    if failed and answer.get("error", {}).get("code") == ErrorCode.INVALID_ARGUMENTS:
        click.echo(f"`itwin-mcp tools describe {tool}` shows the arguments.", err=True)
    sys.exit(1 if failed else 0)


def _store_sandbox(settings: Settings) -> Settings:
    """Return settings that store the sandbox's state in the user's state folder, and print where."""
    from itwin_mcp.sandbox.store import set_database_aside

    file = settings.kept_sandbox
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        aside = set_database_aside(file)
    except OSError as error:
        reason = error.strerror or error
        raise SettingsError(
            f"The sandbox's state cannot be stored in {file}: {reason}. Name a file with --sandbox-db."
        ) from None
    if aside is not None:
        click.echo(f"The sandbox of another version was moved to {aside}; this one starts fresh.", err=True)
    click.echo(f"The sandbox's state is in {file}; `itwin-mcp sandbox reset` starts over.", err=True)
    return replace(settings, sandbox_db=file)


async def _call(
    settings: Settings, name: str, pairs: Sequence[str], text: str | None, dry_run: bool, yes: bool
) -> tuple[Mapping[str, Any], bool]:
    """Return the answer, or the first request of a dry run, and whether it is an error or a preview."""
    from itwin_mcp.runtime import open_runtime

    async with open_runtime(settings, os.environ) as runtime:
        tool = find_tool(runtime.catalog, name)
        arguments = read_arguments(tool, pairs, text)
        if dry_run:
            if tool.is_built_in:
                raise SettingsError(f"{name} is a built-in tool: there is no request to show.")
            try:
                request = _to_json(runtime.executor.first_request(tool, arguments))
                return ({"environment": settings.environment} if settings.sandbox else {}) | request, False
            except CallError as error:
                return {"error": error.to_json(name)}, True
        terminal = _TerminalConversation(yes)
        outcome = await runtime.executor.call(tool, arguments, terminal)
        terminal.clear()
        assert not isinstance(outcome, Question)  # the conversation has already asked it on the terminal
        return outcome.answer, isinstance(outcome, Failure | Preview)


class _TerminalConversation(NullConversation):
    """Asks on the terminal, and shows progress there in one line that is overwritten."""

    def __init__(self, yes: bool) -> None:
        """With `yes`, every question is confirmed without asking."""
        self._is_terminal = sys.stderr.isatty()
        self._yes = yes

    async def ask(self, question: Question) -> Reply | NoReply:
        if self._yes:
            return Reply("accept", Confirmation("yes-flag"), question.name)
        if not show_question(question.message):
            return NoReply()
        typed = await _wait_for_answer()
        return Reply("accept" if typed else "cancel", Confirmation("person", "terminal"), typed)

    async def progress(self, done: float, total: float | None, text: str) -> None:
        if self._is_terminal:
            click.echo(f"\r\x1b[K… {text}", nl=False, err=True)

    def clear(self) -> None:
        if self._is_terminal:
            click.echo("\r\x1b[K", nl=False, err=True)


async def _wait_for_answer() -> str:
    """Return the line that the user types. Ctrl-C works, because nothing reads before a line is complete."""
    import anyio.to_thread

    if sys.platform == "win32":  # consoles of Windows cannot be waited for
        return await anyio.to_thread.run_sync(read_answer)
    await anyio.wait_readable(sys.stdin)
    return read_answer()


def read_arguments(tool: Any, pairs: Sequence[str], text: str | None) -> dict[str, Any]:
    """Return the arguments of a call from `--arg` pairs and the text of `--json`.

    The value of a list argument is JSON, or items separated by commas. Other values remain text: the call converts them
    to the types that the tool declares.
    """
    from itwin_mcp.capability.json_schema import get_type

    arguments: dict[str, Any] = {}
    if text is not None:
        try:
            arguments = json.loads(_read_json(text))
        except ValueError as error:
            raise SettingsError(f"--json is not JSON: {error}.") from None
        if not isinstance(arguments, dict):
            raise SettingsError("--json must be one JSON object: the arguments by name.")
    lists = {argument.name for argument in tool.arguments if get_type(argument.schema) == "array"}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise SettingsError(f"--arg {pair!r} is not NAME=VALUE.")
        is_plain_list = name in lists and value != "" and not value.startswith("[")
        arguments[name] = value.split(",") if is_plain_list else value
    return arguments


def _read_json(text: str) -> str:
    """Return the text of `--json` itself, of the file after `@`, or of standard input. Raises SettingsError."""
    if not text.startswith("@"):
        return sys.stdin.read() if text == "-" else text
    file = Path(text[1:]).expanduser()
    try:
        return file.read_text(encoding="utf-8-sig")  # some editors of Windows write a byte order mark
    except OSError as error:
        raise SettingsError(f"--json {text}: {file} cannot be read: {error.strerror or error}.") from None
    except ValueError:
        raise SettingsError(f"--json {text}: {file} is not text in UTF-8.") from None


def _to_json(request: Any) -> dict[str, Any]:
    from itwin_mcp.upstream.messages import JsonBody

    shown: dict[str, Any] = {"method": request.method, "url": request.origin + request.path}
    if request.query:
        shown["query"] = [{"name": name, "value": value} for name, value in request.query]
    shown["headers"] = {name: value for name, value in request.headers if name.lower() != "authorization"}
    if isinstance(request.body, JsonBody):
        shown["body"] = request.body.value
    elif request.body is not None:
        shown["body"] = repr(request.body)
    return shown
