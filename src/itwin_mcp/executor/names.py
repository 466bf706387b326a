"""The stage `resolve names`: an id, a link, a number, a name or an e-mail address of an entity becomes its id.

What the engine knows of each entity, such as where its names are looked up, is data: see `capability.entities`.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from itwin_mcp.capability.catalog import ChangesetForm, Tool, ToolArgument
from itwin_mcp.capability.entities import WORD, Entity
from itwin_mcp.capability.entity_declarations import ListSearch
from itwin_mcp.capability.expressions import ABSENT
from itwin_mcp.capability.operations import Operation
from itwin_mcp.capability.parameters import Preset
from itwin_mcp.errors import CallError, DetailCode, ErrorCode, InvalidArguments, UnexpectedAnswer
from itwin_mcp.text import clean, make_printable

if TYPE_CHECKING:
    from itwin_mcp.executor.context import CallContext, Caller
    from itwin_mcp.executor.sending import Run

# --- what a text says by itself -----------------------------------------------------------------------------------

_UUID = re.compile(
    r"(?:urn:uuid:)?([0-9a-f]{8})(-?)([0-9a-f]{4})\2([0-9a-f]{4})\2([0-9a-f]{4})\2([0-9a-f]{12})",
    re.ASCII | re.IGNORECASE,
)
"""A UUID as people paste it: with or without its dashes, or as a URN."""
_QUOTES = frozenset("\"'`\u00b4\u00ab\u00bb\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u2039\u203a")

_PORTAL = "my-itwins"
"""The segment of a link to the developer portal before the ids."""
_NO_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_NO_ID = re.compile(rf"{_NO_TEXT.pattern}|[/\\?#%]|\.\.")
MAX_NAME = 255
"""Characters of a name on the platform."""


def read_names(
    arguments: Mapping[str, Any], declared: Sequence[ToolArgument]
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Return the arguments with ids in place of links, and `resolved`: which text was read as which id.

    Raises InvalidArguments, also for names and for a link into another iModel; no request is sent.
    """
    read = dict(arguments)
    resolved: list[dict[str, str]] = []
    for one in declared:
        given = arguments.get(one.name)
        if one.entity is None or not isinstance(given, str):
            continue
        read[one.name] = require_id(given, one.entity, one.name)
        if read[one.name] != given:
            resolved.append({"argument": one.name, "given": given, "id": read[one.name]})
    check_links(declared, arguments, read)
    return read, resolved


def check_links(declared: Sequence[ToolArgument], given: Mapping[str, Any], ids: Mapping[str, Any]) -> None:
    """Check that a link to a part of an iTwin, iModel or repository leads into the one that the call is about.

    An id is unique only within its container: in another one it would be another thing. Raises InvalidArguments.
    """
    for one in declared:
        text = given.get(one.name)
        if one.entity is None or not isinstance(text, str) or not _is_link(text):
            continue
        for container in one.entity.around:
            linked = extract_id(text, container)
            around = {
                other.name: ids[other.name] for other in declared if other.entity is container and ids.get(other.name)
            }
            if linked is None or not around:
                continue
            if linked in around.values():
                if container.is_uuid:
                    break  # It is in one place, whatever the link says; the call's iTwin may be where a copy goes.
                continue
            others = f"{' and '.join(around)} is {' and '.join(around.values())}"
            why = f"is a link into the {container.kind} {linked}, but {others}"
            raise InvalidArguments(
                f"{one.name} {make_printable(text)!r} {why}; nothing was done.",
                hint=f"Give the {' or '.join(around)} that the link names, or an id from the other one.",
                details=[{"code": DetailCode.INVALID_ARGUMENT, "target": one.name, "message": f"{one.name} {why}"}],
            )


def extract_id(given: str, entity: Entity) -> str | None:
    """Extract the id from an id or a platform link, as the platform writes it. Return None if there is none.

    Whitespace, quotes and braces around either are ignored. A UUID may be a URN or lack its dashes.
    """
    given = strip_quotes(given)
    for found in (given, _id_in_link(given, entity)):
        if found is None:
            continue
        # Whatever a file's pattern allows, an id never adds or climbs a path segment.
        if entity.pattern is not None and entity.pattern.fullmatch(found) and not _NO_ID.search(found):
            return found.lower() if entity.lower else found
        uuid = _UUID.fullmatch(found) if entity.is_uuid else None
        if uuid is not None:
            return "-".join(uuid.group(1, 3, 4, 5, 6)).lower()
    return None


