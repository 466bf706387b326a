"""Edits JSON text with comments and trailing commas: sets or removes one member, and changes no other byte.

Clients' configuration files are written by people, so that reformatting one would lose their comments and layout.
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
"""Some editors of Windows start a file with it; edits keep it."""
_BLANK = re.compile(r"(?:[ \t\r\n]+|//[^\r\n]*|/\*.*?\*/)*+", re.DOTALL)
_COMMENT = re.compile(r"//[^\r\n]*|/\*.*?\*/", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_SCALAR = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null")


class NotJson(ItwinMcpError):
    """Text that is not JSON, even with comments and trailing commas, or that has no place for a member."""


@dataclass(slots=True)
class _Member:
    name: str
    start: int
    value: _Value


@dataclass(slots=True)
class _Value:
    """A value: its data, and where its text starts and ends."""

    data: Any
    start: int
    end: int = 0
    members: list[_Member] = field(default_factory=list)
    trailing: int | None = None
    """Position of the comma after the last member of an object."""


def parse(text: str) -> Any:
    """Return the value of a text; a text of only whitespace and comments is an empty object. Raises NotJson."""
    return _parse_text(text).data


def get_member(text: str, path: Sequence[str]) -> Any:
    """Return the value of the member at `path`, or None if there is none. Raises NotJson."""
    found, left = _follow(_parse_text(text), path)
    return None if left else found.data


def set_member(text: str, path: Sequence[str], value: Any) -> str:
    """Return the text with the member at `path` replaced, or added last, creating its parents as needed."""
    root = _parse_text(text)
    if root.end == root.start:
        separator = "" if not text or text.endswith("\n") else "\n"
        return text + separator + _format(_nest(path, value), "", "  ", _find_newline(text)) + _find_newline(text)
    found, left = _follow(root, path)
    style = (_find_unit(text, root), _find_newline(text))
    if not left:
        return text[: found.start] + _format(value, _find_indent(text, found.start), *style) + text[found.end :]
    return _append(text, found, left[0], _nest(left[1:], value), *style)


def remove_member(text: str, path: Sequence[str]) -> str:
    """Return the text without the member at `path` and its comma; unchanged if there is no such member."""
    found, left = _follow(_parse_text(text), path[:-1])
    member = None if left else _find(found, path[-1])
    if member is None:
        return text
    place = found.members.index(member)
    before = found.members[place - 1].value.end if place else found.start + 1
    start = _skip_back_blank(text, before, member.start)
    comma = _find_comma(text, member.value.end)
    if comma is None:
        rest = text[member.value.end :]
        needed = _find_comma(text, before) if place else None
        head = text[:start] if needed is None else text[:needed] + text[needed + 1 : start]
    else:
        rest = text[member.value.end : comma] + text[comma + 1 :]
        head = text[:start]
    # A // comment before the member would swallow what follows, if the line break went with the member.
    ends_open = _ends_in_line_comment(text[before:start]) and not re.match(r"[ \t]*\r?\n", rest)
    return head + (text[start : member.start] if ends_open else "") + rest


def _append(text: str, owner: _Value, name: str, value: Any, unit: str, newline: str) -> str:
    """Add a member after the last one and the comments that follow it, in the style of the text."""
    close = owner.end - 1
    last = owner.members[-1] if owner.members else None
    at = _skip_back_blank(text, (owner.trailing or last.value.end - 1) + 1 if last else owner.start + 1, close)
    outer = _find_indent(text, owner.start)
    if last is None:
        inner = outer + unit
        tail = "" if "\n" in text[at:close] else newline + outer
        lead = newline + inner
    elif "\n" in text[owner.start : close]:
        inner = _find_indent(text, last.start)
        lead, tail = newline + inner, ""
    else:
        inner, lead, tail = outer, " ", ""
    shown = f"{lead}{json.dumps(name, ensure_ascii=False)}: {_format(value, inner, unit, newline)}"
    if owner.trailing is not None:
        shown += ","
    new = text[:at] + shown + tail + text[at:]
    if last is not None and owner.trailing is None:
        new = new[: last.value.end] + "," + new[last.value.end :]
    return new


def _follow(root: _Value, path: Sequence[str]) -> tuple[_Value, Sequence[str]]:
    """Follow a path as far as its members exist; return the value there and the rest of the path."""
    here = root
    for depth, name in enumerate(path):
        if not isinstance(here.data, dict):
            raise NotJson(f"{'.'.join(path[:depth]) or 'the file'} is not an object")
        member = _find(here, name)
        if member is None:
            return here, path[depth:]
        here = member.value
    return here, ()


def _find(owner: _Value, name: str) -> _Member | None:
    if not isinstance(owner.data, dict):
        raise NotJson("the member for the servers is not an object")
    found = [member for member in owner.members if member.name == name]
    if len(found) > 1:
        raise NotJson(f"{name!r} appears twice, so it is unclear which one counts")
    return found[0] if found else None


def _skip_back_blank(text: str, start: int, end: int) -> int:
    """Return the position after the last comment or comma in a range; from there to its end is only whitespace."""
    return start + len(text[start:end].rstrip(" \t\r\n"))


def _ends_in_line_comment(between: str) -> bool:
    comments = list(_COMMENT.finditer(between))
    return bool(comments) and comments[-1][0].startswith("//") and comments[-1].end() >= len(between)


def _find_comma(text: str, end: int) -> int | None:
    """Return the position of the comma after a value, or None."""
    at = _skip_blank(text, end)
    return at if text[at : at + 1] == "," else None


def _find_indent(text: str, at: int) -> str:
    """Return the whitespace at the start of the line of a position."""
    line = text[text.rfind("\n", 0, at) + 1 : at]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _find_unit(text: str, root: _Value) -> str:
    """Return one step of indentation, as the first member has it."""
    if root.members and "\n" in text[root.start : root.members[0].start]:
        return _find_indent(text, root.members[0].start).removeprefix(_find_indent(text, root.start)) or "  "
    return "  "


def _find_newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _nest(path: Sequence[str], value: Any) -> Any:
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
    found = _SCALAR.match(text, start)
    if found is None:
        raise _build_error(text, start, "a value is missing")
    return _Value(json.loads(found[0]), start, found.end())


def _parse_object(text: str, start: int, depth: int) -> _Value:
    made = _Value({}, start)
    at = _skip_blank(text, start + 1)
    while text[at : at + 1] != "}":
        if made.members and made.trailing is None:
            raise _build_error(text, at, "',' or '}' is missing")
        name, end = _parse_string(text, at)
        colon = _skip_blank(text, end)
        if text[colon : colon + 1] != ":":
            raise _build_error(text, colon, "':' is missing")
        value = _parse_value(text, _skip_blank(text, colon + 1), depth + 1)
        made.members.append(_Member(name, at, value))
        made.data[name] = value.data
        made.trailing = _find_comma(text, value.end)
        at = _skip_blank(text, value.end if made.trailing is None else made.trailing + 1)
    made.end = at + 1
    return made


def _parse_array(text: str, start: int, depth: int) -> _Value:
    made = _Value([], start)
    at = _skip_blank(text, start + 1)
    more = True
    while text[at : at + 1] != "]":
        if not more:
            raise _build_error(text, at, "',' or ']' is missing")
        value = _parse_value(text, at, depth + 1)
        made.data.append(value.data)
        comma = _find_comma(text, value.end)
        more = comma is not None
        at = _skip_blank(text, value.end if comma is None else comma + 1)
    made.end = at + 1
    return made


def _parse_string(text: str, start: int) -> tuple[str, int]:
    found = _STRING.match(text, start)
    if found is None:
        raise _build_error(text, start, "a string in double quotes is missing")
    try:
        return str(json.loads(found[0])), found.end()
    except ValueError:
        raise _build_error(text, start, "this string has an invalid escape") from None


def _skip_blank(text: str, start: int) -> int:
    """Return the position after whitespace and comments."""
    found = _BLANK.match(text, start)
    assert found is not None
    return found.end()


def _build_error(text: str, at: int, what: str) -> NotJson:
    return NotJson(f"it is not JSON: {what}, in line {text.count(chr(10), 0, at) + 1}")
