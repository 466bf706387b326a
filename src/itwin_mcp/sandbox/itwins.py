"""iTwins themselves: create, read, change and delete one, and the Account that owns it."""

from __future__ import annotations

import re
import sqlite3
import uuid
import zoneinfo
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from itwin_mcp.sandbox import access, files, images, imodels
from itwin_mcp.sandbox.errors import ApiError, Detail, itwins_problems
from itwin_mcp.sandbox.wire import Answer, Call, Fields, Json, Route, created, no_content, ok

SUB_CLASSES: Final[Mapping[str, str]] = {  # subClass -> its class (iTwins overview)
    "Account": "Account",
    "Portfolio": "Thing",
    "Asset": "Thing",
    "Program": "Endeavor",
    "Project": "Endeavor",
    "WorkPackage": "Endeavor",
}
STATUSES: Final = ("Active", "Inactive", "Trial")
DATA_CENTERS: Final = (
    "East US",
    "North Europe",
    "West Europe",
    "Southeast Asia",
    "Australia East",
    "UK South",
    "Canada Central",
    "Central India",
    "Japan East",
)
# Every property in the order of the documentation, with its column (get-itwin, example).
COLUMNS: Final[Mapping[str, str]] = {
    "id": "t.id",
    "class": "t.class",
    "subClass": "t.sub_class",
    "type": "t.type",
    "number": "t.number",
    "displayName": "t.display_name",
    "geographicLocation": "t.geographic_location",
    "latitude": "t.latitude",
    "longitude": "t.longitude",
    "ianaTimeZone": "t.iana_time_zone",
    "dataCenterLocation": "t.data_center_location",
    "status": "t.status",
    "parentId": "t.parent_id",
    "iTwinAccountId": "t.account_id",
    "imageName": "(SELECT small_name FROM itwin_images WHERE itwin_id = t.id)",
    "image": "(SELECT small_blob FROM itwin_images WHERE itwin_id = t.id)",  # becomes a link to the small image
    "createdDateTime": "t.created_at",
    "createdBy": "t.created_by",
    "lastModifiedDateTime": "t.modified_at",
    "lastModifiedBy": "t.modified_by",
}
NUMBER_TAKEN: Final = "An iTwin with the specified number already exists."
MINIMAL: Final = ("id", "class", "subClass", "type", "number", "displayName")
SELECTED: Final = ", ".join(f'{column} AS "{name}"' for name, column in COLUMNS.items())


# What a change of an iTwin may repeat but not change, and what it may not hold at all (update-itwin, 422).
FIXED: Final[Mapping[str, str]] = {"id": "id", "class": "class", "subClass": "sub_class"}
READ_ONLY: Final = (
    "dataCenterLocation",
    "parentId",
    "iTwinAccountId",
    "imageName",
    "image",
    "createdDateTime",
    "createdBy",
    "lastModifiedDateTime",
    "lastModifiedBy",
)


def render(row: sqlite3.Row, *, names: tuple[str, ...] | None = None, call: Call | None = None) -> Json:
    """An iTwin from a row of SELECTED, whole or with some of its properties; null stays visible as null.

    Without a call there is no address to make a link to the image with, so it stays null.
    """
    itwin = {name: row[name] for name in names or COLUMNS}
    if itwin.get("image") is not None:
        blob_id = itwin["image"]
        itwin["image"] = files.link(call, blob_id, seconds=images.LINK_SECONDS)["href"] if call else None
    return itwin


def load(call: Call, itwin_id: str) -> Json:
    """The whole iTwin."""
    row = call.one(f"SELECT {SELECTED} FROM itwins t WHERE t.id = ?", itwin_id)
    if row is None:
        raise ApiError("iTwinNotFound")
    return render(row, call=call)


def get(call: Call) -> Answer:
    """get-itwin: whole, whatever Prefer says, as the page's example (reference section 0)."""
    return ok({"iTwin": load(call, access.itwin(call, call.slots["iTwinId"])["id"])})


