"""Locks: which briefcase may change which objects of an iModel.

An object has one exclusive lock or any number of shared ones. To release or demote a lock, a client names the changeset
in which it changed the object. After that nobody can lock the object exclusively from an older changeset
(update-imodel-locks). A lock that is released without a changeset, or with "", is abandoned: the recorded changeset
stays as it is (iTwin.js, `abandonAllLocks`).
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any, Final

from itwin_mcp.sandbox import access, paging
from itwin_mcp.sandbox.errors import ApiError, make_imodels_problems
from itwin_mcp.sandbox.imodels import briefcases, changesets, users
from itwin_mcp.sandbox.wire import Answer, Call, Fields, Json, ok, parse_digits

NONE: Final = "none"
SHARED: Final = "shared"
EXCLUSIVE: Final = "exclusive"
LEVELS: Final = (NONE, SHARED, EXCLUSIVE)  # from the weakest to the strongest
MAX_OBJECTS: Final = 1000
_OBJECT_ID: Final = re.compile("0[xX][0-9a-fA-F]{1,16}")  # Id64String of iTwin.js
_BRIEFCASE_RANGE: Final = (-(2**53), 2**53)  # any number is valid; unknown ones are not found


def list_locks(call: Call) -> Answer:
    """List locks by briefcase. Pages count objects, so the locks of a briefcase may continue on the next page."""
    imodel = access.require_imodel(call, access.WEBVIEW)
    problems = make_imodels_problems("Cannot get Locks.")
    page = paging.read_imodels_page(call, problems)
    conditions, parameters = ["imodel_id = ?"], [imodel["id"]]
    if (briefcase := call.query.get("briefcaseId")) is not None:
        number = parse_digits(briefcase)
        if number is None:
            problems.add_invalid("briefcaseId", "The value must be an integer.")
        conditions.append("briefcase_id = ?")
        parameters.append(number)
    if (level := call.query.get("lockLevel")) is not None:
        if level.lower() not in LEVELS[1:]:
            problems.add_invalid("lockLevel", f"Valid values are {', '.join(LEVELS[1:])}.")
        conditions.append("level = ?")
        parameters.append(level.lower())
    problems.raise_if_any()
    statement = f"SELECT * FROM locks WHERE {' AND '.join(conditions)} ORDER BY briefcase_id, level, object_id"
    rows, links = page.fetch_rows(call, statement, parameters)
    locks = [_render_lock(number, group) for number, group in groupby(rows, lambda row: row["briefcase_id"])]
    return ok({"locks": locks, "_links": links})


def list_released_locks(call: Call) -> Answer:
    """List objects that nobody holds any more and that were released after a given changeset."""
    imodel = access.require_imodel(call, access.WEBVIEW)
    problems = make_imodels_problems("Cannot get released Locks.")
    page = paging.read_imodels_page(call, problems)
    text = call.query.get("afterChangesetIndex")
    after = None if text is None else parse_digits(text)
    if text is None:
        problems.add("MissingRequiredParameter", "Required parameter is missing.", "afterChangesetIndex")
    elif after is None:
        problems.add_invalid("afterChangesetIndex", "The value must be a non-negative integer.")
    problems.raise_if_any()
    statement = (
        "SELECT * FROM released_locks r WHERE imodel_id = ? AND changeset_index > ? AND NOT EXISTS "
        "(SELECT 1 FROM locks l WHERE l.imodel_id = r.imodel_id AND l.object_id = r.object_id) "
        "ORDER BY level, object_id"
    )
    rows, links = page.fetch_rows(call, statement, (imodel["id"], after))
    return ok({"releasedLocks": _group_by_level(rows), "_links": links})


def update_locks(call: Call) -> Answer:
    """Acquire, change and release locks. One conflict rejects the whole request.

    The answer lists the requested objects that the briefcase now holds.
    """
    imodel = access.require_imodel(call, access.WRITE)
    problems = make_imodels_problems("Cannot update Locks.")
    fields = call.read_fields(problems)
    number = fields.get_integer("briefcaseId", *_BRIEFCASE_RANGE, required=True)
    changeset_id = fields.get_text("changesetId")
    levels = _read_wanted_levels(fields)
    problems.raise_if_any()
    only_releases = all(level == NONE for level in levels.values())
    briefcase = briefcases.require_own_briefcase(
        call, imodel, number or 0, or_with=access.MANAGE if only_releases else None
    )
    index = _find_changeset_index(call, imodel, changeset_id)
    locks = call.sql.execute(
        "SELECT object_id, briefcase_id, level FROM locks "
        "WHERE imodel_id = ? AND object_id IN (SELECT value FROM json_each(?)) ORDER BY object_id, briefcase_id",
        (imodel["id"], json.dumps(list(levels))),
    ).fetchall()
    own_levels = {row["object_id"]: row["level"] for row in locks if row["briefcase_id"] == briefcase["briefcase_id"]}
    if any(level == NONE and object_id not in own_levels for object_id, level in levels.items()):
        raise ApiError("LockNotFound")
    _check_conflicts(levels, [row for row in locks if row["briefcase_id"] != briefcase["briefcase_id"]])
    # A positive number strengthens the lock, a negative one weakens or releases it.
    changes = {
        object_id: LEVELS.index(level) - LEVELS.index(own_levels.get(object_id, NONE))
        for object_id, level in levels.items()
    }
    if index is not None:
        exclusive = [object_id for object_id, level in levels.items() if level == EXCLUSIVE and changes[object_id] > 0]
        _check_newer_changes(call, imodel, exclusive, index)
    _record_released(
        call, imodel, {object_id: own_levels[object_id] for object_id in levels if changes[object_id] < 0}, index
    )
    key = (imodel["id"], briefcase["briefcase_id"])
    call.sql.executemany(
        "DELETE FROM locks WHERE imodel_id = ? AND briefcase_id = ? AND object_id = ?",
        [(*key, object_id) for object_id in levels],
    )
    new_locks = [(*key, object_id, level) for object_id, level in levels.items() if level != NONE]
    call.sql.executemany("INSERT INTO locks (imodel_id, briefcase_id, object_id, level) VALUES (?, ?, ?, ?)", new_locks)
    users.record_access(call, imodel["id"])
    rows = [{"object_id": object_id, "level": level} for *_, object_id, level in new_locks]
    return ok({"lock": _render_lock(briefcase["briefcase_id"], sorted(rows, key=lambda row: row["level"]))})


def release_chunk(call: Call) -> Answer:
    """Release up to 1000 locks of a briefcase. Clients repeat this until `isLastChunk` is true."""
    imodel = access.require_imodel(call, access.WRITE)
    problems = make_imodels_problems("Cannot release Locks.")
    fields = call.read_fields(problems)
    number = fields.get_integer("briefcaseId", *_BRIEFCASE_RANGE, required=True)
    changeset_id = fields.get_text("changesetId")
    problems.raise_if_any()
    briefcase = briefcases.require_own_briefcase(call, imodel, number or 0, or_with=access.MANAGE)
    index = _find_changeset_index(call, imodel, changeset_id)
    key = (imodel["id"], briefcase["briefcase_id"])
    locks = call.sql.execute(
        "SELECT object_id, level FROM locks WHERE imodel_id = ? AND briefcase_id = ? ORDER BY level, object_id LIMIT ?",
        (*key, MAX_OBJECTS + 1),
    ).fetchall()
    released = {row["object_id"]: row["level"] for row in locks[:MAX_OBJECTS]}
    _record_released(call, imodel, released, index)
    call.sql.executemany(
        "DELETE FROM locks WHERE imodel_id = ? AND briefcase_id = ? AND object_id = ?",
        [(*key, object_id) for object_id in released],
    )
    users.record_access(call, imodel["id"])
    return ok({"isLastChunk": len(locks) <= MAX_OBJECTS})


def _read_wanted_levels(fields: Fields) -> dict[str, str]:
    """Return the requested lock level of each object id."""
    levels: dict[str, str] = {}
    for group in fields.get_objects("lockedObjects"):
        level = group.get_choice("lockLevel", LEVELS, required=True) or NONE
        for object_id in _read_object_ids(fields, group.values.get("objectIds")):
            if levels.setdefault(object_id, level) != level:
                fields.problems.add_invalid("lockedObjects", f"Object '{object_id}' is given more than one lock level.")
    if len(levels) > MAX_OBJECTS:
        fields.problems.add_invalid("lockedObjects", f"The number of object ids exceeds allowed {MAX_OBJECTS}.")
    return levels


def _read_object_ids(fields: Fields, values: Any) -> list[str]:
    if not isinstance(values, list) or not values:
        fields.problems.add_invalid("lockedObjects", "The value of 'objectIds' must be a non-empty array.")
        return []
    object_ids = [value.lower() for value in values if isinstance(value, str) and _OBJECT_ID.fullmatch(value)]
    if len(object_ids) < len(values):
        fields.problems.add_invalid("lockedObjects", "Each of 'objectIds' must be a hexadecimal id, such as '0x1'.")
    return object_ids


def _check_conflicts(levels: Mapping[str, str], other_locks: Iterable[sqlite3.Row]) -> None:
    """Check the requested levels against the locks of other briefcases.

    Raises:
        ApiError: `ConflictWithAnotherUser`, with the conflicting locks.
    """
    conflicts: list[Json] = []
    for object_id, rows in groupby(other_locks, lambda row: row["object_id"]):
        locks = list(rows)
        level = EXCLUSIVE if any(row["level"] == EXCLUSIVE for row in locks) else SHARED
        if levels[object_id] == EXCLUSIVE or (levels[object_id] == SHARED and level == EXCLUSIVE):
            numbers = [row["briefcase_id"] for row in locks]
            conflicts.append({"objectId": object_id, "lockLevel": level, "briefcaseIds": numbers})
    if conflicts:
        raise ApiError("ConflictWithAnotherUser", conflictingLocks=conflicts)


def _check_newer_changes(call: Call, imodel: sqlite3.Row, object_ids: list[str], index: int) -> None:
    """Check that no object to be locked exclusively was changed after the briefcase's changeset.

    Released shared locks do not matter, because their holders could not change the object.

    Raises:
        ApiError: `NewerChangesExist`, with the object ids.
    """
    newer = call.sql.execute(
        "SELECT object_id FROM released_locks WHERE imodel_id = ? AND level = ? AND changeset_index > ? "
        "AND object_id IN (SELECT value FROM json_each(?)) ORDER BY object_id",
        (imodel["id"], EXCLUSIVE, index, json.dumps(object_ids)),
    ).fetchall()
    if newer:
        raise ApiError("NewerChangesExist", objectIds=[row["object_id"] for row in newer])


def _record_released(call: Call, imodel: sqlite3.Row, released: Mapping[str, str], index: int | None) -> None:
    """Record the changeset in which released objects were last changed, unless a newer one is recorded."""
    if not index:
        return
    call.sql.executemany(
        "INSERT INTO released_locks (imodel_id, object_id, level, changeset_index) VALUES (?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET changeset_index = MAX(changeset_index, excluded.changeset_index)",
        [(imodel["id"], object_id, level, index) for object_id, level in released.items()],
    )


def _find_changeset_index(call: Call, imodel: sqlite3.Row, changeset_id: str | None) -> int | None:
    """Return the index of the briefcase's changeset: 0 for the baseline, whose id is "", or None without an id."""
    if not changeset_id:
        return None if changeset_id is None else 0
    return changesets.find_uploaded_index(call, imodel, changeset_id)


def _render_lock(number: int, rows: Iterable[Mapping[str, Any] | sqlite3.Row]) -> Json:
    return {"briefcaseId": number, "lockedObjects": _group_by_level(rows)}


def _group_by_level(rows: Iterable[Mapping[str, Any] | sqlite3.Row]) -> list[Json]:
    """Group rows into objects per lock level. The rows must be ordered by level."""
    return [
        {"lockLevel": level, "objectIds": [row["object_id"] for row in group]}
        for level, group in groupby(rows, lambda row: row["level"])
    ]
