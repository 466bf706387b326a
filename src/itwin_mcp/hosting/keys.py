"""The keys by which the sign-in server signs tokens: its JWKS, remembered, and asked for again no more than needed."""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

import anyio

from itwin_mcp.errors import CallError

logger = logging.getLogger(__name__)

FRESH_SECONDS = 3600.0
STALE_SECONDS = 24 * 3600.0
"""How long keys are still good while the sign-in server cannot be reached."""
UNKNOWN_SECONDS = 60.0
"""How often a key that we do not have may make us ask again: anybody can name one in a token."""
RETRY_SECONDS = 5.0
"""How long after a failure we ask again when there are no keys at all."""
MOST_KEYS = 100
LEAST_RSA_BYTES = 256

Fetch = Callable[[str], Awaitable[Any]]


class Key(Protocol):
    """A public key of joserfc."""

    @property
    def kid(self) -> str | None:
        """The name under which tokens refer to it."""


class KeysUnavailableError(Exception):
    """The sign-in server gave no keys, and there are none from before."""


class SigningKeys:
    """The keys of one issuer. `fetch` gives a JSON document or raises an error of the CallError family."""

    def __init__(
        self, fetch: Fetch, issuer: str, jwks_url: str | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Without `jwks_url` the issuer's discovery document names it."""
        self._fetch = fetch
        self._issuer = issuer
        self._given_url = jwks_url
        self._clock = clock
        self._lock = anyio.Lock()
        self._keys: tuple[Key, ...] = ()
        self._read = float("-inf")
        """When the keys that we have came."""
        self._asked = float("-inf")
        """When we last asked, whatever came of it."""

    async def find(self, kid: str | None) -> Key | None:
        """The key of this name; without a name the only one there is. Raises KeysUnavailableError."""
        key = self._among(kid)
        if key is not None and (self._clock() - self._read <= FRESH_SECONDS or self._lock.locked()):
            return key  # while one caller asks for fresh keys, the others go on with those we have
        async with self._lock:
            if self._should_ask(kid):
                await self._ask()
        if not self._keys:
            raise KeysUnavailableError
        return self._among(kid)

    def _among(self, kid: str | None) -> Key | None:
        if self._clock() - self._read > STALE_SECONDS:
            self._keys = ()
        if kid is None:
            return self._keys[0] if len(self._keys) == 1 else None
        return next((key for key in self._keys if key.kid == kid), None)

    def _should_ask(self, kid: str | None) -> bool:
        waited = self._clock() - self._asked
        if not self._keys:
            return waited >= RETRY_SECONDS
        old = self._clock() - self._read > FRESH_SECONDS
        return (old or self._among(kid) is None) and waited >= UNKNOWN_SECONDS

    async def _ask(self) -> None:
        self._asked = self._clock()
        try:
            with anyio.CancelScope(shield=True):  # a caller who gives up must not leave the others without keys
                keys = read_keys(await self._fetch(await self._url()))
        except CallError as error:
            logger.warning("No keys from the sign-in server %s: %s", self._issuer, error.message)
            return
        if not keys:
            logger.warning("The sign-in server %s gives no key that can be used", self._issuer)
            return
        self._keys, self._read = keys, self._clock()

    async def _url(self) -> str:
        if self._given_url is not None:
            return self._given_url
        document = await self._fetch(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
        if not isinstance(document, dict) or document.get("issuer") != self._issuer:
            raise _no_keys("its discovery document is of another issuer", self._issuer)
        url = document.get("jwks_uri")
        if not isinstance(url, str) or urlsplit(url).scheme not in ("https", "http"):
            raise _no_keys("its discovery document names no jwks_uri", self._issuer)
        return url


def _no_keys(why: str, issuer: str) -> CallError:
    return CallError("NoKeys", f"{issuer}: {why}.", hint="Set ITWIN_MCP_AUTH_JWKS_URL.")


def read_keys(document: Any) -> tuple[Key, ...]:
    """The public keys for signatures in a JWKS. One that cannot be read spoils none of the others."""
    listed = document.get("keys") if isinstance(document, Mapping) else None
    keys = (_key(one) for one in listed[:MOST_KEYS]) if isinstance(listed, list) else ()
    return tuple(key for key in keys if key is not None)


def _key(described: Any) -> Key | None:
    from joserfc.errors import JoseError
    from joserfc.jwk import JWKRegistry

    # A symmetric key in a public document is no secret: whoever read it could sign with it.
    if not isinstance(described, dict) or described.get("kty") not in ("RSA", "EC", "OKP"):
        return None
    if described.get("use", "sig") != "sig" or not isinstance(described.get("kid"), str | None):
        return None
    public = {name: value for name, value in described.items() if name not in ("d", "p", "q", "dp", "dq", "qi", "oth")}
    try:
        if described["kty"] == "RSA" and _bytes(public.get("n")) < LEAST_RSA_BYTES:
            return None
        key: Key = JWKRegistry.import_key(public)
        _ = getattr(key, "raw_value", None)  # what is wrong with a key may show only now
    except (JoseError, ValueError, TypeError, KeyError) as error:
        logger.warning("A key of the sign-in server cannot be used: %s", type(error).__name__)
        return None
    return key


def _bytes(text: Any) -> int:
    if not isinstance(text, str):
        return 0
    return len(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).lstrip(b"\0"))
