"""The stage `resolve names`: replaces links, numbers, names and e-mail addresses in arguments by ids.

How ids of an entity look and where its names are looked up is data: see `capability.entities`.
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
from itwin_mcp.capability.expressions import ABSENT
from itwin_mcp.capability.operations import Operation
from itwin_mcp.capability.parameters import Preset
from itwin_mcp.errors import CallError, DetailCode, ErrorCode, InvalidArguments, UnexpectedAnswer
from itwin_mcp.executor.bounded_cache import store_entry
from itwin_mcp.text import clean, make_printable

if TYPE_CHECKING:
    from itwin_mcp.capability.entity_declarations import ListSearch
    from itwin_mcp.executor.context import CallContext, Caller
    from itwin_mcp.executor.sending import Run

# --- ids in texts, read without a request -------------------------------------------------------------------------

_UUID = re.compile(
    r"(?:urn:uuid:)?([0-9a-f]{8})(-?)([0-9a-f]{4})\2([0-9a-f]{4})\2([0-9a-f]{4})\2([0-9a-f]{12})",
    re.ASCII | re.IGNORECASE,
)
"""A UUID as people paste it: with or without dashes, or as a URN."""
_QUOTES = frozenset("\"'`\u00b4\u00ab\u00bb\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u2039\u203a")

_PORTAL_SEGMENT = "my-itwins"
"""The path segment before the ids in a link to the developer portal."""
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_INVALID_IN_ID = re.compile(rf"{_CONTROL_CHARACTERS.pattern}|[/\\?#%]|\.\.")
MAX_NAME = 255
"""The maximum length of a name on the platform, in characters."""


def replace_links(arguments: Mapping[str, Any], declared: Sequence[ToolArgument]) -> dict[str, Any]:
    """Return the arguments with ids in place of links. No request is sent.

    Raises: InvalidArguments for a name, or for a link into another iModel.
    """
    ids = dict(arguments)
    for argument in declared:
        text = arguments.get(argument.name)
        if argument.entity is not None and isinstance(text, str):
            ids[argument.name] = require_id(text, argument.entity, argument.name)
    check_links(declared, arguments, ids)
    return ids


def check_links(declared: Sequence[ToolArgument], arguments: Mapping[str, Any], ids: Mapping[str, Any]) -> None:
    """Check that each link leads into the iTwin, iModel or repository that the other arguments name.

    Some ids are unique only within their container, so the same id elsewhere would be another thing.

    Raises: InvalidArguments for a link into another container.
    """
    for argument in declared:
        text = arguments.get(argument.name)
        if argument.entity is None or not isinstance(text, str) or not _is_link(text):
            continue
        for container in argument.entity.around:
            linked = extract_id(text, container)
            containers = {
                other.name: ids[other.name] for other in declared if other.entity is container and ids.get(other.name)
            }
            if linked is None or not containers:
                continue
            if linked in containers.values():
                if container.is_uuid:
                    break  # A UUID is globally unique. Outer containers may differ: the iTwin may be a copy's target.
                continue
            named = f"{' and '.join(containers)} is {' and '.join(containers.values())}"
            why = f"is a link into the {container.kind} {linked}, but {named}"
            hint = f"Give the {' or '.join(containers)} that the link names, or an id from the other one."
            raise _refuse_argument(argument.name, text, why, hint)


def extract_id(text: str, entity: Entity) -> str | None:
    """Extract the id from an id or a platform link, in the platform's spelling. Return None if there is none.

    Whitespace, quotes and braces around the text are ignored. A UUID may be a URN or lack its dashes.
    """
    text = strip_quotes(text)
    for candidate in (text, _find_id_in_link(text, entity)):
        if candidate is None:
            continue
        # A user's capability file may declare any pattern; an id must still fit into one path segment.
        if entity.pattern is not None and entity.pattern.fullmatch(candidate) and not _INVALID_IN_ID.search(candidate):
            return candidate.lower() if entity.lower else candidate
        uuid = _UUID.fullmatch(candidate) if entity.is_uuid else None
        if uuid is not None:
            return "-".join(uuid.group(1, 3, 4, 5, 6)).lower()
    return None


def may_be_id_or_name(text: str, entity: Entity) -> bool:
    """Return whether a text may be either an id or a name: a single word of an entity whose ids are words."""
    word = strip_quotes(text)
    return entity.ids_are_words and WORD.fullmatch(word) is not None and _UUID.fullmatch(word) is None


def strip_quotes(text: str) -> str:
    """Remove whitespace, quotes and braces around a text."""
    text = text.strip()
    while len(text) > 1 and ((text[0] == "{" and text[-1] == "}") or (text[0] in _QUOTES and text[-1] in _QUOTES)):
        text = text[1:-1].strip()
    return text


def may_be_name(text: str) -> bool:
    """Return whether a text that is not an id may be a name, which is sent only as a query value."""
    return len(text) <= MAX_NAME and text.strip() != "" and not (_CONTROL_CHARACTERS.search(text) or _is_link(text))


def require_id(text: str, entity: Entity, argument: str) -> str:
    """Return the id in an id or a platform link. Raises InvalidArguments for any other text."""
    identifier = extract_id(text, entity)
    if identifier is None:
        raise refuse_text(text, entity, argument)
    return identifier


def refuse_text(
    text: str, entity: Entity, argument: str, because: str = "", *, named: bool = False
) -> InvalidArguments:
    """Return the error for a text that is not an id, a link or, where names are looked up (`named`), a name.

    `because` is appended to the message; it says why the text is not looked up.
    """
    noun = "id of the kind " + entity.kind
    if _is_link(text):
        why = f"is a link, but has no {noun} in it"
    elif (_CONTROL_CHARACTERS if named else _INVALID_IN_ID).search(text):
        why = f"has characters that no id has{', nor a name' if named else ''}"
    elif named:
        why = f"is not an id, a link or a name, which has 1 to {MAX_NAME} characters"
    else:
        why = f"is neither an {noun} nor a link to one{because}"
    return _refuse_argument(argument, text, why, entity.hint, effect="nothing was sent")


def _refuse_argument(
    argument: str, text: str, why: str, hint: str, *, effect: str = "nothing was done"
) -> InvalidArguments:
    return InvalidArguments(
        f"{argument} {make_printable(text)!r} {why}; {effect}.",
        hint=hint,
        details=[{"code": DetailCode.INVALID_ARGUMENT, "target": argument, "message": f"{argument} {why}"}],
    )


def _find_id_in_link(link: str, entity: Entity) -> str | None:
    """Return the id in a link to the platform, to the entity's own API, or of the form `itwin://…`.

    The link is only parsed, never requested.
    """
    if entity.segment is None or not link.isprintable() or " " in link:
        return None
    try:
        parts = urlsplit(link)
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
        if segment == _PORTAL_SEGMENT and entity.portal is not None:
            return next(iter(segments[index + entity.portal :]), None)
    return None


def _is_link(text: str) -> bool:
    return re.fullmatch(r"(https?|itwin)://\S+", strip_quotes(text)) is not None


# --- changesets: the latest, the baseline, an id, an index, or a named version ----------------------------------

PAGE_SIZES: Final = (5, 100, 1000)
"""The page sizes of the requests for the latest changeset.

