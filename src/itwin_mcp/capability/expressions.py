"""Slots (`{{name}}`) and JSONPath (`$.path`). They are compiled when files are loaded, and evaluated in every call."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeAlias

from itwin_mcp.text import shorten


class ExpressionError(ValueError):
    """The text is not a valid slot or path."""


class _Absent:
    """The type of ABSENT, which stands for a missing value. A value that is null is None instead."""

    def __repr__(self) -> str:
        return "ABSENT"

    def __bool__(self) -> bool:
        return False


ABSENT: Final = _Absent()

# --- paths ------------------------------------------------------------------------------------------------------

_PLAIN_PATH = re.compile(r"\$(?:\.|(?:\.[A-Za-z_][\w-]*|\[\d{1,9}\]|\[\*\]|\['[^'\\]*'\])*)")
_PATH_PART = re.compile(r"\.([A-Za-z_][\w-]*)|\[(\d+)\]|\[(\*)\]|\['([^'\\]*)'\]")


class Every(Enum):
    """The type of the part `[*]` of a path: all elements of a list, or all values of an object."""

    EVERY = "*"


PathPart: TypeAlias = str | int | Every


@dataclass(frozen=True, slots=True)
class JsonPath:
    """A compiled path: the `parts` of a path such as `$.a[*].b`, or for a richer path a `query` (RFC 9535)."""

    text: str
    parts: tuple[PathPart, ...]
    query: Callable[[Any], Any] | None = None

    @property
    def many(self) -> bool:
        """Return whether the path returns the list of all matches instead of one value."""
        return self.query is not None or Every.EVERY in self.parts

    def find(self, value: Any) -> Any:
        """Return the value at the path, or ABSENT. If `many`, return the list of all matches."""
        if self.query is not None:
            return self.query(value)
        result = _find_plain(value, self.parts)
        return [] if result is ABSENT and Every.EVERY in self.parts else result


def _find_plain(value: Any, parts: tuple[PathPart, ...]) -> Any:
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
            return _find_in_each(value, parts[index + 1 :])
    return value


def _find_in_each(value: Any, parts: tuple[PathPart, ...]) -> list[Any]:
    """Return the values at a path below each element, as one flat list."""
    elements = value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
    results = [result for result in (_find_plain(element, parts) for element in elements) if result is not ABSENT]
    # A further [*] has returned a list for each element.
    return [value for values in results for value in values] if Every.EVERY in parts else results


def compile_path(text: str) -> JsonPath:
    """Compile a JSONPath.

    Raises:
        ExpressionError: The text is not a JSONPath.
    """
    if _PLAIN_PATH.fullmatch(text):
        parts: tuple[PathPart, ...] = tuple(
            int(index) if index else Every.EVERY if star else name or quoted
            for name, index, star, quoted in _PATH_PART.findall(text)
        )
        return JsonPath(text, parts)
    if not text.startswith("$"):
        raise ExpressionError(f"{_quote(text)} is not a JSONPath: it must begin with `$`")
    return JsonPath(text, (), _compile_query(text))


def _compile_query(text: str) -> Callable[[Any], list[Any]]:
    # Imported here: none of our files needs it, and importing it is slow.
    import jsonpath

    try:
        compiled = jsonpath.JSONPathEnvironment(strict=True).compile(text)
    except (jsonpath.JSONPathError, ValueError, RecursionError) as error:
        raise ExpressionError(f"{_quote(text)} is not a JSONPath: {shorten(str(error).splitlines()[0])}") from None

    def query(value: Any) -> list[Any]:
        try:
            return compiled.findall(value)
        except jsonpath.JSONPathError:
            # The path cannot be applied to this answer, for example because the answer is nested too deeply.
            return []

    return query


def _quote(text: str) -> str:
    return repr(shorten(text))


# --- values -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Argument:
    """A reference to an argument of the call."""

    name: str


@dataclass(frozen=True, slots=True)
class StepValue:
    """A reference to a value in the result of an earlier step."""

    step: str
    path: JsonPath


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant."""

    value: Any


@dataclass(frozen=True, slots=True)
class Text:
    """Text with slots. It has a value only if every slot has one."""

    parts: tuple[str | Argument | StepValue, ...]


Expression: TypeAlias = Argument | StepValue | Literal | Text

_SLOT = re.compile(r"\{\{([^{}]*)\}\}")
_NAME = re.compile(r"[a-zA-Z0-9-_*]+")


def find_slots(text: str) -> tuple[str, ...]:
    """Return the names in the `{{…}}` slots of a text, in order."""
    return tuple(name.strip() for name in _SLOT.findall(text))


def compile_slots(text: str, resolve: Callable[[str], Argument | StepValue | Literal]) -> Expression:
    """Compile a text with `{{…}}` slots. `resolve` compiles the content of a slot.

    If a slot is the whole text, the value keeps its type. The values of slots inside text are formatted as text.

    Raises:
        ExpressionError: The text has braces that are not a slot.
    """
    texts = _SLOT.split(text)  # text, name, text, name, …, text
    for index in range(0, len(texts), 2):
        between, is_last = texts[index], index == len(texts) - 1
        # `{{{a}}}` is refused, because the template language of the format (Mustache) gives it another meaning.
        tripled = (not is_last and between.endswith("{")) or (index > 0 and between.startswith("}"))
        if "{{" in between or "}}" in between or tripled:
            raise ExpressionError(f"{_quote(text)} has braces that are not a {{{{name}}}} slot")
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
        parts.append(format_for_wire(value.value) if isinstance(value, Literal) else value)
    return Text(tuple(part for part in parts if part != ""))


def resolve_argument(name: str) -> Argument:
    """Compile a slot that can only refer to an input.

    Raises:
        ExpressionError: The content is not a name.
    """
    if not is_name(name):
        raise ExpressionError(f"{{{{{shorten(name)}}}}} is not a slot: write one name between the braces")
    return Argument(name)


def is_name(text: str) -> bool:
    """Return whether a text can be the name of an argument or slot."""
    return _NAME.fullmatch(text) is not None


def evaluate(expression: Expression, arguments: Mapping[str, Any], results: Mapping[str, Any]) -> Any:
    """Return the value of an expression; ABSENT if the argument is missing or the step has no such value."""
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
                texts.append(format_for_wire(value))
            return "".join(texts)


def format_for_wire(value: Any) -> str:
    """Return a value as text for a URL or header: lower-case booleans, lists joined by commas, objects as JSON."""
    if isinstance(value, str):
        return value
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, list):
        return ",".join(format_for_wire(item) for item in value if item is not None)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
