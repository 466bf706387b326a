"""Where things are, as the platform itself said: which iTwin an iModel is in, and which iTwins a caller has made."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from itwin_mcp.capability.plans import Operation
from itwin_mcp.errors import CallError, PolicyRefused
from itwin_mcp.executor.conversation import Caller
from itwin_mcp.executor.names import known_id
from itwin_mcp.executor.request import build_request
from itwin_mcp.upstream.envelope import read_json
from itwin_mcp.upstream.wire import Request, Response

MOST_REMEMBERED = 10_000
READS_AN_IMODEL = "imodels-api.get-imodel-details"
"""The operation whose answer says in which iTwin an iModel is."""


class Sender(Protocol):
    """The client; `sending.Upstream` is the same with more words."""

    @property
    def platform(self) -> str:
        """The platform's origin."""

    async def send(self, request: Request) -> Response:
        """Send one request."""


class Homes:
    """For the whole process: an iModel never moves to another iTwin, whoever asks."""

    def __init__(self, upstream: Sender, reads: Operation | None) -> None:
        """`reads` is the operation READS_AN_IMODEL, None where the catalog lacks it."""
        self._upstream = upstream
        self._reads = reads
        self._homes: OrderedDict[str, str] = OrderedDict()
        self._made: OrderedDict[tuple[str, str], None] = OrderedDict()

    async def find(self, imodel_id: str) -> str:
        """The iTwin of an iModel, read from the platform if need be. Raises PolicyRefused, and what the read raises."""
        home = self.known(imodel_id)
        if home is None and known_id(imodel_id, "imodel") == imodel_id and self._reads is not None:
            home = await self._read(self._reads, imodel_id)
        if home is None:
            raise PolicyRefused(
                "It cannot be said in which iTwin this iModel is, so that the policy lets nothing pass; nothing was "
                "sent.",
                hint="Name the iModel by its id, from the answer of a list tool.",
            )
        return home

    async def _read(self, reads: Operation, imodel_id: str) -> str | None:
        """The iTwin of an iModel as its own page names it; None when the page is odd, or is about another iModel."""
        try:
            response = await self._upstream.send(build_request(reads, {"id": imodel_id}))
            body = read_json(response) if response.status < 300 else None
        except CallError as error:
            error.hint = f"This was the read that tells which iTwin the iModel is in. {error.hint}"
            raise
        described = body.get("iModel") if isinstance(body, dict) else None
        if not isinstance(described, dict) or read_id(described.get("id")) != imodel_id.lower():
            return None
        self._settle(imodel_id, described.get("iTwinId"))
        return self.known(imodel_id)

    def known(self, imodel_id: str) -> str | None:
        """The iTwin of an iModel, as far as it is known."""
        return self._homes.get(imodel_id.lower())

    def learn(self, request: Request, body: Any) -> None:
        """Keep what an answer of the iModels API says of where iModels are.

        A copy that is being made is read when it is asked for: its link alone does not say where it is.
        """
        if request.path.lower().startswith("/imodels"):
            for item in elements(body, "iModel", "iModels"):
                self._settle(item.get("id"), item.get("iTwinId"))

    def _settle(self, imodel: Any, itwin: Any) -> None:
        imodel_id, itwin_id = read_id(imodel), read_id(itwin)
        if imodel_id is None or itwin_id is None:
            return
        if self._homes.get(imodel_id, itwin_id) == itwin_id:
            _keep(self._homes, imodel_id, itwin_id)
        else:
            # An iModel never moves, so one of the two answers is wrong. The next use reads the iModel itself.
            del self._homes[imodel_id]

    def learn_made(self, caller: Caller, body: Any) -> None:
        """Keep which iTwin an answer says that a caller has made: it is theirs to use until this process ends."""
        made = body.get("iTwin") if isinstance(body, dict) else None
        itwin_id = read_id(made.get("id")) if isinstance(made, dict) else None
        if itwin_id is not None:
            _keep(self._made, (caller.key, itwin_id), None)

    def has_made(self, caller: Caller, itwin_id: str) -> bool:
        """Whether a caller has made an iTwin."""
        return (caller.key, itwin_id) in self._made


def elements(body: Any, *names: str) -> Iterator[Mapping[str, Any]]:
    """The entities that stand under these members of an answer, alone or in a list."""
    for name in names if isinstance(body, dict) else ():
        found = body.get(name)
        yield from (one for one in (found if isinstance(found, list) else [found]) if isinstance(one, dict))


def read_id(value: Any) -> str | None:
    """The id in a member of an answer, in small letters."""
    return known_id(value, "itwin") if isinstance(value, str) else None


def _keep(kept: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > MOST_REMEMBERED:
        kept.popitem(last=False)
