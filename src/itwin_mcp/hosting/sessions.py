"""The sessions that older clients open, counted by caller, so that one cannot take all that there are."""

from __future__ import annotations

import time
from collections.abc import Callable

from itwin_mcp.hosting.limits import RefusedForNowError

IDLE_SECONDS = 1800.0
"""After which the SDK ends a session that nobody uses."""


class Sessions:
    """Which sessions each caller has; one that was idle for too long no longer counts."""

    def __init__(self, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._used: dict[str, dict[str, float]] = {}

    def check(self, caller: str) -> None:
        """Whether the caller may open another one. Raises RefusedForNowError."""
        now = self._clock()
        mine = {name: used for name, used in self._used.get(caller, {}).items() if now - used <= IDLE_SECONDS}
        self._used[caller] = mine
        if not mine:
            del self._used[caller]
        if len(mine) >= self._most:
            raise RefusedForNowError("caller-sessions", IDLE_SECONDS - (now - min(mine.values())))

    def use(self, caller: str, session: str) -> None:
        """A session that the server named in its answer: it was opened, or used."""
        self._used.setdefault(caller, {})[session] = self._clock()

    def renew(self, caller: str, session: str) -> None:
        """A session that only the client named: it was used if the caller has it, and else is nothing."""
        if session in self._used.get(caller, {}):
            self.use(caller, session)

    def end(self, caller: str, session: str) -> None:
        """The caller closed a session."""
        mine = self._used.get(caller, {})
        mine.pop(session, None)
        if not mine:
            self._used.pop(caller, None)
