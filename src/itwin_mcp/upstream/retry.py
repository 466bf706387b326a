"""Retries failed attempts with backoff, but never a write that the server may have carried out."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
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
"""What must remain of the deadline after the wait."""

_log = logging.getLogger("itwin_mcp.upstream")


class AttemptError(Exception):
    """One attempt failed. `error` is the call's error, unless the attempt is retried."""

    def __init__(self, error: CallError, *, transient: bool, maybe_executed: bool, after: float | None = None) -> None:
        super().__init__(error.code)
        self.error = error
        self.transient = transient
        self.maybe_executed = maybe_executed
        """Whether the server may have carried out the request all the same."""
        self.after = after
        """Seconds that the server asked us to wait."""

    def is_retryable(self, method: Method) -> bool:
        """Return whether the fault may pass and, for a write, the server cannot have executed it."""
        return self.transient and (method == "GET" or not self.maybe_executed)


class RetryBudget:
    """Allows one retry for every ten calls, plus a small reserve.

    During an outage every call fails. Without this bound each would be sent three times, which is a storm that keeps
    the platform down. The reserve lets the first few calls of a quiet server be retried.
    """

    def __init__(self, reserve: float = 10.0, share: float = 0.1) -> None:
        self._reserve = reserve
        self._share = share
        self._left = reserve
        self.calls = 0
        """Calls since the last retry, each of which adds its share; the client counts them."""

    def withdraw(self) -> bool:
        """Take one retry. Return False if none is left."""
        self._left = min(self._reserve, self._left + self.calls * self._share)
        self.calls = 0
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Retries:
    """Repeats a failed attempt until one succeeds or a retry is not allowed."""

    def __init__(self, *, chance: Callable[[], float] = random.random) -> None:
        """`chance` returns numbers from 0 to 1, for the jitter."""
        self._chance = chance
        self.budget = RetryBudget()

    async def run(self, attempt: Callable[[], Awaitable[T]], *, method: Method, seconds_left: Callable[[], float]) -> T:
        """Await `attempt()` and repeat it where that is allowed; see `repeat`."""
        self.budget.calls += 1
        try:
            return await attempt()
        except AttemptError as failed:
            failure = failed
        return await self.repeat(failure, attempt, method=method, seconds_left=seconds_left)

    async def repeat(
        self,
        failure: AttemptError,
        attempt: Callable[[], Awaitable[T]],
        *,
        method: Method,
        seconds_left: Callable[[], float],
    ) -> T:
        """Repeat the attempt that ended in `failure`, where that is allowed.

        `seconds_left` returns the time until the call's deadline.

        Raises: the `error` of the last AttemptError. Any other exception of `attempt` passes through at once.
        """
        made = 1
        while True:
            delay = self.compute_delay(failure, made, method, seconds_left())
            if delay is None or not self.budget.withdraw():
                raise failure.error
            _log.info("attempt %d of a %s failed (%s); next in %.1f s", made, method, failure, delay)
            await sleep(delay)
            made += 1
            try:
                return await attempt()
            except AttemptError as failed:
                # It is raised outside of the handler, so that it has no context that drags along the request.
                failure = failed

    def compute_delay(self, failure: AttemptError, made: int, method: Method, left: float) -> float | None:
        """Return the seconds to wait after `made` attempts, or None if there must be no further one."""
        if made >= MAX_ATTEMPTS or not failure.is_retryable(method):
            return None
        if failure.after is None:
            # Full jitter: callers that failed together spread over the whole backoff, not around its end.
            delay = self._chance() * min(MAX_BACKOFF, FIRST_BACKOFF * 2.0**made)
        elif failure.after > MAX_RETRY_AFTER:
            return None
        else:  # spread over half a second, or all callers that were refused return at the same moment
            delay = failure.after + self._chance() * 0.5
        return delay if delay + MIN_TIME_FOR_ATTEMPT <= left else None
