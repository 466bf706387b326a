"""Local files: paths inside the folders that the user allowed, and transfers to and from storage links."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itwin_mcp.atomic_files import FileStat
from itwin_mcp.capability.catalog import Tool
from itwin_mcp.capability.expressions import evaluate
from itwin_mcp.capability.operations import FilePlan
from itwin_mcp.capability.parameters import FILE_PATH, OVERWRITE
from itwin_mcp.capability.tool_actions import TransferPlan
from itwin_mcp.capability.transfers import FILE
from itwin_mcp.errors import CallError, DetailCode, InvalidArguments, UnexpectedAnswer
from itwin_mcp.setting_parsers import expand_home

if TYPE_CHECKING:
    from itwin_mcp.executor.sending import Run

HOW_TO_ALLOW = (
    "Ask the person to allow a folder: they start itwin-mcp with --files-root FOLDER, or set ITWIN_MCP_FILES_ROOT."
)
_RESERVED = frozenset({"con", "prn", "aux", "nul", *(f"{name}{n}" for name in ("com", "lpt") for n in range(1, 10))})
"""Names of devices on Windows, with any extension."""


class LocalFiles:
    """The folders that the user allowed. A path is judged after all links in it are resolved."""

    def __init__(
        self, roots: Sequence[Path] = (), how_to_allow: str = HOW_TO_ALLOW, *, own: Sequence[Path] = ()
    ) -> None:
        """Without `roots` no file is used; `how_to_allow` tells the user how to allow a folder.

        `own` are files and folders of this program. They are never used, even inside the roots: a file written there
        would be trusted, and one read there may hold secrets.
        """
        self._roots = tuple(root.resolve() for root in roots)
        self._own = tuple(one.absolute() for one in own)
        self._how_to_allow = how_to_allow

    def read(self, tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments with every local path resolved. Raises InvalidArguments."""
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
        """Return the path of an existing file with a type and size that can be sent."""
        path = self._inside(name, text)
        kind, size = _stat(name, path)
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
        """Return the path of a file that can be written: its folder exists, and it is new or may be replaced."""
        path = self._inside(name, text)
        folder, _ = _stat(name, path.parent)
        if folder is None or not stat.S_ISDIR(folder):
            raise _refused(name, "lies in a folder that does not exist", "Create the folder, or choose another.")
        kind, _ = _stat(name, path)
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
        """Return whether a path is a hidden file: allowing the home folder does not mean settings and keys in it."""
        within = [path.relative_to(root) for root in self._roots if path.is_relative_to(root)]
        return all(any(part.startswith(".") for part in one.parts) for one in within)


def _resolved(name: str, path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, ValueError, RuntimeError):  # links that go round, a name that is too long
        raise _refused(name, "cannot be followed", "Give a plain path.") from None


def _same(path: Path, other: Path) -> bool:
    """Return whether both are the same file, in whatever case or through whatever link they are named."""
    try:
        return path == other or path.samefile(other)
    except OSError:  # one of them is not there
        return False


def _stat(name: str, path: Path) -> tuple[int | None, int]:
    """Return the type of a file, None if there is none, and its size."""
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
        details=[{"code": DetailCode.INVALID_ARGUMENT, "target": name, "message": f"{name} {why}"}],
    )


# --- to or from a storage link that a step gave: streamed, never in an answer ---------------------------------------

_MAX_REPORTS = 40
_MIN_BYTES_BETWEEN = 1 << 20
"""Progress is reported about so many times, and not for every small piece."""


def describe_file(plan: TransferPlan, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the steps know of the local file before the transfer. Raises InvalidArguments."""
    path = Path(arguments[FILE_PATH])
    known: dict[str, Any] = {"name": path.name, "path": str(path)}
    return known | {"size": path.stat().st_size} if plan.direction == "upload" else known


def stat_replaced_file(arguments: Mapping[str, Any]) -> FileStat | None:
    """Return the state of the local file that the user agreed to replace; None if they agreed to none."""
    return FileStat.of(Path(arguments[FILE_PATH])) if arguments.get(OVERWRITE) else None


async def move_file(
    run: Run,
    plan: TransferPlan,
    arguments: Mapping[str, Any],
    results: Mapping[str, Any],
    replaces: FileStat | None,
) -> dict[str, Any]:
    """Transfer the file and return what later steps know of it. A download may replace `replaces`, if it is unchanged.

    Raises CallError, which says what remains on the platform.
    """
    assert run.storage is not None
    file = results[FILE]
    path, told = Path(file["path"]), _TransferProgress(run, plan.direction, file["name"])
    try:
        link = evaluate(plan.link, arguments, results)
        if not isinstance(link, str):
            raise _no_link(plan)
        if plan.direction == "upload":
            size = await run.storage.upload(link, path, headers=plan.headers, progress=told)
            if size != file["size"]:
                raise _changed(file["size"], size)
        else:
            expected = evaluate(plan.size, arguments, results) if plan.size is not None else None
            size = await run.storage.download(
                link,
                path,
                size=expected if type(expected) is int else None,
                replaces=replaces,
                progress=told,
            )
    except CallError as error:
        raise error.amended(before=plan.left or "") from None
    return {**file, "size": size}


class _TransferProgress:
    """Reports progress in bytes, in steps that people can follow."""

    def __init__(self, run: Run, direction: str, name: str) -> None:
        self._run = run
        self._verb = "sent" if direction == "upload" else "received"
        self._name = name
        self._next = 0

    async def __call__(self, done: int, total: int | None) -> None:
        if done < self._next and done != total:
            return
        self._next = done + max((total or 0) // _MAX_REPORTS, _MIN_BYTES_BETWEEN)
        of = f" of {_megabytes(total)}" if total is not None else ""
        await self._run.conversation.progress(done, total, f"{self._name}: {_megabytes(done)}{of} MB {self._verb}")


def _megabytes(count: int) -> str:
    return f"{count / 1_000_000:.1f}"


def _no_link(plan: TransferPlan) -> UnexpectedAnswer:
    return UnexpectedAnswer(
        f"The platform's answer has no link to {plan.direction} the file: {plan.link.path.text} is not there.",
        hint="It may not be ready yet, or you may not have the permission for it (imodels_read for iModels).",
    )


def _changed(before: int, after: int) -> UnexpectedAnswer:
    return UnexpectedAnswer(
        f"The file changed while it was sent: it had {before} bytes and then {after}.",
        hint="Call again when nothing writes to it.",
    )
