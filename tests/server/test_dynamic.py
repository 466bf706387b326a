"""`--toolsets dynamic`: tools are found, described and run with the same results as listed tools."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp.types import INVALID_PARAMS

from itwin_mcp.errors import SettingsError
from tests.conftest import connect

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with connect(toolsets="dynamic") as client:
        yield client


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_dynamic_lists_its_four_tools_and_the_session_tools(mode: str) -> None:
    async with connect(mode, toolsets="dynamic") as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        assert names == [
            "who-am-i",
            "read-guide",
            "find-tools",
            "describe-tool",
            "run-reading-tool",
            "run-writing-tool",
        ]
        annotations = {tool.name: tool.annotations for tool in (await client.list_tools()).tools}
        reading, writing = annotations["run-reading-tool"], annotations["run-writing-tool"]
        assert reading is not None
        assert writing is not None
        assert (reading.read_only_hint, reading.destructive_hint) == (True, False)
        assert (writing.read_only_hint, writing.destructive_hint) == (False, True)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_dynamic_finds_describes_and_runs_a_tool(mode: str) -> None:
    async with connect(mode, toolsets="dynamic") as client:
        found = (await client.call_tool("find-tools", {"query": "projects I used recently"})).structured_content
        assert found is not None
        best = found["tools"][0]
        assert (best["name"], best["runWith"]) == ("list-recent-itwins", "run-reading-tool")
        described = (await client.call_tool("describe-tool", {"name": best["name"]})).structured_content
        assert described is not None
        assert "limit" in described["tool"]["inputSchema"]["properties"]
        arguments = {"name": best["name"], "arguments": {"limit": 2}}
        answer = await client.call_tool("run-reading-tool", arguments)
    async with connect(mode) as client:
        direct = await client.call_tool(best["name"], {"limit": 2})
        assert answer.structured_content is not None
        assert direct.structured_content is not None
        assert answer.structured_content["iTwins"] == direct.structured_content["iTwins"]
        assert answer.structured_content.keys() == direct.structured_content.keys()


async def call_with_error(client: Client, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    result = await client.call_tool(name, arguments)
    assert result.is_error
    assert result.structured_content is not None
    return dict(result.structured_content["error"])


async def test_runners_refuse_tools_of_the_other_kind(client: Client) -> None:
    error = await call_with_error(client, "run-reading-tool", {"name": "delete-imodel", "arguments": {"iModelId": "x"}})
    assert error["code"] == "InvalidArguments"
    assert "run-writing-tool" in error["hint"]
    error = await call_with_error(client, "run-writing-tool", {"name": "list-itwins"})
    assert "run-reading-tool" in error["hint"]
    project = {"displayName": "Quay 7", "class": "Endeavor", "subClass": "Project"}
    result = await client.call_tool("run-writing-tool", {"name": "create-itwin", "arguments": project})
    assert result.structured_content is not None
    assert result.structured_content["iTwin"]["displayName"] == "Quay 7"


@pytest.mark.parametrize("arguments", ["null", None, ""])
async def test_run_reading_tool_accepts_null_arguments(client: Client, arguments: str | None) -> None:
    result = await client.call_tool("run-reading-tool", {"name": "list-recent-itwins", "arguments": arguments})
    assert not result.is_error, result.structured_content
    assert result.structured_content is not None and result.structured_content["iTwins"]


async def test_runner_returns_the_errors_of_the_tool(client: Client) -> None:
    error = await call_with_error(client, "run-reading-tool", {"name": "get-itwin", "arguments": {}})
    assert (error["code"], error["operation"]) == ("InvalidArguments", "get-itwin")
    assert error["details"][0]["target"] == "iTwinId"
    error = await call_with_error(client, "run-reading-tool", {"name": "get-itwins", "arguments": {}})
    assert "get-itwin" in error["hint"]
    error = await call_with_error(client, "run-reading-tool", {"arguments": {}})
    assert error["code"] == "InvalidArguments"
    error = await call_with_error(client, "run-reading-tool", {"name": "run-reading-tool"})
    assert "directly" in error["hint"]
    error = await call_with_error(client, "run-reading-tool", {"name": "who-am-i"})
    assert "directly" in error["hint"]


async def test_excluded_and_read_only_tools_are_neither_found_nor_run() -> None:
    async with connect(toolsets="dynamic", read_only=True, exclude_tools="find-itwin") as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        assert "run-writing-tool" not in names
        found = await client.call_tool("find-tools", {"query": "find or delete an iTwin", "limit": 20})
        assert found.structured_content is not None
        assert not {"delete-itwin", "find-itwin"} & {tool["name"] for tool in found.structured_content["tools"]}
        error = await call_with_error(client, "run-reading-tool", {"name": "delete-itwin", "arguments": {}})
        assert "It is not served here: it changes data, and --read-only leaves it out." in error["hint"]


@pytest.mark.parametrize(
    ("flags", "name", "words"),
    [
        ({}, "list_itwins", "Unknown tool: list_itwins. Did you mean 'list-itwins'?"),
        ({}, "fly", "Unknown tool: fly. See tools/list."),
        ({}, "Get-iTwinn", "Did you mean 'get-itwin'?"),
        ({"exclude_tools": "get-itwin"}, "get-itwin", "--exclude-tools leaves it out"),
        ({"read_only": True}, "delete_itwin", "Did you mean 'delete-itwin'? It is not served here: it changes data"),
        ({"toolsets": "itwins"}, "list-locks", "It is not served here: it is in the toolset locks."),
        ({"read_only": True}, "delete-itwin", "it changes data, and --read-only leaves it out"),
        ({"toolsets": "dynamic"}, "list-itwins", "Run it with run-reading-tool."),
        ({"toolsets": "dynamic"}, "delete-itwin", "Run it with run-writing-tool."),
        ({"toolsets": "dynamic"}, "find_tools", "Did you mean 'find-tools'?"),
    ],
)
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_unknown_tool_error_names_the_tool_to_call(
    mode: str, flags: dict[str, Any], name: str, words: str
) -> None:
    async with connect(mode, **flags) as client:
        with pytest.raises(MCPError) as caught:
            await client.call_tool(name, {})
    assert caught.value.error.code == INVALID_PARAMS
    assert words in caught.value.error.message


async def test_call_of_a_hidden_tool_does_not_name_it(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("itwin-mcp-policy: 1\ndefault: {itwins: all, tools: {allow: [read-only]}}\n")
    async with connect(policy=policy) as client:
        with pytest.raises(MCPError, match="It is not served here: the policy does not allow it"):
            await client.call_tool("delete-itwin", {})


async def test_named_toolsets_and_tools_are_listed_with_the_dynamic_ones() -> None:
    async with connect(toolsets="dynamic,accounts", tools="list-locks") as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert {"find-tools", "get-my-account", "list-locks"} <= names
        assert "list-itwins" not in names


async def test_dynamic_tools_are_listed_only_with_dynamic() -> None:
    for toolsets in (None, "all"):
        async with connect(toolsets=toolsets) as client:
            assert "find-tools" not in [tool.name for tool in (await client.list_tools()).tools]


async def test_dynamic_costs_less_than_1500_tokens(client: Client) -> None:
    tools = [
        {"name": tool.name, "title": tool.title, "description": tool.description, "inputSchema": tool.input_schema}
        for tool in (await client.list_tools()).tools
    ]
    size = sum(len(json.dumps(tool, separators=(",", ":")).encode()) for tool in tools)
    assert size / 4 < 1500


def test_dynamic_without_tools_refuses_to_start() -> None:
    from itwin_mcp.capability.catalog import Catalog
    from itwin_mcp.server.dynamic_tools import TOOLS, DynamicTools

    with pytest.raises(SettingsError):
        DynamicTools(Catalog({tool.name: tool for tool in TOOLS}), lambda _, __: True)
