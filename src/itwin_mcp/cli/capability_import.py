"""`itwin-mcp capability import-openapi`: write a capability file from an OpenAPI definition."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from itwin_mcp.cli.options import LocalPath
from itwin_mcp.cli.output import json_option, print_json
from itwin_mcp.errors import CapabilityError, SettingsError

if TYPE_CHECKING:
    from itwin_mcp.capability.openapi_import.definition import Definition
    from itwin_mcp.capability.openapi_import.importer import ImportedFile, UsedNames


@click.command("import-openapi")
@click.argument("definition", metavar="DOC", type=LocalPath(exists=True, dir_okay=False))
@click.option("--operation", "operations", multiple=True, metavar="ID", help="Import it: its id, or 'GET /path'.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Import the operations with this tag.")
@click.option("--path", "paths", multiple=True, metavar="PATH", help="Import what is at or below it; * is a pattern.")
@click.option("--all", "everything", is_flag=True, help="Import all operations that are not deprecated.")
@click.option("--namespace", metavar="NAME", help="Name of the new toolset. Default: from the title.")
@click.option("--base-uri", metavar="URL", help="Where the API is. Default: the first server of DOC.")
@click.option("-o", "--output", type=LocalPath(dir_okay=False), help="Write to this file instead of standard output.")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@json_option("Print the operations, or what was written and the report, as JSON.")
def import_openapi(
    definition: Path,
    operations: tuple[str, ...],
    tags: tuple[str, ...],
    paths: tuple[str, ...],
    everything: bool,
    namespace: str | None,
    base_uri: str | None,
    output: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write a capability file for chosen operations of the OpenAPI 3.0 or 3.1 definition DOC.

    Without a choice it lists the operations. Recognizes paging, jobs and kinds of things, and marks these guesses with
    `# review:` comments. Reports everything that the file cannot say. DOC is JSON or YAML.

    \b
    Examples:
      itwin-mcp capability import-openapi api.json
      itwin-mcp capability import-openapi api.json --tag Pets -o pets.yaml
      itwin-mcp capability import-openapi api.json --operation listPets --path /owners -o pets.yaml
    """
    from itwin_mcp.capability.openapi_import.definition import read_definition
    from itwin_mcp.capability.openapi_import.importer import Choice, import_operations

    read = read_definition(definition)
    choice = Choice(operations, tags, paths, everything)
    if choice == Choice():
        _print_operations(read, as_json)
        return
    if as_json and output is None:
        raise SettingsError("--json needs --output: standard output cannot be the file and the report.")
    if output is not None and output.exists() and not force:
        raise SettingsError(f"{output} exists: choose another file, or replace it with --force.")
    imported = import_operations(read, choice, list_used_names(), namespace=namespace, base_uri=base_uri)
    if output is None:
        click.echo(imported.text, nl=False)
    else:
        _write(output, imported.text)
    _print_report(imported, output, as_json)


def _print_operations(definition: Definition, as_json: bool) -> None:
    if as_json:
        rows = [
            {
                "id": operation.id or None,
                "method": operation.method.upper(),
                "path": operation.path,
                "tags": list(operation.tags),
                "summary": operation.summary,
                "deprecated": operation.deprecated,
            }
            for operation in definition.operations
        ]
        print_json({"title": definition.title, "operations": rows})
        return
    width = max((len(operation.id) for operation in definition.operations), default=0)
    for operation in definition.operations:
        tags = f"  [{', '.join(operation.tags)}]" if operation.tags else ""
        deprecated = "  (deprecated)" if operation.deprecated else ""
        click.echo(f"{operation.id or '-':{width}}  {operation.label}{tags}{deprecated}")
    count = len(definition.operations)
    click.echo(f"{count} operations. Choose some with --operation, --tag or --path, or all with --all.", err=True)


def list_used_names() -> UsedNames:
    """Return the names that our own files use: the new file must be served together with them."""
    from itwin_mcp.capability.documents import find_shipped_files
    from itwin_mcp.capability.linker import link_files
    from itwin_mcp.capability.openapi_import.importer import UsedNames

    catalog = link_files(find_shipped_files())
    namespaces = {operation.namespace for operation in catalog.operations.values()} | set(catalog.toolsets)
    return UsedNames(catalog.tools.keys(), namespaces, catalog.entities.keys())


def _write(file: Path, text: str) -> None:
    """Write the file, and check that it can be served. Raises SettingsError."""
    from itwin_mcp.capability.documents import find_shipped_files
    from itwin_mcp.capability.linker import link_files

    try:
        file.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise SettingsError(f"{file} cannot be written: {error.strerror}.") from None
    try:
        link_files((*find_shipped_files(), file))
    except CapabilityError as error:
        for problem in error.problems:
            click.echo(str(problem), err=True)
        click.echo(f"{file} was written, but has {len(error.problems)} problems: correct them in the file.", err=True)
        sys.exit(1)


def _print_report(imported: ImportedFile, output: Path | None, as_json: bool) -> None:
    if as_json:
        report = [{"subject": subject, "message": message} for subject, message in imported.report]
        print_json({"file": str(output), "tools": imported.tools, "report": report})
        return
    to_error = output is None  # standard output is the file
    for subject, message in imported.report:
        click.echo(f"{subject}: {message}", err=to_error)
    written = "" if output is None else f"Wrote {output}. "
    reviews = imported.text.count("# review:")
    click.echo(f"{written}Tools: {', '.join(imported.tools)}. Guesses to review: {reviews}.", err=to_error)
