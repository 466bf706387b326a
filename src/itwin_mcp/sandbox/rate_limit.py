"""The gateway's limit of requests per minute and application (overview/rate-limits)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from itwin_mcp.sandbox.errors import ApiError
from itwin_mcp.sandbox.wire import Route

WINDOW_SECONDS: Final = 60
TIER: Final = "Community"


@dataclass(slots=True)
class RateLimit:
    """Counts requests per application, in windows of one minute that begin with its first request."""

    per_minute: int
    _windows: dict[str, tuple[datetime, int]] = field(default_factory=dict)

    def count(self, application: str, route: Route, now: datetime) -> None:
        """Count one request.

        Raises:
            ApiError: `RateLimitExceeded`, with headers that name the limit.
        """
        started, requests = self._windows.get(application, (now, 0))
        elapsed = (now - started).total_seconds()
        if elapsed >= WINDOW_SECONDS:
            started, requests, elapsed = now, 0, 0.0
        if requests >= self.per_minute:
            headers = {
                "ITwinPlatform-RateLimited-Tier": TIER,
                "ITwinPlatform-RateLimited-API": route.path.split("/")[1],
                "ITwinPlatform-RateLimited-Operation": route.slug or f"{route.method} {route.path}",
                "ITwinPlatform-RateLimited-Application": application,
            }
            seconds = max(1, math.ceil(WINDOW_SECONDS - elapsed))
            raise ApiError("RateLimitExceeded", retry_after=seconds, headers=headers)
        self._windows[application] = (started, requests + 1)
