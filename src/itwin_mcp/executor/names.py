"""What a text that names an entity says by itself: an id, a link of the platform to read it from, or perhaps a name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from itwin_mcp.capability.catalog import ToolArgument
from itwin_mcp.errors import InvalidArguments

_WORD = r"[A-Za-z0-9_-]{1,128}"
_UUID = re.compile(
    r"(?:urn:uuid:)?([0-9a-f]{8})(-?)([0-9a-f]{4})\2([0-9a-f]{4})\2([0-9a-f]{4})\2([0-9a-f]{12})",
    re.ASCII | re.IGNORECASE,
)
"""A UUID as people paste it: with or without its dashes, or as a URN."""
_IDS: Mapping[str, re.Pattern[str]] = {
    "changeset": re.compile(r"[0-9a-fA-F]{40}|[0-9]{1,9}"),
    "briefcase": re.compile(r"[0-9]{1,8}"),
    "repository": re.compile(_WORD),
    "resource": re.compile(_WORD),
    "owner": re.compile("me"),
    "share": re.compile(_WORD),
}
"""Ids that are no UUID; an owner may be either."""
_QUOTES = frozenset("\"'`\u00b4\u00ab\u00bb\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u2039\u203a")

_LINK_SEGMENTS: Mapping[str, str] = {
    "itwin": "itwins",
    "account": "itwins",
    "imodel": "imodels",
    "changeset": "changesets",
    "named-version": "namedversions",
    "briefcase": "briefcases",
    "user": "users",
    "owner": "users",
    "repository": "repositories",
    "resource": "resources",
    "export": "exports",
    "changeset-group": "changesetgroups",
    "share": "shares",
    "role": "roles",
    "member": "users",
}
"""The path segment after which an entity's id stands in the platform's links."""
_PORTAL = "my-itwins"
_PORTAL_PLACES: Mapping[str, int] = {"itwins": 1, "imodels": 2}
"""How many segments after `my-itwins` the ids stand in a link of the developer portal."""
_AROUND = ("imodel", "itwin", "repository")
"""What other entities are in, as their links say."""

WHERE: Mapping[str, str] = {
    "changeset": "Give latest, an id or index from list-changesets, or the exact name of a named version from "
    "list-named-versions.",
    "itwin": "Look for it by a part of its name or number with find-itwin.",
    "imodel": "Look for it with find-imodel or list-imodels, in the iTwin that has it.",
    "named-version": "Look for it with list-named-versions.",
    "user": "Look for the user with list-imodel-users.",
    "owner": "Look for the user with list-imodel-users, or give me.",
    "member": "Look for the member with list-itwin-members.",
    "role": "Look for it with list-itwin-roles.",
    "repository": "Look for it with list-repositories, or list-global-repositories for those in no iTwin.",
    "share": "Look for it with list-shares.",
    "account": "Take it from get-my-account or get-itwin-account.",
    "briefcase": "Take its number from list-briefcases.",
    "changeset-group": "Take it from list-changeset-groups.",
    "export": "Take it from list-exports.",
    "resource": "Take it from list-repository-resources, or list-global-repository-resources.",
}
"""Where an id is found, for the hint of an error."""
_NO_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_NO_ID = re.compile(rf"{_NO_TEXT.pattern}|[/\\?#%]|\.\.")
MOST_NAME = 255
"""Characters of a name on the platform."""


def read_names(
    arguments: Mapping[str, Any], declared: Sequence[ToolArgument]
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """The arguments with ids in place of links, and `resolved`: what was read as what; names are refused.

    Raises InvalidArguments, also for a link into another iModel; no request is sent.
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
    check_links(declared, arguments, read)
    return read, resolved


