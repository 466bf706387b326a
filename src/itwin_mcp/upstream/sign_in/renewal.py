"""Renews a shared token before it expires, once for all callers, and with pauses while the sign-in server fails."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

import anyio

from itwin_mcp.errors import CallError, ErrorCode, NotSignedIn, Unreachable
from itwin_mcp.upstream.sign_in.token import Token

RENEW_SECONDS = 15.0
"""The time limit of a renewal."""
SOFT_SHARE = 0.8
"""The part of a token's life after which it is renewed. The old token is still used if that fails."""
FIRST_PAUSE = 1.0
"""Seconds between a failed renewal and the next one. Each further failure doubles the pause."""
MAX_PAUSE = 30.0

_log = logging.getLogger("itwin_mcp.upstream")


class Renewal:
    """A TokenSource that shares one token and gets new ones by `fetch`, a request to the sign-in server.

    A token has two ends. After the soft end one caller renews it while the others still send the old token. After the
    hard end, or once the platform refused the token, all callers wait for the new one. A slow sign-in server therefore
    delays at most one caller while the token is valid, and hundreds of callers with an expired token make one request.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Token]],
        *,
        remember_refusal: float = 0.0,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create it without a token.

        Args:
            remember_refusal: Seconds for which a NotSignedIn of `fetch` is raised again without a request.
            now: The wall clock, in seconds since 1970.
            monotonic: A clock that never jumps. A token has expired if either clock says so, because the wall clock may
                be wrong and the monotonic clock may stop while a laptop sleeps.
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

    async def get_token(self, stale: Token | None = None) -> Token:
        """Return the current token, or a new one if it has expired or was refused; see TokenSource."""
        if stale is not None and self._token is not None and stale.value == self._token.value:
            self._refused = stale.value
        if self._token is not None and self._is_valid(self._soft_end):
            return self._token
        if self._token is not None and self._is_valid(self._hard_end) and self._lock.statistics().locked:
            return self._token  # another caller is renewing it early; until then it is valid
        async with self._lock:
            if self._token is not None and self._is_valid(self._soft_end):
                return self._token
            if self._failure is not None and self._monotonic() < self._failed_until:
                return self._keep_or_raise(self._failure)
            # If the caller is cancelled, the new refresh token must still be saved: the old one has become invalid.
            with anyio.CancelScope(shield=True):
                renewed = await self._renew()
        return renewed

    async def _renew(self) -> Token:
        try:
            with anyio.fail_after(RENEW_SECONDS):
                token = await self._fetch()
        except TimeoutError:
            failure: CallError = Unreachable(
                ErrorCode.SIGN_IN_UNREACHABLE,
                f"The sign-in server gave no token within {RENEW_SECONDS:.0f} seconds.",
                hint="Nothing was sent to the platform. Call again in a while.",
            )
        except (NotSignedIn, Unreachable) as error:
            failure = error
        else:
            self._adopt(token)
            return token
        self._remember(failure)
        return self._keep_or_raise(failure)

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
            seconds = max(self._pause, min(failure.retry_after or 0.0, MAX_PAUSE))
            self._pause = min(self._pause * 2, MAX_PAUSE)
        self._failure = failure
        self._failed_until = self._monotonic() + seconds

    def _keep_or_raise(self, failure: CallError) -> Token:
        """Return the old token while it is valid. Otherwise raise the failure.

        Every caller gets a copy, because raising an error adds to its traceback.
        """
        if self._token is not None and self._is_valid(self._hard_end):
            _log.info("no new token (%s); the present one is still good", failure.code)
            return self._token
        raise failure.amended()

    def _is_valid(self, end: float) -> bool:
        """Return whether the token is usable until the monotonic time `end`, which is its soft or its hard end."""
        token = self._token
        if token is None or token.value == self._refused or self._monotonic() >= end:
            return False
        return token.expires_at is None or self._now() < token.expires_at - (self._hard_end - end)