def may_be_either(given: str, entity: Entity) -> bool:
    """Return whether a text may be an id of the kind as well as a name: a single word where ids are words."""
    text = strip_quotes(given)
    return entity.ids_are_words and WORD.fullmatch(text) is not None and _UUID.fullmatch(text) is None


def strip_quotes(given: str) -> str:
    """Remove whitespace, quotes and braces around a text."""
    text = given.strip()
    while len(text) > 1 and ((text[0] == "{" and text[-1] == "}") or (text[0] in _QUOTES and text[-1] in _QUOTES)):
        text = text[1:-1].strip()
    return text


def may_be_name(given: str) -> bool:
    """Return whether a text that is not an id may be a name to look up: it is only sent as the value of a query."""
    return len(given) <= MAX_NAME and given.strip() != "" and not (_NO_TEXT.search(given) or _is_link(given))


def require_id(given: str, entity: Entity, argument: str) -> str:
    """Return the id in a text: the id itself, or from a link of the platform. Raises InvalidArguments."""
    found = extract_id(given, entity)
    if found is None:
        raise refuse_text(given, entity, argument)
    return found


def refuse_text(
    given: str, entity: Entity, argument: str, because: str = "", *, named: bool = False
) -> InvalidArguments:
    """Return the refusal of a text that names nothing.

    `because` says why it is not looked up; `named` that other texts would be.
    """
    noun = "id of the kind " + entity.kind
    if _is_link(given):
        why = f"is a link, but has no {noun} in it"
    elif (_NO_TEXT if named else _NO_ID).search(given):
        why = f"has characters that no id has{', nor a name' if named else ''}"
    elif named:
        why = f"is no id, no link and no name: that has 1 to {MAX_NAME} characters"
    else:
        why = f"is neither an {noun} nor a link to one{because}"
    return InvalidArguments(
        f"{argument} {make_printable(given)!r} {why}; nothing was sent.",
        hint=entity.hint,
        details=[{"code": DetailCode.INVALID_ARGUMENT, "target": argument, "message": f"{argument} {why}"}],
    )


def _id_in_link(given: str, entity: Entity) -> str | None:
    """Return the id in a link of the platform, of the entity's own API or of ours (`itwin://…`); it is not followed."""
    if entity.segment is None or not given.isprintable() or " " in given:
        return None
    try:
        parts = urlsplit(given)
        host = parts.hostname or ""
    except ValueError:
        return None
    if parts.scheme == "itwin":
        segments = [host, *parts.path.split("/")[1:]]
    elif f"{parts.scheme}://{parts.netloc.lower()}" in entity.origins or (
        parts.scheme in ("https", "http")
        and (host.endswith(".bentley.com") or host in ("bentley.com", "localhost", "127.0.0.1", "::1"))
    ):
        segments = parts.path.split("/")[1:]
    else:
        return None
    lowered = [segment.lower() for segment in segments]
    for index, segment in enumerate(lowered[:-1]):
        if segment == entity.segment:
            return segments[index + 1]
        if segment == _PORTAL and entity.portal is not None:
            return next(iter(segments[index + entity.portal :]), None)
    return None


def _is_link(given: str) -> bool:
    return re.fullmatch(r"(https?|itwin)://\S+", strip_quotes(given)) is not None


# --- changesets: the latest, the baseline, an id, an index, or a named version ----------------------------------

PAGES: Final = (5, 100, 1000)
"""How many changesets each request for the latest one reads. Usually at most one has no file yet."""
MAX_DIGITS: Final = 9
"""Digits of an index; what has more is an id."""
_BASELINE: Final = "baseline"
_UPLOADED: Final = "fileuploaded"


