"""What MCP clients see: the importer of mcp."""
