"""Options that several verbs share."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from itwin_mcp.settings import Settings, read_settings

Command = Callable[..., Any]

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
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="A policy file: which tools and iTwins may be touched, and how often.",
    ),
    click.option(
        "--capabilities",
        type=click.Path(path_type=Path),
        multiple=True,
        metavar="FILE",
        help="A capability file of your own; may be given several times.",
    ),
    click.option(
        "--files-root",
        type=click.Path(path_type=Path),
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
    click.option(
        "--sandbox-db", type=click.Path(path_type=Path), metavar="FILE", help="Keep the sandbox's state in this file."
    ),
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


def every_tool(settings: Settings) -> Settings:
    """The same with all tools, where none were chosen: who names a tool need not know its toolset."""
    return settings if settings.toolsets or settings.tools else replace(settings, toolsets=("all",))
