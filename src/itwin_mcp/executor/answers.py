"""Turns the platform's answers into those of a tool, read as leniently as possible; and the stage `shape`."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from itwin_mcp.capability.expressions import ABSENT, Every, JsonPath, PathPart
from itwin_mcp.capability.operations import Code, Operation
from itwin_mcp.capability.tool_actions import BuiltIn, Output
from itwin_mcp.errors import UnexpectedAnswer
from itwin_mcp.executor.limits import measure
from itwin_mcp.executor.outcome import Blob, JobPending, Result
from itwin_mcp.executor.policy.rules import FENCED
from itwin_mcp.text import clean
from itwin_mcp.upstream.redaction import redact, remove_secrets

if TYPE_CHECKING:
    from itwin_mcp.executor.context import CallContext
    from itwin_mcp.executor.sending import Run

LEFT_OUT = "Some names are left out, because the answer has as many bytes as it may have."
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")
_KINDS = {str: "string", int: "number", bool: "boolean"}
"""The kinds of values that are passed on as they are; not of a float, which may be infinite."""
_BOOLEANS = {"true": True, "false": False}
_MAX_DIGITS = 40
"""Characters of a text that may be read as a number."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A decoded answer: JSON (None if it is empty), or the bytes of a binary operation."""

    body: Any
    headers: Mapping[str, str]


@dataclass(slots=True)
class Warnings:
    """Values in the answers of one call that the capability file does not expect; one entry for each path."""

    MAX_ENTRIES: ClassVar[int] = 20
    MAX_GOT: ClassVar[int] = 100

    entries: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, path: str, expected: str, got: Any) -> None:
        """Count a value of another kind; the first one at each path is shown, without secrets."""
        entry = self.entries.get(path)
        if entry is not None:
            entry["count"] += 1
        elif len(self.entries) < self.MAX_ENTRIES:
            text = got if isinstance(got, str) else json.dumps(got, ensure_ascii=False, separators=(",", ":"))
            shown = redact(text, self.MAX_GOT)
            self.entries[path] = {"path": path, "expected": expected, "got": shown, "count": 1}

    def to_json(self) -> list[dict[str, Any]]:
        """The answer's member `warnings`."""
        return list(self.entries.values())


def shape(
    output: Output, body: Any, headers: Mapping[str, str], warnings: Warnings, *, written: bool = False
) -> dict[str, Any]:
    """Return the answer that the output parameters describe.

    A missing value is null. A value of another kind is converted if nothing is lost, else it is null with a warning.

    Raises: UnexpectedAnswer if the member that is the answer's subject is missing, because nothing can be returned. The
    answer to a change that was made (`written`) never raises.
    """
    if output.path is not None and (output.path.parts or output.path.query is not None):
        found = output.path.find(body)
        if found is ABSENT and not written:
            raise _unexpected(output.path.text, _MISSING)
        body = None if found is ABSENT else found
    # Everything is read leniently but this: an answer in another wrapper would become an answer full of nulls.
    problem = _find_problem(output, body)
    if problem is not None:
        where, why = problem
        if not written:
            raise _unexpected(where, why)
        if not isinstance(body, dict) or why == _MISSING:
            warnings.add(where, "object", body)
    known = body if isinstance(body, dict) or (problem is None and body is not None) else {}
    if not output.properties:
        declared: dict[str, Any] = clean(known)  # the file declares no fields, as where the platform documents none
        return declared
    return _shape_members(output, known, headers, "$", warnings)


def shape_answer(run: Run, operation: Operation, output: Output, answer: Answer) -> dict[str, Any]:
    """Return the answer of one operation in the shape of its tool.

    Raises: UnexpectedAnswer for a read without anything to return. A change that was made is never reported as failed.
    """
    return shape(output, answer.body, answer.headers, run.warnings, written=operation.method != "GET")


