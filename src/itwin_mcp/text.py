"""Text for people and models: shortened, cleaned of invisible characters, and with suggestions for misspelt names."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

# --- shortening -------------------------------------------------------------------------------------------------


def shorten(text: str, limit: int = 80) -> str:
    """Return the text in at most `limit` characters, with an ellipsis where it is cut."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def make_printable(text: str, limit: int = 60) -> str:
    """Return text from a caller for use in a message: shortened, with a replacement for each unprintable character."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in shorten(text, limit)
    )


# --- suggestions ------------------------------------------------------------------------------------------------

_MAX_COMPARED = 80
"""Characters of a name that are compared. Callers choose the name, and comparing takes quadratic time."""
_MAX_LISTED = 8


def find_similar(wanted: str, names: Iterable[str], limit: int = 1, *, likeness: float = 0.6) -> list[str]:
    """Return at most `limit` names that look like `wanted`, the closest first.

    Ignores case and the difference between `_` and `-`. `likeness` is the minimum similarity, from 0 to 1.
    """
    by_folded_name = {_fold(name): name for name in sorted(names, reverse=True)}
    close = difflib.get_close_matches(_fold(wanted[:_MAX_COMPARED]), by_folded_name, n=limit, cutoff=likeness)
    return [by_folded_name[name] for name in close]


def suggest(names: Iterable[str], wanted: str = "") -> str:
    """Return a hint for a name that does not exist: the most similar name, or the first few names."""
    choices = sorted(names)
    close = find_similar(wanted, choices)
    if close:
        return f"did you mean {close[0]!r}?"
    if not choices:
        return "there are none"
    more = f" and {len(choices) - _MAX_LISTED} more" if len(choices) > _MAX_LISTED else ""
    return f"there are: {', '.join(choices[:_MAX_LISTED])}{more}"


def _fold(name: str) -> str:
    return name.casefold().replace("_", "-")


# --- cleaning ---------------------------------------------------------------------------------------------------

_HIDDEN = frozenset({"Cc", "Cf", "Co", "Cs", "Cn"})
_JOINERS = "\u200c\u200d"
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
"""Letters and marks without a visible form."""
_DRAWN = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd")
"""Format characters that are visible: the number signs of Arabic, Syriac and Kaithi."""
_JOINING = re.compile("[\u0600-\u08ff\u0900-\u0dff\u0f00-\u109f\u1780-\u18af\ufb50-\ufdff\ufe70-\ufefc]")
"""Scripts whose letters need joiners: Arabic and related scripts, Indic, Tibetan, Burmese, Khmer, Mongolian."""
_VIRAMA = 9
_PICTURE = re.compile(
    "[\u00a9\u00ae\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u23ff\u24c2\u25a0-\u27bf\u2900-\u297f\u2b00-\u2bff"
    "\u3030\u303d\u3297\u3299\U0001f000-\U0001faff]"
)
_KEYCAP = re.compile("[0-9#*]")
_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_MONGOLIAN_SELECTORS = "\u180b\u180c\u180d\u180e\u180f"
_LATER = re.compile("[\U0001f000-\U0001faff\U00020000-\U0002fffd\U00030000-\U0003fffd]")
"""Pictures and ideographs that a newer Unicode than this Python's may have assigned."""
_LINE_ENDS = re.compile("\r(?!\n)|[\u2028\u2029]")


def clean(value: Any) -> Any:
    """Return a JSON value without invisible and direction-changing characters in its texts and member names.

    Such characters can hide instructions from the user, or show the user another text than the model gets. Joiners are
    preserved where emoji or letters of joining scripts need them, and variation selectors after emoji. Cleaning a clean
    value changes nothing.
    """
    if isinstance(value, str):
        return value if value.isascii() and value.isprintable() else _remove_invisible(value)
    if isinstance(value, dict):
        return {clean(name): clean(child) for name, child in value.items()}
    if isinstance(value, list):
        return [clean(child) for child in value]
    return value


def clean_text(text: str, limit: int | None = None) -> str:
    """Return the text without invisible characters, as `clean` does, in at most `limit` characters."""
    if not (text.isascii() and text.isprintable()):
        text = _remove_invisible(text)
    return text if limit is None else shorten(text, limit)


def _remove_invisible(text: str) -> str:
    text = _LINE_ENDS.sub("\n", text)
    characters: list[str] = []
    for index, character in enumerate(text):
        # The left neighbor is that in the result, so that cleaning the result again changes nothing.
        if " " <= character <= "~" or _is_needed(character, characters, text[index + 1 : index + 2]):
            characters.append(character)
    return "".join(characters)


def _is_needed(character: str, preceding: list[str], following: str) -> bool:
    """Return whether a character is visible, or needed between its neighbors."""
    before = preceding[-1] if preceding else ""
    if character in "\n\r\t":
        return True
    if character in _JOINERS:
        return _is_joiner_needed(character, before, following)
    if _SELECTORS.match(character):
        keycap = _KEYCAP.match(before) is not None and following == "\u20e3"
        return character in "\ufe0e\ufe0f" and (keycap or _PICTURE.match(before) is not None)
    if character in _MONGOLIAN_SELECTORS:
        return "\u1820" <= before <= "\u18aa"
    if character in _BLANK:
        return False
    if unicodedata.category(character) in _HIDDEN:
        return character in _DRAWN or (_LATER.match(character) is not None and unicodedata.category(character) == "Cn")
    return True


def _is_joiner_needed(joiner: str, before: str, following: str) -> bool:
    if joiner == "\u200d" and (before == "\ufe0f" or _PICTURE.match(before)):
        return _PICTURE.match(following) is not None
    if not _JOINING.match(before) or unicodedata.category(before)[0] not in "LM":
        return False
    ends_in_virama = unicodedata.combining(before) == _VIRAMA
    return ends_in_virama or (
        _JOINING.match(following) is not None
        and unicodedata.category(following)[0] in "LM"
        and following not in _MONGOLIAN_SELECTORS
        and following not in _BLANK
    )
