"""Edits JSON text with comments and trailing commas: sets or removes one member, and changes no other byte.

People write the configuration files of clients by hand. Reformatting a file would lose their comments and layout.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from itwin_mcp.errors import ItwinMcpError

MAX_DEPTH = 100
BYTE_ORDER_MARK = "\ufeff"
"""Some editors of Windows start a file with it. Edits preserve it."""
_BLANK = re.compile(r"(?:[ \t\r\n]+|//[^\r\n]*|/\*.*?\*/)*+", re.DOTALL)
_COMMENT = re.compile(r"//[^\r\n]*|/\*.*?\*/", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_SCALAR = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null")


class NotJson(ItwinMcpError):
    """The text is not JSON, even with comments and trailing commas, or a parent of the member is not an object."""


@dataclass(slots=True)
class _Member:
    name: str
    start: int
    value: _Value


@dataclass(slots=True)
class _Value:
    """A parsed value, with the positions where its text starts and ends."""

    data: Any
    start: int
    end: int = 0
    members: list[_Member] = field(default_factory=list)
    trailing: int | None = None
    """Position of the comma after the last member or item, if there is one."""


def parse(text: str) -> Any:
    """Return the value of a text. A text of only whitespace and comments is an empty object. Raises NotJson."""
    return _parse_text(text).data


def get_member(text: str, path: Sequence[str]) -> Any:
    """Return the value of the member at `path`, or None if there is none. Raises NotJson."""
    value, missing = _follow(_parse_text(text), path)
    return None if missing else value.data


def set_member(text: str, path: Sequence[str], value: Any) -> str:
    """Return the text with the member at `path` replaced, or added last with its missing parents. Raises NotJson."""
    root = _parse_text(text)
    if root.end == root.start:
        separator = "" if not text or text.endswith("\n") else "\n"
        return text + separator + _format(nest(path, value), "", "  ", _find_newline(text)) + _find_newline(text)
    old, missing = _follow(root, path)
    style = (_find_unit(text, root), _find_newline(text))
    if not missing:
        return text[: old.start] + _format(value, _find_indent(text, old.start), *style) + text[old.end :]
    return _append(text, old, missing[0], nest(missing[1:], value), *style)


def remove_member(text: str, path: Sequence[str]) -> str:
    """Return the text without the member at `path` and its comma; unchanged if there is no such member."""
    owner, missing = _follow(_parse_text(text), path[:-1])
    member = None if missing else _find(owner, path[-1])
    if member is None:
        return text
    index = owner.members.index(member)
    before = owner.members[index - 1].value.end if index else owner.start + 1
    # The whitespace before the member is removed with it, but comments there remain.
    start = _skip_back_blank(text, before, member.start)
    head, tail = text[:start], text[member.value.end :]
    comma = _find_comma(text, member.value.end)
    previous_comma = _find_comma(text, before) if index else None
    if comma is not None:
        tail = text[member.value.end : comma] + text[comma + 1 :]
    elif previous_comma is not None:
        # The last member has no comma of its own, so the comma before it is removed.
        head = text[:previous_comma] + text[previous_comma + 1 : start]
    # A // comment before the member needs a line break after it; otherwise it would swallow the text that follows.
    needs_line_break = _ends_in_line_comment(text[before:start]) and not re.match(r"[ \t]*\r?\n", tail)
    return head + (text[start : member.start] if needs_line_break else "") + tail


def _append(text: str, owner: _Value, name: str, value: Any, unit: str, newline: str) -> str:
    """Add a member after the last one and the comments that follow it, in the style of the text."""
    close = owner.end - 1
    last = owner.members[-1] if owner.members else None
    at = _skip_back_blank(text, (owner.trailing or last.value.end - 1) + 1 if last else owner.start + 1, close)
    outer = _find_indent(text, owner.start)
    if last is None:
        # The first member gets a line of its own, and the closing brace another one.
        indent = outer + unit
        lead, tail = newline + indent, "" if "\n" in text[at:close] else newline + outer
    elif "\n" in text[owner.start : close]:
        # An object over several lines gets another line, indented like its last member.
        indent = _find_indent(text, last.start)
        lead, tail = newline + indent, ""
    else:
        # An object on one line remains on one line.
        indent, lead, tail = outer, " ", ""
    member = f"{lead}{json.dumps(name, ensure_ascii=False)}: {_format(value, indent, unit, newline)}"
    if last is None:
        return text[:at] + member + tail + text[at:]
    if owner.trailing is None:
        return text[: last.value.end] + "," + text[last.value.end : at] + member + tail + text[at:]
    return text[:at] + member + "," + tail + text[at:]


def _follow(root: _Value, path: Sequence[str]) -> tuple[_Value, Sequence[str]]:
    """Follow a path as far as its members exist. Return the last value, and the part of the path that is missing."""
    value = root
    for depth, name in enumerate(path):
        if not isinstance(value.data, dict):
            raise NotJson(f"{'.'.join(path[:depth]) or 'the file'} is not an object")
        member = _find(value, name)
        if member is None:
            return value, path[depth:]
        value = member.value
    return value, ()


def _find(owner: _Value, name: str) -> _Member | None:
    if not isinstance(owner.data, dict):
        raise NotJson("the member for the servers is not an object")
    members = [member for member in owner.members if member.name == name]
    if len(members) > 1:
        raise NotJson(f"{name!r} appears twice, so it is unclear which one counts")
    return members[0] if members else None


def _skip_back_blank(text: str, start: int, end: int) -> int:
    """Return the position where the whitespace at the end of a range starts."""
    return start + len(text[start:end].rstrip(" \t\r\n"))


def _ends_in_line_comment(blank: str) -> bool:
    comments = list(_COMMENT.finditer(blank))
    return bool(comments) and comments[-1][0].startswith("//") and comments[-1].end() == len(blank)


def _find_comma(text: str, end: int) -> int | None:
    """Return the position of the comma after a value, or None."""
    at = _skip_blank(text, end)
    return at if text[at : at + 1] == "," else None


def _find_indent(text: str, at: int) -> str:
    """Return the whitespace at the start of the line of a position."""
    line = text[text.rfind("\n", 0, at) + 1 : at]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _find_unit(text: str, root: _Value) -> str:
    """Return one step of indentation: that of the first member, or two spaces."""
    if root.members and "\n" in text[root.start : root.members[0].start]:
        return _find_indent(text, root.members[0].start).removeprefix(_find_indent(text, root.start)) or "  "
    return "  "


def _find_newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def nest(path: Sequence[str], value: Any) -> Any:
    """Return a value inside one object for each name of the path."""
    for name in reversed(path):
        value = {name: value}
    return value


def _format(value: Any, indent: str, unit: str, newline: str) -> str:
    return json.dumps(value, indent=unit, ensure_ascii=False).replace("\n", newline + indent)


def _parse_text(text: str) -> _Value:
    start = _skip_blank(text, len(BYTE_ORDER_MARK) if text.startswith(BYTE_ORDER_MARK) else 0)
    if start == len(text):
        return _Value({}, start, start)
    value = _parse_value(text, start, 0)
    end = _skip_blank(text, value.end)
    if end != len(text):
        raise _build_error(text, end, "there is text after the value")
    return value


def _parse_value(text: str, start: int, depth: int) -> _Value:
    if depth > MAX_DEPTH:
        raise _build_error(text, start, f"it is nested more than {MAX_DEPTH} levels deep")
    opening = text[start : start + 1]
    if opening == "{":
        return _parse_object(text, start, depth)
    if opening == "[":
        return _parse_array(text, start, depth)
    if opening == '"':
        data, end = _parse_string(text, start)
        return _Value(data, start, end)
    scalar = _SCALAR.match(text, start)
    if scalar is None:
        raise _build_error(text, start, "a value is missing")
    return _Value(json.loads(scalar[0]), start, scalar.end())


def _parse_object(text: str, start: int, depth: int) -> _Value:
    result = _Value({}, start)
    at = _skip_blank(text, start + 1)
    while text[at : at + 1] != "}":
        if result.members and result.trailing is None:
            raise _build_error(text, at, "',' or '}' is missing")
        name, end = _parse_string(text, at)
        colon = _skip_blank(text, end)
        if text[colon : colon + 1] != ":":
            raise _build_error(text, colon, "':' is missing")
        value = _parse_value(text, _skip_blank(text, colon + 1), depth + 1)
        result.members.append(_Member(name, at, value))
        result.data[name] = value.data
        at = _skip_comma(text, result, value)
    result.end = at + 1
    return result


def _parse_array(text: str, start: int, depth: int) -> _Value:
    result = _Value([], start)
    at = _skip_blank(text, start + 1)
    while text[at : at + 1] != "]":
        if result.data and result.trailing is None:
            raise _build_error(text, at, "',' or ']' is missing")
        value = _parse_value(text, at, depth + 1)
        result.data.append(value.data)
        at = _skip_comma(text, result, value)
    result.end = at + 1
    return result


def _skip_comma(text: str, owner: _Value, value: _Value) -> int:
    """Note the position of the comma after a value in its owner, and return where the text continues."""
    owner.trailing = _find_comma(text, value.end)
    return _skip_blank(text, value.end if owner.trailing is None else owner.trailing + 1)


def _parse_string(text: str, start: int) -> tuple[str, int]:
    string = _STRING.match(text, start)
    if string is None:
        raise _build_error(text, start, "a string in double quotes is missing")
    try:
        return str(json.loads(string[0])), string.end()
    except ValueError:
        raise _build_error(text, start, "this string has an invalid escape") from None


def _skip_blank(text: str, start: int) -> int:
    """Return the position after whitespace and comments."""
    blank = _BLANK.match(text, start)
    assert blank is not None
    return blank.end()


def _build_error(text: str, at: int, problem: str) -> NotJson:
    return NotJson(f"it is not JSON: {problem}, in line {text.count(chr(10), 0, at) + 1}")