@dataclass(frozen=True, slots=True)
class Changeset:
    """A changeset by its id, its index or both; None is unknown."""

    id: str | None
    index: int | None

    @property
    def told(self) -> dict[str, Any]:
        """The members of its entry in `resolved`."""
        members = {"id": self.id or None, "index": self.index}
        return {name: value for name, value in members.items() if value is not None}

    def as_taken(self, form: ChangesetForm) -> Any:
        """Return what is sent: ABSENT to leave the argument out, None if what the operation takes is unknown."""
        if self == BASELINE:
            return {"index": "0", "empty": "", "absent": ABSENT, None: None}[form.baseline]
        if self.id is None and not form.only_id:
            return str(self.index)
        return self.id


BASELINE: Final = Changeset("", 0)
"""The state before the first changeset, as the platform counts it."""


def is_latest(text: str) -> bool:
    return strip_quotes(text).casefold() == "latest"


def read_changeset(text: str, entity: Entity) -> Changeset | None:
    """Parse `baseline`, a changeset id, an index, or a link that contains one. Return None for any other text."""
    if strip_quotes(text).casefold() == _BASELINE:
        return BASELINE
    found = extract_id(text, entity)
    if found is None:
        return None
    if len(found) > MAX_DIGITS or not found.isdigit():
        return Changeset(found, None)
    return Changeset(None, int(found)) if int(found) > 0 else BASELINE


def refuse_baseline(argument: str, text: str, tool: str) -> InvalidArguments:
    """Return the error for a baseline where the operation needs a changeset."""
    why = f"is the baseline, which {tool} does not take: it needs a changeset"
    return InvalidArguments(
        f"{argument} {make_printable(text)!r} {why}; nothing was done.",
        hint="See with list-changesets which changesets the iModel has, if any.",
        details=[{"code": DetailCode.INVALID_ARGUMENT, "target": argument, "message": f"{argument} {why}"}],
    )


def refuse_unread(argument: str, text: str) -> InvalidArguments:
    """Return the error for a changeset that a call would look up, where nothing may be sent."""
    why = "would have to be looked up"
    return InvalidArguments(
        f"{argument} {make_printable(text)!r} {why}; nothing was sent.",
        hint="Give the changeset's id, 40 hexadecimal digits from list-changesets.",
        details=[{"code": DetailCode.INVALID_ARGUMENT, "target": argument, "message": f"{argument} {why}"}],
    )


def changeset_of(item: Any, entity: Entity) -> Changeset:
    """Return the changeset in an answer. Raises UnexpectedAnswer if it has no id."""
    return _changeset(item, entity, "id", "index")


def changeset_of_version(item: Any, entity: Entity) -> Changeset:
    """Return the changeset that a named version marks.

    Raises UnexpectedAnswer where the answer leaves that open: a missing id alone does not mean the baseline.
    """
    if isinstance(item, Mapping) and not item.get("changesetId") and _index(item.get("changesetIndex")) == 0:
        return BASELINE
    return _changeset(item, entity, "changesetId", "changesetIndex")


def newest_uploaded(items: Any, entity: Entity) -> tuple[Changeset | None, int]:
    """Return the first of these changesets, newest first, whose file is uploaded, and the lowest index among them.

    A named version cannot be deleted, so that nothing is guessed here. Raises UnexpectedAnswer if a state or an index
    cannot be read.
    """
    if not isinstance(items, list):
        raise _unreadable()
    lowest = 1
    for item in items:
        changeset = changeset_of(item, entity)
        if changeset.index is None or not isinstance(item.get("state"), str):
            raise _unreadable()
        if item["state"].casefold() == _UPLOADED:
            return changeset, changeset.index
        lowest = changeset.index
    return None, lowest


def _changeset(item: Any, entity: Entity, id_name: str, index_name: str) -> Changeset:
    text = item.get(id_name) if isinstance(item, Mapping) else None
    found = read_changeset(text, entity) if isinstance(text, str) else None
    if found is None or not found.id:
        raise _unreadable()
    return Changeset(found.id, _index(item.get(index_name)))


def _index(value: Any) -> int | None:
    """Return an index that came as a number or as its text."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value[:10])
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _unreadable() -> UnexpectedAnswer:
    return UnexpectedAnswer(
        "The platform's answer does not say which changeset is meant; nothing was done.",
        hint="Take the changeset's id from list-changesets, and call again with it.",
    )


# --- what is looked up --------------------------------------------------------------------------------------------

SECONDS = 60.0
"""How long the id of a name is remembered."""
MAX_REMEMBERED = 1_000
MAX_SHOWN = 10
"""Candidates that an error lists."""
MAX_NAMES = 10
"""Names in one list that are looked up: with two requests each they leave some of a reading call's 25."""


