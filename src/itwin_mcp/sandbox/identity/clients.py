"""OAuth clients: the applications that users sign in with. A client registers itself with its first use."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import sqlite3
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from itwin_mcp.sandbox.store import format_timestamp

DEFAULT_CLIENT: Final = "native-itwin-sandbox"
_KINDS: Final = ("native", "spa", "webapp", "service")  # client ids begin with their kind (reference section 5)
_CLIENT_ID: Final = re.compile(r"[\x21-\x7e]{1,200}")


@dataclass(frozen=True, slots=True)
class Client:
    """One application. Before its first use, its kind and name are derived from its id."""

    id: str
    kind: str
    name: str
    secret_hash: str | None
    redirect_uris: tuple[str, ...]
    is_known: bool = True
    """False if the application was never used and its id names no kind. Such an application has no valid secret."""

    @property
    def is_public(self) -> bool:
        """Return whether the application runs on users' devices and so has no secret."""
        return self.kind in ("native", "spa")

    def accepts_secret(self, secret: str) -> bool:
        """Return whether the secret is that of the client's first use. Before the first use, any secret is accepted."""
        return self.secret_hash is None or hmac.compare_digest(self.secret_hash, _hash_secret(self.id, secret))


def find_client(sql: sqlite3.Connection, client_id: str, default_kind: str) -> Client | None:
    """Return the application with this id, registered or not, or None if the id is malformed.

    `default_kind` is the kind of an application whose id has no prefix that names one.
    """
    row = sql.execute("SELECT * FROM oauth_clients WHERE id = ?", (client_id,)).fetchone()
    if row is not None:
        uris = tuple(json.loads(row["redirect_uris_json"]))
        return Client(row["id"], row["kind"], row["name"], row["secret_hash"], uris)
    if not _CLIENT_ID.fullmatch(client_id):
        return None
    prefix = client_id.partition("-")[0].lower()
    is_known = prefix in _KINDS
    return Client(client_id, prefix if is_known else default_kind, client_id, None, (), is_known=is_known)


def register_client(
    sql: sqlite3.Connection,
    client: Client,
    now: datetime,
    *,
    secret: str | None = None,
    redirect_uri: str | None = None,
) -> None:
    """Store the application, and on first use its secret and redirect URI, which cannot change afterwards."""
    secret_hash = client.secret_hash
    if secret_hash is None and secret is not None and not client.is_public:
        secret_hash = _hash_secret(client.id, secret)
    uris = client.redirect_uris or ((redirect_uri,) if redirect_uri else ())
    sql.execute(
        "INSERT INTO oauth_clients (id, kind, name, secret_hash, redirect_uris_json, created_at) "
        "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET secret_hash = excluded.secret_hash, "
        "redirect_uris_json = excluded.redirect_uris_json",
        (client.id, client.kind, client.name, secret_hash, json.dumps(uris), format_timestamp(now)),
    )


def _hash_secret(client_id: str, secret: str) -> str:
    return hashlib.sha256(f"{client_id}\0{secret}".encode()).hexdigest()
