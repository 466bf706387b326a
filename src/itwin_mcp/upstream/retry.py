"""What may be repeated, when, and how often: never a write that may have been carried out."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from itwin_mcp.errors import CallError
from itwin_mcp.upstream.wire import Method

T = TypeVar("T")

ATTEMPTS = 3
FIRST_WAIT = 0.5
LONGEST_BACKOFF = 8.0
LONGEST_RETRY_AFTER = 60.0
"""Seconds; a server that asks for more gets its wish by an error that says when."""
MARGIN = 1.0
"""Seconds that must be left for the repeat itself."""

_log = logging.getLogger("itwin_mcp.upstream")


class AttemptError(Exception):
    """One attempt failed; `error` is what the agent reads unless the attempt is repeated."""

    def __init__(self, error: CallError, *, transient: bool, maybe_executed: bool, after: float | None = None) -> None:
        super().__init__(error.code)
        self.error = error
        self.transient = transient
        self.maybe_executed = maybe_executed
        self.after = after
        """Seconds that the server asked us to wait."""

    def may_be_repeated(self, method: Method) -> bool:
        """A read whenever the fault may pass; a write only when it surely was not executed."""
        return self.transient and (method == "GET" or not self.maybe_executed)


class RepeatBudget:
    """Repeats for one call in ten, so that an outage is not answered by a storm; a small reserve serves quiet times."""

    def __init__(self, reserve: float = 10.0, share: float = 0.1) -> None:
        self._reserve = reserve
        self._share = share
        self._left = reserve

    def deposit(self) -> None:
        """A call begins."""
        self._left = min(self._reserve, self._left + self._share)

    def withdraw(self) -> bool:
        """Ask for one repeat."""
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Repeats:
    """Runs attempts until one succeeds or repeating stops to make sense."""

    def __init__(self, *, chance: Callable[[], float] = random.random) -> None:
        """`chance` gives numbers from 0 to 1, for the jitter."""
        self._chance = chance
        self._budget = RepeatBudget()

    async def run(self, attempt: Callable[[], Awaitable[T]], *, method: Method, seconds_left: Callable[[], float]) -> T:
        """Await `attempt()`, again where the policy allows; the error of the last attempt is raised.

        `seconds_left` says how far the call's deadline is.
        """
        self._budget.deposit()
        try:
            return await attempt()
        except AttemptError as failure:
            last = failure
        if self._wait(last, 1, method, seconds_left()) is not None:
            try:
                return await self._again(last, attempt, method, seconds_left)
            except AttemptError as failure:
                last = failure
        raise last.error

    async def _again(
        self,
        failed: AttemptError,
        attempt: Callable[[], Awaitable[T]],
        method: Method,
        seconds_left: Callable[[], float],
    ) -> T:
        """Attempts from the second on, after `failed`; stamina waits and counts, we say what may be repeated."""
        import stamina  # 70 ms, needed only when something failed
        import stamina.instrumentation

        # Where structlog is installed, stamina announces each wait through it, on stdout, which is the protocol's.
        stamina.instrumentation.set_on_retry_hooks(())
        made = 1
        first: AttemptError | None = failed

        def wait(error: Exception) -> float | bool:
            delay = self._wait(error, made, method, seconds_left()) if isinstance(error, AttemptError) else None
            if delay is None or not self._budget.withdraw():
                return False
            _log.info("attempt %d of a %s failed (%s); next in %.1f s", made, method, error, delay)
            return delay

        async for again in stamina.retry_context(on=wait, attempts=ATTEMPTS, timeout=None):
            with again:
                if first is not None:
                    first = None
                    raise failed  # counts as stamina's first attempt
                made += 1
                return await attempt()
        raise AssertionError("stamina ends by a result or an exception")

    def _wait(self, failure: AttemptError, made: int, method: Method, left: float) -> float | None:
        """Seconds to wait after `made` attempts; None when there is to be no further one."""
        if made >= ATTEMPTS or not failure.may_be_repeated(method):
            return None
        if failure.after is None:
            delay = self._chance() * min(LONGEST_BACKOFF, FIRST_WAIT * 2.0**made)
        elif failure.after > LONGEST_RETRY_AFTER:
            return None
        else:  # spread over half a second, or all who were refused come back at once
            delay = failure.after + self._chance() * 0.5
        return delay if delay + MARGIN <= left else None
