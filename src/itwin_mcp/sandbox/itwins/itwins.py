"""Create, read, update and delete iTwins, and read the account that owns one."""

from __future__ import annotations

import re
import sqlite3
import uuid
import zoneinfo
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from itwin_mcp.sandbox import access
from itwin_mcp.sandbox.errors import ApiError, Detail, make_itwins_problems
from itwin_mcp.sandbox.imodels import imodels
from itwin_mcp.sandbox.itwins import images
from itwin_mcp.sandbox.storage import blobs
from itwin_mcp.sandbox.store import insert_row
from itwin_mcp.sandbox.wire import Answer, Call, Fields, Json, created, no_content, ok

SUB_CLASSES: Final[Mapping[str, str]] = {  # subclass -> class (iTwins overview)
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
# Property -> column, in the order of the documentation (get-itwin, example).
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
    "image": "(SELECT small_blob FROM itwin_images WHERE itwin_id = t.id)",  # rendered as a link to the small image
    "createdDateTime": "t.created_at",
    "createdBy": "t.created_by",
    "lastModifiedDateTime": "t.modified_at",
    "lastModifiedBy": "t.modified_by",
}
NUMBER_TAKEN: Final = "An iTwin with the specified number already exists."
MINIMAL_PROPERTIES: Final = ("id", "class", "subClass", "type", "number", "displayName")
SELECTED_COLUMNS: Final = ", ".join(f'{column} AS "{name}"' for name, column in COLUMNS.items())
# Properties that an update may repeat unchanged, and those that it must not contain (update-itwin, 422).
FIXED_PROPERTIES: Final[Mapping[str, str]] = {"id": "id", "class": "class", "subClass": "sub_class"}
READ_ONLY_PROPERTIES: Final = (
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


def render_itwin(row: sqlite3.Row, *, names: tuple[str, ...] | None = None, call: Call | None = None) -> Json:
    """Render a row of SELECTED_COLUMNS, in full or with the properties in `names`. Null values are shown.

    The link to the image needs the call's address. Without `call` it is null.
    """
    itwin = {name: row[name] for name in names or COLUMNS}
    if itwin.get("image") is not None:
        blob_id = itwin["image"]
        itwin["image"] = blobs.make_link(call, blob_id, seconds=images.LINK_SECONDS)["href"] if call else None
    return itwin


def load_itwin(call: Call, itwin_id: str) -> Json:
    """Return an iTwin in full.

    Raises:
        ApiError: `iTwinNotFound`.
    """
    statement = f"SELECT {SELECTED_COLUMNS} FROM itwins t WHERE t.id = ?"
    return render_itwin(call.require_one("iTwinNotFound", statement, itwin_id), call=call)


def get_itwin(call: Call) -> Answer:
    """Return the iTwin in full even without `Prefer`, like the example of the page (reference section 0)."""
    return ok({"iTwin": load_itwin(call, access.find_itwin(call, call.slots["iTwinId"])["id"])})


def get_itwin_account(call: Call) -> Answer:
    return _answer_account(call, access.find_itwin(call, call.slots["iTwinId"])["account_id"])


def get_my_primary_account(call: Call) -> Answer:
    return _answer_account(call, call.caller.account_id)


def _answer_account(call: Call, account_id: str) -> Answer:
    account = load_itwin(call, account_id)
    return ok({"iTwin": account if call.wants_representation else {name: account[name] for name in MINIMAL_PROPERTIES}})


def create_itwin(call: Call) -> Answer:
    """Create an iTwin that the caller owns. Without `parentId` its parent is the caller's account."""
    problems = make_itwins_problems("Cannot create iTwin.")
    fields = call.read_fields(problems)
    values = _read_properties(fields, creating=True)
    sub_class, class_name = values.get("sub_class"), values.get("class")
    if sub_class and class_name and SUB_CLASSES[sub_class] != class_name:
        problems.add_invalid("subClass", f"A {sub_class} is of class {SUB_CLASSES[sub_class]}.")
    parent = _find_parent(call, fields)
    problems.raise_if_any()
    if access.ITWINS_CREATE not in access.get_itwin_permissions(call, parent):
        raise ApiError("InsufficientPermissions")
    itwin_id = str(uuid.uuid4())
    row = values | {
        "id": itwin_id,
        "number": values.get("number") or itwin_id,  # changelog Dec 5 2022
        "data_center_location": values.get("data_center_location") or DATA_CENTERS[0],
        "status": values.get("status") or STATUSES[0],
        "parent_id": parent["id"],
        "account_id": parent["account_id"],
        "created_at": call.timestamp,
        "created_by": call.caller.id,
        "modified_at": call.timestamp,
        "modified_by": call.caller.id,
    }
    if _is_number_taken(call, row):
        raise ApiError("iTwinExists", details=(Detail("InvalidValue", NUMBER_TAKEN, "number"),))
    insert_row(call.sql, "itwins", row)
    call.sql.execute("INSERT INTO itwin_members VALUES (?, ?, ?)", (itwin_id, call.caller.id, access.OWNER_ROLE))
    return created({"iTwin": load_itwin(call, itwin_id)})


def update_itwin(call: Call) -> Answer:
    """Change any of the writable properties. Read-only ones in the body are rejected."""
    current = access.require_itwin(call, call.slots["iTwinId"], access.ITWINS_MODIFY)
    problems = make_itwins_problems("Cannot update iTwin.")
    fields = call.read_fields(problems)
    for name, column in FIXED_PROPERTIES.items():
        if name in fields and fields.values[name] != current[column]:
            problems.add("ReadOnlyProperty", f"{_capitalize(name)} is read only and cannot be modified.", name)
    for name in READ_ONLY_PROPERTIES:
        if name in fields:
            problems.add("ReadOnlyProperty", f"{_capitalize(name)} is read only and should not be set.", name)
    values = _read_properties(fields, creating=False)
    row = dict(current) | values
    if current["class"] == "Account" and "status" in values:
        problems.add("InvalidChange", "The status of an Account cannot be changed.")
    if _is_number_taken(call, row):
        problems.add("InvalidValue", NUMBER_TAKEN, "number")
    problems.raise_if_any()
    values |= {"modified_at": call.timestamp, "modified_by": call.caller.id}
    changes = ", ".join(f"{column} = ?" for column in values)
    call.sql.execute(f"UPDATE itwins SET {changes} WHERE id = ?", (*values.values(), current["id"]))
    return ok({"iTwin": load_itwin(call, current["id"])})


def delete_itwin(call: Call) -> Answer:
    """Delete an iTwin. Only its owners and administrators may.

    Its children move to its parent and its iModels are deleted. Both are unproven (reference section 11, item 5).
    """
    row = access.find_itwin(call, call.slots["iTwinId"])
    if row["class"] == "Account" or not access.has_full_control(call, row):
        raise ApiError("InsufficientPermissions")
    call.sql.execute("UPDATE itwins SET parent_id = ? WHERE parent_id = ?", (row["parent_id"], row["id"]))
    for (imodel_id,) in call.sql.execute("SELECT id FROM imodels WHERE itwin_id = ?", (row["id"],)).fetchall():
        imodels.delete_files(call, imodel_id)
    images.remove_image(call, row["id"])
    call.sql.execute("DELETE FROM itwins WHERE id = ?", (row["id"],))
    return no_content()


def _read_properties(fields: Fields, *, creating: bool) -> dict[str, Any]:
    """Return the writable properties in the body, by column.

    Null clears a property that may be null, and is rejected for the others.
    """
    properties: dict[str, tuple[str, str | float | None]] = {}
    if creating:
        sub_classes = tuple(SUB_CLASSES)[1:]  # nobody can create an Account
        properties = {
            "class": ("class", fields.get_choice("class", ("Thing", "Endeavor"), required=True)),
            "subClass": ("sub_class", fields.get_choice("subClass", sub_classes, required=True)),
            "dataCenterLocation": ("data_center_location", fields.get_choice("dataCenterLocation", DATA_CENTERS)),
        }
    properties |= {
        "type": ("type", fields.get_text("type", limit=100)),
        "number": ("number", fields.get_text("number", blank=False)),
        "displayName": ("display_name", fields.get_text("displayName", required=creating, blank=False)),
        "geographicLocation": ("geographic_location", fields.get_text("geographicLocation")),
        "latitude": ("latitude", fields.get_number("latitude", -90, 90)),
        "longitude": ("longitude", fields.get_number("longitude", -180, 180)),
        "ianaTimeZone": ("iana_time_zone", fields.get_text("ianaTimeZone")),
        "status": ("status", fields.get_choice("status", STATUSES)),
    }
    zone = properties["ianaTimeZone"][1]
    if isinstance(zone, str) and not _is_time_zone(zone):
        fields.problems.add_invalid("ianaTimeZone", "The value must be an IANA time zone id.")
    if not creating:
        for name in ("type", "number", "displayName", "status"):
            if name in fields and fields.values[name] is None:
                fields.problems.add_invalid(name, "The value must not be null.")
    return {column: value for name, (column, value) in properties.items() if name in fields}


def _is_number_taken(call: Call, row: Mapping[str, Any]) -> bool:
    """Return whether another iTwin of the same account and subclass has the number."""
    other = call.fetch_one(
        "SELECT 1 FROM itwins WHERE account_id = ? AND sub_class = ? AND number = ? AND id <> ?",
        row["account_id"],
        row["sub_class"],
        row["number"],
        row["id"],
    )
    return other is not None


def _find_parent(call: Call, fields: Fields) -> sqlite3.Row:
    """Return the parent of a new iTwin. The default is the caller's account, even for callers who are not members."""
    parent_id = fields.get_text("parentId", blank=False)
    if parent_id is not None:
        try:
            return access.find_itwin(call, parent_id)
        except ApiError:
            fields.problems.add_invalid("parentId", "The parent iTwin is not available.")
    return call.require_one("iTwinNotFound", "SELECT * FROM itwins WHERE id = ?", call.caller.account_id)


def _capitalize(name: str) -> str:
    return name[0].upper() + name[1:]


def _is_time_zone(name: str) -> bool:
    zones = _list_time_zones()
    # Without a time zone database (Windows without tzdata) only the form can be checked.
    return name in zones if zones else bool(re.fullmatch(r"[A-Za-z_]+(/[A-Za-z0-9_+-]+){0,2}", name))


@cache
def _list_time_zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())
