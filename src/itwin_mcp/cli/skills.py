"""`itwin-mcp skills`: the guides for agents, listed and written as agent-skill folders."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from itwin_mcp.cli.options import LocalPath


@click.group("skills")
def command() -> None:
    """Give agents that read skills our guides: what to do, in which order, and what to do when it fails.

    \b
    Examples:
      itwin-mcp skills list
      itwin-mcp skills export ~/.claude/skills
    """


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the skills as JSON.")
def list_(as_json: bool) -> None:
    """List the skills and what each is for.

    \b
    Examples:
      itwin-mcp skills list
      itwin-mcp skills list --json
    """
    skills = _skills()
    if as_json:
        rows = [
            {"name": one.name, "description": one.front["description"], "files": [file.uri for file in one.files]}
            for one in skills
        ]
        click.echo(json.dumps({"skills": rows}, indent=2, ensure_ascii=False))
        return
    for one in skills:
        click.secho(one.name, bold=True)
        click.echo(click.wrap_text(one.front["description"], 100, "  ", "  "))


@command.command("export")
@click.argument("folder", type=LocalPath(file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print the files as JSON.")
def export(folder: Path, as_json: bool) -> None:
    """Write each skill as a folder into FOLDER; those of an earlier export are replaced, others are not touched.

    \b
    Examples:
      itwin-mcp skills export ~/.claude/skills      Claude Code, for all your projects
      itwin-mcp skills export .agents/skills        agents that read this project
    """
    from itwin_mcp.skills.export import export as write

    written = write(_skills(), folder)
    if as_json:
        click.echo(json.dumps({"files": [str(file) for file in written]}, indent=2, ensure_ascii=False))
    else:
        for file in written:
            click.echo(str(file))


def _skills() -> Any:
    from itwin_mcp.runtime import read_catalog
    from itwin_mcp.settings import read_settings

    return read_catalog(read_settings(os.environ)).skills()
