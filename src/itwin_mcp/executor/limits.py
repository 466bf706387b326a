"""The stage `limit`: fits an answer into the size limit.

The answer is measured once, bottom-up, into a tree of the parts that are large enough to matter. Every omission
subtracts its bytes from all parts around it, so that nothing is measured twice, however much is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from itwin_mcp.errors import AnswerTooLarge, CallError
from itwin_mcp.executor.outcome import Failure, Outcome, Question
from itwin_mcp.text import shorten

if TYPE_CHECKING:
    from itwin_mcp.executor.context import CallContext

_Outcome = TypeVar("_Outcome", bound=Outcome)

MAX_TRUNCATED = 20
"""Entries of `truncated.fields`; `more` counts the others."""
_MAX_NOTE_BYTES = 4_000
"""Bytes reserved for `truncated`; a third of a small limit."""
_MAX_PATH = 200
_NEVER_NULL = frozenset({"id", "cursor", "checkWith", "approveWith"})
"""Members that never become null: without them the caller cannot continue."""
_WHOLE = frozenset({"resolved", "saved"})
"""Members of an answer that stay whole as long as something else can be left out."""
_ENGINE = frozenset({"error", "job", "page", "preview"})
"""Members of an answer that the engine writes. Only the following members of them stay whole."""
_ENGINE_WHOLE = frozenset(
    {"code", "message", "hint", "operation", "iModelId", "state", "question", "expiresAt", "completed"}
    | {"stoppedBecause", "note"}
)
_MIN_BYTES = 200
"""Smaller values are never left out."""
_NULL_BYTES = 4
_READ_PARTS = "Ask for less where an argument lets you, or read the parts with the list and get tools."


to_compact_json: Callable[[Any], str] = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""Returns a value as JSON without spaces."""


def measure(value: Any) -> int:
    """Return the bytes of a value as compact JSON."""
    text = to_compact_json(value)
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def take_fitting(items: list[Any], room: int, *, always_first: bool) -> tuple[list[Any], int]:
    """Return the items that fit, in order, and the bytes that are left. With `always_first` the first item fits."""
    # Nearly always all fit. Each takes its bytes and a comma; a list has one comma less, and brackets.
    size = measure(items) - 1
    if size <= room:
        return items, room - max(size, 0)
    for index, item in enumerate(items):
        size = measure(item) + 1
        if size > room and not (always_first and index == 0):
            return items[:index], 0
        room -= size
    return items, room


def limit(outcome: _Outcome, max_bytes: int, context: CallContext | None = None) -> _Outcome | Failure:
    """Return the outcome with its answer in at most `max_bytes`, and the answer's text.

    If the answer cannot be made small enough, return the failure `AnswerTooLarge`.
    """
    if isinstance(outcome, Question) or outcome.text:
        return outcome
    text = to_compact_json(outcome.answer)
    if len(text) > max_bytes or (not text.isascii() and len(text.encode("utf-8", "surrogatepass")) > max_bytes):
        tool = context.tool if context is not None and context.save is None else None
        wrote = context is not None and not (tool is not None and tool.annotations.read_only)
        try:
            answer = fit(dict(outcome.answer), max_bytes, tool.lists if tool is not None else None, wrote=wrote)
        except AnswerTooLarge as error:
            operation = context.operation if context is not None else ""
            return limit(Failure({"error": error.to_json(operation)}, error), max_bytes)
        return replace(outcome, answer=answer, text=to_compact_json(answer))
    return replace(outcome, text=text)


def fit(
    answer: dict[str, Any], limit: int, listers: Mapping[str, str] | None = None, *, wrote: bool = False
) -> dict[str, Any]:
    """Return the answer in at most `limit` bytes of compact JSON; `truncated` reports what was left out.

    `listers` maps paths of the answer to the tool that lists all of the items there. Lists lose their last
    elements, the largest list first; then values become null, first those without an id inside. Texts are never cut,
    except those of an `error`. Ids and cursors stay, and so do the items of a page with a cursor, because the cursor
    continues after them.

    Raises: AnswerTooLarge if nothing more can be left out; its hint depends on `wrote`, whether the call changed
    something. An `error` always fits.
    """
    size = measure(answer)
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
    return {**tree.copy(tree.root), "truncated": _describe_omissions(tree.left_out(), because, listers or {}, reserve)}


