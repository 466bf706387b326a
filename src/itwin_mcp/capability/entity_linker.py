"""Linking of the entities that capability files declare, and checks of what they refer to."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from itwin_mcp.capability.documents import Place
from itwin_mcp.capability.entities import WORD, Entities, Entity, ParentPlan
from itwin_mcp.capability.entity_declarations import EntityDeclaration, IdForm, LinkForm, Parent
from itwin_mcp.capability.operations import Operation

if TYPE_CHECKING:
    from itwin_mcp.capability.catalog import Tool

PLATFORM_ENTITIES = Path("platform") / "entities.yaml"
"""Our own entities, in the folder of our capability files."""


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
