"""Values in the platform's own spelling (`x-codes`): sums of bits, joined lists, JSON in Base64."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from itwin_mcp.capability.plans import Code
from itwin_mcp.errors import InvalidArguments
from itwin_mcp.executor.names import shown

_DEPTH = 2
"""How deep objects are read below each member of an answer: a thing, and an object in it."""


def encode_values(codes: Mapping[str, Code], values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the input values of an operation as the platform writes them."""
    coded = codes.keys() & values.keys()
    return {**values, **{name: _encode(name, codes[name], values[name]) for name in coded}} if coded else values


def decode_members(codes: Mapping[str, Code], body: Any) -> Any:
    """Replace, in place, what the platform wrote in an answer by what callers read, and return the answer.

    Read are the objects and lists of objects at its members. What cannot be decoded stays as it is.
    """
    if codes and isinstance(body, dict):
        for child in body.values():
            for element in child if isinstance(child, list) else (child,):
                _decode_object(codes, element, _DEPTH)
    return body


def _decode_object(codes: Mapping[str, Code], value: Any, depth: int) -> None:
    if not isinstance(value, dict) or not depth:
        return
    for child in value.values():
        if isinstance(child, dict):
            _decode_object(codes, child, depth - 1)
    for name in codes.keys() & value.keys():
        code, given = codes[name], value[name]
        value[name] = decoded = _decode(code, given)
        if code.kind == "json":
            is_object = isinstance(decoded, dict)
            value |= {name: decoded if is_object else None, code.detail: None if is_object else given}


def _encode(name: str, code: Code, value: Any) -> Any:
    if code.kind == "bits" and isinstance(value, list):
        unknown = [word for word in value if word not in code.table]
        if unknown:  # only where a file's schema allows what its code lacks
            raise InvalidArguments(
                f"{name} has no word {shown(str(unknown[0]))!r}; nothing was sent.",
                hint=f"Use only {', '.join(code.table)}.",
                details=[{"code": "InvalidArgument", "target": name, "message": f"{name} has an unknown word"}],
            )
        return sum(int(code.table[word]) for word in dict.fromkeys(value))
    if code.kind == "words":
        return code.table.get(value, value) if isinstance(value, str) else value
    if code.kind == "joined" and isinstance(value, list):
        return code.detail.join(map(str, value))
    if code.kind == "json" and isinstance(value, dict):
        return base64.b64encode(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()).decode("ascii")
    return value


def _decode(code: Code, value: Any) -> Any:
    if code.kind == "bits" and isinstance(value, int) and not isinstance(value, bool) and value >= 0:
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
