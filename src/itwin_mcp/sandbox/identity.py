"""Who is calling: people and applications, the sandbox's own key, its tokens, the check of the Authorization header.

A token is believed for our signature and its `exp`, not for its issuer: one sandbox is reached by several addresses.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import sqlite3
import uuid
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from itwin_mcp.sandbox.errors import ApiError
from itwin_mcp.sandbox.store import stamp

SCOPE: Final = "itwin-platform"
# What a token issued without an address says; the sandbox stands in for the platform, whose authority this is.
DEFAULT_ISSUER: Final = "https://ims.bentley.com"
DEFAULT_CLIENT: Final = "native-itwin-sandbox"
_ALGORITHMS: Final = ["RS256"]
_KINDS: Final = ("native", "spa", "webapp", "service")  # client ids carry their type as prefix (reference section 5)
_CLIENT_ID: Final = re.compile(r"[\x21-\x7e]{1,200}")
SERVICE_MAIL: Final = "apps.imsoidc.bentley.com"


class UnknownUser(LookupError):
    """A token was asked for someone whom the sandbox does not know."""


@dataclass(frozen=True, slots=True)
class Share:
    """What an anonymous caller with the key of a share may see."""

    imodel_id: str
    permission: str


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller of one request."""

    id: str
    email: str
    given_name: str
    surname: str
    account_id: str
    is_admin: bool  # Organization Administrator: a power user on every iTwin of the own account
    client_id: str
    share: Share | None = None


@dataclass(frozen=True, slots=True)
class Client:
    """One application; until its first use it is what its id says."""

    id: str
    kind: str
    name: str
    secret_hash: str | None
    redirect_uris: tuple[str, ...]
    is_known: bool = True
    """Whether it has been used before, or its id tells its type; of any other one nobody can have a secret."""

    @property
    def is_public(self) -> bool:
        """Whether it can keep no secret."""
        return self.kind in ("native", "spa")

    def accepts(self, secret: str) -> bool:
        """Whether this is its secret; before the first use any is."""
        return self.secret_hash is None or hmac.compare_digest(self.secret_hash, _secret_hash(self.id, secret))


NOBODY: Final = Principal("", "", "", "", "", False, "")


def generate_signing_key() -> RSAKey:
    """Make a new key, named by its thumbprint."""
    return RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256"}, auto_kid=True)


def signing_key(sql: sqlite3.Connection, now: datetime) -> RSAKey:
    """The key of this store, made on first use inside a write transaction."""
    row = sql.execute("SELECT kid, private_pem FROM signing_keys").fetchone()
    if row is not None:
        return RSAKey.import_key(row["private_pem"], {"kid": row["kid"], "use": "sig", "alg": "RS256"})
    key = generate_signing_key()
    pem = key.as_pem(private=True).decode("ascii")
    sql.execute("INSERT INTO signing_keys VALUES (?, ?, ?)", (key.kid, pem, stamp(now)))
    return key


def find_client(sql: sqlite3.Connection, client_id: str, otherwise: str) -> Client | None:
    """The application of that id, known or not; an id that does not tell its type is of type `otherwise`."""
    row = sql.execute("SELECT * FROM oauth_clients WHERE id = ?", (client_id,)).fetchone()
    if row is not None:
        uris = tuple(json.loads(row["redirect_uris_json"]))
        return Client(row["id"], row["kind"], row["name"], row["secret_hash"], uris)
    if not _CLIENT_ID.fullmatch(client_id):
        return None
    prefix = client_id.partition("-")[0].lower()
    is_known = prefix in _KINDS
    return Client(client_id, prefix if is_known else otherwise, client_id, None, (), is_known=is_known)


def register(
    sql: sqlite3.Connection,
    client: Client,
    now: datetime,
    *,
    secret: str | None = None,
    redirect_uri: str | None = None,
) -> None:
    """Keep what the first use tells: the secret and the redirect address are fixed from then on."""
    kept = client.secret_hash
    if kept is None and secret is not None and not client.is_public:
        kept = _secret_hash(client.id, secret)
    uris = client.redirect_uris or ((redirect_uri,) if redirect_uri else ())
    sql.execute(
        "INSERT INTO oauth_clients (id, kind, name, secret_hash, redirect_uris_json, created_at) "
        "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET secret_hash = excluded.secret_hash, "
        "redirect_uris_json = excluded.redirect_uris_json",
        (client.id, client.kind, client.name, kept, json.dumps(uris), stamp(now)),
    )


def service_user(sql: sqlite3.Connection, client: Client) -> sqlite3.Row:
    """The user that a service application is; a new one belongs to the first organization and to none of its iTwins."""
    email = f"{client.id}@{SERVICE_MAIL}"
    statement = "SELECT * FROM users WHERE client_id = ? OR email = ?"
    if (row := sql.execute(statement, (client.id, email)).fetchone()) is None:
        sql.execute(
            "INSERT INTO users (id, email, given_name, surname, account_id, client_id) "
            "SELECT ?, ?, ?, '', account_id, ? FROM users ORDER BY seq LIMIT 1",
            (str(uuid.uuid4()), email, client.name, client.id),
        )
        row = sql.execute(statement, (client.id, email)).fetchone()
    found: sqlite3.Row = row
    return found


def people(sql: sqlite3.Connection) -> list[sqlite3.Row]:
    """Everyone who can sign in on the page."""
    return sql.execute("SELECT * FROM users WHERE client_id IS NULL ORDER BY seq").fetchall()


