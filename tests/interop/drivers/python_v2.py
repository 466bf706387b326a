"""The Python SDK 2.x as a driver: JSON requests on standard input, one line each; answers on standard output.

`python_v2.py {"stdio": [command, …]} | {"http": url} [auto | legacy]`.
"""

import json
import os
import sys
from typing import Any

import anyio
from mcp import Client, MCPError, StdioServerParameters, stdio_client
from mcp.types import ElicitResult


async def confirm(_: Any, question: Any) -> ElicitResult:
    """Answer as a user who types the requested name."""
    description = question.requested_schema["properties"]["name"]["description"]
    return ElicitResult(action="accept", content={"name": description.removeprefix("Type it to confirm: ")})


async def answer(client: Client, request: dict[str, Any]) -> dict[str, Any]:
    messages: list[str | None] = []

    async def progress(done: float, total: float | None, text: str | None) -> None:
        messages.append(text)

    match request["do"]:
        case "list_tools":
            result: Any = await client.list_tools()
        case "call":
            result = await client.call_tool(request["name"], request["arguments"], progress_callback=progress)
        case "list_templates":
            result = await client.list_resource_templates()
        case "read":
            result = await client.read_resource(request["uri"])
    return result.model_dump(mode="json", by_alias=True) | {"progress": messages}


async def main() -> None:
    transport = json.loads(sys.argv[1])
    if "http" in transport:
        server: Any = transport["http"]
    else:
        command, *args = transport["stdio"]
        server = stdio_client(StdioServerParameters(command=command, args=args, env=dict(os.environ)))
    async with Client(server, mode=sys.argv[2], elicitation_callback=confirm) as client:
        say({"protocol": client.protocol_version, "server": client.server_info.name if client.server_info else None})
        while line := await anyio.to_thread.run_sync(sys.stdin.readline):
            try:
                say(await answer(client, json.loads(line)))
            except MCPError as error:
                say({"raised": {"code": error.code, "message": error.message}})
            except RuntimeError as error:
                say({"raised": {"code": None, "message": str(error)}})


def say(reply: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()


anyio.run(main)
