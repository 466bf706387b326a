"""The MCP server that clients see; built on the SDK `mcp`."""
