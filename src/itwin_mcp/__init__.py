"""itwin-mcp: an MCP server over Bentley's iTwin Platform whose capabilities are data."""

__version__ = "0.1.0"
