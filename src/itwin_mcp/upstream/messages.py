"""A request before authentication, its body, and the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

Method: TypeAlias = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


@dataclass(frozen=True, slots=True)
class JsonBody:
    """A JSON value; it is serialised when sent, never spliced from text."""

    value: Any


@dataclass(frozen=True, slots=True)
class FormBody:
    """A form, percent-encoded when sent."""

    fields: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class TextBody:
    """Text in a media type of its own (`text/plain`, `application/xml` …)."""

    text: str
    media_type: str


@dataclass(frozen=True, slots=True)
class FileUpload:
    """The bytes of a local file, streamed when sent."""

    path: Path
    media_type: str


Body: TypeAlias = JsonBody | FormBody | TextBody | FileUpload


@dataclass(frozen=True, slots=True)
class Request:
    """One request before authentication; its origin decides the credential.

    `origin` is `https://host[:port]`, without a path; `path` is already percent-encoded and begins with `/`;
    `query` pairs are raw text, encoded when sent.
    """

    method: Method
    origin: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    body: Body | None = None
    permission: str | None = None
    """What the caller needs on the platform (`x-permission`), for the hint of a 403."""


@dataclass(frozen=True, slots=True)
class Response:
    """One answer, read whole; header names are lower-case."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    content: bytes = field(repr=False)


class Sender(Protocol):
    """Sends requests. `UpstreamClient` is one; `policy test --offline` has another that refuses."""

    @property
    def platform(self) -> str:
        """The origin of the platform, such as `https://api.bentley.com`."""

    async def send(self, request: Request) -> Response:
        """Send one request and return an answer below 400. Raises CallError for any other outcome."""
