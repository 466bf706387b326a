"""Placeholder pictures for entities without an uploaded one: PNG files next to this module, by motif and variant.

The store identifies a placeholder by a recipe, `picture:{motif}:{number}:{width}x{height}`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Final

SMALL: Final = (400, 250)
LARGE: Final = (800, 500)
VARIANTS: Final = 2
_SIZE_NAMES: Final[Mapping[str, str]] = {"400x250": "small", "800x500": "large"}
# Motif -> words in a name or description that select it; the first match wins.
_MOTIFS: Final = (
    ("tunnel", r"tunnel|lining|shaft"),
    ("bridge", r"bridge|crossing|deck|viaduct|structure"),
    ("works", r"water|wtw|plant|drain|pump|harbour|process"),
    ("rails", r"rail|track|metro|station"),
    ("road", r"road|motorway|interchange|ramp|highway|corridor|noise|a\d+\b"),
)


def choose_placeholder(key: str, words: str, size: tuple[int, int]) -> str:
    """Return the recipe of an entity's placeholder.

    The motif depends on `words`, the entity's name and description. The variant depends on `key`, its id.
    """
    motif = next((name for name, pattern in _MOTIFS if re.search(pattern, words.lower())), "towers")
    number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")
    return f"picture:{motif}:{number}:{size[0]}x{size[1]}"


def read_placeholder(recipe: str) -> bytes:
    """Return the PNG of a recipe."""
    _, motif, number, size = recipe.split(":")
    name = f"{motif}_{int(number) % VARIANTS + 1}_{_SIZE_NAMES[size]}.png"
    return files(__package__).joinpath(name).read_bytes()
