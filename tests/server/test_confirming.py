"""Confirmation through real processes: clients of both eras over stdio and HTTP, and the user's terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from mcp import Client, StdioServerParameters, stdio_client

from tests.cli.test_confirming import answer_on_terminal
from tests.conftest import agrees
from tests.scenarios.test_confirming import Person, answer_of, code_of, does, name_in, typing
from tests.server.processes import serve_http

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

ERAS = ["auto", "legacy"]
ROADS = "A12 Interchange - Roads"
FLAGS = ("--sandbox", "--job-seconds", "0", "--toolsets", "all")


@asynccontextmanager
async def over_stdio(mode: str, person: Any, log: Path) -> AsyncIterator[Client]:
    server = StdioServerParameters(
        command=sys.executable, args=["-m", "itwin_mcp", "serve", *FLAGS, "--log-level", "debug"], env=dict(os.environ)
    )
    with log.open("w") as stream, anyio.fail_after(120):
        async with Client(stdio_client(server, errlog=stream), mode=mode, elicitation_callback=person) as client:
            yield client


@asynccontextmanager
async def over_http(mode: str, person: Any, log: Path) -> AsyncIterator[Client]:
    """Yield the same over HTTP, without a log."""
    with serve_http(*FLAGS) as served, anyio.fail_after(120):
        async with Client(served.url, mode=mode, elicitation_callback=person) as client:
            yield client


TRANSPORTS = {"stdio": over_stdio, "http": over_http}


def list_writes(log: Path) -> list[str]:
    """Return the log lines of writing requests; [] if there is no log. The log level must be debug."""
    if not log.exists():
        return []
    lines = log.read_text().splitlines()
    assert any("GET" in line for line in lines), "the log names requests"
    writes = [line for line in lines if any(f"{method} " in line for method in ("DELETE", "PATCH", "PUT", "POST"))]
    return [line for line in writes if "/users/getbyidlist" not in line]  # this POST only reads names of users


async def find_roads(client: Client) -> dict[str, Any]:
    answer = (await client.call_tool("find-imodel", {"name": ROADS})).structured_content or {}
    return {"iModelId": answer["matches"]["byName"][0]["id"]}


@pytest.mark.parametrize("mode", ERAS)
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_delete_needs_the_typed_name_and_decline_sends_nothing(transport: str, mode: str, tmp_path: Path) -> None:
    person = Person()
    async with TRANSPORTS[transport](mode, person, tmp_path / "no") as client:
        imodel = await find_roads(client)
        for reply, code in (
            (does("decline"), "Declined"),
            (does("cancel"), "Cancelled"),
            (lambda _: typing("yes"), "NameMismatch"),
        ):
            person.answer = reply
            assert await code_of(client, "delete-imodel", imodel) == code
        assert not (await client.call_tool("get-imodel", imodel)).is_error
    assert list_writes(tmp_path / "no") == []
    async with TRANSPORTS[transport](mode, agrees, tmp_path / "yes") as client:
        result = await client.call_tool("delete-imodel", await find_roads(client))
        assert result.structured_content == {"deleted": True}
    assert len(list_writes(tmp_path / "yes")) == (1 if transport == "stdio" else 0)


@pytest.mark.parametrize("mode", ERAS)
async def test_http_client_without_elicitation_gets_only_the_preview(mode: str, tmp_path: Path) -> None:
    async with over_http(mode, None, tmp_path / "log") as client:
        preview = await answer_of(client, "delete-imodel", await find_roads(client), "preview")
        assert preview["loses"]["changesets"] == 12
        assert "approveWith" not in preview
        assert not (await client.call_tool("get-imodel", await find_roads(client))).is_error


@pytest.mark.parametrize("mode", ERAS)
async def test_stdio_client_without_elicitation_uses_approve_in_a_terminal(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def approve(*arguments: str) -> Any:
        command = [sys.executable, "-m", "itwin_mcp", "approve", "--json", *arguments]
        return json.loads(subprocess.run(command, capture_output=True, text=True, timeout=60).stdout)

    async with over_stdio(mode, None, tmp_path / "log") as client:
        imodel = await find_roads(client)
        preview = await answer_of(client, "delete-imodel", imodel, "preview")
        identifier = preview["approveWith"].split()[-1]
        assert f"`{preview['approveWith']}`" in preview["hint"]
        (waiting,) = (await anyio.to_thread.run_sync(approve))["pending"]
        assert (waiting["id"], waiting["name"], waiting["loses"]) == (identifier, ROADS, preview["loses"])
        # The command must work in a shell without this installation's folder, PATH and state folder.
        monkeypatch.chdir("/")
        monkeypatch.setenv("PATH", "/usr/bin:/bin")
        monkeypatch.delenv("ITWIN_MCP_STATE_DIR")
        await anyio.to_thread.run_sync(answer_on_terminal, ROADS.encode(), "sh", "-c", preview["approveWith"])
        result = await client.call_tool("delete-imodel", imodel)
        assert result.structured_content == {"deleted": True}
        assert (await answer_of(client, "delete-imodel", imodel))["status"] == 404
    assert len(list_writes(tmp_path / "log")) == 1


async def test_confirmation_for_one_server_is_refused_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each state folder has its own key, so a server with another folder cannot open the seal."""
    async with over_stdio("auto", agrees, tmp_path / "one") as client:
        imodel = await find_roads(client)
        question: Any = await client.session.call_tool("delete-imodel", imodel, allow_input_required=True)
    monkeypatch.setenv("ITWIN_MCP_STATE_DIR", str(tmp_path / "elsewhere"))
    async with over_stdio("auto", agrees, tmp_path / "two") as client:
        result = await client.session.call_tool(
            "delete-imodel",
            imodel,
            input_responses={"confirm": typing(name_in(question.input_requests["confirm"].params))},
            request_state=question.request_state,
        )
    assert (result.structured_content or {})["error"]["code"] == "ConfirmationInvalid"
    assert list_writes(tmp_path / "two") == []
