"""Texts that name a changeset: what they say by themselves, what answers say, and the form that an operation takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from itwin_mcp.capability.catalog import ChangesetForm
from itwin_mcp.capability.expressions import ABSENT
from itwin_mcp.errors import InvalidArguments, UnexpectedAnswer
from itwin_mcp.executor.names import bare, known_id, shown

PAGES: Final = (5, 100, 1000)
"""How many changesets each request for the latest one reads. Usually at most one has no file yet."""
_BASELINE: Final = "baseline"
_UPLOADED: Final = "fileuploaded"


@dataclass(frozen=True, slots=True)
class Changeset:
    """A changeset by its id, its index or both; what is not known is None."""

    id: str | None
    index: int | None

    @property
    def told(self) -> dict[str, Any]:
        """What `resolved` says of it."""
        members = {"id": self.id or None, "index": self.index}
        return {name: value for name, value in members.items() if value is not None}

    def as_taken(self, form: ChangesetForm) -> Any:
        """Return what the operation is sent: ABSENT to leave the argument out, None if what it takes is not known."""
        if self == BASELINE:
            return {"index": "0", "empty": "", "absent": ABSENT, None: None}[form.baseline]
        if self.id is None and not form.only_id:
            return str(self.index)
        return self.id


BASELINE: Final = Changeset("", 0)
"""The state before the first changeset, as the platform counts it."""


def is_latest(text: str) -> bool:
    return bare(text).casefold() == "latest"


def read_changeset(text: str) -> Changeset | None:
    """Return the changeset that a text names by itself: the baseline, an id or an index, also in a link."""
    if bare(text).casefold() == _BASELINE:
        return BASELINE
    found = known_id(text, "changeset")
    if found is None:
        return None
    if len(found) == 40:
        return Changeset(found, None)
    return Changeset(None, int(found)) if int(found) > 0 else BASELINE


def refuse_baseline(argument: str, text: str, tool: str) -> InvalidArguments:
    """Return the error for a baseline where the operation needs a changeset."""
    why = f"is the baseline, which {tool} does not take: it needs a changeset"
    return InvalidArguments(
        f"{argument} {shown(text)!r} {why}; nothing was done.",
        hint="See with list-changesets which changesets the iModel has, if any.",
        details=[{"code": "InvalidArgument", "target": argument, "message": f"{argument} {why}"}],
    )


def refuse_unread(argument: str, text: str) -> InvalidArguments:
    """Return the error for a changeset that a call would look up, where nothing may be sent."""
    why = "would have to be looked up"
    return InvalidArguments(
        f"{argument} {shown(text)!r} {why}; nothing was sent.",
        hint="Give the changeset's id, 40 hexadecimal digits from list-changesets.",
        details=[{"code": "InvalidArgument", "target": argument, "message": f"{argument} {why}"}],
    )


def changeset_of(item: Any) -> Changeset:
    """Return the changeset in an answer. Raises UnexpectedAnswer if it has no id."""
    return _changeset(item, "id", "index")


def changeset_of_version(item: Any) -> Changeset:
    """Return the changeset that a named version marks.

    Raises UnexpectedAnswer where the answer leaves that open: a missing id alone does not mean the baseline.
    """
    if isinstance(item, Mapping) and not item.get("changesetId") and _index(item.get("changesetIndex")) == 0:
        return BASELINE
    return _changeset(item, "changesetId", "changesetIndex")


def newest_uploaded(items: Any) -> tuple[Changeset | None, int]:
    """Return the first of these changesets, newest first, whose file is uploaded, and the lowest index among them.

    A named version cannot be deleted, so that nothing is guessed here. Raises UnexpectedAnswer if a state or an index
    cannot be read.
    """
    if not isinstance(items, list):
        raise _unreadable()
    lowest = 1
    for item in items:
        changeset = changeset_of(item)
        if changeset.index is None or not isinstance(item.get("state"), str):
            raise _unreadable()
        if item["state"].casefold() == _UPLOADED:
            return changeset, changeset.index
        lowest = changeset.index
    return None, lowest


def _changeset(item: Any, id_name: str, index_name: str) -> Changeset:
    text = item.get(id_name) if isinstance(item, Mapping) else None
    found = read_changeset(text) if isinstance(text, str) else None
    if found is None or not found.id:
        raise _unreadable()
    return Changeset(found.id, _index(item.get(index_name)))


def _index(value: Any) -> int | None:
    """An index that came as a number, or as the text of one."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value[:10])
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _unreadable() -> UnexpectedAnswer:
    return UnexpectedAnswer(
        "The platform's answer does not say which changeset is meant; nothing was done.",
        hint="Take the changeset's id from list-changesets, and call again with it.",
    )
