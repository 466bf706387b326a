"""One token for however many callers: renewed by one of them, early, and not at all while the sign-in server fails."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

import anyio

from itwin_mcp.errors import CallError, NotSignedIn, Unreachable
from itwin_mcp.upstream.auth.source import Token
from itwin_mcp.upstream.coalescing import twin_of

RENEW_SECONDS = 15.0
"""A renewal that takes longer has failed."""
SOFT_SHARE = 0.8
"""Of a token's life: from then on it is renewed, and still used if that fails."""
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0

_log = logging.getLogger("itwin_mcp.upstream")


class Renewal:
    """A TokenSource over `fetch`, which gets a new token from the sign-in server."""

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Token]],
        *,
        remember_refusal: float = 0.0,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`remember_refusal`: seconds for which a NotSignedIn of `fetch` is taken to stand.

        `now` is the wall clock, `monotonic` one that never jumps; a token is over when either says so, because the
        first may be set wrong and the second may stand still while a laptop sleeps.
        """
        self._fetch = fetch
        self._remember_refusal = remember_refusal
        self._now = now
        self._monotonic = monotonic
        self._lock = anyio.Lock()
        self._token: Token | None = None
        self._refused: str | None = None
        self._soft_end = 0.0
        self._hard_end = 0.0
        self._failure: CallError | None = None
        self._failed_until = 0.0
        self._pause = FIRST_PAUSE

    async def token(self, stale: Token | None = None) -> Token:
        """The present token, or a new one when it is over or refused; see TokenSource."""
        if stale is not None and self._token is not None and stale.value == self._token.value:
            self._refused = stale.value
        if self._token is not None and self._good(self._soft_end):
            return self._token
        if self._token is not None and self._good(self._hard_end) and self._lock.statistics().locked:
            return self._token  # somebody is renewing it early; it is good enough meanwhile
        async with self._lock:
            if self._token is not None and self._good(self._soft_end):
                return self._token
            if self._failure is not None and self._monotonic() < self._failed_until:
                return self._old_or(self._failure)
            # A cancelled caller must not lose a refresh token that the server has already replaced.
            with anyio.CancelScope(shield=True):
                renewed = await self._renew()
        return renewed

    async def _renew(self) -> Token:
        try:
            with anyio.fail_after(RENEW_SECONDS):
                token = await self._fetch()
        except TimeoutError:
            failure: CallError = Unreachable(
                "SignInUnreachable",
                f"The sign-in server gave no token within {RENEW_SECONDS:.0f} seconds.",
                hint="Nothing was sent to the platform. Call again in a while.",
            )
        except (NotSignedIn, Unreachable) as error:
            failure = error
        else:
            self._adopt(token)
            return token
        self._remember(failure)
        return self._old_or(failure)

    def _adopt(self, token: Token) -> None:
        life = max(0.0, (token.expires_at or self._now() + 300) - self._now())
        start = self._monotonic()
        self._token = token
        self._refused = None
        self._soft_end = start + SOFT_SHARE * life
        self._hard_end = start + life
        self._failure = None
        self._pause = FIRST_PAUSE

    def _remember(self, failure: CallError) -> None:
        if isinstance(failure, NotSignedIn):
            seconds = self._remember_refusal
            self._token = None
        else:
            seconds = max(self._pause, min(failure.retry_after or 0.0, LONGEST_PAUSE))
            self._pause = min(self._pause * 2, LONGEST_PAUSE)
        self._failure = failure
        self._failed_until = self._monotonic() + seconds

    def _old_or(self, failure: CallError) -> Token:
        """The old token while it lives and was not refused; else the error, a copy for each caller."""
        if self._token is not None and self._good(self._hard_end):
            _log.info("no new token (%s); the present one is still good", failure.code)
            return self._token
        raise twin_of(failure)

    def _good(self, end: float) -> bool:
        token = self._token
        if token is None or token.value == self._refused or self._monotonic() >= end:
            return False
        return token.expires_at is None or self._now() < token.expires_at - (self._hard_end - end)
