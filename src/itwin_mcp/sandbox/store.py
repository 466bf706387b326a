"""The sandbox's state in SQLite: transactions, and jobs that become due with time.

Nothing runs in the background. A handler that starts asynchronous work schedules a job with its due time
(`schedule_job`). The first request after that time performs the job (`Store.run_due_jobs`), so tests can set the clock.
"""

from __future__ import annotations

import itertools
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Final

SCHEMA_VERSION: Final = 1
BUSY_SECONDS: Final = 30.0


class UnknownDatabase(Exception):
    """The file is not a sandbox database of this version."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job that is due. The request that runs it may come long after `due`."""

    sql: sqlite3.Connection
    subject: str
    due: datetime
    job_seconds: float

    @property
    def timestamp(self) -> str:
        """Return the due time as it is stored and printed."""
        return format_timestamp(self.due)

    def schedule_next(self, kind: str, jobs: float) -> None:
        """Schedule another job on the same subject, `jobs` times `job_seconds` after this one."""
        schedule_job(self.sql, kind, self.subject, self.due + timedelta(seconds=self.job_seconds * jobs))


JobHandler = Callable[[Job], None]


class Store:
    """One SQLite connection. A lock keeps transactions apart even if two event loops serve the same sandbox."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._sql = connection
        self._lock = threading.RLock()

    @classmethod
    def open(cls, database: Path | None, fill: Callable[[sqlite3.Connection], None]) -> Store:
        """Open the file, or a database in memory.

        A new database gets the schema and `fill` in one transaction, so that no other process sees it half filled.

        Raises:
            UnknownDatabase: If the file has another schema version.
            sqlite3.DatabaseError: If the file is not a database.
        """
        connection = sqlite3.connect(
            ":memory:" if database is None else database,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.row_factory = sqlite3.Row
            connection.create_function("fold", 1, _fold_case, deterministic=True)
            connection.execute("PRAGMA foreign_keys = ON")
            # This statement raises sqlite3.DatabaseError for a file that is not a database.
            connection.execute("PRAGMA journal_mode = WAL")
            # FULL: an acknowledged write survives a crash of the machine too, not only of the process.
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
        # Not executescript, which would commit the transaction first.
        for statement in files(__package__).joinpath("schema.sql").read_text("utf-8").split(";"):
            sql.execute(statement)
        fill(sql)
        sql.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextmanager
    def transaction(self, *, write: bool) -> Iterator[sqlite3.Connection]:
        """Run a block in a transaction.

        A write transaction takes SQLite's lock at the start, so that no other process can block it halfway.
        """
        with self._lock:
            self._sql.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                yield self._sql
                self._sql.execute("COMMIT")
            except BaseException:
                if self._sql.in_transaction:  # on a full disk SQLite has rolled back already
                    self._sql.execute("ROLLBACK")
                raise

    def run_due_jobs(self, now: datetime, handlers: Mapping[str, JobHandler], job_seconds: float) -> None:
        """Run the jobs that are due in the order of their due times, including those that they schedule."""
        with self._lock:
            moment = (format_timestamp(now),)
            if not self._sql.execute("SELECT 1 FROM jobs WHERE due_at <= ? LIMIT 1", moment).fetchone():
                return
            with self.transaction(write=True) as sql:
                pick = "SELECT seq, kind, subject, due_at FROM jobs WHERE due_at <= ? ORDER BY due_at, seq LIMIT 1"
                while row := sql.execute(pick, moment).fetchone():
                    sql.execute("DELETE FROM jobs WHERE seq = ?", (row["seq"],))
                    handlers[row["kind"]](Job(sql, row["subject"], parse_timestamp(row["due_at"]), job_seconds))

    def close(self) -> None:
        """Close the connection. Every acknowledged write is already on disk."""
        with self._lock:
            self._sql.close()


def insert_row(sql: sqlite3.Connection, table: str, row: Mapping[str, object]) -> None:
    """Insert a row, given as column -> value. The table and columns must never come from a request."""
    columns, slots = ", ".join(row), ", ".join("?" * len(row))
    sql.execute(f"INSERT INTO {table} ({columns}) VALUES ({slots})", tuple(row.values()))


def set_database_aside(database: Path) -> Path | None:
    """Rename a file that this version cannot read. Return its new path, or None if it can be read."""
    if not database.exists() or _is_current(database):
        return None
    names = (database.with_name(f"{database.name}.set-aside-{number}") for number in itertools.count(1))
    aside = next(name for name in names if not name.exists())
    for file, moved in zip(_list_files(database), _list_files(aside), strict=True):
        with suppress(FileNotFoundError):
            file.rename(moved)
    return aside


def delete_database(database: Path) -> bool:
    """Delete the file of a sandbox. Return whether it existed.

    Raises:
        UnknownDatabase: If it is not the file of a sandbox.
    """
    if not database.exists():
        return False
    if not _is_current(database):
        raise UnknownDatabase(f"{database} is not a file of this sandbox.")
    for file in _list_files(database):
        file.unlink(missing_ok=True)
    return True


def _is_current(database: Path) -> bool:
    """Return whether the file has this schema version, or is empty because another process is creating it."""
    try:
        with closing(sqlite3.connect(database, timeout=BUSY_SECONDS)) as connection:
            version: int = connection.execute("PRAGMA user_version").fetchone()[0]
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    except sqlite3.DatabaseError:
        return False
    if version == SCHEMA_VERSION:
        return {"itwins", "signing_keys"} <= tables
    return version == 0 and not tables


def _list_files(database: Path) -> tuple[Path, ...]:
    """Return the database file and the files that SQLite keeps next to it."""
    return (database, *(database.with_name(database.name + suffix) for suffix in ("-wal", "-shm")))


def schedule_job(sql: sqlite3.Connection, kind: str, subject: str, due: datetime) -> None:
    """Schedule a job. The first request at or after `due` runs the service's handler `JOBS[kind]` on `subject`."""
    sql.execute("INSERT INTO jobs (kind, subject, due_at) VALUES (?, ?, ?)", (kind, subject, format_timestamp(due)))


def format_timestamp(moment: datetime) -> str:
    """Return a moment as the platform prints it, with seven fractional digits."""
    utc = moment.astimezone(UTC).replace(tzinfo=None)
    return f"{utc.isoformat(timespec='microseconds')}0Z"


def parse_timestamp(text: str) -> datetime:
    """Return the moment that `format_timestamp` printed."""
    return datetime.fromisoformat(text[:26]).replace(tzinfo=UTC)


def _fold_case(text: str | None) -> str | None:
    return None if text is None else str(text).casefold()
