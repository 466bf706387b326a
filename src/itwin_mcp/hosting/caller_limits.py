"""Limits of callers: requests a minute, requests at once, open streams and sessions, for each and for all."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import anyio

from itwin_mcp.upstream.rate_limit import SteadyRate

SESSION_IDLE_SECONDS = 1800.0
"""After this time the SDK ends a session that nobody uses."""


class LimitExceeded(Exception):
    """A request exceeds a limit. `reason` is a metrics label; `retry_after` is in whole seconds."""

    def __init__(self, reason: str, retry_after: float) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = max(1, math.ceil(retry_after))


@dataclass(frozen=True, slots=True)
class CallerLimits:
    """The limits of one replica. Replicas do not share counts, so several of them allow several times as much."""

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
    """Bodies of one caller that are read at once; others wait, as many as for their turn."""
    caller_streams: int = 8
    """Open streams of one caller, on which the server sends notifications."""
    caller_sessions: int = 50
    """Sessions of one caller, which clients before 2026-07-28 open."""


class _Queue:
    """The requests of one caller: those in progress, and those that wait for a slot."""

    def __init__(self, slots: int) -> None:
        self.slots = anyio.Semaphore(slots)
        self.present = 0


class Admission:
    """Admits requests within the limits.

    A caller's own limits are checked before those for all callers together, so that a caller who sends too much waits
    behind its own requests and holds no place that others could use.
    """

    def __init__(self, limits: CallerLimits, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._caller_rate = _build_rate(limits.caller_rate, clock)
        self._total_rate = _build_rate(limits.total_rate, clock)
        self._requests: dict[str, _Queue] = {}
        self._bodies: dict[str, _Queue] = {}
        self._total = anyio.Semaphore(limits.total_at_once)
        self._streams: dict[str, int] = {}
        self.in_progress = 0

    def count_request(self, caller: str) -> None:
        """Count one request against both rates. Raises LimitExceeded, and then counts nothing."""
        for rate, key, reason in (
            (self._caller_rate, caller, "caller-rate"),
            (self._total_rate, "", "total-rate"),
        ):
            wait = rate.compute_wait(key)
            if wait > 0:
                raise LimitExceeded(reason, wait)
        self._caller_rate.take(caller)
        self._total_rate.take("")

    @asynccontextmanager
    async def hold_request(self, caller: str) -> AsyncIterator[None]:
        """Wait for a slot and hold it while a request is in progress. Raises LimitExceeded if too many wait."""
        async with self._hold_slot(self._requests, caller, self._limits.caller_at_once, "caller-concurrency"):
            await self._acquire_total()
            try:
                self.in_progress += 1
                yield
            finally:
                self.in_progress -= 1
                self._total.release()

    @asynccontextmanager
    async def hold_body(self, caller: str) -> AsyncIterator[None]:
        """Wait for a slot and hold it while a body is read. Raises LimitExceeded if too many wait."""
        async with self._hold_slot(self._bodies, caller, self._limits.caller_bodies, "caller-bodies"):
            yield

    @contextmanager
    def hold_stream(self, caller: str) -> Iterator[None]:
        """Count an open stream, which holds no request slot. Raises LimitExceeded."""
        if self._streams.get(caller, 0) >= self._limits.caller_streams:
            raise LimitExceeded("caller-streams", 60)
        self._streams[caller] = self._streams.get(caller, 0) + 1
        try:
            yield
        finally:
            self._streams[caller] -= 1
            if not self._streams[caller]:
                del self._streams[caller]

    @asynccontextmanager
    async def _hold_slot(self, queues: dict[str, _Queue], caller: str, slots: int, reason: str) -> AsyncIterator[None]:
        queue = queues.setdefault(caller, _Queue(slots))
        if queue.present >= max(slots, self._limits.caller_at_once) + self._limits.caller_waiting:
            raise LimitExceeded(reason, 1)
        queue.present += 1
        try:
            async with queue.slots:
                yield
        finally:
            queue.present -= 1
            if queue.present == 0:
                queues.pop(caller, None)  # callers come and go: only those with requests take memory

    async def _acquire_total(self) -> None:
        with anyio.move_on_after(self._limits.total_seconds):
            await self._total.acquire()
            return
        raise LimitExceeded("total-concurrency", 1)


def _build_rate(per_minute: int, clock: Callable[[], float]) -> SteadyRate:
    """Return a rate whose burst is a tenth of a minute's requests."""
    return SteadyRate(per_minute, 60.0 / per_minute * (max(1.0, per_minute / 10) - 1), clock)


class CallerSessions:
    """Counts the sessions of each caller, so that one caller cannot take all that the SDK keeps.

    The SDK does not report when it ends an idle session, so a session that was idle for as long no longer counts.
    """

    def __init__(self, maximum: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._maximum = maximum
        self._clock = clock
        self._last_used: dict[str, dict[str, float]] = {}

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
        """Note a session that the server named in its response: it was opened or used."""
        self._last_used.setdefault(caller, {})[session] = self._clock()

    def note_requested(self, caller: str, session: str) -> None:
        """Note a session that only the client named. Another caller's or an unknown session does not count."""
        if session in self._last_used.get(caller, {}):
            self.note_used(caller, session)

    def end(self, caller: str, session: str) -> None:
        """Forget a session that the caller closed."""
        sessions = self._last_used.get(caller, {})
        sessions.pop(session, None)
        if not sessions:
            self._last_used.pop(caller, None)
