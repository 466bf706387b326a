"""`itwin-mcp capability`: check capability files, explain our `x-` words, and export files without them."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click

from itwin_mcp.cli.capability_import import import_openapi
from itwin_mcp.cli.capability_new import new
from itwin_mcp.cli.options import LocalPath
from itwin_mcp.cli.output import json_option, print_files, print_json, print_problems


@click.group("capability")
def command() -> None:
    """Write, import and check your own capability files, explain our extensions, or export our files.

    \b
    Examples:
      itwin-mcp capability new my-api
      itwin-mcp capability import-openapi api.json
      itwin-mcp capability check my-api.yaml
      itwin-mcp capability words
      itwin-mcp capability export ./plain
    """


command.add_command(new)
command.add_command(import_openapi)


@command.command("check")
@click.argument("files", nargs=-1, required=True, type=LocalPath())
@json_option("Print the problems as JSON.")
def check(files: tuple[Path, ...], as_json: bool) -> None:
    """List every problem in FILES at once, with its line and rule, and warnings. Exits with 2 if there is a problem.

    Problems are what `serve --capabilities` would report, and texts with scripts or tokens. Warnings are the lint rules
    of the format, and rules in `x-schema` that clients do not see and that no description mentions. Without problems,
    it also shows which host receives which key.

    \b
    Examples:
      itwin-mcp capability check my-api.yaml
      itwin-mcp capability check --json *.yaml
    """
    from itwin_mcp.capability.checker import check_capabilities

    result = check_capabilities(files)
    if as_json:
        print_json(asdict(result))
    else:
        for warning in result.warnings:
            click.echo(f"warning: {warning}")
        if result.problems:
            print_problems(result.problems, as_json=False)
        else:
            for sent in result.credentials:
                click.echo(f"{sent.host} receives {', '.join(sent.keys)}.")
            click.echo(f"No problems. Tools: {', '.join(result.tools) or 'none'}.")
    if result.problems:
        sys.exit(2)


@command.command("words")
def words() -> None:
    """Explain every `x-` word that we add to the format, with its place and an example.

    \b
    Examples:
      itwin-mcp capability words
    """
    from itwin_mcp.capability.documents import find_shipped_files

    click.echo((find_shipped_files()[0].parent / "README.md").read_text(encoding="utf-8"))


@command.command("export")
@click.argument("folder", type=LocalPath(file_okay=False))
@json_option("Print the files as JSON.")
def export(folder: Path, as_json: bool) -> None:
    """Write our capability files into FOLDER without our `x-` words, as plain Naftiko for any engine.

    Reports what plain Naftiko cannot say, such as parameters with names like `$top`, on standard error.

    \b
    Examples:
      itwin-mcp capability export ./plain
    """
    from itwin_mcp.capability.documents import find_shipped_files
    from itwin_mcp.capability.export import export_files

    exported = export_files(find_shipped_files(), folder)
    if as_json:
        losses = [{"subject": subject, "message": message} for subject, message in exported.losses]
        print_json({"files": [str(file) for file in exported.files], "losses": losses, "words": exported.words})
        return
    print_files(exported.files, as_json=False)
    for subject, message in exported.losses:
        click.echo(f"{subject}: {message}", err=True)
    click.echo(f"Left out: {', '.join(f'{word} ({count})' for word, count in exported.words.items())}.", err=True)
