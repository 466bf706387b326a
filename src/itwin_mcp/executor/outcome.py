"""The possible results of a call. `server/results.py` converts them to MCP, `cli/` to text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from itwin_mcp.errors import CallError


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes and their media type."""

    media_type: str
    content: bytes = field(repr=False)

    @property
    def is_picture(self) -> bool:
        """Whether the bytes are a picture, which clients can show."""
        return self.media_type.startswith("image/")


@dataclass(frozen=True, slots=True)
class Result:
    """The tool's answer: an object, the same object as compact JSON, and bytes such as a picture."""

    answer: Mapping[str, Any]
    text: str = ""
    blobs: tuple[Blob, ...] = ()


@dataclass(frozen=True, slots=True)
class JobPending:
    """The platform is still working; the answer's `job` says which tool checks on it."""

    answer: Mapping[str, Any]
    text: str = ""


@dataclass(frozen=True, slots=True)
class Preview:
    """Nothing was changed: the answer's `preview` shows what would be lost, and how the user approves it."""

    answer: Mapping[str, Any]
    text: str = ""
    waits: bool = False
    """Whether the question waits for a reply after the call: on a terminal, or through the model."""


@dataclass(frozen=True, slots=True)
class Question:
    """Nothing was changed: the client shows the question, and calls again with the user's reply.

    The user types `name`, or opens `url`. `state` is sealed; the client brings it back with the reply. While a
    call is held open, the question expires after `seconds`.
    """

    message: str
    name: str = ""
    state: str = field(default="", repr=False)
    seconds: float = 0.0
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """The call failed; the answer is its `error`."""

    answer: Mapping[str, Any]
    error: CallError
    text: str = ""


Answered: TypeAlias = Result | JobPending | Preview | Failure
Outcome: TypeAlias = Answered | Question
