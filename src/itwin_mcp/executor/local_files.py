"""Arguments that name local files become paths: inside the folders that the person allowed, and nowhere else."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from itwin_mcp.capability.catalog import Tool
from itwin_mcp.capability.parameters import OVERWRITE
from itwin_mcp.capability.plans import FilePlan
from itwin_mcp.errors import InvalidArguments
from itwin_mcp.upstream.naming import expand_home

HOW_TO_ALLOW = (
    "Ask the person to allow a folder: they start itwin-mcp with --files-root FOLDER, or set ITWIN_MCP_FILES_ROOT."
)
_RESERVED = frozenset({"con", "prn", "aux", "nul", *(f"{name}{n}" for name in ("com", "lpt") for n in range(1, 10))})
"""Names that are devices on Windows, whatever follows a dot in them."""


class LocalFiles:
    """The folders that were allowed. A path is taken as it is after all links are followed."""

    def __init__(
        self, roots: Sequence[Path] = (), how_to_allow: str = HOW_TO_ALLOW, *, own: Sequence[Path] = ()
    ) -> None:
        """With no `roots` no file is touched; `how_to_allow` tells then what the person can do.

        `own` are files and folders of this program, never touched even inside the roots: a file that could be put there
        would be believed, and one that is read there tells secrets.
        """
        self._roots = tuple(root.resolve() for root in roots)
        self._own = tuple(one.absolute() for one in own)
        self._how_to_allow = how_to_allow

    def read(self, tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments with every local path resolved. Raises InvalidArguments; nothing was sent."""
        resolved = dict(arguments)
        for one in tool.arguments:
            text = arguments.get(one.name)
            if one.local is None or not isinstance(text, str):
                continue
            if one.local == "source":
                plans = [operation.file for operation in tool.operations if operation.file is not None]
                limit = tool.transfer.most if tool.transfer is not None else None
                resolved[one.name] = str(self.source(one.name, text, plans, limit))
            else:
                replaces = bool(arguments.get(OVERWRITE))
                may_replace = any(other.name == OVERWRITE for other in tool.arguments)
                resolved[one.name] = str(self.target(one.name, text, replaces=replaces, may_replace=may_replace))
        return resolved

    def source(self, name: str, text: str, plans: Sequence[FilePlan] = (), most: int | None = None) -> Path:
        """An existing file, of a type and size that can be sent."""
        path = self._inside(name, text)
        kind, size = _look(name, path)
        if kind is None:
            raise _refused(name, "does not exist", "Check the path; a relative one begins in the allowed folder.")
        if not stat.S_ISREG(kind):
            raise _refused(name, "is not a plain file", "Give one file.")
        for plan in plans:
            if path.suffix.lower() not in plan.types:
                raise _refused(name, f"must end in {' or '.join(plan.types)}", "Choose a file of such a type.")
        bounds = [*(plan.most for plan in plans), *([most] if most is not None else [])]
        if size > min(bounds, default=size):
            raise _refused(name, f"has {size} bytes, more than the {min(bounds)} allowed", "Choose a smaller file.")
        return path

    def target(self, name: str, text: str, *, replaces: bool = False, may_replace: bool = False) -> Path:
        """A file that can be written: its folder exists, and it is not there yet or may be replaced."""
        path = self._inside(name, text)
        folder, _ = _look(name, path.parent)
        if folder is None or not stat.S_ISDIR(folder):
            raise _refused(name, "lies in a folder that does not exist", "Create the folder, or choose another.")
        kind, _ = _look(name, path)
        if kind is not None and not stat.S_ISREG(kind):
            raise _refused(name, "is there and no plain file", "Give the path of a file, name included.")
        if kind is not None and not replaces:
            how = ", or set overwrite to true if the person agrees" if may_replace else ""
            raise _refused(name, "exists already", f"Choose another name{how}.")
        return path

    def _inside(self, name: str, text: str) -> Path:
        if not self._roots:
            raise _refused(name, "cannot be used: no folder was allowed", self._how_to_allow)
        given = expand_home(text)
        if ".." in given.parts or ".." in text.replace("\\", "/").split("/"):
            raise _refused(name, "must not contain `..`", "Give a path inside the allowed folder.")
        if any(not character.isprintable() for character in text):
            raise _refused(name, "has characters that no file name has", "Give a plain path.")
        if any(part.partition(".")[0].rstrip().lower() in _RESERVED for part in given.parts):
            raise _refused(name, "names a device", "Choose another name.")
        candidates = [given] if given.is_absolute() else [root / given for root in self._roots]
        inside = [path for one in candidates if self._holds(path := _resolved(name, one))]
        if not inside:
            folders = ", ".join(map(str, self._roots))
            hint = f"Choose a path inside {folders}. {self._how_to_allow}"
            raise _refused(name, "lies outside of the folders that were allowed", hint)
        path = next((path for path in inside if os.path.lexists(path)), inside[0])
        if self._hidden(path):
            hint = "Choose another; the person can allow a hidden folder by naming it itself."
            raise _refused(name, "is hidden, or lies in a hidden folder (a dot before its name)", hint)
        if any(_same(one, own) for one in (path, *path.parents) for own in self._own):
            raise _refused(name, "is where itwin-mcp keeps its own files", "Choose a place that is not its own.")
        return path

    def _holds(self, path: Path) -> bool:
        return any(path != root and path.is_relative_to(root) for root in self._roots)

    def _hidden(self, path: Path) -> bool:
        """Settings, keys and start scripts of other programs: whoever allows their home folder does not mean those."""
        within = [path.relative_to(root) for root in self._roots if path.is_relative_to(root)]
        return all(any(part.startswith(".") for part in one.parts) for one in within)


def _resolved(name: str, path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, ValueError, RuntimeError):  # links that go round, a name that is too long
        raise _refused(name, "cannot be followed", "Give a plain path.") from None


def _same(path: Path, other: Path) -> bool:
    """Whether both are one thing, in whatever case or by whatever link they are named."""
    try:
        return path == other or path.samefile(other)
    except OSError:  # one of them is not there
        return False


def _look(name: str, path: Path) -> tuple[int | None, int]:
    """What kind of thing is there, None for nothing, and its size."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None, 0
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is no path"
        raise _refused(name, f"cannot be looked at ({why})", "Give another path.") from None
    return found.st_mode, found.st_size


def _refused(name: str, why: str, hint: str) -> InvalidArguments:
    return InvalidArguments(
        f"{name} {why}; nothing was sent.",
        hint=hint,
        details=[{"code": "InvalidArgument", "target": name, "message": f"{name} {why}"}],
    )
