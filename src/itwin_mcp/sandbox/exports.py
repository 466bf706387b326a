"""Exports: a file with every iTwin that answers a query, queued, made, and deleted four hours later.

The file holds what is true when it is made. Two are made at a time, whoever asked for them (create-export).
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import sqlite3
import uuid
import zipfile
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Final

from itwin_mcp.sandbox import files, odata
from itwin_mcp.sandbox.errors import ApiError, itwins_problems
from itwin_mcp.sandbox.itwin_lists import Selection, filtered, of_sub_classes, within
from itwin_mcp.sandbox.itwins import COLUMNS, MINIMAL, SELECTED, render
from itwin_mcp.sandbox.store import Job, moment_of, schedule, stamp
from itwin_mcp.sandbox.wire import Answer, Call, Json, Route, created, ok

SCOPES: Final = ("MemberOfiTwin", "OrganizationAdmin")
KEPT: Final = timedelta(hours=4)
AT_ONCE: Final = 2
PER_HOUR: Final = 3
_MEDIA_TYPES: Final[Mapping[str, str]] = {
    "JsonGZip": "application/gzip",
    "JsonZipArchive": "application/zip",
    "CsvGZip": "application/gzip",
    "Csv": "text/csv",
}


def create(call: Call) -> Answer:
    """create-export: everything that can be wrong with the query is told now, not when the file is made."""
    problems = itwins_problems("Cannot query iTwins.")
    fields = call.fields(problems)
    request: Json = {
        "queryScope": fields.choice("queryScope", SCOPES) or SCOPES[0],
        "subClass": fields.text("subClass", blank=False),
        "select": fields.text("select", blank=False, limit=2048),
        "filter": fields.text("filter", blank=False, limit=8192),
        "includeInactive": fields.flag("includeInactive", False),
        "outputFormat": fields.choice("outputFormat", tuple(_MEDIA_TYPES), required=True),
    }
    if request["subClass"]:
        of_sub_classes(Selection(), request["subClass"], problems)
    if request["select"]:
        try:
            odata.parse_select(request["select"], COLUMNS)
        except odata.ODataError as error:
            problems.add("InvalidValue", str(error), "$select")
    problems.refuse()
    if request["filter"]:
        filtered(Selection(), request["filter"])
    if request["queryScope"] == SCOPES[1] and not call.caller.is_admin:
        raise ApiError("InsufficientPermissions")
    _check_quotas(call)
    export_id = str(uuid.uuid4())
    call.sql.execute(
        "INSERT INTO exports (id, user_id, request_json, status, created_at) VALUES (?, ?, ?, 'Queued', ?)",
        (export_id, call.caller.id, json.dumps(request), call.stamp),
    )
    call.schedule("export-started", export_id, jobs=0.5)
    schedule(call.sql, "export-expired", export_id, call.now + KEPT)
    return created({"export": _load(call, export_id)})


def get(call: Call) -> Answer:
    """get-export: one's own."""
    return ok({"export": _load(call, call.slots["exportId"].lower())})


def get_mine(call: Call) -> Answer:
    """get-my-exports: those of the last four hours, the newest first."""
    found = call.sql.execute("SELECT * FROM exports WHERE user_id = ? ORDER BY seq DESC", (call.caller.id,))
    return ok({"exports": [_render(call, row) for row in found.fetchall()]})


def start(job: Job) -> None:
    """Begin with the file, or wait until another one is done."""
    busy = job.sql.execute("SELECT COUNT(*) FROM exports WHERE status = 'InProgress'").fetchone()[0]
    if busy >= AT_ONCE:
        # A waiting one is started by the one that ends (`complete`).
        return
    job.sql.execute(
        "UPDATE exports SET status = 'InProgress', started_at = ? WHERE id = ? AND status = 'Queued'",
        (stamp(job.due), job.subject),
    )
    job.then("export-completed", 0.5)


def complete(job: Job) -> None:
    """Make the file, and let the next one begin."""
    row = job.sql.execute("SELECT * FROM exports WHERE id = ?", (job.subject,)).fetchone()
    if row is not None:
        request = json.loads(row["request_json"])
        content = _content(job.sql, row["user_id"], request)
        blob_id = files.put(job, content, _MEDIA_TYPES[request["outputFormat"]])
        job.sql.execute(
            "UPDATE exports SET status = 'Completed', completed_at = ?, blob_id = ? WHERE id = ?",
            (stamp(job.due), blob_id, row["id"]),
        )
    waiting = job.sql.execute(
        "SELECT id FROM exports e WHERE status = 'Queued' AND NOT EXISTS "
        "(SELECT 1 FROM jobs j WHERE j.kind = 'export-started' AND j.subject = e.id) ORDER BY seq LIMIT 1"
    ).fetchone()
    if waiting is not None:
        schedule(job.sql, "export-started", waiting["id"], job.due)


