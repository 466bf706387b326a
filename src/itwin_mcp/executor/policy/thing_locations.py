"""Remembers in which iTwin a thing is, and which iTwins a caller created, as the platform itself says."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from itwin_mcp.capability.policy_paths import Location, PolicyPaths
from itwin_mcp.errors import CallError, PolicyRefused
from itwin_mcp.executor.context import Caller
from itwin_mcp.executor.policy.request_itwins import ITWIN
from itwin_mcp.settings import PLATFORM_ORIGIN
from itwin_mcp.upstream.messages import Request, Sender
from itwin_mcp.upstream.wire_format import read_json

MAX_REMEMBERED = 10_000
SECONDS = 60.0
"""How long the iTwin of a thing counts that may move to another one."""


class Locations:
    """Reads a thing to find out in which iTwin it is, and remembers the answer.

    What never moves is remembered for the whole process, whoever asks; anything else per caller, for a minute.
    """

    def __init__(self, upstream: Sender, paths: PolicyPaths, now: Callable[[], float]) -> None:
        """`paths` says what is read for each kind; `now` gives seconds from any beginning."""
        self._upstream = upstream
        self._paths = paths
        self._now = now
        self._homes: OrderedDict[tuple[str, str, str], tuple[str, float]] = OrderedDict()
        self._made: OrderedDict[tuple[str, str], None] = OrderedDict()

    async def find(self, caller: Caller, kind: str, thing_id: str) -> str:
        """Return the iTwin of a thing, read from the platform if need be. Raises PolicyRefused, and CallError."""
        home = self.known(caller, kind, thing_id)
        plan = self._paths.locations.get(kind)
        if home is None and plan is not None and self._paths.read_id(kind, thing_id) == thing_id:
            home = await self._read(caller, kind, plan, thing_id)
        if home is None:
            called = plan.called if plan is not None else kind
            raise PolicyRefused(
                f"It cannot be said in which iTwin this {called} is, so that the policy lets nothing pass; nothing was "
                "sent.",
                hint=f"Name the {called} by its id, from the answer of a list tool.",
            )
        return home

    async def _read(self, caller: Caller, kind: str, plan: Location, thing_id: str) -> str | None:
        """Return the iTwin that a thing's own page names; None if the page is odd, or is about another thing."""
        request = Request(
            "GET",
            PLATFORM_ORIGIN,
            plan.read.replace("{id}", quote(thing_id, safe="")),
            headers=(("Accept", plan.accept),),
            permission=plan.permission,
        )
        try:
            response = await self._upstream.send(request)
            body = read_json(response) if response.status < 300 else None
        except CallError as error:
            why = f"This was the read that tells which iTwin the {plan.called} is in."
            raise error.amended(before=why) from None
        described = body.get(plan.item) if isinstance(body, dict) else None
        if not isinstance(described, dict) or self._id(kind, described.get("id")) != thing_id.lower():
            return None
        self._remember(caller, kind, plan, described)
        return self.known(caller, kind, thing_id)

    def known(self, caller: Caller, kind: str, thing_id: str) -> str | None:
        """Return the iTwin of a thing, as far as it is known."""
        plan = self._paths.locations.get(kind)
        home, until = self._homes.get(_key(caller, kind, plan, thing_id), ("", 0.0)) if plan is not None else ("", 0.0)
        return home if home and self._now() < until else None

    def learn(self, caller: Caller, request: Request, body: Any) -> None:
        """Remember which things are in which iTwins, from an answer.

        A copy in progress is read when it is needed: its link alone does not name its iTwin.
        """
        path = request.path.lower()
        for kind, plan in self._paths.locations.items():
            if path == plan.prefix or path.startswith(f"{plan.prefix}/"):
                for item in iterate_entities(body, plan.item, *plan.lists):
                    self._remember(caller, kind, plan, item)

    def _remember(self, caller: Caller, kind: str, plan: Location, item: Mapping[str, Any]) -> None:
        thing_id, itwin_id = self._id(kind, item.get("id")), self._id(ITWIN, item.get(plan.itwin))
        if thing_id is None or itwin_id is None:
            return
        key = _key(caller, kind, plan, thing_id)
        if plan.moves:
            _store(self._homes, key, (itwin_id, self._now() + SECONDS))
        elif self._homes.get(key, (itwin_id,))[0] == itwin_id:
            _store(self._homes, key, (itwin_id, float("inf")))
        else:
            # It never moves, so one of the two answers is wrong. The next use reads the thing itself.
            del self._homes[key]

    def _id(self, kind: str, value: Any) -> str | None:
        return self._paths.read_id(kind, value) if isinstance(value, str) else None

    def learn_made(self, caller: Caller, body: Any) -> None:
        """Remember the iTwin that a caller created: they may use it until this process ends."""
        made = body.get("iTwin") if isinstance(body, dict) else None
        itwin_id = self._id(ITWIN, made.get("id")) if isinstance(made, dict) else None
        if itwin_id is not None:
            _store(self._made, (caller.key, itwin_id), None)

    def has_made(self, caller: Caller, itwin_id: str) -> bool:
        """Return whether a caller created an iTwin."""
        return (caller.key, itwin_id) in self._made


def iterate_entities(body: Any, *names: str) -> Iterator[Mapping[str, Any]]:
    """Yield the entities in these members of an answer, single or in a list."""
    for name in names if isinstance(body, dict) else ():
        found = body.get(name)
        yield from (one for one in (found if isinstance(found, list) else [found]) if isinstance(one, dict))


def _key(caller: Caller, kind: str, plan: Location, thing_id: str) -> tuple[str, str, str]:
    return (caller.key if plan.moves else "", kind, thing_id.lower())


def _store(kept: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > MAX_REMEMBERED:
        kept.popitem(last=False)
