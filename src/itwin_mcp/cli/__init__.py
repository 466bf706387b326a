"""The command line: one module per verb or verb group, imported when it is called."""

from __future__ import annotations

import io
import os
import signal
import sys
from importlib import import_module
from types import FrameType
from typing import NoReturn

import click

from itwin_mcp import __version__
from itwin_mcp.capability.suggestions import find_similar
from itwin_mcp.errors import ConfigurationError, FileRefused

VERBS = {
    "serve": ("serve", "Serve MCP clients."),
    "demo": ("demo", "Watch an agent's day against the embedded sandbox."),
    "tools": ("tools", "List the tools, or show one with its arguments."),
    "call": ("call", "Call one tool and print its answer."),
    "approve": ("approve", "Approve what an agent asks to destroy."),
    "install": ("install", "Put this server into Claude, VS Code or Cursor, or take it out."),
    "auth": ("auth", "Sign in, see who is signed in, sign out."),
    "doctor": ("doctor", "Check everything between here and the platform, and say what to do."),
    "sandbox": ("sandbox", "Run the emulated platform as a server of its own."),
    "skills": ("skills", "List the guides for agents, or write them as agent skills."),
    "capability": ("capability", "Check capability files, or export the plain ones."),
    "policy": ("policy", "Check a policy file, or ask it what a caller may do."),
    "bundle": ("bundle", "Pack the desktop extension, from a source tree."),
}
"""Verb -> module, and the line that `--help` shows, so that help imports nothing else."""


class Verbs(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = import_module(f"itwin_mcp.cli.{VERBS[cmd_name][0]}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in VERBS and not name.startswith("-"):
            close = find_similar(name, VERBS)
            hint = f"Did you mean {close[0]!r}?" if close else "A tool is called with `itwin-mcp call NAME`."
            ctx.fail(f"No such command {name!r}. {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="itwin-mcp")
def group() -> None:
    """AI agents work with Bentley's iTwin Platform, over the Model Context Protocol.

    \b
    Examples:
      itwin-mcp demo                watch it work, without an account
      itwin-mcp serve --sandbox     serve the sandbox over stdio
      itwin-mcp serve               serve the platform, signed in by ITWIN_ACCESS_TOKEN
      itwin-mcp install cursor      put it into a client's configuration
      itwin-mcp tools               what agents are given
      itwin-mcp call get-itwin --sandbox --arg iTwinId=…

    \b
    Exit codes:
      0  done            1  the call or check failed
      2  wrong usage, settings or capability files
    """


def main() -> None:
    """Run the command line; mistakes in settings and files end with exit code 2 and words, not a traceback."""
    set_up_output()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell without job control starts what it puts into the background so. SIGTERM would be ignored with it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        group.main(prog_name="itwin-mcp")
    except FileRefused as error:
        for problem in error.problems:
            click.echo(str(problem), err=True)
        sys.exit(2)
    except ConfigurationError as error:
        click.echo(f"itwin-mcp: {error}", err=True)
        sys.exit(2)
    except BaseExceptionGroup as group_of_errors:
        others = group_of_errors.split(BrokenPipeError)[1]
        if others is not None:
            raise
        _end_quietly()


def set_up_output() -> None:
    """Write UTF-8 to files and pipes, and replace what a console cannot show.

    Windows gives pipes an encoding that lacks most characters. Output must not fail after a write was made.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="replace")


def _end_quietly() -> NoReturn:
    """End after a pipe was closed, as `| head` does; Python would report that it cannot flush."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)


def _interrupt(_: int, __: FrameType | None) -> None:
    """End by SIGTERM as by Ctrl-C: what is under way is cancelled, noted in the audit log and cleaned up."""
    signal.raise_signal(signal.SIGINT)
