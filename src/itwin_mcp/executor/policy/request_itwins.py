"""What a built request is about: the iTwins and things that it names on the wire, wherever they stand; pure.

Only what is about to be sent is read, never what a caller said of it.
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
    """What a request is about. `itwins` and `things` are as they were written, in small letters: perhaps no ids."""

    kind: Kind
    itwins: frozenset[str]
    things: frozenset[tuple[str, str]]
    """The kind and id of each thing whose iTwin is to be read first, such as an iModel."""
    targets: tuple[tuple[str, str], ...]
    """The kind and id of everything that it names in its path, its iTwins and its things: ids, and no other text."""
    readable: bool = True
    """Whether its body can be read: one that cannot might name anything."""


def read_reach(paths: PolicyPaths, request: Request) -> Reach | None:
    """Return what a request to the platform is about; None for one that the table lacks."""
    found = paths.find_row(request.method, request.path)
    if found is None:
        return None
    row, segments = found
    in_path = [(own.strip("{}"), text) for own, text in zip(row.segments, segments, strict=True) if own.startswith("{")]
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
        named += _in_body(request.body.value, names)
    elif isinstance(request.body, FormBody):
        named += _in_body(dict(request.body.fields), names)
    targets = [(kind, paths.read_id(kind, text)) for kind, text in (*in_path, *named)]
    return Reach(
        row.kind,
        frozenset(text.strip().lower() for kind, text in named if kind == ITWIN),
        frozenset((kind, text.strip().lower()) for kind, text in named if kind != ITWIN),
        tuple(dict.fromkeys((kind, found) for kind, found in targets if found is not None)),
        readable,
    )


def _in_body(value: Any, names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, child in value.items():
            kind = names.get(str(key).lower())
            if kind is not None and not isinstance(child, dict):
                texts = child if isinstance(child, list) else [child]
                yield from ((kind, str(text)) for text in texts if text is not None)
            else:
                yield from _in_body(child, names)
    elif isinstance(value, list):
        for child in value:
            yield from _in_body(child, names)
