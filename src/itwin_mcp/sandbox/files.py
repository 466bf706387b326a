"""The files behind storage links: blobs kept in the store, and the signed, expiring addresses that lead to them.

Contents are rows of at most 1 MiB, so that no upload or download has to fit in memory; an in-memory sandbox holds them
in memory all the same. How they are served is in `storage.py`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import quote

from itwin_mcp.sandbox import imodel_file, pictures
from itwin_mcp.sandbox.store import Job, stamp
from itwin_mcp.sandbox.wire import Call

CONTAINER: Final = "files"
CHUNK: Final = 1 << 20
MAX_ADAPTED: Final = 64 << 20
"""Bytes of a content that is taken into memory to be changed."""
READ: Final = "r"
WRITE: Final = "cw"  # create and write, the letters of Azure's service SAS
VERSION: Final = "2024-11-04"  # of the storage service that is emulated
_KEY: Final = "storage"


@dataclass(frozen=True, slots=True)
class Content:
    """What a blob holds at one moment; a later upload makes another content, never changes this one."""

    id: str
    size: int
    md5: bytes | None  # what was committed as a list of blocks has none
    content_type: str
    modified_at: str

    @property
    def etag(self) -> str:
        """The quoted entity tag."""
        return f'"0x{self.id[:15].upper()}"'


def prepare(sql: sqlite3.Connection) -> None:
    """Make the key that signs links, once for each store, inside a write transaction."""
    sql.execute("INSERT OR IGNORE INTO secrets VALUES (?, ?)", (_KEY, secrets.token_bytes(32)))


def reserve(call: Call | Job, declared_size: int | None, media_type: str = "application/octet-stream") -> str:
    """A new empty blob, by its id; a client fills it through a link for writing.

    The storage service takes whatever size comes, as Azure's does; who reserved compares `stored_size` afterwards.
    """
    del declared_size
    blob_id = str(uuid.uuid4())
    _insert(call.sql, blob_id, media_type, _stamp(call))
    return blob_id


def put(call: Call | Job, content: bytes, media_type: str = "application/octet-stream") -> str:
    """A new blob with this content, by its id."""
    blob_id = reserve(call, len(content), media_type)
    content_id, size, md5 = write(call.sql, _chunks(content))
    replace(call.sql, blob_id, content_id, size, md5, None, _stamp(call))
    return blob_id


def stand_in(sql: sqlite3.Connection, blob_id: str, size: int, made_at: str) -> str:
    """A blob of that size that takes no space; its text says that it stands in for a file (the seeded changesets)."""
    return _generated(sql, blob_id, f"text:{size}", "application/octet-stream", made_at)


def imodel(
    sql: sqlite3.Connection,
    blob_id: str,
    imodel_id: str,
    itwin_id: str,
    made_at: str,
    *,
    changeset: tuple[str, int] = ("", 0),
) -> str:
    """A blob with an empty iModel, built when somebody reads it: it has these ids and is as of `changeset`."""
    recipe = ":".join(("imodel", imodel_id, itwin_id, changeset[0], str(changeset[1])))
    return _generated(sql, blob_id, recipe, "application/octet-stream", made_at)


def picture(sql: sqlite3.Connection, blob_id: str, recipe: str, made_at: str) -> str:
    """A blob whose content is drawn from `pictures.recipe(…)` when somebody looks at it."""
    return _generated(sql, blob_id, recipe, "image/png", made_at)


def copy(sql: sqlite3.Connection, source_id: str, made_at: str, adapt: Callable[[bytes], bytes]) -> tuple[str, int]:
    """A new blob with the content that was uploaded to another, and its size; a small one is adapted on its way."""
    row = sql.execute("SELECT * FROM blobs WHERE id = ?", (source_id,)).fetchone()
    blob_id = str(uuid.uuid4())
    _insert(sql, blob_id, row["content_type"], made_at)
    if row["size"] > MAX_ADAPTED:
        content_id, size = join(sql, [(row["content_id"], row["size"])])
        replace(sql, blob_id, content_id, size, row["md5"], None, made_at)
        return blob_id, size
    chunks = sql.execute("SELECT content FROM blob_chunks WHERE content_id = ? ORDER BY start", (row["content_id"],))
    content_id, size, md5 = write(sql, _chunks(adapt(b"".join(chunk for (chunk,) in chunks))))
    replace(sql, blob_id, content_id, size, md5, None, made_at)
    return blob_id, size


def is_generated(sql: sqlite3.Connection, blob_id: str) -> bool:
    """Whether the content comes from a recipe of ours; otherwise somebody uploads it."""
    return sql.execute("SELECT 1 FROM blobs WHERE id = ? AND recipe IS NOT NULL", (blob_id,)).fetchone() is not None


def stored_size(call: Call | Job, blob_id: str) -> int | None:
    """How many bytes have been uploaded; None while nothing has."""
    content = find(call.sql, blob_id)
    return None if content is None else content.size


def link(call: Call, blob_id: str, *, write: bool = False, seconds: int = 3600) -> dict[str, str]:
    """A signed address that works without a bearer token until it expires, as it stands in `_links`."""
    permissions = WRITE if write else READ
    expires = f"{(call.now + timedelta(seconds=seconds)).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    query = {
        "sv": VERSION,
        "se": expires,
        "sr": "b",
        "sp": permissions,
        "sig": signature(call.sql, blob_id, permissions, expires),
    }
    signed = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
    return {"storageType": "azure", "href": f"{call.storage_url}/storage/{CONTAINER}/{blob_id}?{signed}"}


def delete(call: Call | Job, blob_id: str) -> None:
    """Remove a blob and everything uploaded for it; links to it lead nowhere from now on."""
    replace(call.sql, blob_id, None, None, None, None, _stamp(call))
    call.sql.execute("DELETE FROM blobs WHERE id = ?", (blob_id,))


def signature(sql: sqlite3.Connection, blob_id: str, permissions: str, expires: str) -> str:
    """What proves that a link was made here for this blob, these permissions and this moment."""
    key: bytes = sql.execute("SELECT value FROM secrets WHERE name = ?", (_KEY,)).fetchone()[0]
    text = "\n".join((permissions, expires, CONTAINER, blob_id, VERSION))
    return base64.b64encode(hmac.digest(key, text.encode(), "sha256")).decode("ascii")


def find(sql: sqlite3.Connection, blob_id: str) -> Content | None:
    """What the blob holds now, if anything."""
    row = sql.execute("SELECT * FROM blobs WHERE id = ? AND content_id IS NOT NULL", (blob_id,)).fetchone()
    if row is None:
        return None
    size, md5 = row["size"], row["md5"]
    if row["recipe"] is not None:
        kind, _, rest = row["recipe"].partition(":")
        if kind == "text":
            size = int(rest)
        else:
            content = _build(row["recipe"])
            size, md5 = len(content), hashlib.md5(content, usedforsecurity=False).digest()
    return Content(row["content_id"], size, md5, row["content_type"], row["modified_at"])


def exists(sql: sqlite3.Connection, blob_id: str) -> bool:
    """Whether the blob is known, with or without content."""
    return sql.execute("SELECT 1 FROM blobs WHERE id = ?", (blob_id,)).fetchone() is not None


def read(sql: sqlite3.Connection, content: Content, offset: int, size: int) -> bytes:
    """Part of a content; shorter than asked for when the content has been replaced meanwhile."""
    row = sql.execute(
        "SELECT id, recipe FROM blobs WHERE content_id = ? AND recipe IS NOT NULL", (content.id,)
    ).fetchone()
    if row is not None:
        if row["recipe"].startswith("text:"):
            return _text(row["id"], offset, min(size, content.size - offset))
        return _build(row["recipe"])[offset : offset + size]
    found = sql.execute(
        "SELECT start, content FROM blob_chunks WHERE content_id = ? AND start < ? AND start + length > ? "
        "ORDER BY start",
        (content.id, offset + size, offset),
    )
    return b"".join(chunk[max(0, offset - start) : offset + size - start] for start, chunk in found)


def write(sql: sqlite3.Connection, parts: Iterable[bytes]) -> tuple[str, int, bytes]:
    """A new content from its parts, each at most one chunk: its id, its size, its MD5."""
    content_id, size = uuid.uuid4().hex, 0
    digest = hashlib.md5(usedforsecurity=False)
    for part in parts:
        statement = "INSERT INTO blob_chunks (content_id, start, length, content) VALUES (?, ?, ?, ?)"
        sql.execute(statement, (content_id, size, len(part), part))
        digest.update(part)
        size += len(part)
    return content_id, size, digest.digest()


def join(sql: sqlite3.Connection, pieces: Iterable[tuple[str, int]]) -> tuple[str, int]:
    """A new content from others, given with their sizes, one after the other; SQLite copies, not we."""
    content_id, size = uuid.uuid4().hex, 0
    for piece, length in pieces:
        sql.execute(
            "INSERT INTO blob_chunks (content_id, start, length, content) "
            "SELECT ?, start + ?, length, content FROM blob_chunks WHERE content_id = ?",
            (content_id, size, piece),
        )
        size += length
    return content_id, size


def replace(
    sql: sqlite3.Connection,
    blob_id: str,
    content_id: str | None,
    size: int | None,
    md5: bytes | None,
    content_type: str | None,
    moment: str,
) -> None:
    """Give the blob another content; what it held and what was staged for it is gone."""
    forget(sql, _contents_of(sql, blob_id))
    sql.execute("DELETE FROM blob_blocks WHERE blob_id = ?", (blob_id,))
    sql.execute(
        "UPDATE blobs SET content_id = ?, size = ?, md5 = ?, content_type = COALESCE(?, content_type), "
        "modified_at = ?, recipe = NULL WHERE id = ?",
        (content_id, size, md5, content_type, moment, blob_id),
    )


def forget(sql: sqlite3.Connection, content_ids: Iterable[str]) -> None:
    """Remove contents that no blob holds any more."""
    sql.executemany("DELETE FROM blob_chunks WHERE content_id = ?", [(content_id,) for content_id in content_ids])


def _contents_of(sql: sqlite3.Connection, blob_id: str) -> Iterator[str]:
    statement = (
        "SELECT content_id FROM blobs WHERE id = ? AND content_id IS NOT NULL "
        "UNION SELECT content_id FROM blob_blocks WHERE blob_id = ?"
    )
    for (content_id,) in sql.execute(statement, (blob_id, blob_id)).fetchall():
        yield content_id


def _chunks(content: bytes) -> Iterator[bytes]:
    return (content[start : start + CHUNK] for start in range(0, len(content), CHUNK))


def _insert(sql: sqlite3.Connection, blob_id: str, media_type: str, moment: str) -> None:
    sql.execute("INSERT INTO blobs (id, content_type, modified_at) VALUES (?, ?, ?)", (blob_id, media_type, moment))


def _generated(sql: sqlite3.Connection, blob_id: str, recipe: str, media_type: str, moment: str) -> str:
    _insert(sql, blob_id, media_type, moment)
    content_id = hashlib.sha256(blob_id.encode()).hexdigest()[:32]
    sql.execute("UPDATE blobs SET content_id = ?, recipe = ? WHERE id = ?", (content_id, recipe, blob_id))
    return blob_id


def _build(recipe: str) -> bytes:
    """The whole content of a recipe, which is small and the same every time."""
    kind, *values = recipe.split(":")
    if kind == "imodel":
        imodel_id, itwin_id, changeset_id, index = values
        return imodel_file.build(imodel_id, itwin_id, changeset_id, int(index))
    return pictures.draw(recipe)


def _text(blob_id: str, offset: int, size: int) -> bytes:
    line = f"itwin-mcp sandbox: this file stands in for {blob_id}\n".encode()
    first = offset % len(line)
    return (line * ((first + size) // len(line) + 1))[first : first + size]


def _stamp(call: Call | Job) -> str:
    moment: datetime = call.due if isinstance(call, Job) else call.now
    return stamp(moment)
