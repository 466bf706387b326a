"""`serve --watch`: changed capability files are served, broken ones are not, and clients are notified."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import mcp.types as t
import pytest
from mcp import Client

from itwin_mcp.capability import file_watch
from itwin_mcp.cli.capability_new import make_starter
from itwin_mcp.runtime import Launcher, open_runtime, reload_on_change
from itwin_mcp.server.app import build_server
from itwin_mcp.settings import read_settings

pytestmark = pytest.mark.anyio
TOOLS = {"parts-list-items", "parts-get-item", "parts-create-item"}


class Received:
    """The notifications that a client has received."""

    def __init__(self) -> None:
        self.methods: list[str] = []
        self.arrived = anyio.Event()

    async def take(self, message: Any) -> None:
        if isinstance(message, t.ToolListChangedNotification):
            self.methods.append(message.method)
            self.arrived.set()


@asynccontextmanager
async def watch(
    folder: Path, monkeypatch: pytest.MonkeyPatch, mode: str, received: Received
) -> AsyncIterator[tuple[Client, Path]]:
    """Serve a capability file that is watched, and connect a client to the server."""
    monkeypatch.setattr(file_watch, "INTERVAL", 0.02)
    monkeypatch.setenv("PARTS_TOKEN", "canary")
    file = folder / "parts.yaml"
    file.write_text(make_starter("parts", file), encoding="utf-8")
    settings = read_settings(os.environ, sandbox=True, toolsets="parts", capabilities=(file,))
    async with open_runtime(settings, os.environ, Launcher.STDIO) as runtime:
        server = build_server(runtime.catalog, runtime.executor)
        async with (
            reload_on_change(server, runtime, settings, True),
            Client(server, mode=mode, message_handler=received.take) as client,
        ):
            yield client, file


async def list_tools(client: Client) -> set[str]:
    return {tool.name for tool in (await client.list_tools()).tools}


async def wait_for_tools(client: Client, tools: set[str]) -> None:
    with anyio.fail_after(20):
        while await list_tools(client) != tools:  # noqa: ASYNC110  (nothing announces the end)
            await anyio.sleep(0.02)


async def test_changed_file_is_served_and_clients_with_a_handshake_are_notified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    received = Received()
    async with watch(tmp_path, monkeypatch, "legacy", received) as (client, file):
        assert client.server_capabilities.tools == t.ToolsCapability(list_changed=True)
        assert await list_tools(client) == TOOLS
        file.write_text(file.read_text().replace("parts-get-item", "parts-read-item"))
        with anyio.fail_after(20):
            await received.arrived.wait()
        assert await list_tools(client) == TOOLS - {"parts-get-item"} | {"parts-read-item"}
        refused = await client.call_tool("parts-read-item", {})
        assert refused.structured_content is not None
        assert refused.structured_content["error"]["details"][0]["target"] == "itemId"


@pytest.mark.slow
async def test_changed_file_is_announced_to_a_listening_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        watch(tmp_path, monkeypatch, "auto", Received()) as (client, file),
        client.listen(tools_list_changed=True) as events,
    ):
        file.write_text(file.read_text().replace("parts-get-item", "parts-read-item"))
        with anyio.fail_after(20):
            event = await anext(aiter(events))
        assert type(event).__name__ == "ToolsListChanged"
        assert "parts-read-item" in await list_tools(client)


@pytest.mark.slow
async def test_broken_file_is_logged_once_and_the_last_good_catalog_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "itwin_mcp")
    async with watch(tmp_path, monkeypatch, "auto", Received()) as (client, file):
        sound = file.read_text()
        file.write_text(sound.replace("call: parts-api.get-item", "call: parts-api.get-itm"))
        with anyio.fail_after(20):
            while not any(record.levelname == "ERROR" for record in caplog.records):  # noqa: ASYNC110
                await anyio.sleep(0.02)
        await anyio.sleep(0.2)
        (error,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        assert "did you mean 'get-item'? [unresolved-call]" in error
        assert "\n" not in error
        assert await list_tools(client) == TOOLS
        file.write_text(sound.replace("parts-get-item", "parts-read-item"))
        await wait_for_tools(client, TOOLS - {"parts-get-item"} | {"parts-read-item"})
