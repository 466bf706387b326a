"""`itwin-mcp bundle`: pack the desktop extension."""

from __future__ import annotations

import json
from pathlib import Path

import click

from itwin_mcp.cli.options import LocalPath
from itwin_mcp.errors import SettingsError


@click.command("bundle")
@click.argument("tree", metavar="[FOLDER]", default=".", type=LocalPath())
@click.option("--output", type=LocalPath(), metavar="FILE", help="Where to write it; itwin-mcp-VERSION.mcpb.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as one JSON object.")
def command(tree: Path, output: Path | None, as_json: bool) -> None:
    """Pack the sources in FOLDER, or here, as a desktop extension (.mcpb) that Claude Desktop opens with a click.

    The same sources give the same bytes on every machine. It needs a source tree: an installed package lacks the
    manifest and the lock file. Who has the package installed has `itwin-mcp serve`, and needs no extension.

    \b
    Examples:
      itwin-mcp bundle
      itwin-mcp bundle ./itwin-mcp --output itwin.mcpb --json
    """
    from itwin_mcp.bundle import pack

    bundle = pack(tree)
    file = output or Path(f"itwin-mcp-{bundle.version}.mcpb")
    try:
        file.write_bytes(bundle.content)
    except OSError as error:
        raise SettingsError(f"--output {file} cannot be written: {error.strerror}.") from None
    if as_json:
        told = {"file": str(file), "version": bundle.version, "files": list(bundle.files)}
        click.echo(json.dumps(told | {"bytes": len(bundle.content), "sha256": bundle.sha256}, indent=2))
        return
    click.echo(f"{file}: {len(bundle.files)} files, {len(bundle.content):,} bytes")
    click.echo(f"SHA-256 {bundle.sha256}")
