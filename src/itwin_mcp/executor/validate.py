"""Arguments against the very schema that was published; nothing is sent when they do not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from itwin_mcp.capability.catalog import Tool
from itwin_mcp.capability.expressions import ABSENT
from itwin_mcp.errors import InvalidArguments

_SHOWN = 60

Check = Callable[[Mapping[str, Any]], dict[str, Any]]
"""Arguments in; the same with defaults out, or InvalidArguments."""


def compile_check(tool: Tool) -> Check:
    """The check of a tool's arguments, compiled once. Schemas are never fetched from anywhere."""
    # Imported for the first call, not at start-up: it costs a tenth of a second.
    from jsonschema import Draft202012Validator
    from referencing import Registry

    validator = Draft202012Validator(tool.input_schema, registry=Registry())
    defaults = {one.name: one.default for one in tool.arguments if one.default is not ABSENT}
    known = ", ".join(one.name for one in tool.arguments) or "none"

    def check(arguments: Mapping[str, Any]) -> dict[str, Any]:
        problems = [detail for error in validator.iter_errors(arguments) for detail in _details(error)]
        if problems:
            named = "; ".join(problem["message"] for problem in problems[:5])
            raise InvalidArguments(
                f"{tool.name} was not called: {named}",
                hint=f"Correct the arguments named in details and call again. {tool.name} takes: {known}.",
                details=problems,
            )
        return defaults | dict(arguments)

    return check


def _details(error: Any) -> Iterator[dict[str, Any]]:
    """One detail an argument, in words that name it; values are shown short, so that nothing large comes back."""
    where = ".".join(str(part) for part in error.absolute_path)
    prefix = f"{where}." if where else ""
    rule, given, allowed = error.validator, error.instance, error.validator_value
    if rule == "required":
        for name in allowed:
            if name not in given:
                yield _detail("MissingArgument", prefix + name, f"{prefix}{name} is missing")
        return
    if rule == "additionalProperties":
        for name in sorted(set(given) - set(error.schema.get("properties", {}))):
            yield _detail("UnknownArgument", prefix + _short(name), f"{prefix}{_short(name)} is not an argument")
        return
    if rule == "not" and isinstance(allowed, dict) and set(allowed) == {"required"}:
        together = " and ".join(allowed["required"])
        yield _detail("MutuallyExclusive", together, f"{together} cannot be given together")
        return
    if rule == "minProperties" and not where:
        yield _detail("MissingArgument", "", "nothing to change was given")
        return
    name = where or "the arguments"
    text = {
        "type": lambda: f"{name} must be {_types(allowed)}, not {_kind(given)}",
        "enum": lambda: f"{name} must be one of {', '.join(map(str, allowed))}",
        "pattern": lambda: f"{name} does not have the form {allowed}",
        "minLength": lambda: f"{name} must have at least {allowed} characters",
        "maxLength": lambda: f"{name} must have at most {allowed} characters, it has {len(given)}",
        "minimum": lambda: f"{name} must be at least {allowed}",
        "maximum": lambda: f"{name} must be at most {allowed}",
        "minItems": lambda: f"{name} must have at least {allowed} elements",
        "maxItems": lambda: f"{name} must have at most {allowed} elements",
        "uniqueItems": lambda: f"{name} must not repeat an element",
    }.get(rule, lambda: f"{name} does not fit the rule {rule}")()
    yield _detail("InvalidArgument", where, text)


def _detail(code: str, target: str, message: str) -> dict[str, Any]:
    return {"code": code, "target": target, "message": message}


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _types(allowed: str | list[str]) -> str:
    return allowed if isinstance(allowed, str) else " or ".join(allowed)


def _kind(value: Any) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
    return names.get(type(value), "null")
