"""Record one call of every tool, and replay the calls with one answer of the platform changed."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from mcp import Client

from itwin_mcp.executor.pipeline import Executor
from itwin_mcp.runtime import Runtime, open_runtime
from itwin_mcp.sandbox import Sandbox
from itwin_mcp.server.app import build_server
from itwin_mcp.settings import read_settings
from itwin_mcp.upstream.sign_in.credential_choice import Launcher
from tests.conftest import agrees, shipped_catalog
from tests.executor.bench import Clock
from tests.mutations.proxy import READS_NAMES, Exchange, Mutation, Proxy, Replay
from tests.scenarios.test_every_tool import ROWS, fill_values, read_path, write_files

TOOLS = shipped_catalog().tools
LISTS = {name for name, tool in TOOLS.items() if "limit" in tool.input_schema["properties"]}
DOWNLOADS = {name for name in TOOLS if name.startswith("download-")}


@dataclass(frozen=True)
class Recording:
    """A successful call of a tool with its exchanges."""

    tool: str
    arguments: dict[str, Any]
    exchanges: list[Exchange]
    answer: dict[str, Any]
    received: bytes | None = None
    """The content of the file that the call wrote."""


@dataclass(frozen=True)
class MutatedServer:
    """A server whose platform is behind a proxy, with a client of it."""

    client: Client
    proxy: Proxy
    runtime: Runtime
    validators: dict[str, Draft202012Validator]
    folder: Path
    """The folder of uploaded and downloaded files."""

    async def ask(self, tool: str, arguments: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """Return the structured answer, validated against the output schema, and whether it is an error."""
        result = await self.client.call_tool(tool, arguments)
        answer = result.structured_content
        assert isinstance(answer, dict)
        self.validators[tool].validate(answer)
        return answer, bool(result.is_error)

    async def replay(
        self, recording: Recording, mutation: Mutation | None = None
    ) -> tuple[dict[str, Any], bool, Replay]:
        """Repeat a recorded call with one changed answer.

        Return the tool's answer, whether it is an error, and the requests that were sent.
        """
        if recording.received is not None:
            self.get_download_path(recording).unlink(missing_ok=True)
        with self.proxy.replaying(recording.exchanges, mutation) as replay:
            answer, is_error = await self.ask(recording.tool, recording.arguments)
        return answer, is_error, replay

    def get_download_path(self, recording: Recording) -> Path:
        """Return the path of the file that a call downloads."""
        return self.folder / recording.arguments["filePath"]


@asynccontextmanager
async def serve_mutated(*, person: Any = agrees, **flags: Any) -> AsyncIterator[MutatedServer]:
    """Serve all tools with the sandbox behind a proxy. The clock skips waits, and `person` answers questions."""
    proxies: list[Proxy] = []
    original_open = Sandbox.open

    def open_sandbox(*arguments: Any, **options: Any) -> Sandbox:
        sandbox = original_open(*arguments, **options)
        proxies.append(Proxy(sandbox.app, lambda: sandbox.storage_url))
        sandbox.app = proxies[0]  # type: ignore[assignment]
        return sandbox

    clock = Clock()
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        write_files(folder)
        served = {"sandbox": True, "job_seconds": 0.0, "toolsets": "all", "files_root": [folder]} | flags
        settings = read_settings(os.environ, **served)
        patch.setattr(Sandbox, "open", open_sandbox)
        patch.setattr("itwin_mcp.runtime.Executor", partial(Executor, sleep=clock.sleep, now=clock.now))
        async with (
            open_runtime(settings, os.environ, Launcher.STDIO) as runtime,
            Client(build_server(runtime.catalog, runtime.executor), elicitation_callback=person) as client,
        ):
            schemas = {tool.name: tool.output_schema for tool in (await client.list_tools()).tools}
            validators = {name: Draft202012Validator(schema) for name, schema in schemas.items() if schema is not None}
            yield MutatedServer(client, proxies[0], runtime, validators, folder)


_RECORDED: dict[str, Recording] = {}


async def record_calls() -> dict[str, Recording]:
    """Call every tool once, in the order of `ROWS`, and return the recordings."""
    if not _RECORDED:
        async with serve_mutated() as server:
            values: dict[str, Any] = {}
            for row in ROWS:
                arguments = fill_values(row.given, values)
                with server.proxy.recording() as exchanges:
                    answer, is_error = await server.ask(row.tool, arguments)
                assert not is_error, answer
                values |= {name: read_path(answer, path) for name, path in row.keep.items()}
                received = (server.folder / arguments["filePath"]).read_bytes() if row.tool in DOWNLOADS else None
                _RECORDED[row.tool] = Recording(row.tool, arguments, exchanges, answer, received)
    return _RECORDED


async def record_pages() -> list[Recording]:
    """Record every list with at least two items in pages of one item."""
    pages = []
    async with serve_mutated() as server:
        values: dict[str, Any] = {}
        for row in ROWS:
            arguments = fill_values(row.given, values)
            paged = {"limit": 2} if row.tool in LISTS else {}
            with server.proxy.recording(page_size=1 if paged else None) as exchanges:
                answer, is_error = await server.ask(row.tool, arguments | paged)
            assert not is_error, answer
            if paged and len(exchanges) > 1:
                pages.append(Recording(row.tool, arguments | paged, exchanges, answer))
            values |= {name: read_path(answer, path) for name, path in row.keep.items()}
    return pages


def select_exchanges(exchanges: list[Exchange], *, writes: bool) -> Iterator[tuple[int, Exchange]]:
    """Yield the first read of each operation, or the first write of each, with its index.

    Omit READS_NAMES, because a call never fails when the names of users are missing.
    """
    seen = set[tuple[str, str]]()
    for index, exchange in enumerate(exchanges):
        path = exchange.target.partition("?")[0]
        kind = exchange.method, re.sub(r"/[^/]*[0-9][^/]*", "/*", path)
        if (exchange.method, path) == READS_NAMES:
            continue
        if (exchange.method != "GET") is writes and kind not in seen:
            seen.add(kind)
            yield index, exchange
