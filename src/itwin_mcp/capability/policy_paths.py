"""The table of the platform's paths, `policy-paths.toml`: what each request accesses, and what a DELETE destroys.

People review the table, and only the package can provide it. So no capability file can change what the policy trusts.
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
    """One row of the table. The comments in `policy-paths.toml` explain the kinds and marks."""

    kind: Kind
    methods: frozenset[str]
    segments: tuple[str, ...]
    mark: Mark = ""

    def covers(self, segments: Sequence[str], *, possibly: bool = False) -> bool:
        """Return whether every path of this form belongs to the row; with `possibly`, whether any can.

        In a form, `{}` stands for a slot, which a call can fill with any text.
        """
        if len(segments) != len(self.segments):
            return False
        return all(
            own.startswith("{") or own == other.lower() or (possibly and _SLOT in other)
            for own, other in zip(self.segments, segments, strict=True)
        )


@dataclass(frozen=True, slots=True)
class IdPattern:
    """The form of an id."""

    pattern: re.Pattern[str] = _UUID
    lower: bool = True

    def read(self, text: str) -> str | None:
        """Return a text as an id, in lower case if `lower`; None if it is not an id."""
        text = text.strip()
        if self.pattern.fullmatch(text) is None:
            return None
        return text.lower() if self.lower else text


@dataclass(frozen=True, slots=True)
class Location:
    """The request that finds the iTwin of a thing, for the policy; see the comments in `policy-paths.toml`."""

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
    """The contents of `policy-paths.toml`."""

    rows: tuple[PathRow, ...]
    ids: Mapping[str, IdPattern]
    names: Mapping[str, Mapping[str, str]]
    """By the first segment of a path: the kind of id in each query parameter or body member, named in lower case."""
    locations: Mapping[str, Location] = field(default_factory=dict)

    def find_row(self, method: str, path: str) -> tuple[PathRow, tuple[str, ...]] | None:
        """Return the row of a request and the segments of its path; None if the table has no such row."""
        segments = tuple(unquote(segment) for segment in path.removeprefix("/").removesuffix("/").split("/"))
        # A proxy or server might normalize such a path to another one, which the policy has not judged.
        if any(segment in ("", ".", "..") or re.search(r"[/\\%\x00-\x1f]", segment) for segment in segments):
            return None
        return next(((row, segments) for row in self.rows if method in row.methods and row.covers(segments)), None)

    def names_below(self, first_segment: str) -> Mapping[str, str]:
        """Return the kind of id in each query parameter or body member, for paths with this first segment."""
        return self.names.get(first_segment.lower(), self.names["*"])

    def read_id(self, kind: str, text: str) -> str | None:
        """Return a text as an id of this kind, in its usual form; None if it is not such an id."""
        return self.ids.get(kind, _DEFAULT_ID).read(text)

    def destroys_whole(self, segments: Sequence[str]) -> bool:
        """Return whether a DELETE of this form may remove an iTwin or an iModel."""
        return any(row.mark == "whole" and row.covers(segments, possibly=True) for row in self.rows)

    def destroys_nothing(self, segments: Sequence[str]) -> bool:
        """Return whether a DELETE of this form can only remove the caller's own mark, such as a favorite."""
        return any(row.mark == "own" and row.covers(segments) for row in self.rows)


_DEFAULT_ID = IdPattern()


def read_policy_paths(text: str) -> PolicyPaths:
    """Parse the text of a `policy-paths.toml`.

    Raises:
        ValueError: The text is invalid. The file is part of the package, so this is a defect.
    """
    data = tomllib.loads(text)
    return PolicyPaths(
        rows=tuple(_parse_row(line) for line in data["paths"].strip().splitlines()),
        ids={
            kind: IdPattern(re.compile(form["pattern"]), form.get("lower", False)) for kind, form in data["ids"].items()
        },
        names={
            segment: {name.lower(): kind for name, kind in names.items()} for segment, names in data["names"].items()
        },
        locations={
            kind: Location(**{**location, "lists": tuple(location.get("lists", ()))})
            for kind, location in data["locations"].items()
        },
    )


@cache
def shipped_policy_paths() -> PolicyPaths:
    """Return the table of the package. It is read once, when it is first needed."""
    return read_policy_paths(FILE.read_text(encoding="utf-8"))


def _parse_row(line: str) -> PathRow:
    fields: list[Any] = line.split()
    kind, methods, path = fields[:3]
    mark: Any = "".join(fields[3:])
    if kind not in get_args(Kind) or mark not in get_args(Mark):
        raise ValueError(f"policy-paths.toml: unknown kind or mark in {line!r}")
    return PathRow(kind, frozenset(methods.split(",")), tuple(path.strip("/").split("/")), mark)
