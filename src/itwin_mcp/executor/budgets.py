"""How often something was done in the last hour, per caller; in memory, so that each process counts for itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

HOUR = 3600.0
MOST_KEPT = 10_000
"""Counts that are kept; beyond it, those that ran out are dropped first."""

Key = tuple[str, str]
"""Whose, and of what."""


class Budgets:
    """Sliding hours."""

    def __init__(self, now: Callable[[], float]) -> None:
        """`now` gives seconds from any beginning."""
        self._now = now
        self._taken: dict[Key, deque[float]] = {}

    def wait(self, key: Key, most: int) -> float:
        """Seconds until one more is allowed; 0 where it is allowed now."""
        taken = self._recent(key)
        return 0.0 if len(taken) < most else taken[-most] + HOUR - self._now() if most else HOUR

    def take(self, key: Key, most: int) -> float:
        """Count one more and give 0; where none is left, count nothing and give the seconds until one is."""
        seconds = self.wait(key, most)
        if seconds <= 0:
            self._recent(key).append(self._now())
            return 0.0
        return seconds

    def _recent(self, key: Key) -> deque[float]:
        if key not in self._taken and len(self._taken) >= MOST_KEPT:
            ended = self._now() - HOUR
            self._taken = {one: times for one, times in self._taken.items() if times and times[-1] > ended}
        taken = self._taken.setdefault(key, deque())
        while taken and taken[0] <= self._now() - HOUR:
            taken.popleft()
        return taken
