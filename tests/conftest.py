"""What every test stands on: asyncio through anyio, and folders of its own for state and caches."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from mcp import Client

from itwin_mcp.runtime import open_runtime
from itwin_mcp.server.app import build_server
from itwin_mcp.settings import read_settings


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the developer's own settings, sign-ins or caches reaches a test."""
    for name in list(os.environ):
        if name.startswith(("ITWIN_", "ITP_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("ITWIN_MCP_STATE_DIR", str(tmp_path_factory.mktemp("state")))
    monkeypatch.setenv("ITWIN_MCP_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
async def agent() -> AsyncIterator[Client]:
    """The official client, in memory, on a server over the sandbox whose jobs end at once; protocol 2026-07-28."""
    async with connect() as client:
        yield client


@asynccontextmanager
async def connect(mode: str = "auto", **flags: Any) -> AsyncIterator[Client]:
    """A client of our own server, in memory. `flags` are those of `read_settings`; the sandbox is on unless refused."""
    settings = read_settings(os.environ, **{"sandbox": True, "job_seconds": 0.0} | flags)
    async with open_runtime(settings, os.environ) as runtime:
        async with Client(build_server(runtime.catalog, runtime.executor), mode=mode) as client:
            yield client
