"""Recognizes how an operation pages, where its parameters and its answer make it plain."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from itwin_mcp.capability.openapi_import.definition import Parameter, as_text
from itwin_mcp.capability.openapi_import.schemas import Note, SchemaReader, Shape, write_path

SIZE_NAMES = frozenset({"top", "limit", "pagesize", "perpage", "size", "maxresults", "maxitems", "maxpagesize"})
SKIP_NAMES = frozenset({"skip", "offset"})
TOKEN_NAMES = frozenset({"continuationtoken", "cursor", "pagetoken", "nexttoken", "marker", "pagecursor", "after"})
NUMBER_NAMES = frozenset({"page", "pagenumber", "pageindex"})
_NEXT_LINKS = frozenset({"nextlink", "nexturl", "nexthref", "nextpageurl", "nextpagelink", "odata.nextlink"})
_NEXT_TOKENS = frozenset(
    {"continuationtoken", "nextcursor", "nextpagetoken", "nexttoken", "endcursor", "nextmarker", "cursor", "next"}
)
_TOTALS = frozenset({"total", "totalcount", "totalitems", "totalresults", "odata.count"})
_LINK_HOLDERS = frozenset({"links", "link"})
LIST_NAMES = frozenset({"items", "data", "results", "value", "values", "records", "entries", "elements", "content"})
_MAXIMUM = re.compile(r"\b(?:max(?:imum)?|up to|at most|limit)\b[^.\d]{0,40}?(\d{1,5})\b", re.IGNORECASE)
_DEFAULT_SIZE = 100


@dataclass(frozen=True, slots=True)
class PageGuess:
    """How an operation pages. `page` is `x-page`; the engine fills the parameters in `driven` itself."""

    page: Mapping[str, Any]
    driven: frozenset[str]
    items: tuple[str, ...]
    comment: str


_Member = tuple[tuple[str, ...], Shape]


def normalize(name: str) -> str:
    """Return a name without case, separators and the leading `$` or `@`, to compare it."""
    return re.sub(r"[^a-z0-9.]", "", name.lower())


def find_paging(
    reader: SchemaReader, answer: Shape, parameters: Mapping[str, Parameter], segment: str, note: Note
) -> PageGuess | None:
    """Return how an operation pages, or None. `parameters` are by input name, `segment` is the last of its path."""
    by_name = {normalize(parameter.name): name for name, parameter in parameters.items()}
    size = _find_parameter(by_name, SIZE_NAMES)
    skip, token = _find_parameter(by_name, SKIP_NAMES), _find_parameter(by_name, TOKEN_NAMES)
    number = _find_parameter(by_name, NUMBER_NAMES)
    pages = [name for name in (skip, token, number) if name is not None]
    members = list(reader.walk_members(answer, 3))
    items = _find_items(members, segment)
    link = _find_link(members)
    if items is None or write_path(*items) is None:
        if pages:
            why = "the answer is a list itself" if answer.type == "array" else "the answer has no single list of items"
            note(f"paging by {' and '.join(pages)} is left to the caller: {why}")
        return None
    next_token = _find_member(members, ("string",), _NEXT_TOKENS) if token is not None else None
    path = write_path(*items)
    if link is not None:
        page: dict[str, Any] = {"style": "link", "items": path, "next": write_path(*link)}
        driven = {name for name in (skip, token, number) if name is not None}
    elif token is not None and next_token is not None:
        page = {"style": "token", "items": path, "next": write_path(*next_token), "token": token}
        driven = {token, *([skip] if skip is not None else [])}
    elif skip is not None:
        page, driven = {"style": "skip", "items": path, "skip": skip}, {skip}
    else:
        if pages:
            note(
                f"paging by {' and '.join(pages)} is left to the caller: the answer does not say what the next page is"
            )
        return None
    comment = f"Pages by {page['style']}."
    if size is not None:
        most, stated = _find_max_page_size(parameters[size])
        page |= {"size": size, "most": most}
        driven.add(size)
        comment += f" At most {most} items per page{'' if stated else ', which the definition does not say'}."
    total = _find_member(members, ("integer", "number"), _TOTALS)
    if total is not None:
        page["count"] = write_path(*total)
    return PageGuess(page, frozenset(driven), items, comment)


def _find_parameter(by_name: Mapping[str, str], names: frozenset[str]) -> str | None:
    return next((name for normalized, name in by_name.items() if normalized in names), None)


def _find_items(members: list[_Member], segment: str) -> tuple[str, ...] | None:
    """Return where the items of a page are: the only list, or the one with a usual name."""
    for depth in (1, 2):
        lists = [
            names
            for names, shape in members
            if shape.type == "array" and len(names) == depth and not names[0].startswith("_")
        ]
        usual = [names for names in lists if normalize(names[-1]) in (normalize(segment), *LIST_NAMES)]
        if len(lists) == 1 or len(usual) == 1:
            return lists[0] if len(lists) == 1 else usual[0]
        if lists:
            return None
    return None


def _find_link(members: list[_Member]) -> tuple[str, ...] | None:
    for path, shape in members:
        names = [normalize(name) for name in path]
        holder = names[-2] if len(names) > 1 else ""
        is_link = as_text(shape.schema.get("format")) in ("uri", "url", "uri-reference")
        if shape.type in ("string", None) and (
            names[-2:] == ["next", "href"]
            or names[-1] in _NEXT_LINKS
            or (names[-1] == "next" and (holder in _LINK_HOLDERS or is_link))
        ):
            return path
    return None


def _find_member(members: list[_Member], kinds: tuple[str, ...], known: frozenset[str]) -> tuple[str, ...] | None:
    return next((names for names, shape in members if shape.type in kinds and normalize(names[-1]) in known), None)


def _find_max_page_size(parameter: Parameter) -> tuple[int, bool]:
    """Return the maximum page size, and whether the definition states it."""
    maximum = parameter.schema.get("maximum")
    if isinstance(maximum, (int, float)) and not isinstance(maximum, bool) and maximum >= 1:
        return int(maximum), True
    text = f"{parameter.description} {as_text(parameter.schema.get('description'))}"
    found = _MAXIMUM.search(text.replace(",", ""))
    return (int(found.group(1)), True) if found and int(found.group(1)) > 0 else (_DEFAULT_SIZE, False)
