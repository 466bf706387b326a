"""How clients connect: stdio."""

from __future__ import annotations

from typing import Any

from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server


async def serve_stdio(server: Server[Any]) -> None:
    """Serve one client over standard input and output until input ends."""
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())
