"""Who calls: a bearer token becomes a Caller, or a refusal in words."""

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

from itwin_mcp.executor.conversation import Caller
from itwin_mcp.hosting.keys import SigningKeys
from itwin_mcp.hosting.scopes import access_of, granted

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519")
"""What a server may be told to take: signatures by a private key, and nothing else."""
DEFAULT_ALGORITHMS = ("RS256", "PS256", "ES256")
LEEWAY = 60
"""Seconds by which clocks may differ."""
LONGEST_LIFE = 24 * 3600
MOST_CHARACTERS = 16_384
MOST_GROUPS = 500

_TYPES = frozenset({"at+jwt", "application/at+jwt", "jwt"})
_OF_ID_TOKENS = ("nonce", "at_hash", "c_hash")
_COMPACT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)


class RefusedTokenError(Exception):
    """A token that is not taken. `reason` is one of few words, `told` is for whoever sent it."""

    def __init__(self, reason: str, told: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.told = told


@dataclass(frozen=True, slots=True)
class Verified:
    """What a good token says."""

    caller: Caller
    client_id: str
    scopes: frozenset[str]
    expires_at: int
    """Seconds since 1970, the leeway included."""


class Verifier:
    """Takes tokens of one issuer that were issued for this server."""

    def __init__(
        self,
        keys: SigningKeys,
        issuer: str,
        audience: str,
        *,
        algorithms: Sequence[str] = DEFAULT_ALGORITHMS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`audience` is the address of this server, which the token's `aud` must name. `clock` is for tests."""
        assert set(algorithms) <= set(ALGORITHMS)
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._algorithms = tuple(algorithms)
        self._clock = clock

    async def verify(self, token: str) -> Verified:
        """Who sent the token. Raises RefusedTokenError, KeysUnavailableError."""
        from joserfc import jwt
        from joserfc.errors import JoseError

        if len(token) > MOST_CHARACTERS:
            raise RefusedTokenError("too-large", "The token is too large")
        if _COMPACT.fullmatch(token) is None:
            raise RefusedTokenError("malformed", "The token is not a signed JWT")
        header, unproven = (_decoded(part) for part in token.split(".")[:2])
        self._check_header(header)
        self._refuse_the_platforms(unproven)
        kid = header.get("kid")
        if kid is not None and not isinstance(kid, str):
            raise RefusedTokenError("malformed", "The token's kid is no text")
        key = await self._keys.find(kid)
        if key is None:
            raise RefusedTokenError("unknown-key", "The token is signed by a key that its issuer does not have")
        try:
            claims = jwt.decode(token, key, algorithms=self._algorithms).claims  # type: ignore[arg-type]
        except (JoseError, ValueError, TypeError):
            raise RefusedTokenError("signature", "The token's signature is not its issuer's") from None
        self._check_claims(claims)
        return self._read(claims)

    def _check_header(self, header: Mapping[str, Any]) -> None:
        if header.get("alg") not in self._algorithms:
            raise RefusedTokenError("algorithm", "The token is signed in a way that is not taken here")
        if str(header.get("typ", "")).lower() not in _TYPES:
            raise RefusedTokenError("type", "The token is no access token: its typ is neither at+jwt nor JWT")

    def _refuse_the_platforms(self, claims: Mapping[str, Any]) -> None:
        """A clear word for the likeliest mistake; a token that is not for us is refused below in any case."""
        try:
            host = urlsplit(str(claims.get("iss", ""))).hostname or ""
        except ValueError:  # no address at all: somebody else's in any case
            return
        if host.endswith(".bentley.com") and not self._is_ours(claims):
            raise RefusedTokenError(
                "platform-token", "The token was issued for the iTwin Platform, not for this server: send one of ours"
            )

    def _is_ours(self, claims: Mapping[str, Any]) -> bool:
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
            raise RefusedTokenError("expired", "The token has expired") from None
        except (MissingClaimError, InvalidClaimError) as error:
            name = re.sub(r"[^a-z,]", "", str(error.claim))
            reason = {"iss": "issuer", "aud": "audience"}.get(name, "claims")
            raise RefusedTokenError(reason, f"The token's {name} is not what this server needs") from None
        except JoseError:
            raise RefusedTokenError("claims", "The token's claims cannot be read") from None
        if not 0 <= claims["exp"] - claims["iat"] <= LONGEST_LIFE:
            raise RefusedTokenError("life", "The token lives longer than a day")
        if any(name in claims for name in _OF_ID_TOKENS) or claims.get("token_use", "access") != "access":
            raise RefusedTokenError("id-token", "This is an ID token: send an access token")
        if str(claims.get("typ", "Bearer")).lower() not in (*_TYPES, "bearer"):
            raise RefusedTokenError("id-token", "This is no access token")
        if not claims["sub"]:
            raise RefusedTokenError("claims", "The token names nobody")

    def _read(self, claims: Mapping[str, Any]) -> Verified:
        client = next((claims[one] for one in ("client_id", "azp", "appid") if isinstance(claims.get(one), str)), "")
        scopes = granted(claims)
        caller = Caller(
            key=caller_key(self._issuer, claims["sub"], client),
            issuer=self._issuer,
            subject=claims["sub"],
            groups=_groups(claims),
            access=access_of(scopes),
        )
        return Verified(caller, client, scopes, int(claims["exp"]) + LEEWAY)


def caller_key(issuer: str, subject: str, client_id: str) -> str:
    """Under which everything of a caller is kept: the same subject of another issuer or application is another."""
    return hashlib.sha256(json.dumps([issuer, subject, client_id]).encode()).hexdigest()


def _groups(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """The members of `groups` and `roles`, as most sign-in servers name them."""
    found: dict[str, None] = {}
    for name in ("groups", "roles"):
        value = claims.get(name)
        if isinstance(value, list):
            found.update(dict.fromkeys(one for one in value if isinstance(one, str)))
    return tuple(found)[:MOST_GROUPS]


def _decoded(part: str) -> dict[str, Any]:
    """One part of a token, before anybody vouches for it."""
    try:
        value = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, RecursionError, binascii.Error):
        value = None
    if not isinstance(value, dict):
        raise RefusedTokenError("malformed", "The token is not a signed JWT")
    return value