def get_account(call: Call) -> Answer:
    """get-itwin-account."""
    return _account(call, access.itwin(call, call.slots["iTwinId"])["account_id"])


def get_primary_account(call: Call) -> Answer:
    """get-my-primary-account."""
    return _account(call, call.caller.account_id)


def _account(call: Call, account_id: str) -> Answer:
    account = load(call, account_id)
    return ok({"iTwin": account if call.wants_representation else {name: account[name] for name in MINIMAL}})


def create(call: Call) -> Answer:
    """create-itwin: its creator becomes its owner; without a parent it stands right under the caller's Account."""
    problems = itwins_problems("Cannot create iTwin.")
    fields = call.fields(problems)
    values = _properties(fields, creating=True)
    _check_class(fields, values)
    parent = _parent(call, fields)
    problems.refuse()
    parent = parent or _own_account(call)
    if access.ITWINS_CREATE not in access.itwin_permissions(call, parent):
        raise ApiError("InsufficientPermissions")
    itwin_id = str(uuid.uuid4())
    row = values | {
        "id": itwin_id,
        "number": values.get("number") or itwin_id,  # changelog Dec 5 2022
        "data_center_location": values.get("data_center_location") or DATA_CENTERS[0],
        "status": values.get("status") or STATUSES[0],
        "parent_id": parent["id"],
        "account_id": parent["account_id"],
        "created_at": call.stamp,
        "created_by": call.caller.id,
        "modified_at": call.stamp,
        "modified_by": call.caller.id,
    }
    if _is_number_taken(call, row):
        raise ApiError("iTwinExists", details=(Detail("InvalidValue", NUMBER_TAKEN, "number"),))
    call.sql.execute(f"INSERT INTO itwins ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", tuple(row.values()))
    call.sql.execute("INSERT INTO itwin_members VALUES (?, ?, ?)", (itwin_id, call.caller.id, access.OWNER_ROLE))
    return created({"iTwin": load(call, itwin_id)})


def update(call: Call) -> Answer:
    """update-itwin: all properties are optional; what only the platform writes is refused."""
    current = access.itwin_for(call, call.slots["iTwinId"], access.ITWINS_MODIFY)
    problems = itwins_problems("Cannot update iTwin.")
    fields = call.fields(problems)
    for name, column in FIXED.items():
        if name in fields and fields.values[name] != current[column]:
            problems.add("ReadOnlyProperty", f"{_capitalized(name)} is read only and cannot be modified.", name)
    for name in READ_ONLY:
        if name in fields:
            problems.add("ReadOnlyProperty", f"{_capitalized(name)} is read only and should not be set.", name)
    values = _properties(fields, creating=False)
    row = dict(current) | values
    if current["class"] == "Account" and "status" in values:
        problems.add("InvalidChange", "The status of an Account cannot be changed.")
    if _is_number_taken(call, row):
        problems.add("InvalidValue", NUMBER_TAKEN, "number")
    problems.refuse()
    values |= {"modified_at": call.stamp, "modified_by": call.caller.id}
    changes = ", ".join(f"{column} = ?" for column in values)
    call.sql.execute(f"UPDATE itwins SET {changes} WHERE id = ?", (*values.values(), current["id"]))
    return ok({"iTwin": load(call, current["id"])})


def delete(call: Call) -> Answer:
    """delete-itwin: owners and administrators only. Children move up, iModels go with it (both unproven, 11.5)."""
    row = access.itwin(call, call.slots["iTwinId"])
    if row["class"] == "Account" or not (access.administers(call, row) or access.is_owner(call, row["id"])):
        raise ApiError("InsufficientPermissions")
    call.sql.execute("UPDATE itwins SET parent_id = ? WHERE parent_id = ?", (row["parent_id"], row["id"]))
    for (imodel_id,) in call.sql.execute("SELECT id FROM imodels WHERE itwin_id = ?", (row["id"],)).fetchall():
        imodels.forget_files(call, imodel_id)
    images.forget(call, row["id"])
    call.sql.execute("DELETE FROM itwins WHERE id = ?", (row["id"],))
    return no_content()


