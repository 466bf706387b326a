"""The audit log: one JSON line for every decision on a write, with ids and codes but no values, names or secrets."""

from __future__ import annotations

import json
import logging
import os
import re
import stat
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

import anyio

from itwin_mcp.errors import AuditFailed

logger = logging.getLogger(__name__)

Decision: TypeAlias = Literal["refused", "asked", "declined", "allowed", "done", "failed"]
"""The decision about a write, or its outcome.

`refused`: nothing was sent, for instance because a confirmation has expired, was used, forged or given for another
call. `asked`: the user was asked. `declined`: the user said no. `allowed`: the write is sent next. `done`, `failed`:
its outcome.
"""

_PLAIN = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
"""A code or an id. Other text from outside is never logged."""


MAX_FILE_BYTES = 10 * 1024 * 1024
"""A file of this size is renamed to `….1` before the next line, `….1` to `….2`, and so on."""
MAX_OLD_FILES = 9
_LOCK_SECONDS = 5.0


class Audit:
    """Appends lines to a file, or to standard error. A file of more than `MAX_FILE_BYTES` is rotated.

    The file is opened for each line and written once. So the lines of several processes never mix, and a file that was
    moved away is created again. A line survives the end of the process, but is not flushed to the disk.
    """

    def __init__(self, file: Path | None, clock: Callable[[], float]) -> None:
        """`file` is None for standard error; `clock` returns seconds since 1970."""
        self._file = file
        self._clock = clock

    async def before(self, decision: Decision, facts: Mapping[str, Any]) -> None:
        """Write a decision before its request. Raises AuditFailed if that fails, so that nothing is sent."""
        try:
            await self._append(decision, facts)
        except OSError as error:
            where = self._file or "standard error"
            logger.error("The audit log %s cannot be written: %s", where, error.strerror or error)
            raise AuditFailed from None

    async def after(self, decision: Decision, facts: Mapping[str, Any]) -> None:
        """Write the outcome of a request. A failure to write is only logged, because the request was already sent."""
        try:
            with anyio.CancelScope(shield=True):
                await self._append(decision, facts)
        except OSError as error:
            logger.error("The audit log lacks %s %s: %s", decision, facts.get("operation"), error.strerror or error)

    async def _append(self, decision: Decision, facts: Mapping[str, Any]) -> None:
        moment = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")
        entry = {"time": moment.replace("+00:00", "Z"), "decision": decision, **facts}
        members = {name: value for name, value in entry.items() if value is not None}
        text = json.dumps(members, ensure_ascii=True, separators=(",", ":")) + "\n"
        await anyio.to_thread.run_sync(self._write, text.encode())

    def _write(self, line: bytes) -> None:
        if self._file is None:
            sys.stderr.buffer.write(line)
            sys.stderr.buffer.flush()
            return
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._rotate_if_large(self._file)
        handle = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            written = os.write(handle, line)
            if written != len(line):
                raise OSError(f"only {written} of {len(line)} bytes were written")
        finally:
            os.close(handle)

    def _rotate_if_large(self, file: Path) -> None:
        """Rotate the file if it is large. A failure is only logged, because a long log is better than a lost line."""
        if not _is_large(file):
            return
        from filelock import FileLock, Timeout

        try:
            with FileLock(file.with_name(f"{file.name}.lock"), timeout=_LOCK_SECONDS, mode=0o600):
                if not _is_large(file):
                    return  # another process has rotated it meanwhile
                for number in range(MAX_OLD_FILES, 0, -1):
                    newer = file.with_name(f"{file.name}.{number - 1}") if number > 1 else file
                    with suppress(FileNotFoundError):
                        newer.replace(file.with_name(f"{file.name}.{number}"))
        except (OSError, Timeout) as error:
            logger.warning("The audit log %s cannot be rotated: %s", file, error)


def _is_large(file: Path) -> bool:
    """Return whether a regular file has the maximum size. Pipes and devices are never rotated."""
    try:
        status = file.stat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size >= MAX_FILE_BYTES


def keep_code(text: str | None) -> str | None:
    """Return the text if it is a code or an id; None otherwise."""
    return text if text is not None and _PLAIN.fullmatch(text) else None
