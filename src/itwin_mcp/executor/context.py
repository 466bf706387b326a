"""What a call knows of itself on its way through the stages: who calls, with which arguments, and who can be asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from itwin_mcp.capability.tool_actions import Access
from itwin_mcp.executor.outcome import Blob, Question
from itwin_mcp.executor.policy.rules import Permit

if TYPE_CHECKING:
    from itwin_mcp.capability.catalog import Tool
    from itwin_mcp.executor.policy.gatekeeper import Gate
    from itwin_mcp.executor.sending import Run


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. Everything remembered between calls is kept by `key`, so that callers never meet.

    The rest is what a verified token says of them; the caller of a local server has none.
    """

    key: str
    issuer: str | None = None
    subject: str | None = None
    groups: tuple[str, ...] = ()
    access: Access = Access.DELETE


LOCAL = Caller("local")
"""The one caller of a server that a person started for themselves."""

# --- talking to the user ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Confirmation:
    """Who confirmed a call; for a person also how."""

    by: Literal["person", "two-step", "policy", "yes-flag"]
    how: Literal["multi-round", "elicitation", "terminal", "approval"] | None = None

    @property
    def word(self) -> str:
        """The same in one word, for the audit log: `person:elicitation`, `policy`."""
        return self.by if self.how is None else f"{self.by}:{self.how}"


@dataclass(frozen=True, slots=True)
class Reply:
    """What the user did with a question, and typed. `state` is the question's, if it was asked in an earlier call."""

    action: Literal["accept", "decline", "cancel", "expire"]
    confirmation: Confirmation
    typed: str = ""
    state: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class NoReply:
    """There is no reply in this call: the question goes out with the outcome (`asked`), or nobody can be asked."""

    asked: bool = False


class Conversation(Protocol):
    """The user behind a call, or the program that asks them."""

    async def ask(self, question: Question) -> Reply | NoReply:
        """Ask before something is destroyed."""

    async def open_link(self, question: Question) -> str | NoReply:
        """Ask the user to open the question's `url`; return `accept`, `decline` or `cancel`."""

    def link_reply(self) -> str | None:
        """Return what the user did with the link of an earlier call, if the client brought it back."""

    async def progress(self, done: float, total: float | None, text: str) -> None:
        """Report how far a long call has come; `text` is for people."""


class NullConversation:
    """Nobody reads progress, and nobody answers."""

    async def ask(self, question: Question) -> Reply | NoReply:
        """Nobody can be asked."""
        return NoReply()

    async def open_link(self, question: Question) -> str | NoReply:
        """Nobody can be asked."""
        return NoReply()

    def link_reply(self) -> str | None:
        """There was no earlier call."""
        return None

    async def progress(self, done: float, total: float | None, text: str) -> None:
        """Report nothing."""


# --- one call -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SaveTarget:
    """The local file into which a call's list goes (`save-list`), and the gate that its writing passes."""

    path: Path
    gate: Gate


@dataclass(frozen=True, slots=True)
class Redirect:
    """Another tool to call in place of this one; with `save` its list goes into a local file."""

    tool: Tool
    arguments: Mapping[str, Any]
    save: SaveTarget | None = None


@dataclass(frozen=True, slots=True)
class CallContext:
    """One call between two stages; a stage returns the next one, and changes none.

    `given` holds the arguments as they were sent, then converted; `arguments` the checked ones with defaults, then with
    ids in place of names. `run` sends the call's requests, under the permit that the call has so far.
    """

    tool: Tool
    operation: str
    """What errors call the call: the tool that the caller named, or the one that it runs."""
    given: Mapping[str, Any]
    run: Run
    arguments: Mapping[str, Any] = field(default_factory=dict)
    resolved: Sequence[Mapping[str, Any]] = ()
    """Which argument was taken for which id."""
    permit: Permit = field(default_factory=Permit)
    confirmation: Confirmation | None = None
    save: SaveTarget | None = None
    answer: Mapping[str, Any] = field(default_factory=dict)
    blobs: tuple[Blob, ...] = ()

    @property
    def caller(self) -> Caller:
        """Who calls."""
        return self.run.caller

    @property
    def conversation(self) -> Conversation:
        """The user behind the call."""
        return self.run.conversation

    @property
    def gate(self) -> Gate:
        """What the call may do."""
        return self.run.gate

    def with_answer(self, answer: Mapping[str, Any], *blobs: Blob) -> CallContext:
        """Return the context with what the tool answers."""
        return replace(self, answer=answer, blobs=blobs)