def shape_part(output: Output, body: Any, headers: Mapping[str, str], where: str, warnings: Warnings) -> Any:
    """Return one part of an answer, found from `body`, which is at the path `where`.

    Text is cleaned here, so that an answer is walked once.
    """
    value = _find_value(output, body, headers)
    if output.path is not None and (value is ABSENT or (output.members is None and output.path.many)):
        warn_about_path(output.path, body, where, warnings)
    if output.one_is_list and not isinstance(value, list):
        value = [] if value is ABSENT or value is None or value == "" else [value]
    if value is ABSENT or value is None:
        return None
    if output.kind == "any":
        return _clean_value(value)
    if output.kind == "object" and isinstance(value, dict):
        if not output.properties:
            return _clean_value(value)
        return _shape_members(output, value, headers, _extend_path(where, output), warnings)
    if output.kind == "array" and isinstance(value, list):
        if output.items is None:
            return _clean_value(value)
        return shape_items(output.items, value, headers, _extend_path(where, output), warnings)
    shaped = convert(output.kind, value)
    if shaped is None:
        warnings.add(_extend_path(where, output), output.kind, value)
        return None
    return _clean_value(shaped)


def _shape_members(
    output: Output, body: Mapping[str, Any], headers: Mapping[str, str], where: str, warnings: Warnings
) -> dict[str, Any]:
    """Return the parts of an object, found from `body`, which is at the path `where`."""
    shaped = {}
    for name, part in output.properties:
        if part.member is not None:
            # Nearly every part is a member that has a value of the expected kind, or none.
            value = body.get(part.member)
            kind = _KINDS.get(type(value))
            if value is None or (kind == part.kind and (kind != "string" or (value.isascii() and value.isprintable()))):
                shaped[name] = value
                continue
        shaped[name] = shape_part(part, body, headers, where, warnings)
    return shaped


def _clean_value(value: Any) -> Any:
    """Return a value that is passed on, without invisible characters in its texts."""
    if isinstance(value, str):
        return value if value.isascii() and value.isprintable() else clean(value)
    if isinstance(value, dict):
        return {_clean_value(name): _clean_value(child) for name, child in value.items()}
    if isinstance(value, list):
        return [_clean_value(child) for child in value]
    return value


def _find_value(output: Output, body: Any, headers: Mapping[str, str]) -> Any:
    """Return the value of one part, as the platform gave it; ABSENT if there is none."""
    if output.literal is not None:
        return output.literal
    if output.name is not None:
        return None
    if output.header is not None:
        return _from_header(output, headers)
    if output.members is None:
        value = body if output.path is None else output.path.find(body)
    else:
        value = body
        for member in output.members:
            if not isinstance(value, dict) or member not in value:
                return ABSENT
            value = value[member]
    return find_last_segment(value) or None if output.last_segment and isinstance(value, str) else value


def warn_about_path(path: JsonPath, value: Any, where: str, warnings: Warnings) -> None:
    """Warn if a value on the path has the wrong type, so that the path matches nothing.

    Null values and missing members are not reported.
    """
    for index, part in enumerate(path.parts):
        if value is None:
            return
        if isinstance(part, str):
            if not isinstance(value, dict):
                warnings.add(where, "object", value)
                return
            value, where = value.get(part), f"{where}.{part}"
            continue
        if not isinstance(value, list):
            warnings.add(where, "array", value)
            return
        if isinstance(part, Every):
            rest = replace(path, parts=path.parts[index + 1 :])
            for one in value:
                warn_about_path(rest, one, f"{where}[*]", warnings)
            return
        value, where = value[part] if part < len(value) else None, f"{where}[{part}]"


def shape_items(
    item: Output, values: Sequence[Any], headers: Mapping[str, str], where: str, warnings: Warnings
) -> list[Any]:
    """Return the items of the list at the path `where`. If objects are expected, other items are left out."""
    where = f"{where}[*]"
    objects = item.kind == "object"
    shaped = []
    for value in values:
        one = shape_part(item, value, headers, where, warnings)
        if one is not None or not objects:
            shaped.append(one)
        elif value is None:
            warnings.add(where, item.kind, value)
    return shaped


def convert(kind: str, value: Any) -> str | int | float | bool | None:
    """Return a scalar as one of another kind if nothing is lost by it, else None."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if kind == "string" and isinstance(value, str | int | float):
        return value if isinstance(value, str) else json.dumps(value)
    if kind == "number":
        if isinstance(value, str):
            return _read_number(value)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None
    if kind == "boolean":
        return value if isinstance(value, bool) else _BOOLEANS.get(value.lower()) if isinstance(value, str) else None
    return None


def _read_number(text: str) -> int | float | None:
    """Return the number that a text spells as JSON does, unless it has more digits than a float holds."""
    found = _NUMBER.fullmatch(text) if len(text) <= _MAX_DIGITS else None
    if found is None:
        return None
    if found[1] is None and found[2] is None:
        return int(text)
    number = float(text)
    return number if math.isfinite(number) and Decimal(text) == Decimal(repr(number)) else None


def _extend_path(where: str, output: Output) -> str:
    """Return the path of a part."""
    if output.header is not None:
        return f"header {output.header}"
    return where + output.path.text.removeprefix("$") if output.path is not None else where


def add_other_fields(shaped: Any, body: Any) -> Any:
    """Return an item with all other fields of the platform's item, except secrets."""
    if not isinstance(shaped, dict) or not isinstance(body, dict):
        return shaped
    more = {name: clean(child) for name, child in remove_secrets(body).items() if name not in shaped}
    return {**shaped, **more}


