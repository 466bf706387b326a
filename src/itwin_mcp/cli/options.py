"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from itwin_mcp.errors import SettingsError
from itwin_mcp.setting_parsers import expand_home
from itwin_mcp.settings import SETTINGS, Settings, read_settings

if TYPE_CHECKING:
    from itwin_mcp.capability.catalog import Catalog, Tool

Command = Callable[..., Any]


class LocalPath(click.Path):
    """A path in an option or argument; `~` means the home folder."""

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(expand_home(value), param, ctx)


def setting_option(name: str) -> Callable[[Command], Command]:
    """Return the command-line option of a setting."""
    row = SETTINGS[name]
    assert row.flag is not None
    text = row.describe(for_variable=False)
    if row.is_switch:
        return click.option(row.flag, is_flag=True, help=text)
    kind = click.Choice(row.choices) if row.choices else LocalPath() if row.is_path else None
    return click.option(row.flag, type=kind, multiple=row.is_list, metavar=row.metavar, help=text)


def _combine_options(names: Iterable[str]) -> Callable[[Command], Command]:
    options = [setting_option(name) for name in names]

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


settings_options = _combine_options(
    name for name, row in SETTINGS.items() if row.flag and name not in ("stateless", "rest")
)
"""Adds the options for all settings, except `--stateless` and `--rest`, which only `serve` has."""
account_options = _combine_options(("profile", "log_level"))
"""Adds the options of commands about signing in."""


def make_settings(**flags: Any) -> Settings:
    """Read settings from the environment and a command's flags, and set up logging. Raises SettingsError."""
    from itwin_mcp.logs import set_up_logs

    settings = read_settings(os.environ, **flags)
    set_up_logs(settings.log_level, settings.secrets)
    return settings


def find_tool(catalog: Catalog, name: str) -> Tool:
    """Return the tool of this name. Raises SettingsError, with a suggestion or why the tool is not available."""
    from itwin_mcp.server.built_in_tools import SIGN_IN

    tool = catalog.tools.get(name)
    if tool is not None:
        return tool
    if name == SIGN_IN:
        raise SettingsError("The tool 'sign-in' is for assistants. Here, sign in with `itwin-mcp auth login`.")
    if name in catalog.elsewhere:
        raise SettingsError(f"The tool {name!r} cannot be used here: {catalog.elsewhere[name]}.")
    hint = catalog.suggest_tool(name) or "`itwin-mcp tools --toolsets all` lists them."
    raise SettingsError(f"There is no tool {name!r}. {hint}")


def select_all_tools(settings: Settings) -> Settings:
    """Return settings with all tools if none were chosen, so that a tool can be named without its toolset."""
    return settings if settings.toolsets or settings.tools else replace(settings, toolsets=("all",))
