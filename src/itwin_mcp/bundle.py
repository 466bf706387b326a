"""The desktop extension (MCPB): a source tree becomes one file, and the same tree always the same bytes."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from itwin_mcp.errors import SettingsError

FILES = ("LICENSE", "PRIVACY.md", "icon.png", "manifest.json", "pyproject.toml", "uv.lock")
FOLDERS = {"capabilities": (".md", ".yaml"), "src/itwin_mcp": (".py", ".sql", ".xz")}
"""All that an extension needs, with the endings of what counts there; `.mcpbignore` says it to `mcpb pack`."""
_LONG_AGO = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A packed extension."""

    version: str
    files: tuple[str, ...]
    content: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        """What tells one bundle from another."""
        return hashlib.sha256(self.content).hexdigest()


def pack(tree: Path) -> Bundle:
    """Pack a source tree. Raises SettingsError if it is none of ours, or not whole."""
    version = _version(tree)
    names = tuple(sorted(_names(tree)))
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w") as archive:
        for name in names:
            # Neither the clock, the umask nor the system may show. Stored, because what deflating gives depends on
            # the version of zlib; the extension is small beside what its first start downloads.
            entry = zipfile.ZipInfo(name, _LONG_AGO)
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            archive.writestr(entry, _read(tree / name), zipfile.ZIP_STORED)
    return Bundle(version, names, into.getvalue())


def _version(tree: Path) -> str:
    try:
        manifest = json.loads(_read(tree / "manifest.json"))
        if manifest["name"] == "itwin-mcp":
            return str(manifest["version"])
    except (ValueError, KeyError, TypeError):
        pass
    raise SettingsError(f"{tree / 'manifest.json'} is not the manifest of itwin-mcp: name the folder of its sources.")


def _names(tree: Path) -> Iterator[str]:
    yield from FILES
    for folder, endings in FOLDERS.items():
        for file in (tree / folder).rglob("*"):
            inside = file.relative_to(tree)
            hidden = any(part.startswith(".") for part in inside.parts)
            if file.is_file() and file.suffix in endings and not hidden:
                yield inside.as_posix()


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"{file} cannot be read: {error.strerror}. A bundle is packed from the sources of itwin-mcp: "
            "name their folder, as in `itwin-mcp bundle FOLDER`."
        ) from None
