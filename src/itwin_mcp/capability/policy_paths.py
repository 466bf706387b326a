"""The reviewed table of the platform's paths, `policy-paths.toml`: what a request is about, and what a DELETE destroys.

It is read from the package alone, so that nothing a capability file says changes what the policy trusts.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args
from urllib.parse import unquote

FILE = Path(__file__).with_name("policy-paths.toml")

Kind: TypeAlias = Literal["within", "lists", "creates", "open", "names", "beyond"]
Mark: TypeAlias = Literal["whole", "own", ""]
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_SLOT = "{}"


@dataclass(frozen=True, slots=True)
class PathRow:
    """One row of the table; see the file for the kinds and marks."""

    kind: Kind
    methods: frozenset[str]
    segments: tuple[str, ...]
    mark: Mark = ""

    def fits(self, method: str, segments: Sequence[str]) -> bool:
        """Return whether this is the row of a request."""
        return method in self.methods and self.covers(segments)

    def covers(self, segments: Sequence[str]) -> bool:
        """Return whether every path of this form is of the row. A slot `{}` of the form fits only a slot of the row."""
        pairs = zip(self.segments, segments, strict=True) if len(segments) == len(self.segments) else ()
        return bool(pairs) and all(own.startswith("{") or own == other.lower() for own, other in pairs)

    def may_cover(self, segments: Sequence[str]) -> bool:
        """Return whether a path of this form can turn out to be of the row, once its slots are filled."""
        pairs = zip(self.segments, segments, strict=True) if len(segments) == len(self.segments) else ()
        return bool(pairs) and all(
            own.startswith("{") or own == other.lower() or _SLOT in other for own, other in pairs
        )


@dataclass(frozen=True, slots=True)
class IdPattern:
    """How an id is written."""

    pattern: re.Pattern[str] = _UUID
    lower: bool = True

    def read(self, text: str) -> str | None:
        """Return the id in its usual form; None if the text has another form."""
        text = text.strip()
        if self.pattern.fullmatch(text) is None:
            return None
        return text.lower() if self.lower else text


@dataclass(frozen=True, slots=True)
class Location:
    """How the policy finds out in which iTwin a thing is; see the file."""

    called: str
    read: str
    accept: str
    permission: str
    item: str
    itwin: str
    lists: tuple[str, ...] = ()
    moves: bool = True

    @property
    def prefix(self) -> str:
        """The first segment of the paths whose answers describe such things: `/imodels`."""
        return "/" + self.read.strip("/").partition("/")[0].lower()


@dataclass(frozen=True, slots=True)
class PolicyPaths:
    """The whole table."""

    rows: tuple[PathRow, ...]
    ids: Mapping[str, IdPattern]
    names: Mapping[str, Mapping[str, str]]
    """By the first segment of a path: what names a thing in a query or body, in small letters, and its kind."""
    locations: Mapping[str, Location] = field(default_factory=dict)

    def find_row(self, method: str, path: str) -> tuple[PathRow, tuple[str, ...]] | None:
        """Return the row of a request to the platform and the segments of its path; None if the table lacks it."""
        segments = tuple(unquote(segment) for segment in path.removeprefix("/").removesuffix("/").split("/"))
        # A client or server on the way might read such a path as another one.
        if any(segment in ("", ".", "..") or re.search(r"[/\\%\x00-\x1f]", segment) for segment in segments):
            return None
        return next(((row, segments) for row in self.rows if row.fits(method, segments)), None)

    def names_below(self, first_segment: str) -> Mapping[str, str]:
        """Return what names things in the queries and bodies of the paths below a segment."""
        return self.names.get(first_segment.lower(), self.names["*"])

    def read_id(self, kind: str, text: str) -> str | None:
        """Return the id of a kind in a text; None if there is none."""
        return self.ids.get(kind, _DEFAULT_ID).read(text)

    def destroys_whole(self, segments: Sequence[str]) -> bool:
        """Return whether a DELETE of this form may remove an iTwin or an iModel; `{}` stands for a slot."""
        return any(row.mark == "whole" and row.may_cover(segments) for row in self.rows)

    def destroys_nothing(self, segments: Sequence[str]) -> bool:
        """Return whether a DELETE of this form surely removes nothing but the caller's own mark on a thing."""
        return any(row.mark == "own" and row.covers(segments) for row in self.rows)


_DEFAULT_ID = IdPattern()


def read_policy_paths(text: str) -> PolicyPaths:
    """Read the text of such a file. Raises ValueError: the file is ours, so an error in it is a defect."""
    data = tomllib.loads(text)
    return PolicyPaths(
        rows=tuple(_row(line) for line in data["paths"].strip().splitlines()),
        ids={
            kind: IdPattern(re.compile(form["pattern"]), form.get("lower", False)) for kind, form in data["ids"].items()
        },
        names={
            segment: {name.lower(): kind for name, kind in names.items()} for segment, names in data["names"].items()
        },
        locations={
            kind: Location(**{**found, "lists": tuple(found.get("lists", ()))})
            for kind, found in data["locations"].items()
        },
    )


@cache
def shipped_policy_paths() -> PolicyPaths:
    """Return the table of the package, read when it is first needed."""
    return read_policy_paths(FILE.read_text(encoding="utf-8"))


def _row(line: str) -> PathRow:
    kind, methods, path, *mark = line.split()
    if kind not in get_args(Kind) or any(one not in get_args(Mark) for one in mark):
        raise ValueError(f"policy-paths.toml: unknown kind or mark in {line!r}")
    known: Any = (kind, *mark)
    return PathRow(known[0], frozenset(methods.split(",")), tuple(path.strip("/").split("/")), *known[1:])
