"""Blobs in the store, and the signed, expiring links to them.

Contents are stored in rows of at most 1 MiB, so that no upload or download has to fit into memory. A blob with a recipe
has no rows: its content is generated when it is read.
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
from datetime import UTC, timedelta
from typing import Final
from urllib.parse import quote

from itwin_mcp.sandbox.errors import ApiError
from itwin_mcp.sandbox.pictures import placeholders
from itwin_mcp.sandbox.storage import imodel_file
from itwin_mcp.sandbox.store import Job
from itwin_mcp.sandbox.wire import Call

CONTAINER: Final = "files"
CHUNK_BYTES: Final = 1 << 20
MAX_ADAPTED_BYTES: Final = 64 << 20
"""Larger contents are copied unchanged, because `adapt` needs the whole content in memory."""
READ_PERMISSION: Final = "r"
WRITE_PERMISSION: Final = "cw"  # create and write, in the letters of Azure's service SAS
SERVICE_VERSION: Final = "2024-11-04"  # of the emulated storage service
_KEY_NAME: Final = "storage"


@dataclass(frozen=True, slots=True)
class BlobContent:
    """The content of a blob at one moment. An upload replaces it and never changes it."""

    id: str
    size: int
    md5: bytes | None  # None for a committed block list
    content_type: str
    modified_at: str

    @property
    def etag(self) -> str:
        """Return the entity tag, in quotes."""
        return f'"0x{self.id[:15].upper()}"'


def create_signing_key(sql: sqlite3.Connection) -> None:
    """Create the store's key for signing links, unless it exists. Needs a write transaction."""
    sql.execute("INSERT OR IGNORE INTO secrets VALUES (?, ?)", (_KEY_NAME, secrets.token_bytes(32)))


def reserve_blob(call: Call | Job, media_type: str = "application/octet-stream") -> str:
    """Create a blob without content and return its id. A link for writing uploads its content.

    Like Azure, the storage service accepts any size. Call `check_uploaded` after the upload.
    """
    blob_id = str(uuid.uuid4())
    _insert_blob(call.sql, blob_id, media_type, call.timestamp)
    return blob_id


def store_blob(call: Call | Job, content: bytes, media_type: str = "application/octet-stream") -> str:
    """Create a blob with this content and return its id."""
    blob_id = reserve_blob(call, media_type)
    content_id, size, md5 = write_content(call.sql, _split_chunks(content))
    replace_content(call.sql, blob_id, content_id, size, md5, None, call.timestamp)
    return blob_id


def create_filler(sql: sqlite3.Connection, blob_id: str, size: int, made_at: str) -> str:
    """Create a blob of the given size and return its id. The content is repeated text that takes no space.

    The files of seeded changesets are such blobs.
    """
    return _insert_generated(sql, blob_id, f"text:{size}", "application/octet-stream", made_at)


def create_imodel_file(
    sql: sqlite3.Connection,
    blob_id: str,
    imodel_id: str,
    itwin_id: str,
    made_at: str,
    *,
    changeset: tuple[str, int] = ("", 0),
) -> str:
    """Create a blob that is an empty iModel with these ids as of `changeset`, and return its id.

    The file is generated when it is read.
    """
    recipe = ":".join(("imodel", imodel_id, itwin_id, changeset[0], str(changeset[1])))
    return _insert_generated(sql, blob_id, recipe, "application/octet-stream", made_at)


def create_picture(sql: sqlite3.Connection, blob_id: str, recipe: str, made_at: str) -> str:
    """Create a blob that is the placeholder picture of a recipe, and return its id."""
    return _insert_generated(sql, blob_id, recipe, "image/png", made_at)


def copy_blob(
    sql: sqlite3.Connection, source_id: str, made_at: str, adapt: Callable[[bytes], bytes]
) -> tuple[str, int]:
    """Copy an uploaded blob and return the id and size of the copy. `adapt` changes content of up to 64 MiB."""
    row = sql.execute("SELECT * FROM blobs WHERE id = ?", (source_id,)).fetchone()
    blob_id = str(uuid.uuid4())
    _insert_blob(sql, blob_id, row["content_type"], made_at)
    if row["size"] > MAX_ADAPTED_BYTES:
        content_id, size = join_contents(sql, [(row["content_id"], row["size"])])
        md5 = row["md5"]
    else:
        statement = "SELECT content FROM blob_chunks WHERE content_id = ? ORDER BY start"
        content = b"".join(chunk for (chunk,) in sql.execute(statement, (row["content_id"],)))
        content_id, size, md5 = write_content(sql, _split_chunks(adapt(content)))
    replace_content(sql, blob_id, content_id, size, md5, None, made_at)
    return blob_id, size


