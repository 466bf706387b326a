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
        approval = PendingApproval(
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
            for oldest in self.pending()[: -MAX_PENDING + 1]:
                self._path(oldest.id, "pending").unlink(missing_ok=True)
            write_file(self._path(approval.id, "pending"), json.dumps(asdict(approval)).encode())
        return approval

    def pending(self) -> list[PendingApproval]:
        """Return the waiting questions, the oldest first. Expired ones are deleted."""
        return sorted(self._load_all("pending"), key=lambda approval: approval.expires)

    def approve(self, identifier: str) -> PendingApproval | None:
        """Approve a question and return it; None if no such question is waiting."""
        approval = self.find(identifier)
        if approval is None:
            return None
        with self._reporting_unusable():
            try:
                self._path(approval.id, "pending").rename(self._path(approval.id, "approved"))
            except FileNotFoundError:
                return None
        return approval

    def find(self, identifier: str) -> PendingApproval | None:
        """Return the waiting question with this id; None if there is none."""
        wanted = identifier.strip().upper()
        return next((approval for approval in self._load_all("pending") if approval.id == wanted), None)

    def take(self, binding: str) -> PendingApproval | None:
        """Take the approval of this call, once; None if there is none."""
        for approval in self._load_all("approved"):
            if approval.binding != binding:
                continue
            taken = self._path(approval.id, f"taken-{secrets.token_hex(8)}")
            with self._reporting_unusable():
                try:
                    self._path(approval.id, "approved").rename(taken)
                except FileNotFoundError:  # another call was first
                    continue
                taken.unlink()
            return approval
        return None

    def _load_all(self, state: str) -> Iterator[PendingApproval]:
        """Yield the valid questions in this state. Delete files that are invalid or expired."""
        with self._reporting_unusable():
            files = sorted(self._folder.glob(f"*.{state}"))
        for file in files:
            if not _ID.fullmatch(file.stem):
                continue
            approval = _load(file)
            if approval is None or approval.id != file.stem or not 0 < approval.expires - self._clock() <= MAX_LIFETIME:
                with contextlib.suppress(OSError):
                    file.unlink()
                continue
            yield approval

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
    """Return the command that approves a question, without its id. It runs this installation, on the PATH or not.

    `variable` is the environment variable that sets the state folder, None for the default. On Windows the command is
    for PowerShell.
    """
    windows, program = sys.platform == "win32", "itwin-mcp"
    quote = _quote_for_powershell if windows else shlex.quote
    script = shutil.which(program)
    if script is None or Path(script).resolve().parent != Path(sys.executable).parent.resolve():
        program = f"{'& ' if windows else ''}{quote(sys.executable)} -m itwin_mcp"
    if variable is None:
        return f"{program} approve"
    folder = quote(str(state_dir.absolute()))
    return f"{f'$env:{variable}={folder};' if windows else f'{variable}={folder}'} {program} approve"


def _quote_for_powershell(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _load(file: Path) -> PendingApproval | None:
    """Return the question in a file; None if the file is invalid."""
    try:
        with file.open(encoding="utf-8") as stream:
            approval = PendingApproval(**json.loads(stream.read(_MAX_FILE)))
    except (OSError, ValueError, TypeError):
        return None
    texts = (approval.id, approval.tool, approval.binding, approval.question, approval.message, approval.name)
    objects = (approval.loses, approval.measures, approval.about)
    is_valid = isinstance(approval.expires, float) and all(isinstance(text, str) for text in texts)
    return approval if is_valid and all(isinstance(value, dict) for value in objects) else None
