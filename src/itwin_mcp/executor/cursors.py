"""Where a list goes on, sealed: bound to the tool, its arguments, the caller and the items already given."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from itwin_mcp.errors import InvalidArguments
from itwin_mcp.executor.conversation import Caller
from itwin_mcp.executor.seals import Flaw, SealError, Seals

CURSOR_SECONDS = 24 * 3600
MOST_CURSOR = 4096
"""Characters; what the `cursor` argument takes."""
MOST_TRAIL = 50

_WORDS: Mapping[Flaw, str] = {
    "unreadable": "it was altered or cut, or another server gave it",
    "expired": "it has expired: a cursor lasts a day",
    "of another caller": "it was given to another caller",
    "of another purpose": "it was given by another tool, or for other arguments",
}


@dataclass(frozen=True, slots=True)
class Position:
    """Where a list goes on.

    `query` asks for the page (None for the first), of which `offset` items were given (`given` is their digest);
    `before` counts all items given so far, `size` is the page size that was asked for, and `trail` remembers the
    pages that were read, so that a list that turns in a circle is noticed across calls.
    """

    query: str | None = None
    offset: int = 0
    given: str = ""
    before: int = 0
    size: int = 0
    trail: tuple[str, ...] = ()


class Cursors:
    """The cursors of one call: those it takes and those it gives are bound alike."""

    def __init__(self, seals: Seals, tool: str, arguments: Mapping[str, Any], caller: Caller) -> None:
        others = {name: value for name, value in arguments.items() if name not in ("limit", "cursor")}
        self._purpose = f"cursor 1 of {tool} {digest(others)}"
        self._seals = seals
        self._tool = tool
        self._caller = caller

    def give(self, position: Position) -> str | None:
        """The cursor of a position; None when the platform's link is too long to be one."""
        cursor = self._seals.seal(self._purpose, self._caller, asdict(position))
        return cursor if len(cursor) <= MOST_CURSOR else None

    def take(self, cursor: str) -> Position:
        """The position of a cursor. Raises InvalidArguments, in words, for one that was not given for this call."""
        try:
            kept = self._seals.open(cursor, self._purpose, self._caller, seconds=CURSOR_SECONDS)
        except SealError as broken:
            why = _WORDS[broken.flaw]
            raise InvalidArguments(
                f"The cursor cannot be used: {why}; nothing was sent.",
                hint=f"Pass page.cursor exactly as {self._tool} gave it and repeat the other arguments, or leave "
                "cursor out to start over.",
                details=[{"code": "InvalidArgument", "target": "cursor", "message": f"cursor: {why}"}],
            ) from None
        return Position(**{**kept, "trail": tuple(kept["trail"])})


def digest(value: Any) -> str:
    """A short fingerprint of a JSON value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def digest_items(items: list[Any]) -> str:
    """A fingerprint of items by their ids, or whole where they have none: a changed name does not make them others."""
    return digest([item["id"] if isinstance(item, dict) and item.get("id") else item for item in items])
