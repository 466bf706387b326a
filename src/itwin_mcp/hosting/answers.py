"""Answers that hosting gives by itself: small JSON over plain ASGI."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Answer:
    """One whole answer."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)

    async def send(self, send: Send) -> None:
        """Send it."""
        content = json.dumps(self.body, separators=(",", ":")).encode()
        told = {
            "content-type": "application/json",
            "content-length": str(len(content)),
            "cache-control": "no-store",
            **self.headers,
        }
        headers = [(name.encode(), value.encode("latin-1")) for name, value in told.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": content})


def refusal(status: int, error: str, told: str, **headers: str) -> Answer:
    """An answer that says no; `error` is a word for programs."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, {"error": error, "error_description": told}, named)
