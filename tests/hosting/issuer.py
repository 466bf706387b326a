"""Keys and tokens of a sign-in server, and a JWKS that a test controls."""

from __future__ import annotations

import base64
import functools
import json
import time
from dataclasses import dataclass, field
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from itwin_mcp.errors import Unreachable

ISSUER = "https://issuer.example"
AUDIENCE = "https://mcp.example/mcp"


@functools.cache
def rsa(name: str) -> RSAKey:
    """Return a key pair of this name, cached because creating one is slow."""
    return RSAKey.generate_key(2048, {"kid": name})


@functools.cache
def ec(name: str) -> ECKey:
    return ECKey.generate_key("P-256", {"kid": name})


def claims(**changed: Any) -> dict[str, Any]:
    """Return the claims of a valid access token, with changes; None removes a claim."""
    now = int(time.time())
    valid = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "ada",
        "client_id": "agent",
        "iat": now,
        "exp": now + 600,
        "scope": "itwin:read",
    }
    return {name: value for name, value in (valid | changed).items() if value is not None}


def token(key: Any = None, header: dict[str, Any] | None = None, **changed: Any) -> str:
    """Return a signed access token."""
    signing = key or rsa("one")
    head = {"alg": "RS256" if isinstance(signing, RSAKey) else "ES256", "kid": signing.kid, "typ": "at+jwt"}
    head = {name: value for name, value in (head | (header or {})).items() if value is not None}
    return jwt.encode(head, claims(**changed), signing, algorithms=[head["alg"]])


def unsigned(header: dict[str, Any], signature: bytes = b"", **changed: Any) -> str:
    """Return a token with any header and signature, even invalid ones."""
    parts = [json.dumps(header).encode(), json.dumps(claims(**changed)).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def public(*keys: Any) -> list[dict[str, Any]]:
    return [key.as_dict(private=False) for key in keys]


@dataclass
class Documents:
    """Replaces the fetching of documents: returns what the test sets, and records the URLs."""

    keys: list[Any] = field(default_factory=lambda: public(rsa("one")))
    fetched: list[str] = field(default_factory=list)
    down: bool = False
    discovery: dict[str, Any] = field(
        default_factory=lambda: {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/jwks"},
    )

    async def __call__(self, url: str) -> Any:
        self.fetched.append(url)
        if self.down:
            raise Unreachable("TimedOut", "no answer", hint="")
        return self.discovery if url.endswith("openid-configuration") else {"keys": self.keys}


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
