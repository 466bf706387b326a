"""Placeholder pictures, and uploaded ones."""
