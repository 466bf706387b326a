"""What a built request is about: the iTwins and iModels that it names on the wire, wherever they stand; pure.

Only what is about to be sent is read, never what a caller said of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias
from urllib.parse import unquote

from itwin_mcp.executor.names import known_id
from itwin_mcp.upstream.wire import FileBody, FormBody, JsonBody, Request

Kind: TypeAlias = Literal["within", "lists", "creates", "open", "beyond"]
"""Within the iTwins that the request names; a list of iTwins; the making of one; about the caller alone, or about
nobody's data; beyond any iTwin."""

_TABLE = """
lists    GET               /itwins
creates  POST              /itwins
open     GET               /itwins/myprimaryaccount
lists    GET               /itwins/favorites
within   POST,DELETE       /itwins/favorites/{itwin}
lists    GET               /itwins/recents
within   POST              /itwins/recents/{itwin}
beyond   GET,POST          /itwins/exports
beyond   GET               /itwins/exports/{export}
open     GET               /itwins/repositories
open     GET               /itwins/repositories/{repository}
open     GET               /itwins/repositories/{repository}/resources
open     GET               /itwins/repositories/{repository}/resources/{resource}
open     GET               /itwins/repositories/{repository}/resources/{resource}/graphics
within   GET,PATCH,DELETE  /itwins/{itwin}
within   GET               /itwins/{itwin}/account
within   GET,PUT,DELETE    /itwins/{itwin}/image
within   GET,POST          /itwins/{itwin}/repositories
within   GET,PATCH,DELETE  /itwins/{itwin}/repositories/{repository}
within   GET,POST          /itwins/{itwin}/repositories/{repository}/resources
within   GET,DELETE        /itwins/{itwin}/repositories/{repository}/resources/{resource}
within   GET               /itwins/{itwin}/repositories/{repository}/resources/{resource}/graphics
open     GET               /accesscontrol/itwins/permissions
within   GET               /accesscontrol/itwins/{itwin}/permissions
within   GET               /accesscontrol/itwins/{itwin}/roles
within   GET               /accesscontrol/itwins/{itwin}/roles/{role}
within   GET               /accesscontrol/itwins/{itwin}/members/owners
within   GET               /accesscontrol/itwins/{itwin}/members/groups
within   GET               /accesscontrol/itwins/{itwin}/members/users
within   GET               /accesscontrol/itwins/{itwin}/members/users/{user}
within   GET,POST          /imodels
within   GET               /imodels/favorites
within   PUT,DELETE        /imodels/favorites/{imodel}
within   GET               /imodels/recents
within   POST,DELETE       /imodels/recents/{imodel}
within   GET,PATCH,DELETE  /imodels/{imodel}
within   POST              /imodels/{imodel}/clone
within   POST              /imodels/{imodel}/fork
within   GET               /imodels/{imodel}/operations/create
within   GET,POST          /imodels/{imodel}/baselinefile
within   GET,POST          /imodels/{imodel}/briefcases
within   GET               /imodels/{imodel}/briefcases/checkpoint
within   GET,DELETE        /imodels/{imodel}/briefcases/{briefcase}
within   GET,POST          /imodels/{imodel}/changesets
within   GET               /imodels/{imodel}/changesets/extendeddata
within   GET,PATCH         /imodels/{imodel}/changesets/{changeset}
within   GET               /imodels/{imodel}/changesets/{changeset}/checkpoint
within   GET,POST          /imodels/{imodel}/changesets/{changeset}/extendeddata
within   GET,POST          /imodels/{imodel}/changesetgroups
within   GET,PATCH         /imodels/{imodel}/changesetgroups/{changeset-group}
within   GET,POST          /imodels/{imodel}/namedversions
within   GET,PATCH         /imodels/{imodel}/namedversions/{named-version}
within   GET,PUT           /imodels/{imodel}/namedversions/{named-version}/checkpoint
within   GET,PATCH         /imodels/{imodel}/locks
within   POST              /imodels/{imodel}/locks/release-chunk
within   GET               /imodels/{imodel}/locks/released-locks
within   GET               /imodels/{imodel}/permissions
within   GET,PATCH         /imodels/{imodel}/userpermissions
within   GET,PATCH         /imodels/{imodel}/rolepermissions
within   GET,POST          /imodels/{imodel}/shares
within   GET,PATCH,DELETE  /imodels/{imodel}/shares/{share}
within   GET,PUT           /imodels/{imodel}/thumbnail
within   GET               /imodels/{imodel}/users
within   GET               /imodels/{imodel}/users/{user}
"""
"""Every request of the platform that a fence of iTwins lets pass or judges; the first row that fits counts, and a
request without a row passes no fence."""

