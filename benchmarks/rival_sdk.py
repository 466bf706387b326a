"""A server to compare with: two tools on the official SDK's low-level server, as fast as its documented switches allow.

It checks no arguments, handles no errors and removes no secrets: the least that a server on this SDK can cost.
Usage: rival_sdk.py (stdio | PORT) (aiohttp | httpx2)
"""

import json
import os
import sys

import anyio
import mcp.types as t
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

BASE_URL = os.environ["ITWIN_API_URL"]
HEADERS = {"Authorization": "Bearer x"}
ARGUMENTS = {"get_imodel": "id", "list_imodels": "iTwinId"}
SCHEMAS = {
    name: {"type": "object", "properties": {argument: {"type": "string"}}} for name, argument in ARGUMENTS.items()
}
wire = sys.argv[2]


async def fetch_with_httpx2(path: str, state: dict = {}) -> str:  # noqa: B006 - keeps the client
    if "client" not in state:
        import httpx2

        limits = httpx2.Limits(max_connections=100)
        state["client"] = httpx2.AsyncClient(base_url=BASE_URL, headers=HEADERS, limits=limits)
    return (await state["client"].get(path)).text


async def fetch_with_aiohttp(path: str, state: dict = {}) -> str:  # noqa: B006 - keeps the client
    if "client" not in state:
        import aiohttp

        state["client"] = aiohttp.ClientSession(headers=HEADERS, connector=aiohttp.TCPConnector(limit=100))
    async with state["client"].get(f"{BASE_URL}{path}") as answer:
        return await answer.text()


fetch = fetch_with_aiohttp if wire == "aiohttp" else fetch_with_httpx2


async def list_tools(_, __):
    return t.ListToolsResult(tools=[t.Tool(name=name, input_schema=schema) for name, schema in SCHEMAS.items()])


async def call_tool(_, params):
    raise NotImplementedError("`answer` is called instead")


async def answer(context, call_next):
    """Middleware: a finished result needs no models."""
    if context.method != "tools/call":
        return await call_next(context)
    value = context.params["arguments"][ARGUMENTS[context.params["name"]]]
    path = f"/imodels/{value}" if context.params["name"] == "get_imodel" else f"/imodels?iTwinId={value}"
    text = await fetch(path)
    content = {"content": [{"type": "text", "text": text}], "structuredContent": json.loads(text)}
    return {**content, "isError": False, "resultType": "complete"}


server = Server("sdk", on_list_tools=list_tools, on_call_tool=call_tool, get_tool_input_schema=SCHEMAS.get)
server.middleware.clear()  # tracing
server.middleware.append(answer)


async def serve_stdio() -> None:
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


if sys.argv[1] == "stdio":
    anyio.run(serve_stdio)
else:
    import uvicorn

    app = server.streamable_http_app(host="127.0.0.1", json_response=True)
    plain = {} if wire == "aiohttp" else {"loop": "asyncio", "http": "h11"}
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False, **plain)
