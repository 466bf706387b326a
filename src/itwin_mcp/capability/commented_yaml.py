"""Writes capability files with comments, in YAML that all readers read alike and that people like to read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

WIDTH = 120
_PLAIN = re.compile(r"[A-Za-z_][\w./-]*", re.ASCII)
_WORDS = re.compile(r"null|true|false|yes|no|on|off|y|n", re.IGNORECASE)
_ESCAPED = re.compile("[^\n -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_KEYWORDS = frozenset({"description", "display", "version", "name", "content"})
"""Keys whose text is always quoted, because it is a sentence that may be edited."""


@dataclass(frozen=True, slots=True)
class Commented:
    """A value with a comment, which is written on the lines above it."""

    value: Any
    comment: str


def write_yaml(data: dict[str, Any], heading: str = "") -> str:
    """Return the YAML of a mapping, below a heading of comment lines. Small values are written in one line."""
    return "\n".join([*_write_comment(heading, ""), *_write_map(data, "")]) + "\n"


def _write_comment(comment: str, indent: str) -> Iterator[str]:
    for line in comment.splitlines():
        yield f"{indent}# {_ESCAPED.sub(' ', line)}".rstrip()


def _write_map(data: dict[str, Any], indent: str) -> Iterator[str]:
    for key, child in data.items():
        value, comment = (child.value, child.comment) if isinstance(child, Commented) else (child, "")
        yield from _write_comment(comment, indent)
        head = f"{indent}{_write_scalar(key)}:"
        line = f"{head} {_write_flow(value, key)}"
        if not isinstance(value, (dict, list)) or not value or (len(line) <= WIDTH and _is_small(value)):
            yield line
        elif isinstance(value, dict):
            yield head
            yield from _write_map(value, f"{indent}  ")
        else:
            yield head
            yield from _write_list(value, indent)


def _write_list(items: list[Any], indent: str) -> Iterator[str]:
    for child in items:
        value, comment = (child.value, child.comment) if isinstance(child, Commented) else (child, "")
        yield from _write_comment(comment, indent)
        line = f"{indent}- {_write_flow(value)}"
        if not isinstance(value, dict) or not value or (len(line) <= WIDTH and _is_small(value)):
            yield line
            continue
        first, *others = _write_map(value, f"{indent}  ")
        yield f"{indent}- {first.lstrip()}"
        yield from others


def _is_small(value: Any, depth: int = 3) -> bool:
    """Return whether a value may be written in one line: nested at most `depth` deep, and without comments."""
    if isinstance(value, Commented) or depth == 0:
        return not isinstance(value, (Commented, dict, list))
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return all(_is_small(child, depth - 1) for child in children)


def _write_flow(value: Any, key: str = "") -> str:
    if isinstance(value, Commented):
        value = value.value
    if isinstance(value, dict):
        return (
            "{" + ", ".join(f"{_write_scalar(name)}: {_write_flow(child, name)}" for name, child in value.items()) + "}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(_write_flow(child) for child in value) + "]"
    return _quote(value) if isinstance(value, str) and key in _KEYWORDS else _write_scalar(value)


def _write_scalar(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and not _WORDS.fullmatch(value):
        return value
    return _quote(value) if isinstance(value, str) else json.dumps(value)


def _quote(text: str) -> str:
    """Return a text in double quotes. Invisible characters are escaped, and half surrogate pairs are replaced."""
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return _ESCAPED.sub(_escape, json.dumps(text, ensure_ascii=False))


def _escape(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\u{code:04X}" if code <= 0xFFFF else f"\\U{code:08X}"