_NAMES: Mapping[str, str] = {"itwinid": "itwin", "itwinids": "itwin", "imodelid": "imodel", "imodelids": "imodel"}
"""What names an entity in a query or, at any depth, in a body; in small letters."""
_ITWINS_NAMES: Mapping[str, str] = {**_NAMES, "parentid": "itwin", "itwinaccountid": "itwin"}
"""The same in the iTwins API; in a changeset `parentId` is another changeset."""
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table."""

    kind: Kind
    methods: frozenset[str]
    segments: tuple[str, ...]

    def fits(self, method: str, segments: tuple[str, ...]) -> bool:
        """Whether this is the row of a request."""
        return (
            method in self.methods
            and len(segments) == len(self.segments)
            and all(
                own.startswith("{") or own == other.lower() for own, other in zip(self.segments, segments, strict=True)
            )
        )


@dataclass(frozen=True, slots=True)
class Reach:
    """What a request is about. `itwins` and `imodels` are as they were written, in small letters: perhaps no ids."""

    kind: Kind
    itwins: frozenset[str]
    imodels: frozenset[str]
    targets: tuple[tuple[str, str], ...]
    """The kind and id of everything that it names in its path, its iTwins and its iModels: ids, and no other text."""
    readable: bool = True
    """Whether its body can be read: one that cannot might name anything."""


def _rows() -> Iterator[Row]:
    for line in _TABLE.strip().splitlines():
        kind, methods, path = line.split()
        assert kind in ("within", "lists", "creates", "open", "beyond")
        yield Row(kind, frozenset(methods.split(",")), tuple(path.strip("/").split("/")))  # type: ignore[arg-type]


ROWS: tuple[Row, ...] = tuple(_rows())


def row_of(method: str, path: str) -> tuple[Row, tuple[str, ...]] | None:
    """The row of a request to the platform, and the segments of its path; None for one that the table lacks."""
    segments = tuple(unquote(segment) for segment in path.removeprefix("/").removesuffix("/").split("/"))
    # A client or server on the way might read such a path as another one.
    if any(segment in ("", ".", "..") or re.search(r"[/\\%\x00-\x1f]", segment) for segment in segments):
        return None
    return next(((row, segments) for row in ROWS if row.fits(method, segments)), None)


def reach_of(request: Request) -> Reach | None:
    """What a request to the platform is about; None for one that the table lacks."""
    found = row_of(request.method, request.path)
    if found is None:
        return None
    row, segments = found
    in_path = [(own.strip("{}"), text) for own, text in zip(row.segments, segments, strict=True) if own.startswith("{")]
    named = [(kind, text) for kind, text in in_path if kind in ("itwin", "imodel")]
    names = _NAMES if row.segments[0] == "imodels" else _ITWINS_NAMES
    for name, value in request.query:
        kind = names.get(name.lower())
        if kind is not None:
            named += [(kind, part) for part in value.split(",")]
        elif row.kind == "lists":
            named += [("itwin", text) for text in _UUID.findall(value)]
    readable = request.body is None or isinstance(request.body, (JsonBody, FormBody, FileBody))
    if isinstance(request.body, JsonBody):
        named += _in_body(request.body.value, names)
    elif isinstance(request.body, FormBody):
        named += _in_body(dict(request.body.fields), names)
    targets = [(kind, known_id(text, kind)) for kind, text in (*in_path, *named)]
    return Reach(
        row.kind,
        frozenset(text.strip().lower() for kind, text in named if kind == "itwin"),
        frozenset(text.strip().lower() for kind, text in named if kind == "imodel"),
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
