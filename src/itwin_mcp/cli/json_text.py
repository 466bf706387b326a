"""Edits of JSON text as people keep it, with comments and trailing commas: one member set or removed, no other byte."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from itwin_mcp.errors import ItwinMcpError

MOST_DEPTH = 100
BYTE_ORDER_MARK = "\ufeff"
"""What some editors of Windows begin a file with; it is kept."""
_BLANK = re.compile(r"(?:[ \t\r\n]+|//[^\r\n]*|/\*.*?\*/)*+", re.DOTALL)
_COMMENT = re.compile(r"//[^\r\n]*|/\*.*?\*/", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_SCALAR = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null")


class NotJson(ItwinMcpError):
    """Text that is no JSON, comments and trailing commas granted, or without a place for a member: what is wrong."""


@dataclass(slots=True)
class _Member:
    name: str
    start: int
    value: _Value


@dataclass(slots=True)
class _Value:
    """A value and where its text is; `data` is what it says."""

    data: Any
    start: int
    end: int = 0
    members: list[_Member] = field(default_factory=list)
    trailing: int | None = None
    """Where the comma after the last member of an object is."""


def read(text: str) -> Any:
    """What the text says; an empty text, or one of comments alone, is an empty object. Raises NotJson."""
    return _parse(text).data


def get_member(text: str, path: Sequence[str]) -> Any:
    """What the member at `path` says; None where there is none. Raises NotJson."""
    found, left = _follow(_parse(text), path)
    return None if left else found.data


def set_member(text: str, path: Sequence[str], value: Any) -> str:
    """The text with the member at `path`: replaced where it is, else put last, in objects that are made as needed."""
    root = _parse(text)
    if root.end == root.start:
        separator = "" if not text or text.endswith("\n") else "\n"
        return text + separator + _show(_nest(path, value), "", "  ", _newline(text)) + _newline(text)
    found, left = _follow(root, path)
    style = (_unit(text, root), _newline(text))
    if not left:
        return text[: found.start] + _show(value, _indent(text, found.start), *style) + text[found.end :]
    return _append(text, found, left[0], _nest(left[1:], value), *style)


def remove_member(text: str, path: Sequence[str]) -> str:
    """The text without the member at `path`, and without the comma that it needed; the same where there is none."""
    found, left = _follow(_parse(text), path[:-1])
    member = None if left else _find(found, path[-1])
    if member is None:
        return text
    place = found.members.index(member)
    before = found.members[place - 1].value.end if place else found.start + 1
    start = _end_of_things(text, before, member.start)
    comma = _comma(text, member.value.end)
    if comma is None:
        rest = text[member.value.end :]
        needed = _comma(text, before) if place else None
        head = text[:start] if needed is None else text[:needed] + text[needed + 1 : start]
    else:
        rest = text[member.value.end : comma] + text[comma + 1 :]
        head = text[:start]
    # A comment of one line ends with it: without a new line it would go on.
    ends_open = _ends_in_line_comment(text[before:start]) and not re.match(r"[ \t]*\r?\n", rest)
    return head + (text[start : member.start] if ends_open else "") + rest


def _append(text: str, owner: _Value, name: str, value: Any, unit: str, newline: str) -> str:
    """A member after the last one, and after the comments behind that."""
    close = owner.end - 1
    last = owner.members[-1] if owner.members else None
    at = _end_of_things(text, (owner.trailing or last.value.end - 1) + 1 if last else owner.start + 1, close)
    outer = _indent(text, owner.start)
    if last is None:
        inner = outer + unit
        tail = "" if "\n" in text[at:close] else newline + outer
        lead = newline + inner
    elif "\n" in text[owner.start : close]:
        inner = _indent(text, last.start)
        lead, tail = newline + inner, ""
    else:
        inner, lead, tail = outer, " ", ""
    shown = f"{lead}{json.dumps(name, ensure_ascii=False)}: {_show(value, inner, unit, newline)}"
    if owner.trailing is not None:
        shown += ","
    new = text[:at] + shown + tail + text[at:]
    if last is not None and owner.trailing is None:
        new = new[: last.value.end] + "," + new[last.value.end :]
    return new


def _follow(root: _Value, path: Sequence[str]) -> tuple[_Value, Sequence[str]]:
    """As far along the path as there are members: the value there, and what is left of the path."""
    here = root
    for depth, name in enumerate(path):
        if not isinstance(here.data, dict):
            raise NotJson(f"{'.'.join(path[:depth]) or 'the whole'} is not an object")
        member = _find(here, name)
        if member is None:
            return here, path[depth:]
        here = member.value
    return here, ()


def _find(owner: _Value, name: str) -> _Member | None:
    if not isinstance(owner.data, dict):
        raise NotJson("what should hold the servers is not an object")
    found = [member for member in owner.members if member.name == name]
    if len(found) > 1:
        raise NotJson(f"{name!r} is there twice: which of them counts is unclear")
    return found[0] if found else None


def _end_of_things(text: str, start: int, end: int) -> int:
    """Behind the last comment or comma between two places: what follows up to `end` is white space alone."""
    return start + len(text[start:end].rstrip(" \t\r\n"))


def _ends_in_line_comment(between: str) -> bool:
    comments = list(_COMMENT.finditer(between))
    return bool(comments) and comments[-1][0].startswith("//") and comments[-1].end() >= len(between)


def _comma(text: str, end: int) -> int | None:
    """Where the comma behind a value is."""
    at = _skip(text, end)
    return at if text[at : at + 1] == "," else None


def _indent(text: str, at: int) -> str:
    """The white space that the line of this place begins with."""
    line = text[text.rfind("\n", 0, at) + 1 : at]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _unit(text: str, root: _Value) -> str:
    """One step of indentation, as the first member has it."""
    if root.members and "\n" in text[root.start : root.members[0].start]:
        return _indent(text, root.members[0].start).removeprefix(_indent(text, root.start)) or "  "
    return "  "


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _nest(path: Sequence[str], value: Any) -> Any:
    for name in reversed(path):
        value = {name: value}
    return value


def _show(value: Any, indent: str, unit: str, newline: str) -> str:
    return json.dumps(value, indent=unit, ensure_ascii=False).replace("\n", newline + indent)


def _parse(text: str) -> _Value:
    start = _skip(text, len(BYTE_ORDER_MARK) if text.startswith(BYTE_ORDER_MARK) else 0)
    if start == len(text):
        return _Value({}, start, start)
    value = _value(text, start, 0)
    end = _skip(text, value.end)
    if end != len(text):
        raise _wrong(text, end, "there is more after the value")
    return value


def _value(text: str, start: int, depth: int) -> _Value:
    if depth > MOST_DEPTH:
        raise _wrong(text, start, f"it is nested more than {MOST_DEPTH} deep")
    opening = text[start : start + 1]
    if opening == "{":
        return _object(text, start, depth)
    if opening == "[":
        return _array(text, start, depth)
    if opening == '"':
        data, end = _string(text, start)
        return _Value(data, start, end)
    found = _SCALAR.match(text, start)
    if found is None:
        raise _wrong(text, start, "a value is missing")
    return _Value(json.loads(found[0]), start, found.end())


def _object(text: str, start: int, depth: int) -> _Value:
    made = _Value({}, start)
    at = _skip(text, start + 1)
    while text[at : at + 1] != "}":
        if made.members and made.trailing is None:
            raise _wrong(text, at, "',' or '}' is missing")
        name, end = _string(text, at)
        colon = _skip(text, end)
        if text[colon : colon + 1] != ":":
            raise _wrong(text, colon, "':' is missing")
        value = _value(text, _skip(text, colon + 1), depth + 1)
        made.members.append(_Member(name, at, value))
        made.data[name] = value.data
        made.trailing = _comma(text, value.end)
        at = _skip(text, value.end if made.trailing is None else made.trailing + 1)
    made.end = at + 1
    return made


def _array(text: str, start: int, depth: int) -> _Value:
    made = _Value([], start)
    at = _skip(text, start + 1)
    more = True
    while text[at : at + 1] != "]":
        if not more:
            raise _wrong(text, at, "',' or ']' is missing")
        value = _value(text, at, depth + 1)
        made.data.append(value.data)
        comma = _comma(text, value.end)
        more = comma is not None
        at = _skip(text, value.end if comma is None else comma + 1)
    made.end = at + 1
    return made


def _string(text: str, start: int) -> tuple[str, int]:
    found = _STRING.match(text, start)
    if found is None:
        raise _wrong(text, start, "a string in double quotes is missing")
    try:
        return str(json.loads(found[0])), found.end()
    except ValueError:
        raise _wrong(text, start, "this string has an escape that is none") from None


def _skip(text: str, start: int) -> int:
    """Behind white space and comments."""
    found = _BLANK.match(text, start)
    assert found is not None
    return found.end()


def _wrong(text: str, at: int, what: str) -> NotJson:
    return NotJson(f"it is not JSON: {what}, in line {text.count(chr(10), 0, at) + 1}")
