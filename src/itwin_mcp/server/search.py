"""Tools ranked by how well they answer a question: SQLite's full-text index with BM25, in memory."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from itwin_mcp.capability.catalog import Tool
from itwin_mcp.errors import SettingsError

_COLUMNS = {"name": 8.0, "title": 4.0, "description": 3.0, "arguments": 1.0, "choices": 0.5, "answers": 0.5}
"""What is searched, and what a word that stands there weighs."""

_COVERED = 2.0
"""How many times over a name counts all of whose words were said."""
_UNASKED = 0.5
"""What is left of the score of a tool that writes for a question, or destroys where nobody said its verb."""
_MOST_WORDS = 40
_SILENT_TEXT = """
    a about all also am an and any are as at be been before by can could did do does every first for from get
    give going good has have help here how i if in into is it its just last let like make may me mine must my
    need no not now of on one or our out over own please really same see should since so some something tell than that
    the their them then there these they thing this those to too under up us use used using want was we were
    when will with work would you your
"""
_SAME_TEXT = """
    itwin: project twin twins asset bridge building
    imodel: model
    account: organisation organization company
    clone: copy duplicate
    fork: branch derive
    create: new make
    start create: start
    provision: setup kick
    update name: rename
    update: change modify extend move
    update edit: edit
    update provision: set
    update inactive: deactivate archive
    remove delete: remove
    delete: drop erase trash destroy
    named version: milestone milestones deliverable version design
    list named versions: versions
    create named version: tag mark
    changesets: history commits push
    list changesets history: pushed
    changeset: commit
    compare list changesets: changed
    compare: happened difference differences diff between
    list activity: stale untouched
    activity: old dormant touched
    list itwins: projects
    list imodels: models
    users: people member members team
    user: person colleague
    users who: who
    access permissions: allowed rights
    permissions: right permission may
    briefcase acquire: checkout
    acquire locks: reserve
    locks: lock locked
    release locks: unlock
    locks holders: holding holds
    favorites: favourite favourites favorite
    favorites add: bookmark star
    list favorites: starred
    favorites remove: unstar unfavorite
    recent: recently lately yesterday
    thumbnail image: picture
    image: photo logo
    thumbnail: preview
    link share: link
    export: csv spreadsheet excel dump
    download export: download
    repository map: wms map
    repository geographic: gis
    repositories: sources
    global repository: cesium imagery
    wait creation checkpoint: ready
    creation: progress
    wait creation: finished done initialized
    describe everything: overview summary
    everything describe: everything
    state status: status
    find: search look locate
    name: named
    find name: called
    end: finish stop
    sign session: signed
    list: which show
    get: what
    get location: where
    location: located
    release: back
    create repository: register connect
    checkpoint named version: snapshot
    create empty: scratch empty
