"""How a stage talks to the person behind a call, whatever protocol they speak."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from itwin_mcp.capability.access import Access


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. Everything remembered between calls is kept by `key`, so that callers never meet.

    The rest is what a verified token says of them; the one caller of a server of one's own has none.
    """

    key: str
    issuer: str | None = None
    subject: str | None = None
    groups: tuple[str, ...] = ()
    access: Access = Access.DELETE


LOCAL = Caller("local")
"""The one caller of a server that a person started for themselves."""


class Conversation(Protocol):
    """The person, or the program that asks for them."""

    async def progress(self, done: float, total: float | None, text: str) -> None:
        """Tell how far a long call has come; `text` is for people."""


class Silence:
    """Nobody listens to progress."""

    async def progress(self, done: float, total: float | None, text: str) -> None:
        """Say nothing."""
