"""Options that several verbs share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from itwin_mcp.settings import Settings, read_settings

Command = Callable[..., Any]

_SELECTION = (
    click.option("--toolsets", metavar="NAMES", help="Toolsets to serve, separated by commas, or all."),
    click.option("--tools", metavar="NAMES", help="Tools to serve in addition, separated by commas."),
    click.option("--exclude-tools", metavar="NAMES", help="Tools not to serve, separated by commas."),
    click.option("--read-only", is_flag=True, help="Serve only tools that change nothing."),
    click.option(
        "--capabilities",
        type=click.Path(path_type=Path),
        multiple=True,
        metavar="FILE",
        help="A capability file of your own; may be given several times.",
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
_LOGS = (
    click.option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        help="How much is logged to standard error; warning.",
    ),
)


def settings_options(command: Command) -> Command:
    """Add every option that makes a Settings."""
    for option in reversed((*_SELECTION, *_SANDBOX, *_LOGS)):
        command = option(command)
    return command


def make_settings(**flags: Any) -> Settings:
    """Settings from the process environment and a verb's flags; logging is set up by them. Raises SettingsError."""
    from itwin_mcp.logs import set_up_logs

    settings = read_settings(os.environ, **flags)
    set_up_logs(settings.log_level, settings.secrets)
    return settings
