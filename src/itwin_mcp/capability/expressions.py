"""`{{name}}` slots and `$.path` look-ups, compiled once at load and evaluated without parsing anything again."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias


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

_PLAIN_PATH = re.compile(r"\$(?:\.[A-Za-z_][\w-]*|\[\d+\]|\['[^'\\]*'\])*\.?")
_PATH_PART = re.compile(r"\.([A-Za-z_][\w-]*)|\[(\d+)\]|\['([^'\\]*)'\]")


@dataclass(frozen=True, slots=True)
class Path:
    """A compiled `$.a.b[0]`; anything richer is one query of a JSONPath library (RFC 9535)."""

    text: str
    parts: tuple[str | int, ...]
    query: Callable[[Any], Any] | None = None

    def find(self, value: Any) -> Any:
        """What the path leads to, or ABSENT. A rich path gives the list of all that match."""
        if self.query is not None:
            return self.query(value)
        for part in self.parts:
            if isinstance(part, str):
                if not isinstance(value, dict) or part not in value:
                    return ABSENT
                value = value[part]
            else:
                if not isinstance(value, list) or part >= len(value):
                    return ABSENT
                value = value[part]
        return value


def compile_path(text: str) -> Path:
    """Compile a JSONPath. Raises ExpressionError if it is none."""
    if _PLAIN_PATH.fullmatch(text):
        parts = tuple(
            int(index) if index else name or quoted for name, index, quoted in _PATH_PART.findall(text)
        )
        return Path(text, parts)
    if not text.startswith("$"):
        raise ExpressionError(f"{text!r} is not a JSONPath: it must begin with `$`")
    return Path(text, (), _rich_query(text))


def _rich_query(text: str) -> Callable[[Any], list[Any]]:
    # Imported here: no file of ours needs it, and it costs start-up time.
    import jsonpath

    try:
        compiled = jsonpath.compile(text)
    except jsonpath.JSONPathError as error:
        raise ExpressionError(f"{text!r} is not a JSONPath: {error}") from None
    return compiled.findall


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

_SLOT = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")
_NAME = re.compile(r"[a-zA-Z0-9-_*]+")


def slots(text: str) -> tuple[str, ...]:
    """The names in the `{{…}}` slots of a text, in order."""
    return tuple(_SLOT.findall(text))


def compile_slots(text: str, resolve: Callable[[str], Argument | StepValue | Literal]) -> Expression:
    """Compile a text with `{{…}}` slots.

    A slot that is the whole text gives the typed value; slots inside text give text. `resolve` reads what stands in
    a slot. Raises ExpressionError for braces that are no slot.
    """
    parts: list[str | Argument | StepValue] = []
    end = 0
    for match in _SLOT.finditer(text):
        value = resolve(match.group(1))
        if match.span() == (0, len(text)):
            return value
        parts.append(text[end : match.start()])
        parts.append(str(value.value) if isinstance(value, Literal) else value)
        end = match.end()
    rest = text[end:]
    if "{{" in rest or "}}" in rest:
        raise ExpressionError(f"{text!r} has braces that are no `{{{{name}}}}` slot")
    if not parts:
        return Literal(text)
    return Text(tuple(part for part in (*parts, rest) if part != ""))


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
    """A value as text for a URL or header: booleans in lower case, lists joined by commas."""
    if isinstance(value, str):
        return value
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, list):
        return ",".join(wire_text(item) for item in value)
    return str(value)