def find_user(sql: sqlite3.Connection, user: str | None) -> sqlite3.Row:
    """A user by id, e-mail, given name or client id; without one, the first user: the seeded owner."""
    if user is None:
        row = sql.execute("SELECT * FROM users ORDER BY seq LIMIT 1").fetchone()
    else:
        row = sql.execute(
            "SELECT * FROM users WHERE ? IN (id, lower(email), lower(given_name), lower(client_id)) "
            "ORDER BY seq LIMIT 1",
            (user.lower(),),
        ).fetchone()
    if row is None:
        known = ", ".join(found["email"] for found in sql.execute("SELECT email FROM users ORDER BY seq LIMIT 20"))
        raise UnknownUser(f"No user {user!r} in the sandbox. Known: {known or 'nobody'}.")
    found_user: sqlite3.Row = row
    return found_user


def issue(
    sql: sqlite3.Connection,
    key: RSAKey,
    user: sqlite3.Row,
    now: datetime,
    *,
    seconds: int = 3600,
    client_id: str | None = None,
    issuer: str = DEFAULT_ISSUER,
    scopes: tuple[str, ...] = (SCOPE,),
) -> str:
    """An access token with the claims that Bentley's have; `scope` is an array there too."""
    issued = int(now.timestamp())
    claims: dict[str, Any] = {
        "iss": issuer,
        "aud": [f"{issuer}/as/token.oauth2", f"{issuer}/resources", SCOPE],
        "client_id": client_id or user["client_id"] or DEFAULT_CLIENT,
        "scope": list(scopes),
        **person_claims(sql, user),
        "iat": issued,
        "nbf": issued,
        "exp": issued + seconds,
        "jti": secrets.token_hex(16),
    }
    return sign(key, claims, "at+jwt")


def person_claims(sql: sqlite3.Connection, user: sqlite3.Row) -> dict[str, Any]:
    """Who a token is about."""
    account = sql.execute("SELECT display_name FROM itwins WHERE id = ?", (user["account_id"],)).fetchone()
    return {
        "sub": user["id"],
        "email": user["email"],
        "preferred_username": user["email"],
        "name": f"{user['given_name']} {user['surname']}".strip(),
        "given_name": user["given_name"],
        "family_name": user["surname"],
        "org": user["account_id"],
        "org_name": account["display_name"] if account else "",
    }


def sign(key: RSAKey, claims: dict[str, Any], kind: str) -> str:
    """A JWT with these claims."""
    return jwt.encode({"alg": "RS256", "kid": key.kid, "typ": kind}, claims, key, algorithms=_ALGORITHMS)


def claims_of(key: RSAKey, token: str) -> dict[str, Any] | None:
    """The claims of a JWT that we signed, expired or not; None for anything else."""
    try:
        return dict(jwt.decode(token, key, algorithms=_ALGORITHMS).claims)
    except (JoseError, ValueError):
        return None


def authenticate(
    sql: sqlite3.Connection, key: RSAKey, header: str | None, now: datetime, *, by_share: bool = False
) -> Principal:
    """The caller whom the Authorization header names, or the platform's 401 (reference section 3).

    The iModels API, and it alone, also takes `Basic {shareKey}` (create-imodel-share).
    """
    if header is None or not header.strip():
        raise ApiError("HeaderNotFound")
    scheme, _, token = header.strip().partition(" ")
    if by_share and scheme.lower() == "basic":
        return _by_share(sql, token.strip(), now)
    if scheme.lower() != "bearer":
        raise ApiError("InvalidAuthorizationScheme", f"Authorization scheme '{scheme}' is not valid.")
    return verify(sql, key, token.strip(), now)


def _by_share(sql: sqlite3.Connection, share_key: str, now: datetime) -> Principal:
    row = sql.execute("SELECT * FROM shares WHERE share_key = ? AND expires_at > ?", (share_key, stamp(now))).fetchone()
    if row is None:
        raise ApiError("Unauthorized")
    return replace(NOBODY, share=Share(row["imodel_id"], row["permission"]))


def verify(sql: sqlite3.Connection, key: RSAKey, token: str, now: datetime) -> Principal:
    """The user behind one of our access tokens, or 401 Unauthorized."""
    claims = claims_of(key, token)
    if claims is None:
        raise ApiError("Unauthorized")
    expires = claims.get("exp")
    if not isinstance(expires, int) or expires <= now.timestamp() or SCOPE not in claims.get("scope", ()):
        raise ApiError("Unauthorized")
    if sql.execute("SELECT 1 FROM revoked_tokens WHERE jti = ?", (claims.get("jti"),)).fetchone():
        raise ApiError("Unauthorized")
    user = sql.execute("SELECT * FROM users WHERE id = ?", (claims.get("sub"),)).fetchone()
    if user is None:
        raise ApiError("Unauthorized")
    return Principal(
        id=user["id"],
        email=user["email"],
        given_name=user["given_name"],
        surname=user["surname"],
        account_id=user["account_id"],
        is_admin=bool(user["is_admin"]),
        client_id=str(claims.get("client_id", DEFAULT_CLIENT)),
    )


def _secret_hash(client_id: str, secret: str) -> str:
    return hashlib.sha256(f"{client_id}\0{secret}".encode()).hexdigest()
