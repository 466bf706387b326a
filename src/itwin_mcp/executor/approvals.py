"""Questions that wait for a person on the terminal: files that only their owner can read, good for one call."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from itwin_mcp.errors import StateUnusable
from itwin_mcp.executor.preview import Preview

logger = logging.getLogger(__name__)

MOST_PENDING = 50
LONGEST = 24 * 3_600
"""Seconds. A file that says that it is good for longer was not written by us."""
_ALPHABET = "23456789ABCDEFGHJKMNPQRSTVWXYZ"
_ID = re.compile(f"[{_ALPHABET}]{{8}}")
_MAX_FILE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Pending:
    """One question: `binding` ties it to the caller, tool, arguments and ids; `expires` is in seconds since 1970."""

    id: str
    tool: str
    binding: str
    question: str
    message: str
    name: str
    loses: Mapping[str, Any]
    measures: Mapping[str, Any]
    expires: float


class Approvals:
    """The pending and given approvals of one user of this computer; several processes may use them at once.

    All methods raise StateUnusable where the folder cannot be read or written. A question is `ID.pending`, and
    `ID.approved` once the person has agreed; whoever takes it renames it away first.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._clock = clock

    def ask(self, tool: str, binding: str, preview: Preview, seconds: float) -> Pending:
        """The question for this call: the one that waits already while it shows the same, else a new one."""
        for waiting in self.pending():
            if waiting.binding == binding and waiting.name == preview.name and waiting.measures == preview.measures:
                return waiting
        asked = Pending(
            id="".join(secrets.choice(_ALPHABET) for _ in range(8)),
            tool=tool,
            binding=binding,
            question=preview.question,
            message=preview.message,
            name=preview.name,
            loses=dict(preview.loses),
            measures=dict(preview.measures),
            expires=self._clock() + seconds,
        )
        with self._usable():
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for oldest in sorted(self.pending(), key=lambda one: one.expires)[: -MOST_PENDING + 1 or None]:
                self._path(oldest.id, "pending").unlink(missing_ok=True)
            self._keep(asked)
        return asked

    def pending(self) -> list[Pending]:
        """The questions that wait, the oldest first; what has expired is deleted."""
        return sorted(self._all("pending"), key=lambda one: one.expires)

    def approve(self, identifier: str) -> Pending | None:
        """Give one; None where no such question waits."""
        found = self.find(identifier)
        if found is None:
            return None
        with self._usable():
            try:
                self._path(found.id, "pending").rename(self._path(found.id, "approved"))
            except FileNotFoundError:
                return None
        return found

    def find(self, identifier: str) -> Pending | None:
        """The question of this id that waits."""
        wanted = identifier.strip().upper()
        return next((one for one in self._all("pending") if one.id == wanted), None)

    def take(self, binding: str) -> Pending | None:
        """The approval of this call, for the one who takes it; None where there is none."""
        for found in self._all("approved"):
            if found.binding != binding:
                continue
            taken = self._path(found.id, f"taken-{secrets.token_hex(8)}")
            with self._usable():
                try:
                    self._path(found.id, "approved").rename(taken)
                except FileNotFoundError:  # another call was first
                    continue
                taken.unlink()
            return found
        return None

    def _all(self, state: str) -> Iterator[Pending]:
        with self._usable():
            files = sorted(self._folder.glob(f"*.{state}"))
        for file in files:
            if not _ID.fullmatch(file.stem):
                continue
            found = _load(file)
            if found is None or found.id != file.stem or not 0 < found.expires - self._clock() <= LONGEST:
                with contextlib.suppress(OSError):
                    file.unlink()
                continue
            yield found

    def _keep(self, asked: Pending) -> None:
        """Write the question beside its place first: nobody reads half of one."""
        temporary = self._path(asked.id, "new")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                json.dump(asdict(asked), stream)
            temporary.rename(self._path(asked.id, "pending"))
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    @contextlib.contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            logger.error("The folder %s cannot be used: %s", self._folder, error.strerror or error)
            raise StateUnusable from None

    def _path(self, identifier: str, state: str) -> Path:
        return self._folder / f"{identifier}.{state}"


def approve_command(variable: str | None, state_dir: Path) -> str:
    """What a person types before the id: this very installation, which may be on nobody's PATH.

    `variable` is the one that says where the state folder is, None for its usual place. On Windows it is written for
    PowerShell.
    """
    windows, program = sys.platform == "win32", "itwin-mcp"
    quoted = _single if windows else shlex.quote
    found = shutil.which(program)
    if found is None or Path(found).resolve().parent != Path(sys.executable).parent.resolve():
        program = f"{'& ' if windows else ''}{quoted(sys.executable)} -m itwin_mcp"
    if variable is None:
        return f"{program} approve"
    folder = quoted(str(state_dir.absolute()))
    return f"{f'$env:{variable}={folder};' if windows else f'{variable}={folder}'} {program} approve"


def _single(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _load(file: Path) -> Pending | None:
    """What a file holds; None where it is not one of ours."""
    try:
        with file.open(encoding="utf-8") as stream:
            found = Pending(**json.loads(stream.read(_MAX_FILE)))
    except (OSError, ValueError, TypeError):
        return None
    texts = (found.id, found.tool, found.binding, found.question, found.message, found.name)
    whole = all(isinstance(text, str) for text in texts) and isinstance(found.expires, float)
    return found if whole and isinstance(found.loses, dict) and isinstance(found.measures, dict) else None
