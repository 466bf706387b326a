"""The users of the sandbox: people, and service applications, which are users too."""

from __future__ import annotations

import sqlite3
import uuid
from typing import Any, Final

from itwin_mcp.sandbox.identity.clients import Client

SERVICE_MAIL_DOMAIN: Final = "apps.imsoidc.bentley.com"


class UnknownUser(LookupError):
    """No user matches the given id, e-mail address, given name or client id."""


def find_service_user(sql: sqlite3.Connection, client: Client) -> sqlite3.Row:
    """Return the user of a service application.

    It is created on first use, in the first organization and as a member of no iTwin.
    """
    email = f"{client.id}@{SERVICE_MAIL_DOMAIN}"
    statement = "SELECT * FROM users WHERE client_id = ? OR email = ?"
    if (row := sql.execute(statement, (client.id, email)).fetchone()) is None:
        sql.execute(
            "INSERT INTO users (id, email, given_name, surname, account_id, client_id) "
            "SELECT ?, ?, ?, '', account_id, ? FROM users ORDER BY seq LIMIT 1",
            (str(uuid.uuid4()), email, client.name, client.id),
        )
        row = sql.execute(statement, (client.id, email)).fetchone()
    service_user: sqlite3.Row = row
    return service_user


def list_people(sql: sqlite3.Connection) -> list[sqlite3.Row]:
    """Return everyone who can be chosen on the sign-in page."""
    return sql.execute("SELECT * FROM users WHERE client_id IS NULL ORDER BY seq").fetchall()


def find_user(sql: sqlite3.Connection, user: str | None) -> sqlite3.Row:
    """Return a user by id, e-mail address, given name or client id. The default is the seeded owner.

    Raises:
        UnknownUser: If no user matches.
    """
    row: sqlite3.Row | None = sql.execute(
        "SELECT * FROM users WHERE ?1 IS NULL OR ?1 IN (id, lower(email), lower(given_name), lower(client_id)) "
        "ORDER BY seq LIMIT 1",
        (user and user.lower(),),
    ).fetchone()
    if row is None:
        emails = ", ".join(email for (email,) in sql.execute("SELECT email FROM users ORDER BY seq LIMIT 20"))
        raise UnknownUser(f"No user {user!r} in the sandbox. Known: {emails or 'nobody'}.")
    return row


def make_user_claims(sql: sqlite3.Connection, user: sqlite3.Row) -> dict[str, Any]:
    """Return the claims about a user that access tokens, id tokens and the user info endpoint have in common."""
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
