"""Files that appear whole or not at all, and never replace a file that nobody agreed to lose.

A reader, a second process and a crash see the previous file or the new one, never half of one. Each file is written
under another name in the same folder first, because only a rename within one file system is atomic.
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
    """Give the name of an unfinished file next to `target`; what still has that name at the end is deleted."""
    part = target.with_name(f".{target.name}.{secrets.token_hex(6)}.part")
    try:
        yield part
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def write_file(path: Path, content: bytes, *, mode: int = 0o600, replace: bool = True) -> None:
    """Write a file of ours, with exactly these permissions, in a folder that exists.

    With `replace` off the file is only created: of several processes that do so at once, one succeeds.

    Raises: OSError; FileExistsError if it may not replace the file that is there.
    """
    with part_of(path) as part:
        with os.fdopen(os.open(part, _CREATE, mode), "wb") as file:
            if mode & 0o077:  # the process's umask may have taken these bits away
                part.chmod(mode)
            file.write(content)
            file.flush()
            # Without it a power cut can leave the new name with the content missing.
            os.fsync(file.fileno())
        if replace:
            part.replace(path)
        else:  # a link, unlike a rename, fails if the name is taken
            os.link(part, path)


@dataclass(frozen=True, slots=True)
class FileStat:
    """What identifies the version of a file: whether it is still the one that a person agreed to replace."""

    size: int
    modified: int
    """Nanoseconds since 1970."""
    inode: int

    @classmethod
    def of(cls, path: Path) -> FileStat | None:
        """Return the facts of the file, or None if there is none."""
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return cls(found.st_size, found.st_mtime_ns, found.st_ino)


def move_into_place(part: Path, target: Path, replaces: FileStat | None = None) -> None:
    """Rename a finished file to a name that a person chose.

    Raises: OSError; FileExistsError if another file is there than the one it `replaces`.
    """
    if replaces is not None:
        if FileStat.of(target) != replaces:
            raise FileExistsError
        part.replace(target)
        return
    # A rename would replace silently, and not every file system of a user has links. Creating the name exclusively
    # fails if it is taken; the empty file is replaced at once.
    target.open("x").close()
    try:
        part.replace(target)
    except OSError:
        target.unlink()
        raise
