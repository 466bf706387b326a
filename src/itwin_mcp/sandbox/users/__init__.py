"""The Users API (v1)."""
