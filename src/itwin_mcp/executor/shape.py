"""A body and output parameters become the answer; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from itwin_mcp.capability.catalog import Output
from itwin_mcp.capability.expressions import ABSENT
from itwin_mcp.errors import UnexpectedAnswer

_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
}


def shape(output: Output, body: Any, headers: Mapping[str, str]) -> Any:
    """The answer that the output parameters mean.

    A declared field that is missing becomes null. Raises UnexpectedAnswer, with the path, for a field of another
    JSON type, an entity without its id, or an answer without the member that is its subject.
    """
    return _shape(output, body, headers, "$", root=True)


def _shape(output: Output, body: Any, headers: Mapping[str, str], where: str, *, root: bool = False) -> Any:
    if output.literal is not None:
        return output.literal
    if output.header is not None:
        value: Any = headers.get(output.header, ABSENT)
        if output.last_segment and value is not ABSENT:
            value = last_segment(value)
    else:
        value = output.path.find(body) if output.path is not None else body
    if output.path is not None:
        where += output.path.text.removeprefix("$")
    if value is ABSENT or value is None:
        if output.required:
            raise _unexpected(where, "is missing")
        if not root:
            return None
        value = {}
    if not isinstance(value, _TYPES[output.kind]) or (output.kind == "number" and isinstance(value, bool)):
        raise _unexpected(where, f"is not {output.kind}")
    if output.kind == "object":
        return _object(output, value, headers, where, root)
    if output.items is not None:
        return [_shape(output.items, item, headers, f"{where}[{i}]") for i, item in enumerate(value)]
    return value


def _object(output: Output, value: Any, headers: Mapping[str, str], where: str, root: bool) -> Any:
    if not output.properties:
        return value
    shaped = {name: _shape(child, value, headers, where) for name, child in output.properties}
    if root:
        for name, child in output.properties:
            if shaped[name] is None and child.kind in ("object", "array"):
                raise _unexpected(f"{where}{child.path.text.removeprefix('$') if child.path else ''}", "is missing")
    return shaped


def _unexpected(where: str, why: str) -> UnexpectedAnswer:
    return UnexpectedAnswer(
        f"The platform's answer is not what this operation gives: {where} {why}.",
        hint="The platform may have changed. If it stays so, report it to the makers of itwin-mcp with this message.",
    )


def last_segment(link: str) -> str:
    """The last segment of a link's path: the id of the thing that a `Location` header points to."""
    return urlsplit(link).path.rstrip("/").rpartition("/")[2]
