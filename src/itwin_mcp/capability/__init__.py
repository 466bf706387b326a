"""Capability files: reading, checking and compiling them into a catalog. No HTTP and no MCP."""
