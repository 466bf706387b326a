"""How a stage talks to the person behind a call, whatever protocol they speak."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

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


@dataclass(frozen=True, slots=True)
class Confirmed:
    """Whose word a call goes on; for a person's also the way it came."""

    by: Literal["person", "two-step", "policy", "yes-flag"]
    how: Literal["multi-round", "elicitation", "terminal", "approval"] | None = None

    @property
    def word(self) -> str:
        """The same in one word, for the audit log: `person:elicitation`, `policy`."""
        return self.by if self.how is None else f"{self.by}:{self.how}"


@dataclass(frozen=True, slots=True)
class Question:
    """What the person is asked before something is destroyed.

    They answer with `name`. `state` is what a client brings back that answers in a later call, sealed.
    """

    message: str
    name: str
    state: str = field(repr=False)
    seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What the person did, and typed. `state` is that of the question which was answered, if in an earlier call."""

    action: Literal["accept", "decline", "cancel", "expire"]
    confirmed: Confirmed
    typed: str = ""
    state: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Later:
    """There is no answer in this call: the question went out with its result (`asked`), or nobody can be asked."""

    asked: bool = False


class Conversation(Protocol):
    """The person, or the program that asks for them."""

    async def ask(self, question: Question) -> Answer | Later:
        """Ask before something is destroyed."""

    async def progress(self, done: float, total: float | None, text: str) -> None:
        """Tell how far a long call has come; `text` is for people."""


class Silence:
    """Nobody listens to progress, and nobody answers."""

    async def ask(self, question: Question) -> Answer | Later:
        """Nobody is there."""
        return Later()

    async def progress(self, done: float, total: float | None, text: str) -> None:
        """Say nothing."""
