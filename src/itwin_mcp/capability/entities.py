"""Entities (`x-entities`): the facts about each kind of thing that the engine uses.

A capability file declares the entities of its API: the form of their ids, the listings in which their names are looked
up, the tool that lists them, and texts for hints and completions. `capabilities/platform/entities.yaml` declares those
of the platform. It is linked before all other files, so no other file can redeclare them.
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

if TYPE_CHECKING:
    from itwin_mcp.capability.catalog import Tool

PLATFORM_ENTITIES = FilePath("platform") / "entities.yaml"
"""Our own entities, in the folder of our capability files."""

# --- linking ------------------------------------------------------------------------------------------------------

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


def link_entities(
    declared: Mapping[str, EntityDeclaration], earlier: Entities, origins: Collection[str], place: Place
) -> dict[str, Entity]:
    """Link the entities that one file declares. Problems are reported at their places.

    `earlier` are the entities of earlier files. `origins` are the origins of the APIs that the file consumes.
    """
    entities: dict[str, Entity] = {}
    for kind, declaration in declared.items():
        here = place.at(kind)
        if kind in earlier:
            here.report("unique-entity", f"the entity {kind!r} is declared already: choose another name")
            continue
        entities[kind] = _link_entity(kind, declaration, {**earlier, **entities}, frozenset(origins), here)
    return entities


def _link_entity(
    kind: str, declaration: EntityDeclaration, earlier: Entities, origins: frozenset[str], place: Place
) -> Entity:
    noun = declaration.display or kind.replace("-", " ")
    link = declaration.link
    parent = Parent(kind=declaration.in_) if isinstance(declaration.in_, str) else declaration.in_
    parent_kind = parent.kind if parent is not None else None
    if parent_kind is not None:
        place.at("in").check_known(parent_kind, earlier, "known-word", "there is no earlier entity")
    for index, search in enumerate(declaration.find):
        if search.within is not None and parent_kind is None:
            place.at("find", index, "within").report("x-entities", "`within` needs `in`: what the entity is in")
    sequence = declaration.sequence
    if sequence is not None:
        here = place.at("sequence", "marked", "kind")
        here.check_known(sequence.marked.kind, earlier, "known-word", "there is no earlier entity")
    path = None if declaration.read is None else place.at("read", "parent").compile_path(declaration.read.parent)
    found_with = f"Look for it with {declaration.list_}." if declaration.list_ else ""
    return Entity(
        kind=kind,
        noun=noun,
        pattern=_compile_id_form(declaration.id, place.at("id")),
        is_uuid=declaration.id == "uuid" or (isinstance(declaration.id, IdForm) and declaration.id.or_ is not None),
        lower=isinstance(declaration.id, IdForm) and declaration.id.lower,
        segment=(link.segment if isinstance(link, LinkForm) else link or "").lower() or None,
        portal=link.portal if isinstance(link, LinkForm) else None,
        origins=origins,
        parent=earlier.get(parent_kind or ""),
        parent_is_assumed=parent is not None and parent.assumed,
        read=(
            ParentPlan(declaration.read.call, declaration.read.input, path)
            if declaration.read is not None and path is not None
            else None
        ),
        recent=declaration.recent,
        searches=tuple(declaration.find),
        sequence=sequence,
        marked_by=None if sequence is None else earlier.get(sequence.marked.kind),
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


def _compile_id_form(form: Literal["uuid", "word"] | IdForm, place: Place) -> re.Pattern[str] | None:
    if isinstance(form, str):
        return WORD if form == "word" else None
    return place.at("pattern").compile_pattern(form.pattern, "x-entities") or WORD


# --- checks after linking -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DeclaredEntity:
    """The declaration of an entity, and its place."""

    declaration: EntityDeclaration
    place: Place


def check_entities(
    declared: Sequence[DeclaredEntity],
    operations: Mapping[str, Operation],
    tools: Mapping[str, Tool],
) -> None:
    """Report every operation, input, tool and argument that an entity refers to and that does not exist."""
    for entity in declared:
        for inputs, call, place in _list_calls(entity.declaration, entity.place):
            operation = operations.get(call)
            if operation is None:
                place.at("call").check_known(call, operations, "unresolved-call", "there is no operation")
            elif operation.method != "GET":
                place.at("call").report("x-entities", f"{call!r} is a {operation.method}: use a GET to look things up")
            else:
                for name in sorted(inputs):
                    place.check_known(name, operation.inputs, "unresolved-input", f"{call!r} has no input")
                for name in sorted(operation.required - inputs):
                    place.report("unresolved-input", f"{call!r} needs the input {name!r}")
        listing = entity.declaration.list_
        if listing is not None:
            entity.place.at("list").check_known(listing, tools, "unresolved-tool", "there is no tool")
        for index, source in enumerate(entity.declaration.complete):
            here = entity.place.at("complete", index)
            if not here.at("tool").check_known(source.tool, tools, "unresolved-tool", "there is no tool"):
                continue
            entities = {argument.name: argument.entity for argument in tools[source.tool].arguments}
            search = [source.search] if source.search is not None else []
            for name in (*source.within, *search):
                here.check_known(name, entities, "unresolved-input", f"{source.tool!r} has no argument")
            for name in source.within:
                if name in entities and entities[name] is None:
                    message = f"the argument {name!r} of {source.tool!r} names no entity: add x-entity to it"
                    here.report("x-entities", message)


def _list_calls(declaration: EntityDeclaration, place: Place) -> Iterator[tuple[set[str], str, Place]]:
    """Yield the inputs, the operation and the place of every call that looks up an entity."""
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
