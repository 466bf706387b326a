"""What a capability file says: pure data, no HTTP and no MCP."""
