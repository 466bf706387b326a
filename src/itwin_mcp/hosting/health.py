"""Health routes: report that this replica is alive, and whether it should receive requests."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import anyio
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

logger = logging.getLogger(__name__)


class Readiness:
    """Stores whether a replica should receive requests, which is true until its shutdown begins."""

    def __init__(self, notice: float) -> None:
        """`notice` is the time in seconds that proxies need to notice that this replica is not ready."""
        self._notice = notice
        self.is_ready = True

    async def end(self) -> None:
        """Report from now on that this replica is not ready, and wait until proxies have stopped sending requests."""
        self.is_ready = False
        logger.warning("Shutting down: no longer ready, closing in %g s", self._notice)
        await anyio.sleep(self._notice)


@dataclass(frozen=True, slots=True)
class HealthRoutes:
    """ASGI middleware that answers `/healthz` (the process responds) and `/readyz` (it should receive requests).

    Anyone may ask, because the routes reveal nothing else. They come before the check of the Host header, because
    probes call a replica by its IP address.
    """

    app: ASGIApp
    readiness: Readiness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"] if scope["type"] == "http" else None
        if path == "/healthz":
            code, status = 200, "ok"
        elif path == "/readyz":
            code, status = (200, "ready") if self.readiness.is_ready else (503, "ending")
        else:
            await self.app(scope, receive, send)
            return
        response = JSONResponse({"status": status}, code, {"cache-control": "no-store"})
        await response(scope, receive, send)
