"""Entities (`x-entities`): the engine's knowledge about each kind of thing, as data.

A capability file declares the entities of its API: how their ids look, where their names are looked up, which tool
lists them, what hints and completions say. Ours are declared in `capabilities/platform/entities.yaml`, which every
linking reads first, so that no other file can redeclare them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Literal

from itwin_mcp.capability.documents import Place
from itwin_mcp.capability.entity_declarations import (
    EntityDeclaration,
    IdForm,
    LinkForm,
    ListingTool,
    ListSearch,
    Parent,
    PeopleForm,
    RecentRead,
    SequenceReads,
)
from itwin_mcp.capability.expressions import JsonPath
from itwin_mcp.capability.operations import Operation
from itwin_mcp.text import suggest

if TYPE_CHECKING:
    from itwin_mcp.capability.catalog import Tool

PLATFORM_ENTITIES = FilePath("platform") / "entities.yaml"
"""Our own entities, in the folder of our capability files."""

# --- linked -------------------------------------------------------------------------------------------------------

WORD = re.compile(r"[A-Za-z0-9_-]{1,128}")


@dataclass(frozen=True, slots=True)
class ParentPlan:
    """How to read the container of a thing; see `ParentRead`."""

    call: str
    input: str
    parent: JsonPath


@dataclass(frozen=True, slots=True, eq=False)
class Entity:
    """One kind of thing, linked. Two entities are equal only if they are the same."""

    kind: str
    noun: str
    """Its name in sentences: `iTwin`, `named version`."""
    pattern: re.Pattern[str] | None
    """How its id looks; None for a UUID."""
    is_uuid: bool
    """Whether its id is a UUID, or may be one."""
    lower: bool
    segment: str | None
    """The path segment after which the id is in a link, in lower case."""
    portal: int | None
    """How many segments after `my-itwins` the id is in a link of the developer portal."""
    origins: frozenset[str]
    """The origins of its API, besides the platform's own."""
    parent: Entity | None
    """Its container."""
    parent_is_assumed: bool
    read: ParentPlan | None
    recent: RecentRead | None
    searches: tuple[ListSearch, ...]
    sequence: SequenceReads | None
    marked_by: Entity | None
    """The entity whose name means one of a sequence: a named version means its changeset."""
    sources: tuple[ListingTool, ...]
    labels: tuple[str, ...]
    """The members of an item that say what it is called, the best first."""
    people: PeopleForm | None
    """How an answer says who it is, for an entity that stands for people."""
    listing: str | None
    """The tool that lists what exists."""
    hint: str
    """Where an id is found, for an error."""
    paths: tuple[str, ...]
    """The beginnings of the request paths that are about it, with `{}` for an id."""
    codes: tuple[str, ...]
    """Its names in error codes, as in `iModelNotFound`."""
    unique: str | None
    """The field of which no two have the same value."""
    refusals: Mapping[str, str]
    """Hints for error codes of the API."""
    words: tuple[str, ...]
    """Words that people use for it, in any language, for the search of tools."""

    argument: str = field(init=False)
    """How an argument is called that names it: `iModelId`, `namedVersionId`."""
    ids_are_words: bool = field(init=False)
    """Whether a text may be an id as well as a name."""
    around: tuple[Entity, ...] = field(init=False)
    """Its containers, the nearest first; none if its parent is only assumed."""
    calls: frozenset[str] = field(init=False)
    """The keys of the operations that a name needs to be looked up."""

    def __post_init__(self) -> None:
        first, *others = self.noun.split() or [self.kind]
        parent = None if self.parent_is_assumed else self.parent
        reads = self.sequence
        members = () if reads is None else (reads.newest.call, reads.one.call, reads.marked.call)
        computed = {
            "argument": f"{first}{''.join(word.capitalize() for word in others)}Id",
            "ids_are_words": self.pattern is WORD,
            "around": () if parent is None else (parent, *parent.line),
            "calls": frozenset((*(search.call for search in self.searches), *members)),
        }
        for name, value in computed.items():
            object.__setattr__(self, name, value)

    @property
    def line(self) -> tuple[Entity, ...]:
        """Its containers, the nearest first."""
        return () if self.parent is None else (self.parent, *self.parent.line)


Entities = Mapping[str, Entity]
"""All entities by their kind."""


def link_entities(
    declared: Mapping[str, EntityDeclaration], known: Entities, origins: Collection[str], place: Place
) -> dict[str, Entity]:
    """Link the entities of one file; problems are reported at their places.

    `known` are those of the files before, `origins` the origins of the APIs that the file consumes.
    """
    linked: dict[str, Entity] = {}
    for kind, declaration in declared.items():
        here = place.at(kind)
        if kind in known:
            here.report("unique-entity", f"the entity {kind!r} is declared already: choose another name")
            continue
        linked[kind] = _link(kind, declaration, {**known, **linked}, frozenset(origins), here)
    return linked


