"""The stage `convert and validate`: converts arguments to their declared types, and rejects invalid ones."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain, count, islice
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
"""Maximum number of values in the arguments of one call, counting each member and element."""

_NUMBER = re.compile(r"(-?(?:0|[1-9][0-9]*))(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_ZONELESS = re.compile(r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d)(:\d\d(?:\.\d+)?)?)?", re.ASCII)
"""A date, or a date and time without a time zone."""
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
"""The check stops after this many problems."""
MAX_EXAMPLE = 200
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE)
"""A date and time with a zone, as RFC 3339 and so JSON Schema's `date-time` define it."""

_ESCAPE_CLASS_OR_END = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]?|\$", re.DOTALL)
"""The tokens of a pattern that may have a `$`: an escaped character, a character class, or the end of the text."""

Check = Callable[[Mapping[str, Any]], dict[str, Any]]
"""Takes converted arguments; returns them with defaults, and with null for each that `clear` names.

Raises InvalidArguments.
"""


class ArgumentCheck:
    """Stage: converts the arguments of one tool to their declared types, and checks them."""

    def __init__(self, tool: Tool, files: LocalFiles) -> None:
        self._tool = tool
        self._conversion = Conversion(tool)
        self._check: Check | None = None
        self._files = files
        # `save-list` resolves its own path, after it has chosen the file extension.
        self._has_files = any(argument.local is not None for argument in tool.arguments) and not tool.is_built_in

    async def __call__(self, context: CallContext) -> CallContext:
        """Return the context with checked arguments. Raises InvalidArguments."""
        converted = self._conversion.convert(context.given)
        if context.save is not None and "cursor" in converted:
            raise InvalidArguments("save-list saves the whole list, without cursor.", hint="Leave cursor out.")
        return replace(context, given=converted, arguments=self.check(converted))

    def check(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return converted arguments with defaults, and local paths resolved. Raises InvalidArguments."""
        if self._check is None:
            self._check = compile_check(self._tool)
        checked = self._check(arguments)
        return self._files.read(self._tool, checked) if self._has_files else checked


def compile_check(tool: Tool) -> Check:
    """Compile the check of a tool's arguments. References in schemas are not fetched."""
    # jsonschema takes a tenth of a second to import, so it is imported for the first call and not at start-up.
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError
    from jsonschema.validators import extend
    from referencing import Registry

    def check_pattern(validator: Any, pattern: str, value: Any, _: Any) -> Iterator[ValidationError]:
        if validator.is_type(value, "string") and not re.search(translate_pattern(pattern), value):
            yield ValidationError(f"{value!r} does not match {pattern!r}")

    def check_format(validator: Any, form: str, value: Any, _: Any) -> Iterator[ValidationError]:
        if form == "date-time" and validator.is_type(value, "string") and not _is_date_time(value):
            yield ValidationError(f"{value!r} is not a {form}")

    def check_unique(validator: Any, unique: bool, value: Any, _: Any) -> Iterator[ValidationError]:
        # jsonschema would compare every pair of elements, which is too slow for long lists.
        is_list = unique and validator.is_type(value, "array")
        if is_list and len({json.dumps(element, sort_keys=True) for element in value}) < len(value):
            yield ValidationError("an element is repeated")

    own = {"pattern": check_pattern, "format": check_format, "uniqueItems": check_unique}
    checker = extend(Draft202012Validator, own)  # type: ignore[no-untyped-call]
    removable = list_removable_arguments(tool.arguments)
    clears = [argument for argument in tool.arguments if removable and argument.name == CLEAR]
    fields = [argument for argument in tool.arguments if argument not in clears]
    validator = checker(build_enforced_schema(fields, tool.rule), registry=Registry())
    # `clear` is checked apart from the fields, so that a rule about the number of fields does not count it.
    clear_validator = checker(build_enforced_schema(clears, {}), registry=Registry())
    defaults = {argument.name: argument.default for argument in tool.arguments if argument.default is not ABSENT}
    presets = [argument.name for argument in tool.arguments if argument.preset is not None and argument.yields]
    entity_lists = [argument.name for argument in tool.arguments if argument.entity is not None and not argument.is_one]
    names = ", ".join(argument.name for argument in tool.arguments) or "no arguments"

    def find_problems(arguments: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        cleared, values = _split(arguments, removable)
        for name in cleared:
            if name in values:
                yield _build_detail(DetailCode.MUTUALLY_EXCLUSIVE, name, f"{name} cannot be both set and cleared")
        errors = [validator.iter_errors({**values, **dict.fromkeys(cleared)})]
        if clears and CLEAR in arguments:
            errors.append(clear_validator.iter_errors({CLEAR: arguments[CLEAR]}))
        yield from (detail for error in chain.from_iterable(errors) for detail in _describe_error(error))

    def check(arguments: Mapping[str, Any]) -> dict[str, Any]:
        problems = _take_first(_find_unusable_values(arguments, count())) or _take_first(find_problems(arguments))
        if problems:
            messages = "; ".join(problem["message"] for problem in problems[:5])
            others = "many" if len(problems) == _MAX_PROBLEMS else len(problems) - 5
            more = f"; and {others} more" if len(problems) > 5 else ""
            raise InvalidArguments(
                f"{tool.name} was not called: {messages}{more}.",
                hint=f"Correct the arguments named in details and call again. {tool.name} takes: {names}.",
                details=problems[:MAX_DETAILS],
            )
        cleared, _ = _split(arguments, removable)
        # A call that lists several iTwins or iModels does not mean the one in the settings.
        unused = presets if any(name in arguments for name in entity_lists) else ()
        used_defaults = {name: value for name, value in defaults.items() if name not in unused}
        return {**used_defaults, **arguments, **dict.fromkeys(cleared)}

    return check


def _split(arguments: Mapping[str, Any], removable: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Return the names of the arguments that `clear` removes, and the other arguments."""
    if not removable:
        return [], dict(arguments)
    cleared = arguments.get(CLEAR, [])
    names = [name for name in removable if name in cleared] if isinstance(cleared, list) else []
    return names, {name: value for name, value in arguments.items() if name != CLEAR}


def _take_first(problems: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the first `_MAX_PROBLEMS` problems without duplicates.

    jsonschema reports all required arguments again for each missing one.
    """
    return list({tuple(problem.values()): problem for problem in islice(problems, _MAX_PROBLEMS)}.values())


def _is_date_time(text: str) -> bool:
    try:
        return _DATE_TIME.fullmatch(text) is not None and datetime.fromisoformat(text.upper()) is not None
    except ValueError:
        return False


def _find_unusable_values(value: Any, seen: Iterator[int], where: str = "", depth: int = 0) -> Iterator[dict[str, Any]]:
    """Yield a problem for a number that JSON cannot represent, for too many values, and for too deep nesting.

    `seen` counts the values.
    """
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
        # The first value beyond the maximum reports the problem; the others would only repeat it.
        children = islice(value.items() if isinstance(value, dict) else enumerate(value), MAX_VALUES)
        for key, child in children:
            name = str(key)
            if len(name) > 60 or not name.isprintable():
                name = make_printable(name)
            yield from _find_unusable_values(child, seen, f"{where}.{name}" if where else name, depth + 1)


def _describe_error(error: Any) -> Iterable[dict[str, Any]]:
    """Return a detail for each argument that a validation error of jsonschema is about.

    Details of many arguments are generated one by one, because the caller stops at `_MAX_PROBLEMS`.
    """
    where = ".".join(str(part) for part in error.absolute_path)
    prefix = f"{where}." if where else ""
    rule, value, allowed = error.validator, error.instance, error.validator_value
    declared = error.schema.get("properties", {})
    if rule == "required":
        missing = [name for name in allowed if name not in value]
        return (_describe_missing(prefix + name, declared.get(name, {})) for name in missing)
    if rule == "additionalProperties":
        return (_describe_unknown(prefix, name, declared, value) for name in sorted(set(value) - set(declared)))
    if rule == "dependentRequired":
        pairs = [(name, other) for name, others in allowed.items() if name in value for other in others]
        return [
            _build_detail(
                DetailCode.MISSING_ARGUMENT, prefix + other, f"{prefix}{name} goes with {other}, which is missing"
            )
            for name, other in pairs
            if other not in value
        ]
    exclusive = list(_find_exclusive(allowed, value, error.schema)) if rule == "not" and not where else []
    if exclusive:
        return [
            _build_detail(DetailCode.MUTUALLY_EXCLUSIVE, names, f"{text} cannot be given together")
            for names, text in exclusive
        ]
    if not where and rule == "minProperties":
        return [_build_detail(DetailCode.MISSING_ARGUMENT, "", "nothing to change was given")]
    if not where and rule in ("anyOf", "oneOf"):
        choices = [" and ".join(choice.get("required", ())) for choice in allowed]
        number = "exactly one" if rule == "oneOf" else "at least one"
        text = f"{number} of these must be given: {', '.join(filter(None, choices))}"
        return [_build_detail(DetailCode.MISSING_ARGUMENT, "", text)]
    example = "" if rule in ("enum", "const", "format") else _give_example(error.schema)
    text = f"{where or 'the arguments'} {_describe_violation(rule, value, allowed, error.schema)}{example}"
    return [_build_detail(DetailCode.INVALID_ARGUMENT, where, text)]


def _describe_missing(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    # An example of a free text would be an invented one.
    example = "" if get_type(schema) == "string" and "examples" not in schema else _give_example(schema)
    return _build_detail(DetailCode.MISSING_ARGUMENT, name, f"{name} is missing{example}")


def _describe_unknown(
    prefix: str, name: str, declared: Mapping[str, Any], arguments: Mapping[str, Any]
) -> dict[str, Any]:
    target = prefix + make_printable(name)
    unused = [other for other in declared if other not in arguments]
    similar = find_similar(name, unused) or find_similar(name, declared)
    suggestion = f" (did you mean {prefix}{similar[0]}?)" if similar else ""
    return _build_detail(DetailCode.UNKNOWN_ARGUMENT, target, f"{target} is not an argument{suggestion}")


def _describe_violation(rule: str, value: Any, allowed: Any, schema: Mapping[str, Any]) -> str:
    """Return the end of a sentence that begins with the argument's name."""
    texts: dict[str, Callable[[], str]] = {
        "type": lambda: f"must be {_name_types(allowed, schema)}, not {_name_type(value)}",
        "enum": lambda: f"must be one of {', '.join(map(_format_value, allowed))}",
        "const": lambda: f"must be {_format_value(allowed)}",
        "pattern": lambda: "must not be blank" if allowed == r"\S" else f"does not have the form {allowed}",
        "format": lambda: "must be a date and time with its zone, such as 2027-01-31T12:00:00Z",
        "minLength": lambda: f"must have at least {_format_count(allowed, 'character')}",
        "maxLength": lambda: f"must have at most {_format_count(allowed, 'character')}, it has {len(value)}",
        "minimum": lambda: f"must be at least {allowed}",
        "maximum": lambda: f"must be at most {allowed}",
        "minItems": lambda: f"must have at least {_format_count(allowed, 'element')}",
        "maxItems": lambda: f"must have at most {_format_count(allowed, 'element')}, it has {len(value)}",
        "uniqueItems": lambda: "must not repeat an element",
    }
    return texts[rule]() if rule in texts else f"does not fit the rule {rule} of its schema"


def _give_example(schema: Mapping[str, Any]) -> str:
    """Return an example of a valid value for the end of a message, or an empty text; ids are never invented."""
    example = make_example(schema)
    text = json.dumps(example, ensure_ascii=False) if example is not ABSENT else ""
    return f" (for example {text})" if 0 < len(text) <= MAX_EXAMPLE else ""


def _find_exclusive(rule: Any, arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the arguments that exclude each other: their names, and the names with the values that the rule is about.

    Missing arguments count with their defaults.
    """
    declared = schema.get("properties", {}).items()
    values = {name: property_["default"] for name, property_ in declared if "default" in property_} | dict(arguments)
    for combination in rule.get("anyOf", [rule]):
        conditions = combination.get("properties", {})
        names = list(dict.fromkeys((*conditions, *combination.get("required", ()))))
        if names and all(name in values and _matches(conditions.get(name, {}), values[name]) for name in names):
            texts = [f"{name} {_format_value(values[name])}" if name in conditions else name for name in names]
            parts = [
                text if name in arguments else f"{text} (its default)" for name, text in zip(names, texts, strict=True)
            ]
            yield " and ".join(names), " and ".join(parts)


def _matches(part: Mapping[str, Any], value: Any) -> bool:
    """Return whether a value fulfils one condition (`const`, `enum`, `not`) of a rule about several arguments."""
    if "not" in part:
        return not _matches(part["not"], value)
    return value in part.get("enum", [part["const"]] if "const" in part else [value])


def _build_detail(code: str, target: str, message: str) -> dict[str, Any]:
    return {"code": code, "target": target, "message": message}


def _format_value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _format_count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


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
    """The parts of a schema that conversion needs, read once per tool."""

    kinds: tuple[Kind, ...]
    is_map: bool
    items: _Form | None
    members: Mapping[str, _Form]
    others: _Form | None
    """The form of members that `members` does not name."""
    choices: tuple[str, ...]
    pattern: re.Pattern[str] | None
    is_date_time: bool


_FREE = _Form((), False, None, {}, None, (), None, False)


def _read_form(schema: Any) -> _Form:
    if not isinstance(schema, dict):
        return _FREE
    items, others, pattern = schema.get("items"), schema.get("additionalProperties"), schema.get("pattern")
    return _Form(
        list_types(schema),
        describe_pairs(schema) is not None,
        _read_form(items) if isinstance(items, dict) else None,
        {name: _read_form(child) for name, child in schema.get("properties", {}).items()},
        _read_form(others) if isinstance(others, dict) else None,
        tuple(choice for choice in schema.get("enum", ()) if isinstance(choice, str)),
        re.compile(translate_pattern(pattern)) if isinstance(pattern, str) else None,
        schema.get("format") == "date-time",
    )


class Conversion:
    """Converts the arguments of one tool to their declared types. It rejects nothing.

    Models send numbers, booleans, lists and objects as text, numbers instead of text, and null or an empty text for
    arguments that they leave out. A value that cannot be converted without loss stays unchanged, and the check
    rejects it.
    """

    def __init__(self, tool: Tool) -> None:
        self._forms = {argument.name: (_read_form(argument.schema), argument.required) for argument in tool.arguments}
        self._clears = bool(list_removable_arguments(tool.arguments))

    def convert(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments in their declared types, at every depth.

        Leaves out arguments that are null, also as JSON text (`"null"`), and optional ones that are an empty text.
        Unknown arguments stay, so that the check rejects them.
        """
        converted: dict[str, Any] = {}
        for name, value in arguments.items():
            if name not in self._forms:
                converted[name] = value
                continue
            form, required = self._forms[name]
            if not _is_null(value, form) and (required or value != ""):
                converted[name] = _convert(value, form)
        if self._clears and converted.get(CLEAR) == []:
            del converted[CLEAR]
        return converted


def convert_arguments(tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of one call, converted by `Conversion`."""
    return Conversion(tool).convert(arguments)


def _convert(value: Any, form: _Form) -> Any:
    if isinstance(value, str) and form.kinds == ("array",):
        value = _split_choices(value, form.items or _FREE)
    if not any(_has_type(value, kind) for kind in form.kinds):
        candidates = (_CONVERTERS[kind](value) for kind in form.kinds)
        value = next((candidate for candidate in candidates if candidate is not value), value)
    if isinstance(value, str) and form.is_map:
        value = _parse(value, list)
    if isinstance(value, str):
        value = _respell(value, form)
    if isinstance(value, list):
        if len(value) > MAX_VALUES:  # the check rejects it
            return value
        if form.is_map:
            value = _from_pairs(value)
        elif form.items is not None:
            return [_convert(element, form.items) for element in value]
    if isinstance(value, dict) and len(value) <= MAX_VALUES and (form.members or form.is_map):
        forms = {name: form.members.get(name, form.others or _FREE) for name in value}
        return {
            name: child if forms[name] == _FREE else _convert(child, forms[name])
            for name, child in value.items()
            if not _is_null(child, forms[name])
        }
    return value


def _is_null(value: Any, form: _Form) -> bool:
    """Return whether a value is null, or the text `null` where neither text nor a list is declared."""
    if isinstance(value, str) and value.strip() == "null":
        return not {"string", "array"}.intersection(form.kinds or ("string",))
    return value is None


def _split_choices(text: str, items: _Form) -> Any:
    """Split a text of choices joined by commas. Any other text is returned unchanged, because it may contain commas."""
    parts = [part.strip() for part in text.split(",")]
    folded = {choice.casefold() for choice in items.choices}
    return parts if len(parts) > 1 and {part.casefold() for part in parts} <= folded else text


def _respell(text: str, form: _Form) -> str:
    """Return a text in the spelling of its schema: the case of a choice or of an id, or a complete date and time.

    `name asc` becomes `name` if the choices are `name` and `name desc`. Any other text is returned unchanged.
    """
    if form.choices and text not in form.choices:
        folded = " ".join(text.split()).casefold()
        spellings = {choice.casefold(): choice for choice in form.choices}
        ascending = {f"{key} asc": choice for key, choice in spellings.items() if f"{key} desc" in spellings}
        return (ascending | spellings).get(folded, text)
    if form.pattern is not None and not form.pattern.search(text):
        lowered = text.lower()
        return lowered if form.pattern.search(lowered) else text
    return _complete_date_time(text) if form.is_date_time else text


def _complete_date_time(text: str) -> str:
    """Add midnight to a date, and UTC to a date and time without a zone."""
    match = _ZONELESS.fullmatch(text.strip())
    if match is None:
        return text
    date, clock, seconds = match.groups()
    return f"{date}T{clock or '00:00'}{seconds or ':00'}Z"


def translate_pattern(pattern: str) -> str:
    """Return a pattern of JSON Schema for Python, where `$` would also match before a final line feed."""
    return _ESCAPE_CLASS_OR_END.sub(lambda token: r"\Z" if token[0] == "$" else token[0], pattern)


def _has_type(value: Any, kind: Kind) -> bool:
    return isinstance(value, _NATIVE[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _to_string(value: Any) -> Any:
    is_scalar = isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))
    try:
        return json.dumps(value) if is_scalar else value
    except ValueError:  # more digits than Python writes
        return value


def _to_number(value: Any) -> Any:
    match = _NUMBER.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        return value
    try:
        number = json.loads(match[0])
    except ValueError:  # more digits than Python reads
        return value
    return value if number in (math.inf, -math.inf) else number


def _to_integer(value: Any) -> Any:
    match = _NUMBER.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is not None and match[3] is None and not (match[2] or "").strip(".0"):
        return _to_number(match[1])  # not through a float, which would lose digits
    number = _to_number(value)
    return int(number) if isinstance(number, float) and number.is_integer() else value


def _to_boolean(value: Any) -> Any:
    return {"true": True, "false": False}.get(value.strip().lower(), value) if isinstance(value, str) else value


def _to_array(value: Any) -> Any:
    """Parse a list from JSON text. Any other text or scalar becomes a list with one element."""
    parsed = _parse(value, list)
    return [parsed] if isinstance(parsed, str | bool | int | float) else parsed


_CONVERTERS: Mapping[Kind, Callable[[Any], Any]] = {
    "string": _to_string,
    "boolean": _to_boolean,
    "integer": _to_integer,
    "number": _to_number,
    "array": _to_array,
    "object": lambda value: _parse(value, dict),
}


def _parse(text: Any, kind: type) -> Any:
    """Parse JSON text. Return the text unchanged if its value is not of this kind."""
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
    """Convert a list of `{name, value}` to a map. Return any other list, or one that repeats a name, unchanged."""
    values: dict[str, Any] = {}
    for pair in pairs:
        if not isinstance(pair, dict) or set(pair) != {"name", "value"}:
            return pairs
        name = _to_string(pair["name"])
        if not isinstance(name, str) or name in values:
            return pairs
        values[name] = pair["value"]
    return values
