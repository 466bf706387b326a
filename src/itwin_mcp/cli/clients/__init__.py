"""MCP clients on this machine: where each stores its servers, and how an entry is added and removed."""
