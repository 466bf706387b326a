"""Asking the user before something is destroyed."""
