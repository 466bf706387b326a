"""A client's configuration file: what is in it with our entry and without, its backup, and writing it whole."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from itwin_mcp.cli.desktop_clients import starts_us
from itwin_mcp.cli.json_text import BYTE_ORDER_MARK, NotJson, get_member, remove_member, set_member
from itwin_mcp.errors import SettingsError

SUFFIX = ".before-itwin-mcp"
"""What the backup's name has more than the file's."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What the file and its backup hold; None for one that is not there."""

    text: str | None
    backup: str | None = None


def installed(kept: Kept, path: Sequence[str], entry: Mapping[str, Any]) -> Kept:
    """The same with the entry; the backup is what the file was before we were in it."""
    if kept.text is not None and get_member(kept.text, path) == entry:
        return kept
    known, original = _original(kept, path)
    before = original if known else kept.text
    return Kept(set_member(before or "", path, entry), before)


def uninstalled(kept: Kept, path: Sequence[str]) -> Kept:
    """The same without the entry: the very file from before where nobody else changed it since.

    What that file held in our place stays in it, unless it is an entry of ours too: that is in the backup alone.
    """
    if kept.text is None or get_member(kept.text, path) is None:
        return kept
    known, original = _original(kept, path)
    if not known:
        return Kept(remove_member(kept.text, path), kept.text)
    if original is not None and starts_us(get_member(original, path)):
        return Kept(remove_member(original, path), original)
    return Kept(original)


def readable(kept: Kept) -> Kept:
    """The same without a byte order mark, for a client that cannot read one."""
    return kept if kept.text is None else replace(kept, text=_without_mark(kept.text))


def _original(kept: Kept, path: Sequence[str]) -> tuple[bool, str | None]:
    """Whether it is known what the file was before our entry, and that: what gives today's file when we are put in."""
    entry = None if kept.text is None else get_member(kept.text, path)
    if entry is None:
        return False, None
    with contextlib.suppress(NotJson):  # somebody put another file in the backup's place
        # Without the byte order mark: `install` removes it where the client cannot read it.
        if _without_mark(set_member(kept.backup or "", path, entry)) == _without_mark(kept.text or ""):
            return True, kept.backup
    return False, None


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """The file at its true place: a link to it stays one."""

    path: Path

    @classmethod
    def at(cls, path: Path) -> ConfigFile:
        """The file that this path leads to."""
        return cls(path.resolve())

    @property
    def backup(self) -> Path:
        """Where the backup is."""
        return self.path.with_name(self.path.name + SUFFIX)

    def read(self) -> Kept:
        """What is there now. Raises SettingsError."""
        return Kept(_read(self.path), _read(self.backup))

    def write(self, old: Kept, new: Kept) -> None:
        """Make it so, in a folder that is made where there is none, if it still is as it was read; the backup first.

        Raises SettingsError; then the backup is as it was, too.
        """
        if self.read() != old:
            raise SettingsError(f"{self.path} was changed by another program meanwhile. Nothing was done: try again.")
        try:
            self.path.parent.mkdir(exist_ok=True)
            if new.backup != old.backup and new.backup is not None:
                _write(self.backup, new.backup, like=self.path)
            try:
                if new.text != old.text:
                    _put(self.path, new.text, like=self.path)
            except OSError:
                _put(self.backup, old.backup, like=self.path)
                raise
            if new.backup is None:
                self.backup.unlink(missing_ok=True)
        except OSError as error:
            raise SettingsError(f"{self.path} cannot be written: {error.strerror or error}.") from None


def _without_mark(text: str) -> str:
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


def _put(path: Path, text: str | None, *, like: Path) -> None:
    """The file with this text; without it none."""
    if text is None:
        path.unlink(missing_ok=True)
    else:
        _write(path, text, like=like)


def _write(path: Path, text: str, *, like: Path) -> None:
    """Whole or not at all: who reads meanwhile gets the old file or the new one, with the rights that it had."""
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        mode = like.stat().st_mode & 0o777
    except FileNotFoundError:
        mode = 0o600
    try:
        with part.open("xb") as out:
            part.chmod(mode)
            out.write(text.encode("utf-8"))
            out.flush()
            os.fsync(out.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
