"""Options that several verbs share."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from itwin_mcp.errors import SettingsError
from itwin_mcp.settings import Settings, read_settings
from itwin_mcp.upstream.naming import expand_home

if TYPE_CHECKING:
    from itwin_mcp.capability.catalog import Catalog, Tool

Command = Callable[..., Any]


class LocalPath(click.Path):
    """A path in an option or argument, with `~` as the user's home folder."""

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(expand_home(value), param, ctx)


_SELECTION = (
    click.option(
        "--toolsets",
        metavar="NAMES",
        help="Toolsets to serve, separated by commas; all; or dynamic: few tools that find and run all.",
    ),
    click.option("--tools", metavar="NAMES", help="Tools to serve in addition, separated by commas."),
    click.option("--exclude-tools", metavar="NAMES", help="Tools not to serve, separated by commas."),
    click.option("--read-only", is_flag=True, help="Serve only tools that change nothing."),
    click.option(
        "--policy",
        type=LocalPath(),
        metavar="FILE",
        help="A policy file: which tools and iTwins may be touched, and how often.",
    ),
    click.option(
        "--capabilities",
        type=LocalPath(),
        multiple=True,
        metavar="FILE",
        help="A capability file of your own; may be given several times.",
    ),
    click.option(
        "--files-root",
        type=LocalPath(),
        multiple=True,
        metavar="FOLDER",
        help="A folder in which tools may read and write local files; may be given several times.",
    ),
)
_ANSWERS = (
    click.option(
        "--confirm",
        type=click.Choice(["person", "two-step"]),
        help="Who confirms what destroys: the person, or the model by calling twice, which is no consent; person.",
    ),
    click.option(
        "--max-result-bytes", type=int, metavar="N", help="Bytes of one answer; 50000. The rest has a cursor."
    ),
)
_SANDBOX = (
    click.option("--sandbox", is_flag=True, help="Work with the embedded sandbox; no account is needed."),
    click.option("--sandbox-db", type=LocalPath(), metavar="FILE", help="Keep the sandbox's state in this file."),
    click.option(
        "--job-seconds", type=click.FloatRange(0, 3600), metavar="N", help="How long the sandbox's jobs take; 1."
    ),
)
_PROFILE = (click.option("--profile", metavar="NAME", help="The name under which the login is kept; default."),)
_LOGS = (
    click.option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        help="How much is logged to standard error; warning.",
    ),
)


def settings_options(command: Command) -> Command:
    """Add every option that makes a Settings."""
    for option in reversed((*_SELECTION, *_ANSWERS, *_SANDBOX, *_PROFILE, *_LOGS)):
        command = option(command)
    return command


def account_options(command: Command) -> Command:
    """Add the options of the verbs that are about signing in."""
    for option in reversed((*_PROFILE, *_LOGS)):
        command = option(command)
    return command


def make_settings(**flags: Any) -> Settings:
    """Settings from the process environment and a verb's flags; logging is set up by them. Raises SettingsError."""
    from itwin_mcp.logs import set_up_logs

    settings = read_settings(os.environ, **flags)
    set_up_logs(settings.log_level, settings.secrets)
    return settings


def find_tool(catalog: Catalog, name: str) -> Tool:
    """Return the tool of this name. Raises SettingsError, which says which tool was meant or why it is left out."""
    from itwin_mcp.server.session import SIGN_IN

    tool = catalog.tools.get(name)
    if tool is not None:
        return tool
    if name == SIGN_IN:
        raise SettingsError("The tool 'sign-in' is for assistants. Here, sign in with `itwin-mcp auth login`.")
    if name in catalog.elsewhere:
        raise SettingsError(f"The tool {name!r} cannot be used here: {catalog.elsewhere[name]}.")
    hint = catalog.suggest_tool(name) or "`itwin-mcp tools --toolsets all` lists them."
    raise SettingsError(f"There is no tool {name!r}. {hint}")


def every_tool(settings: Settings) -> Settings:
    """The same with all tools, where none were chosen: who names a tool need not know its toolset."""
    return settings if settings.toolsets or settings.tools else replace(settings, toolsets=("all",))