def _from_header(output: Output, headers: Mapping[str, str]) -> Any:
    """Return a header's value, which is text."""
    text = headers.get(output.header or "")
    if text is None:
        return ABSENT
    return find_last_segment(text) or ABSENT if output.last_segment else text


def _find_problem(output: Output, body: Any) -> tuple[str, str] | None:
    """Return where and why an answer has nothing to return; None if it has something.

    An answer with an unexpected wrapper key is rejected instead of returned as nulls.
    """
    whole = output.properties[0][1] if output.wraps else None
    is_root = whole is not None and (whole.path is None or not (whole.path.parts or whole.path.query))
    if whole is not None and is_root and whole.kind != "object":
        fits = body is None or whole.kind != "array" or isinstance(body, list)
        return None if fits else ("$", "is not a list")
    if isinstance(body, list) and whole is not None and whole.path is not None:
        return None if whole.path.find(body) is not ABSENT else (whole.path.text, _MISSING)
    if not (body is None or isinstance(body, dict)):
        return "$", "is not an object"
    body = body or {}
    if whole is not None and whole.path is None:
        return _find_problem(whole, body)
    subjects = [
        (child, child.path.parts[0])
        for _, child in output.properties
        if child.path is not None and child.path.parts and child.kind in ("object", "array")
    ]
    lacking = [problem for child, name in subjects if (problem := _judge_subject(child, name, body)) is not None]
    if lacking and len(lacking) == len(subjects):
        # An object without a wrapper may lack its optional members, but not all of its fields.
        wrong = next((problem for problem in lacking if problem[1] != _MISSING), None)
        return None if wrong is None and _has_field(output, body) else wrong or lacking[0]
    if not subjects and any(child.path is not None for _, child in output.properties) and not _has_field(output, body):
        return "$", "has none of the fields that belong to it"
    return None


def _has_field(output: Output, body: Mapping[Any, Any]) -> bool:
    paths = [child.path for _, child in output.properties if child.path is not None]
    return any(path.find(body) is not ABSENT for path in paths)


def _judge_subject(child: Output, name: PathPart, body: Mapping[Any, Any]) -> tuple[str, str] | None:
    """Return why the member of a part of the answer cannot be used; null can be."""
    found = body.get(name, ABSENT)
    where = f"$.{name}"
    if child.one_is_list:
        return None
    if found is ABSENT:
        return where, _MISSING
    assert child.path is not None
    kind = child.kind if len(child.path.parts) == 1 else "object" if isinstance(child.path.parts[1], str) else "array"
    if found is not None and not isinstance(found, dict if kind == "object" else list):
        return where, f"is not {_ARTICLES[kind]}"
    return None


_MISSING = "is missing"
_ARTICLES = {"object": "an object", "array": "a list"}


def _unexpected(where: str, why: str) -> UnexpectedAnswer:
    return UnexpectedAnswer(
        f"The platform's answer is not what this operation gives: {where} {why}.",
        hint="The platform may have changed. If it stays so, report it to the makers of itwin-mcp with this message.",
    )


def find_last_segment(link: str) -> str:
    """Return the last segment of a link's path: the id in a `Location` header."""
    try:
        return urlsplit(link).path.rstrip("/").rpartition("/")[2]
    except ValueError:
        return ""


# --- values in the platform's own spelling (`x-codes`) ----------------------------------------------------------------

_DEPTH = 2
"""Levels of objects that are decoded below each member of an answer: a thing, and an object in it."""


