"""Placeholder pictures and uploaded pictures."""
