"""Limits of callers: requests a minute, requests at once, open streams, and sessions."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass

import anyio

from itwin_mcp.upstream.rate_limit import SteadyRate

SESSION_IDLE_SECONDS = 1800.0
"""The time after which the SDK ends an unused session."""


class LimitExceeded(Exception):
    """A request exceeds a limit. `reason` is a metrics label; `retry_after` is rounded up to whole seconds."""

    def __init__(self, reason: str, retry_after: float) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = max(1, math.ceil(retry_after))


@dataclass(frozen=True, slots=True)
class CallerLimits:
    """The limits of one replica. Replicas do not share counts, so two replicas allow twice as much."""

    caller_rate: int
    """Requests a minute."""
    total_rate: int
    caller_at_once: int
    total_at_once: int
    caller_waiting: int = 32
    """Requests of one caller that may wait for those in progress."""
    total_seconds: float = 10.0
    """How long a request may wait until fewer are in progress in total."""
    caller_bodies: int = 8
    """Bodies of one caller that are read at once. Further ones wait within `caller_waiting`."""
    caller_streams: int = 8
    """Open streams of one caller, on which the server sends notifications."""
    caller_sessions: int = 50
    """Sessions of one caller. Only clients before 2026-07-28 open sessions."""


@dataclass(slots=True)
class _Queue:
    """The requests of one caller: those in progress, and those that wait for a slot."""

    slots: anyio.Semaphore
    length: int = 0


class Admission:
    """Admits requests within the limits.

    A caller's own limits are checked before the limits for all callers together. A caller who sends too much then waits
    behind its own requests, and takes no slot that others could use.
    """

    def __init__(self, limits: CallerLimits, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._caller_rate = _build_rate(limits.caller_rate, clock)
        self._total_rate = _build_rate(limits.total_rate, clock)
        self._requests: dict[str, _Queue] = {}
        self._bodies: dict[str, _Queue] = {}
        self._total = anyio.Semaphore(limits.total_at_once)
        self._streams = Counter[str]()
        self.in_progress = 0

    def count_request(self, caller: str, *, grace: float = 0.0) -> None:
        """Count one request against both rates. It may come `grace` seconds too early.

        Raises LimitExceeded, and then counts nothing.
        """
        for rate, key, reason in (
            (self._caller_rate, caller, "caller-rate"),
            (self._total_rate, "", "total-rate"),
        ):
            wait = rate.compute_wait(key)
            if wait > grace:
                raise LimitExceeded(reason, wait)
        self._caller_rate.take(caller)
        self._total_rate.take("")

    @asynccontextmanager
    async def hold_request(self, caller: str) -> AsyncIterator[None]:
        """Wait for a slot and hold it while a request is in progress. Raises LimitExceeded if too many wait."""
        async with self._hold_slot(self._requests, caller, self._limits.caller_at_once, "caller-concurrency"):
            try:
                with anyio.fail_after(self._limits.total_seconds):
                    await self._total.acquire()
            except TimeoutError:
                raise LimitExceeded("total-concurrency", 1) from None
            try:
                self.in_progress += 1
                yield
            finally:
                self.in_progress -= 1
                self._total.release()

    def hold_body(self, caller: str) -> AbstractAsyncContextManager[None]:
        """Wait for a slot and hold it while a body is read. Raises LimitExceeded if too many wait."""
        return self._hold_slot(self._bodies, caller, self._limits.caller_bodies, "caller-bodies")

    @contextmanager
    def hold_stream(self, caller: str) -> Iterator[None]:
        """Count an open stream, which needs no request slot. Raises LimitExceeded if the caller has too many."""
        if self._streams[caller] >= self._limits.caller_streams:
            raise LimitExceeded("caller-streams", 60)
        self._streams[caller] += 1
        try:
            yield
        finally:
            self._streams[caller] -= 1
            if not self._streams[caller]:
                del self._streams[caller]

    @asynccontextmanager
    async def _hold_slot(self, queues: dict[str, _Queue], caller: str, slots: int, reason: str) -> AsyncIterator[None]:
        queue = queues.setdefault(caller, _Queue(anyio.Semaphore(slots)))
        if queue.length >= max(slots, self._limits.caller_at_once) + self._limits.caller_waiting:
            raise LimitExceeded(reason, 1)
        queue.length += 1
        try:
            async with queue.slots:
                yield
        finally:
            queue.length -= 1
            if queue.length == 0:
                queues.pop(caller, None)  # callers come and go, so only those with requests may take memory


def _build_rate(per_minute: int, clock: Callable[[], float]) -> SteadyRate:
    """Return a rate that allows a tenth of a minute's requests at once."""
    return SteadyRate(per_minute, 60.0 / per_minute * (max(1.0, per_minute / 10) - 1), clock)


class CallerSessions:
    """Counts the sessions of each caller, so that one caller cannot fill the server with sessions.

    The SDK does not report that it ends an idle session. A session therefore stops counting after the same idle time.
    """

    def __init__(self, maximum: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._maximum = maximum
        self._clock = clock
        self._last_used: dict[str, dict[str, float]] = {}
        """The time of the last use of each session, by caller."""

    def check_room(self, caller: str) -> None:
        """Check that the caller may open another session. Raises LimitExceeded."""
        now = self._clock()
        active = {
            session: used
            for session, used in self._last_used.get(caller, {}).items()
            if now - used <= SESSION_IDLE_SECONDS
        }
        self._last_used[caller] = active
        if not active:
            del self._last_used[caller]
        if len(active) >= self._maximum:
            raise LimitExceeded("caller-sessions", SESSION_IDLE_SECONDS - (now - min(active.values())))

    def note_used(self, caller: str, session: str) -> None:
        """Note that a session was opened or used, because the server named it in a response."""
        self._last_used.setdefault(caller, {})[session] = self._clock()

    def note_requested(self, caller: str, session: str) -> None:
        """Note a session that only the request names. It counts only if it is already known as the caller's."""
        if session in self._last_used.get(caller, {}):
            self.note_used(caller, session)

    def end(self, caller: str, session: str) -> None:
        """Forget a session that the caller closed."""
        sessions = self._last_used.get(caller, {})
        sessions.pop(session, None)
        if not sessions:
            self._last_used.pop(caller, None)
