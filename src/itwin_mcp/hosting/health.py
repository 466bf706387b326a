"""Health routes: whether this replica is alive and should receive requests, and how it shuts down."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import anyio
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

logger = logging.getLogger(__name__)


class Readiness:
    """Whether a replica should receive requests: yes from the first one until its shutdown begins."""

    def __init__(self, notice: float) -> None:
        """`notice` is how many seconds a proxy has to see that this replica is no longer ready."""
        self._notice = notice
        self.is_ready = True

    async def end(self) -> None:
        """Report that this replica is not ready, and wait `notice` seconds so that proxies stop sending requests."""
        self.is_ready = False
        logger.warning("Shutting down: no longer ready, closing in %g s", self._notice)
        await anyio.sleep(self._notice)


@dataclass(frozen=True, slots=True)
class HealthRoutes:
    """Answer `/healthz` (the process responds) and `/readyz` (it should receive requests); pass on everything else.

    Anyone may ask, because the routes reveal nothing else. They come before the check of Host, because whatever probes
    a replica calls it by its address.
    """

    app: ASGIApp
    readiness: Readiness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"] if scope["type"] == "http" else None
        if path == "/healthz":
            response = _build_response(200, "ok")
        elif path == "/readyz":
            response = _build_response(200, "ready") if self.readiness.is_ready else _build_response(503, "ending")
        else:
            await self.app(scope, receive, send)
            return
        await response(scope, receive, send)


def _build_response(code: int, status: str) -> JSONResponse:
    return JSONResponse({"status": status}, code, {"cache-control": "no-store"})
