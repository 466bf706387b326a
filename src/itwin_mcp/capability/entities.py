"""Entities (`x-entities`): the facts about each kind of thing that the engine uses.

A capability file declares the entities of its API: the form of their ids, the listings in which their names are looked
up, the tool that lists them, and texts for hints and completions. `capabilities/platform/entities.yaml` declares those
of the platform. It is linked before all other files, so no other file can redeclare them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from itwin_mcp.capability.expressions import JsonPath

if TYPE_CHECKING:
    from itwin_mcp.capability.entity_declarations import ListingTool, ListSearch, PeopleForm, RecentRead, SequenceReads

WORD = re.compile(r"[A-Za-z0-9_-]{1,128}")
"""The form of an id with `id: word`."""


@dataclass(frozen=True, slots=True)
class ParentPlan:
    """How to read the container of a thing; see `ParentRead`."""

    call: str
    input: str
    parent: JsonPath


@dataclass(frozen=True, slots=True, eq=False)
class Entity:
    """One kind of thing, such as iModels. Entities are compared by identity."""

    kind: str
    noun: str
    """Its name in sentences: `iTwin`, `named version`."""
    pattern: re.Pattern[str] | None
    """The form of its ids; None for UUIDs."""
    is_uuid: bool
    """Whether an id is, or may be, a UUID."""
    lower: bool
    """Whether ids are written in lower case."""
    segment: str | None
    """The path segment before the id in a link, in lower case."""
    portal: int | None
    """The number of segments from `my-itwins` to the id in a link of the developer portal."""
    origins: frozenset[str]
    """The origins of its API, besides the platform's own."""
    parent: Entity | None
    """Its container."""
    parent_is_assumed: bool
    """Whether names are looked up in the preset or most recently used container; see `Parent`."""
    read: ParentPlan | None
    recent: RecentRead | None
    searches: tuple[ListSearch, ...]
    sequence: SequenceReads | None
    marked_by: Entity | None
    """For a sequence, the entity whose names also identify its members: named versions identify changesets."""
    sources: tuple[ListingTool, ...]
    labels: tuple[str, ...]
    """The members of an item that may contain its name, in order of preference."""
    people: PeopleForm | None
    """The form of answers that list people, for an entity that stands for people."""
    listing: str | None
    """The tool that lists the things of this kind."""
    hint: str
    """A sentence for errors that says where to find an id."""
    paths: tuple[str, ...]
    """Prefixes of the request paths that concern it, with `{}` for an id."""
    codes: tuple[str, ...]
    """Its names in the platform's error codes: `iModel` for `iModelNotFound`."""
    unique: str | None
    """The field whose value must be unique."""
    refusals: Mapping[str, str]
    """Hints by error code of the API."""
    words: tuple[str, ...]
    """Words that people use for it, in any language. The tool search matches them."""

    argument: str = field(init=False)
    """The name of an argument that takes its id: `iModelId`, `namedVersionId`."""
    ids_are_words: bool = field(init=False)
    """Whether ids look like names, so that a text may be either."""
    around: tuple[Entity, ...] = field(init=False)
    """Its containers, the nearest first; empty if its parent is only assumed."""
    calls: frozenset[str] = field(init=False)
    """The keys of the operations that look up a name."""

    def __post_init__(self) -> None:
        first, *further = self.noun.split() or [self.kind]
        parent = None if self.parent_is_assumed else self.parent
        reads = self.sequence
        members = () if reads is None else (reads.newest.call, reads.one.call, reads.marked.call)
        computed = {
            "argument": f"{first}{''.join(word.capitalize() for word in further)}Id",
            "ids_are_words": self.pattern is WORD,
            "around": () if parent is None else (parent, *parent.line),
            "calls": frozenset((*(search.call for search in self.searches), *members)),
        }
        for name, value in computed.items():
            object.__setattr__(self, name, value)

    @property
    def line(self) -> tuple[Entity, ...]:
        """Its containers, the nearest first, whether assumed or not."""
        return () if self.parent is None else (self.parent, *self.parent.line)


Entities = Mapping[str, Entity]
"""All entities by their kind."""
