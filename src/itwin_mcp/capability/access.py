"""How much a tool may do, in three steps; each includes the ones before it."""

from __future__ import annotations

from enum import IntEnum


class Access(IntEnum):
    """What a tool needs, and what a caller may."""

    NONE = 0
    READ = 1
    WRITE = 2
    DELETE = 3
    """Whatever removes or overwrites."""
