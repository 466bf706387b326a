"""Questions that wait for the user's terminal: one file each, readable by its owner only, for one call."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from itwin_mcp.atomic_files import write_file
from itwin_mcp.errors import StateUnusable
from itwin_mcp.executor.confirmation.preview import Losses

logger = logging.getLogger(__name__)

MAX_PENDING = 50
MAX_LIFETIME = 24 * 3_600
"""Seconds. A file with a later expiry was not written by this program."""
_ALPHABET = "23456789ABCDEFGHJKMNPQRSTVWXYZ"
_ID = re.compile(f"[{_ALPHABET}]{{8}}")
_MAX_FILE = 64 * 1024


@dataclass(frozen=True, slots=True)
class PendingApproval:
    """A stored request to confirm one call. `binding` is the call's fingerprint; `expires` is in Unix seconds."""

    id: str
    tool: str
    binding: str
    question: str
    message: str
    name: str
    loses: Mapping[str, Any]
    measures: Mapping[str, Any]
    expires: float
    about: Mapping[str, Any] = field(default_factory=dict)


class Approvals:
    """The pending and approved questions of one user of this computer; several processes may use them at once.

    A question is the file `ID.pending`, and `ID.approved` once the user has agreed. A call that takes an approval
    renames the file first, so that of several calls only one gets it.

    Raises: StateUnusable from every method if the folder cannot be read or written.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._clock = clock

    def ask(self, tool: str, binding: str, losses: Losses, seconds: float) -> PendingApproval:
        """Return the question for this call: the waiting one if it shows the same, else a new one."""
        for waiting in self.pending():
            if waiting.binding == binding and waiting.name == losses.name and waiting.measures == losses.measures:
                return waiting
        asked = PendingApproval(
            id="".join(secrets.choice(_ALPHABET) for _ in range(8)),
            tool=tool,
            binding=binding,
            question=losses.question,
            message=losses.message,
            name=losses.name,
            loses=dict(losses.loses),
            measures=dict(losses.measures),
            expires=self._clock() + seconds,
            about=dict(losses.about),
        )
        with self._reporting_unusable():
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for oldest in sorted(self.pending(), key=lambda one: one.expires)[: -MAX_PENDING + 1 or None]:
                self._path(oldest.id, "pending").unlink(missing_ok=True)
            self._write(asked)
        return asked

    def pending(self) -> list[PendingApproval]:
        """Return the waiting questions, the oldest first. Expired ones are deleted."""
        return sorted(self._all("pending"), key=lambda one: one.expires)

    def approve(self, identifier: str) -> PendingApproval | None:
        """Approve a question and return it; None if no such question is waiting."""
        found = self.find(identifier)
        if found is None:
            return None
        with self._reporting_unusable():
            try:
                self._path(found.id, "pending").rename(self._path(found.id, "approved"))
            except FileNotFoundError:
                return None
        return found

    def find(self, identifier: str) -> PendingApproval | None:
        """Return the waiting question of this id."""
        wanted = identifier.strip().upper()
        return next((one for one in self._all("pending") if one.id == wanted), None)

    def take(self, binding: str) -> PendingApproval | None:
        """Take the approval of this call, once; None if there is none."""
        for found in self._all("approved"):
            if found.binding != binding:
                continue
            taken = self._path(found.id, f"taken-{secrets.token_hex(8)}")
            with self._reporting_unusable():
                try:
                    self._path(found.id, "approved").rename(taken)
                except FileNotFoundError:  # another call was first
                    continue
                taken.unlink()
            return found
        return None

    def _all(self, state: str) -> Iterator[PendingApproval]:
        with self._reporting_unusable():
            files = sorted(self._folder.glob(f"*.{state}"))
        for file in files:
            if not _ID.fullmatch(file.stem):
                continue
            found = _load(file)
            if found is None or found.id != file.stem or not 0 < found.expires - self._clock() <= MAX_LIFETIME:
                with contextlib.suppress(OSError):
                    file.unlink()
                continue
            yield found

    def _write(self, asked: PendingApproval) -> None:
        write_file(self._path(asked.id, "pending"), json.dumps(asdict(asked)).encode())

    @contextlib.contextmanager
    def _reporting_unusable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            logger.error("The folder %s cannot be used: %s", self._folder, error.strerror or error)
            raise StateUnusable from None

    def _path(self, identifier: str, state: str) -> Path:
        return self._folder / f"{identifier}.{state}"


def approve_command(variable: str | None, state_dir: Path) -> str:
    """Return what the user types before the id: this installation, which need not be on the PATH.

    `variable` is the environment variable that sets the state folder, None for the default. On Windows the command is
    for PowerShell.
    """
    windows, program = sys.platform == "win32", "itwin-mcp"
    quoted = _quote_for_powershell if windows else shlex.quote
    found = shutil.which(program)
    if found is None or Path(found).resolve().parent != Path(sys.executable).parent.resolve():
        program = f"{'& ' if windows else ''}{quoted(sys.executable)} -m itwin_mcp"
    if variable is None:
        return f"{program} approve"
    folder = quoted(str(state_dir.absolute()))
    return f"{f'$env:{variable}={folder};' if windows else f'{variable}={folder}'} {program} approve"


def _quote_for_powershell(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _load(file: Path) -> PendingApproval | None:
    """Return the question in a file; None if it is not one."""
    try:
        with file.open(encoding="utf-8") as stream:
            found = PendingApproval(**json.loads(stream.read(_MAX_FILE)))
    except (OSError, ValueError, TypeError):
        return None
    texts = (found.id, found.tool, found.binding, found.question, found.message, found.name)
    whole = all(isinstance(text, str) for text in texts) and isinstance(found.expires, float)
    objects = (found.loses, found.measures, found.about)
    return found if whole and all(isinstance(one, dict) for one in objects) else None
