"""Retries failed attempts with backoff, but never a write that the server may have carried out."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from itertools import count
from typing import TypeVar

from anyio import sleep

from itwin_mcp.errors import CallError
from itwin_mcp.upstream.messages import Method

T = TypeVar("T")

MAX_ATTEMPTS = 3
FIRST_BACKOFF = 0.5
"""Seconds, like all times here."""
MAX_BACKOFF = 8.0
MAX_RETRY_AFTER = 60.0
"""A longer `Retry-After` fails at once; the error says when to retry."""
MIN_TIME_FOR_ATTEMPT = 1.0
"""Time that must be left after the wait, or there is no further attempt."""

_log = logging.getLogger("itwin_mcp.upstream")


class AttemptError(Exception):
    """A failed attempt. The call raises its `error`, unless the attempt is retried."""

    def __init__(self, error: CallError, *, transient: bool, maybe_executed: bool, after: float | None = None) -> None:
        super().__init__(error.code)
        self.error = error
        self.transient = transient
        """True if the same request may succeed later."""
        self.maybe_executed = maybe_executed
        """True if the server may have carried out the request despite the failure."""
        self.after = after
        """Seconds to wait before a retry, as the server asked."""


class RetryBudget:
    """Allows one retry for every ten calls, plus a small reserve.

    During an outage every call fails. Without this limit each would be sent three times, and the load would keep the
    platform down. The reserve allows retries of the first few calls after a quiet period.
    """

    def __init__(self, reserve: float = 10.0, share: float = 0.1) -> None:
        self._reserve = reserve
        self._share = share
        self._left = reserve
        self.calls = 0
        """Calls since the last withdrawal, which adds their shares. Callers count them."""

    def withdraw(self) -> bool:
        """Use up one retry. Return False if none is left."""
        self._left = min(self._reserve, self._left + self.calls * self._share)
        self.calls = 0
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Retries:
    """Repeats a failed attempt until one succeeds or a retry is not allowed."""

    def __init__(self, *, chance: Callable[[], float] = random.random) -> None:
        """Create it with a full budget. `chance` returns numbers from 0 to 1, for the jitter."""
        self._chance = chance
        self.budget = RetryBudget()

    async def run(self, attempt: Callable[[], Awaitable[T]], *, method: Method, seconds_left: Callable[[], float]) -> T:
        """Await `attempt()`, and repeat it while retries are allowed; see `repeat`."""
        self.budget.calls += 1
        try:
            return await attempt()
        except AttemptError as error:
            failure = error
        return await self.repeat(failure, attempt, method=method, seconds_left=seconds_left)

    async def repeat(
        self,
        failure: AttemptError,
        attempt: Callable[[], Awaitable[T]],
        *,
        method: Method,
        seconds_left: Callable[[], float],
    ) -> T:
        """Repeat an attempt that ended in `failure`, while retries are allowed.

        `seconds_left` returns the time until the call's deadline.

        Raises: the `error` of the last AttemptError. Any other exception of `attempt` is raised at once.
        """
        for made in count(1):
            delay = self.compute_delay(failure, made, method, seconds_left())
            if delay is None or not self.budget.withdraw():
                break
            _log.info("attempt %d of a %s failed (%s); next in %.1f s", made, method, failure, delay)
            await sleep(delay)
            try:
                return await attempt()
            except AttemptError as error:
                # Raised outside of the handler: an exception's context would keep the request and its token alive.
                failure = error
        raise failure.error

    def compute_delay(self, failure: AttemptError, made: int, method: Method, left: float) -> float | None:
        """Return the seconds to wait after `made` attempts, or None if the call must not be retried.

        `left` is the time in seconds until the call's deadline.
        """
        could_execute_twice = failure.maybe_executed and method != "GET"
        if made >= MAX_ATTEMPTS or not failure.transient or could_execute_twice:
            return None
        if failure.after is None:
            # Full jitter: callers that failed together spread over the whole backoff, not around its end.
            delay = self._chance() * min(MAX_BACKOFF, FIRST_BACKOFF * 2.0**made)
        elif failure.after > MAX_RETRY_AFTER:
            return None
        else:  # with jitter, or all callers that were refused would return at the same moment
            delay = failure.after + self._chance() * 0.5
        return delay if delay + MIN_TIME_FOR_ATTEMPT <= left else None
