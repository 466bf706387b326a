"""Exports: files with all iTwins that match a query, generated in the background and deleted after four hours.

A file shows the state at the time of its generation. At most two exports run at a time, for all users together
(create-export).
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

from itwin_mcp.sandbox import odata
from itwin_mcp.sandbox.errors import ApiError, make_itwins_problems
from itwin_mcp.sandbox.itwins.itwins import COLUMNS, MINIMAL_PROPERTIES, SELECTED_COLUMNS, render_itwin
from itwin_mcp.sandbox.itwins.lists import Selection, add_filter, add_scope, add_sub_classes
from itwin_mcp.sandbox.storage import blobs
from itwin_mcp.sandbox.store import Job, format_timestamp, parse_timestamp, schedule_job
from itwin_mcp.sandbox.wire import Answer, Call, Json, created, ok

SCOPES: Final = ("MemberOfiTwin", "OrganizationAdmin")
LIFETIME: Final = timedelta(hours=4)
MAX_RUNNING: Final = 2
MAX_PER_HOUR: Final = 3
_MEDIA_TYPES: Final[Mapping[str, str]] = {
    "JsonGZip": "application/gzip",
    "JsonZipArchive": "application/zip",
    "CsvGZip": "application/gzip",
    "Csv": "text/csv",
}


def create_export(call: Call) -> Answer:
    """Queue an export. Errors in its query are reported at once and not when the file is generated."""
    problems = make_itwins_problems("Cannot query iTwins.")
    fields = call.read_fields(problems)
    request: Json = {
        "queryScope": fields.get_choice("queryScope", SCOPES) or SCOPES[0],
        "subClass": fields.get_text("subClass", blank=False),
        "select": fields.get_text("select", blank=False, limit=2048),
        "filter": fields.get_text("filter", blank=False, limit=8192),
        "includeInactive": fields.get_flag("includeInactive", False),
        "outputFormat": fields.get_choice("outputFormat", tuple(_MEDIA_TYPES), required=True),
    }
    if request["subClass"]:
        add_sub_classes(Selection(), request["subClass"], problems)
    if request["select"]:
        try:
            odata.parse_select(request["select"], COLUMNS)
        except odata.ODataError as error:
            problems.add("InvalidValue", str(error), "$select")
    problems.raise_if_any()
    if request["filter"]:
        add_filter(Selection(), request["filter"])
    if request["queryScope"] == SCOPES[1] and not call.caller.is_admin:
        raise ApiError("InsufficientPermissions")
    _check_quotas(call)
    export_id = str(uuid.uuid4())
    call.sql.execute(
        "INSERT INTO exports (id, user_id, request_json, status, created_at) VALUES (?, ?, ?, 'Queued', ?)",
        (export_id, call.caller.id, json.dumps(request), call.timestamp),
    )
    call.schedule("export-started", export_id, jobs=0.5)
    schedule_job(call.sql, "export-expired", export_id, call.now + LIFETIME)
    return created({"export": _load_export(call, export_id)})


def get_export(call: Call) -> Answer:
    return ok({"export": _load_export(call, call.slots["exportId"].lower())})


def list_my_exports(call: Call) -> Answer:
    """List the caller's exports of the last four hours, the newest first."""
    rows = call.sql.execute("SELECT * FROM exports WHERE user_id = ? ORDER BY seq DESC", (call.caller.id,))
    return ok({"exports": [_render_export(call, row) for row in rows.fetchall()]})


def start_export(job: Job) -> None:
    """Start a queued export, or leave it queued while two others are running."""
    running = job.sql.execute("SELECT COUNT(*) FROM exports WHERE status = 'InProgress'").fetchone()[0]
    if running >= MAX_RUNNING:
        return  # when a running export ends, `complete_export` starts the next one in the queue
    job.sql.execute(
        "UPDATE exports SET status = 'InProgress', started_at = ? WHERE id = ? AND status = 'Queued'",
        (job.timestamp, job.subject),
    )
    job.schedule_next("export-completed", 0.5)


def complete_export(job: Job) -> None:
    """Generate the file of a running export, and start the next one in the queue."""
    row = job.sql.execute("SELECT * FROM exports WHERE id = ?", (job.subject,)).fetchone()
    if row is not None:
        request = json.loads(row["request_json"])
        content = _make_file(job.sql, row["user_id"], request)
        blob_id = blobs.store_blob(job, content, _MEDIA_TYPES[request["outputFormat"]])
        job.sql.execute(
            "UPDATE exports SET status = 'Completed', completed_at = ?, blob_id = ? WHERE id = ?",
            (job.timestamp, blob_id, row["id"]),
        )
    queued = job.sql.execute(
        "SELECT id FROM exports e WHERE status = 'Queued' AND NOT EXISTS "
        "(SELECT 1 FROM jobs j WHERE j.kind = 'export-started' AND j.subject = e.id) ORDER BY seq LIMIT 1"
    ).fetchone()
    if queued is not None:
        schedule_job(job.sql, "export-started", queued["id"], job.due)


