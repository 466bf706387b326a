"""The seam by which somebody may watch what goes out: its method, its correlation id, its outcome, and no more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeAlias

Answered: TypeAlias = Callable[[int], None]
"""Told the status of the answer; not called when there is none."""
Watch: TypeAlias = Callable[[str, str], AbstractContextManager[Answered]]
"""Given the method and the correlation id of one request; entered around it."""


@contextmanager
def unwatched(_method: str, _correlation_id: str) -> Iterator[Answered]:
    """Nobody watches."""
    yield lambda _status: None
