"""Parser for strict YAML, which is JSON with comments: no aliases, tags or duplicate keys, only JSON's values.

A capability file must mean the same to every reader and must not surprise its author. YAML 1.1 and 1.2 read `no`,
`010` and `1:30` differently, an alias can expand to gigabytes, and of two equal keys most parsers silently drop one.
So this module takes the events of PyYAML's parser and builds the data itself; it never constructs or expands anything.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Any

import yaml

from itwin_mcp.text import shorten

MAX_NODES = 50_000
MAX_DEPTH = 50

Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_CONSTANTS = {"null": None, "~": None, "": None, "true": True, "false": False}
# Parsers disagree about these: invisible characters, line breaks that only YAML 1.1 has, and tabs.
_UNPRINTABLE = re.compile("[^\n\r -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_LINE_END = re.compile(r"\r\n?|\n")
_SURROGATE = re.compile("[\ud800-\udfff]")


class YamlRefused(Exception):
    """The text is not strict YAML. `line` counts from 1."""

    def __init__(self, line: int, rule: str, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.rule = rule
        self.message = message


def parse(text: str, *, max_nodes: int = MAX_NODES) -> Any:
    """Return the data of one YAML document.

    An empty value and plain `null`, `~`, `true`, `false` and JSON numbers have their usual values. Every other plain
    scalar is text, including `yes`, `NO`, `2026-05-23`, `010` and `1:30`.

    Raises:
        YamlRefused: The text is not strict YAML.
    """
    return _Builder(text, max_nodes).value


@lru_cache(maxsize=8)
def find_lines(text: str) -> dict[tuple[str | int, ...], int]:
    """Return the line of every key and element of a document by its path. Lines count from 1.

    Raises:
        YamlRefused: The text is not strict YAML.
    """
    return _Builder(text, MAX_NODES).lines


class _Builder:
    """Builds the data and the lines of a document from the events of a parser."""

    def __init__(self, text: str, max_nodes: int) -> None:
        self.lines: dict[tuple[str | int, ...], int] = {}
        self._max_nodes = max_nodes
        self._nodes = 0
        match = _UNPRINTABLE.search(text)
        if match is not None:
            character = "a tab" if match[0] == "\t" else f"the invisible character U+{ord(match[0]):04X}"
            message = f"contains {character}: indent with spaces, and in text write an escape in double quotes"
            raise YamlRefused(len(_LINE_END.findall(text[: match.start()])) + 1, "printable", message)
        try:
            # The parser is lazy. If a limit below is reached, it does not read the rest of a huge text.
            self._events = iter(yaml.parse(text, Loader=Loader))
            self.value = self._build_document()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            if error.problem == "exceeded maximum nesting depth":  # libyaml has a limit of its own since 0.2.6
                message = f"is nested deeper than {MAX_DEPTH} levels"
                raise YamlRefused(mark.line + 1 if mark else 1, "bounded", message) from None
            message = f"is not YAML: {error.problem or 'it cannot be read'}"
            # If a file ends too early, the two parsers report different lines. We report its last line with text.
            last = len(_LINE_END.findall(text.rstrip())) + 1
            raise YamlRefused(min(mark.line + 1, last) if mark else 1, "yaml", message) from None
        except (yaml.YAMLError, ValueError, OverflowError) as error:  # ValueError: an escape beyond Unicode
            raise YamlRefused(1, "yaml", f"is not YAML: {str(error).splitlines()[0]}") from None

    def _build_document(self) -> Any:
        next(self._events)  # stream start
        start: Any = next(self._events)
        if isinstance(start, yaml.StreamEndEvent):
            raise YamlRefused(
                1, "document", "is empty: a capability file begins with `ikanos`, a policy file with `itwin-mcp-policy`"
            )
        if start.version is not None or start.tags:
            raise YamlRefused(_get_line(start), "no-directives", "has a YAML directive (%…): remove it")
        value = self._build_node(next(self._events), ())
        next(self._events)  # document end
        end = next(self._events)
        if not isinstance(end, yaml.StreamEndEvent):
            message = "contains more than one YAML document: put each in its own file"
            raise YamlRefused(_get_line(end), "document", message)
        return value

    def _build_node(self, event: Any, path: tuple[str | int, ...]) -> Any:
        line = _get_line(event)
        self.lines.setdefault(path, line)  # for a value in a mapping, the line of its key is already set
        self._nodes += 1
        if self._nodes > self._max_nodes:
            raise YamlRefused(line, "bounded", f"has more than {self._max_nodes} nodes: split it")
        if len(path) > MAX_DEPTH:
            raise YamlRefused(line, "bounded", f"is nested deeper than {MAX_DEPTH} levels")
        self._reject_decorations(event, line)
        if isinstance(event, yaml.ScalarEvent):
            return _read_scalar(event, line)
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Any] = []
            while not isinstance(child := next(self._events), yaml.SequenceEndEvent):
                items.append(self._build_node(child, (*path, len(items))))
            return items
        mapping: dict[str, Any] = {}
        while not isinstance(key_event := next(self._events), yaml.MappingEndEvent):
            key = self._build_key(key_event)
            if key in mapping:
                first = self.lines[(*path, key)]
                message = f"the key {shorten(key)!r} is there twice, first in line {first}: remove one"
                raise YamlRefused(_get_line(key_event), "no-duplicates", message)
            here = (*path, key)
            self.lines[here] = _get_line(key_event)
            mapping[key] = self._build_node(next(self._events), here)
        return mapping

    def _build_key(self, event: Any) -> str:
        line = _get_line(event)
        self._reject_decorations(event, line)
        if not isinstance(event, yaml.ScalarEvent):
            raise YamlRefused(line, "plain-keys", "a key must be plain text, not a list or a mapping")
        if event.value == "<<" and not event.style:
            raise YamlRefused(line, "no-merges", "uses the merge key <<: write the keys out")
        return _read_text(event, line)

    def _reject_decorations(self, event: Any, line: int) -> None:
        if isinstance(event, yaml.AliasEvent):
            raise YamlRefused(line, "no-aliases", f"uses the alias *{shorten(str(event.anchor))}: write the value out")
        if event.anchor is not None:
            message = f"has the anchor &{shorten(event.anchor)}: remove it, aliases are not allowed"
            raise YamlRefused(line, "no-aliases", message)
        if event.tag is not None:
            raise YamlRefused(line, "no-tags", f"has the tag {shorten(event.tag)}: write a plain value")


def _get_line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _read_text(event: Any, line: int) -> str:
    text = str(event.value)
    if _SURROGATE.search(text):
        raise YamlRefused(line, "yaml", "has the escape of a lone surrogate, which is half a character")
    return text


def _read_scalar(event: Any, line: int) -> str | int | float | bool | None:
    text = _read_text(event, line)
    if event.style:  # quoted text or a block; the style of plain text is None, or "" from the C parser
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    number = _NUMBER.fullmatch(text) if len(text) <= 40 else None  # int() takes quadratic time for long texts
    if number is None:
        return text
    if number.group(1) is None and number.group(2) is None:
        return int(text)
    value = float(text)
    if not math.isfinite(value):
        raise YamlRefused(line, "yaml", f"the number {text} is too large")
    return value
