"""Jobs and cursors outlive the process that created them: progress, cancellation, and continuing in another process."""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, StdioServerParameters, stdio_client

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def served(database: Path, mode: str, job_seconds: float) -> AsyncIterator[Client]:
    """Connect to a server process over a sandbox with its state in a file."""
    flags = ["--sandbox-db", str(database), "--job-seconds", str(job_seconds)]
    command = ["-m", "itwin_mcp", "serve", "--sandbox", *flags]
    server = StdioServerParameters(command=sys.executable, args=command, env=dict(os.environ))
    async with Client(stdio_client(server), mode=mode) as client:
        yield client


async def ask(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.structured_content
    assert result.structured_content is not None
    return dict(result.structured_content)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_clone_and_fork_report_progress_and_resume_in_a_new_process(mode: str, tmp_path: Path) -> None:
    messages: list[str | None] = []
    heard = anyio.Event()

    async def progress(done: float, total: float | None, text: str | None) -> None:
        messages.append(text)
        heard.set()

    async with served(tmp_path / "platform.db", mode, 2) as client:
        itwin = (await ask(client, "list-recent-itwins", limit=1))["iTwins"][0]["id"]
        source = (await ask(client, "list-imodels", iTwinId=itwin, limit=1))["iModels"][0]["id"]
        copy = {"iModelId": source, "iTwinId": itwin}

        cloned = await client.call_tool("clone-imodel", copy | {"name": "Clone"}, progress_callback=progress)
        assert cloned.structured_content is not None
        assert cloned.structured_content["iModel"]["state"] == "initialized"
        assert any(text and text.startswith("The clone: scheduled") for text in messages)

        heard = anyio.Event()
        async with anyio.create_task_group() as tasks:

            async def fork() -> None:
                await client.call_tool("fork-imodel", copy | {"name": "Fork"}, progress_callback=progress)

            tasks.start_soon(fork)
            await heard.wait()
            tasks.cancel_scope.cancel()
        # The call was cancelled; the server and the platform's job continue.
        made = (await ask(client, "list-imodels", iTwinId=itwin, name="Fork"))["iModels"]
        assert len(made) == 1
        job = (await ask(client, "clone-imodel", **copy, name="Later", wait=0))["job"]

    async with served(tmp_path / "platform.db", mode, 2) as another:
        forked = await ask(another, "wait-for-imodel", iModelId=made[0]["id"])
        assert forked["iModel"]["state"] == "initialized"
        later = await ask(another, job["checkWith"], iModelId=job["iModelId"])
        assert later["iModel"]["name"] == "Later"


@pytest.mark.slow
async def test_cursor_is_valid_in_another_process_for_its_call_only(tmp_path: Path) -> None:
    async with served(tmp_path / "platform.db", "auto", 0) as client:
        first = await ask(client, "list-itwins", limit=2)
    async with served(tmp_path / "platform.db", "auto", 0) as another:
        complete = await ask(another, "list-itwins", limit=4)
        cursor = first["page"]["cursor"]
        second = await ask(another, "list-itwins", limit=2, cursor=cursor)
        assert first["iTwins"] + second["iTwins"] == complete["iTwins"]
        for tool, arguments in (("list-recent-itwins", {}), ("list-itwins", {"search": "bridge"})):
            refused = await another.call_tool(tool, arguments | {"cursor": cursor})
            assert refused.is_error
            assert refused.structured_content is not None
            assert refused.structured_content["error"]["code"] == "InvalidArguments"
