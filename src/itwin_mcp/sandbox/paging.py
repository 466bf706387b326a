"""Pages of a list: the query parameters of both APIs, and the absolute `_links` that lead on.

`imodels_page(call, problems)` or `itwins_page(call, problems)` reads the request; `page.select(call, sql, parameters)`
runs the query and gives the rows with their links. Where there is no such page a link is null in the iModels API
(reference section 4) and absent in the iTwins API (its definition, `links-paging`).
"""

from __future__ import annotations

import base64
import binascii
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from itwin_mcp.sandbox.errors import Problems
from itwin_mcp.sandbox.wire import Call, Json

DEFAULT_TOP: Final = 100
MOST_TOP: Final = 1000
MOST_SKIP: Final = 2**31 - 1
DEFAULT_MAX_RETURN: Final = 1000
MOST_MAX_RETURN: Final = 10_000


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is asked for; `cap` ends the whole list (X-Max-Return)."""

    top: int
    skip: int
    by_token: bool = False
    cap: int | None = None
    shows_absent: bool = True  # the iModels API prints null for a page that does not exist, the iTwins API nothing

    @property
    def window(self) -> tuple[int, int]:
        """LIMIT and OFFSET: one row more than asked tells whether a next page exists."""
        wanted = self.top + 1
        return (wanted if self.cap is None else max(0, min(wanted, self.cap - self.skip)), self.skip)

    def select(self, call: Call, statement: str, parameters: Sequence[object]) -> tuple[list[sqlite3.Row], Json]:
        """The rows of this page, and its `_links`."""
        rows = call.sql.execute(f"{statement} LIMIT ? OFFSET ?", (*parameters, *self.window)).fetchall()
        return rows[: self.top], self.links(call, more=len(rows) > self.top)

    def links(self, call: Call, *, more: bool) -> Json:
        """Self, previous and next page by the address that the client used."""
        before = max(0, self.skip - self.top)
        links = {
            "self": self._link(call, self.skip),
            "prev": self._link(call, before) if self.skip else None,
            "next": self._link(call, self.skip + self.top) if more else None,
        }
        return {name: link for name, link in links.items() if link is not None or self.shows_absent}

    def _link(self, call: Call, skip: int) -> Json:
        if self.by_token:
            changes = {"$continuationToken": _token(skip), "$skip": None, "$top": str(self.top)}
        else:
            changes = {"$continuationToken": None, "$skip": str(skip), "$top": str(self.top)}
        return call.link(f"{call.path}?{call.query.with_changes(changes)}")


def imodels_page(call: Call, problems: Problems, *, skippable: bool = True) -> Page:
    """Paging of the iModels API: an empty `$continuationToken` begins paging by token, otherwise `$skip`."""
    top = _whole(call.query.get("$top"), DEFAULT_TOP)
    if top is None or not 1 <= top <= MOST_TOP:
        problems.invalid("$top", f"The value must be a positive integer that does not exceed {MOST_TOP}.")
    skip = _whole(call.query.get("$skip") if skippable else None, 0)
    if skip is None or not 0 <= skip <= MOST_SKIP:
        problems.invalid("$skip", "The value must be a non-negative integer.")
    token = call.query.raw("$continuationToken")
    if token:
        skip = _offset(token)
        if skip is None:
            problems.invalid("$continuationToken", "The value was not given by this API.")
    elif token == "" and skip:
        problems.add(
            "MutuallyExclusiveParametersProvided",
            "Parameters '$skip' and '$continuationToken' must not be used at the same time.",
            "$continuationToken",
        )
    return Page(top or DEFAULT_TOP, skip or 0, by_token=token is not None)


def itwins_page(call: Call, problems: Problems, *, shows_absent: bool = False) -> Page:
    """Paging of the iTwins API (messages verbatim from the get-my-recents page)."""
    top = _whole(call.query.get("$top"), DEFAULT_TOP)
    if top is None or not 1 <= top <= MOST_TOP:
        message = "The $top query option must be a positive integer that does not exceed 1000."
        problems.add("InvalidValue", message, "$top")
    skip = _whole(call.query.get("$skip"), 0)
    if skip is None or not 0 <= skip <= MOST_SKIP:
        problems.add("InvalidValue", "The $skip query option must be a non-negative integer.", "$skip")
    return Page(top or DEFAULT_TOP, skip or 0, shows_absent=shows_absent)


def max_return(call: Call, problems: Problems) -> int:
    """The X-Max-Return header: how many iTwins the whole list may hold (get-my-itwins)."""
    value = _whole(call.headers.get("x-max-return"), DEFAULT_MAX_RETURN)
    if value is None or not 1 <= value <= MOST_MAX_RETURN:
        problems.add("InvalidHeaderValue", "The X-Max-Return header must be from 1 to 10000.", "X-Max-Return")
        return DEFAULT_MAX_RETURN
    return value


def _whole(text: str | None, default: int) -> int | None:
    """A whole number in plain ASCII digits; None when it is anything else."""
    if text is None:
        return default
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else None


def _token(skip: int) -> str:
    """Opaque on purpose: clients follow `_links.next.href` and look at nothing in it."""
    return base64.urlsafe_b64encode(f"after:{skip}".encode()).decode().rstrip("=")


def _offset(token: str) -> int | None:
    try:
        text = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        return None
    kind, _, number = text.partition(":")
    offset = _whole(number, -1) if kind == "after" and number else None
    return offset if offset is not None and offset <= MOST_SKIP else None
