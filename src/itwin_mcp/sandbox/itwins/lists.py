"""Lists of iTwins: all that the caller may see, favorites and recents."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from itwin_mcp.sandbox import access, odata, own_lists, paging
from itwin_mcp.sandbox.errors import ApiError, Detail, Problems, make_itwins_problems
from itwin_mcp.sandbox.itwins.itwins import (
    COLUMNS,
    MINIMAL_PROPERTIES,
    SELECTED_COLUMNS,
    STATUSES,
    SUB_CLASSES,
    render_itwin,
)
from itwin_mcp.sandbox.wire import Answer, Call, no_content, ok

# Parameters that cannot be combined with $filter (get-my-itwins). Only subClass can.
_PLAIN_PARAMETERS: Final = ("status", "type", "number", "displayName", "parentId", "iTwinAccountId", "$search")
_SCOPES: Final = ("memberofitwin", "organizationadmin", "all")
_SUB_CLASS_NAMES: Final = {name.lower(): name for name in SUB_CLASSES}


@dataclass
class Selection:
    """The WHERE conditions of a list of iTwins, with their parameters in order."""

    conditions: list[str] = field(default_factory=list)
    parameters: list[object] = field(default_factory=list)

    def add(self, condition: str, *parameters: object) -> None:
        self.conditions.append(condition)
        self.parameters.extend(parameters)

    @property
    def where(self) -> str:
        return " AND ".join(self.conditions)


def add_scope(selection: Selection, scope: str, user_id: str, account_id: str | None) -> None:
    """Select the iTwins of a query scope: those that the user is a member of, those that the user administers, or all.

    `account_id` is the account that the user administers, or None.
    """
    member = "EXISTS (SELECT 1 FROM itwin_members m WHERE m.itwin_id = t.id AND m.user_id = ?)"
    if scope.lower() == "organizationadmin":
        selection.add("t.account_id = ?", account_id)
    elif scope.lower() == "all":
        selection.add(f"({member} OR t.account_id = ?)", user_id, account_id)
    else:
        selection.add(member, user_id)


def add_filter(selection: Selection, text: str) -> odata.Condition:
    """Add a `$filter` to the selection and return its condition.

    Raises:
        ApiError: 422 with the syntax error as its message (create-export, integration test).
    """
    try:
        condition = odata.parse_filter(text, COLUMNS)
    except odata.ODataError as error:
        detail = Detail("InvalidValue", str(error), "$filter")
        raise ApiError("InvalidiTwinsRequest", str(error), details=(detail,)) from error
    selection.add(condition.sql, *condition.parameters)
    return condition


def add_sub_classes(selection: Selection, text: str, problems: Problems) -> None:
    """Select the subclasses in a comma-separated list."""
    sub_classes = [_SUB_CLASS_NAMES.get(part.strip().lower()) for part in text.split(",")]
    if None in sub_classes:
        problems.add("InvalidValue", "A valid iTwin SubClass was not specified in the query.", "subClass")
    selection.add(f"t.sub_class IN ({', '.join('?' * len(sub_classes))})", *sub_classes)


def list_my_itwins(call: Call) -> Answer:
    problems = make_itwins_problems("Cannot query iTwins.")
    cap = paging.read_max_return(call, problems)
    page = paging.read_itwins_page(call, problems)
    selection = Selection()
    _add_header_scope(call, selection, problems)
    condition = _add_query_filter(call, selection, problems)
    used_properties = condition.properties if condition else frozenset()
    _add_plain_parameters(call, selection, problems, used_properties)
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
    problems.raise_if_any()
    return _answer_page(call, replace(page, cap=cap), "itwins t", selection, order, names)


def list_favorites(call: Call) -> Answer:
    """List favorites, without those that the caller can no longer see."""
    return _list_own(call, "itwin_favorites f JOIN itwins t ON t.id = f.itwin_id", "f.seq")


def list_recents(call: Call) -> Answer:
    """List recently used iTwins, the latest first. `subClass` is optional (changelog, Sep 30 2024)."""
    return _list_own(call, "itwin_recents f JOIN itwins t ON t.id = f.itwin_id", "f.seq DESC")


def add_favorite(call: Call) -> Answer:
    own_lists.add_favorite(call, "itwin", access.find_itwin(call, call.slots["iTwinId"])["id"])
    return no_content()


def remove_favorite(call: Call) -> Answer:
    own_lists.remove_entry(call, "itwin", "favorites", access.find_itwin(call, call.slots["iTwinId"])["id"])
    return no_content()


def add_recent(call: Call) -> Answer:
    own_lists.add_recent(call, "itwin", access.find_itwin(call, call.slots["iTwinId"])["id"])
    return no_content()


def _list_own(call: Call, source: str, order: str) -> Answer:
    problems = make_itwins_problems("Cannot query iTwins.")
    page = paging.read_itwins_page(call, problems)
    selection = Selection()
    selection.add("f.user_id = ?", call.caller.id)
    _add_caller_scope(call, selection, "all")
    _add_plain_parameters(call, selection, problems, frozenset({"subClass"}), names=("status", "type", "$search"))
    problems.raise_if_any()
    return _answer_page(call, page, source, selection, order, None)


def _answer_page(
    call: Call, page: paging.Page, source: str, selection: Selection, order: str, names: tuple[str, ...] | None
) -> Answer:
    statement = f"SELECT {SELECTED_COLUMNS} FROM {source} WHERE {selection.where} ORDER BY {order}"
    rows, links = page.fetch_rows(call, statement, selection.parameters)
    if names is None and not call.wants_representation:
        names = MINIMAL_PROPERTIES
    headers = {} if page.cap is None else {"X-Max-Return": str(page.cap)}
    return ok({"iTwins": [render_itwin(row, names=names, call=call) for row in rows], "_links": links}, headers)


def _add_caller_scope(call: Call, selection: Selection, scope: str) -> None:
    add_scope(selection, scope, call.caller.id, call.caller.account_id if call.caller.is_admin else None)


def _add_header_scope(call: Call, selection: Selection, problems: Problems) -> None:
    """Select the scope in the header X-iTwin-Query-Scope. The default is the caller's memberships."""
    scope = call.headers.get("x-itwin-query-scope", _SCOPES[0]).strip().lower() or _SCOPES[0]
    if scope not in _SCOPES:
        message = "Valid values are MemberOfiTwin, OrganizationAdmin and All."
        problems.add("InvalidHeaderValue", message, "X-iTwin-Query-Scope")
    _add_caller_scope(call, selection, scope)


def _add_query_filter(call: Call, selection: Selection, problems: Problems) -> odata.Condition | None:
    """Add `$filter` to the selection. Reject it together with a parameter that cannot be combined with it."""
    text = call.query.get("$filter")
    if text is None:
        return None
    for name in _PLAIN_PARAMETERS:
        if call.query.get(name) is not None:
            message = f"The $filter query option should not be used at the same time as the {name} parameter."
            problems.add("InvalidParameter", message, name)
    return add_filter(selection, text)


def _add_plain_parameters(
    call: Call,
    selection: Selection,
    problems: Problems,
    used_properties: frozenset[str],
    names: tuple[str, ...] = _PLAIN_PARAMETERS,
) -> None:
    """Add the query parameters in `names`, `subClass` and `includeInactive` to the selection.

    The messages are those of the get-my-recents page. `used_properties` are the properties in `$filter`: a filter by
    subclass or status replaces the default, which omits accounts and inactive iTwins.
    """
    query = call.query
    if text := query.get("subClass"):
        add_sub_classes(selection, text, problems)
    elif "subClass" not in used_properties:
        selection.add("t.sub_class <> 'Account'")  # only subClass=Account lists accounts
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
    if status is None and (inactive or "").lower() != "true" and "status" not in used_properties:
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
