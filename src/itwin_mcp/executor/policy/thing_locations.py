"""Reads and caches in which iTwin a thing is, and which iTwins a caller created."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from itwin_mcp.capability.policy_paths import Location, PolicyPaths
from itwin_mcp.errors import CallError, PolicyRefused
from itwin_mcp.executor.bounded_cache import store_entry
from itwin_mcp.executor.context import Caller
from itwin_mcp.executor.policy.request_itwins import ITWIN
from itwin_mcp.settings import PLATFORM_ORIGIN
from itwin_mcp.upstream.messages import Request, Sender
from itwin_mcp.upstream.wire_format import read_json

MAX_REMEMBERED = 10_000
SECONDS = 60.0
"""How long the iTwin of a thing is cached if the thing may move to another iTwin."""


class Locations:
    """Reads a thing to find out in which iTwin it is, and caches the answer.

    Things that never move are cached until the process ends, for all callers. Others are cached per caller, for a
    minute.
    """

    def __init__(self, upstream: Sender, paths: PolicyPaths, now: Callable[[], float]) -> None:
        """`paths` says what is read for each kind; `now` returns seconds since any fixed moment."""
        self._upstream = upstream
        self._paths = paths
        self._now = now
        self._itwins: OrderedDict[tuple[str, str, str], tuple[str, float]] = OrderedDict()
        self._created: OrderedDict[tuple[str, str], None] = OrderedDict()

    async def find(self, caller: Caller, kind: str, thing_id: str) -> str:
        """Return the iTwin of a thing, read from the platform if it is not cached.

        Raises: PolicyRefused if it cannot be found out; CallError if the read fails.
        """
        plan = self._paths.locations[kind]
        itwin_id = self.find_cached(caller, kind, thing_id)
        if itwin_id is None and self._paths.read_id(kind, thing_id) == thing_id:
            itwin_id = await self._read(caller, kind, plan, thing_id)
        if itwin_id is None:
            raise PolicyRefused(
                f"The policy cannot find out in which iTwin this {plan.called} is; nothing was sent.",
                hint=f"Name the {plan.called} by its id, from the answer of a list tool.",
            )
        return itwin_id

    async def _read(self, caller: Caller, kind: str, plan: Location, thing_id: str) -> str | None:
        """Return the iTwin that the description of a thing names; None if it is odd or describes another thing."""
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
            why = f"This was the read that finds out in which iTwin the {plan.called} is."
            raise error.amended(before=why) from None
        described = body.get(plan.item) if isinstance(body, dict) else None
        if not isinstance(described, dict) or self._read_id(kind, described.get("id")) != thing_id.lower():
            return None
        self._remember(caller, kind, plan, described)
        return self.find_cached(caller, kind, thing_id)

    def find_cached(self, caller: Caller, kind: str, thing_id: str) -> str | None:
        """Return the cached iTwin of a thing; None if there is none or it has expired."""
        itwin_id, expires = self._itwins.get(_build_key(caller, kind, self._paths.locations[kind], thing_id), ("", 0.0))
        return itwin_id if itwin_id and self._now() < expires else None

    def learn(self, caller: Caller, request: Request, body: Any) -> None:
        """Cache the iTwins of the things in an answer of the platform."""
        path = request.path.lower()
        for kind, plan in self._paths.locations.items():
            if path == plan.prefix or path.startswith(f"{plan.prefix}/"):
                for item in iterate_entities(body, plan.item, *plan.lists):
                    self._remember(caller, kind, plan, item)

    def _remember(self, caller: Caller, kind: str, plan: Location, item: Mapping[str, Any]) -> None:
        thing_id, itwin_id = self._read_id(kind, item.get("id")), self._read_id(ITWIN, item.get(plan.itwin))
        if thing_id is None or itwin_id is None:
            return
        key = _build_key(caller, kind, plan, thing_id)
        if not plan.moves and self._itwins.get(key, (itwin_id,))[0] != itwin_id:
            # The thing never moves, so one of the two answers is wrong. The next use reads the thing itself.
            del self._itwins[key]
            return
        expires = self._now() + SECONDS if plan.moves else float("inf")
        store_entry(self._itwins, key, (itwin_id, expires), MAX_REMEMBERED)

    def _read_id(self, kind: str, value: Any) -> str | None:
        return self._paths.read_id(kind, value) if isinstance(value, str) else None

    def learn_created(self, caller: Caller, body: Any) -> None:
        """Remember that a caller created the iTwin in this answer, so that they may use it until the process ends."""
        for itwin in iterate_entities(body, "iTwin"):
            itwin_id = self._read_id(ITWIN, itwin.get("id"))
            if itwin_id is not None:
                store_entry(self._created, (caller.key, itwin_id), None, MAX_REMEMBERED)

    def has_created(self, caller: Caller, itwin_id: str) -> bool:
        """Return whether a caller created an iTwin since the process started."""
        return (caller.key, itwin_id) in self._created


def iterate_entities(body: Any, *names: str) -> Iterator[Mapping[str, Any]]:
    """Yield the entities in these members of an answer, single or in a list."""
    for name in names if isinstance(body, dict) else ():
        value = body.get(name)
        yield from (item for item in (value if isinstance(value, list) else [value]) if isinstance(item, dict))


def _build_key(caller: Caller, kind: str, plan: Location, thing_id: str) -> tuple[str, str, str]:
    return (caller.key if plan.moves else "", kind, thing_id.lower())
