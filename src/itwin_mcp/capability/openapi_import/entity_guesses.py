"""Guesses the kinds of things of an API from its paths: a list of them, and paths with the id of one."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from itwin_mcp.capability.openapi_import.definition import Parameter, as_text
from itwin_mcp.capability.openapi_import.drafts import Draft
from itwin_mcp.capability.openapi_import.page_patterns import LIST_NAMES, normalize
from itwin_mcp.capability.openapi_import.schemas import SchemaReader, Shape, ignore
from itwin_mcp.capability.openapi_import.wording import make_camel, make_kebab, make_singular, make_unique

_NAMES = ("displayname", "name", "title", "label")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_SLOT = re.compile(r"\{\{([^{}]*)\}\}")
_PLATFORM_NAMES = {"itwin": "iTwinId", "imodel": "iModelId"}
"""Entities of ours that the platform's APIs name in their arguments."""
_PLATFORM_TEXTS = {"itwin": "iTwin: id, number, name or link.", "imodel": "iModel: id, name or link."}


@dataclass(frozen=True, slots=True)
class _Collection:
    """A path that lists things, and the noun of one thing."""

    path: str
    noun: str
    listing: Draft
    items: tuple[str, ...]
    item: Shape


class EntityGuesser:
    """Declares entities for drafts, and marks the arguments that name one."""

    def __init__(
        self, reader: SchemaReader, base_path: str, namespace: str, known: Collection[str], *, is_platform: bool
    ) -> None:
        self._reader = reader
        self._base = base_path
        self._namespace = namespace
        self._known = known
        self._is_platform = is_platform
        self._kinds: dict[str, str] = {}
        """The entities by the noun of one thing, of which several lists may consist."""
        self.entities: dict[str, dict[str, Any]] = {}

    def guess(self, drafts: Sequence[Draft]) -> None:
        """Fill `entities`, name arguments after what they identify, and mark them with `x-entity`."""
        for draft in drafts:
            self._rename_ids(draft)
        for listed in self._find_collections(drafts):
            self._declare(listed, drafts)
        if self._is_platform:
            kinds = {name.lower(): kind for kind, name in _PLATFORM_NAMES.items()}
            for draft in drafts:
                for name, argument in draft.arguments.items():
                    kind = kinds.get(name.lower())
                    if kind is not None and argument["type"] == "string":
                        _mark(argument, kind, _PLATFORM_TEXTS[kind])

    def _rename_ids(self, draft: Draft) -> None:
        """Call an argument `jobId` that the path calls `id`, after the segment before it."""
        segments = f"{self._base}{draft.path}".split("/")
        for before, segment in pairwise(segments):
            slot = _SLOT.fullmatch(segment)
            if slot is not None and slot.group(1).lower() == "id" and before and not _SLOT.search(before):
                noun = make_singular(make_kebab(before))
                argument = draft.arguments[draft.bindings[slot.group(1)]]
                if argument["description"].lower() in ("id.", ""):
                    argument["description"] = f"{noun[:1].upper()}{noun[1:].replace('-', ' ')} id."
                draft.rename_argument(draft.bindings[slot.group(1)], f"{make_camel(noun)}Id")

    def _find_collections(self, drafts: Iterable[Draft]) -> Iterable[_Collection]:
        for draft in drafts:
            last = f"{self._base}{draft.path}".rstrip("/").rpartition("/")[2]
            if draft.operation.method != "get" or draft.answer is None or not last or _SLOT.search(last):
                continue
            for names, shape in self._reader.walk_members(draft.answer, 1):
                is_items = draft.page is None or draft.page.items == names
                if shape.type != "array" or not is_items:
                    continue
                item = self._reader.read(shape.schema.get("items"), ignore, shape.trail)
                if "id" in self._reader.list_properties(item):
                    noun = make_singular(make_kebab(last if normalize(names[0]) in LIST_NAMES else names[0]))
                    yield _Collection(draft.path.rstrip("/"), noun, draft, names, item)
                    break

    def _declare(self, listed: _Collection, drafts: Sequence[Draft]) -> None:
        """Declare the entity of a collection, if an operation takes the id of one of its things."""
        uses: list[tuple[Draft, str]] = []
        for draft in drafts:
            found = re.match(re.escape(listed.path) + r"/\{\{([^{}]*)\}\}(?=/|$)", draft.path)
            if found is not None:
                uses.append((draft, found.group(1)))
        if not uses:
            return
        draft, slot = uses[0]
        if self._is_platform and listed.noun in self._known:
            kind, form = listed.noun, None
        elif listed.noun in self._kinds:
            kind = self._kinds[listed.noun]
            form = self.entities[kind]
        else:
            kind = make_unique(listed.noun, {*self._known, *self.entities})
            if kind != listed.noun and listed.noun in self._known:
                kind = make_unique(f"{self._namespace}-{listed.noun}", {*self._known, *self.entities})
            self._kinds[listed.noun] = kind
            self.entities[kind] = form = self._write_entity(listed, draft.parameters.get(slot))
        noun = listed.noun.replace("-", " ")
        accepts = "id, exact name or link" if form is None or "find" in form else "id or link"
        called = _PLATFORM_NAMES.get(kind, f"{make_camel(listed.noun)}Id")
        for draft, slot in uses:
            _mark(draft.arguments[draft.bindings[slot]], kind, f"{noun[:1].upper()}{noun[1:]}: {accepts}.")
            draft.rename_argument(draft.bindings[slot], called)
        wanted = called.lower()
        for draft in drafts:
            for name, argument in draft.arguments.items():
                if name.lower() == wanted and argument["type"] == "string":
                    _mark(argument, kind, f"{noun[:1].upper()}{noun[1:]}: {accepts}.")

    def _write_entity(self, listed: _Collection, parameter: Parameter | None) -> dict[str, Any]:
        members = {name: self._read(child, listed.item) for name, child in self._properties(listed.item).items()}
        entity: dict[str, Any] = {
            "display": listed.noun.replace("-", " "),
            "id": _guess_id_form(members["id"], parameter),
        }
        segment = f"{self._base}{listed.path}".rpartition("/")[2]
        entity["link"] = segment
        names = {normalize(name): name for name, shape in members.items() if shape.type == "string"}
        label = next((names[name] for name in _NAMES if name in names), None)
        listing = listed.listing
        can_list = not any(argument.get("required", True) for argument in listing.arguments.values())
        if label is not None and can_list and "{{" not in listing.path:
            search: dict[str, Any] = {
                "call": f"{self._namespace}-api.{listing.name}",
                "items": listed.items[0],
                "match": label,
            }
            by = next((name for name in listing.bindings if normalize(name) == normalize(label)), None)
            if by is not None:
                search["by"] = by
            entity["find"] = [search]
            complete = {"tool": listing.tool, "items": listed.items[0]}
            entity["complete"] = [complete if by is None else {**complete, "search": listing.bindings[by]}]
        if label is not None and label not in ("displayName", "name"):
            entity["labels"] = [label]
        entity["list"] = listing.tool
        return entity

    def _properties(self, shape: Shape) -> Mapping[str, Any]:
        return self._reader.list_properties(shape)

    def _read(self, child: Any, parent: Shape) -> Shape:
        return self._reader.read(child, ignore, parent.trail)


