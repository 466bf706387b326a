"""Shapes of JSON answers: every path with the types of its values, without the values."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

Shape = Mapping[str, frozenset[str]]

_OPAQUE = {"options", "properties", "queryParameters"}  # their keys are somebody's data
_FIELD = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]{0,60}")
_KINDS = (
    ("uuid", re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")),
    ("40 hex", re.compile(r"[0-9a-f]{40}")),
    ("url", re.compile(r"https?://\S+")),
)
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.(\d+))?(Z|[+-]\d\d:\d\d)?")


def shape_of(body: Any) -> Shape:
    """Each path, such as `iTwins[].number`, with its kinds; `absent` where some items of a list lack it."""
    found: dict[str, set[str]] = {}
    _collect(body, "", found)
    return {path: frozenset(kinds) for path, kinds in sorted(found.items())}


def differences(sandbox: Shape, platform: Shape) -> Iterator[tuple[str, str, str, str]]:
    """What, where, in the sandbox, on the platform; data that only one of them has is nobody's difference."""
    for path in sorted(sandbox.keys() | platform.keys()):
        ours, theirs = sandbox.get(path), platform.get(path)
        if ours is None or theirs is None:
            if _could_stand(path, sandbox if ours is None else platform):
                yield "field", path, _words(ours), _words(theirs)
        elif ours - {"null"} and theirs - {"null"} and ours - {"null"} != theirs - {"null"}:
            yield "type", path, _words(ours), _words(theirs)
        elif ours != theirs:
            yield "null", path, _words(ours), _words(theirs)


def _collect(value: Any, path: str, found: dict[str, set[str]]) -> None:
    kinds = found.setdefault(path or ".", set())
    if isinstance(value, dict):
        kinds.add("object")
        if path.rpartition(".")[2] in _OPAQUE:
            return
        for key, one in value.items():
            name = key if _FIELD.fullmatch(key) else "?"
            _collect(one, f"{path}.{name}".lstrip("."), found)
    elif isinstance(value, list):
        kinds.add("array")
        names = {key for one in value if isinstance(one, dict) for key in one}
        for one in value:
            _collect(one, f"{path}[]", found)
            for name in names - one.keys() if isinstance(one, dict) else ():
                found.setdefault(f"{path}[].{name if _FIELD.fullmatch(name) else '?'}", set()).add("absent")
    else:
        kinds.add(_kind(value))


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "integer" if isinstance(value, int) else "fraction"
    for name, pattern in _KINDS:
        if pattern.fullmatch(value):
            return name
    if moment := _MOMENT.fullmatch(value):
        return f"moment with {len(moment[1] or '')} digits and {moment[2] or 'no zone'}"
    return "text"


def _could_stand(path: str, shape: Shape) -> bool:
    """Whether there was an object in which the missing field would have stood."""
    parent = path.rpartition(".")[0] or "."
    return not path.endswith("[]") and "object" in shape.get(parent, ())


def _words(kinds: frozenset[str] | None) -> str:
    return "missing" if kinds is None else " or ".join(sorted(kinds))
