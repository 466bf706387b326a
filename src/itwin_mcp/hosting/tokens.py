"""Access tokens of callers: verifies them (RFC 9068), and reads the caller and the scopes."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from itwin_mcp.capability.tool_actions import Access
from itwin_mcp.executor.context import Caller
from itwin_mcp.hosting.signing_keys import SigningKeys

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519")
"""The algorithms that can be configured. All of them sign with a private key."""
DEFAULT_ALGORITHMS = ("RS256", "PS256", "ES256")
LEEWAY = 60
"""The difference between clocks that is tolerated, in seconds."""
MAX_LIFETIME = 24 * 3600
"""The most seconds between a token's issue and its expiry."""
MAX_CHARACTERS = 16_384
MAX_GROUPS = 500
SCOPES: Mapping[str, Access] = {
    f"itwin:{access.name.lower()}": access for access in Access if access is not Access.NONE
}
"""`itwin:read`, `itwin:write` and `itwin:delete`. Each scope includes the previous ones."""

_TYPES = frozenset({"at+jwt", "application/at+jwt", "jwt"})
_ID_TOKEN_CLAIMS = ("nonce", "at_hash", "c_hash")
_COMPACT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)


class TokenRejected(Exception):
    """A token is not accepted. `reason` is a metrics label, and the response contains `description`."""

    def __init__(self, reason: str, description: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.description = description


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """The contents of a valid token."""

    caller: Caller
    client_id: str
    scopes: frozenset[str]
    expires_at: int
    """Seconds since 1970, including the leeway."""


class TokenVerifier:
    """Verifies the tokens that one issuer issues for this server."""

    def __init__(
        self,
        keys: SigningKeys,
        issuer: str,
        audience: str,
        *,
        algorithms: Sequence[str] = DEFAULT_ALGORITHMS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`audience` is the public address of this server, as in the token's `aud`. `clock` returns Unix time."""
        assert set(algorithms) <= set(ALGORITHMS)
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._algorithms = tuple(algorithms)
        self._clock = clock

    async def verify(self, token: str) -> VerifiedToken:
        """Verify a token's signature and claims, and return its contents. Raises TokenRejected, KeysUnavailable."""
        from joserfc import jwt
        from joserfc.errors import JoseError

        if len(token) > MAX_CHARACTERS:
            raise TokenRejected("too-large", "The token is too large")
        if _COMPACT.fullmatch(token) is None:
            raise TokenRejected("malformed", "The token is not a signed JWT")
        header, unverified_claims = (_decode_part(part) for part in token.split(".")[:2])
        if header.get("alg") not in self._algorithms:
            raise TokenRejected("algorithm", "The token's signing algorithm is not accepted")
        if str(header.get("typ", "")).lower() not in _TYPES:
            raise TokenRejected("type", "The token is not an access token: its typ is neither at+jwt nor JWT")
        self._reject_platform_token(unverified_claims)
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

    def _reject_platform_token(self, claims: Mapping[str, Any]) -> None:
        """Reject a token of the iTwin Platform with a clear message, because this is the likeliest mistake.

        The claims are not verified yet. That is safe, because this check only rejects.
        """
        try:
            host = urlsplit(str(claims.get("iss", ""))).hostname or ""
        except ValueError:  # not a URL, so not the platform
            return
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        is_for_us = claims.get("iss") == self._issuer and self._audience in audiences
        if host.endswith(".bentley.com") and not is_for_us:
            raise TokenRejected(
                "platform-token",
                "The token was issued for the iTwin Platform, not for this server: sign in to this server",
            )

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
            access=max((SCOPES.get(scope, Access.NONE) for scope in scopes), default=Access.NONE),
        )
        return VerifiedToken(caller, client, scopes, int(claims["exp"]) + LEEWAY)


def derive_caller_key(issuer: str, subject: str, client_id: str) -> str:
    """Return the key that separates a caller's state from that of others.

    The same subject is a different caller if another issuer or another application signed it in.
    """
    return hashlib.sha256(json.dumps([issuer, subject, client_id]).encode()).hexdigest()


def list_scopes(access: Access) -> list[str]:
    """Return all scopes up to an access, because a sign-in server may not know that one scope includes others."""
    return [scope for scope, included in SCOPES.items() if included <= access]


def _read_scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """Return the scopes in `scope` or `scp`, each a space-separated string or an array."""
    texts = [claims[name] for name in ("scope", "scp") if isinstance(claims.get(name), str)]
    return frozenset((*_read_arrays(claims, "scope", "scp"), *" ".join(texts).split()))


def _read_groups(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the caller's groups in `groups` and `roles`, the claims that most sign-in servers use."""
    return tuple(dict.fromkeys(_read_arrays(claims, "groups", "roles")))[:MAX_GROUPS]


def _read_arrays(claims: Mapping[str, Any], *names: str) -> list[str]:
    """Return the strings in the arrays of several claims."""
    arrays = [claims[name] for name in names if isinstance(claims.get(name), list)]
    return [text for array in arrays for text in array if isinstance(text, str)]


def _decode_part(part: str) -> dict[str, Any]:
    """Decode the header or the claims of a token without verifying anything."""
    try:
        value = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, RecursionError, binascii.Error):
        value = None
    if not isinstance(value, dict):
        raise TokenRejected("malformed", "The token is not a signed JWT")
    return value
