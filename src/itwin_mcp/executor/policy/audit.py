"""The audit log: one JSON line for every decision on a write; ids and codes, never a value, a name or a secret."""

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
"""Refused before anything was sent, also for a confirmation that is no valid yes (expired, used, forged, or for another
call); the user was asked; they themselves said no; about to be sent; what came of it."""

_PLAIN = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
"""What a line may hold of foreign origin: a code or an id, never text."""


MAX_FILE_BYTES = 10 * 1024 * 1024
"""A longer file is renamed to `….1` before the next line, and `….1` to `….2`, and so on."""
MAX_OLD_FILES = 9
_LOCK_SECONDS = 5.0


class Audit:
    """Appends lines to a file, or to standard error. A file of more than `MAX_FILE_BYTES` is rotated.

    The file is opened for each line and written once, so that lines of several processes never mix, and a file that was
    moved away is created again. A line survives the end of the process; it is not forced onto the disk.
    """

    def __init__(self, file: Path | None, clock: Callable[[], float]) -> None:
        """`file` is None for standard error; `clock` returns seconds since 1970."""
        self._file = file
        self._clock = clock

    async def before(self, decision: Decision, facts: Mapping[str, Any]) -> None:
        """Write a decision before its request. Raises AuditFailed if it cannot be written; nothing is sent then."""
        try:
            await self._append(decision, facts)
        except OSError as error:
            where = self._file or "standard error"
            logger.error("The audit log %s cannot be written: %s", where, error.strerror or error)
            raise AuditFailed from None

    async def after(self, decision: Decision, facts: Mapping[str, Any]) -> None:
        """Write what has happened. If it cannot be written, that is only logged: the request is not undone."""
        try:
            with anyio.CancelScope(shield=True):
                await self._append(decision, facts)
        except OSError as error:
            logger.error("The audit log lacks %s %s: %s", decision, facts.get("operation"), error.strerror or error)

    async def _append(self, decision: Decision, facts: Mapping[str, Any]) -> None:
        moment = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")
        line = {"time": moment.replace("+00:00", "Z"), "decision": decision, **facts}
        known = {name: value for name, value in line.items() if value is not None}
        text = json.dumps(known, ensure_ascii=True, separators=(",", ":")) + "\n"
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
        """Rotate the file. If that fails the line is still written: a log that is too long is better than none."""
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
    """Return whether it is a regular file of the maximum size; a pipe or a device is never rotated."""
    try:
        status = file.stat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size >= MAX_FILE_BYTES


def keep_code(text: str | None) -> str | None:
    """Return a foreign code or id; None for any other text."""
    return text if text is not None and _PLAIN.fullmatch(text) else None
