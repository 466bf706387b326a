"""Converted arguments against what a tool declares, and the rules across them; nothing is sent if they do not fit."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import count, islice
from typing import Any

from itwin_mcp.capability.catalog import Tool
from itwin_mcp.capability.expressions import ABSENT
from itwin_mcp.capability.parameters import CLEAR, enforced_schema, removable_arguments
from itwin_mcp.capability.published import example_of, kind_of, pairs_of
from itwin_mcp.capability.suggestions import find_similar
from itwin_mcp.errors import InvalidArguments
from itwin_mcp.executor.conversion import MAX_VALUES, ecma_pattern

MOST_DEPTH = 64
MOST_DETAILS = 20
_MOST_FOUND = 200
"""Problems after which no more are looked for."""
_SHOWN = 60
MAX_EXAMPLE = 200
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE)
"""RFC 3339, which JSON Schema's `date-time` means: a moment, with its zone."""

Check = Callable[[Mapping[str, Any]], dict[str, Any]]
"""Converted arguments in; the same with defaults out, and null for what `clear` removes, or InvalidArguments."""


def compile_check(tool: Tool) -> Check:
    """The check of a tool's arguments, compiled once. Schemas are never fetched from anywhere."""
    # Imported for the first call, not at start-up: it costs a tenth of a second.
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError
    from jsonschema.validators import extend
    from referencing import Registry

    def check_pattern(validator: Any, pattern: str, given: Any, _: Any) -> Iterator[ValidationError]:
        if validator.is_type(given, "string") and not re.search(ecma_pattern(pattern), given):
            yield ValidationError(f"{given!r} does not match {pattern!r}")

    def check_format(validator: Any, form: str, given: Any, _: Any) -> Iterator[ValidationError]:
        if form == "date-time" and validator.is_type(given, "string") and not _is_moment(given):
            yield ValidationError(f"{given!r} is no {form}")

    def check_unique(validator: Any, unique: bool, given: Any, _: Any) -> Iterator[ValidationError]:
        # Each compared with a set of texts: jsonschema compares every pair of them.
        is_list = unique and validator.is_type(given, "array")
        if is_list and len({json.dumps(one, sort_keys=True) for one in given}) < len(given):
            yield ValidationError("an element is repeated")

    own = {"pattern": check_pattern, "format": check_format, "uniqueItems": check_unique}
    checker = extend(Draft202012Validator, own)  # type: ignore[no-untyped-call]
    removable = removable_arguments(tool.arguments)
    clears = [one for one in tool.arguments if removable and one.name == CLEAR]
    fields = [one for one in tool.arguments if one not in clears]
    validator = checker(enforced_schema(fields, tool.rule), registry=Registry())
    # Apart from the fields, so that a rule that counts them does not count it.
    clear_validator = checker(enforced_schema(clears, {}), registry=Registry())
    defaults = {one.name: one.default for one in tool.arguments if one.default is not ABSENT}
    known = ", ".join(one.name for one in tool.arguments) or "no arguments"

    def errors_of(arguments: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        cleared, values = _split(arguments, removable)
        for name in cleared:
            if name in values:
                yield _detail("MutuallyExclusive", name, f"{name} cannot be both set and cleared")
        errors = [validator.iter_errors({**values, **dict.fromkeys(cleared)})]
        if clears and CLEAR in arguments:
            errors.append(clear_validator.iter_errors({CLEAR: arguments[CLEAR]}))
        # jsonschema reports each missing argument on its own, with the same list of all that are required.
        yield from (detail for several in errors for error in several for detail in _details(error))

    def check(arguments: Mapping[str, Any]) -> dict[str, Any]:
        problems = _first_of(_unfit_values(arguments, count())) or _first_of(errors_of(arguments))
        if problems:
            named = "; ".join(problem["message"] for problem in problems[:5])
            others = "many" if len(problems) == _MOST_FOUND else len(problems) - 5
            more = f"; and {others} more" if len(problems) > 5 else ""
            raise InvalidArguments(
                f"{tool.name} was not called: {named}{more}.",
                hint=f"Correct the arguments named in details and call again. {tool.name} takes: {known}.",
                details=problems[:MOST_DETAILS],
            )
        cleared, _ = _split(arguments, removable)
        return {**defaults, **arguments, **dict.fromkeys(cleared)}

    return check


def _split(arguments: Mapping[str, Any], removable: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Return the arguments whose values are removed, and the values of the others."""
    if not removable:
        return [], dict(arguments)
    cleared = arguments.get(CLEAR, [])
    names = [name for name in removable if name in cleared] if isinstance(cleared, list) else []
    return names, {name: value for name, value in arguments.items() if name != CLEAR}


def _first_of(problems: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first ones, each once."""
    return list({tuple(problem.values()): problem for problem in islice(problems, _MOST_FOUND)}.values())


def _is_moment(text: str) -> bool:
    try:
        return _DATE_TIME.fullmatch(text) is not None and datetime.fromisoformat(text.upper()) is not None
    except ValueError:
        return False


def _unfit_values(value: Any, seen: Iterator[int], where: str = "", depth: int = 0) -> Iterator[dict[str, Any]]:
    """What no JSON value can be, or would exhaust whoever reads it. `seen` counts the values of the whole call."""
    if next(seen) >= MAX_VALUES:
        yield _detail(
            "InvalidArgument",
            where.partition(".")[0],
            f"{where.partition('.')[0] or 'the call'}: there are more than {MAX_VALUES} values in it",
        )
    elif depth > MOST_DEPTH:
        yield _detail("InvalidArgument", where.partition(".")[0], f"it is nested deeper than {MOST_DEPTH} levels")
    elif isinstance(value, float) and not math.isfinite(value):
        yield _detail("InvalidArgument", where, f"{where} must be a number, not {value}")
    elif isinstance(value, dict | list):
        # Not one by one where there are too many: the first says so.
        few = islice(value.items() if isinstance(value, dict) else enumerate(value), MAX_VALUES)
        for key, child in few:
            name = _short(str(key))
            yield from _unfit_values(child, seen, f"{where}.{name}" if where else name, depth + 1)


def _details(error: Any) -> Iterator[dict[str, Any]]:
    """One detail an argument, in words that name it; values are shown short, so that nothing large comes back."""
    where = ".".join(str(part) for part in error.absolute_path)
    prefix = f"{where}." if where else ""
    rule, given, allowed = error.validator, error.instance, error.validator_value
    if rule == "required":
        for name in allowed:
            if name not in given:
                schema = error.schema.get("properties", {}).get(name, {})
                shown = "" if kind_of(schema) == "string" and "examples" not in schema else _such_as(schema)
                yield _detail("MissingArgument", prefix + name, f"{prefix}{name} is missing{shown}")
        return
    if rule == "additionalProperties":
        known = error.schema.get("properties", {})
        for name in sorted(set(given) - set(known)):
            shown = _short(name)
            close = find_similar(name, [other for other in known if other not in given]) or find_similar(name, known)
            meant = f" (did you mean {prefix}{close[0]}?)" if close else ""
            yield _detail("UnknownArgument", prefix + shown, f"{prefix}{shown} is not an argument{meant}")
        return
    together = list(_together(allowed, given, error.schema)) if rule == "not" and not where else []
    if together:
        for names, text in together:
            yield _detail("MutuallyExclusive", names, f"{text} cannot be given together")
        return
    if rule == "dependentRequired":
        for name, others in allowed.items():
            for other in others if name in given else ():
                if other not in given:
                    yield _detail(
                        "MissingArgument", prefix + other, f"{prefix}{name} goes with {other}, which is missing"
                    )
        return
    if rule == "minProperties" and not where:
        yield _detail("MissingArgument", "", "nothing to change was given")
        return
    if rule in ("anyOf", "oneOf") and not where:
        choices = [" and ".join(choice.get("required", ())) for choice in allowed]
        few = "exactly one" if rule == "oneOf" else "at least one"
        yield _detail("MissingArgument", "", f"{few} of these must be given: {', '.join(filter(None, choices))}")
        return
    name = where or "the arguments"
    text = {
        "type": lambda: f"{name} must be {_types(allowed, error.schema)}, not {_kind(given)}",
        "enum": lambda: f"{name} must be one of {', '.join(map(_value, allowed))}",
        "const": lambda: f"{name} must be {_value(allowed)}",
        "pattern": lambda: f"{name} {_pattern(allowed)}",
        "format": lambda: f"{name} must be a date and time with its zone, such as 2027-01-31T12:00:00Z",
        "minLength": lambda: f"{name} must have at least {_count(allowed, 'character')}",
        "maxLength": lambda: f"{name} must have at most {_count(allowed, 'character')}, it has {len(given)}",
        "minimum": lambda: f"{name} must be at least {allowed}",
        "maximum": lambda: f"{name} must be at most {allowed}",
        "minItems": lambda: f"{name} must have at least {_count(allowed, 'element')}",
        "maxItems": lambda: f"{name} must have at most {_count(allowed, 'element')}, it has {len(given)}",
        "uniqueItems": lambda: f"{name} must not repeat an element",
    }.get(rule, lambda: f"{name} does not fit the rule {rule} of its schema")()
    shown = "" if rule in ("enum", "const", "format") else _such_as(error.schema)
    yield _detail("InvalidArgument", where, f"{text}{shown}")


def _such_as(schema: Mapping[str, Any]) -> str:
    """A valid value, for the end of a message; an id is never made up."""
    example = example_of(schema)
    text = json.dumps(example, ensure_ascii=False) if example is not ABSENT else ""
    return f" (for example {text})" if 0 < len(text) <= MAX_EXAMPLE else ""


def _together(rule: Any, given: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The arguments that a tool's rule keeps apart: their names, and the same with their values where the rule is
    about those. One that was left out has its default."""
    declared = schema.get("properties", {}).items()
    whole = {name: one["default"] for name, one in declared if "default" in one} | dict(given)
    for one in rule.get("anyOf", [rule]):
        values = one.get("properties", {})
        names = list(dict.fromkeys((*values, *one.get("required", ()))))
        if names and all(name in whole and _says(values.get(name, {}), whole[name]) for name in names):
            words = (f"{name} {_value(whole[name])}" if name in values else name for name in names)
            parts = (
                text if name in given else f"{text} (its default)" for name, text in zip(names, words, strict=True)
            )
            yield " and ".join(names), " and ".join(parts)


def _says(part: Mapping[str, Any], value: Any) -> bool:
    """Whether a value is what a part of a rule is about."""
    if "not" in part:
        return not _says(part["not"], value)
    return value in part.get("enum", [part["const"]] if "const" in part else [value])


def _detail(code: str, target: str, message: str) -> dict[str, Any]:
    return {"code": code, "target": target, "message": message}


def _short(text: str) -> str:
    shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in shown)


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _pattern(pattern: str) -> str:
    return "must not be blank" if pattern == r"\S" else f"does not have the form {pattern}"


def _types(allowed: str | list[str], schema: Mapping[str, Any]) -> str:
    if pairs_of(schema) is not None:
        return "a list of objects with name and value, each name once"
    return allowed if isinstance(allowed, str) else " or ".join(kind for kind in allowed if kind != "null")


def _kind(value: Any) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
    return names.get(type(value), "null")
