"""The command line: one module per command, imported when it is called."""

from __future__ import annotations

import io
import os
import signal
import sys
from importlib import import_module

import click

from itwin_mcp import __version__
from itwin_mcp.errors import ConfigurationError, FileRefused
from itwin_mcp.text import find_similar

COMMANDS = {
    "serve": "Serve MCP clients.",
    "demo": "Watch an agent work in the embedded sandbox.",
    "tools": "List the tools, or show one with its arguments.",
    "call": "Call one tool and print its answer.",
    "approve": "Approve a destructive call of an agent.",
    "install": "Add this server to Claude, VS Code or Cursor, or remove it.",
    "auth": "Sign in, see who is signed in, sign out.",
    "doctor": "Check everything between this computer and the platform.",
    "sandbox": "Run the emulated platform as a separate server.",
    "skills": "List the guides for agents, or write them as agent skills.",
    "capability": "Write, import and check capability files, or export ours.",
    "policy": "Check a policy file, or test what it allows.",
    "bundle": "Pack the desktop extension, from a source tree.",
}
"""The help line of each command, so that `--help` imports no command. The module has the command's name."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"itwin_mcp.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            similar = find_similar(name, COMMANDS)
            hint = f"Did you mean {similar[0]!r}?" if similar else "To call a tool, use `itwin-mcp call NAME`."
            ctx.fail(f"No such command {name!r}. {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="itwin-mcp")
def group() -> None:
    """Let AI agents work with Bentley's iTwin Platform, over the Model Context Protocol.

    \b
    Examples:
      itwin-mcp demo                watch it work, without an account
      itwin-mcp serve --sandbox     serve the sandbox over stdio
      itwin-mcp serve               serve the platform, signed in with ITWIN_ACCESS_TOKEN
      itwin-mcp install cursor      add it to a client's configuration
      itwin-mcp tools               list the tools that agents get
      itwin-mcp call get-itwin --sandbox --arg iTwinId=…

    \b
    Exit codes:
      0  success         1  the call or check failed
      2  wrong usage, settings or capability files
    """


def main() -> None:
    """Run the command line. Mistakes in settings and files exit with code 2 and a message, not a traceback."""
    set_up_output()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell without job control ignores SIGINT in background jobs. Our SIGTERM handler raises it, so restore it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Handle SIGTERM like Ctrl-C: cancel what is in progress, note it in the audit log and clean up.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        group.main(prog_name="itwin-mcp")
    except ConfigurationError as error:
        click.echo(str(error) if isinstance(error, FileRefused) else f"itwin-mcp: {error}", err=True)
        sys.exit(2)
    except BaseExceptionGroup as errors:
        if errors.split(BrokenPipeError)[1] is not None:
            raise
        # The reader of our pipe closed it, as `| head` does. Python would report that the last flush failed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def set_up_output() -> None:
    """Write UTF-8 to files and pipes, and replace characters that a console cannot show.

    On Windows the default encoding of pipes lacks most characters. Printing an answer must not fail after a write has
    succeeded.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="replace")
