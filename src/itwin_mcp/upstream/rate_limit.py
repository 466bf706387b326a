"""Rate limits for our own requests to the platform, and for the callers of a hosted server."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable

import anyio

from itwin_mcp.errors import ErrorCode, Unreachable
from itwin_mcp.upstream import hints

TIERS = {"community": 500, "trial": 500, "standard": 5000, "basic": 5000, "premium": 5000, "custom": 5000}
"""Requests a minute by subscription, https://developer.bentley.com/apis/overview/rate-limits/."""
MAX_RETRY_AFTER = 60.0
"""Seconds. A longer `Retry-After` does not delay requests, because they would miss their deadline anyway."""
MAX_KEYS = 10_000
"""The number of keys in memory. When it is reached, keys whose due time has passed are dropped."""

_log = logging.getLogger("itwin_mcp.upstream")


class SteadyRate:
    """Allows `per_minute` events for each key, evenly spaced after a burst (the generic cell rate algorithm).

    Every event has a due time, one interval after that of the previous event. An event may come before it is due by at
    most `slack` seconds, which allows a burst. Counters for each minute would allow two bursts around the end of a
    minute; due times do not, and need only one number for each key.
    """

    def __init__(self, per_minute: int, slack: float, clock: Callable[[], float] = time.monotonic) -> None:
        if per_minute < 1:
            raise ValueError("a rate limit is at least one call a minute")
        self.interval = 60.0 / per_minute
        self._slack = slack
        self._clock = clock
        self._due: dict[str, float] = {}

    def compute_wait(self, key: str = "") -> float:
        """Return the seconds until the next event is allowed; 0 if it is allowed now."""
        return max(0.0, self._due.get(key, 0.0) - self._slack - self._clock())

    def take(self, key: str = "", *, delay: float = 0.0) -> None:
        """Count an event that will happen in `delay` seconds. The next event is due one interval later."""
        now = self._clock()
        if len(self._due) >= MAX_KEYS:
            self._due = {name: due for name, due in self._due.items() if due > now}
        self._due[key] = max(now + delay, self._due.get(key, 0.0)) + self.interval


class Pacer:
    """Delays each request to the platform until the rate allows it, in the order of arrival.

    Without a configured rate it does nothing until the platform answers 429 and names the subscription's tier.
    """

    def __init__(
        self,
        rate_per_minute: int | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._is_configured = rate_per_minute is not None
        self._rate = None if rate_per_minute is None else self._build_rate(rate_per_minute)
        self._closed_until = clock()
        self.is_active = self._is_configured
        """True if requests may have to wait: a rate is configured, or the platform has answered 429."""

    def _build_rate(self, per_minute: int) -> SteadyRate:
        # The burst is one second long, so that single calls are not delayed, but at most 30 calls.
        return SteadyRate(per_minute, min(1.0, 1800.0 / max(per_minute, 1)), self._clock)

    async def wait_turn(self, longest: float = math.inf) -> None:
        """Sleep until this request may be sent.

        Raises: Unreachable if the wait exceeds `longest` seconds. The request is then not counted.
        """
        wait = max(0.0, self._closed_until - self._clock(), self._rate.compute_wait() if self._rate else 0.0)
        if wait > longest:
            raise Unreachable(
                ErrorCode.RATE_LIMITED,
                "The rate limit is used up, so the call was not sent.",
                hint=hints.explain_too_many(wait, None),
                retry_after=wait,
            )
        if self._rate is not None:
            # Counted before sleeping, so that requests that arrive meanwhile are due after this one.
            self._rate.take(delay=wait)
        if wait > 0:
            await self._sleep(wait)

    def slow_down(self, retry_after: float | None, tier: str | None) -> None:
        """Adapt to a 429: delay all requests for `retry_after` seconds, and adopt the rate of the tier."""
        self.is_active = True
        if retry_after is not None and retry_after <= MAX_RETRY_AFTER:
            self._closed_until = max(self._closed_until, self._clock() + retry_after)
        rate = TIERS.get((tier or "").lower())
        if rate is None or self._is_configured or (self._rate is not None and self._rate.interval == 60.0 / rate):
            return
        _log.info("the platform named the tier %s: pacing at %d calls a minute", tier, rate)
        self._rate = self._build_rate(rate)
