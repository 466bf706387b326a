"""Adds entries to a cache of limited size."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def store_entry(cache: OrderedDict[K, V], key: K, value: V, size: int) -> None:
    """Store an entry as the newest of a cache. Drop the oldest entry if there are more than `size`."""
    cache[key] = value
    cache.move_to_end(key)
    if len(cache) > size:
        cache.popitem(last=False)
