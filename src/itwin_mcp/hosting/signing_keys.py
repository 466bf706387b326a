"""The public keys of the sign-in server (its JWKS), which are fetched, cached and refreshed."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

import anyio

from itwin_mcp.errors import CallError, ErrorCode

logger = logging.getLogger(__name__)

FRESH_SECONDS = 3600.0
STALE_SECONDS = 24 * 3600.0
"""How long cached keys are still used while the sign-in server cannot be reached."""
UNKNOWN_KEY_SECONDS = 60.0
"""The least time between two fetches for an unknown key. Anyone can cause a fetch with a token that names one."""
RETRY_SECONDS = 5.0
"""The least time between two fetches while no keys are cached."""
MAX_KEYS = 100
MIN_RSA_BITS = 2048


class Key(Protocol):
    """The members of a public key of joserfc that are used here."""

    @property
    def kid(self) -> str | None:
        """The id with which tokens refer to the key."""


class KeysUnavailable(Exception):
    """The sign-in server returned no keys, and none are cached."""


class SigningKeys:
    """The keys of one issuer. `fetch` returns a JSON document or raises a CallError."""

    def __init__(
        self,
        fetch: Callable[[str], Awaitable[Any]],
        issuer: str,
        jwks_url: str | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Without `jwks_url` the issuer's discovery document names it."""
        self._fetch = fetch
        self._issuer = issuer
        self._jwks_url = jwks_url
        self._clock = clock
        self._lock = anyio.Lock()
        self._keys: tuple[Key, ...] = ()
        self._fetched = float("-inf")
        """When the cached keys were fetched."""
        self._attempted = float("-inf")
        """When the last fetch began, successful or not."""

    async def find(self, kid: str | None) -> Key | None:
        """Return the key with this id, or without an id the only key; None if there is no such key.

        Raises KeysUnavailable.
        """
        key = self._find_cached(kid)
        if key is not None and (self._clock() - self._fetched <= FRESH_SECONDS or self._lock.locked()):
            return key  # while one request fetches new keys, the others use the cached ones
        async with self._lock:
            if self._should_fetch(kid):
                await self._refresh()
        if not self._keys:
            raise KeysUnavailable
        return self._find_cached(kid)

    def _find_cached(self, kid: str | None) -> Key | None:
        if self._clock() - self._fetched > STALE_SECONDS:
            self._keys = ()
        if kid is None:
            return self._keys[0] if len(self._keys) == 1 else None
        return next((key for key in self._keys if key.kid == kid), None)

    def _should_fetch(self, kid: str | None) -> bool:
        waited = self._clock() - self._attempted
        if not self._keys:
            return waited >= RETRY_SECONDS
        is_old = self._clock() - self._fetched > FRESH_SECONDS
        return (is_old or self._find_cached(kid) is None) and waited >= UNKNOWN_KEY_SECONDS

    async def _refresh(self) -> None:
        self._attempted = self._clock()
        try:
            with anyio.CancelScope(shield=True):  # other requests wait for these keys if this one is cancelled
                keys = read_keys(await self._fetch(await self._find_url()))
        except CallError as error:
            logger.warning("The keys of the sign-in server %s cannot be fetched: %s", self._issuer, error.message)
            return
        if not keys:
            logger.warning("The sign-in server %s returns no usable key", self._issuer)
            return
        self._keys, self._fetched = keys, self._clock()

    async def _find_url(self) -> str:
        if self._jwks_url is not None:
            return self._jwks_url
        document = await self._fetch(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
        if not isinstance(document, dict) or document.get("issuer") != self._issuer:
            raise _build_error("its discovery document names another issuer", self._issuer)
        url = document.get("jwks_uri")
        if not isinstance(url, str) or urlsplit(url).scheme not in ("https", "http"):
            raise _build_error("its discovery document has no valid jwks_uri", self._issuer)
        return url


def _build_error(reason: str, issuer: str) -> CallError:
    return CallError(ErrorCode.NO_KEYS, f"{issuer}: {reason}.", hint="Set ITWIN_MCP_AUTH_JWKS_URL.")


def read_keys(document: Any) -> tuple[Key, ...]:
    """Return the public signing keys of a JWKS. Unusable keys are left out."""
    entries = document.get("keys") if isinstance(document, Mapping) else None
    keys = (_read_key(entry) for entry in entries[:MAX_KEYS]) if isinstance(entries, list) else ()
    return tuple(key for key in keys if key is not None)


def _read_key(entry: Any) -> Key | None:
    from joserfc.errors import JoseError
    from joserfc.jwk import JWKRegistry

    # No symmetric keys: anyone who can read the public document could sign tokens with them.
    if not isinstance(entry, dict) or entry.get("kty") not in ("RSA", "EC", "OKP"):
        return None
    if entry.get("use", "sig") != "sig" or not isinstance(entry.get("kid"), str | None):
        return None
    public = {name: value for name, value in entry.items() if name not in ("d", "p", "q", "dp", "dq", "qi", "oth")}
    try:
        key = JWKRegistry.import_key(public)
        raw_key: Any = key.raw_value  # loads the key, and raises if it is faulty
    except (JoseError, ValueError, TypeError, KeyError, AttributeError) as error:
        logger.warning("A key of the sign-in server is unusable: %s", type(error).__name__)
        return None
    return key if entry["kty"] != "RSA" or raw_key.key_size >= MIN_RSA_BITS else None
