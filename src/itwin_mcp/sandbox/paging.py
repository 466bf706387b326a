"""Pages of lists: their query parameters in both APIs, and their absolute `_links`.

`read_imodels_page` and `read_itwins_page` read the request; `Page.fetch_rows` runs the query. The link to a page that
does not exist is null in the iModels API (reference section 4) and absent in the iTwins API (its definition,
`links-paging`).
"""

from __future__ import annotations

import base64
import binascii
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from itwin_mcp.sandbox import odata
from itwin_mcp.sandbox.errors import Problems
from itwin_mcp.sandbox.wire import Call, Json, parse_digits

DEFAULT_TOP: Final = 100
MAX_TOP: Final = 1000
MAX_SKIP: Final = 2**31 - 1
DEFAULT_MAX_RETURN: Final = 1000
MAX_RETURN_LIMIT: Final = 10_000


@dataclass(frozen=True, slots=True)
class Page:
    """The requested part of a list.

    `cap` limits the whole list (header X-Max-Return). With `by_token`, the links have `$continuationToken` instead of
    `$skip`.
    """

    top: int
    skip: int
    by_token: bool = False
    cap: int | None = None
    null_links: bool = True  # absent pages have a null link, as in the iModels API

    @property
    def window(self) -> tuple[int, int]:
        """Return LIMIT and OFFSET. One extra row shows whether there is a next page."""
        limit = self.top + 1
        return (limit if self.cap is None else max(0, min(limit, self.cap - self.skip)), self.skip)

    def fetch_rows(self, call: Call, statement: str, parameters: Sequence[object]) -> tuple[list[sqlite3.Row], Json]:
        """Run a query and return the rows of this page and its `_links`."""
        rows = call.sql.execute(f"{statement} LIMIT ? OFFSET ?", (*parameters, *self.window)).fetchall()
        return rows[: self.top], self.make_links(call, more=len(rows) > self.top)

    def make_links(self, call: Call, *, more: bool) -> Json:
        """Return links to this, the previous and the next page, on the host that the client used."""
        before = max(0, self.skip - self.top)
        links = {
            "self": self._link(call, self.skip),
            "prev": self._link(call, before) if self.skip else None,
            "next": self._link(call, self.skip + self.top) if more else None,
        }
        return {name: link for name, link in links.items() if link is not None or self.null_links}

    def _link(self, call: Call, skip: int) -> Json:
        if self.by_token:
            changes = {"$continuationToken": _encode_token(skip), "$skip": None, "$top": str(self.top)}
        else:
            changes = {"$continuationToken": None, "$skip": str(skip), "$top": str(self.top)}
        return call.make_link(f"{call.path}?{call.query.encode_with(changes)}")


def read_imodels_page(call: Call, problems: Problems, *, skippable: bool = True) -> Page:
    """Read the page parameters of the iModels API.

    An empty `$continuationToken` starts paging by token. Without one, pages are counted by `$skip`. `skippable=False`
    ignores `$skip`.
    """
    top = _parse_whole_number(call.query.get("$top"), DEFAULT_TOP)
    if top is None or not 1 <= top <= MAX_TOP:
        problems.add_invalid("$top", f"The value must be a positive integer that does not exceed {MAX_TOP}.")
    skip = _parse_whole_number(call.query.get("$skip") if skippable else None, 0)
    if skip is None or not 0 <= skip <= MAX_SKIP:
        problems.add_invalid("$skip", "The value must be a non-negative integer.")
    token = call.query.get_raw("$continuationToken")
    if token:
        skip = _decode_token(token)
        if skip is None:
            problems.add_invalid("$continuationToken", "The value was not given by this API.")
    elif token == "" and skip:
        problems.add(
            "MutuallyExclusiveParametersProvided",
            "Parameters '$skip' and '$continuationToken' must not be used at the same time.",
            "$continuationToken",
        )
    return Page(top or DEFAULT_TOP, skip or 0, by_token=token is not None)


def read_itwins_page(call: Call, problems: Problems, *, null_links: bool = False) -> Page:
    """Read the page parameters of the iTwins API. The messages are those of the get-my-recents page."""
    top = _parse_whole_number(call.query.get("$top"), DEFAULT_TOP)
    if top is None or not 1 <= top <= MAX_TOP:
        message = "The $top query option must be a positive integer that does not exceed 1000."
        problems.add("InvalidValue", message, "$top")
    skip = _parse_whole_number(call.query.get("$skip"), 0)
    if skip is None or not 0 <= skip <= MAX_SKIP:
        problems.add("InvalidValue", "The $skip query option must be a non-negative integer.", "$skip")
    return Page(top or DEFAULT_TOP, skip or 0, null_links=null_links)


def read_order(
    call: Call, problems: Problems, columns: Mapping[str, str], *, last: str, default: str | None = None
) -> str:
    """Return the ORDER BY list of `$orderBy` in the iModels API, with `last` as the tie-breaker.

    Without the parameter the order is `default`, or `last` alone.
    """
    text = call.query.get("$orderBy")
    if not text:
        return default or last
    try:
        return f"{odata.parse_order(text, columns)}, {last}"
    except odata.ODataError as error:
        problems.add_invalid("$orderBy", str(error))
        return last


def read_max_return(call: Call, problems: Problems) -> int:
    """Return the header X-Max-Return, the maximum number of iTwins in the whole list (get-my-itwins)."""
    value = _parse_whole_number(call.headers.get("x-max-return"), DEFAULT_MAX_RETURN)
    if value is None or not 1 <= value <= MAX_RETURN_LIMIT:
        problems.add("InvalidHeaderValue", "The X-Max-Return header must be from 1 to 10000.", "X-Max-Return")
        return DEFAULT_MAX_RETURN
    return value


def _parse_whole_number(text: str | None, default: int) -> int | None:
    """Return the number in the text, `default` if the text is None, or None if the text is not a number."""
    if text is None:
        return default
    return parse_digits(text.strip())


def _encode_token(skip: int) -> str:
    """Return an opaque continuation token. Clients follow `_links.next.href` and must not parse it."""
    return base64.urlsafe_b64encode(f"after:{skip}".encode()).decode().rstrip("=")


def _decode_token(token: str) -> int | None:
    try:
        text = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        return None
    kind, _, number = text.partition(":")
    offset = _parse_whole_number(number, -1) if kind == "after" and number else None
    return offset if offset is not None and offset <= MAX_SKIP else None
