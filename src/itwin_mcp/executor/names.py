"""Arguments that name an entity become ids: an id, or a link of the platform to read the id from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from itwin_mcp.capability.catalog import ToolArgument
from itwin_mcp.errors import InvalidArguments

_UUID = r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
_CHANGESET = r"[0-9a-fA-F]{40}|[0-9]{1,9}"
_WORD = r"[A-Za-z0-9_-]{1,128}"

_IDS: Mapping[str, re.Pattern[str]] = {
    "changeset": re.compile(_CHANGESET),
    "briefcase": re.compile(r"[0-9]{1,8}"),
    "repository": re.compile(_WORD),
    "resource": re.compile(_WORD),
    "share": re.compile(_WORD),
}
_ANY_UUID = re.compile(_UUID)

_LINK_SEGMENTS: Mapping[str, str] = {
    "itwin": "itwins",
    "account": "itwins",
    "imodel": "imodels",
    "changeset": "changesets",
    "named-version": "namedversions",
    "briefcase": "briefcases",
    "user": "users",
    "repository": "repositories",
    "resource": "resources",
    "export": "exports",
    "changeset-group": "changesetgroups",
    "share": "shares",
}
"""The path segment after which an entity's id stands in the platform's links."""

_WHERE: Mapping[str, str] = {
    "itwin": "Find its id with list-recent-itwins or list-itwins.",
    "imodel": "Find its id with list-imodels.",
    "named-version": "Find its id with list-named-versions.",
}
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f/\\?#%]|\.\.")


def read_names(
    arguments: Mapping[str, Any], declared: Sequence[ToolArgument]
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """The arguments with ids in place of what named them, and `resolved`: what was read as what.

    Raises InvalidArguments; no request is sent.
    """
    read = dict(arguments)
    resolved: list[dict[str, str]] = []
    for one in declared:
        given = arguments.get(one.name)
        if one.entity is None or not isinstance(given, str):
            continue
        read[one.name] = entity_id(given, one.entity, one.name)
        if read[one.name] != given:
            resolved.append({"argument": one.name, "given": given, "id": read[one.name]})
    return read, resolved


def entity_id(given: str, entity: str, argument: str) -> str:
    """The id in a text that names an entity: the id itself, or the platform's link. Raises InvalidArguments."""
    pattern = _IDS.get(entity, _ANY_UUID)
    if pattern.fullmatch(given):
        return given.lower() if pattern is _ANY_UUID else given
    linked = _id_in_link(given, entity)
    if linked is not None and pattern.fullmatch(linked):
        return linked.lower()
    shown = given if len(given) <= 60 else given[:60] + "…"
    why = "has characters that no id has" if _FORBIDDEN.search(given) else "is not an id or a link to one"
    raise InvalidArguments(
        f"{argument} {_printable(shown)!r} {why}; nothing was sent.",
        hint=_WHERE.get(entity, "Take the id from the answer of a list tool."),
        details=[{"code": "InvalidArgument", "target": argument, "message": f"{argument} {why}"}],
    )


def _id_in_link(given: str, entity: str) -> str | None:
    """The id in a link of the platform (`https://…bentley.com/…`) or one of ours (`itwin://…`); it is never followed."""
    if any(ord(character) < 0x21 or ord(character) == 0x7F for character in given):
        return None
    try:
        parts = urlsplit(given)
        host = parts.hostname or ""
    except ValueError:
        return None
    if parts.scheme == "itwin":
        segments = [host, *parts.path.split("/")[1:]]
    elif parts.scheme in ("https", "http") and (
        host.endswith(".bentley.com") or host in ("bentley.com", "localhost", "127.0.0.1", "::1")
    ):
        segments = parts.path.split("/")[1:]
    else:
        return None
    wanted = _LINK_SEGMENTS.get(entity)
    lowered = [segment.lower() for segment in segments]
    for index, segment in enumerate(lowered[:-1]):
        if segment == wanted:
            return segments[index + 1]
    return None


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
