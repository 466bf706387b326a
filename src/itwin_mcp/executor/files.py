"""Checks paths of local files against the folders that the user allowed, and transfers files to and from storage."""

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
"""Device names on Windows, which no file can have, with or without an extension."""


class LocalFiles:
    """Checks local paths. With its links resolved, a path must be inside a folder that the user allowed."""

    def __init__(
        self, roots: Sequence[Path] = (), how_to_allow: str = HOW_TO_ALLOW, *, own: Sequence[Path] = ()
    ) -> None:
        """Allow the folders `roots`; without any, every path is rejected. `how_to_allow` is the hint of that error.

        `own` are the files and folders of this program. They are rejected even inside the roots, because they may
        contain secrets, and because the program trusts what is written there.
        """
        self._roots = tuple(root.resolve() for root in roots)
        self._own = tuple(path.absolute() for path in own)
        self._how_to_allow = how_to_allow

    def read(self, tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments with every local path resolved. Raises InvalidArguments."""
        resolved = dict(arguments)
        for argument in tool.arguments:
            name, text = argument.name, arguments.get(argument.name)
            if argument.local is None or not isinstance(text, str):
                continue
            if argument.local == "source":
                plans = [operation.file for operation in tool.operations if operation.file is not None]
                limit = tool.transfer.most if tool.transfer is not None else None
                resolved[name] = str(self._check_source(name, text, plans, limit))
            else:
                replaces = bool(arguments.get(OVERWRITE))
                may_replace = any(other.name == OVERWRITE for other in tool.arguments)
                resolved[name] = str(self._check_target(name, text, replaces=replaces, may_replace=may_replace))
        return resolved

    def _check_source(self, name: str, text: str, plans: Sequence[FilePlan], limit: int | None) -> Path:
        """Return the path of an existing file that has an accepted type and at most `limit` bytes."""
        path = self._resolve(name, text)
        kind, size = _stat(name, path)
        if kind is None:
            raise _build_error(name, "does not exist", "Check the path; a relative one begins in the allowed folder.")
        if not stat.S_ISREG(kind):
            raise _build_error(name, "is not a plain file", "Give one file.")
        for plan in plans:
            if path.suffix.lower() not in plan.types:
                raise _build_error(name, f"must end in {' or '.join(plan.types)}", "Choose a file of such a type.")
        limits = [plan.most for plan in plans] + ([] if limit is None else [limit])
        if size > min(limits, default=size):
            raise _build_error(name, f"has {size} bytes, more than the {min(limits)} allowed", "Choose a smaller file.")
        return path

    def _check_target(self, name: str, text: str, *, replaces: bool, may_replace: bool) -> Path:
        """Return the path of the argument `name`, once it is known that the file can be written.

        `replaces` is what the call says, `may_replace` what the tool allows. Raises InvalidArguments if the folder is
        missing, or if the file exists and must not be replaced.
        """
        path = self._resolve(name, text)
        folder, _ = _stat(name, path.parent)
        if folder is None or not stat.S_ISDIR(folder):
            raise _build_error(name, "lies in a folder that does not exist", "Create the folder, or choose another.")
        kind, _ = _stat(name, path)
        if kind is not None and not stat.S_ISREG(kind):
            raise _build_error(name, "exists and is not a plain file", "Give the path of a file, name included.")
        if kind is not None and not replaces:
            how = ", or set overwrite to true if the person agrees" if may_replace else ""
            raise _build_error(name, "exists already", f"Choose another name{how}.")
        return path

    def _resolve(self, name: str, text: str) -> Path:
        """Return the path inside an allowed folder, with its links resolved. Raises InvalidArguments."""
        if not self._roots:
            raise _build_error(name, "cannot be used: no folder was allowed", self._how_to_allow)
        requested = expand_home(text)
        if ".." in requested.parts or ".." in text.replace("\\", "/").split("/"):
            raise _build_error(name, "must not contain `..`", "Give a path inside the allowed folder.")
        if any(not character.isprintable() for character in text):
            raise _build_error(name, "has characters that no file name has", "Give a plain path.")
        if any(part.partition(".")[0].rstrip().lower() in _RESERVED for part in requested.parts):
            raise _build_error(name, "names a device", "Choose another name.")
        candidates = [requested] if requested.is_absolute() else [root / requested for root in self._roots]
        resolved = [_resolve_links(name, candidate) for candidate in candidates]
        inside = [path for path in resolved if any(root in path.parents for root in self._roots)]
        if not inside:
            folders = ", ".join(map(str, self._roots))
            hint = f"Choose a path inside {folders}. {self._how_to_allow}"
            raise _build_error(name, "lies outside of the folders that were allowed", hint)
        path = next((path for path in inside if os.path.lexists(path)), inside[0])
        if self._is_hidden(path):
            hint = "Choose another; the person can allow a hidden folder by naming it itself."
            raise _build_error(name, "is hidden, or lies in a hidden folder (a dot before its name)", hint)
        if any(_is_same(ancestor, own) for ancestor in (path, *path.parents) for own in self._own):
            raise _build_error(name, "is where itwin-mcp keeps its own files", "Choose a place that is not its own.")
        return path

    def _is_hidden(self, path: Path) -> bool:
        """Return whether a path is hidden: allowing the home folder does not allow the settings and keys in it."""
        relative = [path.relative_to(root) for root in self._roots if path.is_relative_to(root)]
        return all(any(part.startswith(".") for part in inner.parts) for inner in relative)


def _resolve_links(name: str, path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, ValueError, RuntimeError):  # circular links, a name that is too long
        raise _build_error(name, "cannot be followed", "Give a plain path.") from None


def _is_same(path: Path, other: Path) -> bool:
    """Return whether both paths lead to the same file, also if their case differs or one is a link."""
    try:
        return path == other or path.samefile(other)
    except OSError:  # one of them does not exist
        return False


def _stat(name: str, path: Path) -> tuple[int | None, int]:
    """Return the mode and the size of a file; the mode is None if the file does not exist."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None, 0
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is not a path"
        raise _build_error(name, f"cannot be looked at ({why})", "Give another path.") from None
    return status.st_mode, status.st_size


def _build_error(name: str, why: str, hint: str) -> InvalidArguments:
    return InvalidArguments(
        f"{name} {why}; nothing was sent.",
        hint=hint,
        details=[{"code": DetailCode.INVALID_ARGUMENT, "target": name, "message": f"{name} {why}"}],
    )


# --- transfers to and from the storage link that a step returned ----------------------------------------------------

_MAX_REPORTS = 40
"""Maximum number of progress reports of one transfer."""
_MIN_BYTES_BETWEEN = 1 << 20
"""Minimum number of bytes between two progress reports."""


def describe_file(plan: TransferPlan, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the name, the path and, for an upload, the size of the local file: the values that steps can use."""
    path = Path(arguments[FILE_PATH])
    description: dict[str, Any] = {"name": path.name, "path": str(path)}
    return description | {"size": path.stat().st_size} if plan.direction == "upload" else description


def stat_replaced_file(arguments: Mapping[str, Any]) -> FileStat | None:
    """Return the state of the local file that a download may replace, or None without `overwrite`."""
    return FileStat.of(Path(arguments[FILE_PATH])) if arguments.get(OVERWRITE) else None


async def move_file(
    run: Run,
    plan: TransferPlan,
    arguments: Mapping[str, Any],
    results: Mapping[str, Any],
    replaces: FileStat | None,
) -> dict[str, Any]:
    """Transfer the file and return its description for later steps.

    A download replaces an existing file only if its state is still `replaces`. Raises CallError with a hint about what
    remains on the platform.
    """
    assert run.storage is not None
    file = results[FILE]
    path, progress = Path(file["path"]), _TransferProgress(run, plan.direction, file["name"])
    try:
        link = evaluate(plan.link, arguments, results)
        if not isinstance(link, str):
            raise UnexpectedAnswer(
                f"The platform's answer has no link to {plan.direction} the file: {plan.link.path.text} is not there.",
                hint="It may not be ready yet, or you may not have the permission for it (imodels_read for iModels).",
            )
        if plan.direction == "upload":
            size = await run.storage.upload(link, path, headers=plan.headers, progress=progress)
            if size != file["size"]:
                raise UnexpectedAnswer(
                    f"The file changed while it was sent: it had {file['size']} bytes and then {size}.",
                    hint="Call again when nothing writes to it.",
                )
        else:
            expected = evaluate(plan.size, arguments, results) if plan.size is not None else None
            size = await run.storage.download(
                link,
                path,
                size=expected if type(expected) is int else None,
                replaces=replaces,
                progress=progress,
            )
    except CallError as error:
        raise error.amended(before=plan.left or "") from None
    return {**file, "size": size}


class _TransferProgress:
    """Reports the progress of a transfer, at most every `_MIN_BYTES_BETWEEN` bytes."""

    def __init__(self, run: Run, direction: str, name: str) -> None:
        self._run, self._name = run, name
        self._verb = "sent" if direction == "upload" else "received"
        self._next_report = 0

    async def __call__(self, done: int, total: int | None) -> None:
        if done < self._next_report and done != total:
            return
        self._next_report = done + max((total or 0) // _MAX_REPORTS, _MIN_BYTES_BETWEEN)
        of_total = f" of {total / 1e6:.1f}" if total is not None else ""
        await self._run.conversation.progress(done, total, f"{self._name}: {done / 1e6:.1f}{of_total} MB {self._verb}")
