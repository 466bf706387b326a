"""The Python SDK 1.x as a driver: JSON requests on standard input, one line each; answers on standard output.

Runs in a virtual environment of its own: `python_v1.py {"stdio": [command, …]} | {"http": url}`.
"""

import json
import os
import sys
from contextlib import AsyncExitStack
from typing import Any

import anyio
from mcp import ClientSession, McpError, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import ElicitResult


async def confirm(_: Any, question: Any) -> ElicitResult:
    """Answer as a user who types the requested name."""
    description = question.requestedSchema["properties"]["name"]["description"]
    return ElicitResult(action="accept", content={"name": description.removeprefix("Type it to confirm: ")})


async def answer(session: ClientSession, request: dict[str, Any]) -> dict[str, Any]:
    messages: list[str | None] = []

    async def progress(done: float, total: float | None, text: str | None) -> None:
        messages.append(text)

    match request["do"]:
        case "list_tools":
            result: Any = await session.list_tools()
        case "call":
            result = await session.call_tool(request["name"], request["arguments"], progress_callback=progress)
        case "list_templates":
            result = await session.list_resource_templates()
        case "read":
            result = await session.read_resource(request["uri"])
    return result.model_dump(mode="json", by_alias=True) | {"progress": messages}


async def main() -> None:
    transport = json.loads(sys.argv[1])
    async with AsyncExitStack() as stack:
        if "http" in transport:
            read, write, *_ = await stack.enter_async_context(streamable_http_client(transport["http"]))
        else:
            command, *args = transport["stdio"]
            server = StdioServerParameters(command=command, args=args, env=dict(os.environ))
            read, write = await stack.enter_async_context(stdio_client(server))
        session = await stack.enter_async_context(ClientSession(read, write, elicitation_callback=confirm))
        hello = await session.initialize()
        say({"protocol": hello.protocolVersion, "server": hello.serverInfo.name})
        while line := await anyio.to_thread.run_sync(sys.stdin.readline):
            try:
                say(await answer(session, json.loads(line)))
            except McpError as error:
                say({"raised": {"code": error.error.code, "message": error.error.message}})
            except RuntimeError as error:
                say({"raised": {"code": None, "message": str(error)}})


def say(reply: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()


anyio.run(main)
