"""A server to compare with: two tools on the official SDK's low-level server, without checks or error handling."""

import json
import os
import sys

import anyio
import httpx2
import mcp.types as t
import uvicorn
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

ARGUMENTS = {"get_imodel": "id", "list_imodels": "iTwinId"}
client = httpx2.AsyncClient(
    base_url=os.environ["ITWIN_API_URL"],
    headers={"Authorization": "Bearer x"},
    limits=httpx2.Limits(max_connections=100),
)


async def list_tools(_, __):
    return t.ListToolsResult(
        tools=[
            t.Tool(name=name, input_schema={"type": "object", "properties": {argument: {"type": "string"}}})
            for name, argument in ARGUMENTS.items()
        ]
    )


async def call_tool(_, params):
    arguments = params.arguments
    if params.name == "get_imodel":
        answer = await client.get(f"/imodels/{arguments['id']}")
    else:
        answer = await client.get("/imodels", params={"iTwinId": arguments["iTwinId"]})
    body = answer.json()
    return t.CallToolResult(content=[t.TextContent(text=json.dumps(body))], structured_content=body)


server = Server("sdk", on_list_tools=list_tools, on_call_tool=call_tool)


async def stdio() -> None:
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


if sys.argv[1] == "stdio":
    anyio.run(stdio)
else:
    app = server.streamable_http_app(host="127.0.0.1")
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