def check_links(declared: Sequence[ToolArgument], given: Mapping[str, Any], ids: Mapping[str, Any]) -> None:
    """That a link to what is in an iTwin, iModel or repository leads into the one that the call is about.

    An id means nothing outside of what it is in: read in another, it would be another thing. Raises InvalidArguments.
    """
    for one in declared:
        text, segment = given.get(one.name), _LINK_SEGMENTS.get(one.entity or "", "itwins")
        if segment in ("itwins", "imodels") or not isinstance(text, str) or not _is_link(text):
            continue
        for kind in (kind for kind in _AROUND if kind != one.entity):
            linked = known_id(text, kind)
            around = {other.name: ids[other.name] for other in declared if other.entity == kind and ids.get(other.name)}
            if linked is None or not around:
                continue
            if linked in around.values():
                if kind == "imodel":
                    break  # It is in one iTwin, whatever the link says; the call's iTwin may be where a copy goes.
                continue
            why = f"is a link into the {kind} {linked}, but {' and '.join(around)} is {' and '.join(around.values())}"
            raise InvalidArguments(
                f"{one.name} {shown(text)!r} {why}; nothing was done.",
                hint=f"Give the {' or '.join(around)} that the link names, or an id from the other one.",
                details=[{"code": "InvalidArgument", "target": one.name, "message": f"{one.name} {why}"}],
            )


def known_id(given: str, entity: str) -> str | None:
    """Extract the id from an id or a platform link, as the platform writes it. Return None if there is none.

    Whitespace, quotes and braces around either are ignored. A UUID may be a URN or lack its dashes.
    """
    given, own = bare(given), _IDS.get(entity)
    for found in (given, _id_in_link(given, entity)):
        if found is None:
            continue
        if own is not None and own.fullmatch(found):
            return found.lower() if entity == "changeset" else found
        uuid = _UUID.fullmatch(found) if own is None or entity == "owner" else None
        if uuid is not None:
            return "-".join(uuid.group(1, 3, 4, 5, 6)).lower()
    return None


def may_be_either(given: str, entity: str) -> bool:
    """Return whether a text may be an id of the kind as well as a name: a single word where ids are words."""
    own = _IDS.get(entity)
    is_word = own is not None and own.pattern == _WORD and own.fullmatch(bare(given)) is not None
    return is_word and _UUID.fullmatch(bare(given)) is None


def bare(given: str) -> str:
    """Remove whitespace, quotes and braces around a text."""
    text = given.strip()
    while len(text) > 1 and ((text[0] == "{" and text[-1] == "}") or (text[0] in _QUOTES and text[-1] in _QUOTES)):
        text = text[1:-1].strip()
    return text


def may_be_name(given: str) -> bool:
    """Whether a text that is no id may be a name that is looked for: it is sent as the value of a query only."""
    return len(given) <= MOST_NAME and given.strip() != "" and not (_NO_TEXT.search(given) or _is_link(given))


def entity_id(given: str, entity: str, argument: str) -> str:
    """The id in a text that names an entity: the id itself, or the platform's link. Raises InvalidArguments."""
    found = known_id(given, entity)
    if found is None:
        raise refusal(given, entity, argument)
    return found


def refusal(given: str, entity: str, argument: str, because: str = "", *, named: bool = False) -> InvalidArguments:
    """Why a text names nothing. `because` says why it is not looked for; `named` that other texts would be."""
    noun = "id of the kind " + entity
    if _is_link(given):
        why = f"is a link, but has no {noun} in it"
    elif (_NO_TEXT if named else _NO_ID).search(given):
        why = f"has characters that no id has{', nor a name' if named else ''}"
    elif named:
        why = f"is no id, no link and no name: that has 1 to {MOST_NAME} characters"
    else:
        why = f"is neither an {noun} nor a link to one{because}"
    return InvalidArguments(
        f"{argument} {shown(given)!r} {why}; nothing was sent.",
        hint=WHERE.get(entity, "Take the id from the answer of a list tool."),
        details=[{"code": "InvalidArgument", "target": argument, "message": f"{argument} {why}"}],
    )


def shown(given: str) -> str:
    """What was given, short and printable, for a message."""
    return _printable(given if len(given) <= 60 else given[:60] + "…")


def _id_in_link(given: str, entity: str) -> str | None:
    """The id in a link of the platform (`https://…bentley.com/…`) or of ours (`itwin://…`); it is never followed."""
    if not given.isprintable() or " " in given:
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
    wanted = _LINK_SEGMENTS.get(entity, "")
    lowered = [segment.lower() for segment in segments]
    for index, segment in enumerate(lowered[:-1]):
        if segment == wanted:
            return segments[index + 1]
        if segment == _PORTAL and wanted in _PORTAL_PLACES:
            return next(iter(segments[index + _PORTAL_PLACES[wanted] :]), None)
    return None


def _is_link(given: str) -> bool:
    return re.fullmatch(r"(https?|itwin)://\S+", bare(given)) is not None


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
