"""Locks: a briefcase's right to change objects of the iModel, shared or exclusive, and the changeset that last used it.

An exclusive lock stands alone on its object, shared ones stand together. Whoever releases or demotes a lock names the
changeset in which the object was changed, and nobody locks that object exclusively from an older one
(update-imodel-locks).
Releasing without a changeset, or with "", abandons the lock: the recorded changeset stays (iTwin.js abandonAllLocks).
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any, Final

from itwin_mcp.sandbox import access, briefcases, changesets, paging, people
from itwin_mcp.sandbox.errors import ApiError, imodels_problems
from itwin_mcp.sandbox.wire import Answer, Call, Fields, Json, Route, ok

NONE: Final = "none"
SHARED: Final = "shared"
EXCLUSIVE: Final = "exclusive"
LEVELS: Final = (NONE, SHARED, EXCLUSIVE)  # from the weakest
MOST_OBJECTS: Final = 1000
_OBJECT_ID: Final = re.compile("0[xX][0-9a-fA-F]{1,16}")  # Id64String of iTwin.js
_BRIEFCASE_RANGE: Final = (-(2**53), 2**53)  # a number that is no briefcase is not found, never invalid


def list_all(call: Call) -> Answer:
    """get-imodel-locks: the size of a page counts objects, so that one lock may go on over several pages."""
    imodel = access.imodel(call, access.WEBVIEW)
    problems = imodels_problems("Cannot get Locks.")
    page = paging.imodels_page(call, problems)
    conditions, parameters = ["imodel_id = ?"], [imodel["id"]]
    if (briefcase := call.query.get("briefcaseId")) is not None:
        number = _index(briefcase)
        if number is None:
            problems.invalid("briefcaseId", "The value must be an integer.")
        conditions.append("briefcase_id = ?")
        parameters.append(number)
    if (level := call.query.get("lockLevel")) is not None:
        if level.lower() not in LEVELS[1:]:
            problems.invalid("lockLevel", f"Valid values are {', '.join(LEVELS[1:])}.")
        conditions.append("level = ?")
        parameters.append(level.lower())
    problems.refuse()
    statement = f"SELECT * FROM locks WHERE {' AND '.join(conditions)} ORDER BY briefcase_id, level, object_id"
    rows, links = page.select(call, statement, parameters)
    locks = [_lock(number, held) for number, held in groupby(rows, lambda row: row["briefcase_id"])]
    return ok({"locks": locks, "_links": links})


def list_released(call: Call) -> Answer:
    """get-imodel-released-locks: of objects that nobody holds any more, released after a changeset."""
    imodel = access.imodel(call, access.WEBVIEW)
    problems = imodels_problems("Cannot get released Locks.")
    page = paging.imodels_page(call, problems)
    text = call.query.get("afterChangesetIndex")
    after = None if text is None else _index(text)
    if text is None:
        problems.add("MissingRequiredParameter", "Required parameter is missing.", "afterChangesetIndex")
    elif after is None:
        problems.invalid("afterChangesetIndex", "The value must be a non-negative integer.")
    problems.refuse()
    statement = (
        "SELECT * FROM released_locks r WHERE imodel_id = ? AND changeset_index > ? AND NOT EXISTS "
        "(SELECT 1 FROM locks l WHERE l.imodel_id = r.imodel_id AND l.object_id = r.object_id) "
        "ORDER BY level, object_id"
    )
    rows, links = page.select(call, statement, (imodel["id"], after))
    return ok({"releasedLocks": _by_level(rows), "_links": links})


def update(call: Call) -> Answer:
    """update-imodel-locks: acquires, changes and releases, all of it or nothing; the answer has what is now held."""
    imodel = access.imodel(call, access.WRITE)
    problems = imodels_problems("Cannot update Locks.")
    fields = call.fields(problems)
    number = fields.integer("briefcaseId", *_BRIEFCASE_RANGE, required=True)
    changeset_id = fields.text("changesetId")
    wanted = _wanted(fields)
    problems.refuse()
    only_releases = all(level == NONE for level in wanted.values())
    briefcase = briefcases.own(call, imodel, number or 0, or_with=access.MANAGE if only_releases else None)
    index = _changeset_index(call, imodel, changeset_id)
    held = call.sql.execute(
        "SELECT object_id, briefcase_id, level FROM locks "
        "WHERE imodel_id = ? AND object_id IN (SELECT value FROM json_each(?)) ORDER BY object_id, briefcase_id",
        (imodel["id"], json.dumps(list(wanted))),
    ).fetchall()
    mine = {row["object_id"]: row["level"] for row in held if row["briefcase_id"] == briefcase["briefcase_id"]}
    if any(level == NONE and object_id not in mine for object_id, level in wanted.items()):
        raise ApiError("LockNotFound")
    _check_conflicts(wanted, [row for row in held if row["briefcase_id"] != briefcase["briefcase_id"]])
    gained = {one: LEVELS.index(level) - LEVELS.index(mine.get(one, NONE)) for one, level in wanted.items()}
    if index is not None:
        exclusive = [one for one, level in wanted.items() if level == EXCLUSIVE and gained[one] > 0]
        _check_newer(call, imodel, exclusive, index)
    _record(call, imodel, {one: mine[one] for one in wanted if gained[one] < 0}, index)
    key = (imodel["id"], briefcase["briefcase_id"])
    call.sql.executemany(
        "DELETE FROM locks WHERE imodel_id = ? AND briefcase_id = ? AND object_id = ?", [(*key, one) for one in wanted]
    )
    kept = [(*key, one, level) for one, level in wanted.items() if level != NONE]
    call.sql.executemany("INSERT INTO locks (imodel_id, briefcase_id, object_id, level) VALUES (?, ?, ?, ?)", kept)
    people.connect(call, imodel["id"])
    rows = [{"object_id": one, "level": level} for *_, one, level in kept]
    return ok({"lock": _lock(briefcase["briefcase_id"], sorted(rows, key=lambda row: row["level"]))})


def release_chunk(call: Call) -> Answer:
    """release-imodel-locks-chunk: as many locks of a briefcase as one request may, to be repeated until the last."""
    imodel = access.imodel(call, access.WRITE)
    problems = imodels_problems("Cannot release Locks.")
    fields = call.fields(problems)
    number = fields.integer("briefcaseId", *_BRIEFCASE_RANGE, required=True)
    changeset_id = fields.text("changesetId")
    problems.refuse()
    briefcase = briefcases.own(call, imodel, number or 0, or_with=access.MANAGE)
    index = _changeset_index(call, imodel, changeset_id)
    key = (imodel["id"], briefcase["briefcase_id"])
    held = call.sql.execute(
        "SELECT object_id, level FROM locks WHERE imodel_id = ? AND briefcase_id = ? ORDER BY level, object_id LIMIT ?",
        (*key, MOST_OBJECTS + 1),
    ).fetchall()
    released = {row["object_id"]: row["level"] for row in held[:MOST_OBJECTS]}
    _record(call, imodel, released, index)
    call.sql.executemany(
        "DELETE FROM locks WHERE imodel_id = ? AND briefcase_id = ? AND object_id = ?",
        [(*key, one) for one in released],
    )
    people.connect(call, imodel["id"])
    return ok({"isLastChunk": len(held) <= MOST_OBJECTS})


def _wanted(fields: Fields) -> dict[str, str]:
    """The level wanted for each object."""
    groups = fields.values.get("lockedObjects")
    if groups is None:
        fields.problems.missing("lockedObjects")
        return {}
    if not isinstance(groups, list) or not groups or not all(isinstance(group, dict) for group in groups):
        fields.problems.invalid("lockedObjects", "The value must be a non-empty array of objects.")
        return {}
    wanted: dict[str, str] = {}
    for group in groups:
        level = Fields(group, fields.problems, within="lockedObjects").choice("lockLevel", LEVELS, required=True)
        for object_id in _object_ids(fields, group.get("objectIds")):
            if wanted.setdefault(object_id, level or NONE) != (level or NONE):
                fields.problems.invalid("lockedObjects", f"Object '{object_id}' is given more than one lock level.")
    if len(wanted) > MOST_OBJECTS:
        fields.problems.invalid("lockedObjects", f"The number of object ids exceeds allowed {MOST_OBJECTS}.")
    return wanted


def _object_ids(fields: Fields, values: Any) -> list[str]:
    if not isinstance(values, list) or not values:
        fields.problems.invalid("lockedObjects", "The value of 'objectIds' must be a non-empty array.")
        return []
    found = [one.lower() for one in values if isinstance(one, str) and _OBJECT_ID.fullmatch(one)]
    if len(found) < len(values):
        fields.problems.invalid("lockedObjects", "Each of 'objectIds' must be a hexadecimal id, such as '0x1'.")
    return found


def _check_conflicts(wanted: Mapping[str, str], others: Iterable[sqlite3.Row]) -> None:
    """An exclusive lock bears no other beside it, a shared one bears shared ones."""
    conflicts: list[Json] = []
    for object_id, rows in groupby(others, lambda row: row["object_id"]):
        locks = list(rows)
        level = EXCLUSIVE if any(row["level"] == EXCLUSIVE for row in locks) else SHARED
        if wanted[object_id] == EXCLUSIVE or (wanted[object_id] == SHARED and level == EXCLUSIVE):
            numbers = [row["briefcase_id"] for row in locks]
            conflicts.append({"objectId": object_id, "lockLevel": level, "briefcaseIds": numbers})
    if conflicts:
        raise ApiError("ConflictWithAnotherUser", conflictingLocks=conflicts)


def _check_newer(call: Call, imodel: sqlite3.Row, object_ids: list[str], index: int) -> None:
    """Refuse exclusive locks from an older changeset than that in which the object was changed.

    Only an exclusive lock let its holder change it, and only one lets the next holder overwrite that.
    """
    newer = call.sql.execute(
        "SELECT object_id FROM released_locks WHERE imodel_id = ? AND level = ? AND changeset_index > ? "
        "AND object_id IN (SELECT value FROM json_each(?)) ORDER BY object_id",
        (imodel["id"], EXCLUSIVE, index, json.dumps(object_ids)),
    ).fetchall()
    if newer:
        raise ApiError("NewerChangesExist", objectIds=[row["object_id"] for row in newer])


def _record(call: Call, imodel: sqlite3.Row, released: Mapping[str, str], index: int | None) -> None:
    """Remember the changeset of what is given up; one older than the recorded one changes nothing."""
    if not index:
        return
    call.sql.executemany(
        "INSERT INTO released_locks (imodel_id, object_id, level, changeset_index) VALUES (?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET changeset_index = MAX(changeset_index, excluded.changeset_index)",
        [(imodel["id"], object_id, level, index) for object_id, level in released.items()],
    )


def _changeset_index(call: Call, imodel: sqlite3.Row, changeset_id: str | None) -> int | None:
    """The index of the changeset that the briefcase is at: "" is the baseline, None not told."""
    if not changeset_id:
        return None if changeset_id is None else 0
    row = call.one(
        "SELECT idx FROM changesets WHERE imodel_id = ? AND id = ? AND state = ?",
        imodel["id"],
        changeset_id.lower(),
        changesets.UPLOADED,
    )
    if row is None:
        raise ApiError("ChangesetNotFound")
    return int(row["idx"])


def _lock(number: int, rows: Iterable[Mapping[str, Any] | sqlite3.Row]) -> Json:
    return {"briefcaseId": number, "lockedObjects": _by_level(rows)}


def _by_level(rows: Iterable[Mapping[str, Any] | sqlite3.Row]) -> list[Json]:
    """The objects under their levels; the rows come in that order."""
    return [
        {"lockLevel": level, "objectIds": [row["object_id"] for row in group]}
        for level, group in groupby(rows, lambda row: row["level"])
    ]


def _index(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else None


_PATH: Final = "/imodels/{iModelId}/locks"

ROUTES: Final = (
    Route("GET", _PATH, list_all, slug="get-imodel-locks"),
    Route("PATCH", _PATH, update, slug="update-imodel-locks"),
    Route("POST", f"{_PATH}/release-chunk", release_chunk, slug="release-imodel-locks-chunk"),
    Route("GET", f"{_PATH}/released-locks", list_released, slug="get-imodel-released-locks"),
)