def expire(job: Job) -> None:
    """After four hours neither the file nor the export is left."""
    row = job.sql.execute("SELECT blob_id FROM exports WHERE id = ?", (job.subject,)).fetchone()
    if row is not None and row["blob_id"] is not None:
        files.delete(job, row["blob_id"])
    job.sql.execute("DELETE FROM exports WHERE id = ?", (job.subject,))


def _check_quotas(call: Call) -> None:
    """One at a time, three an hour (create-export, Quotas)."""
    problems = itwins_problems("Cannot query iTwins.")
    running = "SELECT 1 FROM exports WHERE user_id = ? AND status IN ('Queued', 'InProgress')"
    if call.one(running, call.caller.id):
        message = "The user has exceeded the maximum number of simultaneous export jobs allowed."
        problems.add("ResourceQuotaExceeded", message, "SimultaneousJobsQuota")
    recent = "SELECT COUNT(*) FROM exports WHERE user_id = ? AND created_at > ?"
    made = call.one(recent, call.caller.id, stamp(call.now - timedelta(hours=1)))
    if made is not None and made[0] >= PER_HOUR:
        message = "The user has exceeded the maximum number of export jobs allowed per hour."
        problems.add("ResourceQuotaExceeded", message, "MaxJobsPerHourQuota")
    problems.refuse()


def _load(call: Call, export_id: str) -> Json:
    row = call.one("SELECT * FROM exports WHERE id = ? AND user_id = ?", export_id, call.caller.id)
    if row is None:
        raise ApiError("iTwinExportNotFound")
    return _render(call, row)


def _render(call: Call, row: sqlite3.Row) -> Json:
    url = None
    if row["blob_id"] is not None:
        left = moment_of(row["created_at"]) + KEPT - call.now
        url = files.link(call, row["blob_id"], seconds=int(left.total_seconds()))["href"]
    request = json.loads(row["request_json"])
    return {
        "id": row["id"],
        "request": {name: value for name, value in request.items() if value is not None},
        "status": row["status"],
        "outputUrl": url,
        "createdBy": row["user_id"],
        "createdDateTime": row["created_at"],
        "startedDateTime": row["started_at"],
        "completedDateTime": row["completed_at"],
    }


def _content(sql: sqlite3.Connection, user_id: str, request: Mapping[str, str]) -> bytes:
    user = sql.execute("SELECT * FROM users WHERE id = ?", (user_id,)).fetchone()
    selection = Selection()
    within(selection, request["queryScope"], user_id, user["account_id"] if user["is_admin"] else None)
    mentioned = filtered(selection, request["filter"]).properties if request["filter"] else frozenset()
    if request["subClass"]:
        of_sub_classes(selection, request["subClass"], itwins_problems(""))
    elif "subClass" not in mentioned:
        selection.add("t.sub_class <> 'Account'")
    if not request["includeInactive"] and "status" not in mentioned:
        selection.add("t.status <> 'Inactive'")
    names = odata.parse_select(request["select"], COLUMNS) if request["select"] else MINIMAL
    statement = f"SELECT {SELECTED} FROM itwins t WHERE {selection.where} ORDER BY t.seq"
    found = sql.execute(statement, selection.parameters)
    return _WRITERS[request["outputFormat"]](names, (render(row, names=names) for row in found))


def _json(itwins: Iterable[Json]) -> bytes:
    return json.dumps({"iTwins": list(itwins)}, ensure_ascii=False, indent=1).encode()


def _csv(names: tuple[str, ...], itwins: Iterable[Json]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(names)
    writer.writerows([itwin[name] for name in names] for itwin in itwins)
    return text.getvalue().encode()


def _zip(content: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        # A fixed date: the same iTwins make the same file.
        zipped.writestr(zipfile.ZipInfo("iTwins.json", (2026, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)
    return archive.getvalue()


_WRITERS: Final[Mapping[str, Callable[[tuple[str, ...], Iterable[Json]], bytes]]] = {
    "JsonGZip": lambda _, itwins: gzip.compress(_json(itwins), mtime=0),
    "JsonZipArchive": lambda _, itwins: _zip(_json(itwins)),
    "CsvGZip": lambda names, itwins: gzip.compress(_csv(names, itwins), mtime=0),
    "Csv": _csv,
}

JOBS: Final = {"export-started": start, "export-completed": complete, "export-expired": expire}

ROUTES: Final = (
    Route("POST", "/itwins/exports", create, slug="create-export"),
    Route("GET", "/itwins/exports", get_mine, slug="get-my-exports"),
    Route("GET", "/itwins/exports/{exportId}", get, slug="get-export"),
)
