"""Skills as folders on disk, written so that a second export changes nothing and nobody else's folder is touched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from itwin_mcp.capability.catalog import Skill
from itwin_mcp.capability.strict_yaml import YamlRefused
from itwin_mcp.errors import SettingsError
from itwin_mcp.skills.guides import MANIFEST, SCHEME, front_matter, made_by_us, references


def export(skills: Sequence[Skill], folder: Path) -> tuple[Path, ...]:
    """Write each skill into a folder of its name; gives the files written.

    A folder of that name is replaced file by file if an export made it, and nothing is written at all if another did.
    References of the earlier export that are none any more go, what else lies in it stays. Raises SettingsError.
    """
    foreign = [folder / skill.name for skill in skills if not _is_free(folder / skill.name)]
    if foreign:
        names = ", ".join(map(str, foreign))
        raise SettingsError(f"{names}: not made by itwin-mcp, so nothing was written. Move it, or export elsewhere.")
    written = []
    try:
        for skill in skills:
            targets = {folder / file.uri.removeprefix(SCHEME) for file in skill.files}
            for stale in _written_before(folder / skill.name) - targets:
                stale.unlink(missing_ok=True)
            for file in skill.files:
                target = folder / file.uri.removeprefix(SCHEME)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(file.text, encoding="utf-8", newline="\n")
                written.append(target)
    except OSError as error:
        raise SettingsError(f"{folder} cannot be written: {error.strerror}. Give a folder that can be.") from None
    return tuple(written)


def _written_before(folder: Path) -> set[Path]:
    """The references that an earlier export wrote into its folder: those that its guide links to."""
    guide = folder / MANIFEST
    return {folder / path for path in references(guide.read_text(encoding="utf-8"))} if guide.is_file() else set()


def _is_free(folder: Path) -> bool:
    """Whether there is no such folder, an empty one, or one that an earlier export made."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        return False
    if not folder.exists() or not any(folder.iterdir()):
        return True
    try:
        return made_by_us(front_matter((folder / MANIFEST).read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, YamlRefused):
        return False
