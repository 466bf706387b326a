"""YAML as JSON with comments: no aliases, tags or duplicate keys, JSON's own constants, bounded in size and depth."""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Any

import yaml

from itwin_mcp.capability.wording import shorten

Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_CONSTANTS = {"null": None, "~": None, "": None, "true": True, "false": False}
# What no editor shows, what YAML 1.1 takes for a line break and YAML 1.2 does not, and tabs: parsers disagree on them.
_UNPRINTABLE = re.compile("[^\n\r -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_LINE_END = re.compile(r"\r\n?|\n")
_SURROGATE = re.compile("[\ud800-\udfff]")


class YamlRefused(Exception):
    """The text is not YAML as capability files are written; `line` counts from 1."""

    def __init__(self, line: int, rule: str, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.rule = rule
        self.message = message


def parse(text: str, *, most_nodes: int = 50_000, most_depth: int = 50) -> Any:
    """The data of one YAML document. Raises YamlRefused.

    `null`, `~`, nothing, `true`, `false` and JSON's numbers are themselves; every other plain scalar is text: `yes`,
    `NO`, `2026-05-23`, `010`, `1:30`.
    """
    return _Builder(text, most_nodes, most_depth).value


@lru_cache(maxsize=8)
def lines(text: str) -> dict[tuple[str | int, ...], int]:
    """The line, from 1, of every key and element of a document. Raises YamlRefused."""
    return _Builder(text, 50_000, 50).lines


class _Builder:
    """Builds data from parser events, so that nothing is ever expanded or constructed."""

    def __init__(self, text: str, most_nodes: int, most_depth: int) -> None:
        self.lines: dict[tuple[str | int, ...], int] = {}
        self._most_nodes = most_nodes
        self._most_depth = most_depth
        self._nodes = 0
        odd = _UNPRINTABLE.search(text)
        if odd is not None:
            what = "a tab" if odd.group() == "\t" else f"the invisible character U+{ord(odd.group()):04X}"
            message = f"holds {what}: indent with spaces, and write it in text as an escape in double quotes"
            raise YamlRefused(len(_LINE_END.findall(text[: odd.start()])) + 1, "printable", message)
        try:
            self._events = iter(yaml.parse(text, Loader=Loader))
            self.value = self._document()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            if error.problem == "exceeded maximum nesting depth":  # libyaml 0.2.6 has a bound of its own
                message = f"is nested deeper than {most_depth} levels"
                raise YamlRefused(mark.line + 1 if mark else 1, "bounded", message) from None
            message = f"is not YAML: {error.problem or 'it cannot be read'}"
            # The parsers disagree about where a file ends that breaks off: it is its last line with something on it.
            last = len(_LINE_END.findall(text.rstrip())) + 1
            raise YamlRefused(min(mark.line + 1, last) if mark else 1, "yaml", message) from None
        except (yaml.YAMLError, ValueError, OverflowError) as error:  # ValueError: an escape beyond Unicode
            raise YamlRefused(1, "yaml", f"is not YAML: {str(error).splitlines()[0]}") from None

    def _document(self) -> Any:
        next(self._events)  # stream start
        start: Any = next(self._events)
        if isinstance(start, yaml.StreamEndEvent):
            raise YamlRefused(
                1, "document", "is empty: a capability file begins with `ikanos`, a policy file with `itwin-mcp-policy`"
            )
        if start.version is not None or start.tags:
            raise YamlRefused(_line(start), "no-directives", "has a YAML directive (%…): leave it out")
        value = self._node(next(self._events), ())
        next(self._events)  # document end
        more = next(self._events)
        if not isinstance(more, yaml.StreamEndEvent):
            message = "holds more than one YAML document: put each in a file of its own"
            raise YamlRefused(_line(more), "document", message)
        return value

    def _node(self, event: Any, path: tuple[str | int, ...]) -> Any:
        line = _line(event)
        self.lines.setdefault(path, line)
        self._nodes += 1
        if self._nodes > self._most_nodes:
            raise YamlRefused(line, "bounded", f"has more than {self._most_nodes} nodes: split it")
        if len(path) > self._most_depth:
            raise YamlRefused(line, "bounded", f"is nested deeper than {self._most_depth} levels")
        self._plain(event, line)
        if isinstance(event, yaml.ScalarEvent):
            return _scalar(event, line)
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Any] = []
            while not isinstance(child := next(self._events), yaml.SequenceEndEvent):
                items.append(self._node(child, (*path, len(items))))
            return items
        mapping: dict[str, Any] = {}
        while not isinstance(key_event := next(self._events), yaml.MappingEndEvent):
            key = self._key(key_event)
            if key in mapping:
                first = self.lines[(*path, key)]
                message = f"the key {shorten(key)!r} stands twice, first in line {first}: keep one"
                raise YamlRefused(_line(key_event), "no-duplicates", message)
            here = (*path, key)
            self.lines[here] = _line(key_event)
            mapping[key] = self._node(next(self._events), here)
        return mapping

    def _key(self, event: Any) -> str:
        line = _line(event)
        self._plain(event, line)
        if not isinstance(event, yaml.ScalarEvent):
            raise YamlRefused(line, "plain-keys", "a key must be plain text, not a list or a mapping")
        if event.value == "<<" and not event.style:
            raise YamlRefused(line, "no-merges", "uses the merge key <<: write the keys out")
        return _text(event, line)

    def _plain(self, event: Any, line: int) -> None:
        if isinstance(event, yaml.AliasEvent):
            raise YamlRefused(line, "no-aliases", f"uses the alias *{shorten(str(event.anchor))}: write the value out")
        if event.anchor is not None:
            message = f"has the anchor &{shorten(event.anchor)}: leave it out, aliases are not used here"
            raise YamlRefused(line, "no-aliases", message)
        if event.tag is not None:
            raise YamlRefused(line, "no-tags", f"has the tag {shorten(event.tag)}: write a plain value")


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _text(event: Any, line: int) -> str:
    text = str(event.value)
    if _SURROGATE.search(text):
        raise YamlRefused(line, "yaml", "has half a character (a lone surrogate escape)")
    return text


def _scalar(event: Any, line: int) -> str | int | float | bool | None:
    text = _text(event, line)
    if event.style:  # quoted or a block; plain is None here and "" from the C parser
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    number = _NUMBER.fullmatch(text) if len(text) <= 40 else None
    if number is None:
        return text
    if number.group(1) is None and number.group(2) is None:
        return int(text)
    value = float(text)
    if not math.isfinite(value):
        raise YamlRefused(line, "yaml", f"the number {text} is too large")
    return value
