"""YAML as JSON with comments: no aliases, tags or duplicate keys, the 1.2 core schema, bounded in size and depth."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import yaml

Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_CONSTANTS = {"null": None, "~": None, "": None, "true": True, "false": False}


class YamlRefused(Exception):
    """The text is not YAML as capability files are written; `line` counts from 1."""

    def __init__(self, line: int, rule: str, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.rule = rule
        self.message = message


def parse(text: str, *, most_nodes: int = 50_000, most_depth: int = 50) -> Any:
    """The data of one YAML document. Raises YamlRefused."""
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
        try:
            self._events = iter(yaml.parse(text, Loader=Loader))
            next(self._events)  # stream start
            start = next(self._events)
            if isinstance(start, yaml.StreamEndEvent):
                raise YamlRefused(1, "document", "is empty")
            self.value = self._node(next(self._events), ())
            next(self._events)  # document end
            more = next(self._events)
            if not isinstance(more, yaml.StreamEndEvent):
                raise YamlRefused(_line(more), "document", "holds more than one YAML document")
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise YamlRefused(mark.line + 1 if mark else 1, "yaml", error.problem or "is not YAML") from None
        except yaml.YAMLError as error:
            raise YamlRefused(1, "yaml", str(error).splitlines()[0]) from None

    def _node(self, event: Any, path: tuple[str | int, ...]) -> Any:
        line = _line(event)
        self.lines.setdefault(path, line)
        self._nodes += 1
        if self._nodes > self._most_nodes:
            raise YamlRefused(line, "bounded", f"has more than {self._most_nodes} nodes")
        if len(path) > self._most_depth:
            raise YamlRefused(line, "bounded", f"is nested deeper than {self._most_depth} levels")
        if isinstance(event, yaml.AliasEvent):
            raise YamlRefused(line, "no-aliases", f"uses the alias *{event.anchor}: write the value out")
        if event.anchor is not None:
            raise YamlRefused(line, "no-aliases", f"has the anchor &{event.anchor}: aliases are not used here")
        if event.tag is not None:
            raise YamlRefused(line, "no-tags", f"has the tag {event.tag}: write plain values")
        if isinstance(event, yaml.ScalarEvent):
            return _scalar(event)
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Any] = []
            while not isinstance(child := next(self._events), yaml.SequenceEndEvent):
                items.append(self._node(child, (*path, len(items))))
            return items
        mapping: dict[str, Any] = {}
        while not isinstance(key_event := next(self._events), yaml.MappingEndEvent):
            key = self._key(key_event)
            if key in mapping:
                raise YamlRefused(_line(key_event), "no-duplicates", f"the key {key!r} stands twice")
            here = (*path, key)
            self.lines[here] = _line(key_event)
            mapping[key] = self._node(next(self._events), here)
        return mapping

    def _key(self, event: Any) -> str:
        if not isinstance(event, yaml.ScalarEvent) or event.anchor is not None or event.tag is not None:
            raise YamlRefused(_line(event), "plain-keys", "a key must be plain text")
        if event.value == "<<" and not event.style:
            raise YamlRefused(_line(event), "no-merges", "uses a merge key: write the keys out")
        return str(event.value)


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _scalar(event: Any) -> str | int | float | bool | None:
    text = str(event.value)
    if event.style:  # quoted or a block; plain is None here and "" from the C parser
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if len(text) <= 40:
        if _INTEGER.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text):
            return float(text)
    return text
