"""Shared fixtures: asyncio through anyio, and separate folders for state and caches."""

import os
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import mcp.types as t
import pytest
from hypothesis import HealthCheck, settings
from joserfc.jwk import RSAKey
from mcp import Client
from mcp.server.lowlevel import Server

from itwin_mcp.capability.catalog import Catalog
from itwin_mcp.capability.documents import find_shipped_files
from itwin_mcp.capability.linker import link_files
from itwin_mcp.executor.context import LOCAL, Caller
from itwin_mcp.runtime import open_runtime
from itwin_mcp.server.app import build_server
from itwin_mcp.settings import read_settings
from itwin_mcp.upstream.sign_in.credential_choice import Launcher

# Property tests must not depend on the speed of the machine, and their examples may share our fixtures.
settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("live", "contract tests against the real iTwin Platform (-m live)")
    group.addoption("--live-write", action="store_true", help="also write, in iTwins that are made and deleted for it")
    group.addoption("--live-report", type=Path, metavar="FOLDER", help="where the differences go; ./live-report")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a skipped test of `.ci/full`, because its result is needed."""
    report = yield
    if report.skipped and item.get_closest_marker("full"):
        report.outcome = "failed"
        report.longrepr = f"A test marked `full` must run: {report.longrepr}"
    return report


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cache parsed capability files by content, because parsing them in each test took half of the time."""
    return tmp_path_factory.mktemp("cache")


@cache
def shipped_catalog() -> Catalog:
    """Link our capability files once: nothing changes a catalog, and linking takes longer than most tests."""
    return link_files(find_shipped_files())


@pytest.fixture(autouse=True)
def link_shipped_files_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every server without a user's own capability files the catalog of the session."""

    def link(files: Iterable[Path], *, cache: Path | None = None) -> Catalog:
        files = tuple(files)
        return shipped_catalog() if files == tuple(find_shipped_files()) else link_files(files, cache=cache)

    monkeypatch.setattr("itwin_mcp.runtime.load_catalog", link)


@pytest.fixture(scope="session")
def sandbox_key() -> RSAKey:
    """Generate one signing key for all sandboxes of this process, because that takes longer than most tests."""
    return RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256"}, auto_kid=True)


@pytest.fixture(autouse=True)
def sign_with_one_key(sandbox_key: RSAKey, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every sandbox sign with the key of the session."""
    monkeypatch.setattr("itwin_mcp.sandbox.identity.jwt.generate_signing_key", lambda: sandbox_key)


@pytest.fixture(autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the developer's own settings, logins and caches from tests."""
    for name in list(os.environ):
        if name.startswith(("ITWIN_", "ITP_", "IMODEL_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("ITWIN_MCP_STATE_DIR", str(tmp_path_factory.mktemp("state")))
    monkeypatch.setenv("ITWIN_MCP_CACHE_DIR", str(shared_cache))


@pytest.fixture
async def agent() -> AsyncIterator[Client]:
    """Connect the official client in memory to a server over the sandbox. Jobs end at once; protocol 2026-07-28."""
    async with connect() as client:
        yield client


async def agrees(_: Any, question: t.ElicitRequestParams) -> t.ElicitResult:
    """Answer as a user who confirms every form by typing the name, and opens no links."""
    if not isinstance(question, t.ElicitRequestFormParams):
        return t.ElicitResult(action="cancel")
    return t.ElicitResult(action="accept", content={"name": name_in(question)})


def name_in(question: t.ElicitRequestFormParams) -> str:
    """Return the name that a question asks the user to type."""
    return question.message.rpartition("To confirm, type: ")[2]


@asynccontextmanager
async def serving(
    *, caller: Callable[[], Caller] = lambda: LOCAL, started: Launcher = Launcher.STDIO, **flags: Any
) -> AsyncIterator[Server[Any]]:
    """Build our server for clients in memory: all tools over the sandbox, unless `flags` override that.

    `caller` returns the caller of each request.
    """
    settings = read_settings(os.environ, **{"sandbox": True, "job_seconds": 0.0, "toolsets": "all"} | flags)
    async with open_runtime(settings, os.environ, started) as runtime:
        yield build_server(runtime.catalog, runtime.executor, caller)


@asynccontextmanager
async def connect(mode: str = "auto", *, person: Any = agrees, **serves: Any) -> AsyncIterator[Client]:
    """Connect a client to our server in memory. `person` answers questions; with None it has no elicitation."""
    async with serving(**serves) as server, Client(server, mode=mode, elicitation_callback=person) as client:
        yield client