def expire_export(job: Job) -> None:
    """Delete an export and its file."""
    row = job.sql.execute("SELECT blob_id FROM exports WHERE id = ?", (job.subject,)).fetchone()
    if row is not None and row["blob_id"] is not None:
        blobs.delete_blob(job, row["blob_id"])
    job.sql.execute("DELETE FROM exports WHERE id = ?", (job.subject,))


def _check_quotas(call: Call) -> None:
    """Check the caller's quotas: one unfinished export, and three per hour (create-export, section Quotas)."""
    problems = make_itwins_problems("Cannot query iTwins.")
    unfinished = "SELECT 1 FROM exports WHERE user_id = ? AND status IN ('Queued', 'InProgress')"
    if call.fetch_one(unfinished, call.caller.id):
        message = "The user has exceeded the maximum number of simultaneous export jobs allowed."
        problems.add("ResourceQuotaExceeded", message, "SimultaneousJobsQuota")
    statement = "SELECT COUNT(*) FROM exports WHERE user_id = ? AND created_at > ?"
    an_hour_ago = format_timestamp(call.now - timedelta(hours=1))
    (recent_count,) = call.sql.execute(statement, (call.caller.id, an_hour_ago)).fetchone()
    if recent_count >= MAX_PER_HOUR:
        message = "The user has exceeded the maximum number of export jobs allowed per hour."
        problems.add("ResourceQuotaExceeded", message, "MaxJobsPerHourQuota")
    problems.raise_if_any()


def _load_export(call: Call, export_id: str) -> Json:
    statement = "SELECT * FROM exports WHERE id = ? AND user_id = ?"
    return _render_export(call, call.require_one("iTwinExportNotFound", statement, export_id, call.caller.id))


def _render_export(call: Call, row: sqlite3.Row) -> Json:
    url = None
    if row["blob_id"] is not None:
        remaining = parse_timestamp(row["created_at"]) + LIFETIME - call.now
        url = blobs.make_link(call, row["blob_id"], seconds=int(remaining.total_seconds()))["href"]
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


def _make_file(sql: sqlite3.Connection, user_id: str, request: Mapping[str, str]) -> bytes:
    """Return the file of an export, with the iTwins as they are now."""
    user = sql.execute("SELECT * FROM users WHERE id = ?", (user_id,)).fetchone()
    selection = Selection()
    add_scope(selection, request["queryScope"], user_id, user["account_id"] if user["is_admin"] else None)
    used_properties = add_filter(selection, request["filter"]).properties if request["filter"] else frozenset()
    if request["subClass"]:
        add_sub_classes(selection, request["subClass"], make_itwins_problems(""))
    elif "subClass" not in used_properties:
        selection.add("t.sub_class <> 'Account'")
    if not request["includeInactive"] and "status" not in used_properties:
        selection.add("t.status <> 'Inactive'")
    names = odata.parse_select(request["select"], COLUMNS) if request["select"] else MINIMAL_PROPERTIES
    statement = f"SELECT {SELECTED_COLUMNS} FROM itwins t WHERE {selection.where} ORDER BY t.seq"
    rows = sql.execute(statement, selection.parameters)
    return _WRITERS[request["outputFormat"]](names, (render_itwin(row, names=names) for row in rows))


def _write_json(itwins: Iterable[Json]) -> bytes:
    return json.dumps({"iTwins": list(itwins)}, ensure_ascii=False, indent=1).encode()


def _write_csv(names: tuple[str, ...], itwins: Iterable[Json]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(names)
    writer.writerows([itwin[name] for name in names] for itwin in itwins)
    return text.getvalue().encode()


def _write_zip(content: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        # With a fixed date the same iTwins give the same bytes.
        zipped.writestr(zipfile.ZipInfo("iTwins.json", (2026, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)
    return archive.getvalue()


_WRITERS: Final[Mapping[str, Callable[[tuple[str, ...], Iterable[Json]], bytes]]] = {
    "JsonGZip": lambda _, itwins: gzip.compress(_write_json(itwins), mtime=0),
    "JsonZipArchive": lambda _, itwins: _write_zip(_write_json(itwins)),
    "CsvGZip": lambda names, itwins: gzip.compress(_write_csv(names, itwins), mtime=0),
    "Csv": _write_csv,
}
