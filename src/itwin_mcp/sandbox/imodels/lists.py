"""The caller's favorite and recently used iModels in one iTwin."""

from __future__ import annotations

from itwin_mcp.sandbox import access, own_lists, paging
from itwin_mcp.sandbox.errors import make_imodels_problems
from itwin_mcp.sandbox.imodels import imodels
from itwin_mcp.sandbox.wire import Answer, Call, no_content, ok


def list_favorites(call: Call) -> Answer:
    """List favorites in the order in which they were added."""
    return _list_imodels(call, "imodel_favorites", "f.seq", "Cannot get favorite iModels.")


def add_favorite(call: Call) -> Answer:
    own_lists.add_favorite(call, "imodel", access.require_imodel(call, access.WEBVIEW)["id"])
    return no_content()


def remove_favorite(call: Call) -> Answer:
    own_lists.remove_entry(call, "imodel", "favorites", access.require_imodel(call, access.WEBVIEW)["id"])
    return no_content()


def list_recents(call: Call) -> Answer:
    """List recently used iModels, the latest first."""
    return _list_imodels(call, "imodel_recents", "f.seq DESC", "Cannot get recently used iModels.")


def add_recent(call: Call) -> Answer:
    own_lists.add_recent(call, "imodel", access.require_imodel(call, access.WEBVIEW)["id"])
    return no_content()


def remove_recent(call: Call) -> Answer:
    own_lists.remove_entry(call, "imodel", "recents", access.require_imodel(call, access.WEBVIEW)["id"])
    return no_content()


def _list_imodels(call: Call, table: str, order: str, message: str) -> Answer:
    """List the entries of one iTwin that the caller may still see.

    These operations document no `$skip`, so pages are linked by continuation token.
    """
    problems = make_imodels_problems(message)
    page = paging.read_imodels_page(call, problems, skippable=False)
    page = paging.Page(page.top, page.skip, by_token=True)
    itwin_id = call.query.get("iTwinId")
    if itwin_id is None:
        problems.add("MissingRequiredParameter", "Required parameter is missing.", "iTwinId")
    problems.raise_if_any()
    itwin = access.find_itwin(call, itwin_id or "")
    conditions, parameters = ["f.user_id = ?", "m.itwin_id = ?"], [call.caller.id, itwin["id"]]
    if not access.has_full_control(call, itwin):
        conditions.append(access.VISIBLE_IMODEL)
        parameters += [call.caller.id] * 2
        if access.WEBVIEW not in access.get_itwin_permissions(call, itwin):
            conditions.append("EXISTS (SELECT 1 FROM imodel_user_permissions u WHERE u.imodel_id = m.id)")
    statement = (
        f"SELECT {imodels.SELECTED_COLUMNS} FROM {table} f JOIN imodels m ON m.id = f.imodel_id "
        f"WHERE {' AND '.join(conditions)} ORDER BY {order}"
    )
    rows, links = page.fetch_rows(call, statement, parameters)
    return ok({"iModels": imodels.render_list(call, rows), "_links": links})
