"""The file of a baseline or checkpoint: an empty iModel with the ids of its iModel and iTwin.

`scripts/imodel-file` creates `empty_imodel.bim.xz` with iTwin.js. iTwin.js checks the ids of the iModel and its iTwin
in the file, and reads there which changeset it includes. All of these are rows in the SQLite file, so each copy is
patched when it is read.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Mapping
from contextlib import closing
from functools import cache, lru_cache
from importlib.resources import files
from typing import Final

SIZE: Final = 1_409_024
"""The size in bytes of every file. Patching does not change it, because the new values fit into the existing pages."""
_PROPERTY: Final = (
    "INSERT OR REPLACE INTO be_Prop (Namespace, Name, Id, SubId, TxnMode, Data) VALUES ('be_Db', ?, 0, 0, 0, ?)"
)
_LOCAL: Final = "INSERT OR REPLACE INTO be_Local (Name, Val) VALUES (?, ?)"
_SQLITE_HEADER: Final = b"SQLite format 3\0"
_MAX_STEPS: Final = 1_000_000
"""Limit for SQLite's virtual machine. Patching takes a few hundred steps, but an uploaded file may have triggers that
never end."""


@lru_cache(maxsize=4)
def build_imodel_file(imodel_id: str, itwin_id: str, changeset_id: str = "", changeset_index: int = 0) -> bytes:
    """Return the file of an iModel as of a changeset. The same arguments give the same bytes."""
    changeset = {"id": changeset_id, "index": changeset_index}
    state = {"ParentChangeSetId": changeset_id, "parentChangeSet": json.dumps(changeset, separators=(",", ":"))}
    return _patch_properties(_read_empty_imodel(), imodel_id, itwin_id, state)


def replace_ids(content: bytes, imodel_id: str, itwin_id: str) -> bytes:
    """Return an uploaded iModel with other ids. Content that is not an iModel is returned unchanged."""
    if not content.startswith(_SQLITE_HEADER):
        return content
    try:
        # Bytes 18 and 19 are the file format's versions: 2 is WAL, which a database in memory cannot use.
        return _patch_properties(content[:18] + b"\1\1" + content[20:], imodel_id, itwin_id, {})
    except sqlite3.Error:
        return content


def _patch_properties(content: bytes, imodel_id: str, itwin_id: str, state: Mapping[str, str]) -> bytes:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as sql:
        sql.deserialize(content)
        sql.execute("PRAGMA trusted_schema = OFF")
        sql.set_progress_handler(lambda: 1, _MAX_STEPS)
        sql.execute(_PROPERTY, ("DbGuid", uuid.UUID(imodel_id).bytes))
        sql.execute(_PROPERTY, ("ProjectGuid", uuid.UUID(itwin_id).bytes))
        sql.executemany(_LOCAL, state.items())
        return sql.serialize()


@cache
def _read_empty_imodel() -> bytes:
    import lzma  # imported here because some builds of Python lack it

    return lzma.decompress(files(__package__).joinpath("empty_imodel.bim.xz").read_bytes())
