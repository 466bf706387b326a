"""Fill a new store with an account, its owner and a small engineering portfolio.

Ids and contents are the same in every sandbox. Dates count back from a fixed day, or from today if the clock is before
that day.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from itwin_mcp.sandbox import access
from itwin_mcp.sandbox.imodels import checkpoints
from itwin_mcp.sandbox.itwins.itwins import SUB_CLASSES
from itwin_mcp.sandbox.pictures import placeholders
from itwin_mcp.sandbox.seed import portfolio, seeded_id
from itwin_mcp.sandbox.storage import blobs, imodel_file
from itwin_mcp.sandbox.store import format_timestamp, insert_row

NEWEST_DATE: Final = datetime(2026, 11, 2, 9, 30, 12, 417_035, tzinfo=UTC)


def fill_foundation(sql: sqlite3.Connection, now: datetime) -> None:
    """Insert the data that every sandbox has: roles, applications, one account and its owner."""
    insert_row(sql, "roles", {"id": access.OWNER_ROLE, "itwin_id": None, "display_name": "iTwin Owner"})
    for client_id, kind, name in portfolio.APPLICATIONS:
        insert_row(
            sql, "oauth_clients", {"id": client_id, "kind": kind, "name": name, "created_at": format_timestamp(now)}
        )
    _insert_account(sql, portfolio.ACCOUNTS[0], _get_newest_date(now))
    for name, permissions in portfolio.ROLES.items():
        role_id = seeded_id("role", name)
        insert_row(sql, "roles", {"id": role_id, "itwin_id": seeded_id("itwin", "meridian"), "display_name": name})
        for permission in permissions:
            insert_row(sql, "role_permissions", {"role_id": role_id, "permission": permission})
    _insert_user(sql, portfolio.USERS[0])


def fill_portfolio(sql: sqlite3.Connection, now: datetime) -> None:
    """Insert the second account, the other users, and all iTwins and iModels."""
    newest = _get_newest_date(now)
    for account in portfolio.ACCOUNTS[1:]:
        _insert_account(sql, account, newest)
    for user in portfolio.USERS[1:]:
        _insert_user(sql, user)
    for itwin in portfolio.ITWINS:
        _insert_itwin(sql, itwin, newest)
    for model in portfolio.MODELS:
        _insert_imodel(sql, model, newest)
    _insert_repositories(sql)
    for table, kind, lists in (
        ("itwin_recents", "itwin", portfolio.RECENT_ITWINS),
        ("itwin_favorites", "itwin", portfolio.FAVORITE_ITWINS),
        ("imodel_recents", "imodel", portfolio.RECENT_IMODELS),
        ("imodel_favorites", "imodel", portfolio.FAVORITE_IMODELS),
    ):
        for user_key, keys in lists.items():
            for key in keys:
                insert_row(sql, table, {"user_id": seeded_id("user", user_key), f"{kind}_id": seeded_id(kind, key)})


def _get_newest_date(now: datetime) -> datetime:
    return min(NEWEST_DATE, now - timedelta(hours=1))


def _insert_account(sql: sqlite3.Connection, account: tuple[str, str, str, int], newest: datetime) -> None:
    key, name, data_center, age = account
    created = newest - timedelta(days=age)
    account_id = seeded_id("itwin", key)
    row = {
        "id": account_id,
        "class": "Account",
        "sub_class": "Account",
        "number": name,
        "display_name": name,
        "data_center_location": data_center,
        "status": "Active",
        "account_id": account_id,
        "created_at": format_timestamp(created),
        "created_by": seeded_id("user", next(user[0] for user in portfolio.USERS if user[4] == key and user[5])),
        "modified_at": format_timestamp(created),
    }
    insert_row(sql, "itwins", row)


def _insert_user(sql: sqlite3.Connection, user: tuple[str, str, str, str, str, bool, str | None]) -> None:
    key, given_name, surname, email, account, is_admin, client_id = user
    row = {
        "id": seeded_id("user", key),
        "email": email,
        "given_name": given_name,
        "surname": surname,
        "account_id": seeded_id("itwin", account),
        "is_admin": is_admin,
        "client_id": client_id,
    }
    insert_row(sql, "users", row)
    _insert_member(sql, account, key, "Account Member")


def _insert_member(sql: sqlite3.Connection, itwin: str, user: str, role: str) -> None:
    role_id = access.OWNER_ROLE if role == portfolio.OWNER else seeded_id("role", role)
    row = {"itwin_id": seeded_id("itwin", itwin), "user_id": seeded_id("user", user), "role_id": role_id}
    insert_row(sql, "itwin_members", row)


def _insert_itwin(sql: sqlite3.Connection, itwin: tuple[Any, ...], newest: datetime) -> None:
    key, parent, sub_class, kind, number, name, place, latitude, longitude, zone, data_center, status, age = itwin
    owner = next(user for user, role in portfolio.MEMBERS[key].items() if role == portfolio.OWNER)
    account = "nordhaven" if owner == "luca" else "meridian"
    row = {
        "id": seeded_id("itwin", key),
        "class": SUB_CLASSES[sub_class],
        "sub_class": sub_class,
        "type": kind,
        "number": number,
        "display_name": name,
        "geographic_location": place,
        "latitude": latitude,
        "longitude": longitude,
        "iana_time_zone": zone,
        "data_center_location": data_center,
        "status": status,
        "parent_id": seeded_id("itwin", parent),
        "account_id": seeded_id("itwin", account),
        "created_at": format_timestamp(newest - timedelta(days=age)),
        "created_by": seeded_id("user", owner),
        "modified_at": format_timestamp(newest - timedelta(days=age // 3, hours=3)),
        "modified_by": seeded_id("user", owner),
    }
    insert_row(sql, "itwins", row)
    if sub_class in ("Asset", "Project"):
        _insert_image(sql, key, f"{kind} {name}", row["created_at"])
    for user, role in portfolio.MEMBERS[key].items():
        _insert_member(sql, key, user, role)


def _insert_image(sql: sqlite3.Connection, key: str, words: str, made_at: str) -> None:
    image_id = seeded_id("image", key)
    row = {"itwin_id": seeded_id("itwin", key), "id": image_id}
    for kind, size in (("small", placeholders.SMALL), ("large", placeholders.LARGE)):
        row[f"{kind}_name"] = f"{kind}_{image_id}.png"
        recipe = placeholders.choose_placeholder(key, words, size)
        row[f"{kind}_blob"] = blobs.create_picture(sql, seeded_id("file", f"image/{key}/{kind}"), recipe, made_at)
    insert_row(sql, "itwin_images", row)


def _insert_imodel(sql: sqlite3.Connection, model: portfolio.Model, newest: datetime) -> None:
    imodel_id = seeded_id("imodel", model.key)
    created = newest - timedelta(days=model.age)
    data_center = next(itwin[10] for itwin in portfolio.ITWINS if itwin[0] == model.itwin)
    row = {
        "id": imodel_id,
        "itwin_id": seeded_id("itwin", model.itwin),
        "name": model.name,
        "description": model.description,
        "state": "initialized",
        "created_at": format_timestamp(created),
        "creator_id": seeded_id("user", model.creator),
        "extent_json": _make_extent(model.extent),
        "data_center_location": data_center,
        "has_federation_guids": not model.legacy,
    }
    insert_row(sql, "imodels", row)
    insert_row(sql, "create_operations", {"imodel_id": imodel_id, "kind": "empty", "state": "successful"})
    baseline = {
        "imodel_id": imodel_id,
        "id": seeded_id("baseline", model.key),
        "file_size": imodel_file.SIZE,
        "state": "initialized",
        "creator_id": row["creator_id"],
        "blob_id": blobs.create_imodel_file(
            sql,
            seeded_id("file", f"baseline/{model.key}"),
            imodel_id,
            seeded_id("itwin", model.itwin),
            format_timestamp(created),
        ),
    }
    insert_row(sql, "baseline_files", baseline)
    last_access = {model.creator: created}
    briefcases: dict[str, int] = {}
    parent, moments = "", [created]
    step = (model.age - 6) / max(1, len(model.pushes))
    for index, (author, description) in enumerate(model.pushes, start=1):
        pushed = created + timedelta(days=step * index, minutes=37 * index % 240)
        moments.append(pushed)
        last_access[author] = pushed
        if author not in briefcases:
            briefcases[author] = 2 + len(briefcases)
            _insert_briefcase(sql, imodel_id, briefcases[author], author, model, pushed - timedelta(hours=2))
        changeset_id = _make_changeset_id(model.key, index)
        by_service = author == "sync"
        size = 4_096 + 1_531 * index * (1 + len(description or ""))
        changeset = {
            "imodel_id": imodel_id,
            "idx": index,
            "id": changeset_id,
            "description": description,
            "parent_id": parent,
            "creator_id": seeded_id("user", author),
            "pushed_at": format_timestamp(pushed),
            "state": "fileUploaded",
            "containing_changes": 1 if index == 1 else (4, 2, 20)[index % 3],
            "file_size": size,
            "briefcase_id": briefcases[author],
            "client_id": "service-meridian-design-sync" if by_service else model.application,
            "synchronization_json": _make_synchronization(model.key, index) if by_service else None,
            "group_id": _find_group_id(model.key, index),
        }
        file_id = seeded_id("file", f"changeset/{model.key}/{index}")
        changeset["blob_id"] = blobs.create_filler(sql, file_id, size, format_timestamp(pushed))
        insert_row(sql, "changesets", changeset)
        parent = changeset_id
    for index in {0, *model.versions}:
        _insert_checkpoint(sql, model, imodel_id, index, moments[index])
    _insert_teamwork(sql, model, imodel_id, briefcases, moments)
    for index, (name, version_description) in model.versions.items():
        version = {
            "id": seeded_id("version", f"{model.key}/{index}"),
            "imodel_id": imodel_id,
            "changeset_index": index,
            "changeset_id": _make_changeset_id(model.key, index) if index else None,
            "name": name,
            "description": version_description,
            "state": "visible",
            "created_at": format_timestamp(moments[index] + timedelta(hours=20)),
            "creator_id": seeded_id("user", model.creator),
            "client_id": model.application,
        }
        insert_row(sql, "named_versions", version)
    for user, moment in last_access.items():
        insert_row(
            sql,
            "imodel_users",
            {
                "imodel_id": imodel_id,
                "user_id": seeded_id("user", user),
                "last_access_at": format_timestamp(moment),
            },
        )


def _insert_repositories(sql: sqlite3.Connection) -> None:
    for itwin, key, kind, sub_class, name, uri, authentication, options in portfolio.REPOSITORIES:
        row = {
            "itwin_id": seeded_id("itwin", itwin),
            "id": seeded_id("repository", key),
            "class": kind,
            "sub_class": sub_class,
            "uri": uri,
            "display_name": name,
            "authentication_json": json.dumps(authentication) if authentication else None,
            "options_json": json.dumps(options) if options else None,
        }
        insert_row(sql, "repositories", row)
    registered = {repository[1] for repository in portfolio.REPOSITORIES}
    for itwin, repository, resource_id, kind, sub_class, type_, name, properties in portfolio.RESOURCES:
        resource = {
            "itwin_id": seeded_id("itwin", itwin),
            "repository_id": seeded_id("repository", repository) if repository in registered else repository.lower(),
            "id": resource_id,
            "class": kind,
            "sub_class": sub_class,
            "type": type_,
            "display_name": name,
            "properties_json": json.dumps(properties),
        }
        insert_row(sql, "repository_resources", resource)


def _insert_briefcase(
    sql: sqlite3.Connection, imodel_id: str, briefcase_id: int, owner: str, model: portfolio.Model, acquired: datetime
) -> None:
    by_service = owner == "sync"
    row = {
        "imodel_id": imodel_id,
        "briefcase_id": briefcase_id,
        "owner_id": seeded_id("user", owner),
        "acquired_at": format_timestamp(acquired),
        "file_size": imodel_file.SIZE,
        "device_name": None if by_service else f"{owner.upper()}-WS{briefcase_id:02}",
        "client_id": "service-meridian-design-sync" if by_service else model.application,
    }
    insert_row(sql, "briefcases", row)


def _insert_checkpoint(
    sql: sqlite3.Connection, model: portfolio.Model, imodel_id: str, index: int, moment: datetime
) -> None:
    state = portfolio.CHECKPOINTS.get(model.key, {}).get(index, checkpoints.SUCCESSFUL)
    if state is None:
        return
    done = state == checkpoints.SUCCESSFUL
    changeset_id = _make_changeset_id(model.key, index) if index else None
    blob_id = None
    if done:
        blob_id = blobs.create_imodel_file(
            sql,
            seeded_id("file", f"checkpoint/{model.key}/{index}"),
            imodel_id,
            seeded_id("itwin", model.itwin),
            format_timestamp(moment),
            changeset=(changeset_id or "", index),
        )
    row = {
        "imodel_id": imodel_id,
        "changeset_index": index,
        "changeset_id": changeset_id,
        "state": state,
        "size": imodel_file.SIZE if done else 0,
        "db_name": checkpoints.name_database(changeset_id),
        "blob_id": blob_id,
    }
    insert_row(sql, "checkpoints", row)


def _insert_teamwork(
    sql: sqlite3.Connection,
    model: portfolio.Model,
    imodel_id: str,
    briefcases: Mapping[str, int],
    moments: Sequence[datetime],
) -> None:
    """Insert the changeset groups, extended data and locks of one iModel."""
    for number, (creator, description, indexes) in enumerate(portfolio.GROUPS.get(model.key, ())):
        group = {
            "id": seeded_id("group", f"{model.key}/{number}"),
            "imodel_id": imodel_id,
            "description": description,
            "state": "completed",
            "creator_id": seeded_id("user", creator),
            "created_at": format_timestamp(moments[indexes[0]] - timedelta(minutes=4)),
        }
        insert_row(sql, "changeset_groups", group)
    for index, value in portfolio.EXTENDED_DATA.get(model.key, {}).items():
        data = base64.b64encode(json.dumps(value).encode()).decode("ascii")
        row: dict[str, Any] = {"imodel_id": imodel_id, "changeset_index": index, "data": data}
        insert_row(sql, "changeset_extended_data", row)
    for owner, levels in portfolio.LOCKS.get(model.key, {}).items():
        for level, objects in levels.items():
            for object_id in objects:
                row = {"imodel_id": imodel_id, "object_id": object_id, "level": level}
                insert_row(sql, "locks", row | {"briefcase_id": briefcases[owner]})


def _find_group_id(key: str, index: int) -> str | None:
    for number, (_, _, indexes) in enumerate(portfolio.GROUPS.get(key, ())):
        if index in indexes:
            return seeded_id("group", f"{key}/{number}")
    return None


def _make_changeset_id(key: str, index: int) -> str:
    return hashlib.sha1(f"{key}/{index}".encode(), usedforsecurity=False).hexdigest()


def _make_synchronization(key: str, index: int) -> str:
    return json.dumps({"taskId": seeded_id("task", f"{key}/{index}"), "changedFiles": [f"{key}.dgn"]})


def _make_extent(corners: tuple[float, float, float, float] | None) -> str | None:
    if corners is None:
        return None
    south, west, north, east = corners
    return json.dumps(
        {
            "southWest": {"latitude": south, "longitude": west},
            "northEast": {"latitude": north, "longitude": east},
        }
    )