def decode_members(codes: Mapping[str, Code], body: Any) -> Any:
    """Decode, in place, the values of an answer that the platform encodes, and return the answer.

    Objects and lists of objects in its members are decoded. A value that cannot be decoded stays as it is.
    """
    if codes and isinstance(body, dict | list):
        for child in body.values() if isinstance(body, dict) else (body,):
            for element in child if isinstance(child, list) else (child,):
                if isinstance(element, dict):
                    _decode_object(codes, element, _DEPTH)
    return body


def _decode_object(codes: Mapping[str, Code], value: dict[str, Any], depth: int) -> None:
    if depth > 1:
        for child in value.values():
            if isinstance(child, dict):
                _decode_object(codes, child, depth - 1)
    for name, code in codes.items():
        if name not in value:
            continue
        given = value[name]
        value[name] = decoded = _decode(code, given)
        if code.kind == "json":
            is_object = isinstance(decoded, dict)
            value |= {name: decoded if is_object else None, code.detail: None if is_object else given}


def _decode(code: Code, value: Any) -> Any:
    if code.kind == "bits" and isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        if not value:
            return []
        known = [word for word, bit in code.table.items() if value & int(bit)]
        unknown = value & ~sum(int(bit) for bit in code.table.values())
        return [*known, *([str(unknown)] if unknown else [])]
    if code.kind == "words":
        return next((word for word, spelled in code.table.items() if spelled == value), value)
    if code.kind == "joined" and isinstance(value, str):
        return value.split(code.detail) if value else []
    if code.kind == "json" and isinstance(value, str):
        try:
            return json.loads(base64.b64decode(value, validate=True))
        except (ValueError, RecursionError):  # neither Base64 nor UTF-8 nor JSON
            return None
    return value


# --- bytes --------------------------------------------------------------------------------------------------------

UNKNOWN = "application/octet-stream"
_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+")
_BEGINNINGS = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"))


def describe_blob(blob: Blob) -> dict[str, Any]:
    """Return the structured answer next to the bytes."""
    return {"content": {"mediaType": blob.media_type, "bytes": len(blob.content)}}


def read_blob(answer: Answer) -> Blob:
    """Return the bytes of an answer. The first bytes of a picture are a better sign of its type than the header."""
    content = bytes(answer.body)
    for beginning, media_type in _BEGINNINGS:
        if content.startswith(beginning):
            return Blob(media_type, content)
    said = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    return Blob(said if _MEDIA_TYPE.fullmatch(said) else UNKNOWN, content)


# --- the whole answer ---------------------------------------------------------------------------------------------

_OURS = frozenset({"page", "job", "warnings"})
"""Members of an answer that the engine writes, with texts of the platform."""


async def finish(context: CallContext) -> Result | JobPending:
    """Stage `shape`: complete the shaped answer with names next to ids, warnings, notes and resolved names."""
    tool, action = context.tool, context.tool.action
    answer = add_warnings(context.answer, context.run)
    for member in _OURS & answer.keys():  # the rest was cleaned when it was shaped
        answer[member] = clean(answer[member])
    notes: list[str] = []
    if context.save is None and not isinstance(action, BuiltIn):
        if action.output.asks_for_names and not await _name_things(context, action.output, answer):
            notes.append(LEFT_OUT)
        if tool.empty is not None and "cursor" not in context.arguments and tool.empty.is_meant_by(answer):
            notes.append(tool.empty.note)
            answer.setdefault("page", {"returned": 0, "complete": True})
    if context.gate.tally.filtered and isinstance(answer.get("page"), dict):
        notes.append(FENCED)
    if notes:
        answer["page"]["note"] = " ".join(notes)
    if context.resolved:
        answer["resolved"] = clean(list(context.resolved))
    return JobPending(answer) if "job" in answer else Result(answer, blobs=context.blobs)


async def _name_things(context: CallContext, output: Output, answer: dict[str, Any]) -> bool:
    """Fill in the names next to ids. Return False if some did not fit.

    A page with a cursor must keep all its items, so only names that fit are added. Other answers are shortened later.
    """
    room: int | None = None
    if "cursor" in (answer.get("page") or ()):
        others = measure(list(context.resolved)) + 2 * len(LEFT_OUT)
        room = context.run.max_bytes - measure(answer) - others
    return await context.run.thing_names.fill(context.run, output, answer, room=room)


def add_warnings(answer: Mapping[str, Any], run: Run) -> dict[str, Any]:
    """Return the answer with its warnings."""
    return {**answer, "warnings": run.warnings.to_json()} if run.warnings.entries else dict(answer)