The first is small because usually at most one changeset has no file yet.
"""
MAX_DIGITS: Final = 9
"""The maximum length of an index. A longer number is an id."""
_BASELINE: Final = "baseline"
_UPLOADED: Final = "fileuploaded"


@dataclass(frozen=True, slots=True)
class Changeset:
    """A changeset, identified by its id, its index or both. None means unknown."""

    id: str | None
    index: int | None

    @property
    def entry(self) -> dict[str, Any]:
        """The members that `resolved` shows."""
        members = {"id": self.id or None, "index": self.index}
        return {name: value for name, value in members.items() if value is not None}

    def to_argument(self, form: ChangesetForm) -> Any:
        """Return the value to send, ABSENT to omit the argument, or None if the operation needs an unknown id."""
        if self == BASELINE:
            return {"index": "0", "empty": "", "absent": ABSENT, None: None}[form.baseline]
        if self.id is None and not form.only_id:
            return str(self.index)
        return self.id


BASELINE: Final = Changeset("", 0)
"""The state of an iModel before its first changeset; the platform gives it the index 0."""


def is_latest(text: str) -> bool:
    return strip_quotes(text).casefold() == "latest"


def read_changeset(text: str, entity: Entity) -> Changeset | None:
    """Parse `baseline`, a changeset id, an index, or a link that contains one. Return None for any other text."""
    if strip_quotes(text).casefold() == _BASELINE:
        return BASELINE
    identifier = extract_id(text, entity)
    if identifier is None:
        return None
    if len(identifier) > MAX_DIGITS or not identifier.isdigit():
        return Changeset(identifier, None)
    return Changeset(None, int(identifier)) if int(identifier) > 0 else BASELINE


def parse_changeset_item(item: Any, entity: Entity) -> Changeset:
    """Return the changeset in an answer. Raises UnexpectedAnswer if it has no id."""
    return _parse_members(item, entity, "id", "index")


def parse_marked_changeset(item: Any, entity: Entity) -> Changeset:
    """Return the changeset that a named version marks.

    A missing id means the baseline only if the index is 0.

    Raises: UnexpectedAnswer if the answer has no id otherwise.
    """
    if isinstance(item, Mapping) and not item.get("changesetId") and _parse_index(item.get("changesetIndex")) == 0:
        return BASELINE
    return _parse_members(item, entity, "changesetId", "changesetIndex")


def find_newest_uploaded(items: Any, entity: Entity) -> tuple[Changeset | None, int]:
    """Return the first changeset with an uploaded file, and the lowest index read; `items` are sorted newest first.

    Nothing is guessed, because a named version of the wrong changeset cannot be deleted.

    Raises: UnexpectedAnswer if a state or an index cannot be read.
    """
    if not isinstance(items, list):
        raise _refuse_unreadable()
    lowest = 1
    for item in items:
        changeset = parse_changeset_item(item, entity)
        if changeset.index is None or not isinstance(item.get("state"), str):
            raise _refuse_unreadable()
        if item["state"].casefold() == _UPLOADED:
            return changeset, changeset.index
        lowest = changeset.index
    return None, lowest


def _parse_members(item: Any, entity: Entity, id_name: str, index_name: str) -> Changeset:
    text = item.get(id_name) if isinstance(item, Mapping) else None
    changeset = read_changeset(text, entity) if isinstance(text, str) else None
    if changeset is None or not changeset.id:
        raise _refuse_unreadable()
    return Changeset(changeset.id, _parse_index(item.get(index_name)))


def _parse_index(value: Any) -> int | None:
    """Return an index that the platform sent as a number or as text. Return None for any other value."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value[:10])
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _refuse_unreadable() -> UnexpectedAnswer:
    return UnexpectedAnswer(
        "The platform's answer does not say which changeset is meant; nothing was done.",
        hint="Take the changeset's id from list-changesets, and call again with it.",
    )


