"""Lists of iTwins: all that the caller may see, the favorites and the recents."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from itwin_mcp.sandbox import access, odata, paging
from itwin_mcp.sandbox.errors import ApiError, Detail, Problems, itwins_problems
from itwin_mcp.sandbox.itwins import COLUMNS, MINIMAL, SELECTED, STATUSES, SUB_CLASSES, render
from itwin_mcp.sandbox.wire import Answer, Call, Route, no_content, ok

RECENTS: Final = 25
# The simple parameters that a $filter excludes (get-my-itwins); subClass is the one that may stand beside it.
_SIMPLE: Final = ("status", "type", "number", "displayName", "parentId", "iTwinAccountId", "$search")
_SCOPES: Final = ("memberofitwin", "organizationadmin", "all")


@dataclass
class Selection:
    """The conditions of one list, and their parameters in order."""

    conditions: list[str] = field(default_factory=list)
    parameters: list[object] = field(default_factory=list)

    def add(self, condition: str, *parameters: object) -> None:
        self.conditions.append(condition)
        self.parameters.extend(parameters)

    @property
    def where(self) -> str:
        return " AND ".join(self.conditions)


def within(selection: Selection, scope: str, user_id: str, account_id: str | None) -> None:
    """What the user is a member of, what they administer (`account_id`, if they do), or both."""
    member = "EXISTS (SELECT 1 FROM itwin_members m WHERE m.itwin_id = t.id AND m.user_id = ?)"
    if scope.lower() == "organizationadmin":
        selection.add("t.account_id = ?", account_id)
    elif scope.lower() == "all":
        selection.add(f"({member} OR t.account_id = ?)", user_id, account_id)
    else:
        selection.add(member, user_id)


def filtered(selection: Selection, text: str) -> odata.Condition:
    """What a `$filter` asks for, or 422 whose message is the syntax error itself (create-export, integration test)."""
    try:
        condition = odata.parse_filter(text, COLUMNS)
    except odata.ODataError as error:
        finding = Detail("InvalidValue", str(error), "$filter")
        raise ApiError("InvalidiTwinsRequest", str(error), details=(finding,)) from error
    selection.add(condition.sql, *condition.parameters)
    return condition


def of_sub_classes(selection: Selection, text: str, problems: Problems) -> None:
    """Only those of a comma list of subClasses."""
    wanted = [SUB_CLASS_NAMES.get(part.strip().lower()) for part in text.split(",")]
    if None in wanted:
        problems.add("InvalidValue", "A valid iTwin SubClass was not specified in the query.", "subClass")
    selection.add(f"t.sub_class IN ({', '.join('?' * len(wanted))})", *wanted)


def get_mine(call: Call) -> Answer:
    """get-my-itwins."""
    problems = itwins_problems("Cannot query iTwins.")
    cap = paging.max_return(call, problems)
    page = paging.itwins_page(call, problems)
    selection = Selection()
    _scope(call, selection, problems)
    condition = _filter(call, selection, problems)
    mentioned = condition.properties if condition else frozenset()
    _simple(call, selection, problems, mentioned)
    order, names = "t.seq", None
    if text := call.query.get("$orderby"):
        try:
            order = f"{odata.parse_order(text, COLUMNS)}, t.seq"
        except odata.ODataError as error:
            problems.add("InvalidValue", str(error), "$orderby")
    if text := call.query.get("$select"):
        try:
            names = odata.parse_select(text, COLUMNS)
        except odata.ODataError as error:
            problems.add("InvalidValue", str(error), "$select")
    problems.refuse()
    return _answer(call, replace(page, cap=cap), "itwins t", selection, order, names)


def get_favorites(call: Call) -> Answer:
    """get-my-favorite-itwins: only those that the caller is still a member of."""
    return _mine_of(call, "itwin_favorites f JOIN itwins t ON t.id = f.itwin_id", "f.seq")


def get_recents(call: Call) -> Answer:
    """get-my-recents: the last used one first. subClass is optional since Sep 30 2024 (changelog)."""
    return _mine_of(call, "itwin_recents f JOIN itwins t ON t.id = f.itwin_id", "f.seq DESC")


def add_favorite(call: Call) -> Answer:
    """add-itwin-to-my-favorites; a second time changes nothing."""
    row = access.itwin(call, call.slots["iTwinId"])
    statement = "INSERT OR IGNORE INTO itwin_favorites (user_id, itwin_id) VALUES (?, ?)"
    call.sql.execute(statement, (call.caller.id, row["id"]))
    return no_content()


def remove_favorite(call: Call) -> Answer:
    """remove-itwin-from-my-favorites."""
    row = access.itwin(call, call.slots["iTwinId"])
    call.sql.execute("DELETE FROM itwin_favorites WHERE user_id = ? AND itwin_id = ?", (call.caller.id, row["id"]))
    return no_content()


def add_recent(call: Call) -> Answer:
    """add-itwin-to-my-recents: to the front; the 26th pushes the oldest out."""
    row = access.itwin(call, call.slots["iTwinId"])
    me = call.caller.id
    call.sql.execute(
        "INSERT OR REPLACE INTO itwin_recents (seq, user_id, itwin_id) "
        "VALUES ((SELECT COALESCE(MAX(seq), 0) + 1 FROM itwin_recents), ?, ?)",
        (me, row["id"]),
    )
    call.sql.execute(
        "DELETE FROM itwin_recents WHERE user_id = ? AND seq NOT IN "
        "(SELECT seq FROM itwin_recents WHERE user_id = ? ORDER BY seq DESC LIMIT ?)",
        (me, me, RECENTS),
    )
    return no_content()


def _mine_of(call: Call, source: str, order: str) -> Answer:
    problems = itwins_problems("Cannot query iTwins.")
    page = paging.itwins_page(call, problems)
    selection = Selection()
    selection.add("f.user_id = ?", call.caller.id)
    me = call.caller
    selection.add(
        "(EXISTS (SELECT 1 FROM itwin_members m WHERE m.itwin_id = t.id AND m.user_id = ?) OR t.account_id = ?)",
        me.id,
        me.account_id if me.is_admin else None,
    )
    _simple(call, selection, problems, frozenset({"subClass"}), names=("status", "type", "$search"))
    problems.refuse()
    return _answer(call, page, source, selection, order, None)


def _answer(
    call: Call, page: paging.Page, source: str, selection: Selection, order: str, names: tuple[str, ...] | None
) -> Answer:
    statement = f"SELECT {SELECTED} FROM {source} WHERE {selection.where} ORDER BY {order}"
    rows, links = page.select(call, statement, selection.parameters)
    if names is None and not call.wants_representation:
        names = MINIMAL
    headers = {} if page.cap is None else {"X-Max-Return": str(page.cap)}
    return ok({"iTwins": [render(row, names=names, call=call) for row in rows], "_links": links}, headers)


def _scope(call: Call, selection: Selection, problems: Problems) -> None:
    """X-iTwin-Query-Scope, as it stands in the header."""
    scope = call.headers.get("x-itwin-query-scope", _SCOPES[0]).strip().lower() or _SCOPES[0]
    if scope not in _SCOPES:
        message = "Valid values are MemberOfiTwin, OrganizationAdmin and All."
        problems.add("InvalidHeaderValue", message, "X-iTwin-Query-Scope")
    within(selection, scope, call.caller.id, call.caller.account_id if call.caller.is_admin else None)


def _filter(call: Call, selection: Selection, problems: Problems) -> odata.Condition | None:
    text = call.query.get("$filter")
    if text is None:
        return None
    for name in _SIMPLE:
        if call.query.get(name) is not None:
            message = f"The $filter query option should not be used at the same time as the {name} parameter."
            problems.add("InvalidParameter", message, name)
    return filtered(selection, text)


def _simple(
    call: Call,
    selection: Selection,
    problems: Problems,
    mentioned: frozenset[str],
    names: tuple[str, ...] = _SIMPLE,
) -> None:
    """The plain query parameters (messages verbatim from the get-my-recents page)."""
    query = call.query
    if text := query.get("subClass"):
        of_sub_classes(selection, text, problems)
    elif "subClass" not in mentioned:
        selection.add("t.sub_class <> 'Account'")  # Accounts are listed only when asked for (get-my-primary-account)
    status, inactive = query.get("status"), query.get("includeInactive")
    if status is not None:
        if status.capitalize() not in STATUSES:
            message = "Status value is incorrect. Valid values are Active, Inactive and Trial."
            problems.add("InvalidValue", message, "status")
        selection.add("t.status = ?", status.capitalize())
    if inactive is not None and inactive.lower() not in ("true", "false"):
        problems.add("InvalidValue", "The includeInactive parameter must be true or false.", "includeInactive")
    if status is not None and inactive is not None:
        message = "The includeInactive parameter should not be used at the same time as the status parameter."
        problems.add("InvalidParameter", message, "includeInactive")
    if status is None and (inactive or "").lower() != "true" and "status" not in mentioned:
        selection.add("t.status <> 'Inactive'")
    if query.get("$search") is not None and (query.get("number") or query.get("displayName")) and "number" in names:
        message = "The $search query option should not be used at the same time as number or displayName."
        problems.add("InvalidParameter", message, "$search")
    for name in names:
        value = query.get(name)
        if value is None or name == "status":
            continue
        if name == "$search":
            selection.add(
                "(instr(fold(t.display_name), ?) > 0 OR instr(fold(t.number), ?) > 0)",
                value.casefold(),
                value.casefold(),
            )
        else:
            selection.add(f"{COLUMNS[name]} = ?", value.lower() if name.endswith("Id") else value)


SUB_CLASS_NAMES: Final = {name.lower(): name for name in SUB_CLASSES}

ROUTES: Final = (
    Route("GET", "/itwins", get_mine, slug="get-my-itwins"),
    Route("GET", "/itwins/favorites", get_favorites, slug="get-my-favorite-itwins"),
    Route("POST", "/itwins/favorites/{iTwinId}", add_favorite, slug="add-itwin-to-my-favorites"),
    Route("DELETE", "/itwins/favorites/{iTwinId}", remove_favorite, slug="remove-itwin-from-my-favorites"),
    Route("GET", "/itwins/recents", get_recents, slug="get-my-recents"),
    Route("POST", "/itwins/recents/{iTwinId}", add_recent, slug="add-itwin-to-my-recents"),
)
