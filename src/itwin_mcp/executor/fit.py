"""An answer as it may be read: cleaned of invisible text, and within the size limit; pure."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from itwin_mcp.errors import AnswerTooLarge

MAX_RESULT_BYTES = 50_000
"""Bytes of one answer, unless the setting says otherwise."""

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


# --- the size limit ---------------------------------------------------------------------------------------------

MAX_TRUNCATED = 20
"""Entries of `truncated.fields`; the rest is counted in `more`."""
_MAX_NOTE_BYTES = 4_000
"""Room that `truncated` gets; a third of a small limit."""
_MAX_PATH = 200
_KEPT = frozenset({"id", "cursor", "checkWith", "approveWith"})
"""Members that never become null: without them the caller cannot continue."""
_WHOLE = frozenset({"resolved", "saved"})
"""Members of an answer of which everything is kept as long as something else can be left out."""
_ENGINE = frozenset({"error", "job", "page", "preview"})
"""Members of an answer that the engine writes. Of these only the following members are kept like that."""
_ENGINE_WHOLE = frozenset(
    {"code", "message", "hint", "operation", "iModelId", "state", "question", "expiresAt", "completed"}
    | {"stoppedBecause", "note"}
)
_MIN_BYTES = 200
"""Smaller values are not worth leaving out."""
_NULL_BYTES = 4
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


def fit(
    answer: dict[str, Any], limit: int, listers: Mapping[str, str] | None = None, *, wrote: bool = False
) -> dict[str, Any]:
    """The answer in at most `limit` bytes of compact JSON; `truncated` says what was left out.

    `listers` maps places of the answer to the words for the tool that lists all of them. Lists lose their last
    elements, the largest list first; then values become null, first those without an id inside. Texts are never cut,
    except those of an `error`. Ids and cursors stay, and so do the items of a page with a cursor, because the cursor
    continues after them.

    Raises: AnswerTooLarge if nothing more can be left out; `wrote` says that the call changed something. An `error`
    always fits.
    """
    size = size_of(answer)
    if size <= limit:
        return answer
    reserve = min(limit // 3, _MAX_NOTE_BYTES)
    tree = _Tree(answer)
    tree.reduce(limit - reserve)
    if tree.root.size > limit - reserve:
        if "error" in answer:
            return {"error": _shorten_error(answer["error"], limit)}
        raise AnswerTooLarge(size, limit, wrote=wrote)
    because = f"the answer has {size} bytes, more than the limit of {limit}"
    return {**tree.build(), "truncated": _note(tree.left_out(), because, listers or {}, reserve)}


def _note(left_out: list[_LeftOut], because: str, listers: Mapping[str, str], room: int) -> dict[str, Any]:
    """The `truncated` member: the largest omissions first, as many as the room takes."""
    left_out = sorted(left_out, key=lambda entry: -entry.size)
    tools = dict.fromkeys(
        words for place, words in listers.items() if any(_is_within(entry.path, place) for entry in left_out)
    )
    hint = f"All of it, page by page: {', '.join(tools)}." if tools else _READ_PARTS
    fields = [entry.to_json() for entry in left_out[:MAX_TRUNCATED]]
    while True:
        more = {"more": len(left_out) - len(fields)} if len(fields) < len(left_out) else {}
        note = {"because": because, "fields": fields, **more, "hint": hint}
        if not fields or size_of({"truncated": note}) <= room:
            return note
        fields.pop()


def _is_within(path: str, place: str) -> bool:
    return path == place or path.startswith((f"{place}.", f"{place}["))


_ERROR_MEMBERS = ("code", "operation", "retryable", "message", "hint", "status", "outcomeUnknown", "correlationId")


def _shorten_error(error: Mapping[str, Any], limit: int) -> dict[str, Any]:
    """What an agent needs of an error whose texts alone exceed the limit, and as much of the rest as there is room."""
    kept: dict[str, Any] = {"details": []}
    for name in (*_ERROR_MEMBERS, "completed"):
        value = error.get(name)
        if isinstance(value, str):
            value = _shorten_bytes(value, limit // 6)
        if value is not None and size_of({"error": {**kept, name: value}}) <= limit:
            kept[name] = value
    return kept


def _shorten_bytes(text: str, most: int) -> str:
    while size_of(text) > most:
        text = shorten(text, len(text) * 2 // 3)
    return text


@dataclass(frozen=True, slots=True)
class _LeftOut:
    path: str
    size: int
    kept: int | None = None
    of: int | None = None

    def to_json(self) -> dict[str, Any]:
        counts = {} if self.of is None else {"kept": self.kept, "of": self.of}
        return {"path": self.path, "bytes": self.size, **counts}


def _is_whole(node: _Node) -> bool:
    top = node
    while top.depth > 2 and top.parent is not None:
        top = top.parent
    if top.depth < 2 or top.parent is None:
        return top.name in _WHOLE
    return top.parent.name in _WHOLE or (top.parent.name in _ENGINE and top.name in _ENGINE_WHOLE)


class _Node:
    """A value of the answer with its size, its place, and its parts that are large enough to matter."""

    __slots__ = ("depth", "gone", "has_id", "kept", "name", "parent", "parts", "size", "sizes", "value", "whole")

    def __init__(self, value: Any, parent: _Node | None, name: Any) -> None:
        self.value = value
        self.parent = parent
        self.name = name
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.size = 0
        """Bytes that are left."""
        self.whole = 0
        """Bytes that it had."""
        self.parts: list[_Node] = []
        self.sizes: list[int] = []
        """Of a list, the bytes of each element."""
        self.has_id = False
        self.kept: int | None = None
        """Of a list that was cut, how many elements are left."""
        self.gone = False


class _Tree:
    """The answer measured once, bottom-up. Every omission subtracts its bytes, so nothing is measured again."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self._reduced: list[_Node] = []
        self._nodes: list[_Node] = []
        self._continues = isinstance(answer.get("page"), dict) and "cursor" in answer["page"]
        self.root = self._measure(answer, None, None)

    def _measure(self, value: Any, parent: _Node | None, name: Any) -> _Node:
        # Recursion is bounded: what the platform sends is refused beyond 64 levels.
        node = _Node(value, parent, name)
        if isinstance(value, dict):
            node.has_id = "id" in value
            node.size = 2 + max(0, len(value) - 1)
            for key, child in value.items():
                node.size += size_of(key) + 1 + self._part(node, key, child)
        elif isinstance(value, list):
            node.sizes = [self._part(node, index, child) for index, child in enumerate(value)]
            node.size = 2 + sum(node.sizes) + max(0, len(value) - 1)
        else:
            node.size = size_of(value)
        node.whole = node.size
        return node

    def _part(self, node: _Node, name: Any, child: Any) -> int:
        if not isinstance(child, dict | list):
            size = size_of(child)
            if size > _MIN_BYTES:
                part = _Node(child, node, name)
                part.size = part.whole = size
                self._add(node, part)
            return size
        part = self._measure(child, node, name)
        node.has_id = node.has_id or part.has_id
        if part.size > _MIN_BYTES:
            self._add(node, part)
        return part.size

    def _add(self, node: _Node, part: _Node) -> None:
        node.parts.append(part)
        self._nodes.append(part)

    # --- leaving out ----------------------------------------------------------------------------------------------

    def reduce(self, limit: int) -> None:
        """Leave out what must go. Each stage looks at each value at most once, the largest first."""
        stages: tuple[tuple[Callable[[_Node], bool], Callable[[_Node, int], None]], ...] = (
            (self._may_be_cut, self._cut_to_one),
            (lambda node: self._may_be_null(node) and not node.has_id, self._set_null),
            (self._may_be_null, self._set_null),
            (lambda node: isinstance(node.value, list), self._cut_to_none),
        )
        for applies, leave_out in stages:
            for node in sorted(filter(applies, self._nodes), key=lambda node: (-node.size, node.depth)):
                if self.root.size <= limit:
                    return
                if not self._is_gone(node):
                    leave_out(node, self.root.size - limit)

    def _is_gone(self, node: _Node) -> bool:
        above: _Node | None = node
        while above is not None:
            if above.gone:
                return True
            above = above.parent
        return False

    def _may_be_cut(self, node: _Node) -> bool:
        """A list that is no part of what is kept whole; nor the items before a cursor."""
        before_cursor = self._continues and node.depth == 1 and node.name != "warnings"
        return isinstance(node.value, list) and not _is_whole(node) and not before_cursor

    def _may_be_null(self, node: _Node) -> bool:
        """Only a member becomes null, since lists declare what their elements are; and never the subject itself."""
        if node.parent is None or not isinstance(node.parent.value, dict) or node.name in _KEPT or _is_whole(node):
            return False
        return node.depth > 1 or isinstance(node.value, str)

    def _cut_to_one(self, node: _Node, excess: int) -> None:
        self._cut(node, excess, least=1)

    def _cut_to_none(self, node: _Node, excess: int) -> None:
        self._cut(node, excess, least=0)

    def _cut(self, node: _Node, excess: int, *, least: int) -> None:
        last = len(node.value) if node.kept is None else node.kept
        removed = 0
        while last > least and removed < excess:
            last -= 1
            removed += node.sizes[last] + (1 if last else 0)
        if not removed:
            return
        if node.kept is None:
            self._reduced.append(node)
        node.kept = last
        for part in node.parts:
            part.gone = part.gone or part.name >= last
        self._shrink(node, removed)

    def _set_null(self, node: _Node, excess: int) -> None:
        node.gone = True
        self._reduced.append(node)
        self._shrink(node, node.size - _NULL_BYTES)

    def _shrink(self, node: _Node, removed: int) -> None:
        """Subtract from the value and from everything that it is in."""
        part: _Node | None = node
        while part is not None:
            part.size -= removed
            above = part.parent
            if above is not None and isinstance(above.value, list):
                above.sizes[part.name] -= removed
            part = above

    def left_out(self) -> list[_LeftOut]:
        """What was left out of the values that are still there."""
        return [
            _LeftOut(self._path(node), node.whole)
            if node.gone
            else _LeftOut(self._path(node), node.whole, node.kept, len(node.value))
            for node in self._reduced
            if node.parent is None or not self._is_gone(node.parent)
        ]

    def _path(self, node: _Node) -> str:
        names: list[str] = []
        part = node
        while part.parent is not None:
            in_list = isinstance(part.parent.value, list)
            names.append(f"[{part.name}]" if in_list else f".{shorten(part.name, 60)}")
            part = part.parent
        return shorten("$" + "".join(reversed(names)), _MAX_PATH)

    # --- the answer that is left ----------------------------------------------------------------------------------

    def build(self) -> dict[str, Any]:
        """A copy of the answer without what was left out; the answer itself stays as it was."""
        built: dict[str, Any] = self._copy(self.root)
        return built

    def _copy(self, node: _Node) -> Any:
        parts = {part.name: part for part in node.parts}
        if isinstance(node.value, dict):
            copied = dict(node.value)
            for name, part in parts.items():
                copied[name] = None if part.gone else self._copy(part)
            return copied
        if isinstance(node.value, list):
            elements = node.value if node.kept is None else node.value[: node.kept]
            return [self._copy(parts[i]) if i in parts else element for i, element in enumerate(elements)]
        return node.value


def shorten(text: str, limit: int) -> str:
    """The text in at most `limit` characters, with an ellipsis where it was cut."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
