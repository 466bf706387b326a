"""The file of an iModel: an empty one that iTwin.js made, with the ids of the iModel that it is served for.

`scripts/imodel-file` makes `empty_imodel.bim.xz`. iTwin.js checks the ids of an iModel and its iTwin in the file, and
reads there which changeset the file includes. All of them are rows of the SQLite file, so a copy is patched when it is
asked for.
"""

from __future__ import annotations

import json
import lzma
import sqlite3
import uuid
from contextlib import closing
from functools import cache, lru_cache
from importlib.resources import files
from typing import Final

SIZE: Final = 1_409_024
"""Bytes of every file: the rows that are patched fit into pages that exist."""
_PROPERTY: Final = (
    "INSERT OR REPLACE INTO be_Prop (Namespace, Name, Id, SubId, TxnMode, Data) VALUES ('be_Db', ?, 0, 0, 0, ?)"
)
_LOCAL: Final = "INSERT OR REPLACE INTO be_Local (Name, Val) VALUES (?, ?)"


@lru_cache(maxsize=4)
def build(imodel_id: str, itwin_id: str, changeset_id: str = "", changeset_index: int = 0) -> bytes:
    """Return the file of an iModel as of a changeset; the same arguments give the same bytes."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as sql:
        sql.deserialize(_empty())
        sql.execute(_PROPERTY, ("DbGuid", uuid.UUID(imodel_id).bytes))
        sql.execute(_PROPERTY, ("ProjectGuid", uuid.UUID(itwin_id).bytes))
        sql.execute(_LOCAL, ("ParentChangeSetId", changeset_id))
        changeset = {"id": changeset_id, "index": changeset_index}
        sql.execute(_LOCAL, ("parentChangeSet", json.dumps(changeset, separators=(",", ":"))))
        return sql.serialize()


@cache
def _empty() -> bytes:
    return lzma.decompress(files(__package__).joinpath("empty_imodel.bim.xz").read_bytes())
