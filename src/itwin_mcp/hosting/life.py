"""Whether this replica should be sent requests, and how it ends: first it says so, then it drains."""

from __future__ import annotations

import logging

import anyio

logger = logging.getLogger(__name__)


class Life:
    """Ready from the first request on, until it is told to end."""

    def __init__(self, notice: float) -> None:
        """`notice` is how many seconds a proxy has to see that this replica is not ready."""
        self._notice = notice
        self.ready = True

    async def end(self) -> None:
        """Fail readiness and give notice; then streams may end, and the listener may close and drain."""
        self.ready = False
        logger.warning("told to end: not ready any more, closing in %g s", self._notice)
        await anyio.sleep(self._notice)