def _link(kind: str, declaration: EntityDeclaration, known: Entities, origins: frozenset[str], place: Place) -> Entity:
    noun = declaration.display or kind.replace("-", " ")
    link = declaration.link
    parent = Parent(kind=declaration.in_) if isinstance(declaration.in_, str) else declaration.in_
    parent_kind = parent.kind if parent is not None else None
    if parent_kind is not None and parent_kind not in known:
        place.at("in").report("known-word", f"there is no entity {parent_kind!r} before: {suggest(known, parent_kind)}")
    for index, search in enumerate(declaration.find):
        if search.within is not None and parent_kind is None:
            place.at("find", index, "within").report("x-entities", "`within` needs `in`: what the entity is in")
    sequence = declaration.sequence
    if sequence is not None and sequence.marked.kind not in known:
        message = f"there is no entity {sequence.marked.kind!r} before: {suggest(known, sequence.marked.kind)}"
        place.at("sequence", "marked", "kind").report("known-word", message)
    path = None if declaration.read is None else place.at("read", "parent").compile_path(declaration.read.parent)
    found_with = f"Look for it with {declaration.list_}." if declaration.list_ else ""
    return Entity(
        kind=kind,
        noun=noun,
        pattern=_pattern(declaration.id, place.at("id")),
        is_uuid=declaration.id == "uuid" or (isinstance(declaration.id, IdForm) and declaration.id.or_ is not None),
        lower=isinstance(declaration.id, IdForm) and declaration.id.lower,
        segment=(link.segment if isinstance(link, LinkForm) else link or "").lower() or None,
        portal=link.portal if isinstance(link, LinkForm) else None,
        origins=origins,
        parent=known.get(parent_kind or ""),
        parent_is_assumed=parent is not None and parent.assumed,
        read=(
            ParentPlan(declaration.read.call, declaration.read.input, path)
            if declaration.read is not None and path is not None
            else None
        ),
        recent=declaration.recent,
        searches=tuple(declaration.find),
        sequence=sequence,
        marked_by=None if sequence is None else known.get(sequence.marked.kind),
        sources=tuple(declaration.complete),
        labels=tuple(declaration.labels),
        people=declaration.people,
        listing=declaration.list_,
        hint=declaration.hint or found_with or "Take the id from the answer of a list tool.",
        paths=tuple(declaration.paths),
        codes=tuple([noun.replace(" ", "")] if declaration.codes is None else declaration.codes),
        unique=declaration.unique,
        refusals=declaration.refusals,
        words=tuple(declaration.words),
    )


def _pattern(form: Literal["uuid", "word"] | IdForm, place: Place) -> re.Pattern[str] | None:
    if isinstance(form, str):
        return WORD if form == "word" else None
    try:
        return re.compile(form.pattern)
    except re.error as error:
        place.at("pattern").report("x-entities", f"{form.pattern[:80]!r} is not a regular expression: {error}")
        return WORD


# --- what only the whole shows ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DeclaredEntity:
    """An entity as it is declared, and where."""

    declaration: EntityDeclaration
    place: Place


def check_entities(
    declared: Sequence[DeclaredEntity],
    operations: Mapping[str, Operation],
    tools: Mapping[str, Tool],
) -> None:
    """Report every operation, input, tool and argument that an entity names and that does not exist."""
    for one in declared:
        for inputs, call, place in _calls(one.declaration, one.place):
            operation = operations.get(call)
            if operation is None:
                place.at("call").report(
                    "unresolved-call", f"there is no operation {call!r}: {suggest(operations, call)}"
                )
            elif operation.method != "GET":
                place.at("call").report("x-entities", f"{call!r} is a {operation.method}: looking up changes nothing")
            else:
                for name in sorted(inputs - operation.inputs):
                    place.report(
                        "unresolved-input", f"{call!r} has no input {name!r}: {suggest(operation.inputs, name)}"
                    )
                for name in sorted(operation.required - inputs):
                    place.report("unresolved-input", f"{call!r} needs the input {name!r}")
        for tool, place in _tools(one.declaration, one.place):
            if tool not in tools:
                place.report("unresolved-tool", f"there is no tool {tool!r}: {suggest(tools, tool)}")
        for index, source in enumerate(one.declaration.complete):
            if source.tool not in tools:
                continue
            entities = {argument.name: argument.entity for argument in tools[source.tool].arguments}
            for name in (*source.within, *([source.search] if source.search is not None else ())):
                if name not in entities:
                    message = f"{source.tool!r} has no argument {name!r}: {suggest(entities, name)}"
                    one.place.at("complete", index).report("unresolved-input", message)
                elif name in source.within and entities[name] is None:
                    message = f"the argument {name!r} of {source.tool!r} names no entity: add x-entity to it"
                    one.place.at("complete", index).report("x-entities", message)


def _calls(declaration: EntityDeclaration, place: Place) -> Iterator[tuple[set[str], str, Place]]:
    """Yield the inputs, the operation and the place of every call of an entity."""
    for index, search in enumerate(declaration.find):
        inputs = {*search.with_, *(name for name in (search.by, search.within) if name is not None)}
        yield inputs, search.call, place.at("find", index)
    if declaration.read is not None:
        yield {declaration.read.input}, declaration.read.call, place.at("read")
    if declaration.recent is not None:
        yield {*declaration.recent.with_}, declaration.recent.call, place.at("recent")
    if declaration.sequence is not None:
        newest, here = declaration.sequence.newest, place.at("sequence")
        yield {newest.within, newest.size, newest.below, *newest.with_}, newest.call, here.at("newest")
        for name, read in (("one", declaration.sequence.one), ("marked", declaration.sequence.marked)):
            yield {read.within, read.input}, read.call, here.at(name)


def _tools(declaration: EntityDeclaration, place: Place) -> Iterator[tuple[str, Place]]:
    if declaration.list_ is not None:
        yield declaration.list_, place.at("list")
    for index, source in enumerate(declaration.complete):
        yield source.tool, place.at("complete", index, "tool")
