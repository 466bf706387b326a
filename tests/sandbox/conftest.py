"""Fixtures: a sandbox with a clock that tests move, and HTTP clients for its users."""

from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta

import httpx2
import pytest

from itwin_mcp.sandbox import Sandbox

ORIGIN = "https://api.bentley.com"


class Clock:
    """A clock whose time changes only when a test calls `forward`."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sandbox(clock: Clock) -> Iterator[Sandbox]:
    with Sandbox.open(clock=clock, job_seconds=10) as opened:
        yield opened


@pytest.fixture
async def http_as(sandbox: Sandbox) -> AsyncIterator[Callable[[str | None], httpx2.AsyncClient]]:
    """Return a function that opens a client for the user with a given name, or for None a client without a token."""
    clients: list[httpx2.AsyncClient] = []

    def connect(user: str | None) -> httpx2.AsyncClient:
        headers = {"Authorization": f"Bearer {sandbox.token(user)}"} if user else {}
        client = httpx2.AsyncClient(transport=httpx2.ASGITransport(sandbox.app), base_url=ORIGIN, headers=headers)
        clients.append(client)
        return client

    yield connect
    for client in clients:
        await client.aclose()


@pytest.fixture
def http(http_as: Callable[[str | None], httpx2.AsyncClient]) -> httpx2.AsyncClient:
    """Return the client of the seeded owner."""
    return http_as("anna")
