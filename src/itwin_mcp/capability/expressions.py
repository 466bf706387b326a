"""`{{name}}` slots and `$.path` look-ups, compiled once at load and evaluated without parsing anything again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeAlias

from itwin_mcp.capability.wording import shorten


class ExpressionError(ValueError):
    """The text is not an expression of the format."""


class _Absent:
    """There is no value here; not the same as null."""

    def __repr__(self) -> str:
        return "ABSENT"

    def __bool__(self) -> bool:
        return False


ABSENT: Final = _Absent()

# --- paths ------------------------------------------------------------------------------------------------------

_PLAIN_PATH = re.compile(r"\$(?:\.|(?:\.[A-Za-z_][\w-]*|\[\d{1,9}\]|\[\*\]|\['[^'\\]*'\])*)")
_PATH_PART = re.compile(r"\.([A-Za-z_][\w-]*)|\[(\d+)\]|\[(\*)\]|\['([^'\\]*)'\]")


class Every(Enum):
    """The part `[*]` of a path: every element of a list, or every value of an object."""

    EVERY = "*"


PathPart: TypeAlias = str | int | Every


@dataclass(frozen=True, slots=True)
class Path:
    """A compiled `$.a[0]` or `$.a[*].b`; anything richer is one query of a JSONPath library (RFC 9535)."""

    text: str
    parts: tuple[PathPart, ...]
    query: Callable[[Any], Any] | None = None

    @property
    def many(self) -> bool:
        """Whether it gives the list of all that match, however many, in place of one value."""
        return self.query is not None or Every.EVERY in self.parts

    def find(self, value: Any) -> Any:
        """What the path leads to, or ABSENT; of a path of many the list of all that match."""
        if self.query is not None:
            return self.query(value)
        found = _walk(value, self.parts)
        return [] if found is ABSENT and Every.EVERY in self.parts else found


def _walk(value: Any, parts: tuple[PathPart, ...]) -> Any:
    for index, part in enumerate(parts):
        if isinstance(part, str):
            if not isinstance(value, dict) or part not in value:
                return ABSENT
            value = value[part]
        elif isinstance(part, int):
            if not isinstance(value, list) or part >= len(value):
                return ABSENT
            value = value[part]
        else:
            return _every(value, parts[index + 1 :])
    return value


def _every(value: Any, rest: tuple[PathPart, ...]) -> list[Any]:
    """What is found below each element, as one flat list."""
    elements = value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
    found = [one for one in (_walk(element, rest) for element in elements) if one is not ABSENT]
    return [one for several in found for one in several] if Every.EVERY in rest else found


def compile_path(text: str) -> Path:
    """Compile a JSONPath. Raises ExpressionError if it is none."""
    if _PLAIN_PATH.fullmatch(text):
        parts: list[PathPart] = []
        for name, index, every, quoted in _PATH_PART.findall(text):
            parts.append(int(index) if index else Every.EVERY if every else name or quoted)
        return Path(text, tuple(parts))
    if not text.startswith("$"):
        raise ExpressionError(f"{_show(text)} is not a JSONPath: it must begin with `$`")
    return Path(text, (), _rich_query(text))


def _rich_query(text: str) -> Callable[[Any], list[Any]]:
    # Imported here: no file of ours needs it, and it costs start-up time.
    import jsonpath

    try:
        compiled = jsonpath.JSONPathEnvironment(strict=True).compile(text)
    except (jsonpath.JSONPathError, ValueError, RecursionError) as error:
        raise ExpressionError(f"{_show(text)} is not a JSONPath: {shorten(str(error).splitlines()[0])}") from None

    def query(value: Any) -> list[Any]:
        try:
            return compiled.findall(value)
        except jsonpath.JSONPathError:
            # The answer is not what the path is about (too deep, say): nothing in it matches.
            return []

    return query


def _show(text: str) -> str:
    return repr(shorten(text))


# --- values -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Argument:
    """The caller's argument of this name."""

    name: str


@dataclass(frozen=True, slots=True)
class StepValue:
    """A value of an earlier step's result."""

    step: str
    path: Path


@dataclass(frozen=True, slots=True)
class Literal:
    """A value that the file gives."""

    value: Any


@dataclass(frozen=True, slots=True)
class Text:
    """Text with slots in it; every slot needs a value."""

    parts: tuple[str | Argument | StepValue, ...]


Expression: TypeAlias = Argument | StepValue | Literal | Text

_SLOT = re.compile(r"\{\{([^{}]*)\}\}")
_NAME = re.compile(r"[a-zA-Z0-9-_*]+")


def slots(text: str) -> tuple[str, ...]:
    """The names in the `{{…}}` slots of a text, in order."""
    return tuple(name.strip() for name in _SLOT.findall(text))


def compile_slots(text: str, resolve: Callable[[str], Argument | StepValue | Literal]) -> Expression:
    """Compile a text with `{{…}}` slots.

    A slot that is the whole text gives the typed value; slots inside text give text. `resolve` reads what stands in
    a slot. Raises ExpressionError for braces that are no slot.
    """
    texts = _SLOT.split(text)  # text, name, text, name, …, text
    for index in range(0, len(texts), 2):
        between, last = texts[index], index == len(texts) - 1
        # `{{{a}}}` is a slot with braces around it: the format's template language means something else by it.
        tripled = (not last and between.endswith("{")) or (index > 0 and between.startswith("}"))
        if "{{" in between or "}}" in between or tripled:
            raise ExpressionError(f"{_show(text)} has braces that are no {{{{name}}}} slot")
    if len(texts) == 1:
        return Literal(text)
    parts: list[str | Argument | StepValue] = []
    for index, part in enumerate(texts):
        if index % 2 == 0:
            parts.append(part)
            continue
        value = resolve(part.strip())
        if len(texts) == 3 and texts[0] == texts[2] == "":
            return value
        parts.append(wire_text(value.value) if isinstance(value, Literal) else value)
    return Text(tuple(part for part in parts if part != ""))


def argument_slot(name: str) -> Argument:
    """What a slot names where only inputs can be named. Raises ExpressionError."""
    if not is_name(name):
        raise ExpressionError(f"{{{{{shorten(name)}}}}} is not a slot: between the braces stands one name")
    return Argument(name)


def is_name(text: str) -> bool:
    """Whether the text can be the name of an argument or slot."""
    return _NAME.fullmatch(text) is not None


def evaluate(expression: Expression, arguments: Mapping[str, Any], results: Mapping[str, Any]) -> Any:
    """The value of an expression, or ABSENT where an argument was not given or a step has no such value."""
    match expression:
        case Argument(name):
            return arguments.get(name, ABSENT)
        case Literal(value):
            return value
        case StepValue(step, path):
            return path.find(results[step]) if step in results else ABSENT
        case Text(parts):
            texts = []
            for part in parts:
                value = part if isinstance(part, str) else evaluate(part, arguments, results)
                if value is ABSENT or value is None:
                    return ABSENT
                texts.append(wire_text(value))
            return "".join(texts)


def wire_text(value: Any) -> str:
    """A value as text for a URL or header: booleans in lower case, lists joined by commas, objects as JSON."""
    if isinstance(value, str):
        return value
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, list):
        return ",".join(wire_text(item) for item in value if item is not None)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
