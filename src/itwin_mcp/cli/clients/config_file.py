"""Edits of a client's configuration file: adding and removing an entry, with a backup of the previous file."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from itwin_mcp.atomic_files import write_file
from itwin_mcp.cli.clients.json_text import BYTE_ORDER_MARK, NotJson, get_member, remove_member, set_member
from itwin_mcp.cli.clients.known_clients import starts_us
from itwin_mcp.errors import SettingsError

BACKUP_SUFFIX = ".before-itwin-mcp"


@dataclass(frozen=True, slots=True)
class FileContents:
    """The text of a file and of its backup; None for a file that does not exist."""

    text: str | None
    backup: str | None = None


def add_entry(contents: FileContents, path: Sequence[str], entry: Mapping[str, Any]) -> FileContents:
    """Add or replace an entry. The backup is the file from before our first entry, if that is still known."""
    if contents.text is not None and get_member(contents.text, path) == entry:
        return contents
    is_known, original = _find_original(contents, path)
    before = original if is_known else contents.text
    return FileContents(set_member(before or "", path, entry), before)


def remove_entry(contents: FileContents, path: Sequence[str]) -> FileContents:
    """Remove an entry. If nothing else changed since it was added, restore the file from before, byte for byte.

    That file may have an entry of the same name. If that entry starts this server too, it is removed as well, and the
    backup is kept.
    """
    if contents.text is None or get_member(contents.text, path) is None:
        return contents
    is_known, original = _find_original(contents, path)
    if not is_known:
        return FileContents(remove_member(contents.text, path), contents.text)
    if original is not None and starts_us(get_member(original, path)):
        return FileContents(remove_member(original, path), original)
    return FileContents(original)


def remove_byte_order_mark(contents: FileContents) -> FileContents:
    """Remove the byte order mark, for a client that cannot read one."""
    return contents if contents.text is None else replace(contents, text=_strip_mark(contents.text))


def _find_original(contents: FileContents, path: Sequence[str]) -> tuple[bool, str | None]:
    """Return whether we know the file from before our entry, and its text, which is None if there was no file.

    The backup is that file if adding our entry to it gives exactly the current file. Otherwise somebody has edited the
    file since, and restoring the backup would lose their edits.
    """
    entry = None if contents.text is None else get_member(contents.text, path)
    if entry is None:
        return False, None
    with contextlib.suppress(NotJson):  # the backup is no longer JSON
        # Compare without the byte order mark, because `install` removes it for clients that cannot read it.
        if _strip_mark(set_member(contents.backup or "", path, entry)) == _strip_mark(contents.text or ""):
            return True, contents.backup
    return False, None


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A configuration file at its resolved path, so that a symbolic link to it remains a link."""

    path: Path

    @property
    def backup(self) -> Path:
        return self.path.with_name(self.path.name + BACKUP_SUFFIX)

    def read(self) -> FileContents:
        """Read the file and its backup. Raises SettingsError."""
        return FileContents(_read(self.path), _read(self.backup))

    def write(self, old: FileContents, new: FileContents) -> None:
        """Write the backup and then the file, if neither has changed since it was read.

        Raises SettingsError, which leaves the file and the backup unchanged.
        """
        if self.read() != old:
            raise SettingsError(f"Another program has just changed {self.path}. Nothing was changed: try again.")
        try:
            self.path.parent.mkdir(exist_ok=True)
            if new.backup != old.backup and new.backup is not None:
                _write(self.backup, new.backup, like=self.path)
            try:
                if new.text != old.text:
                    _write_or_delete(self.path, new.text, like=self.path)
            except OSError:
                _write_or_delete(self.backup, old.backup, like=self.path)
                raise
            if new.backup is None:
                self.backup.unlink(missing_ok=True)
        except OSError as error:
            raise SettingsError(f"{self.path} cannot be written: {error.strerror or error}.") from None


def _strip_mark(text: str) -> str:
    return text.removeprefix(BYTE_ORDER_MARK)


def _read(path: Path) -> str | None:
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror or error}. Nothing was changed.") from None
    except ValueError:
        raise SettingsError(f"{path} is not text in UTF-8. Nothing was changed: save it as UTF-8.") from None


def _write_or_delete(path: Path, text: str | None, *, like: Path) -> None:
    """Write the text, or delete the file if the text is None."""
    if text is None:
        path.unlink(missing_ok=True)
    else:
        _write(path, text, like=like)


def _write(path: Path, text: str, *, like: Path) -> None:
    """Write a file with the permissions of `like`, or readable only by its owner if `like` does not exist."""
    try:
        mode = like.stat().st_mode & 0o777
    except FileNotFoundError:
        mode = 0o600
    write_file(path, text.encode("utf-8"), mode=mode)