# --- look-ups on the platform -------------------------------------------------------------------------------------

SECONDS = 60.0
"""The time for which the id of a name is cached."""
MAX_REMEMBERED = 1_000
MAX_SHOWN = 10
"""The maximum number of candidates that an error lists."""
MAX_NAMES = 10
"""The maximum number of names in one list. A look-up takes two requests, and a reading call may send 25 in all."""
_NEEDS_CONTAINER = 2
"""The rank of names that are looked up in a container, which must be resolved before."""
_CANDIDATE_MEMBERS = (
    "id",
    "displayName",
    "name",
    "number",
    "subClass",
    "status",
    "iTwinId",
    "createdDateTime",
    "email",
)


class Names:
    """Looks up names with at most two requests per argument, and caches their ids for a minute, per caller.

    A name must match exactly. Several matches are an error that lists them, because a wrong guess could change another
    project.
    """

    def __init__(self, operations: Mapping[str, Operation], presets: Mapping[str, Preset] | None = None) -> None:
        """`operations` are those of the catalog; `presets` are default ids by the name of their argument."""
        self._operations = operations
        self._presets = presets or {}
        self._remembered: OrderedDict[tuple[str, str, str, str], tuple[str, Mapping[str, Any], float]] = OrderedDict()

    async def resolve_names(self, context: CallContext) -> CallContext:
        """Stage: replace the names in a call's arguments by ids. Raises CallError; see `resolve`."""
        arguments, resolved = await self.resolve(context.run, context.tool, context.given, context.arguments)
        return replace(context, arguments=arguments, resolved=resolved)

    async def resolve(
        self, run: Run, tool: Tool, given: Mapping[str, Any], arguments: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return the arguments with ids in place of names, and `resolved`: which text was read as which id.

        `given` are the caller's arguments; `arguments` are the same with defaults. A changeset becomes the id or index
        that the operation takes; for the baseline the argument may be omitted. Destructive tools accept names too,
        because the user who confirms is shown the id.

        Raises: InvalidArguments before any request if a text cannot be a name; CallError with the code AmbiguousName or
        NameNotFound; and the errors of the look-ups.
        """
        arguments, named, lists = _spread_lists(tool, arguments)
        # Texts that need no request are checked first, so that one error reports every problem and nothing was sent.
        ids = self._read_ids(tool, named, arguments)
        _check_name_count(lists, ids)
        entries: dict[str, dict[str, Any]] = {}
        for argument in sorted(named, key=_rank):
            if _rank(argument) == _NEEDS_CONTAINER:
                check_links(named, arguments, ids)  # before a name is looked up in the wrong iModel
            text = arguments[argument.name]
            entry, members = await self._resolve_argument(run, tool, argument, text, ids)
            if argument.preset is not None and argument.name not in given:
                members["preset"] = argument.preset
            if ids[argument.name] != text or members:
                entries[argument.name] = {"argument": argument.name, "given": text, **entry, **members}
        check_links(named, arguments, ids)  # again, now that the ids of all containers are known
        complete = _gather_lists(lists, {**arguments, **ids})
        return complete, [entries[argument.name] for argument in named if argument.name in entries]

    async def _resolve_argument(
        self, run: Run, tool: Tool, argument: ToolArgument, text: str, ids: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Add the argument's id to `ids`. Return the id as `resolved` shows it, and further members of that entry."""
        if argument.changeset is None:
            members: dict[str, Any] = {}
            if ids[argument.name] is None:
                ids[argument.name], members = await self._look_up(run, tool, argument, text, ids)
            return {"id": ids[argument.name]}, members
        assert argument.entity is not None
        changeset = read_changeset(text, argument.entity)
        if changeset is None or ids[argument.name] is None:
            changeset = await self._look_up_changeset(run, tool, argument, text, ids)
            ids[argument.name] = _convert_changeset(tool, argument, text, changeset)
        return changeset.entry, {}

    def resolve_offline(self, tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments with ids in place of links, without sending a request.

        Raises: InvalidArguments for a text that needs a look-up, such as a name.
        """
        arguments, named, lists = _spread_lists(tool, arguments)
        ids: dict[str, Any] = {}
        for argument in named:
            text, entity = arguments[argument.name], argument.entity
            assert entity is not None
            identifier = self._read_id(tool, argument, text)
            if identifier is None and may_be_id_or_name(text, entity):
                identifier = extract_id(text, entity)
            if identifier is None and argument.changeset is not None:
                hint = "Give the changeset's id, 40 hexadecimal digits from list-changesets."
                why = "would have to be looked up"
                raise _refuse_argument(argument.name, text, why, hint, effect="nothing was sent")
            if identifier is None:
                why = "; if it is a name, a call would have to look for it"
                raise refuse_text(text, entity, argument.name, why)
            ids[argument.name] = identifier
        check_links(named, arguments, ids)
        return _gather_lists(lists, {**arguments, **ids})

    def forget(self, caller: Caller) -> None:
        """Clear the cached ids of a caller, because after a write a name may belong to another thing."""
        for key in [key for key in self._remembered if key[0] == caller.key]:
            del self._remembered[key]

    # --- without a request ------------------------------------------------------------------------------------------

    def _read_ids(self, tool: Tool, named: Sequence[ToolArgument], arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the id in each text, or None for a name to look up. Raises one InvalidArguments for all texts."""
        ids: dict[str, Any] = {}
        refusals: list[InvalidArguments] = []
        for argument in named:
            try:
                ids[argument.name] = self._read_id(tool, argument, arguments[argument.name])
            except InvalidArguments as error:
                refusals.append(error)
        if refusals:
            raise InvalidArguments(
                " ".join(error.message for error in refusals),
                hint=" ".join(dict.fromkeys(error.hint for error in refusals)),
                details=[detail for error in refusals for detail in error.details],
            )
        return ids

    def _read_id(self, tool: Tool, argument: ToolArgument, text: str) -> Any:
        """Return the id in a text, or None if it must be looked up. Raises InvalidArguments if it cannot be a name."""
        entity = argument.entity
        assert entity is not None
        if argument.changeset is None:
            value, is_looked_up = extract_id(text, entity), False
        else:
            changeset = read_changeset(text, entity)
            value = None if changeset is None else _convert_changeset(tool, argument, text, changeset)
            is_version_id = entity.marked_by is not None and extract_id(text, entity.marked_by) is not None
            is_looked_up = changeset is not None or is_version_id
        searches = self._select_searches(tool, entity)
        if value is not None:
            return None if searches and may_be_id_or_name(text, entity) else value
        if not searches or (all(search.form == "e-mail" for search in searches) and "@" not in text):
            raise refuse_text(text, entity, argument.name, ", nor an e-mail address" if searches else "")
        if not is_looked_up and not may_be_name(text):
            raise refuse_text(text, entity, argument.name, named=True)
        return None

    def _select_searches(self, tool: Tool, entity: Entity) -> Sequence[ListSearch]:
        """Return the lists in which names of an entity are looked up; () if the catalog lacks an operation for it.

        If the call names a container, these are the lists of that container; otherwise those that need no container.
        """
        named = entity.marked_by or entity
        searches = named.searches
        operations = {*entity.calls, *named.calls}
        if named.parent is not None and named.parent_is_assumed:
            operations |= {named.parent.recent.call} if named.parent.recent is not None else set()
        elif named.parent is not None:
            argument = _find_container(tool, named.parent)
            searches = tuple(search for search in searches if (search.within is not None) == (argument is not None))
            if argument is not None and argument.entity is not named.parent:
                operations |= {argument.entity.read.call} if argument.entity and argument.entity.read else set()
        return searches if operations <= self._operations.keys() else ()

    # --- with requests --------------------------------------------------------------------------------------------

    async def _look_up(
        self, run: Run, tool: Tool, argument: ToolArgument, text: str, ids: Mapping[str, str | None]
    ) -> tuple[str, dict[str, Any]]:
        """Return the id of the only thing with this name, and further members for its entry in `resolved`."""
        entity = argument.entity
        assert entity is not None
        named = entity.marked_by or entity
        try:
            searches = self._select_searches(tool, entity)
            container_id, place, members = await self._find_place(run, tool, named, searches, ids)
            # The key has the caller, because two callers may see different things with the same name.
            key = (run.caller.key, entity.kind, container_id or "", text)
            cached, facts = self._recall(run, key)
            if cached is not None:
                return cached, members | dict(facts)
            # Where ids are words, a text may be an id as well as a name.
            identifier = extract_id(text, named) if may_be_id_or_name(text, named) else None
            items, similar, search = await self._find(run, searches, text, identifier, container_id, named)
        except CallError as error:
            why = f"This was the look-up of {argument.name} by name; {tool.name} itself was not called."
            raise error.amended(before=why) from None
        # The case of an e-mail address does not matter; that of a name may.
        if search is not None and search.form == "e-mail":
            items = items or similar
        # A name takes precedence over an id that no list has shown.
        if not items and identifier is not None:
            items = [{"id": identifier}]
        if len(items) != 1:
            refuse = _refuse_ambiguous if items else _refuse_unknown
            raise refuse(argument, text, items or similar, place)
        # A text may be the number of one iTwin and the name of another, so `resolved` shows which of them matched.
        facts = {}
        if search is not None and search.note is not None:
            facts = {"by": search.match, "name": str(items[0].get(search.note))}
        elif entity.sequence is not None:
            facts = {name: items[0].get(name) for name in ("changesetId", "changesetIndex")}
        self._remember(run, key, items[0]["id"], facts)
        return items[0]["id"], {**members, **facts}

    async def _find_place(
        self, run: Run, tool: Tool, named: Entity, searches: Sequence[ListSearch], ids: Mapping[str, str | None]
    ) -> tuple[str | None, str, dict[str, Any]]:
        """Return the id and a description of the container to search, and members for the entry in `resolved`."""
        parent = named.parent
        everywhere = next((search.where for search in searches if search.where is not None), f"the {named.noun} list")
        if parent is None:
            return None, everywhere, {}
        if not named.parent_is_assumed:
            container_id, place = await self._read_container(run, tool, parent, ids)
            return container_id, place or everywhere, {}
        container_id, place = self._assume_container(tool, parent, ids)
        if container_id is not None:
            return container_id, place, {}
        container_id = await self._find_recent(run, parent)
        place = f"the {parent.noun}s that you used lately"
        if container_id is not None:
            place = f"the {parent.noun} {container_id}, which you used last"
        return container_id, place, {"searched": place}

    async def _find(
        self,
        run: Run,
        searches: Sequence[ListSearch],
        text: str,
        identifier: str | None,
        container_id: str | None,
        named: Entity,
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]], ListSearch | None]:
        """Return the matches in the first list that has any, the items that differ only in case, and that list.

        An item matches by its name, or by its id if the text may be an `identifier`.
        """
        similar: list[dict[str, Any]] = []
        last = None
        for search in searches:
            if search.within is not None and container_id is None:
                continue
            last = search
            values: dict[str, Any] = dict(search.with_)
            if search.by is not None:
                values[search.by] = text
            if search.within is not None:
                values[search.within] = container_id
            items = await self._read_items(run, search.call, values, search.items, named)
            matches = [item for item in items if item.get(search.match) == text or item["id"] == identifier]
            if matches:
                return matches, [], search
            similar += [item for item in items if str(item.get(search.match)).casefold() == text.casefold()]
        return [], similar, last

    async def _look_up_changeset(
        self, run: Run, tool: Tool, argument: ToolArgument, text: str, ids: Mapping[str, str | None]
    ) -> Changeset:
        """Read the latest changeset, one by its index, or that of a named version, from the platform."""
        entity = argument.entity
        assert entity is not None
        assert entity.sequence is not None
        changeset, sequence = read_changeset(text, entity), entity.sequence
        version_id = extract_id(text, entity.marked_by) if entity.marked_by is not None else None
        container = _find_container(tool, entity.parent) if entity.parent is not None else None
        container_id = ids.get(container.name) if container is not None else None
        try:
            if is_latest(text):
                return await self._read_latest_changeset(run, entity, container_id)
            if changeset is not None:
                values = {sequence.one.within: container_id, sequence.one.input: str(changeset.index)}
                item = await self._read_member(run, sequence.one.call, values, sequence.one.item)
                return parse_changeset_item(item, entity)
            if version_id is not None:
                values = {sequence.marked.within: container_id, sequence.marked.input: version_id}
                item = await self._read_member(run, sequence.marked.call, values, sequence.marked.item)
                return parse_marked_changeset(item, entity)
        except CallError as error:
            why = f"This was the look-up of {argument.name}; {tool.name} itself was not called."
            raise error.amended(before=why) from None
        _, members = await self._look_up(run, tool, argument, text, ids)
        return parse_marked_changeset(members, entity)

    async def _read_latest_changeset(self, run: Run, entity: Entity, container_id: str | None) -> Changeset:
        """Return the newest changeset with an uploaded file, or the baseline. Never cached, because others push too."""
        assert entity.sequence is not None
        newest = entity.sequence.newest
        values: dict[str, Any] = {newest.within: container_id, **newest.with_}
        for size in PAGE_SIZES:
            items = await self._read_member(run, newest.call, values | {newest.size: size}, newest.items)
            changeset, lowest = find_newest_uploaded(items, entity)
            if changeset is not None:
                return changeset
            if lowest <= 1:
                return BASELINE
            values[newest.below] = lowest - 1
        container = entity.parent.noun if entity.parent is not None else "list"
        raise CallError(
            ErrorCode.NAME_NOT_FOUND,
            f"None of the newest {sum(PAGE_SIZES)} {entity.noun}s of the {container} {container_id} has an uploaded "
            "file; nothing was done.",
            hint=f"Find an earlier {entity.noun} with {entity.listing}, and call again with its id.",
        )

    async def _read_member(self, run: Run, operation: str, values: Mapping[str, Any], member: str) -> Any:
        body = (await run.perform(self._operations[operation], values)).body
        return body.get(member) if isinstance(body, dict) else None

    def _assume_container(self, tool: Tool, parent: Entity, ids: Mapping[str, str | None]) -> tuple[str | None, str]:
        """Return the id and a description of the container to search: that of the call, or else the preset.

        A writing tool's argument is ignored, because it is the destination.
        """
        container_id = ids.get(parent.argument) if tool.annotations.read_only else None
        if container_id is not None:
            return container_id, f"the {parent.noun} {container_id}"
        preset = self._presets.get(parent.argument)
        if preset is None:
            return None, ""
        return preset.id, f"the {parent.noun} {preset.id} ({preset.setting})"

    async def _read_container(
        self, run: Run, tool: Tool, parent: Entity, ids: Mapping[str, str | None]
    ) -> tuple[str | None, str | None]:
        """Return the id and a description of the call's container, read if need be, or (None, None)."""
        argument = _find_container(tool, parent)
        if argument is None or argument.entity is None:
            return None, None
        identifier, entity = ids.get(argument.name), argument.entity
        if entity is parent or entity.read is None:
            return identifier, f"the {parent.noun} {identifier}"
        body = (await run.perform(self._operations[entity.read.call], {entity.read.input: identifier})).body
        value = entity.read.parent.find(body)
        parent_id = extract_id(value, parent) if isinstance(value, str) else None
        return parent_id, f"the {parent.noun} of the {entity.noun} {identifier}"

    async def _find_recent(self, run: Run, parent: Entity) -> str | None:
        """Return the id of the container that the caller used last. Return None if there is none."""
        if parent.recent is None:
            return None
        key = (run.caller.key, "latest", parent.kind, "")
        cached, _ = self._recall(run, key)
        if cached is not None:
            return cached
        recent = await self._read_items(run, parent.recent.call, parent.recent.with_, parent.recent.items, parent)
        if not recent:
            return None
        self._remember(run, key, recent[0]["id"], {})
        return str(recent[0]["id"])

    async def _read_items(
        self, run: Run, call: str, values: Mapping[str, Any], member: str, entity: Entity
    ) -> list[dict[str, Any]]:
        """Return the items of a list that have a valid id: it may become a path segment of the next request."""
        body = await self._read_member(run, call, values, member)
        items: list[dict[str, Any]] = []
        for item in body if isinstance(body, list) else []:
            identifier = extract_id(str(item.get("id")), entity) if isinstance(item, dict) else None
            if identifier is not None:
                items.append({**item, "id": identifier})
        return items

    # --- cache --------------------------------------------------------------------------------------------------

    def _recall(self, run: Run, key: tuple[str, str, str, str]) -> tuple[str | None, Mapping[str, Any]]:
        identifier, facts, expires = self._remembered.get(key, ("", {}, 0.0))
        return (identifier, facts) if identifier and run.now() < expires else (None, {})

    def _remember(self, run: Run, key: tuple[str, str, str, str], identifier: str, facts: Mapping[str, Any]) -> None:
        """Cache an id; `facts` are further members of its entry in `resolved`."""
        store_entry(self._remembered, key, (identifier, facts, run.now() + SECONDS), MAX_REMEMBERED)


