"""A small sign-in server on loopback, which a test can make misbehave."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from ..loopback import Asked, Loopback, loopback  # noqa: TID252

USER_AGENT = "itwin-mcp/test"
CLIENT_ID = "service-abc"
CLIENT_SECRET = "s3cr3t:with/odd%&chars=canary-client-secret"


class Clock:
    """A wall clock and a monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.wall = 1_800_000_000.0
        self.steady = 50.0

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.steady

    def move(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


@dataclass
class Identity:
    """The state of the server, and options with which a test makes it misbehave."""

    server: Loopback = field(init=False)
    discovery: dict[str, Any] = field(default_factory=dict)
    """Overrides for the discovery document; None removes a member."""
    tokens: dict[str, Any] = field(default_factory=dict)
    """Overrides for answers of the token endpoint; None removes a member."""
    expires_in: Any = 3600
    misbehave: Callable[[Asked], Awaitable[bool]] | None = None
    """Called before the token endpoint. Returns True if it has answered the request itself."""
    rotate: bool = True
    issued: int = 0
    refresh_token: str | None = None
    """The refresh token that is valid now."""
    challenges: dict[str, str] = field(default_factory=dict)
    revoked: list[str] = field(default_factory=list)

    @property
    def issuer(self) -> str:
        return self.server.origin

    @property
    def token_requests(self) -> list[Asked]:
        return [request for request in self.server.requests if request.path == "/connect/token"]

    def seed(self) -> str:
        """Return a refresh token that is valid as if the user had signed in before."""
        self.refresh_token = "refresh-0-canary"
        return self.refresh_token

    def authorize(self, url: str, **overrides: str) -> str:
        """Return the query of the callback to which a browser is redirected after the user signed in at `url`."""
        request = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert request["response_type"] == "code"
        assert request["code_challenge_method"] == "S256"
        code = f"code-{len(self.challenges)}-canary"
        self.challenges[code] = request["code_challenge"]
        values = {"code": code, "state": request["state"], **overrides}
        return "?" + "&".join(f"{name}={value}" for name, value in values.items())

    async def handle(self, request: Asked) -> None:
        if request.path == "/.well-known/openid-configuration":
            document = {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/connect/authorize",
                "token_endpoint": f"{self.issuer}/connect/token",
                "revocation_endpoint": f"{self.issuer}/connect/revocation",
                "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
                "code_challenge_methods_supported": ["S256"],
                **self.discovery,
            }
            await request.json(200, {name: value for name, value in document.items() if value is not None})
        elif request.path == "/connect/token":
            if self.misbehave is None or not await self.misbehave(request):
                await self._grant(request)
        elif request.path == "/connect/revocation":
            self.revoked.append(request.form["token"])
            await request.answer(200)
        else:
            await request.answer(404)

    async def _grant(self, request: Asked) -> None:
        form = request.form
        kind = form["grant_type"]
        if kind == "client_credentials" and credentials_of(request) != (CLIENT_ID, CLIENT_SECRET):
            await request.json(401, {"error": "invalid_client"})
            return
        if kind == "authorization_code":
            challenge = self.challenges.pop(form["code"], None)
            sent = (
                base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=").decode()
            )
            if challenge != sent:
                await request.json(400, {"error": "invalid_grant", "error_description": "bad verifier"})
                return
        if kind == "refresh_token" and form["refresh_token"] != self.refresh_token:
            await request.json(400, {"error": "invalid_grant"})
            return
        self.issued += 1
        answer: dict[str, Any] = {
            "access_token": f"access-{self.issued}-canary",
            "token_type": "Bearer",
            "expires_in": self.expires_in,
            "scope": form.get("scope"),
        }
        if kind != "client_credentials" and self.rotate:
            self.refresh_token = answer["refresh_token"] = f"refresh-{self.issued}-canary"
        answer |= self.tokens
        await request.json(200, {name: value for name, value in answer.items() if value is not None})


def credentials_of(request: Asked) -> tuple[str, str]:
    """Return the client id and secret, from the form or from Basic with percent-encoded parts."""
    if "client_secret" in request.form:
        return request.form["client_id"], request.form["client_secret"]
    name, _, secret = base64.b64decode(request.headers["authorization"].removeprefix("Basic ")).decode().partition(":")
    return unquote(name), unquote(secret)


@asynccontextmanager
async def identity(**knobs: Any) -> AsyncIterator[Identity]:
    state = Identity(**knobs)
    async with loopback(state.handle) as server:
        state.server = server
        yield state


def jwt(**claims: Any) -> str:
    """Return a JWT with these claims and an invalid signature."""
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in ({"alg": "RS256"}, claims)
    ]
    return f"{parts[0]}.{parts[1]}.c2lnbmVk"
