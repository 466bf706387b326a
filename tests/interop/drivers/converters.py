"""The published tools as three agent frameworks convert them for their models, as JSON on standard output.

Runs in a virtual environment of its own: `converters.py [command, …]`, the command starting a server on stdio.
"""

import json
import os
import sys
from typing import Any

import anyio
from agents import Agent, RunContextWrapper
from agents.mcp import MCPServerStdio, MCPUtil
from google.genai._mcp_utils import mcp_to_gemini_tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_mcp_adapters.tools import load_mcp_tools
from mcp import ClientSession, StdioServerParameters, Tool
from mcp.client.stdio import stdio_client


async def openai_agents(command: list[str], *, strict: bool) -> dict[str, Any]:
    started: Any = {"command": command[0], "args": command[1:], "env": dict(os.environ)}
    async with MCPServerStdio(started, client_session_timeout_seconds=60) as server:
        agent = Agent(name="agent", mcp_servers=[server])
        tools = await MCPUtil.get_function_tools(server, strict, RunContextWrapper(None), agent)
    return {tool.name: tool.params_json_schema for tool in tools}


async def langchain(session: ClientSession) -> dict[str, Any]:
    tools = [convert_to_openai_tool(tool)["function"] for tool in await load_mcp_tools(session)]
    return {tool["name"]: tool["parameters"] for tool in tools}


def google_genai(tools: list[Tool]) -> dict[str, Any]:
    declared = [mcp_to_gemini_tool(tool).function_declarations[0] for tool in tools]
    return {
        function.name: function.parameters.model_dump(mode="json", exclude_none=True, by_alias=True)
        for function in declared
    }


async def main() -> None:
    command = json.loads(sys.argv[1])
    server = StdioServerParameters(command=command[0], args=command[1:], env=dict(os.environ))
    async with stdio_client(server) as (read, write), ClientSession(read, write) as session:
        await session.initialize()
        tools = (await session.list_tools()).tools
        converted = {
            "published": {tool.name: tool.inputSchema for tool in tools},
            "langchain": await langchain(session),
            "google-genai": google_genai(tools),
        }
    converted["openai-agents"] = await openai_agents(command, strict=False)
    converted["openai-agents strict"] = await openai_agents(command, strict=True)
    sys.stdout.write(json.dumps(converted))


anyio.run(main)
