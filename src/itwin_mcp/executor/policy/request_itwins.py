"""Finds the iTwins and things that a built request names in its path, query and body; pure.

Only the request itself is read, never the arguments of the caller.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from itwin_mcp.capability.policy_paths import Kind, PolicyPaths
from itwin_mcp.upstream.messages import FileUpload, FormBody, JsonBody, Request

ITWIN = "itwin"
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Reach:
    """The iTwins and things that a request names, in lower case. They are not checked to be valid ids."""

    kind: Kind
    itwins: frozenset[str]
    things: frozenset[tuple[str, str]]
    """The kind and id of each thing whose iTwin must be read first, such as an iModel."""
    targets: tuple[tuple[str, str], ...]
    """The kind and valid id of everything that the request names, for the audit log."""
    readable: bool = True
    """Whether the body can be read. An unreadable body might name anything."""


def read_reach(paths: PolicyPaths, request: Request) -> Reach | None:
    """Return the reach of a request to the platform; None if the table of paths lacks the request."""
    match = paths.find_row(request.method, request.path)
    if match is None:
        return None
    row, segments = match
    in_path = [
        (slot.strip("{}"), text) for slot, text in zip(row.segments, segments, strict=True) if slot.startswith("{")
    ]
    named = [(kind, text) for kind, text in in_path if kind == ITWIN or kind in paths.locations]
    names = paths.names_below(segments[0])
    for name, value in request.query:
        kind = names.get(name.lower())
        if kind is not None:
            named += [(kind, part) for part in value.split(",")]
        elif row.kind == "lists":
            named += [(ITWIN, text) for text in _UUID.findall(value)]
    readable = request.body is None or isinstance(request.body, (JsonBody, FormBody, FileUpload))
    if isinstance(request.body, JsonBody):
        named += _find_in_body(request.body.value, names)
    elif isinstance(request.body, FormBody):
        named += _find_in_body(dict(request.body.fields), names)
    targets = [(kind, paths.read_id(kind, text)) for kind, text in (*in_path, *named)]
    return Reach(
        row.kind,
        frozenset(text.strip().lower() for kind, text in named if kind == ITWIN),
        frozenset((kind, text.strip().lower()) for kind, text in named if kind != ITWIN),
        tuple(dict.fromkeys((kind, identifier) for kind, identifier in targets if identifier is not None)),
        readable,
    )


def _find_in_body(value: Any, names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, child in value.items():
            kind = names.get(str(key).lower())
            if kind is not None and not isinstance(child, dict):
                texts = child if isinstance(child, list) else [child]
                yield from ((kind, str(text)) for text in texts if text is not None)
            else:
                yield from _find_in_body(child, names)
    elif isinstance(value, list):
        for child in value:
            yield from _find_in_body(child, names)
