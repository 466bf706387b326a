"""How fast we call: at the rate that was set, or that the platform taught us when it first refused."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable

import anyio

from itwin_mcp.errors import Unreachable
from itwin_mcp.upstream import hints

TIERS = {"community": 500, "trial": 500, "standard": 5000, "basic": 5000, "premium": 5000, "custom": 5000}
"""Calls a minute by subscription, https://developer.bentley.com/apis/overview/rate-limits/."""

_log = logging.getLogger("itwin_mcp.upstream")


class Pacer:
    """Gives each call its moment, in the order in which the calls came. Off until a rate is known."""

    def __init__(
        self,
        rate_per_minute: int | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._set = rate_per_minute is not None
        self._next = clock()
        self._closed_until = self._next
        self._interval = 0.0
        self._burst = 0.0
        if rate_per_minute is not None:
            self._adopt(rate_per_minute)

    def _adopt(self, rate: int) -> None:
        if rate < 1:
            raise ValueError("a rate limit is at least one call a minute")
        self._interval = 60.0 / rate
        self._burst = min(1.0, 30.0 * self._interval)  # a second's worth, so that single calls feel no brake

    async def turn(self, longest: float = math.inf) -> None:
        """Wait for this call's moment; Unreachable when that is more than `longest` seconds away."""
        now = self._clock()
        moment = max(now, self._closed_until)
        if self._interval:
            moment = max(moment, self._next - self._burst)
        if moment - now > longest:
            error = Unreachable(
                "RateLimited",
                "The rate limit is used up, so the call was not sent.",
                hint=hints.for_too_many(moment - now, None),
            )
            error.retry_after = moment - now
            raise error
        if self._interval:
            self._next = max(moment, self._next) + self._interval
        if moment > now:
            await self._sleep(moment - now)

    def refused(self, retry_after: float | None, tier: str | None) -> None:
        """The platform answered 429: hold all calls until it welcomes them, and keep to the tier's rate from now on."""
        if retry_after is not None and retry_after <= 60:
            self._closed_until = max(self._closed_until, self._clock() + retry_after)
        rate = TIERS.get((tier or "").lower())
        if rate is not None and not self._set and self._interval != 60.0 / rate:
            _log.info("the platform named the tier %s: pacing at %d calls a minute", tier, rate)
            self._adopt(rate)
            self._next = self._clock()
