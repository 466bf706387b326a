"""The caller's own lists of entities: favorites, and recents, which keep the latest 25."""

from __future__ import annotations

from typing import Final, Literal

from itwin_mcp.sandbox.wire import Call

MAX_RECENTS: Final = 25  # in all iTwins together (add-imodel-to-my-recents)
Kind = Literal["itwin", "imodel"]


def add_favorite(call: Call, kind: Kind, entity_id: str) -> None:
    """Add a favorite. Adding it again changes nothing."""
    statement = f"INSERT OR IGNORE INTO {kind}_favorites (user_id, {kind}_id) VALUES (?, ?)"
    call.sql.execute(statement, (call.caller.id, entity_id))


def add_recent(call: Call, kind: Kind, entity_id: str) -> None:
    """Move an entity to the front of the recents, and drop the oldest one above the maximum."""
    user_id = call.caller.id
    call.sql.execute(
        f"INSERT OR REPLACE INTO {kind}_recents (seq, user_id, {kind}_id) "
        f"VALUES ((SELECT COALESCE(MAX(seq), 0) + 1 FROM {kind}_recents), ?, ?)",
        (user_id, entity_id),
    )
    call.sql.execute(
        f"DELETE FROM {kind}_recents WHERE user_id = ? AND seq NOT IN "
        f"(SELECT seq FROM {kind}_recents WHERE user_id = ? ORDER BY seq DESC LIMIT ?)",
        (user_id, user_id, MAX_RECENTS),
    )


def remove_entry(call: Call, kind: Kind, name: Literal["favorites", "recents"], entity_id: str) -> None:
    """Remove an entity from the favorites or the recents."""
    call.sql.execute(f"DELETE FROM {kind}_{name} WHERE user_id = ? AND {kind}_id = ?", (call.caller.id, entity_id))
