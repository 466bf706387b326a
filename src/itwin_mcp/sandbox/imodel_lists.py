"""The caller's own lists of iModels in one iTwin: favorites, and the recently used ones."""

from __future__ import annotations

from typing import Final

from itwin_mcp.sandbox import access, imodels, paging
from itwin_mcp.sandbox.errors import imodels_problems
from itwin_mcp.sandbox.wire import Answer, Call, Route, no_content, ok

RECENTS: Final = 25  # of all iTwins together (add-imodel-to-my-recents)


def get_favorites(call: Call) -> Answer:
    """get-my-favorite-imodels: in the order in which they were added."""
    return _list(call, "imodel_favorites", "f.seq", "Cannot get favorite iModels.")


def add_favorite(call: Call) -> Answer:
    """add-imodel-to-my-favorites, by PUT; a second time changes nothing."""
    imodel = access.imodel(call, access.WEBVIEW)
    statement = "INSERT OR IGNORE INTO imodel_favorites (user_id, imodel_id) VALUES (?, ?)"
    call.sql.execute(statement, (call.caller.id, imodel["id"]))
    return no_content()


def remove_favorite(call: Call) -> Answer:
    """remove-imodel-from-my-favorites."""
    imodel = access.imodel(call, access.WEBVIEW)
    statement = "DELETE FROM imodel_favorites WHERE user_id = ? AND imodel_id = ?"
    call.sql.execute(statement, (call.caller.id, imodel["id"]))
    return no_content()


def get_recents(call: Call) -> Answer:
    """get-my-recently-used-imodels: the last used one first."""
    return _list(call, "imodel_recents", "f.seq DESC", "Cannot get recently used iModels.")


def add_recent(call: Call) -> Answer:
    """add-imodel-to-my-recents, by POST: to the front; the 26th pushes the oldest out."""
    imodel = access.imodel(call, access.WEBVIEW)
    me = call.caller.id
    call.sql.execute(
        "INSERT OR REPLACE INTO imodel_recents (seq, user_id, imodel_id) "
        "VALUES ((SELECT COALESCE(MAX(seq), 0) + 1 FROM imodel_recents), ?, ?)",
        (me, imodel["id"]),
    )
    call.sql.execute(
        "DELETE FROM imodel_recents WHERE user_id = ? AND seq NOT IN "
        "(SELECT seq FROM imodel_recents WHERE user_id = ? ORDER BY seq DESC LIMIT ?)",
        (me, me, RECENTS),
    )
    return no_content()


def remove_recent(call: Call) -> Answer:
    """remove-imodel-from-my-recents."""
    imodel = access.imodel(call, access.WEBVIEW)
    statement = "DELETE FROM imodel_recents WHERE user_id = ? AND imodel_id = ?"
    call.sql.execute(statement, (call.caller.id, imodel["id"]))
    return no_content()


def _list(call: Call, table: str, order: str, message: str) -> Answer:
    """Those of one iTwin that the caller may still see; neither list knows `$skip`, so pages are led on by token."""
    problems = imodels_problems(message)
    page = paging.imodels_page(call, problems, skippable=False)
    page = paging.Page(page.top, page.skip, by_token=True)
    itwin_id = call.query.get("iTwinId")
    if itwin_id is None:
        problems.add("MissingRequiredParameter", "Required parameter is missing.", "iTwinId")
    problems.refuse()
    owner = access.itwin(call, itwin_id or "")
    conditions, parameters = ["f.user_id = ?", "m.itwin_id = ?"], [call.caller.id, owner["id"]]
    if not (access.administers(call, owner) or access.is_owner(call, owner["id"])):
        conditions.append(access.VISIBLE_IMODEL)
        parameters += [call.caller.id] * 2
        if access.WEBVIEW not in access.itwin_permissions(call, owner):
            conditions.append("EXISTS (SELECT 1 FROM imodel_user_permissions u WHERE u.imodel_id = m.id)")
    statement = (
        f"SELECT {imodels.SELECTED} FROM {table} f JOIN imodels m ON m.id = f.imodel_id "
        f"WHERE {' AND '.join(conditions)} ORDER BY {order}"
    )
    rows, links = page.select(call, statement, parameters)
    shown = [imodels.render(call, row) if call.wants_representation else imodels.minimal(row) for row in rows]
    return ok({"iModels": shown, "_links": links})


ROUTES: Final = (
    Route("GET", "/imodels/favorites", get_favorites, slug="get-my-favorite-imodels"),
    Route("PUT", "/imodels/favorites/{iModelId}", add_favorite, slug="add-imodel-to-my-favorites"),
    Route("DELETE", "/imodels/favorites/{iModelId}", remove_favorite, slug="remove-imodel-from-my-favorites"),
    Route("GET", "/imodels/recents", get_recents, slug="get-my-recently-used-imodels"),
    Route("POST", "/imodels/recents/{iModelId}", add_recent, slug="add-imodel-to-my-recents"),
    Route("DELETE", "/imodels/recents/{iModelId}", remove_recent, slug="remove-imodel-from-my-recents"),
)