def is_generated(sql: sqlite3.Connection, blob_id: str) -> bool:
    """Return whether the content is generated from a recipe and not uploaded."""
    return sql.execute("SELECT 1 FROM blobs WHERE id = ? AND recipe IS NOT NULL", (blob_id,)).fetchone() is not None


def check_uploaded(call: Call, blob_id: str, size: int, message: str | None = None) -> None:
    """Check that content of `size` bytes has been uploaded.

    Raises:
        ApiError: `FileNotFound` before the upload; `DataConflict` with the message, if the size is another.
    """
    content = find_content(call.sql, blob_id)
    if content is None:
        raise ApiError("FileNotFound")
    if content.size != size:
        raise ApiError("DataConflict", message)


def make_link(call: Call, blob_id: str, *, write: bool = False, seconds: int = 3600) -> dict[str, str]:
    """Return a link for `_links` that works without a bearer token for the given number of seconds."""
    permissions = WRITE_PERMISSION if write else READ_PERMISSION
    expires = f"{(call.now + timedelta(seconds=seconds)).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    query = {
        "sv": SERVICE_VERSION,
        "se": expires,
        "sr": "b",
        "sp": permissions,
        "sig": sign_link(call.sql, blob_id, permissions, expires),
    }
    signed = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
    return {"storageType": "azure", "href": f"{call.storage_url}/storage/{CONTAINER}/{blob_id}?{signed}"}


def delete_blob(call: Call | Job, blob_id: str) -> None:
    """Delete a blob with its content and staged blocks."""
    replace_content(call.sql, blob_id, None, None, None, None, call.timestamp)
    call.sql.execute("DELETE FROM blobs WHERE id = ?", (blob_id,))


def sign_link(sql: sqlite3.Connection, blob_id: str, permissions: str, expires: str) -> str:
    """Return the signature of a link to this blob with these permissions and expiration."""
    key: bytes = sql.execute("SELECT value FROM secrets WHERE name = ?", (_KEY_NAME,)).fetchone()[0]
    text = "\n".join((permissions, expires, CONTAINER, blob_id, SERVICE_VERSION))
    return base64.b64encode(hmac.digest(key, text.encode(), "sha256")).decode("ascii")


def find_content(sql: sqlite3.Connection, blob_id: str) -> BlobContent | None:
    """Return the current content of a blob, or None before the upload."""
    row = sql.execute("SELECT * FROM blobs WHERE id = ? AND content_id IS NOT NULL", (blob_id,)).fetchone()
    if row is None:
        return None
    size, md5 = row["size"], row["md5"]
    if row["recipe"] is not None:
        if row["recipe"].startswith("text:"):
            size = int(row["recipe"].removeprefix("text:"))
        else:
            content = _build_content(row["recipe"])
            size, md5 = len(content), hashlib.md5(content, usedforsecurity=False).digest()
    return BlobContent(row["content_id"], size, md5, row["content_type"], row["modified_at"])


def blob_exists(sql: sqlite3.Connection, blob_id: str) -> bool:
    """Return whether the blob exists, with or without content."""
    return sql.execute("SELECT 1 FROM blobs WHERE id = ?", (blob_id,)).fetchone() is not None


def read_content(sql: sqlite3.Connection, content: BlobContent, offset: int, size: int) -> bytes:
    """Return `size` bytes of a content from `offset` on, or fewer if the content has been replaced meanwhile."""
    row = sql.execute(
        "SELECT id, recipe FROM blobs WHERE content_id = ? AND recipe IS NOT NULL", (content.id,)
    ).fetchone()
    if row is not None:
        if row["recipe"].startswith("text:"):
            return _read_filler(row["id"], offset, min(size, content.size - offset))
        return _build_content(row["recipe"])[offset : offset + size]
    rows = sql.execute(
        "SELECT start, content FROM blob_chunks WHERE content_id = ? AND start < ? AND start + length > ? "
        "ORDER BY start",
        (content.id, offset + size, offset),
    )
    return b"".join(chunk[max(0, offset - start) : offset + size - start] for start, chunk in rows)


