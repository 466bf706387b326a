"""Access tokens of callers: verifying one (RFC 9068) and reading who calls, with which scopes."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from itwin_mcp.capability.tool_actions import Access
from itwin_mcp.executor.context import Caller
from itwin_mcp.hosting.signing_keys import SigningKeys

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519")
"""The algorithms that can be configured: only signatures by a private key."""
DEFAULT_ALGORITHMS = ("RS256", "PS256", "ES256")
LEEWAY = 60
"""Seconds by which clocks may differ."""
MAX_LIFETIME = 24 * 3600
"""Seconds between a token's issue and its expiry."""
MAX_CHARACTERS = 16_384
MAX_GROUPS = 500
SCOPES: Mapping[str, Access] = {
    f"itwin:{access.name.lower()}": access for access in Access if access is not Access.NONE
}
"""`itwin:read`, `itwin:write` and `itwin:delete`; each includes the ones before."""

_TYPES = frozenset({"at+jwt", "application/at+jwt", "jwt"})
_ID_TOKEN_CLAIMS = ("nonce", "at_hash", "c_hash")
_COMPACT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)


class TokenRejected(Exception):
    """A token is not accepted. `reason` is a metrics label, `description` is for whoever sent the token."""

    def __init__(self, reason: str, description: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.description = description


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """What a valid token says."""

    caller: Caller
    client_id: str
    scopes: frozenset[str]
    expires_at: int
    """Seconds since 1970, including the leeway."""


class TokenVerifier:
    """Verifies tokens that one issuer issued for this server."""

    def __init__(
        self,
        keys: SigningKeys,
        issuer: str,
        audience: str,
        *,
        algorithms: Sequence[str] = DEFAULT_ALGORITHMS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`audience` is the address of this server, which the token's `aud` must name. `clock` returns Unix time."""
        assert set(algorithms) <= set(ALGORITHMS)
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._algorithms = tuple(algorithms)
        self._clock = clock

    async def verify(self, token: str) -> VerifiedToken:
        """Verify a token's signature and claims, and return what it says. Raises TokenRejected, KeysUnavailable."""
        from joserfc import jwt
        from joserfc.errors import JoseError

        if len(token) > MAX_CHARACTERS:
            raise TokenRejected("too-large", "The token is too large")
        if _COMPACT.fullmatch(token) is None:
            raise TokenRejected("malformed", "The token is not a signed JWT")
        header, unproven = (_decode_part(part) for part in token.split(".")[:2])
        self._check_header(header)
        self._reject_platform_token(unproven)
        kid = header.get("kid")
        if kid is not None and not isinstance(kid, str):
            raise TokenRejected("malformed", "The token's kid is not a string")
        key = await self._keys.find(kid)
        if key is None:
            raise TokenRejected("unknown-key", "The token is signed by a key that its issuer does not publish")
        try:
            claims = jwt.decode(token, key, algorithms=self._algorithms).claims  # type: ignore[arg-type]
        except (JoseError, ValueError, TypeError):
            raise TokenRejected("signature", "The token's signature is not valid") from None
        self._check_claims(claims)
        return self._read_claims(claims)

    def _check_header(self, header: Mapping[str, Any]) -> None:
        if header.get("alg") not in self._algorithms:
            raise TokenRejected("algorithm", "The token's signing algorithm is not accepted")
        if str(header.get("typ", "")).lower() not in _TYPES:
            raise TokenRejected("type", "The token is not an access token: its typ is neither at+jwt nor JWT")

    def _reject_platform_token(self, claims: Mapping[str, Any]) -> None:
        """Reject a token of the iTwin Platform with a clear message, because this is the likeliest mistake.

        The claims are unverified here. That is safe: this only rejects, and such a token fails later anyway.
        """
        try:
            host = urlsplit(str(claims.get("iss", ""))).hostname or ""
        except ValueError:  # not a URL, so not the platform
            return
        if host.endswith(".bentley.com") and not self._is_for_us(claims):
            raise TokenRejected(
                "platform-token",
                "The token was issued for the iTwin Platform, not for this server: sign in to this server",
            )

    def _is_for_us(self, claims: Mapping[str, Any]) -> bool:
        audience = claims.get("aud")
        named = audience if isinstance(audience, list) else [audience]
        return claims.get("iss") == self._issuer and self._audience in named

    def _check_claims(self, claims: Mapping[str, Any]) -> None:
        from joserfc.errors import ExpiredTokenError, InvalidClaimError, JoseError, MissingClaimError
        from joserfc.jwt import JWTClaimsRegistry

        registry = JWTClaimsRegistry(
            now=int(self._clock()),
            leeway=LEEWAY,
            iss={"essential": True, "value": self._issuer},
            aud={"essential": True, "value": self._audience},
            exp={"essential": True},
            iat={"essential": True},
            sub={"essential": True},
        )
        try:
            registry.validate(dict(claims))
        except ExpiredTokenError:
            raise TokenRejected("expired", "The token has expired") from None
        except (MissingClaimError, InvalidClaimError) as error:
            name = re.sub(r"[^a-z,]", "", str(error.claim))
            reason = {"iss": "issuer", "aud": "audience"}.get(name, "claims")
            raise TokenRejected(reason, f"The token's {name} is not what this server requires") from None
        except JoseError:
            raise TokenRejected("claims", "The token's claims cannot be read") from None
        if not 0 <= claims["exp"] - claims["iat"] <= MAX_LIFETIME:
            raise TokenRejected("life", "The token is valid for more than a day")
        if any(name in claims for name in _ID_TOKEN_CLAIMS) or claims.get("token_use", "access") != "access":
            raise TokenRejected("id-token", "This is an ID token: send an access token")
        if str(claims.get("typ", "Bearer")).lower() not in (*_TYPES, "bearer"):
            raise TokenRejected("id-token", "This is not an access token")
        if not claims["sub"]:
            raise TokenRejected("claims", "The token's sub is empty")

    def _read_claims(self, claims: Mapping[str, Any]) -> VerifiedToken:
        client = next((claims[name] for name in ("client_id", "azp", "appid") if isinstance(claims.get(name), str)), "")
        scopes = _read_scopes(claims)
        caller = Caller(
            key=derive_caller_key(self._issuer, claims["sub"], client),
            issuer=self._issuer,
            subject=claims["sub"],
            groups=_read_groups(claims),
            access=_find_access(scopes),
        )
        return VerifiedToken(caller, client, scopes, int(claims["exp"]) + LEEWAY)


def derive_caller_key(issuer: str, subject: str, client_id: str) -> str:
    """Return the key under which a caller's state is stored.

    The same subject signed in by another issuer, or through another application, is another caller.
    """
    return hashlib.sha256(json.dumps([issuer, subject, client_id]).encode()).hexdigest()


def list_scopes(access: Access) -> list[str]:
    """Return the scopes up to an access, all named, so that a sign-in server need not know which includes which."""
    return [scope for scope, included in SCOPES.items() if included <= access]


def _find_access(scopes: Iterable[str]) -> Access:
    """Return the highest access that any of the scopes grants. Unknown scopes grant none."""
    return max((SCOPES.get(scope, Access.NONE) for scope in scopes), default=Access.NONE)


def _read_scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """Return the scopes in `scope` or `scp`, each a space-separated string or an array."""
    scopes: set[str] = set()
    for name in ("scope", "scp"):
        value = claims.get(name)
        if isinstance(value, str):
            scopes.update(value.split())
        elif isinstance(value, list):
            scopes.update(scope for scope in value if isinstance(scope, str))
    return frozenset(scopes)


def _read_groups(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the members of `groups` and `roles`, the claims that most sign-in servers use."""
    groups: dict[str, None] = {}
    for name in ("groups", "roles"):
        value = claims.get(name)
        if isinstance(value, list):
            groups.update(dict.fromkeys(group for group in value if isinstance(group, str)))
    return tuple(groups)[:MAX_GROUPS]


def _decode_part(part: str) -> dict[str, Any]:
    """Decode one part of a token; nothing in it is verified."""
    try:
        value = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, RecursionError, binascii.Error):
        value = None
    if not isinstance(value, dict):
        raise TokenRejected("malformed", "The token is not a signed JWT")
    return value
