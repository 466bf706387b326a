"""How much callers get: calls a minute, and calls at once, for each and for all together."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import anyio

MOST_REMEMBERED = 10_000
"""Callers whose pace is remembered before those that have none left are forgotten."""


class RefusedForNowError(Exception):
    """Too much at once. `reason` is one of few words; `after` says in seconds when it is worth another try."""

    def __init__(self, reason: str, after: float) -> None:
        super().__init__(reason)
        self.reason = reason
        self.after = max(1, math.ceil(after))


@dataclass(frozen=True, slots=True)
class Limits:
    """What one replica gives; several give as many times as much, for they do not tell each other."""

    caller_rate: int
    """Requests a minute."""
    total_rate: int
    caller_at_once: int
    total_at_once: int
    caller_waiting: int = 32
    """Requests of one caller that may wait for those under way."""
    total_seconds: float = 10.0
    """How long a request may wait until fewer are under way in all."""
    caller_bodies: int = 8
    """Bodies of one caller that are read at once; others wait, as many as for their turn."""
    caller_streams: int = 8
    """Open streams of one caller that wait for what the server says by itself."""
    caller_sessions: int = 50
    """Sessions of one caller, which clients before 2026-07-28 open."""


class Pace:
    """So many a minute, evenly, after a burst of a tenth of that (the generic cell rate algorithm)."""

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        self._step = 60.0 / per_minute
        self._burst = self._step * max(1.0, per_minute / 10)
        self._clock = clock
        self._next: dict[str, float] = {}

    def wait(self, key: str) -> float:
        """Seconds until this key may go on; 0 when it may now."""
        return max(0.0, self._next.get(key, 0.0) - self._clock() - self._burst + self._step)

    def take(self, key: str) -> None:
        """Count one."""
        now = self._clock()
        if len(self._next) >= MOST_REMEMBERED:
            self._next = {name: due for name, due in self._next.items() if due > now}
        self._next[key] = max(now, self._next.get(key, 0.0)) + self._step


class _Line:
    """The requests of one caller: those under way, and those that wait their turn."""

    def __init__(self, most: int) -> None:
        self.slots = anyio.Semaphore(most)
        self.present = 0


class Admission:
    """Lets requests in. A caller's own bounds come first, so that one who asks too much waits for nobody but itself."""

    def __init__(self, limits: Limits, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._caller_pace = Pace(limits.caller_rate, clock)
        self._total_pace = Pace(limits.total_rate, clock)
        self._lines: dict[str, _Line] = {}
        self._readings: dict[str, _Line] = {}
        self._total = anyio.Semaphore(limits.total_at_once)
        self._streams: dict[str, int] = {}
        self.under_way = 0

    def count(self, caller: str) -> None:
        """Count one request against the rates. Raises RefusedForNowError, and then counts nothing."""
        for pace, key, reason in (
            (self._caller_pace, caller, "caller-rate"),
            (self._total_pace, "", "total-rate"),
        ):
            after = pace.wait(key)
            if after > 0:
                raise RefusedForNowError(reason, after)
        self._caller_pace.take(caller)
        self._total_pace.take("")

    @asynccontextmanager
    async def turn(self, caller: str) -> AsyncIterator[None]:
        """One request under way. Raises RefusedForNowError where too many wait already."""
        async with self._place(self._lines, caller, self._limits.caller_at_once, "caller-concurrency"):
            await self._enter()
            try:
                self.under_way += 1
                yield
            finally:
                self.under_way -= 1
                self._total.release()

    @asynccontextmanager
    async def reading(self, caller: str) -> AsyncIterator[None]:
        """One body being read, before its turn. Raises RefusedForNowError where too many wait already."""
        async with self._place(self._readings, caller, self._limits.caller_bodies, "caller-bodies"):
            yield

    @asynccontextmanager
    async def _place(self, lines: dict[str, _Line], caller: str, at_once: int, reason: str) -> AsyncIterator[None]:
        """One of the places of a caller, once it is free."""
        line = lines.setdefault(caller, _Line(at_once))
        if line.present >= max(at_once, self._limits.caller_at_once) + self._limits.caller_waiting:
            raise RefusedForNowError(reason, 1)
        line.present += 1
        try:
            async with line.slots:
                yield
        finally:
            line.present -= 1
            if line.present == 0:
                lines.pop(caller, None)

    async def _enter(self) -> None:
        with anyio.move_on_after(self._limits.total_seconds):
            await self._total.acquire()
            return
        raise RefusedForNowError("total-concurrency", 1)

    @contextmanager
    def stream(self, caller: str) -> Iterator[None]:
        """One open stream; it takes no turn. Raises RefusedForNowError."""
        if self._streams.get(caller, 0) >= self._limits.caller_streams:
            raise RefusedForNowError("caller-streams", 60)
        self._streams[caller] = self._streams.get(caller, 0) + 1
        try:
            yield
        finally:
            self._streams[caller] -= 1
            if not self._streams[caller]:
                del self._streams[caller]
