"""`itwin-mcp bundle`: pack a source tree as a desktop extension (MCPB), always with the same bytes."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click

from itwin_mcp.cli.options import LocalPath
from itwin_mcp.cli.output import json_option, print_json
from itwin_mcp.errors import SettingsError

FILES = ("LICENSE", "PRIVACY.md", "icon.png", "manifest.json", "pyproject.toml", "uv.lock")
FOLDERS = {"capabilities": (".md", ".yaml"), "src/itwin_mcp": (".png", ".py", ".sql", ".toml", ".xz")}
"""The folders of an extension, with the suffixes of the files that it needs; `.mcpbignore` has the same for `mcpb`."""
_FIXED_TIME = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip archive can store."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A packed extension."""

    version: str
    files: tuple[str, ...]
    content: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


@click.command("bundle")
@click.argument("tree", metavar="[FOLDER]", default=".", type=LocalPath())
@click.option("--output", type=LocalPath(), metavar="FILE", help="File to write; default itwin-mcp-VERSION.mcpb.")
@json_option("Print the result as one JSON object.")
def command(tree: Path, output: Path | None, as_json: bool) -> None:
    """Pack the sources in FOLDER (default: the current folder) as a desktop extension for Claude Desktop.

    The same sources give the same bytes on every machine. An installed package cannot be packed, because it lacks the
    manifest and the lock file.

    \b
    Examples:
      itwin-mcp bundle
      itwin-mcp bundle ./itwin-mcp --output itwin.mcpb --json
    """
    bundle = pack(tree)
    target = output or Path(f"itwin-mcp-{bundle.version}.mcpb")
    try:
        target.write_bytes(bundle.content)
    except OSError as error:
        raise SettingsError(f"--output {target} cannot be written: {error.strerror}.") from None
    if as_json:
        report = {"file": str(target), "version": bundle.version, "files": list(bundle.files)}
        print_json(report | {"bytes": len(bundle.content), "sha256": bundle.sha256})
        return
    click.echo(f"{target}: {len(bundle.files)} files, {len(bundle.content):,} bytes")
    click.echo(f"SHA-256 {bundle.sha256}")


def pack(tree: Path) -> Bundle:
    """Pack a source tree. Raises SettingsError if it is incomplete or not that of itwin-mcp."""
    version = _read_version(tree)
    names = tuple(sorted(_list_names(tree)))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            # The bytes must not depend on the clock, the umask, the system or the version of zlib: hence a fixed time
            # and mode, and no compression. The extension is small next to the packages that its first start downloads.
            entry = zipfile.ZipInfo(name, _FIXED_TIME)
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            archive.writestr(entry, _read(tree / name), zipfile.ZIP_STORED)
    return Bundle(version, names, buffer.getvalue())


def _read_version(tree: Path) -> str:
    try:
        manifest = json.loads(_read(tree / "manifest.json"))
        if manifest["name"] == "itwin-mcp":
            return str(manifest["version"])
    except (ValueError, KeyError, TypeError):
        pass
    raise SettingsError(f"{tree / 'manifest.json'} is not the manifest of itwin-mcp: name the folder of its sources.")


def _list_names(tree: Path) -> Iterator[str]:
    yield from FILES
    for folder, suffixes in FOLDERS.items():
        for file in (tree / folder).rglob("*"):
            name = file.relative_to(tree)
            is_hidden = any(part.startswith(".") for part in name.parts)
            if file.is_file() and file.suffix in suffixes and not is_hidden:
                yield name.as_posix()


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"{file} cannot be read: {error.strerror}. A bundle is packed from the sources of itwin-mcp: "
            "name their folder, as in `itwin-mcp bundle FOLDER`."
        ) from None
