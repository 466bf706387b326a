"""The stage `convert and validate`: converts arguments as models send them, and refuses those that do not fit."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count, islice
from typing import Any

from itwin_mcp.capability.catalog import Tool
from itwin_mcp.capability.expressions import ABSENT
from itwin_mcp.capability.json_schema import Kind, describe_pairs, get_type, list_types, make_example
from itwin_mcp.capability.parameters import CLEAR, build_enforced_schema, list_removable_arguments
from itwin_mcp.errors import DetailCode, InvalidArguments
from itwin_mcp.executor.context import CallContext
from itwin_mcp.executor.files import LocalFiles
from itwin_mcp.text import find_similar, make_printable

MAX_VALUES = 10_000
"""Values in the arguments of one call, counting each member and element. No tool needs nearly as many."""

_NUMBER = re.compile(r"(-?(?:0|[1-9][0-9]*))(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d)(:\d\d(?:\.\d+)?)?)?", re.ASCII)
"""A date, or a date and time without a zone."""
_NATIVE: Mapping[Kind, type | tuple[type, ...]] = {
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "array": list,
    "object": dict,
}
MAX_DEPTH = 64
MAX_DETAILS = 20
_MAX_PROBLEMS = 200
"""After so many problems the check stops."""
_SHOWN = 60
MAX_EXAMPLE = 200
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE)
"""RFC 3339, which JSON Schema's `date-time` means: a moment, with its zone."""

Check = Callable[[Mapping[str, Any]], dict[str, Any]]
"""Takes converted arguments; returns them with defaults, and null for what `clear` removes. Raises InvalidArguments."""


