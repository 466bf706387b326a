"""The two that a check can be run against: the sandbox in this process, and the real platform over the network."""

import base64
import json
import linecache
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx2

from itwin_mcp.sandbox import Sandbox
from tests.contract.live import reading, writing
from tests.contract.live.checks import Check
from tests.contract.live.wire import Wire
from tests.sandbox.conftest import ORIGIN, Clock

PAUSE_SECONDS = 2  # between questions to the real platform about its jobs
MODULES = {module.__file__ for module in (reading, writing)}


@dataclass(frozen=True)
class Real:
    """Where the platform is, whose token opens it, and what was found there to read from."""

    url: str
    token: str = field(repr=False)
    transport: httpx2.AsyncBaseTransport | None = None
    subjects: dict[str, dict[str, Any]] = field(default_factory=dict)

    @asynccontextmanager
    async def wire(self) -> AsyncIterator[Wire]:
        headers = {"Authorization": f"Bearer {self.token.removeprefix('Bearer ')}"}
        options: dict[str, Any] = {"transport": self.transport, "timeout": 60, "follow_redirects": False}
        async with (
            httpx2.AsyncClient(base_url=self.url, headers=headers, **options) as http,
            httpx2.AsyncClient(**options) as storage,
        ):
            wire = Wire(http, storage, lambda: anyio.sleep(PAUSE_SECONDS), self.subjects)
            wire.secrets |= {self.token, *claims(self.token)}
            yield wire


def claims(token: str) -> list[str]:
    """Return the claims of a token about its owner, if it can be read."""
    try:
        payload = token.split(".")[1]
        told = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError):
        return []
    return [value for value in told.values() if isinstance(value, str)]


@asynccontextmanager
async def emulated() -> AsyncIterator[Wire]:
    """A sandbox of its own, whose clock moves a second with each pause."""
    clock = Clock()

    async def pause() -> None:
        clock.forward(1)

    with Sandbox.open(clock=clock, job_seconds=1) as sandbox:
        transport = httpx2.ASGITransport(sandbox.app)
        headers = {"Authorization": f"Bearer {sandbox.token()}"}
        async with (
            httpx2.AsyncClient(transport=transport, base_url=ORIGIN, headers=headers) as http,
            httpx2.AsyncClient(transport=transport) as storage,
        ):
            yield Wire(http, storage, pause, {})


async def run(check: Check, wire: Wire) -> str | None:
    """The line of the check that did not hold, without what stood in it; None if all did."""
    try:
        await check.body(wire)
    except (AssertionError, LookupError, TypeError, AttributeError) as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in MODULES]
        # A failure in a helper is reported with the line of the check that called it, and without values.
        return (
            linecache.getline(frames[-1].filename, frames[-1].lineno or 0).strip() if frames else type(error).__name__
        )
    return None