_LAST = 2
"""The order of what is looked up in a container."""
_SHOWN = ("id", "displayName", "name", "number", "subClass", "status", "iTwinId", "createdDateTime", "email")


class Names:
    """Looks up names with at most two requests an argument, and remembers the ids for a minute, per caller.

    A name must match exactly. Several matches are an error that lists them: a wrong guess could change another project.
    """

    def __init__(self, operations: Mapping[str, Operation], presets: Mapping[str, Preset] | None = None) -> None:
        """`operations` are those of the catalog; `presets` the ids that arguments have by default."""
        self._operations = operations
        self._presets = presets or {}
        self._remembered: OrderedDict[tuple[str, str, str, str], tuple[str, Mapping[str, Any], float]] = OrderedDict()

    async def resolve_names(self, context: CallContext) -> CallContext:
        """Stage: put ids in place of the names in a call's arguments. Raises CallError; see `resolve`."""
        arguments, resolved = await self.resolve(context.run, context.tool, context.given, context.arguments)
        return replace(context, arguments=arguments, resolved=resolved)

    async def resolve(
        self, run: Run, tool: Tool, given: Mapping[str, Any], arguments: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return the arguments with ids in place of names, and `resolved`: which text was read as which id.

        `given` are the caller's arguments, `arguments` the same with defaults. A text that cannot be a name is refused
        before any request. A changeset becomes the id or index that the operation takes; the baseline may leave its
        argument out. A destructive tool takes names too: the user who confirms is shown the id. Raises
        InvalidArguments, AmbiguousName, NameNotFound, or what a look-up raises.
        """
        arguments, lists = _spread_lists(tool, arguments)
        every = (*tool.arguments, *(element for elements in lists.values() for element in elements))
        named = [one for one in every if one.entity is not None and isinstance(arguments.get(one.name), str)]
        # All that can be said without a request comes first, for all arguments: one refusal names every problem.
        ids = self._ids(tool, named, arguments)
        _check_how_many(lists, ids)
        told: dict[str, dict[str, Any]] = {}
        for one in sorted(named, key=_order):
            if _order(one) == _LAST:
                check_links(named, arguments, ids)  # before anything is looked for in the iModel of the call
            text = arguments[one.name]
            about, more = await self._settle(run, tool, one, text, ids)
            if one.preset is not None and one.name not in given:
                more["preset"] = one.preset
            if ids[one.name] != text or more:
                told[one.name] = {"argument": one.name, "given": text, **about, **more}
        check_links(named, arguments, ids)  # once more, now that what things are in is known
        ready = _gather_lists(lists, {**arguments, **ids})
        return ready, [told[one.name] for one in named if one.name in told]

    async def _settle(
        self, run: Run, tool: Tool, one: ToolArgument, text: str, ids: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Look up what is not in `ids` yet. Return its entry in `resolved`, and further members of it."""
        if one.changeset is None:
            more: dict[str, Any] = {}
            if ids[one.name] is None:
                ids[one.name], more = await self._look_up(run, tool, one, text, ids)
            return {"id": ids[one.name]}, more
        assert one.entity is not None
        changeset = read_changeset(text, one.entity)
        if changeset is None or ids[one.name] is None:
            changeset = await self._changeset(run, tool, one, text, ids)
            ids[one.name] = _taken(tool, one, text, changeset)
        return changeset.told, {}

    def known(self, tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments with ids in place of links. Nothing is sent, so a name is refused.

        Raises InvalidArguments.
        """
        arguments, lists = _spread_lists(tool, arguments)
        every = (*tool.arguments, *(element for elements in lists.values() for element in elements))
        read = dict(arguments)
        for one in every:
            text = arguments.get(one.name)
            if one.entity is not None and isinstance(text, str):
                read[one.name] = self._by_itself(tool, one, text)
                if read[one.name] is None and may_be_either(text, one.entity):
                    read[one.name] = extract_id(text, one.entity)
                if read[one.name] is None:
                    if one.changeset is not None:
                        raise refuse_unread(one.name, text)
                    why = "; if it is a name, a call would have to look for it"
                    raise refuse_text(text, one.entity, one.name, why)
        check_links(every, arguments, read)
        return _gather_lists(lists, read)

    def forget(self, caller: Caller) -> None:
        """Forget what a caller looked up: after a write a name may mean another thing."""
        for key in [key for key in self._remembered if key[0] == caller.key]:
            del self._remembered[key]

    # --- what a text says by itself -----------------------------------------------------------------------------

    def _ids(self, tool: Tool, named: Sequence[ToolArgument], arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the id in each text; None for one to look up. Raises InvalidArguments for all others at once."""
        ids: dict[str, Any] = {}
        refusals: list[InvalidArguments] = []
        for one in named:
            try:
                ids[one.name] = self._by_itself(tool, one, arguments[one.name])
            except InvalidArguments as error:
                refusals.append(error)
        if refusals:
            raise InvalidArguments(
                " ".join(error.message for error in refusals),
                hint=" ".join(dict.fromkeys(error.hint for error in refusals)),
                details=[detail for error in refusals for detail in error.details],
            )
        return ids

    def _by_itself(self, tool: Tool, one: ToolArgument, text: str) -> Any:
        """Return the id in a text; None if it must be looked up. Raises InvalidArguments if it cannot be."""
        entity = one.entity
        assert entity is not None
        if one.changeset is None:
            found, reads = extract_id(text, entity), False
        else:
            changeset = read_changeset(text, entity)
            found = None if changeset is None else _taken(tool, one, text, changeset)
            marks = entity.marked_by is not None and extract_id(text, entity.marked_by) is not None
            reads = changeset is not None or marks
        searches = self._searches(tool, entity)
        if found is not None:
            return None if searches and may_be_either(text, entity) else found
        if not searches or (all(search.form == "e-mail" for search in searches) and "@" not in text):
            raise refuse_text(text, entity, one.name, ", nor an e-mail address" if searches else "")
        if not reads and not may_be_name(text):
            raise refuse_text(text, entity, one.name, named=True)
        return None

    def _searches(self, tool: Tool, entity: Entity) -> Sequence[ListSearch]:
        """Return the lists in which an entity can be found; none if the catalog lacks an operation for it.

        A name is looked up in its container if the call names one, otherwise in the lists that need none.
        """
        named = entity.marked_by or entity
        searches = named.searches
        needed = {*entity.calls, *named.calls}
        if named.parent is not None and named.parent_is_assumed:
            needed |= {named.parent.recent.call} if named.parent.recent is not None else set()
        elif named.parent is not None:
            argument = _find_container(tool, named.parent)
            searches = tuple(search for search in searches if (search.within is not None) == (argument is not None))
            if argument is not None and argument.entity is not named.parent:
                needed |= {argument.entity.read.call} if argument.entity and argument.entity.read else set()
        return searches if needed <= self._operations.keys() else ()

    # --- what is looked for -------------------------------------------------------------------------------------

    async def _look_up(
        self, run: Run, tool: Tool, one: ToolArgument, text: str, ids: Mapping[str, str | None]
    ) -> tuple[str, dict[str, Any]]:
        """Return the id of the only thing with this name, and further members of its entry in `resolved`."""
        entity = one.entity
        assert entity is not None
        named = entity.marked_by or entity
        try:
            searches = self._searches(tool, entity)
            within, where, told = await self._place(run, tool, named, searches, ids)
            # By caller, because two callers may see different things of the same name.
            key = (run.caller.key, entity.kind, within or "", text)
            remembered, what = self._recall(run, key)
            if remembered is not None:
                return remembered, told | dict(what)
            found, near, search = await self._find(run, searches, text, within, named)
        except CallError as error:
            why = f"This was the look-up of {one.name} by name; {tool.name} itself was not called."
            raise error.amended(before=why) from None
        # The case of an e-mail address does not matter; that of a name may.
        if search is not None and search.form == "e-mail":
            found = found or near
        # Where ids are words, a text may be either; a name comes first.
        identifier = extract_id(text, named) if may_be_either(text, named) else None
        if not found and identifier is not None:
            found = [{"id": identifier}]
        if len(found) != 1:
            raise _several(one, text, found, where) if found else _none(one, text, near, where)
        # A text may be the number of one iTwin and the name of another: it is said what was found by its number.
        what = {}
        if search is not None and search.note is not None:
            what = {"by": search.match, "name": str(found[0].get(search.note))}
        elif entity.sequence is not None:
            what = {name: found[0].get(name) for name in ("changesetId", "changesetIndex")}
        self._remember(run, key, found[0]["id"], what)
        return found[0]["id"], {**told, **what}

    async def _place(
        self, run: Run, tool: Tool, named: Entity, searches: Sequence[ListSearch], ids: Mapping[str, str | None]
    ) -> tuple[str | None, str, dict[str, Any]]:
        """Return the id of the container in which a name is looked up, the same in words, and members of `resolved`."""
        told: dict[str, Any] = {}
        everywhere = next((search.where for search in searches if search.where is not None), f"the {named.noun} list")
        if named.parent is None:
            return None, everywhere, told
        if not named.parent_is_assumed:
            within, where = await self._read_container(run, tool, named.parent, ids)
            return within, where or everywhere, told
        within, where = self._assume(tool, named.parent, ids)
        if within is None:
            within, noun = await self._latest(run, named.parent), named.parent.noun
            where = f"the {noun} {within}, which you used last" if within else f"the {noun}s that you used lately"
            told["searched"] = where
        return within, where, told

    async def _find(
        self, run: Run, searches: Sequence[ListSearch], text: str, within: str | None, named: Entity
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]], ListSearch | None]:
        """Return the matches in the first list that has any, those that differ only in case, and that list.

        If the text may be an id as well, a thing with that id matches too.
        """
        near: list[dict[str, Any]] = []
        identifier = extract_id(text, named) if may_be_either(text, named) else None
        last = None
        for search in searches:
            if search.within is not None and within is None:
                continue
            last = search
            values: dict[str, Any] = dict(search.with_)
            if search.by is not None:
                values[search.by] = text
            if search.within is not None:
                values[search.within] = within
            items = await self._items(run, search.call, values, search.items, named)
            found = [item for item in items if item.get(search.match) == text or item["id"] == identifier]
            if found:
                return found, [], search
            near += [item for item in items if str(item.get(search.match)).casefold() == text.casefold()]
        return [], near, last

    async def _changeset(
        self, run: Run, tool: Tool, one: ToolArgument, text: str, ids: Mapping[str, str | None]
    ) -> Changeset:
        """Return the changeset that a text names: the latest, one by its index, or that of a named version."""
        entity = one.entity
        assert entity is not None
        assert entity.sequence is not None
        said, reads = read_changeset(text, entity), entity.sequence
        mark = extract_id(text, entity.marked_by) if entity.marked_by is not None else None
        argument = _find_container(tool, entity.parent) if entity.parent is not None else None
        within = ids.get(argument.name) if argument is not None else None
        try:
            if is_latest(text):
                return await self._latest_changeset(run, entity, within)
            if said is not None:
                values = {reads.one.within: within, reads.one.input: str(said.index)}
                return changeset_of(await self._read(run, reads.one.call, values, reads.one.item), entity)
            if mark is not None:
                values = {reads.marked.within: within, reads.marked.input: mark}
                return changeset_of_version(await self._read(run, reads.marked.call, values, reads.marked.item), entity)
        except CallError as error:
            why = f"This was the look-up of {one.name}; {tool.name} itself was not called."
            raise error.amended(before=why) from None
        return changeset_of_version((await self._look_up(run, tool, one, text, ids))[1], entity)

    async def _latest_changeset(self, run: Run, entity: Entity, within: str | None) -> Changeset:
        """Return the newest changeset with an uploaded file, or the baseline; never remembered: others push, too."""
        assert entity.sequence is not None
        newest = entity.sequence.newest
        values: dict[str, Any] = {newest.within: within, **newest.with_}
        for size in PAGES:
            items = await self._read(run, newest.call, values | {newest.size: size}, newest.items)
            found, lowest = newest_uploaded(items, entity)
            if found is not None:
                return found
            if lowest <= 1:
                return BASELINE
            values[newest.below] = lowest - 1
        container = entity.parent.noun if entity.parent is not None else "list"
        raise CallError(
            ErrorCode.NAME_NOT_FOUND,
            f"None of the newest {sum(PAGES)} {entity.noun}s of the {container} {within} has its file; "
            "nothing was done.",
            hint=f"Find an earlier {entity.noun} with {entity.listing}, and call again with its id.",
        )

    async def _read(self, run: Run, operation: str, values: Mapping[str, Any], member: str) -> Any:
        body = (await run.perform(self._operations[operation], values)).body
        return body.get(member) if isinstance(body, dict) else None

    def _assume(self, tool: Tool, parent: Entity, ids: Mapping[str, str | None]) -> tuple[str | None, str]:
        """Return the container in which a name is looked up: what the call names, or the preset.

        In a writing tool the argument is the destination instead.
        """
        given = ids.get(parent.argument) if tool.annotations.read_only else None
        if given is not None:
            return given, f"the {parent.noun} {given}"
        preset = self._presets.get(parent.argument)
        return (preset.id, f"the {parent.noun} {preset.id} ({preset.setting})") if preset is not None else (None, "")

    async def _read_container(
        self, run: Run, tool: Tool, parent: Entity, ids: Mapping[str, str | None]
    ) -> tuple[str | None, str | None]:
        """Return the id of the container of the call, read if need be, and the same in words; None if there is none."""
        argument = _find_container(tool, parent)
        if argument is None or argument.entity is None:
            return None, None
        given, entity = ids.get(argument.name), argument.entity
        if entity is parent or entity.read is None:
            return given, f"the {parent.noun} {given}"
        body = (await run.perform(self._operations[entity.read.call], {entity.read.input: given})).body
        found = entity.read.parent.find(body)
        parent_id = extract_id(found, parent) if isinstance(found, str) else None
        return parent_id, f"the {parent.noun} of the {entity.noun} {given}"

    async def _latest(self, run: Run, parent: Entity) -> str | None:
        if parent.recent is None:
            return None
        key = (run.caller.key, "latest", parent.kind, "")
        remembered, _ = self._recall(run, key)
        if remembered is not None:
            return remembered
        recent = await self._items(run, parent.recent.call, parent.recent.with_, parent.recent.items, parent)
        if not recent:
            return None
        self._remember(run, key, recent[0]["id"], {})
        return str(recent[0]["id"])

    async def _items(
        self, run: Run, call: str, values: Mapping[str, Any], member: str, entity: Entity
    ) -> list[dict[str, Any]]:
        items = await self._read(run, call, values, member)
        known = items if isinstance(items, list) else []
        # What came as anything but an id could not stand in a path.
        ids = [extract_id(str(item.get("id")), entity) if isinstance(item, dict) else None for item in known]
        return [{**item, "id": found} for item, found in zip(known, ids, strict=True) if found is not None]

    # --- memory -------------------------------------------------------------------------------------------------

    def _recall(self, run: Run, key: tuple[str, str, str, str]) -> tuple[str | None, Mapping[str, Any]]:
        found, what, until = self._remembered.get(key, ("", {}, 0.0))
        return (found, what) if found and run.now() < until else (None, {})

    def _remember(self, run: Run, key: tuple[str, str, str, str], identifier: str, what: Mapping[str, Any]) -> None:
        """Remember an id; `what` are further members of its entry in `resolved`."""
        self._remembered[key] = (identifier, what, run.now() + SECONDS)
        self._remembered.move_to_end(key)
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)


