"""The result of one check."""

from __future__ import annotations

from dataclasses import dataclass

OK, FAILED, NOTED, SKIPPED = "ok", "failed", "noted", "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    """The result of a check. `fix` says what to do; it is empty if the check passed or was skipped."""

    name: str
    status: str
    said: str
    """The finding, such as `none is set`."""
    fix: str = ""
