"""Serves tools over plain HTTP: translates a request to a call, and its outcome to a response."""
