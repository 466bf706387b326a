"""What a new sandbox opens on: an account and its owner, and a small, believable engineering portfolio.

Ids and contents never change; dates count back from a fixed day, or from today where the clock stands before it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sqlite3
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from itwin_mcp.sandbox import access, checkpoints, files, imodel_file, pictures, portfolio
from itwin_mcp.sandbox.itwins import SUB_CLASSES
from itwin_mcp.sandbox.store import stamp

NEWEST: Final = datetime(2026, 11, 2, 9, 30, 12, 417_035, tzinfo=UTC)
_SPACE: Final = uuid.UUID("6f1a9c52-3b0e-4c57-9d64-0a8f5e2b7c11")


def seeded_id(kind: str, key: str) -> str:
    """The id of a seeded entity, the same in every sandbox: `seeded_id("itwin", "interchange")`."""
    return str(uuid.uuid5(_SPACE, f"{kind}/{key}"))


def foundation(sql: sqlite3.Connection, now: datetime) -> None:
    """What even an empty sandbox has: the roles, the applications, one account and its owner."""
    _insert(sql, "roles", {"id": access.OWNER_ROLE, "itwin_id": None, "display_name": "iTwin Owner"})
    for client_id, kind, name in portfolio.APPLICATIONS:
        _insert(sql, "oauth_clients", {"id": client_id, "kind": kind, "name": name, "created_at": stamp(now)})
    _account(sql, portfolio.ACCOUNTS[0], _newest(now))
    for name, permissions in portfolio.ROLES.items():
        role = {"id": seeded_id("role", name), "itwin_id": seeded_id("itwin", "meridian"), "display_name": name}
        _insert(sql, "roles", role)
        for permission in permissions:
            _insert(sql, "role_permissions", {"role_id": role["id"], "permission": permission})
    _user(sql, portfolio.USERS[0])


def contents(sql: sqlite3.Connection, now: datetime) -> None:
    """The second account, everyone else, and all of their work."""
    newest = _newest(now)
    for account in portfolio.ACCOUNTS[1:]:
        _account(sql, account, newest)
    for user in portfolio.USERS[1:]:
        _user(sql, user)
    for itwin in portfolio.ITWINS:
        _itwin(sql, itwin, newest)
    for model in portfolio.MODELS:
        _imodel(sql, model, newest)
    _repositories(sql)
    for table, kind, lists in (
        ("itwin_recents", "itwin", portfolio.RECENT_ITWINS),
        ("itwin_favorites", "itwin", portfolio.FAVORITE_ITWINS),
        ("imodel_recents", "imodel", portfolio.RECENT_IMODELS),
        ("imodel_favorites", "imodel", portfolio.FAVORITE_IMODELS),
    ):
        for user_key, keys in lists.items():
            for key in keys:
                _insert(sql, table, {"user_id": seeded_id("user", user_key), f"{kind}_id": seeded_id(kind, key)})


def _newest(now: datetime) -> datetime:
    return min(NEWEST, now - timedelta(hours=1))


def _account(sql: sqlite3.Connection, account: tuple[str, str, str, int], newest: datetime) -> None:
    key, name, data_center, age = account
    made = newest - timedelta(days=age)
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
        "created_at": stamp(made),
        "created_by": seeded_id("user", next(user[0] for user in portfolio.USERS if user[4] == key and user[5])),
        "modified_at": stamp(made),
    }
    _insert(sql, "itwins", row)


def _user(sql: sqlite3.Connection, user: tuple[str, str, str, str, str, bool, str | None]) -> None:
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
    _insert(sql, "users", row)
    _member(sql, account, key, "Account Member")


def _member(sql: sqlite3.Connection, itwin: str, user: str, role: str) -> None:
    role_id = access.OWNER_ROLE if role == portfolio.OWNER else seeded_id("role", role)
    row = {"itwin_id": seeded_id("itwin", itwin), "user_id": seeded_id("user", user), "role_id": role_id}
    _insert(sql, "itwin_members", row)


def _itwin(sql: sqlite3.Connection, itwin: tuple[Any, ...], newest: datetime) -> None:
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
        "created_at": stamp(newest - timedelta(days=age)),
        "created_by": seeded_id("user", owner),
        "modified_at": stamp(newest - timedelta(days=age // 3, hours=3)),
        "modified_by": seeded_id("user", owner),
    }
    _insert(sql, "itwins", row)
    if sub_class in ("Asset", "Project"):
        _image(sql, key, f"{kind} {name}", row["created_at"])
    for user, role in portfolio.MEMBERS[key].items():
        _member(sql, key, user, role)


def _image(sql: sqlite3.Connection, key: str, words: str, made_at: str) -> None:
    image_id = seeded_id("image", key)
    row = {"itwin_id": seeded_id("itwin", key), "id": image_id}
    for kind, size in (("small", pictures.SMALL), ("large", pictures.LARGE)):
        row[f"{kind}_name"] = f"{kind}_{image_id}.png"
        recipe = pictures.recipe(key, words, size)
        row[f"{kind}_blob"] = files.picture(sql, seeded_id("file", f"image/{key}/{kind}"), recipe, made_at)
    _insert(sql, "itwin_images", row)


def _imodel(sql: sqlite3.Connection, model: portfolio.Model, newest: datetime) -> None:
    imodel_id = seeded_id("imodel", model.key)
    made = newest - timedelta(days=model.age)
    data_center = next(itwin[10] for itwin in portfolio.ITWINS if itwin[0] == model.itwin)
    row = {
        "id": imodel_id,
        "itwin_id": seeded_id("itwin", model.itwin),
        "name": model.name,
        "description": model.description,
        "state": "initialized",
        "created_at": stamp(made),
        "creator_id": seeded_id("user", model.creator),
        "extent_json": _extent(model.extent),
        "data_center_location": data_center,
        "has_federation_guids": not model.legacy,
    }
    _insert(sql, "imodels", row)
    _insert(sql, "create_operations", {"imodel_id": imodel_id, "kind": "empty", "state": "successful"})
    baseline = {
        "imodel_id": imodel_id,
        "id": seeded_id("baseline", model.key),
        "file_size": imodel_file.SIZE,
        "state": "initialized",
        "creator_id": row["creator_id"],
        "blob_id": files.imodel(
            sql, seeded_id("file", f"baseline/{model.key}"), imodel_id, seeded_id("itwin", model.itwin), stamp(made)
        ),
    }
    _insert(sql, "baseline_files", baseline)
    seen = {model.creator: made}
    briefcases: dict[str, int] = {}
    parent, moments = "", [made]
    step = (model.age - 6) / max(1, len(model.pushes))
    for index, (author, description) in enumerate(model.pushes, start=1):
        pushed = made + timedelta(days=step * index, minutes=37 * index % 240)
        moments.append(pushed)
        seen[author] = pushed
        if author not in briefcases:
            briefcases[author] = 2 + len(briefcases)
            _briefcase(sql, imodel_id, briefcases[author], author, model, pushed - timedelta(hours=2))
        changeset_id = _changeset_id(model.key, index)
        service = author == "sync"
        size = 4_096 + 1_531 * index * (1 + len(description or ""))
        changeset = {
            "imodel_id": imodel_id,
            "idx": index,
            "id": changeset_id,
            "description": description,
            "parent_id": parent,
            "creator_id": seeded_id("user", author),
            "pushed_at": stamp(pushed),
            "state": "fileUploaded",
            "containing_changes": 1 if index == 1 else (4, 2, 20)[index % 3],
            "file_size": size,
            "briefcase_id": briefcases[author],
            "client_id": "service-meridian-design-sync" if service else model.application,
            "synchronization_json": _synchronization(model.key, index) if service else None,
            "group_id": _group_id(model.key, index),
        }
        file_id = seeded_id("file", f"changeset/{model.key}/{index}")
        changeset["blob_id"] = files.stand_in(sql, file_id, size, stamp(pushed))
        _insert(sql, "changesets", changeset)
        parent = changeset_id
    for index in {0, *model.versions}:
        _checkpoint(sql, model, imodel_id, index, moments[index])
    _teamwork(sql, model, imodel_id, briefcases, moments)
    for index, (name, why) in model.versions.items():
        version = {
            "id": seeded_id("version", f"{model.key}/{index}"),
            "imodel_id": imodel_id,
            "changeset_index": index,
            "changeset_id": _changeset_id(model.key, index) if index else None,
            "name": name,
            "description": why,
            "state": "visible",
            "created_at": stamp(moments[index] + timedelta(hours=20)),
            "creator_id": seeded_id("user", model.creator),
            "client_id": model.application,
        }
        _insert(sql, "named_versions", version)
    for user, moment in seen.items():
        _insert(
            sql,
            "imodel_users",
            {"imodel_id": imodel_id, "user_id": seeded_id("user", user), "last_access_at": stamp(moment)},
        )


def _repositories(sql: sqlite3.Connection) -> None:
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
        _insert(sql, "repositories", row)
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
        _insert(sql, "repository_resources", resource)


def _briefcase(
    sql: sqlite3.Connection, imodel_id: str, briefcase_id: int, owner: str, model: portfolio.Model, acquired: datetime
) -> None:
    service = owner == "sync"
    row = {
        "imodel_id": imodel_id,
        "briefcase_id": briefcase_id,
        "owner_id": seeded_id("user", owner),
        "acquired_at": stamp(acquired),
        "file_size": imodel_file.SIZE,
        "device_name": None if service else f"{owner.upper()}-WS{briefcase_id:02}",
        "client_id": "service-meridian-design-sync" if service else model.application,
    }
    _insert(sql, "briefcases", row)


def _checkpoint(sql: sqlite3.Connection, model: portfolio.Model, imodel_id: str, index: int, moment: datetime) -> None:
    state = portfolio.CHECKPOINTS.get(model.key, {}).get(index, checkpoints.SUCCESSFUL)
    if state is None:
        return
    done = state == checkpoints.SUCCESSFUL
    changeset_id = _changeset_id(model.key, index) if index else None
    blob_id = None
    if done:
        blob_id = files.imodel(
            sql,
            seeded_id("file", f"checkpoint/{model.key}/{index}"),
            imodel_id,
            seeded_id("itwin", model.itwin),
            stamp(moment),
            changeset=(changeset_id or "", index),
        )
    row = {
        "imodel_id": imodel_id,
        "changeset_index": index,
        "changeset_id": changeset_id,
        "state": state,
        "size": imodel_file.SIZE if done else 0,
        "db_name": checkpoints.database_name(changeset_id),
        "blob_id": blob_id,
    }
    _insert(sql, "checkpoints", row)


def _teamwork(
    sql: sqlite3.Connection,
    model: portfolio.Model,
    imodel_id: str,
    briefcases: Mapping[str, int],
    moments: Sequence[datetime],
) -> None:
    """Groups, extended data and locks: what people and applications leave behind when they work side by side."""
    for number, (creator, description, indexes) in enumerate(portfolio.GROUPS.get(model.key, ())):
        group = {
            "id": seeded_id("group", f"{model.key}/{number}"),
            "imodel_id": imodel_id,
            "description": description,
            "state": "completed",
            "creator_id": seeded_id("user", creator),
            "created_at": stamp(moments[indexes[0]] - timedelta(minutes=4)),
        }
        _insert(sql, "changeset_groups", group)
    for index, value in portfolio.EXTENDED_DATA.get(model.key, {}).items():
        data = base64.b64encode(json.dumps(value).encode()).decode("ascii")
        row: dict[str, Any] = {"imodel_id": imodel_id, "changeset_index": index, "data": data}
        _insert(sql, "changeset_extended_data", row)
    for owner, levels in portfolio.LOCKS.get(model.key, {}).items():
        for level, objects in levels.items():
            for object_id in objects:
                row = {"imodel_id": imodel_id, "object_id": object_id, "level": level}
                _insert(sql, "locks", row | {"briefcase_id": briefcases[owner]})


def _group_id(key: str, index: int) -> str | None:
    for number, (_, _, indexes) in enumerate(portfolio.GROUPS.get(key, ())):
        if index in indexes:
            return seeded_id("group", f"{key}/{number}")
    return None


def _changeset_id(key: str, index: int) -> str:
    return hashlib.sha1(f"{key}/{index}".encode(), usedforsecurity=False).hexdigest()


def _synchronization(key: str, index: int) -> str:
    return json.dumps({"taskId": seeded_id("task", f"{key}/{index}"), "changedFiles": [f"{key}.dgn"]})


def _extent(corners: tuple[float, float, float, float] | None) -> str | None:
    if corners is None:
        return None
    south, west, north, east = corners
    return json.dumps(
        {
            "southWest": {"latitude": south, "longitude": west},
            "northEast": {"latitude": north, "longitude": east},
        }
    )


def _insert(sql: sqlite3.Connection, table: str, row: Mapping[str, Any]) -> None:
    names, slots = ", ".join(row), ", ".join("?" * len(row))
    sql.execute(f"INSERT INTO {table} ({names}) VALUES ({slots})", tuple(row.values()))
