"""Requests, their bodies, and answers, as frozen values between the layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

Method: TypeAlias = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


@dataclass(frozen=True, slots=True)
class JsonBody:
    """A JSON value, serialised when it is sent."""

    value: Any


@dataclass(frozen=True, slots=True)
class FormBody:
    """A form, percent-encoded when sent."""

    fields: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class TextBody:
    """Text with its media type, such as `text/plain` or `application/xml`."""

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
    """A request without a credential. The client adds the credential for its origin.

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
    """The permission that the operation needs on the platform (`x-permission`), for the hint of a 403."""


@dataclass(frozen=True, slots=True)
class Response:
    """A complete answer. Header names are lower-case."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    content: bytes = field(repr=False)


class Sender(Protocol):
    """Sends requests: an `UpstreamClient`, or a sender of `policy test --offline` that refuses them."""

    @property
    def platform(self) -> str:
        """The origin of the platform, such as `https://api.bentley.com`."""

    async def send(self, request: Request) -> Response:
        """Send one request and return an answer below 400. Raises CallError for any other outcome."""