def _describe_omissions(
    left_out: list[_LeftOut], because: str, listers: Mapping[str, str], room: int
) -> dict[str, Any]:
    """Return the `truncated` member: the largest omissions first, as many as fit."""
    left_out = sorted(left_out, key=lambda entry: -entry.size)
    tools = dict.fromkeys(
        words for place, words in listers.items() if any(_is_within(entry.path, place) for entry in left_out)
    )
    hint = f"All of it, page by page: {', '.join(tools)}." if tools else _READ_PARTS
    fields = [entry.to_json() for entry in left_out[:MAX_TRUNCATED]]
    while True:
        more = {"more": len(left_out) - len(fields)} if len(fields) < len(left_out) else {}
        note = {"because": because, "fields": fields, **more, "hint": hint}
        if not fields or measure({"truncated": note}) <= room:
            return note
        fields.pop()


def _is_within(path: str, place: str) -> bool:
    return path == place or path.startswith((f"{place}.", f"{place}["))


_ERROR_MEMBERS = ("code", "operation", "retryable", "message", "hint", "status", "outcomeUnknown", "correlationId")


def _shorten_error(error: Mapping[str, Any], limit: int) -> dict[str, Any]:
    """Return the essential members of an error whose texts alone exceed the limit, and what else fits."""
    shortened: dict[str, Any] = {"details": []}
    for name in (*_ERROR_MEMBERS, "completed"):
        value = error.get(name)
        if isinstance(value, str):
            value = _shorten_bytes(value, limit // 6)
        if value is not None and measure({"error": {**shortened, name: value}}) <= limit:
            shortened[name] = value
    return shortened


def _shorten_bytes(text: str, max_bytes: int) -> str:
    while measure(text) > max_bytes:
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


def _stays_whole(node: _Node) -> bool:
    """Return whether a value is in a member that stays whole as long as something else can be left out."""
    top = node
    while top.depth > 2 and top.parent is not None:
        top = top.parent
    if top.depth < 2 or top.parent is None:
        return top.name in _WHOLE
    return top.parent.name in _WHOLE or (top.parent.name in _ENGINE and top.name in _ENGINE_WHOLE)


class _Node:
    """A value of the answer with its size, its place, and its large parts."""

    __slots__ = (
        "count",
        "depth",
        "full_size",
        "has_id",
        "name",
        "parent",
        "parts",
        "removed",
        "size",
        "sizes",
        "value",
    )

    def __init__(self, value: Any, parent: _Node | None, name: Any) -> None:
        self.value = value
        self.parent = parent
        self.name = name
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.size = 0
        """Bytes that are left."""
        self.full_size = 0
        """Bytes before anything was left out."""
        self.parts: list[_Node] = []
        self.sizes: list[int] = []
        """The bytes of each element, for a list."""
        self.has_id = False
        self.count: int | None = None
        """The number of elements that are left, for a list that was cut."""
        self.removed = False


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
                node.size += measure(key) + 1 + self._measure_part(node, key, child)
        elif isinstance(value, list):
            node.sizes = [self._measure_part(node, index, child) for index, child in enumerate(value)]
            node.size = 2 + sum(node.sizes) + max(0, len(value) - 1)
        else:
            node.size = measure(value)
        node.full_size = node.size
        return node

    def _measure_part(self, node: _Node, name: Any, child: Any) -> int:
        """Return the bytes of a part. A large part becomes a node of the tree."""
        if isinstance(child, dict | list):
            part = self._measure(child, node, name)
            node.has_id = node.has_id or part.has_id
        elif (size := measure(child)) > _MIN_BYTES:
            part = _Node(child, node, name)
            part.size = part.full_size = size
        else:  # without a node: answers have many small values
            return size
        if part.size > _MIN_BYTES:
            node.parts.append(part)
            self._nodes.append(part)
        return part.size

    # --- leaving out ----------------------------------------------------------------------------------------------

    def reduce(self, limit: int) -> None:
        """Leave out values until the answer has at most `limit` bytes, as far as possible.

        Each stage visits each value at most once, the largest first.
        """
        # The least harmful stage comes first: ends of lists, members without an id, any member, whole lists.
        # The number is how many elements of a list stay; None sets the value to null.
        stages: tuple[tuple[Callable[[_Node], bool], int | None], ...] = (
            (self._may_be_cut, 1),
            (lambda node: self._may_be_null(node) and not node.has_id, None),
            (self._may_be_null, None),
            (lambda node: isinstance(node.value, list), 0),
        )
        for applies, min_count in stages:
            for node in sorted(filter(applies, self._nodes), key=lambda node: (-node.size, node.depth)):
                if self.root.size <= limit:
                    return
                if self._is_removed(node):
                    continue
                if min_count is None:
                    node.removed = True
                    self._reduced.append(node)
                    self._shrink(node, node.size - _NULL_BYTES)
                else:
                    self._cut(node, self.root.size - limit, min_count)

    def _is_removed(self, node: _Node) -> bool:
        above: _Node | None = node
        while above is not None:
            if above.removed:
                return True
            above = above.parent
        return False

    def _may_be_cut(self, node: _Node) -> bool:
        """Return whether a list may be cut: not one that stays whole, nor the items before a cursor."""
        before_cursor = self._continues and node.depth == 1 and node.name != "warnings"
        return isinstance(node.value, list) and not _stays_whole(node) and not before_cursor

    def _may_be_null(self, node: _Node) -> bool:
        """Return whether a value may become null: only a member may (elements are typed), never the subject."""
        if (
            node.parent is None
            or not isinstance(node.parent.value, dict)
            or node.name in _NEVER_NULL
            or _stays_whole(node)
        ):
            return False
        return node.depth > 1 or isinstance(node.value, str)

    def _cut(self, node: _Node, excess: int, min_count: int) -> None:
        """Remove elements from the end of a list until `excess` bytes are removed or `min_count` elements are left."""
        last = len(node.value) if node.count is None else node.count
        removed = 0
        while last > min_count and removed < excess:
            last -= 1
            removed += node.sizes[last] + (1 if last else 0)
        if not removed:
            return
        if node.count is None:
            self._reduced.append(node)
        node.count = last
        for part in node.parts:
            part.removed = part.removed or part.name >= last
        self._shrink(node, removed)

    def _shrink(self, node: _Node, removed: int) -> None:
        """Subtract the removed bytes from the value and from everything around it."""
        part: _Node | None = node
        while part is not None:
            part.size -= removed
            above = part.parent
            if above is not None and isinstance(above.value, list):
                above.sizes[part.name] -= removed
            part = above

    def left_out(self) -> list[_LeftOut]:
        """Return the omissions in the values that remain."""
        return [
            _LeftOut(self._path(node), node.full_size)
            if node.removed
            else _LeftOut(self._path(node), node.full_size, node.count, len(node.value))
            for node in self._reduced
            if node.parent is None or not self._is_removed(node.parent)
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

    def copy(self, node: _Node) -> Any:
        """Return a copy of a value without what was left out. The answer itself does not change."""
        parts = {part.name: part for part in node.parts}
        if isinstance(node.value, dict):
            copied = dict(node.value)
            for name, part in parts.items():
                copied[name] = None if part.removed else self.copy(part)
            return copied
        if isinstance(node.value, list):
            elements = node.value if node.count is None else node.value[: node.count]
            return [self.copy(parts[i]) if i in parts else element for i, element in enumerate(elements)]
        return node.value


def note_unserved_tools(error: CallError, elsewhere: Mapping[str, str]) -> CallError:
    """Return the error with a note on the tools in its hint that are not served here.

    `elsewhere` maps the names of these tools to the reasons.
    """
    named = [word for word in re.findall(r"(?<![a-z-])[a-z]++(?:-[a-z]++)++", error.hint) if word in elsewhere]
    if not named:
        return error
    unserved = ", ".join(f"{name} ({elsewhere[name]})" for name in dict.fromkeys(named))
    return error.amended(after=f"Not served here: {unserved}.")
