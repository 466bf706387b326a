"""The Access Control API (v2): members and roles of an iTwin."""
