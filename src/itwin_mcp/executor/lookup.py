"""Arguments that name an entity become ids: a number, a name or an e-mail address is looked for in a listing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from itwin_mcp.capability.catalog import Tool, ToolArgument
from itwin_mcp.capability.expressions import ABSENT
from itwin_mcp.capability.plans import Operation
from itwin_mcp.errors import CallError, InvalidArguments
from itwin_mcp.executor.changeset_names import (
    BASELINE,
    PAGES,
    Changeset,
    changeset_of,
    changeset_of_version,
    is_latest,
    newest_uploaded,
    read_changeset,
    refuse_baseline,
    refuse_unread,
)
from itwin_mcp.executor.conversation import Caller
from itwin_mcp.executor.fit import clean
from itwin_mcp.executor.names import WHERE, check_links, known_id, may_be_either, may_be_name, refusal, shown
from itwin_mcp.executor.sending import Run

SECONDS = 60.0
"""How long a name that was found stands for its id."""
MOST_REMEMBERED = 1_000
MOST_SHOWN = 10
"""Matches that an error lists."""


@dataclass(frozen=True, slots=True)
class _Search:
    """One listing to look in: the element is the thing if its `member` is the text.

    `by` is the input that takes the text (None: the listing is searched here), `within` the one that takes the id of
    the entity around it.
    """

    operation: str
    items: str
    member: str
    by: str | None = None
    within: str | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)


_TWENTY = {"includeInactive": True, "top": 20}
_NUMBER = _Search("itwins-api.get-my-itwins", "iTwins", "number", "number", fixed=_TWENTY)
_NAME = _Search("itwins-api.get-my-itwins", "iTwins", "displayName", "displayName", fixed=_TWENTY)
_LATEST = _Search("itwins-api.get-my-recents", "iTwins", "id", fixed={"top": 1})
_IMODEL = _Search("imodels-api.get-itwin-imodels", "iModels", "name", "name", "iTwinId", {"top": 20})
_VERSION = _Search("imodels-api.get-imodel-named-versions", "namedVersions", "name", "name", "id", {"top": 20})
_CHANGESETS = "imodels-api.get-imodel-changesets"
_CHANGESET = "imodels-api.get-imodel-changeset-details"
_VERSION_DETAILS = "imodels-api.get-imodel-named-version-details"
_CHANGESET_READS = {_CHANGESETS, _CHANGESET, _VERSION_DETAILS}
_USER = _Search("imodels-api.get-imodel-users", "users", "email", None, "id", {"top": 1000})
_ROLE = _Search("access-control-api.get-itwin-roles", "roles", "displayName", None, "iTwinId")
_REPOSITORY = _Search("itwins-api.get-repositories-by-itwin-id", "repositories", "displayName", None, "iTwinId")
_GLOBAL_REPOSITORY = _Search("itwins-api.get-global-repositories", "repositories", "displayName")
_SHARE = _Search("imodels-api.get-imodel-shares", "shares", "name", None, "id", {"top": 1000})
_IMODEL_DETAILS = "imodels-api.get-imodel-details"
_SEARCHES: Mapping[str, Sequence[_Search]] = {
    "itwin": (_NUMBER, _NAME),
    "imodel": (_IMODEL,),
    "named-version": (_VERSION,),
    "changeset": (_VERSION,),
    "user": (_USER,),
    "owner": (_USER,),
    "role": (_ROLE,),
    "repository": (_REPOSITORY,),
    "share": (_SHARE,),
}
"""Where an entity is looked for, one listing after the other."""

_NOUNS: Mapping[str, str] = {"changeset": "named-version"}
"""What is looked for by name, where it is not the entity itself."""
_FIRST = {"itwin": 0, "imodel": 1}
"""What others are looked for in is looked for first."""
_LAST = len(_FIRST)
_SHOWN = ("id", "displayName", "name", "number", "subClass", "status", "iTwinId", "createdDateTime", "email")


class Names:
    """Looks names up with at most 2 requests an argument, and remembers per caller for a minute what it found."""

    def __init__(self, operations: Mapping[str, Operation], itwin_id: str | None = None) -> None:
        """`operations` are those of the catalog; `itwin_id` is the iTwin in which iModels are looked for by default."""
        self._operations = operations
        self._itwin_id = itwin_id
        self._remembered: OrderedDict[tuple[str, str, str, str], tuple[str, Mapping[str, Any], float]] = OrderedDict()

    async def resolve(
        self, run: Run, tool: Tool, given: Mapping[str, Any], arguments: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The arguments with ids in place of what named them, and `resolved`: what was read as what.

        `given` is the call's own, `arguments` the same with defaults. What no name can be is refused before any
        request. A changeset becomes the id or index that the operation takes; the baseline may leave its argument out.
        What a destructive tool is about may be named too: the person who confirms is shown the id. Raises
        InvalidArguments, AmbiguousName, NameNotFound, and what a look-up raises.
        """
        named = [one for one in tool.arguments if one.entity is not None and isinstance(arguments.get(one.name), str)]
        ids = self._ids(tool, named, arguments)
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
        ready = {name: value for name, value in {**arguments, **ids}.items() if value is not ABSENT}
        return ready, [told[one.name] for one in named if one.name in told]

    async def _settle(
        self, run: Run, tool: Tool, one: ToolArgument, text: str, ids: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Look for what is not in `ids` yet. Return what was found, and what else is to be told of it."""
        if one.changeset is None:
            more: dict[str, Any] = {}
            if ids[one.name] is None:
                ids[one.name], more = await self._look_up(run, tool, one, text, ids)
            return {"id": ids[one.name]}, more
        changeset = read_changeset(text)
        if changeset is None or ids[one.name] is None:
            changeset = await self._changeset(run, tool, one, text, ids)
            ids[one.name] = _taken(tool, one, text, changeset)
        return changeset.told, {}

    def known(self, tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments with ids in place of links; nothing is sent, so that a name is refused.

        Raises InvalidArguments.
        """
        read = dict(arguments)
        for one in tool.arguments:
            text = arguments.get(one.name)
            if one.entity is not None and isinstance(text, str):
                read[one.name] = self._by_itself(tool, one, text)
                if read[one.name] is None and may_be_either(text, one.entity):
                    read[one.name] = known_id(text, one.entity)
                if read[one.name] is None:
                    if one.changeset is not None:
                        raise refuse_unread(one.name, text)
                    why = "; if it is a name, a call would have to look for it"
                    raise refusal(text, one.entity, one.name, why)
        check_links(tool.arguments, arguments, read)
        return {name: value for name, value in read.items() if value is not ABSENT}

    def forget(self, caller: Caller) -> None:
        """After a write a name may mean another thing."""
        for key in [key for key in self._remembered if key[0] == caller.key]:
            del self._remembered[key]

    # --- what a text says by itself -----------------------------------------------------------------------------

    def _ids(self, tool: Tool, named: Sequence[ToolArgument], arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The id in each text; None for one to look for. Raises InvalidArguments for all others at once."""
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
        """The id in a text; None where it is to be looked for. Raises InvalidArguments where it cannot be."""
        assert one.entity is not None
        if one.changeset is None:
            found, reads = known_id(text, one.entity), False
        else:
            changeset = read_changeset(text)
            found = None if changeset is None else _taken(tool, one, text, changeset)
            reads = changeset is not None or known_id(text, "named-version") is not None
        searches = self._searches(tool, one.entity)
        if found is not None:
            return None if searches and may_be_either(text, one.entity) else found
        if not searches or (_USER in searches and "@" not in text):
            raise refusal(text, one.entity, one.name, ", nor an e-mail address" if searches else "")
        if not reads and not may_be_name(text):
            raise refusal(text, one.entity, one.name, named=True)
        return None

    def _searches(self, tool: Tool, entity: str) -> Sequence[_Search]:
        """The listings in which an entity can be found; none where one is missing from the catalog."""
        wanted = _SEARCHES.get(entity, ())
        imodel, itwin = _imodel_argument(tool), _itwin_argument(tool)
        needed = set[str]()
        if entity == "imodel":
            wanted = (*wanted, _LATEST)
        elif entity == "repository":
            wanted = wanted if itwin else (_GLOBAL_REPOSITORY,)
        elif entity == "role":
            wanted = wanted if itwin or imodel else ()
            needed = set() if itwin else {_IMODEL_DETAILS}
        elif entity not in _FIRST and imodel is None:
            wanted = ()
        needed |= {one.operation for one in wanted} | (_CHANGESET_READS if entity == "changeset" else set())
        return wanted if needed <= self._operations.keys() else ()

    # --- what is looked for -------------------------------------------------------------------------------------

    async def _look_up(
        self, run: Run, tool: Tool, one: ToolArgument, text: str, ids: Mapping[str, str | None]
    ) -> tuple[str, dict[str, Any]]:
        """The id of the one thing of this name, and what is to be told beside it."""
        entity = str(one.entity)
        try:
            within, where, told = await self._place(run, tool, entity, ids)
            key = (run.caller.key, entity, within or "", text)
            remembered, what = self._recall(run, key)
            if remembered is not None:
                return remembered, told | dict(what)
            found, near, search = await self._find(run, self._searches(tool, entity), text, within, entity)
        except CallError as error:
            error.hint = f"This was the look-up of {one.name} by name; {tool.name} itself was not called. {error.hint}"
            raise
        if search is _USER:
            found = found or near
        identifier = known_id(text, entity) if may_be_either(text, entity) else None
        if not found and identifier is not None:
            found = [{"id": identifier}]
        if len(found) != 1:
            raise _several(one, text, found, where) if found else _none(one, text, near, where)
        # A text may be the number of one iTwin and the name of another: it is said what was found by its number.
        what = {}
        if search is _NUMBER:
            what = {"by": "number", "name": str(found[0].get("displayName"))}
        elif entity == "changeset":
            what = {name: found[0].get(name) for name in ("changesetId", "changesetIndex")}
        self._remember(run, key, found[0]["id"], what)
        return found[0]["id"], {**told, **what}

    async def _place(
        self, run: Run, tool: Tool, entity: str, ids: Mapping[str, str | None]
    ) -> tuple[str | None, str, dict[str, Any]]:
        """The id of what a name is looked for in, the same in words, and what is to be told of it."""
        told: dict[str, Any] = {}
        if entity == "itwin":
            within, where = None, "the iTwins that you are a member of"
        elif entity == "imodel":
            within, where = self._around(tool, ids)
            if within is None:
                within = await self._latest(run)
                where = f"the iTwin {within}, which you used last" if within else "the iTwins that you used lately"
                told["searched"] = where
        elif entity in ("role", "repository"):
            within, where = await self._itwin_of(run, tool, ids)
        else:
            within = ids.get(_imodel_argument(tool) or "")
            where = f"the iModel {within}"
        return within, where, told

    async def _find(
        self, run: Run, searches: Sequence[_Search], text: str, within: str | None, entity: str
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]], _Search | None]:
        """What has the name, in the first listing that has it; what differs from it in capital letters; that listing.

        Where a text may be an id as well, whatever has it as its id counts, too.
        """
        near: list[dict[str, Any]] = []
        identifier = known_id(text, entity) if may_be_either(text, entity) else None
        last = None
        for search in searches:
            if search is _LATEST or (search.within is not None and within is None):
                continue
            last = search
            items = await self._items(run, search, text, within)
            found = [item for item in items if item.get(search.member) == text or item["id"] == identifier]
            if found:
                return found, [], search
            near += [item for item in items if str(item.get(search.member)).casefold() == text.casefold()]
        return [], near, last

    async def _changeset(
        self, run: Run, tool: Tool, one: ToolArgument, text: str, ids: Mapping[str, str | None]
    ) -> Changeset:
        """The changeset that a text names: the latest one, one by its index, or that of a named version."""
        imodel, said = ids.get(_imodel_argument(tool) or ""), read_changeset(text)
        version = known_id(text, "named-version")
        try:
            if is_latest(text):
                return await self._latest_changeset(run, imodel)
            if said is not None:
                values = {"id": imodel, "changesetId": str(said.index)}
                return changeset_of(await self._read(run, _CHANGESET, values, "changeset"))
            if version is not None:
                values = {"id": imodel, "namedVersionId": version}
                return changeset_of_version(await self._read(run, _VERSION_DETAILS, values, "namedVersion"))
        except CallError as error:
            error.hint = f"This was the look-up of {one.name}; {tool.name} itself was not called. {error.hint}"
            raise
        return changeset_of_version((await self._look_up(run, tool, one, text, ids))[1])

    async def _latest_changeset(self, run: Run, imodel: str | None) -> Changeset:
        """The newest changeset whose file is uploaded, or the baseline. It is not remembered: others push, too."""
        values: dict[str, Any] = {"id": imodel, "order-by": "index desc"}
        for size in PAGES:
            found, lowest = newest_uploaded(await self._read(run, _CHANGESETS, values | {"top": size}, "changesets"))
            if found is not None:
                return found
            if lowest <= 1:
                return BASELINE
            values["lastIndex"] = lowest - 1
        raise CallError(
            "NameNotFound",
            f"None of the newest {sum(PAGES)} changesets of the iModel {imodel} has its file; nothing was done.",
            hint="Find an earlier changeset with list-changesets and get-changeset, and call again with its id.",
        )

    async def _read(self, run: Run, operation: str, values: Mapping[str, Any], member: str) -> Any:
        body = (await run.perform(self._operations[operation], values)).body
        return body.get(member) if isinstance(body, dict) else None

    def _around(self, tool: Tool, ids: Mapping[str, str | None]) -> tuple[str | None, str]:
        """The iTwin in which an iModel is looked for. In a tool that writes, iTwinId is where something goes."""
        given = ids.get("iTwinId") if tool.annotations.read_only else None
        if given is not None:
            return given, f"the iTwin {given}"
        return self._itwin_id, f"the iTwin {self._itwin_id} (ITWIN_ID)"

    async def _itwin_of(self, run: Run, tool: Tool, ids: Mapping[str, str | None]) -> tuple[str | None, str]:
        """The iTwin of the call, or that of its iModel; None for what is in no iTwin."""
        itwin, imodel = _itwin_argument(tool), _imodel_argument(tool)
        if itwin is not None:
            return ids.get(itwin), f"the iTwin {ids.get(itwin)}"
        if imodel is None:
            return None, "the global repositories"
        details = await self._read(run, _IMODEL_DETAILS, {"id": ids.get(imodel)}, "iModel")
        found = known_id(str(details.get("iTwinId")), "itwin") if isinstance(details, dict) else None
        return found, f"the iTwin of the iModel {ids.get(imodel)}"

    async def _latest(self, run: Run) -> str | None:
        key = (run.caller.key, "latest", "", "")
        remembered, _ = self._recall(run, key)
        if remembered is not None:
            return remembered
        recent = await self._items(run, _LATEST, "", None)
        if not recent:
            return None
        self._remember(run, key, recent[0]["id"], {})
        return str(recent[0]["id"])

    async def _items(self, run: Run, search: _Search, text: str, within: str | None) -> list[dict[str, Any]]:
        values = dict(search.fixed)
        if search.by is not None:
            values[search.by] = text
        if search.within is not None:
            values[search.within] = within
        body = (await run.perform(self._operations[search.operation], values)).body
        items = body.get(search.items) if isinstance(body, dict) else None
        known = items if isinstance(items, list) else []
        # What came as anything but an id could not stand in a path.
        kind = {"repositories": "repository", "shares": "share"}.get(search.items, "itwin")
        ids = [known_id(str(item.get("id")), kind) if isinstance(item, dict) else None for item in known]
        return [{**item, "id": found} for item, found in zip(known, ids, strict=True) if found is not None]

    # --- memory -------------------------------------------------------------------------------------------------

    def _recall(self, run: Run, key: tuple[str, str, str, str]) -> tuple[str | None, Mapping[str, Any]]:
        found, what, until = self._remembered.get(key, ("", {}, 0.0))
        return (found, what) if found and run.now() < until else (None, {})

    def _remember(self, run: Run, key: tuple[str, str, str, str], identifier: str, what: Mapping[str, Any]) -> None:
        """`what` is to be told of it beside its id."""
        self._remembered[key] = (identifier, what, run.now() + SECONDS)
        self._remembered.move_to_end(key)
        if len(self._remembered) > MOST_REMEMBERED:
            self._remembered.popitem(last=False)


def _order(one: ToolArgument) -> int:
    return _FIRST.get(one.entity or "", _LAST)


def _imodel_argument(tool: Tool) -> str | None:
    """The argument that names the iModel of the call, which is always there; None if there is none, or several."""
    there = (one for one in tool.arguments if one.required or one.default is not ABSENT)
    names = [one.name for one in there if one.entity == "imodel"]
    return "iModelId" if "iModelId" in names else names[0] if len(names) == 1 else None


def _itwin_argument(tool: Tool) -> str | None:
    """The argument that names the iTwin of the call, if the call must have one."""
    names = [one.name for one in tool.arguments if one.entity == "itwin" and one.required]
    return names[0] if len(names) == 1 else None


def _taken(tool: Tool, one: ToolArgument, text: str, changeset: Changeset) -> Any:
    """What the operation takes for a changeset; None where its id is to be looked up. Raises InvalidArguments."""
    assert one.changeset is not None
    value = changeset.as_taken(one.changeset)
    if value is None and changeset == BASELINE:
        raise refuse_baseline(one.name, text, tool.name)
    return value


def _several(one: ToolArgument, text: str, found: Sequence[Mapping[str, Any]], where: str) -> CallError:
    why = f"{one.name} {shown(text)!r} is the name of {len(found)} of the kind {_noun(one)} in {where}"
    return CallError(
        "AmbiguousName",
        f"{why}; nothing was done.",
        hint="Ask the person which one is meant, and call again with its id from candidates.",
        target=one.name,
        details=[{"code": "AmbiguousName", "target": one.name, "message": why}],
        members={"candidates": [_brief(item) for item in found[:MOST_SHOWN]]},
    )


def _none(one: ToolArgument, text: str, near: Sequence[Mapping[str, Any]], where: str) -> CallError:
    why = f"{one.name} {shown(text)!r} is the exact name of nothing of the kind {_noun(one)} in {where}"
    hint = WHERE.get(str(one.entity), "Take the id from the answer of a list tool.")
    if near:
        hint = f"candidates differ from it only in capital letters: call again with the id of the one meant. {hint}"
    return CallError(
        "NameNotFound",
        f"{why}; nothing was done.",
        hint=hint,
        target=one.name,
        details=[{"code": "NameNotFound", "target": one.name, "message": why}],
        members={"candidates": [_brief(item) for item in near[:MOST_SHOWN]]} if near else None,
    )


def _noun(one: ToolArgument) -> str:
    return _NOUNS.get(str(one.entity), str(one.entity))


def _brief(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: clean(item[name]) for name in _SHOWN if isinstance(item.get(name), str)}
