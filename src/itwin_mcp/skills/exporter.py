"""Writes skills as folders. A second export changes nothing, and folders that no export made are never changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from itwin_mcp.capability.catalog import Skill
from itwin_mcp.capability.strict_yaml import YamlRefused
from itwin_mcp.errors import SettingsError
from itwin_mcp.skills.reader import MANIFEST, SCHEME, find_references, is_made_by_us, read_front_matter


def export_skills(skills: Sequence[Skill], folder: Path) -> tuple[Path, ...]:
    """Write each skill into a folder of its name, and return the files written.

    A folder from an earlier export is updated file by file: references that are no longer linked are deleted, and
    other files remain. Raises SettingsError, before anything is written, if a folder was not made by an export.
    """
    foreign = [folder / skill.name for skill in skills if not _is_free(folder / skill.name)]
    if foreign:
        names = ", ".join(map(str, foreign))
        raise SettingsError(
            f"{names}: not made by itwin-mcp, so nothing was written. Move it, or choose another folder."
        )
    written = []
    try:
        for skill in skills:
            targets = {folder / file.uri.removeprefix(SCHEME) for file in skill.files}
            for stale in _find_exported(folder / skill.name) - targets:
                stale.unlink(missing_ok=True)
            for file in skill.files:
                target = folder / file.uri.removeprefix(SCHEME)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(file.text, encoding="utf-8", newline="\n")
                written.append(target)
    except OSError as error:
        raise SettingsError(f"{folder} cannot be written: {error.strerror}. Choose another folder.") from None
    return tuple(written)


def _find_exported(folder: Path) -> set[Path]:
    """Return the references in a folder from an earlier export, which are the files that its guide links to."""
    guide = folder / MANIFEST
    return {folder / path for path in find_references(guide.read_text(encoding="utf-8"))} if guide.is_file() else set()


def _is_free(folder: Path) -> bool:
    """Return whether the folder does not exist, is empty, or was made by an earlier export."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        return False
    if not folder.exists() or not any(folder.iterdir()):
        return True
    try:
        return is_made_by_us(read_front_matter((folder / MANIFEST).read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, YamlRefused):
        return False
