"""The state of one call between the stages: the caller, the arguments, and the user who can be asked."""

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
    """The user of a call. Caches are separated by `key`, so that callers never see data of others.

    The other fields come from the verified token of a hosted server's caller.
    """

    key: str
    issuer: str | None = None
    subject: str | None = None
    groups: tuple[str, ...] = ()
    access: Access = Access.DELETE


LOCAL = Caller("local")
"""The only caller of a local server."""

# --- talking to the user ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Confirmation:
    """Who confirmed a call, and for a person also how."""

    by: Literal["person", "two-step", "policy", "yes-flag"]
    how: Literal["multi-round", "elicitation", "terminal", "approval"] | None = None

    @property
    def word(self) -> str:
        """The confirmation in the form of the audit log: `person:elicitation`, `policy`."""
        return self.by if self.how is None else f"{self.by}:{self.how}"


@dataclass(frozen=True, slots=True)
class Reply:
    """The user's reply to a question, and the text that they typed.

    `state` is the state of the question if it was asked in an earlier call.
    """

    action: Literal["accept", "decline", "cancel", "expire"]
    confirmation: Confirmation
    typed: str = ""
    state: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class NoReply:
    """No reply within this call."""

    asked: bool = False
    """Whether the question is part of the outcome; otherwise nobody can be asked."""


class Conversation(Protocol):
    """Asks the user of a call and reports progress to them."""

    async def ask(self, question: Question) -> Reply | NoReply:
        """Ask the user to confirm a destructive call."""

    async def open_link(self, question: Question) -> str | NoReply:
        """Ask the user to open the question's `url`; return `accept`, `decline` or `cancel`."""

    def link_reply(self) -> str | None:
        """Return the user's reply to the link of an earlier call, if the client sent one."""

    async def progress(self, done: float, total: float | None, text: str) -> None:
        """Report the progress of a long call; `text` is for people."""


class NullConversation:
    """A conversation without a user: questions get no reply, and progress is dropped."""

    async def ask(self, question: Question) -> Reply | NoReply:
        return NoReply()

    async def open_link(self, question: Question) -> str | NoReply:
        return NoReply()

    def link_reply(self) -> str | None:
        return None

    async def progress(self, done: float, total: float | None, text: str) -> None:
        """Drop the report."""


# --- one call -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SaveTarget:
    """The local file for `save-list`, and the gate that permits writing it."""

    path: Path
    gate: Gate


@dataclass(frozen=True, slots=True)
class Redirect:
    """Another tool to call in place of this one. With `save` its list is written to a local file."""

    tool: Tool
    arguments: Mapping[str, Any]
    save: SaveTarget | None = None


@dataclass(frozen=True, slots=True)
class CallContext:
    """The state of a call between two stages. It is immutable: a stage returns a new one.

    `given` holds the arguments as they were sent, and later as they were converted. `arguments` holds the checked
    arguments with defaults, and later with ids in place of names. `run` sends the requests of the call.
    """

    tool: Tool
    operation: str
    """The name of the call in errors: the tool that the caller named, or the one that it runs."""
    given: Mapping[str, Any]
    run: Run
    arguments: Mapping[str, Any] = field(default_factory=dict)
    resolved: Sequence[Mapping[str, Any]] = ()
    """The answer's `resolved`: the arguments that were names, with the ids that were found."""
    permit: Permit = field(default_factory=Permit)
    confirmation: Confirmation | None = None
    save: SaveTarget | None = None
    answer: Mapping[str, Any] = field(default_factory=dict)
    blobs: tuple[Blob, ...] = ()

    @property
    def caller(self) -> Caller:
        return self.run.caller

    @property
    def conversation(self) -> Conversation:
        return self.run.conversation

    @property
    def gate(self) -> Gate:
        """The policy for this call."""
        return self.run.gate

    def with_answer(self, answer: Mapping[str, Any], *blobs: Blob) -> CallContext:
        """Return the context with the tool's answer."""
        return replace(self, answer=answer, blobs=blobs)
