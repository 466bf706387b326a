"""Import of OpenAPI 3.0 and 3.1 definitions: writes a capability file for chosen operations."""