class ArgumentCheck:
    """Stage: converts the arguments of one tool to the types that it declares, and checks them; nothing is sent."""

    def __init__(self, tool: Tool, files: LocalFiles) -> None:
        self._tool = tool
        self._conversion = Conversion(tool)
        self._check: Check | None = None
        self._files = files
        # `save-list` reads its own path, once it knows in which format it writes.
        self._has_files = any(argument.local is not None for argument in tool.arguments) and not tool.is_built_in

    async def __call__(self, context: CallContext) -> CallContext:
        """Return the context with checked arguments. Raises InvalidArguments."""
        given = self._conversion.convert(context.given)
        if context.save is not None and "cursor" in given:
            raise InvalidArguments("save-list saves the whole list, without cursor.", hint="Leave cursor out.")
        return replace(context, given=given, arguments=self.check(given))

    def check(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return converted arguments with defaults, and local paths resolved. Raises InvalidArguments."""
        if self._check is None:
            self._check = compile_check(self._tool)
        checked = self._check(given)
        return self._files.read(self._tool, checked) if self._has_files else checked


def compile_check(tool: Tool) -> Check:
    """Compile the check of a tool's arguments. Schemas are never fetched from anywhere."""
    # Imported for the first call, not at start-up: it costs a tenth of a second.
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError
    from jsonschema.validators import extend
    from referencing import Registry

    def check_pattern(validator: Any, pattern: str, given: Any, _: Any) -> Iterator[ValidationError]:
        if validator.is_type(given, "string") and not re.search(translate_pattern(pattern), given):
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
    removable = list_removable_arguments(tool.arguments)
    clears = [one for one in tool.arguments if removable and one.name == CLEAR]
    fields = [one for one in tool.arguments if one not in clears]
    validator = checker(build_enforced_schema(fields, tool.rule), registry=Registry())
    # Apart from the fields, so that a rule that counts them does not count it.
    clear_validator = checker(build_enforced_schema(clears, {}), registry=Registry())
    defaults = {one.name: one.default for one in tool.arguments if one.default is not ABSENT}
    presets = [one.name for one in tool.arguments if one.preset is not None and one.yields]
    several = [one.name for one in tool.arguments if one.entity is not None and not one.is_one]
    known = ", ".join(one.name for one in tool.arguments) or "no arguments"

    def errors_of(arguments: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        cleared, values = _split(arguments, removable)
        for name in cleared:
            if name in values:
                yield _build_detail(DetailCode.MUTUALLY_EXCLUSIVE, name, f"{name} cannot be both set and cleared")
        errors = [validator.iter_errors({**values, **dict.fromkeys(cleared)})]
        if clears and CLEAR in arguments:
            errors.append(clear_validator.iter_errors({CLEAR: arguments[CLEAR]}))
        # jsonschema reports each missing argument on its own, with the same list of all that are required.
        yield from (detail for several in errors for error in several for detail in _describe_error(error))

    def check(arguments: Mapping[str, Any]) -> dict[str, Any]:
        problems = _take_first(_find_unusable_values(arguments, count())) or _take_first(errors_of(arguments))
        if problems:
            named = "; ".join(problem["message"] for problem in problems[:5])
            others = "many" if len(problems) == _MAX_PROBLEMS else len(problems) - 5
            more = f"; and {others} more" if len(problems) > 5 else ""
            raise InvalidArguments(
                f"{tool.name} was not called: {named}{more}.",
                hint=f"Correct the arguments named in details and call again. {tool.name} takes: {known}.",
                details=problems[:MAX_DETAILS],
            )
        cleared, _ = _split(arguments, removable)
        # Who names several iTwins or iModels does not mean the one that a setting presets.
        left_out = presets if any(name in arguments for name in several) else ()
        usual = {name: value for name, value in defaults.items() if name not in left_out}
        return {**usual, **arguments, **dict.fromkeys(cleared)}

    return check


def _split(arguments: Mapping[str, Any], removable: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Return the arguments whose values are removed, and the values of the others."""
    if not removable:
        return [], dict(arguments)
    cleared = arguments.get(CLEAR, [])
    names = [name for name in removable if name in cleared] if isinstance(cleared, list) else []
    return names, {name: value for name, value in arguments.items() if name != CLEAR}


def _take_first(problems: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the first problems, each once."""
    return list({tuple(problem.values()): problem for problem in islice(problems, _MAX_PROBLEMS)}.values())


def _is_moment(text: str) -> bool:
    try:
        return _DATE_TIME.fullmatch(text) is not None and datetime.fromisoformat(text.upper()) is not None
    except ValueError:
        return False


def _find_unusable_values(value: Any, seen: Iterator[int], where: str = "", depth: int = 0) -> Iterator[dict[str, Any]]:
    """Yield a problem for values that JSON cannot hold or that are too many or too deep; `seen` counts them."""
    if next(seen) >= MAX_VALUES:
        yield _build_detail(
            DetailCode.INVALID_ARGUMENT,
            where.partition(".")[0],
            f"{where.partition('.')[0] or 'the call'}: there are more than {MAX_VALUES} values in it",
        )
    elif depth > MAX_DEPTH:
        yield _build_detail(
            DetailCode.INVALID_ARGUMENT, where.partition(".")[0], f"it is nested deeper than {MAX_DEPTH} levels"
        )
    elif isinstance(value, float) and not math.isfinite(value):
        yield _build_detail(DetailCode.INVALID_ARGUMENT, where, f"{where} must be a number, not {value}")
    elif isinstance(value, dict | list):
        # Not one by one where there are too many: the first says so.
        few = islice(value.items() if isinstance(value, dict) else enumerate(value), MAX_VALUES)
        for key, child in few:
            name = str(key)
            if len(name) > 60 or not name.isprintable():
                name = make_printable(name)
            yield from _find_unusable_values(child, seen, f"{where}.{name}" if where else name, depth + 1)


def _describe_error(error: Any) -> Iterator[dict[str, Any]]:
    """Yield a detail for each argument, in words that name it; values are shortened."""
    where = ".".join(str(part) for part in error.absolute_path)
    prefix = f"{where}." if where else ""
    rule, given, allowed = error.validator, error.instance, error.validator_value
    if rule == "required":
        for name in allowed:
            if name not in given:
                schema = error.schema.get("properties", {}).get(name, {})
                shown = "" if get_type(schema) == "string" and "examples" not in schema else _give_example(schema)
                yield _build_detail(DetailCode.MISSING_ARGUMENT, prefix + name, f"{prefix}{name} is missing{shown}")
        return
    if rule == "additionalProperties":
        known = error.schema.get("properties", {})
        for name in sorted(set(given) - set(known)):
            shown = make_printable(name)
            close = find_similar(name, [other for other in known if other not in given]) or find_similar(name, known)
            meant = f" (did you mean {prefix}{close[0]}?)" if close else ""
            yield _build_detail(
                DetailCode.UNKNOWN_ARGUMENT, prefix + shown, f"{prefix}{shown} is not an argument{meant}"
            )
        return
    together = list(_find_exclusive(allowed, given, error.schema)) if rule == "not" and not where else []
    if together:
        for names, text in together:
            yield _build_detail(DetailCode.MUTUALLY_EXCLUSIVE, names, f"{text} cannot be given together")
        return
    if rule == "dependentRequired":
        for name, others in allowed.items():
            for other in others if name in given else ():
                if other not in given:
                    yield _build_detail(
                        DetailCode.MISSING_ARGUMENT,
                        prefix + other,
                        f"{prefix}{name} goes with {other}, which is missing",
                    )
        return
    if rule == "minProperties" and not where:
        yield _build_detail(DetailCode.MISSING_ARGUMENT, "", "nothing to change was given")
        return
    if rule in ("anyOf", "oneOf") and not where:
        choices = [" and ".join(choice.get("required", ())) for choice in allowed]
        few = "exactly one" if rule == "oneOf" else "at least one"
        yield _build_detail(
            DetailCode.MISSING_ARGUMENT, "", f"{few} of these must be given: {', '.join(filter(None, choices))}"
        )
        return
    name = where or "the arguments"
    text = {
        "type": lambda: f"{name} must be {_name_types(allowed, error.schema)}, not {_name_type(given)}",
        "enum": lambda: f"{name} must be one of {', '.join(map(_value, allowed))}",
        "const": lambda: f"{name} must be {_value(allowed)}",
        "pattern": lambda: f"{name} {_describe_pattern(allowed)}",
        "format": lambda: f"{name} must be a date and time with its zone, such as 2027-01-31T12:00:00Z",
        "minLength": lambda: f"{name} must have at least {_format_count(allowed, 'character')}",
        "maxLength": lambda: f"{name} must have at most {_format_count(allowed, 'character')}, it has {len(given)}",
        "minimum": lambda: f"{name} must be at least {allowed}",
        "maximum": lambda: f"{name} must be at most {allowed}",
        "minItems": lambda: f"{name} must have at least {_format_count(allowed, 'element')}",
        "maxItems": lambda: f"{name} must have at most {_format_count(allowed, 'element')}, it has {len(given)}",
        "uniqueItems": lambda: f"{name} must not repeat an element",
    }.get(rule, lambda: f"{name} does not fit the rule {rule} of its schema")()
    shown = "" if rule in ("enum", "const", "format") else _give_example(error.schema)
    yield _build_detail(DetailCode.INVALID_ARGUMENT, where, f"{text}{shown}")


def _give_example(schema: Mapping[str, Any]) -> str:
    """Return an example of a valid value for the end of a message; ids are never invented."""
    example = make_example(schema)
    text = json.dumps(example, ensure_ascii=False) if example is not ABSENT else ""
    return f" (for example {text})" if 0 < len(text) <= MAX_EXAMPLE else ""


def _find_exclusive(rule: Any, given: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the arguments that exclude each other: their names, and the same with values if the rule is about those.

    A missing argument counts with its default.
    """
    declared = schema.get("properties", {}).items()
    whole = {name: one["default"] for name, one in declared if "default" in one} | dict(given)
    for one in rule.get("anyOf", [rule]):
        values = one.get("properties", {})
        names = list(dict.fromkeys((*values, *one.get("required", ()))))
        if names and all(name in whole and _matches(values.get(name, {}), whole[name]) for name in names):
            words = (f"{name} {_value(whole[name])}" if name in values else name for name in names)
            parts = (
                text if name in given else f"{text} (its default)" for name, text in zip(names, words, strict=True)
            )
            yield " and ".join(names), " and ".join(parts)


def _matches(part: Mapping[str, Any], value: Any) -> bool:
    """Return whether a part of a rule is about this value."""
    if "not" in part:
        return not _matches(part["not"], value)
    return value in part.get("enum", [part["const"]] if "const" in part else [value])


def _build_detail(code: str, target: str, message: str) -> dict[str, Any]:
    return {"code": code, "target": target, "message": message}


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _format_count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _describe_pattern(pattern: str) -> str:
    return "must not be blank" if pattern == r"\S" else f"does not have the form {pattern}"


def _name_types(allowed: str | list[str], schema: Mapping[str, Any]) -> str:
    if describe_pairs(schema) is not None:
        return "a list of objects with name and value, each name once"
    return allowed if isinstance(allowed, str) else " or ".join(kind for kind in allowed if kind != "null")


def _name_type(value: Any) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
    return names.get(type(value), "null")


# --- conversion ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Form:
    """What a schema says of the form of a value, read once per tool."""

    kinds: tuple[Kind, ...]
    is_map: bool
    items: _Form | None
    members: Mapping[str, _Form]
    others: _Form | None
    """The form of members that are not named."""
    choices: tuple[str, ...]
    pattern: re.Pattern[str] | None
    is_moment: bool

    @property
    def is_free(self) -> bool:
        """Whether the schema says nothing."""
        return self == _FREE


_FREE = _Form((), False, None, {}, None, (), None, False)


def _form_of(schema: Any) -> _Form:
    if not isinstance(schema, dict):
        return _FREE
    items, others, pattern = schema.get("items"), schema.get("additionalProperties"), schema.get("pattern")
    return _Form(
        list_types(schema),
        describe_pairs(schema) is not None,
        _form_of(items) if isinstance(items, dict) else None,
        {name: _form_of(child) for name, child in schema.get("properties", {}).items()},
        _form_of(others) if isinstance(others, dict) else None,
        tuple(choice for choice in schema.get("enum", ()) if isinstance(choice, str)),
        re.compile(translate_pattern(pattern)) if isinstance(pattern, str) else None,
        schema.get("format") == "date-time",
    )


class Conversion:
    """Converts the arguments of one tool, as models send them, to the types that it declares. Nothing is refused here.

    Models send numbers, booleans, lists and objects as text, numbers where a text is meant, and null or an empty text
    for what they leave out. What cannot be converted without loss stays as it is, for the check to refuse.
    """

    def __init__(self, tool: Tool) -> None:
        self._forms = {argument.name: (_form_of(argument.schema), argument.required) for argument in tool.arguments}
        self._clears = bool(list_removable_arguments(tool.arguments))

    def convert(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments in the declared types, at every depth.

        An argument that is null, also as JSON text (`"null"`), is left out, and so is an optional one that is an empty
        text: neither was given. Unknown arguments stay, to be refused.
        """
        converted: dict[str, Any] = {}
        for name, value in given.items():
            if name not in self._forms:
                converted[name] = value
                continue
            form, required = self._forms[name]
            if not _is_null(value, form) and (required or value != ""):
                converted[name] = _convert(value, form)
        if self._clears and converted.get(CLEAR) == []:
            del converted[CLEAR]
        return converted


def convert_arguments(tool: Tool, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of one call, converted; see `Conversion`."""
    return Conversion(tool).convert(given)


def _convert(value: Any, form: _Form) -> Any:
    if isinstance(value, str) and form.kinds == ("array",):
        value = _split_choices(value, form.items or _FREE)
    if not any(_is(value, kind) for kind in form.kinds):
        candidates = (_FROM[kind](value) for kind in form.kinds)
        value = next((candidate for candidate in candidates if candidate is not value), value)
    if isinstance(value, str) and form.is_map:
        value = _parse(value, list)
    if isinstance(value, str):
        value = _respell(value, form)
    if isinstance(value, list):
        if len(value) > MAX_VALUES:  # refused as it is: not worth the look at each
            return value
        if form.is_map:
            value = _from_pairs(value)
        elif form.items is not None:
            return [_convert(element, form.items) for element in value]
    if isinstance(value, dict) and len(value) <= MAX_VALUES and (form.members or form.is_map):
        forms = {name: form.members.get(name, form.others or _FREE) for name in value}
        return {
            name: child if forms[name].is_free else _convert(child, forms[name])
            for name, child in value.items()
            if not _is_null(child, forms[name])
        }
    return value


def _is_null(value: Any, form: _Form) -> bool:
    """Return whether a value is null, or the JSON text of null where neither a text nor a list of texts is meant."""
    if isinstance(value, str) and value.strip() == "null":
        return not {"string", "array"}.intersection(form.kinds or ("string",))
    return value is None


def _split_choices(text: str, items: _Form) -> Any:
    """Return the list of choices that a text joins by commas; any other text stays, because it may have commas."""
    parts = [part.strip() for part in text.split(",")]
    folded = {choice.casefold() for choice in items.choices}
    return parts if len(parts) > 1 and {part.casefold() for part in parts} <= folded else text


def _respell(text: str, form: _Form) -> str:
    """Return a text in the spelling that its schema wants: the case of a choice or of an id, or a whole moment.

    A text that is not such a spelling stays as it is. Ascending order is what a choice such as `name` means, next to
    `name desc`.
    """
    if form.choices and text not in form.choices:
        folded = " ".join(text.split()).casefold()
        spellings = {choice.casefold(): choice for choice in form.choices}
        ascending = {f"{key} asc": choice for key, choice in spellings.items() if f"{key} desc" in spellings}
        return (ascending | spellings).get(folded, text)
    if form.pattern is not None and not form.pattern.search(text):
        lowered = text.lower()
        return lowered if form.pattern.search(lowered) else text
    return _to_moment(text) if form.is_moment else text


def _to_moment(text: str) -> str:
    """Return a date as its beginning, and a moment without a zone as one in UTC."""
    found = _MOMENT.fullmatch(text.strip())
    if found is None:
        return text
    date, clock, seconds = found.groups()
    return f"{date}T{clock or '00:00'}{seconds or ':00'}Z"


def translate_pattern(pattern: str) -> str:
    """Return a pattern of JSON Schema for Python, where `$` also matches before a final line feed."""
    translated, in_class, escaped = [], False, False
    for character in pattern:
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif in_class:
            in_class = character != "]"
        elif character == "[":
            in_class = True
        elif character == "$":
            character = r"\Z"
        translated.append(character)
    return "".join(translated)


def _is(value: Any, kind: Kind) -> bool:
    return isinstance(value, _NATIVE[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _to_string(value: Any) -> Any:
    is_scalar = isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))
    try:
        return json.dumps(value) if is_scalar else value
    except ValueError:  # more digits than Python writes
        return value


def _to_number(value: Any) -> Any:
    found = _NUMBER.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        return value
    try:
        number = json.loads(found[0])
    except ValueError:  # more digits than Python reads
        return value
    return value if number in (math.inf, -math.inf) else number


def _to_integer(value: Any) -> Any:
    found = _NUMBER.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is not None and found[3] is None and not (found[2] or "").strip(".0"):
        return _to_number(found[1])  # exactly, however many digits
    number = _to_number(value)
    return int(number) if isinstance(number, float) and number.is_integer() else value


def _to_boolean(value: Any) -> Any:
    return {"true": True, "false": False}.get(value.strip().lower(), value) if isinstance(value, str) else value


def _to_array(value: Any) -> Any:
    """Return the list that JSON text says; any other text or scalar becomes a list of one."""
    parsed = _parse(value, list)
    return [parsed] if isinstance(parsed, str | bool | int | float) else parsed


def _to_object(value: Any) -> Any:
    return _parse(value, dict)


_FROM: Mapping[Kind, Callable[[Any], Any]] = {
    "string": _to_string,
    "boolean": _to_boolean,
    "integer": _to_integer,
    "number": _to_number,
    "array": _to_array,
    "object": _to_object,
}


def _parse(text: Any, kind: type) -> Any:
    """Return the value of JSON text if it is of this kind, else the text."""
    opening = "[" if kind is list else "{"
    if not isinstance(text, str) or not text.lstrip().startswith(opening):
        return text
    try:
        parsed = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return text
    return parsed if isinstance(parsed, kind) else text


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _from_pairs(pairs: list[Any]) -> Any:
    """Return the map that a list of `{name, value}` means; the list itself if it is not one or repeats a name."""
    found: dict[str, Any] = {}
    for pair in pairs:
        if not isinstance(pair, dict) or set(pair) != {"name", "value"}:
            return pairs
        name = _to_string(pair["name"])
        if not isinstance(name, str) or name in found:
            return pairs
        found[name] = pair["value"]
    return found
