"""Which existing name somebody meant who gave one that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_COMPARED = 80
"""Characters of a name that are compared: names come from outside, and comparing is quadratic."""


def find_similar(wanted: str, names: Iterable[str], most: int = 1) -> list[str]:
    """Return the names that look like `wanted`, the closest first; case does not count, nor `_` against `-`."""
    known = {_fold(name): name for name in sorted(names, reverse=True)}
    return [known[match] for match in difflib.get_close_matches(_fold(wanted[:_COMPARED]), known, n=most)]


def there_is(names: Iterable[str], wanted: str = "") -> str:
    """What exists instead of a name that does not: the one that was probably meant, or the first few."""
    known = sorted(names)
    close = find_similar(wanted, known)
    if close:
        return f"did you mean {close[0]!r}?"
    if not known:
        return "there are none"
    more = f" and {len(known) - 8} more" if len(known) > 8 else ""
    return f"there are: {', '.join(known[:8])}{more}"


def _fold(name: str) -> str:
    return name.casefold().replace("_", "-")