def _mark(argument: dict[str, Any], kind: str, description: str) -> None:
    """Make an argument name an entity. The rules of an id are those of the entity."""
    required = {"required": False} if argument.get("required") is False else {}
    argument.clear()
    argument |= {"type": "string", **required, "description": description, "x-entity": kind}


def _guess_id_form(shape: Shape, parameter: Parameter | None) -> Any:
    """Return what an id looks like: by its type, format, pattern or example; otherwise letters, digits, - and _."""
    schemas = [shape.schema, *([parameter.schema] if parameter is not None else [])]
    if shape.type == "integer" or any(schema.get("type") == "integer" for schema in schemas):
        return {"pattern": "[0-9]{1,19}"}
    for schema in schemas:
        example = as_text(schema.get("example"))
        if schema.get("format") == "uuid" or _UUID.fullmatch(example):
            return "uuid"
        pattern = as_text(schema.get("pattern"))
        if pattern and _is_pattern(pattern):
            return {"pattern": pattern.removeprefix("^").removesuffix("$")}
        if example and not re.fullmatch(r"[\w-]+", example, re.ASCII):
            return {"pattern": r"[^/?#%\\\s]{1,200}"}
    return "word"


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text.removeprefix("^").removesuffix("$"))
    except (re.error, RecursionError, OverflowError):
        return False
    return True
