"""An answer as it may be read: cleaned of invisible text, and within the byte budget; pure."""

from __future__ import annotations

import copy
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MAX_RESULT_BYTES = 50_000
"""Bytes of data in one answer, unless the setting says otherwise; `page` and `resolved` come on top."""

# --- untrusted text ---------------------------------------------------------------------------------------------

_HIDDEN = frozenset({"Cc", "Cf", "Co", "Cs", "Cn"})
_JOINERS = "\u200c\u200d"
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
"""Letters and marks that nobody sees."""
_SEEN = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd")
"""Format characters that are drawn: the number signs of Arabic, Syriac and Kaithi."""
_JOINING = re.compile("[\u0600-\u08ff\u0900-\u0dff\u0f00-\u109f\u1780-\u18af\ufb50-\ufdff\ufe70-\ufefc]")
"""Scripts whose letters need joiners: Arabic and its kin, Indic, Tibetan, Burmese, Khmer, Mongolian."""
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
    """The same without invisible and direction-changing characters in any text that does not need them.

    Joiners stay where emoji or letters of joining scripts need them, variation selectors after emoji. Cleaning what
    is clean changes nothing.
    """
    if isinstance(value, str):
        return value if value.isascii() and value.isprintable() else _clean_text(value)
    if isinstance(value, dict):
        return {clean(name): clean(child) for name, child in value.items()}
    if isinstance(value, list):
        return [clean(child) for child in value]
    return value


def _clean_text(text: str) -> str:
    text = _LINE_ENDS.sub("\n", text)
    kept: list[str] = []
    for index, character in enumerate(text):
        if " " <= character <= "~" or _stays(character, kept, text[index + 1 : index + 2]):
            kept.append(character)
    return "".join(kept)


def _stays(character: str, kept: list[str], following: str) -> bool:
    """Whether a character is seen, or needed between what was kept and what follows."""
    before = kept[-1] if kept else ""
    if character in "\n\r\t":
        return True
    if character in _JOINERS:
        return _joins(character, before, following)
    if _SELECTORS.match(character):
        keycap = _KEYCAP.match(before) is not None and following == "\u20e3"
        return character in "\ufe0e\ufe0f" and (keycap or _PICTURE.match(before) is not None)
    if character in _MONGOLIAN_SELECTORS:
        return "\u1820" <= before <= "\u18aa"
    if character in _BLANK:
        return False
    if unicodedata.category(character) in _HIDDEN:
        return character in _SEEN or (_LATER.match(character) is not None and unicodedata.category(character) == "Cn")
    return True


def _joins(joiner: str, before: str, following: str) -> bool:
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


# --- the byte budget --------------------------------------------------------------------------------------------

_KEPT = frozenset({"id", "job", "page", "resolved", "saved", "error"})
"""What is never taken from an answer."""
_SMALL = 200
"""Bytes of a value that is not worth taking away."""


_READ_PARTS = "Ask for less where an argument lets you, or read the parts with the list and get tools."


def size_of(value: Any) -> int:
    """Bytes of a value as compact JSON."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass"))


def first_that_fit(items: list[Any], room: int, *, one: bool) -> tuple[list[Any], int]:
    """The first items that have room, and the bytes that are left; the first of all if `one`, whatever its size."""
    for index, item in enumerate(items):
        size = size_of(item) + 1
        if size > room and not (one and index == 0):
            return items[:index], 0
        room -= size
    return items, room


def fit(result: dict[str, Any], most: int, listers: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The answer within `most` bytes of data, if it can be; `truncated` says what was taken from a larger one.

    `listers` are the places of the answer whose whole another tool lists, and the words for that tool.

    Lists lose their last elements, the longest first; then the largest values that hold no id become null. What is
    there is whole: no text is cut.
    """
    had = size_of({name: value for name, value in result.items() if name not in _KEPT})
    if had <= most:
        return result
    whole = copy.deepcopy({name: value for name, value in result.items() if name not in _KEPT})
    fields: dict[str, dict[str, Any]] = {}
    excess = had - most
    while excess > 0:
        lists = [place for place in _places(whole, "$") if _is_long(place.value)]
        places = lists or [place for place in _places(whole, "$") if _may_go(place.value)]
        if not places:
            break
        place = max(places, key=lambda place: place.size)
        told = fields.setdefault(place.path, {"path": place.path, "bytes": place.size})
        if lists:
            kept = _first_ones(place.value, excess)
            told |= {"kept": len(kept), "of": len(place.value)}
            place.holder[place.name] = kept
        else:
            place.holder[place.name] = None
        excess = size_of(whole) - most
    because = f"the answer has {had} bytes, more than the {most} that one may have"
    tools = dict.fromkeys(words for path, words in (listers or {}).items() if any(_within(one, path) for one in fields))
    hint = f"All of it, page by page: {', '.join(tools)}." if tools else _READ_PARTS
    return {**result, **whole, "truncated": {"because": because, "fields": list(fields.values()), "hint": hint}}


def _within(path: str, place: str) -> bool:
    return path == place or path.startswith((f"{place}.", f"{place}["))


@dataclass(frozen=True, slots=True)
class _Place:
    """A value of the answer, and what holds it."""

    holder: Any
    name: Any
    value: Any
    path: str
    size: int


def _places(node: Any, where: str) -> Iterator[_Place]:
    """Every value that is large enough to matter."""
    members = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in members:
        if name not in _KEPT and isinstance(value, dict | list | str) and (size := size_of(value)) > _SMALL:
            path = f"{where}[{name}]" if isinstance(node, list) else f"{where}.{name}"
            yield _Place(node, name, value, path, size)
            yield from _places(value, path)


def _is_long(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 1


def _may_go(value: Any) -> bool:
    """An element that is not the whole of a list, and nothing with an id in it."""
    if isinstance(value, dict):
        return "id" not in value and all(_may_go(child) for child in value.values())
    return not isinstance(value, list) or all(_may_go(child) for child in value)


def _first_ones(elements: list[Any], excess: int) -> list[Any]:
    """The list without as many of its last elements as make up the excess; one stays."""
    last = len(elements)
    while excess > 0 and last > 1:
        last -= 1
        excess -= size_of(elements[last]) + 1
    return elements[:last]
