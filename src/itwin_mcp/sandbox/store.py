"""The state: one SQLite connection, one transaction for each request, and the work that falls due with time.

Nothing runs in the background. A handler that starts asynchronous work writes a job with the moment at which it is done
(`schedule`); the next request at or after it performs the job first (`settle`), so that a clock set by hand is enough.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Final

SCHEMA_VERSION: Final = 1
BUSY_SECONDS: Final = 30.0


class UnknownDatabase(Exception):
    """The file is a database, but not one that this version of the sandbox wrote."""


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of work that has fallen due; `due` is when, which may be long before the request that noticed."""

    sql: sqlite3.Connection
    subject: str
    due: datetime
    job_seconds: float

    def then(self, kind: str, jobs: float) -> None:
        """Schedule what follows on the same subject, that many job lengths later."""
        schedule(self.sql, kind, self.subject, self.due + timedelta(seconds=self.job_seconds * jobs))


JobHandler = Callable[[Job], None]


class Store:
    """One connection; its lock makes a transaction whole even when two event loops serve the same sandbox."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._sql = connection
        self._lock = threading.RLock()

    @classmethod
    def open(cls, database: Path | None, fill: Callable[[sqlite3.Connection], None]) -> Store:
        """Open the file, or memory; a new one gets the schema and `fill` in one transaction, never seen half made."""
        connection = sqlite3.connect(
            ":memory:" if database is None else database,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.row_factory = sqlite3.Row
            connection.create_function("fold", 1, _fold, deterministic=True)
            connection.execute("PRAGMA foreign_keys = ON")
            # Raises sqlite3.DatabaseError for a file that is not a database.
            connection.execute("PRAGMA journal_mode = WAL")
            # FULL: an answered write survives a crash of the machine too, not only of the process.
            connection.execute("PRAGMA synchronous = FULL")
            store = cls(connection)
            with store.transaction(write=True) as sql:
                store._prepare(sql, fill)
        except BaseException:
            connection.close()
            raise
        return store

    def _prepare(self, sql: sqlite3.Connection, fill: Callable[[sqlite3.Connection], None]) -> None:
        version: int = sql.execute("PRAGMA user_version").fetchone()[0]
        if version == SCHEMA_VERSION:
            return
        if version != 0 or sql.execute("SELECT 1 FROM sqlite_schema").fetchone():
            raise UnknownDatabase(f"The database has schema version {version}; this sandbox reads {SCHEMA_VERSION}.")
        # Not executescript: it would commit the transaction first.
        for statement in files(__package__).joinpath("schema.sql").read_text("utf-8").split(";"):
            sql.execute(statement)
        fill(sql)
        sql.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextmanager
    def transaction(self, *, write: bool) -> Iterator[sqlite3.Connection]:
        """All or nothing. A write takes its lock at the start, so that it never fails halfway."""
        with self._lock:
            self._sql.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                yield self._sql
                self._sql.execute("COMMIT")
            except BaseException:
                if self._sql.in_transaction:  # SQLite ends it itself on a full disk
                    self._sql.execute("ROLLBACK")
                raise

    def settle(self, now: datetime, handlers: Mapping[str, JobHandler], job_seconds: float) -> None:
        """Perform what is due, in the order in which it fell due, including what that starts and is due as well."""
        with self._lock:
            moment = (stamp(now),)
            if not self._sql.execute("SELECT 1 FROM jobs WHERE due_at <= ? LIMIT 1", moment).fetchone():
                return
            with self.transaction(write=True) as sql:
                pick = "SELECT seq, kind, subject, due_at FROM jobs WHERE due_at <= ? ORDER BY due_at, seq LIMIT 1"
                while row := sql.execute(pick, moment).fetchone():
                    sql.execute("DELETE FROM jobs WHERE seq = ?", (row["seq"],))
                    handlers[row["kind"]](Job(sql, row["subject"], moment_of(row["due_at"]), job_seconds))

    def close(self) -> None:
        """Close the connection; everything acknowledged is already on disk."""
        with self._lock:
            self._sql.close()


def schedule(sql: sqlite3.Connection, kind: str, subject: str, due: datetime) -> None:
    """Have `JOBS[kind]` of some entity module run on `subject` at the first request at or after `due`."""
    sql.execute("INSERT INTO jobs (kind, subject, due_at) VALUES (?, ?, ?)", (kind, subject, stamp(due)))


def stamp(moment: datetime) -> str:
    """A moment as the platform prints it, with seven fractional digits."""
    utc = moment.astimezone(UTC).replace(tzinfo=None)
    return f"{utc.isoformat(timespec='microseconds')}0Z"


def moment_of(text: str) -> datetime:
    """The moment that `stamp` printed."""
    return datetime.fromisoformat(text[:26]).replace(tzinfo=UTC)


def _fold(text: str | None) -> str | None:
    return None if text is None else str(text).casefold()