def _properties(fields: Fields, *, creating: bool) -> dict[str, Any]:
    """Return the writable properties of the body by column. Null clears what may be null, and is refused elsewhere."""
    read: dict[str, tuple[str, str | float | None]] = {}
    if creating:
        kinds = tuple(SUB_CLASSES)[1:]
        read["class"] = ("class", fields.choice("class", ("Thing", "Endeavor"), required=True))
        read["subClass"] = ("sub_class", fields.choice("subClass", kinds, required=True))
        read["dataCenterLocation"] = ("data_center_location", fields.choice("dataCenterLocation", DATA_CENTERS))
    read |= {
        "type": ("type", fields.text("type", limit=100)),
        "number": ("number", fields.text("number", blank=False)),
        "displayName": ("display_name", fields.text("displayName", required=creating, blank=False)),
        "geographicLocation": ("geographic_location", fields.text("geographicLocation")),
        "latitude": ("latitude", fields.number("latitude", -90, 90)),
        "longitude": ("longitude", fields.number("longitude", -180, 180)),
        "ianaTimeZone": ("iana_time_zone", fields.text("ianaTimeZone")),
        "status": ("status", fields.choice("status", STATUSES)),
    }
    zone = read["ianaTimeZone"][1]
    if isinstance(zone, str) and not _is_time_zone(zone):
        fields.problems.invalid("ianaTimeZone", "The value must be an IANA time zone id.")
    if not creating:
        for name in ("type", "number", "displayName", "status"):
            if name in fields and fields.values[name] is None:
                fields.problems.invalid(name, "The value must not be null.")
    return {column: value for name, (column, value) in read.items() if name in fields}


def _check_class(fields: Fields, row: Mapping[str, Any]) -> None:
    sub_class, given = row.get("sub_class"), row.get("class")
    if sub_class and given and SUB_CLASSES[sub_class] != given:
        fields.problems.invalid("subClass", f"A {sub_class} is of class {SUB_CLASSES[sub_class]}.")


def _is_number_taken(call: Call, row: Mapping[str, Any]) -> bool:
    """Whether another iTwin of the same Account and subClass has the number."""
    other = call.one(
        "SELECT 1 FROM itwins WHERE account_id = ? AND sub_class = ? AND number = ? AND id <> ?",
        row["account_id"],
        row["sub_class"],
        row["number"],
        row["id"],
    )
    return other is not None


def _parent(call: Call, fields: Fields) -> sqlite3.Row | None:
    parent_id = fields.text("parentId", blank=False)
    if parent_id is None:
        return None
    try:
        return access.itwin(call, parent_id)
    except ApiError:
        fields.problems.invalid("parentId", "The parent iTwin is not available.")
        return None


def _own_account(call: Call) -> sqlite3.Row:
    """The caller's Account; who is no member of it knows it all the same, and only lacks the permission."""
    row = call.one("SELECT * FROM itwins WHERE id = ?", call.caller.account_id)
    if row is None:
        raise ApiError("iTwinNotFound")
    return row


def _capitalized(name: str) -> str:
    return name[0].upper() + name[1:]


def _is_time_zone(name: str) -> bool:
    known = _time_zones()
    # Without a time zone database (Windows without tzdata) only the shape can be judged.
    return name in known if known else bool(re.fullmatch(r"[A-Za-z_]+(/[A-Za-z0-9_+-]+){0,2}", name))


@cache
def _time_zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


ROUTES: Final = (
    Route("POST", "/itwins", create, slug="create-itwin"),
    Route("GET", "/itwins/myprimaryaccount", get_primary_account, slug="get-my-primary-account"),
    Route("GET", "/itwins/{iTwinId}", get, slug="get-itwin"),
    Route("PATCH", "/itwins/{iTwinId}", update, slug="update-itwin"),
    Route("DELETE", "/itwins/{iTwinId}", delete, slug="delete-itwin"),
    Route("GET", "/itwins/{iTwinId}/account", get_account, slug="get-itwin-account"),
)
