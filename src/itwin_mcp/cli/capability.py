"""`itwin-mcp capability`: check capability files, explain our words, and export the plain files."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from itwin_mcp.cli.options import LocalPath
from itwin_mcp.errors import CapabilityError, Problem


@click.group("capability")
def command() -> None:
    """Check capability files of your own, learn our words, or export our files for other engines of the format.

    \b
    Examples:
      itwin-mcp capability check my-api.yaml
      itwin-mcp capability words
      itwin-mcp capability export ./plain
    """


@command.command("check")
@click.argument("files", nargs=-1, required=True, type=LocalPath())
@click.option("--json", "as_json", is_flag=True, help="Print the problems as JSON.")
def check(files: tuple[Path, ...], as_json: bool) -> None:
    """Find every problem in FILES, as `serve --capabilities` would: file, line, rule. Exits with 2 if there is one.

    Warns of rules in `x-schema` that clients are not shown and that no description states; a warning is no problem.

    \b
    Examples:
      itwin-mcp capability check my-api.yaml
      itwin-mcp capability check --json *.yaml
    """
    from itwin_mcp.capability.catalog import shipped
    from itwin_mcp.capability.linker import link_files

    own = {file.resolve() for file in files}
    try:
        # Ours come along, so that a tool's name that is taken is found.
        catalog = link_files((*(file for file in shipped() if file.resolve() not in own), *files))
    except CapabilityError as error:
        tell_problems(error.problems, as_json)
        sys.exit(2)
    tools = [tool.name for tool in catalog.tools.values() if Path(tool.file).resolve() in own]
    warnings = [warning for warning in catalog.warnings if Path(warning.file).resolve() in own]
    if as_json:
        click.echo(json.dumps({"problems": [], "warnings": _rows(warnings), "tools": tools}, indent=2))
        return
    for warning in warnings:
        click.echo(f"warning: {warning}")
    click.echo(f"No problem. Tools: {', '.join(tools) or 'none'}.")


@command.command("words")
def words() -> None:
    """Explain every word that we add to the format, each with where it stands and an example.

    \b
    Examples:
      itwin-mcp capability words
    """
    from itwin_mcp.capability.catalog import shipped

    click.echo((shipped()[0].parent / "README.md").read_text(encoding="utf-8"))


@command.command("export")
@click.argument("folder", type=LocalPath(file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print the files as JSON.")
def export(folder: Path, as_json: bool) -> None:
    """Write our capability files into FOLDER without the words that we add: plain Naftiko, for any engine of it.

    \b
    Examples:
      itwin-mcp capability export ./plain
    """
    from itwin_mcp.capability.catalog import shipped
    from itwin_mcp.capability.export import export as write

    written = write(shipped(), folder)
    if as_json:
        click.echo(json.dumps({"files": [str(file) for file in written]}, indent=2))
    else:
        for file in written:
            click.echo(str(file))


def tell_problems(problems: Sequence[Problem], as_json: bool) -> None:
    """Print what is wrong with files: one problem a line, or all as JSON."""
    if as_json:
        click.echo(json.dumps({"problems": _rows(problems)}, indent=2, ensure_ascii=False))
        return
    for problem in problems:
        click.echo(str(problem))
    click.echo(f"{len(problems)} problem{'s' if len(problems) != 1 else ''}.", err=True)


def _rows(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    return [{"file": one.file, "line": one.line, "rule": one.rule, "message": one.message} for one in problems]
