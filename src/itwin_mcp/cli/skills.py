"""`itwin-mcp skills`: list the agent skills, or write them as folders."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from itwin_mcp.cli.options import LocalPath, setting_option
from itwin_mcp.cli.output import json_option, print_files, print_json

if TYPE_CHECKING:
    from itwin_mcp.capability.catalog import Skill


@click.group("skills")
def command() -> None:
    """List or export agent skills: guides to common tasks, the order of their steps, and what to do if one fails.

    \b
    Examples:
      itwin-mcp skills list
      itwin-mcp skills export ~/.claude/skills
      itwin-mcp skills export ./skills --capabilities fleet.yaml     with the skills of your own file
    """


@command.command("list")
@setting_option("capabilities")
@json_option("Print the skills as JSON.")
def list_skills(as_json: bool, **flags: Any) -> None:
    """List the skills and what each is for.

    \b
    Examples:
      itwin-mcp skills list
      itwin-mcp skills list --json
    """
    skills = _read_skills(flags)
    if as_json:
        rows = [
            {
                "name": skill.name,
                "description": skill.front["description"],
                "files": [file.uri for file in skill.files],
            }
            for skill in skills
        ]
        print_json({"skills": rows})
        return
    for skill in skills:
        click.secho(skill.name, bold=True)
        click.echo(click.wrap_text(skill.front["description"], 100, "  ", "  "))


@command.command("export")
@click.argument("folder", type=LocalPath(file_okay=False))
@setting_option("capabilities")
@json_option("Print the files as JSON.")
def export(folder: Path, as_json: bool, **flags: Any) -> None:
    """Write each skill as a folder into FOLDER. Folders of an earlier export are replaced; others are not changed.

    \b
    Examples:
      itwin-mcp skills export ~/.claude/skills      Claude Code, for all your projects
      itwin-mcp skills export .agents/skills        agents that read this project
    """
    from itwin_mcp.skills.exporter import export_skills

    print_files(export_skills(_read_skills(flags), folder), as_json)


def _read_skills(flags: Mapping[str, Any]) -> Sequence[Skill]:
    from itwin_mcp.runtime import read_catalog
    from itwin_mcp.settings import read_settings

    return read_catalog(read_settings(os.environ, **flags)).skills()
