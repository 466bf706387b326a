"""`itwin-mcp call`: one tool call from the command line, the same way as an agent's."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from itwin_mcp.cli.approve import put_question, read_answer
from itwin_mcp.cli.options import every_tool, find_tool, make_settings, settings_options
from itwin_mcp.errors import CallError, SettingsError
from itwin_mcp.executor.conversation import Answer, Confirmed, Later, Question
from itwin_mcp.settings import Settings


@click.command("call")
@click.argument("tool")
@click.option("--arg", "pairs", multiple=True, metavar="NAME=VALUE", help="One argument; may be given several times.")
@click.option(
    "--json", "text", metavar="JSON", help="All arguments as one JSON object; @FILE reads a file, - standard input."
)
@click.option("--dry-run", is_flag=True, help="Print the first request, without credentials; send nothing.")
@click.option("--yes", is_flag=True, help="Confirm what the call destroys, without being asked.")
@settings_options
def command(tool: str, pairs: Sequence[str], text: str | None, dry_run: bool, yes: bool, **flags: Any) -> None:
    """Call a tool and print its answer as JSON.

    Exits with 0 if it succeeded, with 1 if the answer is an error or a preview, with 2 if the command itself, a setting
    or a file is wrong. With --sandbox, what calls change is kept in the state folder for the next call.

    \b
    Examples:
      itwin-mcp call list-itwins --sandbox --arg search=bridge --arg subClass=Asset,Project
      itwin-mcp call create-imodel --json '{"iTwinId": "…", "name": "Pier 7"}'
      itwin-mcp call create-itwin --json @itwin.json
      itwin-mcp call get-imodel --arg iModelId=… --dry-run
      itwin-mcp call delete-imodel --arg iModelId=… --yes
    """
    import anyio

    settings = every_tool(make_settings(**flags))
    if settings.sandbox and settings.sandbox_db is None and not dry_run:
        settings = _with_kept_sandbox(settings)
    answer, failed = anyio.run(_call, settings, tool, partial(read_arguments, pairs=pairs, text=text), dry_run, yes)
    click.echo(json.dumps(answer, indent=2, ensure_ascii=False))
    if failed and answer.get("error", {}).get("code") == "InvalidArguments":
        click.echo(f"`itwin-mcp tools describe {tool}` shows the arguments.", err=True)
    sys.exit(1 if failed else 0)


def _with_kept_sandbox(settings: Settings) -> Settings:
    """The settings with the sandbox's state in the user's state folder, which a line on standard error names."""
    from itwin_mcp.sandbox.store import set_aside

    file = settings.kept_sandbox
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        aside = set_aside(file)
    except OSError as error:
        reason = error.strerror or error
        raise SettingsError(
            f"The sandbox's state cannot be kept in {file}: {reason}. Name a file with --sandbox-db."
        ) from None
    if aside is not None:
        click.echo(f"The sandbox of another version was set aside as {aside}; this one begins anew.", err=True)
    click.echo(f"The sandbox's state is in {file}; `itwin-mcp sandbox reset` starts over.", err=True)
    return replace(settings, sandbox_db=file)


async def _call(
    settings: Any, name: str, read: Callable[[Any], dict[str, Any]], dry_run: bool, yes: bool
) -> tuple[dict[str, Any], bool]:
    from itwin_mcp.executor.saving import SAVE_LIST
    from itwin_mcp.runtime import open_runtime
    from itwin_mcp.server.listing_choice import choose_listing
    from itwin_mcp.server.results import outcome, within_limit
    from itwin_mcp.server.session import READ_GUIDE, WHO_AM_I

    async with open_runtime(settings, os.environ) as runtime:
        tool = find_tool(runtime.catalog, name)
        arguments = read(tool)
        if name in (WHO_AM_I, READ_GUIDE):
            if dry_run:
                raise SettingsError(f"{name} is answered by itwin-mcp itself: there is no request to show.")
            answer = await outcome(name, lambda: runtime.session.answer(tool, arguments))
            return within_limit(name, *answer, runtime.executor.max_result_bytes)
        if name == SAVE_LIST:
            if dry_run:
                raise SettingsError(f"{name} sends what another tool sends: try --dry-run with that tool.")
            choose = partial(choose_listing, runtime.catalog, lambda _: True)
            saving = partial(runtime.executor.save_list, tool, arguments, choose, _Terminal(yes))
            return within_limit(name, *await outcome(name, saving), runtime.executor.max_result_bytes)
        if dry_run:
            try:
                shown = _shown(runtime.executor.preview(tool, arguments))
                return ({"environment": settings.environment} if settings.sandbox else {}) | shown, False
            except CallError as error:
                return {"error": error.to_json(name)}, True
        terminal = _Terminal(yes)
        answer = await outcome(name, lambda: runtime.executor.call(tool, arguments, terminal))
        terminal.clear()
        return within_limit(name, *answer, runtime.executor.max_result_bytes)


class _Terminal:
    """Progress for a person: one line on standard error, rewritten, and only on a terminal; and questions there."""

    def __init__(self, yes: bool) -> None:
        """`yes` answers every question as it asks to be."""
        self._live = sys.stderr.isatty()
        self._yes = yes

    async def ask(self, question: Question) -> Answer | Later:
        if self._yes:
            return Answer("accept", Confirmed("yes-flag"), question.name)
        if not put_question(question.message):
            return Later()
        typed = await _answer()
        return Answer("accept" if typed else "cancel", Confirmed("person", "terminal"), typed)

    async def progress(self, done: float, total: float | None, text: str) -> None:
        if self._live:
            click.echo(f"\r\x1b[K… {text}", nl=False, err=True)

    def clear(self) -> None:
        if self._live:
            click.echo("\r\x1b[K", nl=False, err=True)


async def _answer() -> str:
    """What the person types. Ctrl-C ends the waiting: nothing reads the terminal before there is a line."""
    import anyio.to_thread

    if sys.platform == "win32":  # whose consoles cannot be waited for
        return await anyio.to_thread.run_sync(read_answer)
    await anyio.wait_readable(sys.stdin)
    return read_answer()


def read_arguments(tool: Any, pairs: Sequence[str], text: str | None) -> dict[str, Any]:
    """Return the arguments of the call: each value of `--arg` is text, of a list separated by commas or JSON.

    The call converts text to the types that the tool declares.
    """
    from itwin_mcp.capability.published import kind_of

    arguments: dict[str, Any] = {}
    if text is not None:
        try:
            arguments = json.loads(_read_json(text))
        except ValueError as error:
            raise SettingsError(f"--json is not JSON: {error}.") from None
        if not isinstance(arguments, dict):
            raise SettingsError("--json must be one JSON object: the arguments by name.")
    lists = {argument.name for argument in tool.arguments if kind_of(argument.schema) == "array"}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise SettingsError(f"--arg {pair!r} is not NAME=VALUE.")
        is_plain_list = name in lists and value != "" and not value.startswith("[")
        arguments[name] = value.split(",") if is_plain_list else value
    return arguments


def _read_json(text: str) -> str:
    """Return the text that `--json` means: itself, a file's after `@`, or standard input. Raises SettingsError."""
    if not text.startswith("@"):
        return sys.stdin.read() if text == "-" else text
    file = Path(text[1:]).expanduser()
    try:
        return file.read_text(encoding="utf-8-sig")  # editors of Windows begin a file with a byte order mark
    except OSError as error:
        raise SettingsError(f"--json {text}: {file} cannot be read: {error.strerror or error}.") from None
    except ValueError:
        raise SettingsError(f"--json {text}: {file} is not text in UTF-8.") from None


def _shown(request: Any) -> dict[str, Any]:
    from itwin_mcp.upstream.wire import JsonBody

    shown: dict[str, Any] = {"method": request.method, "url": request.origin + request.path}
    if request.query:
        shown["query"] = [{"name": name, "value": value} for name, value in request.query]
    kept = [(name, value) for name, value in request.headers if name.lower() != "authorization"]
    shown["headers"] = dict(kept)
    if isinstance(request.body, JsonBody):
        shown["body"] = request.body.value
    elif request.body is not None:
        shown["body"] = repr(request.body)
    return shown
