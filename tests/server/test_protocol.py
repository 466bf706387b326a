"""All protocol revisions: handshakes, unknown names, and errors that reveal nothing internal."""

import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from mcp import MCPError
from mcp.shared.message import SessionMessage
from mcp.types import jsonrpc_message_adapter

from itwin_mcp.executor.context import CallContext
from itwin_mcp.runtime import open_runtime
from itwin_mcp.server.app import build_server
from itwin_mcp.settings import read_settings
from tests.conftest import connect

pytestmark = pytest.mark.anyio

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
}
LEGACY = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"]


class Wire:
    """A client that sends raw JSON-RPC messages."""

    def __init__(self, incoming: Any, outgoing: Any) -> None:
        self._incoming, self._outgoing, self._id = incoming, outgoing, 0

    async def send(self, message: Mapping[str, Any]) -> None:
        parsed = jsonrpc_message_adapter.validate_python({"jsonrpc": "2.0", **message})
        await self._outgoing.send(SessionMessage(parsed))

    async def ask(self, method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send a request and return the response, which has a `result` or an `error`."""
        self._id += 1
        await self.send({"id": self._id, "method": method, "params": dict(params or {})})
        with anyio.fail_after(10):
            message = await self._incoming.receive()
        dumped: dict[str, Any] = message.message.model_dump(by_alias=True, mode="json", exclude_none=True)
        assert dumped["id"] == self._id
        return dumped


@asynccontextmanager
async def open_wire() -> AsyncIterator[Wire]:
    settings = read_settings({}, sandbox=True, job_seconds=0.0)
    to_server, from_client = anyio.create_memory_object_stream[Any](10)
    to_client, from_server = anyio.create_memory_object_stream[Any](10)
    async with open_runtime(settings, {}) as runtime:
        server = build_server(runtime.catalog, runtime.executor)
        async with anyio.create_task_group() as tasks, to_server, from_client, to_client, from_server:
            tasks.start_soon(server.run, from_client, to_client, server.create_initialization_options())
            yield Wire(from_server, to_server)
            tasks.cancel_scope.cancel()


def build_hello(version: str) -> dict[str, Any]:
    return {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}


@pytest.mark.parametrize("version", LEGACY)
async def test_older_revisions_are_negotiated_and_served(version: str) -> None:
    async with open_wire() as client:
        initialized = (await client.ask("initialize", build_hello(version)))["result"]
        assert initialized["protocolVersion"] == version
        assert "list-recent-itwins" in initialized["instructions"]
        await client.send({"method": "notifications/initialized"})
        listed = (await client.ask("tools/list"))["result"]["tools"]
        assert listed == (await client.ask("tools/list"))["result"]["tools"]
        result = (await client.ask("tools/call", {"name": "list-itwins", "arguments": {"limit": 1}}))["result"]
        assert result["isError"] is False
        assert "resultType" not in result
        assert len(json.loads(result["content"][0]["text"])["iTwins"]) == 1


async def test_call_before_the_handshake_is_refused() -> None:
    async with open_wire() as client:
        await client.ask("initialize", build_hello("2025-11-25"))
    async with open_wire() as client:
        answer = await client.ask("tools/call", {"name": "list-itwins", "arguments": {}})
        assert "error" in answer


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_unknown_tool_is_a_protocol_error(mode: str) -> None:
    async with connect(mode) as client:
        with pytest.raises(MCPError) as caught:
            await client.call_tool("drop-all-itwins", {})
        assert caught.value.error.code == -32602


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_arguments_that_are_not_an_object_are_a_protocol_error(mode: str) -> None:
    async with connect(mode) as client:
        with pytest.raises((MCPError, ValueError)):
            await client.call_tool("list-itwins", ["limit"])  # type: ignore[arg-type]


INVALID = [
    ("tools/call", {}, "name: Field required"),
    ("tools/call", {"name": 5}, "name: Input should be a valid string"),
    ("tools/call", {"name": "list-itwins", "arguments": ["canary"]}, "arguments: Input should be an object"),
    ("resources/read", {}, "uri: Field required"),
    ("prompts/get", {"name": "x", "arguments": {"a": 1}}, "arguments.a: Input should be a valid string"),
    ("tools/list", {"cursor": 5}, "cursor: Input should be a valid string"),
]


@pytest.mark.parametrize("modern", [False, True])
async def test_invalid_params_name_the_parameter_and_the_reason(modern: bool) -> None:
    async with open_wire() as client:
        envelope = {"_meta": META} if modern else {}
        if not modern:
            incomplete = await client.ask("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}})
            assert incomplete["error"]["message"] == "Invalid parameter clientInfo: Field required."
            await client.ask("initialize", build_hello("2025-11-25"))
        for method, params, reason in INVALID:
            error = (await client.ask(method, params | envelope))["error"]
            assert error["code"] == -32602
            assert error["message"] == f"Invalid parameter {reason}."
            assert "canary" not in str(error)


async def test_request_before_the_handshake_is_explained() -> None:
    async with open_wire() as client:
        error = (await client.ask("tools/list"))["error"]
        assert (error["code"], error["message"].startswith("tools/list was sent before initialize")) == (-32602, True)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_unexpected_error_is_logged_and_answered_with_a_reference(
    mode: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(context: CallContext) -> CallContext:
        raise RuntimeError("the secret inside")

    monkeypatch.setattr("itwin_mcp.executor.pipeline.run_list", fail)
    async with connect(mode) as client:
        with caplog.at_level(logging.ERROR):
            result = await client.call_tool("list-itwins", {})
        assert result.is_error
        assert result.structured_content is not None
        error = result.structured_content["error"]
        assert error["code"] == "InternalError"
        assert "secret" not in json.dumps(result.structured_content)
        reference = error["message"].rpartition("reference ")[2].rstrip(").")
        assert reference in caplog.text
        assert "the secret inside" in caplog.text


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_unexpected_error_in_the_sdk_reveals_nothing(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from itwin_mcp.server.resources import Resources

    def fail(self: Resources, uri: str) -> Any:
        raise RuntimeError("the secret inside")

    monkeypatch.setattr(Resources, "_match", fail)
    async with connect(mode) as client:
        with pytest.raises(MCPError) as caught:
            await client.read_resource("itwin://itwins/x")
        assert caught.value.error.code == -32603
        assert "secret" not in str(caught.value.error)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize(
    "uri",
    [
        "itwin://itwins/1c4b1d5e-0000-4000-8000-000000000000",
        "itwin://itwins/..",
        "itwin://itwins/a%2Fb",
        "itwin://unknown/1",
        "file:///etc/passwd",
    ],
)
async def test_missing_resource_is_invalid_params_with_its_uri(mode: str, uri: str) -> None:
    async with connect(mode) as client:
        with pytest.raises(MCPError) as caught:
            await client.read_resource(uri)
        assert caught.value.error.code == -32602
        assert caught.value.error.data["uri"] == uri


async def test_call_without_token_says_how_to_sign_in() -> None:
    async with connect(sandbox=False) as client:
        result = await client.call_tool("list-recent-itwins", {})
        assert result.is_error
        assert result.structured_content is not None
        error = result.structured_content["error"]
        assert error["code"] == "NotSignedIn"
        assert "ITWIN_ACCESS_TOKEN" in error["hint"]
