"""Writes files completely or not at all, and replaces only files that may be replaced.

Other processes see the previous file or the new one, also after a crash. Each file is first written under another name
in the same folder, because only a rename within one file system is atomic.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


@contextmanager
def part_of(target: Path) -> Iterator[Path]:
    """Yield a temporary path next to `target`. A file that still has this path at the end is deleted."""
    part = target.with_name(f".{target.name}.{secrets.token_hex(6)}.part")
    try:
        yield part
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def write_file(path: Path, content: bytes, *, mode: int = 0o600, replace: bool = True) -> None:
    """Write a file with exactly these permissions, in an existing folder.

    Without `replace` the file is only created: if several processes do so at once, one succeeds.

    Raises: FileExistsError if the file exists and `replace` is False; OSError if it cannot be written.
    """
    with part_of(path) as part:
        with os.fdopen(os.open(part, _CREATE, mode), "wb") as file:
            if mode & 0o077:  # the process's umask may have taken these bits away
                part.chmod(mode)
            file.write(content)
            file.flush()
            # Otherwise a power cut after the rename can leave an empty file.
            os.fsync(file.fileno())
        if replace:
            part.replace(path)
        else:  # a link, unlike a rename, fails if the name is taken
            os.link(part, path)


@dataclass(frozen=True, slots=True)
class FileStat:
    """The version of a file: if it differs later, the file is not the one that the user agreed to replace."""

    size: int
    modified: int
    """Nanoseconds since 1970."""
    inode: int

    @classmethod
    def of(cls, path: Path) -> FileStat | None:
        """Return the version of the file, or None if the file does not exist."""
        try:
            stat = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ino)


def move_into_place(part: Path, target: Path, replaces: FileStat | None = None) -> None:
    """Rename a finished file to `target`, whose previous version, if any, must be `replaces`.

    Raises: FileExistsError if `target` has another version; OSError if the file cannot be renamed.
    """
    if replaces is not None:
        if FileStat.of(target) != replaces:
            raise FileExistsError
        part.replace(target)
        return
    # A rename would replace an existing file silently, and not every file system has links. Creating an empty file
    # exclusively fails if the name is taken; the rename then replaces the empty file.
    target.open("x").close()
    try:
        part.replace(target)
    except OSError:
        target.unlink()
        raise
