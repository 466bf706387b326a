"""What every test stands on: asyncio through anyio, and folders of its own for state and caches."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from itwin_mcp.runtime import open_runtime
from itwin_mcp.server.app import build_server
from itwin_mcp.settings import read_settings
from itwin_mcp.sign_in import Started


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("live", "contract tests against the real iTwin Platform (-m live)")
    group.addoption("--live-write", action="store_true", help="also write, in iTwins that are made and deleted for it")
    group.addoption("--live-report", type=Path, metavar="FOLDER", help="where the differences go; ./live-report")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parsed capability files, kept by content: reading ours anew in each test took half the time of all."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the developer's own settings, sign-ins or caches reaches a test."""
    for name in list(os.environ):
        if name.startswith(("ITWIN_", "ITP_", "IMODEL_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("ITWIN_MCP_STATE_DIR", str(tmp_path_factory.mktemp("state")))
    monkeypatch.setenv("ITWIN_MCP_CACHE_DIR", str(shared_cache))


@pytest.fixture
async def agent() -> AsyncIterator[Client]:
    """The official client, in memory, on a server over the sandbox whose jobs end at once; protocol 2026-07-28."""
    async with connect() as client:
        yield client


@asynccontextmanager
async def connect(mode: str = "auto", **flags: Any) -> AsyncIterator[Client]:
    """A client of our own server, in memory: all tools and the sandbox, unless flags of `read_settings` say other."""
    settings = read_settings(os.environ, **{"sandbox": True, "job_seconds": 0.0, "toolsets": "all"} | flags)
    async with open_runtime(settings, os.environ, Started.STDIO) as runtime:
        async with Client(build_server(runtime.catalog, runtime.executor, runtime.session), mode=mode) as client:
            yield client
