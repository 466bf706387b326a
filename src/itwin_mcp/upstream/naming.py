"""A finished file gets its name, and never takes the place of one that nobody agreed to lose."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Standing:
    """A file as it stands: what tells whether it is still the one that somebody saw."""

    size: int
    modified: int
    """Nanoseconds since 1970."""
    inode: int

    @classmethod
    def at(cls, path: Path) -> Standing | None:
        """What is there; None for nothing."""
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return cls(found.st_size, found.st_mtime_ns, found.st_ino)


def put_in_place(beside: Path, target: Path, replaces: Standing | None = None) -> None:
    """Give a finished file its name. FileExistsError where another stands there than the one that may be replaced."""
    if replaces is not None:
        if Standing.at(target) != replaces:
            raise FileExistsError
        beside.replace(target)
        return
    # Only one of all who want the name makes it; what they make is empty, and replaced at once.
    target.open("x").close()
    try:
        beside.replace(target)
    except OSError:
        target.unlink()
        raise


def expand_home(path: str | Path) -> Path:
    """The path with `~` at its beginning as the user's home folder; only shells expand it, and not everywhere.

    `~name` stays: it may be the name of a file, as editors give to copies.
    """
    path = Path(path)
    if path.parts[:1] != ("~",):
        return path
    try:
        return path.expanduser()
    except RuntimeError:  # nobody knows where the home folder is
        return path