def _spread_lists(
    tool: Tool, arguments: Mapping[str, Any]
) -> tuple[dict[str, Any], list[ToolArgument], dict[str, list[ToolArgument]]]:
    """Return the arguments with lists of entities replaced by one argument per element.

    Return also the declarations of all arguments that hold the text of an entity, and the new ones by their list. The
    element `iTwinIds[0]` has a name that no argument of a tool can have.
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
    declared = (*tool.arguments, *(element for elements in lists.values() for element in elements))
    named = [
        argument for argument in declared if argument.entity is not None and isinstance(spread.get(argument.name), str)
    ]
    return spread, named, lists


def _gather_lists(lists: Mapping[str, Sequence[ToolArgument]], values: dict[str, Any]) -> dict[str, Any]:
    """Undo `_spread_lists`, and drop absent arguments."""
    gathered = {name: value for name, value in values.items() if value is not ABSENT}
    for name, elements in lists.items():
        gathered[name] = [gathered.pop(element.name) for element in elements]
    return gathered


def _check_name_count(lists: Mapping[str, Sequence[ToolArgument]], ids: Mapping[str, Any]) -> None:
    """Raise InvalidArguments if the look-ups of the names in a list would take too many requests."""
    for name, elements in lists.items():
        names = sum(ids[element.name] is None for element in elements)
        if names > MAX_NAMES:
            why = f"{name} has {names} names, but at most {MAX_NAMES} are looked up in one call"
            raise InvalidArguments(
                f"{why}; nothing was sent.",
                hint="Give ids in place of names, or call several times.",
                details=[{"code": DetailCode.INVALID_ARGUMENT, "target": name, "message": why}],
            )


def _rank(argument: ToolArgument) -> int:
    """Return the order of resolving. Containers come first, because other names are looked up in them."""
    entity = argument.entity
    if entity is None or entity.parent is None:
        return 0
    return 1 if entity.parent_is_assumed or entity.read is not None else _NEEDS_CONTAINER


def _find_container(tool: Tool, parent: Entity) -> ToolArgument | None:
    """Return the argument that names the container of the call, or else a thing whose container can be read.

    Only arguments that always have a value count. Of several, the one with the entity's usual name is meant; if none
    has it, return None.
    """
    arguments = [
        (argument, argument.entity)
        for argument in tool.arguments
        if argument.entity is not None and argument.is_one and (argument.required or argument.default is not ABSENT)
    ]
    containers = [(argument, entity) for argument, entity in arguments if entity is parent]
    contents = [(argument, entity) for argument, entity in arguments if entity.parent is parent and entity.read]
    for candidates in (containers, contents):
        usual = [(argument, entity) for argument, entity in candidates if argument.name == entity.argument]
        if usual or len(candidates) == 1:
            return (usual or candidates)[0][0]
    return None


def _convert_changeset(tool: Tool, argument: ToolArgument, text: str, changeset: Changeset) -> Any:
    """Return the value to send for a changeset, or None if its id must be looked up.

    Raises: InvalidArguments for a baseline if the operation needs a changeset.
    """
    assert argument.changeset is not None
    value = changeset.to_argument(argument.changeset)
    if value is None and changeset == BASELINE:
        why = f"is the baseline, which {tool.name} does not take: it needs a changeset"
        hint = "See with list-changesets which changesets the iModel has, if any."
        raise _refuse_argument(argument.name, text, why, hint)
    return value


def _refuse_ambiguous(argument: ToolArgument, text: str, items: Sequence[Mapping[str, Any]], place: str) -> CallError:
    why = f"{argument.name} {make_printable(text)!r} is the name of {len(items)} {_searched_noun(argument)}s in {place}"
    return CallError(
        ErrorCode.AMBIGUOUS_NAME,
        f"{why}; nothing was done.",
        hint="Ask the person which one is meant, and call again with its id from candidates.",
        target=argument.name,
        details=[{"code": ErrorCode.AMBIGUOUS_NAME, "target": argument.name, "message": why}],
        members=_list_candidates(argument, items),
    )


def _refuse_unknown(argument: ToolArgument, text: str, similar: Sequence[Mapping[str, Any]], place: str) -> CallError:
    assert argument.entity is not None
    noun, hint = _searched_noun(argument), argument.entity.hint
    why = f"{argument.name} {make_printable(text)!r} matches no {noun} in {place}: names must match exactly"
    if similar:
        hint = f"candidates differ from it only in capital letters: call again with the id of the one meant. {hint}"
    return CallError(
        ErrorCode.NAME_NOT_FOUND,
        f"{why}; nothing was done.",
        hint=hint,
        target=argument.name,
        details=[{"code": ErrorCode.NAME_NOT_FOUND, "target": argument.name, "message": why}],
        members=_list_candidates(argument, similar) if similar else None,
    )


def _searched_noun(argument: ToolArgument) -> str:
    """Return what to call the things whose names are searched. For a changeset these are named versions."""
    assert argument.entity is not None
    return (argument.entity.marked_by or argument.entity).noun


def _list_candidates(argument: ToolArgument, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    labels = argument.entity.labels if argument.entity is not None else ()
    shown = dict.fromkeys((*_CANDIDATE_MEMBERS, *labels))
    candidates = [
        {name: clean(item[name]) for name in shown if isinstance(item.get(name), str)} for item in items[:MAX_SHOWN]
    ]
    return {"candidates": candidates}