def _spread_lists(tool: Tool, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, list[ToolArgument]]]:
    """Return the arguments with each element of a list of entities as one of its own, and those by their list.

    An element is called like `iTwinIds[0]`, which no argument of a tool can be.
    """
    spread = dict(arguments)
    lists: dict[str, list[ToolArgument]] = {}
    for argument in tool.arguments:
        texts = arguments.get(argument.name)
        if argument.entity is None or not isinstance(texts, list):
            continue
        del spread[argument.name]
        lists[argument.name] = []
        for index, text in enumerate(texts):
            element = replace(argument, name=f"{argument.name}[{index}]")
            lists[argument.name].append(element)
            spread[element.name] = text
    return spread, lists


def _gather_lists(lists: Mapping[str, Sequence[ToolArgument]], values: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments with each list in place of its elements."""
    gathered = {name: value for name, value in values.items() if value is not ABSENT}
    for name, elements in lists.items():
        gathered[name] = [gathered.pop(element.name) for element in elements]
    return gathered


def _check_how_many(lists: Mapping[str, Sequence[ToolArgument]], ids: Mapping[str, Any]) -> None:
    """Raises InvalidArguments if the names in lists would take too many requests to look up."""
    for name, elements in lists.items():
        names = sum(ids[element.name] is None for element in elements)
        if names > MAX_NAMES:
            why = f"{name} has {names} names, but at most {MAX_NAMES} are looked up in one call"
            raise InvalidArguments(
                f"{why}; nothing was sent.",
                hint="Give ids in place of names, or call several times.",
                details=[{"code": DetailCode.INVALID_ARGUMENT, "target": name, "message": why}],
            )


def _order(one: ToolArgument) -> int:
    """Return when an argument is resolved: containers come first, because other names are looked up in them."""
    entity = one.entity
    if entity is None or entity.parent is None:
        return 0
    return 1 if entity.parent_is_assumed or entity.read is not None else _LAST


def _find_container(tool: Tool, parent: Entity) -> ToolArgument | None:
    """Return the argument that names the container of the call, or else a thing whose container can be read.

    It is always there; of several, it is the one that is called like the entity. None if there is none.
    """
    there = [one for one in tool.arguments if one.is_one and (one.required or one.default is not ABSENT)]
    direct = [one for one in there if one.entity is parent]
    through = [one for one in there if one.entity is not None and one.entity.parent is parent and one.entity.read]
    for candidates in (direct, through):
        called = [one for one in candidates if one.entity is not None and one.name == one.entity.argument]
        if called or len(candidates) == 1:
            return (called or candidates)[0]
    return None


def _taken(tool: Tool, one: ToolArgument, text: str, changeset: Changeset) -> Any:
    """Return what the operation takes for a changeset; None if its id must be looked up. Raises InvalidArguments."""
    assert one.changeset is not None
    value = changeset.as_taken(one.changeset)
    if value is None and changeset == BASELINE:
        raise refuse_baseline(one.name, text, tool.name)
    return value


def _several(one: ToolArgument, text: str, found: Sequence[Mapping[str, Any]], where: str) -> CallError:
    why = f"{one.name} {make_printable(text)!r} is the name of {len(found)} of the kind {_noun(one)} in {where}"
    return CallError(
        ErrorCode.AMBIGUOUS_NAME,
        f"{why}; nothing was done.",
        hint="Ask the person which one is meant, and call again with its id from candidates.",
        target=one.name,
        details=[{"code": ErrorCode.AMBIGUOUS_NAME, "target": one.name, "message": why}],
        members={"candidates": [_brief(item, one) for item in found[:MAX_SHOWN]]},
    )


def _none(one: ToolArgument, text: str, near: Sequence[Mapping[str, Any]], where: str) -> CallError:
    why = f"{one.name} {make_printable(text)!r} is the exact name of nothing of the kind {_noun(one)} in {where}"
    assert one.entity is not None
    hint = one.entity.hint
    if near:
        hint = f"candidates differ from it only in capital letters: call again with the id of the one meant. {hint}"
    return CallError(
        ErrorCode.NAME_NOT_FOUND,
        f"{why}; nothing was done.",
        hint=hint,
        target=one.name,
        details=[{"code": ErrorCode.NAME_NOT_FOUND, "target": one.name, "message": why}],
        members={"candidates": [_brief(item, one) for item in near[:MAX_SHOWN]]} if near else None,
    )


def _noun(one: ToolArgument) -> str:
    """Return what is looked for by name: for a changeset the named version that marks it."""
    assert one.entity is not None
    return (one.entity.marked_by or one.entity).kind


def _brief(item: Mapping[str, Any], one: ToolArgument) -> dict[str, Any]:
    labels = one.entity.labels if one.entity is not None else ()
    shown = dict.fromkeys((*_SHOWN, *labels))
    return {name: clean(item[name]) for name in shown if isinstance(item.get(name), str)}
