"""The composition root: Settings become a running server; the only module that knows everything."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itwin_mcp import __version__
from itwin_mcp.capability.catalog import Catalog, shipped
from itwin_mcp.capability.linker import link_files
from itwin_mcp.errors import SettingsError
from itwin_mcp.executor.executor import Executor
from itwin_mcp.executor.seals import Seals
from itwin_mcp.settings import Settings
from itwin_mcp.upstream.auth.source import TokenSource
from itwin_mcp.upstream.auth.static import StaticToken
from itwin_mcp.upstream.client import UpstreamClient

if TYPE_CHECKING:
    from itwin_mcp.sandbox import Sandbox

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Runtime:
    """What serves: the selected catalog and the executor over it."""

    catalog: Catalog
    executor: Executor
    sandbox: Sandbox | None


def read_catalog(settings: Settings) -> Catalog:
    """Our capability files and the user's own, linked and selected. Raises CapabilityError, SettingsError."""
    catalog = link_files((*shipped(), *settings.capabilities), cache=settings.cache_dir)
    return catalog.select(
        toolsets=settings.toolsets,
        tools=settings.tools,
        exclude=settings.exclude_tools,
        read_only=settings.read_only,
    )


@asynccontextmanager
async def open_runtime(settings: Settings, environment: Mapping[str, str]) -> AsyncIterator[Runtime]:
    """Everything that a server or a single call needs, closed at the end. Raises ConfigurationError."""
    catalog = read_catalog(settings)
    async with AsyncExitStack() as stack:
        sandbox = stack.enter_context(_open_sandbox(settings)) if settings.sandbox else None
        tokens: TokenSource | None = None
        if sandbox is not None:
            tokens = StaticToken(sandbox.token())
        elif settings.access_token is not None:
            try:
                tokens = StaticToken(settings.access_token.get_secret_value())
            except ValueError as error:
                raise SettingsError(f"ITWIN_ACCESS_TOKEN cannot be used: {error}.") from None
        upstream = await stack.enter_async_context(
            UpstreamClient.open(
                settings.api_url,
                tokens,
                sandbox=sandbox.app if sandbox is not None else None,
                user_agent=f"itwin-mcp/{__version__}",
            )
        )
        executor = Executor(
            upstream,
            Seals(lambda: _keys(settings.state_dir)),
            environment=_bound(catalog, environment),
        )
        yield Runtime(catalog, executor, sandbox)


async def serve_stdio(settings: Settings, environment: Mapping[str, str]) -> None:
    """Serve one MCP client over standard input and output until input ends."""
    from itwin_mcp.server import transports
    from itwin_mcp.server.app import build_server

    async with open_runtime(settings, environment) as runtime:
        await transports.serve_stdio(build_server(runtime.catalog, runtime.executor))


async def serve_http(
    settings: Settings,
    environment: Mapping[str, str],
    host: str,
    port: int,
    token: str | None,
    ready: Callable[[str], None],
) -> None:
    """Serve MCP clients over streamable HTTP on loopback until a signal ends it. Raises OSError if the port is taken."""
    from itwin_mcp.server import transports
    from itwin_mcp.server.app import build_server

    async with open_runtime(settings, environment) as runtime:
        server = build_server(runtime.catalog, runtime.executor)
        await transports.serve_http(server, host, port, token=token, ready=ready)


def _open_sandbox(settings: Settings) -> Any:
    from itwin_mcp.sandbox import Sandbox  # imported only where it is used

    return Sandbox.open(settings.sandbox_db, job_seconds=settings.job_seconds)


def _bound(catalog: Catalog, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that capability files bind, and no others."""
    wanted = {
        variable
        for operation in catalog.operations.values()
        if operation.credential is not None
        for variable in operation.credential.variables.values()
    }
    return {name: environment[name] for name in wanted if environment.get(name)}


def _keys(folder: Path) -> Sequence[bytes]:
    """The key that seals cursors: made once, readable by the user alone, so that cursors outlive the process."""
    file = folder / "seal.key"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        key = file.read_bytes()
        if len(key) != 32:
            raise SettingsError(f"{file} is damaged: delete it; cursors given so far become invalid.") from None
        return (key,)
    key = secrets.token_bytes(32)
    with os.fdopen(handle, "wb") as stream:
        stream.write(key)
    return (key,)