"""
_SILENT = frozenset(_SILENT_TEXT.split())
"""Words of a question that say nothing of what it is about."""
_ASKING = frozenset({"who", "what", "which", "when", "where", "how", "is", "are", "has", "have", "does", "did"})
"""Words that a question begins with which wants to know something and change nothing."""
_SAME: Mapping[str, Sequence[str]] = {
    said: meant.split()
    for meant, _, spoken in (line.partition(":") for line in _SAME_TEXT.strip().splitlines())
    for said in spoken.split()
}
"""What engineers say -> the words that our tools have for it."""


class ToolIndex:
    """An index of tools by their names, titles, descriptions, arguments and choices; words count by their stems."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        """Raises SettingsError where this Python's SQLite has no full-text search."""
        self._tools = tuple(tools)
        self._rows = [_row(tool) for tool in self._tools]
        self._search('""')  # fails now, not in a call, where full-text search is missing

    def find(self, question: str, most: int) -> tuple[Tool, ...]:
        """The tools that answer a question, the best first; the order of the catalog breaks ties."""
        said = _words(question)
        words = [word for word in said if word not in _SILENT][:_MOST_WORDS]
        meant = dict.fromkeys(part for word in words for part in _SAME.get(word, (word,)))
        if not meant:
            return ()
        found = self._search(" OR ".join(f'"{word}"' for word in meant))
        stems = {_stem(word) for word in meant}
        asks = said[0] in _ASKING
        scored = (
            (self._tools[row - 1], row, score * (1 + _COVERED * self._covered(row, stems))) for row, score in found
        )
        ranked = sorted((-score * _fitness(tool, stems, asks=asks), row) for tool, row, score in scored)
        return tuple(self._tools[row - 1] for _, row in ranked[:most])

    def _search(self, match: str) -> list[tuple[int, float]]:
        """Return the number and the score of each row that matches an expression of FTS5.

        Filling a table takes 3 ms and is done for every search: nobody has to close a connection that stays open.
        """
        with closing(sqlite3.connect(":memory:")) as sql:
            columns = ", ".join(_COLUMNS)
            try:
                sql.execute(f"CREATE VIRTUAL TABLE tools USING fts5({columns}, tokenize='porter unicode61')")
            except sqlite3.OperationalError as error:
                raise SettingsError(
                    f"--toolsets dynamic searches with SQLite's FTS5, which this Python lacks ({error}): "
                    "use another one."
                ) from None
            marks = ", ".join("?" * len(_COLUMNS))
            sql.executemany(f"INSERT INTO tools VALUES ({marks})", self._rows)  # noqa: S608
            weights = ", ".join(str(weight) for weight in _COLUMNS.values())
            select = f"SELECT rowid, -bm25(tools, {weights}) FROM tools WHERE tools MATCH ?"  # noqa: S608
            return sql.execute(select, (match,)).fetchall()

    def _covered(self, row: int, stems: set[str]) -> float:
        """How much of a tool's name was said. BM25 gives next to nothing for `imodel`, which half of the tools name."""
        name = {_stem(word) for word in _words(self._tools[row - 1].name)}
        return len(name & stems) / len(name)


def _fitness(tool: Tool, stems: set[str], *, asks: bool) -> float:
    """Less than 1 for what nobody asked for: a change where something is to be known, a loss that was not named."""
    verb = _stem(_words(tool.name)[0])
    destroys = tool.annotations.destructive and verb != "create"  # one that publishes asks, but nothing is lost
    unasked = (asks and not tool.annotations.read_only) or (destroys and verb not in stems)
    return _UNASKED if unasked else 1.0


def _row(tool: Tool) -> tuple[str, ...]:
    arguments = " ".join(f"{one.name} {one.schema.get('description', '')}" for one in tool.arguments)
    choices = " ".join(str(choice) for one in tool.arguments for choice in _choices(one.schema))
    answers = " ".join(_fields(tool.output_schema))
    return tuple(
        " ".join(_words(text))
        for text in (f"{tool.name} {tool.toolset}", tool.title, tool.description, arguments, choices, answers)
    )


def _fields(schema: Any) -> Iterator[str]:
    """The names of an answer's fields; those that every tool has say nothing."""
    if isinstance(schema, dict):
        for name, child in schema.get("properties", {}).items():
            if name not in ("error", "page", "resolved", "job"):
                yield name
                yield from _fields(child)
        yield from _fields(schema.get("items"))


def _choices(schema: Mapping[str, object]) -> Iterable[object]:
    items = schema.get("items")
    found = schema.get("enum") or (items.get("enum") if isinstance(items, dict) else None)
    return found if isinstance(found, list) else ()


def _stem(word: str) -> str:
    return word.rstrip("s") if len(word) > 3 else word


def _words(text: str) -> list[str]:
    """Lower-case words; `iTwinId` is `itwin id`, `createdDateTime` three words."""
    text = re.sub(r"\bi(Twin|Model)", lambda found: "i" + found[1].lower(), text)
    text = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", text)
    return re.findall(r"[^\W_]+", text.lower())