def write_content(sql: sqlite3.Connection, parts: Iterable[bytes]) -> tuple[str, int, bytes]:
    """Store new content and return its id, size and MD5. Each part has at most CHUNK_BYTES."""
    content_id, size = uuid.uuid4().hex, 0
    digest = hashlib.md5(usedforsecurity=False)
    for part in parts:
        statement = "INSERT INTO blob_chunks (content_id, start, length, content) VALUES (?, ?, ?, ?)"
        sql.execute(statement, (content_id, size, len(part), part))
        digest.update(part)
        size += len(part)
    return content_id, size, digest.digest()


def join_contents(sql: sqlite3.Connection, pieces: Iterable[tuple[str, int]]) -> tuple[str, int]:
    """Concatenate contents, given as id and size, inside SQLite. Return the id and size of the result."""
    content_id, size = uuid.uuid4().hex, 0
    for piece, length in pieces:
        sql.execute(
            "INSERT INTO blob_chunks (content_id, start, length, content) "
            "SELECT ?, start + ?, length, content FROM blob_chunks WHERE content_id = ?",
            (content_id, size, piece),
        )
        size += length
    return content_id, size


def replace_content(
    sql: sqlite3.Connection,
    blob_id: str,
    content_id: str | None,
    size: int | None,
    md5: bytes | None,
    content_type: str | None,
    moment: str,
) -> None:
    """Replace the content of a blob, and delete the previous content and the staged blocks."""
    sql.execute(
        "DELETE FROM blob_chunks WHERE content_id IN (SELECT content_id FROM blobs WHERE id = ? "
        "UNION SELECT content_id FROM blob_blocks WHERE blob_id = ?)",
        (blob_id, blob_id),
    )
    sql.execute("DELETE FROM blob_blocks WHERE blob_id = ?", (blob_id,))
    sql.execute(
        "UPDATE blobs SET content_id = ?, size = ?, md5 = ?, content_type = COALESCE(?, content_type), "
        "modified_at = ?, recipe = NULL WHERE id = ?",
        (content_id, size, md5, content_type, moment, blob_id),
    )


def delete_content(sql: sqlite3.Connection, content_id: str) -> None:
    """Delete stored content that no blob refers to."""
    sql.execute("DELETE FROM blob_chunks WHERE content_id = ?", (content_id,))


def _split_chunks(content: bytes) -> Iterator[bytes]:
    return (content[start : start + CHUNK_BYTES] for start in range(0, len(content), CHUNK_BYTES))


def _insert_blob(sql: sqlite3.Connection, blob_id: str, media_type: str, moment: str) -> None:
    sql.execute("INSERT INTO blobs (id, content_type, modified_at) VALUES (?, ?, ?)", (blob_id, media_type, moment))


def _insert_generated(sql: sqlite3.Connection, blob_id: str, recipe: str, media_type: str, moment: str) -> str:
    _insert_blob(sql, blob_id, media_type, moment)
    content_id = hashlib.sha256(blob_id.encode()).hexdigest()[:32]
    sql.execute("UPDATE blobs SET content_id = ?, recipe = ? WHERE id = ?", (content_id, recipe, blob_id))
    return blob_id


def _build_content(recipe: str) -> bytes:
    """Return the content of a recipe for an iModel or a picture. The same recipe gives the same content."""
    kind, *values = recipe.split(":")
    if kind == "imodel":
        imodel_id, itwin_id, changeset_id, index = values
        return imodel_file.build_imodel_file(imodel_id, itwin_id, changeset_id, int(index))
    return placeholders.read_placeholder(recipe)


def _read_filler(blob_id: str, offset: int, size: int) -> bytes:
    line = f"itwin-mcp sandbox: this file stands in for {blob_id}\n".encode()
    first = offset % len(line)
    return (line * ((first + size) // len(line) + 1))[first : first + size]
