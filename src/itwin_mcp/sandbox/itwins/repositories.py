"""Repositories of an iTwin: those that users register, and those generated from the iTwin's data."""

from __future__ import annotations

import json
import re
import sqlite3
import uuid
from collections.abc import Mapping
from typing import Any, Final

from itwin_mcp.sandbox import access
from itwin_mcp.sandbox.errors import ApiError, Problems, make_itwins_problems
from itwin_mcp.sandbox.store import insert_row
from itwin_mcp.sandbox.wire import Answer, Call, Fields, Json, created, no_content, ok

# The classes that users can register, with their subclasses (create-repository).
REGISTERED_CLASSES: Final[Mapping[str, tuple[str, ...]]] = {
    "GeographicInformationSystem": (
        "WebMapService",
        "WebMapTileService",
        "WebFeatureService",
        "ArcGIS",
        "UrlTemplate",
        "OgcApiFeatures",
    ),
    "Construction": ("Performance",),
    "Subsurface": ("EvoWorkspace",),
}
# Generated classes, with the address of the API that has the data. Their id is the class in lower case. The page
# shows only the address of Forms; the others are derived from the base paths of their APIs.
GENERATED_CLASSES: Final[Mapping[str, str]] = {
    "iModels": "/imodels?iTwinId={}",
    "RealityData": "/reality-management/reality-data?iTwinId={}",
    "Storage": "/storage?iTwinId={}",
    "Forms": "/forms?projectId={}",
    "GeospatialFeatures": "/geospatial-features/itwins/{}/ogc/collections",
    "CesiumCuratedContent": "/curated-content/cesium",
    "SensorData": "/sensor-data/integrations?iTwinId={}",
    "PdfPlansets": "/pdf-plansets?iTwinId={}",
    "IndexedMedia": "/indexed-media?iTwinId={}",
}
GENERATED_IDS: Final[Mapping[str, str]] = {name.lower(): name for name in GENERATED_CLASSES}
# Only these classes have resources (get-repository-resources).
CLASSES_WITH_RESOURCES: Final = frozenset(
    {
        "iModels",
        "RealityData",
        "GeospatialFeatures",
        "CesiumCuratedContent",
        "PdfPlansets",
        "GeographicInformationSystem",
    }
)
_CLASSES: Final = {name.lower(): name for name in (*GENERATED_CLASSES, *REGISTERED_CLASSES)}
_ITWIN_ID: Final = re.compile("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_AUTHENTICATIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "Header": ("key", "value"),
    "QueryParameter": ("key", "value"),
    "Basic": ("username", "password"),
    "OAuth2AuthorizationCodePKCE": ("clientId", "scopes", "authorizationEndpoint", "tokenEndpoint", "redirectUri"),
}
_MAX_URI: Final = 2000
_MAX_NAME: Final = 200


def list_repositories(call: Call) -> Answer:
    """List the generated repositories, then the registered ones in the order of registration."""
    itwin = access.find_itwin(call, read_itwin_id(call))
    problems = make_itwins_problems("Cannot query iTwin Repositories.")
    class_name, sub_class = _read_class_filter(call, problems)
    problems.raise_if_any()
    repositories = [
        _render_generated(call, itwin["id"], name)
        for name in GENERATED_CLASSES
        if class_name in (None, name) and has_data(call, itwin["id"], name)
    ]
    rows = call.sql.execute(
        "SELECT * FROM repositories WHERE itwin_id = ? AND (? IS NULL OR class = ?) AND (? IS NULL OR sub_class = ?) "
        "ORDER BY seq",
        (itwin["id"], class_name, class_name, sub_class, sub_class),
    )
    return ok({"repositories": repositories + [_render_registered(call, row) for row in rows.fetchall()]})


def get_repository(call: Call) -> Answer:
    """Return a repository. A generated one exists only while the iTwin has data for it."""
    itwin_id = access.find_itwin(call, call.slots["iTwinId"])["id"]
    _, name, row = find_repository(call, itwin_id)
    if row is None:
        return ok({"repository": _render_generated(call, itwin_id, name)})
    return ok({"repository": _render_registered(call, row)})


def create_repository(call: Call) -> Answer:
    itwin = access.require_itwin(call, call.slots["iTwinId"], access.ITWINS_MODIFY)
    problems = make_itwins_problems("Cannot add iTwin Repository.")
    fields = call.read_fields(problems)
    class_name = fields.get_choice("class", tuple(REGISTERED_CLASSES), required=True)
    sub_class = fields.get_choice("subClass", REGISTERED_CLASSES[class_name]) if class_name else None
    uri = _read_uri(fields)
    display_name = fields.get_text("displayName", blank=False, limit=_MAX_NAME)
    authentication, options = _read_authentication(fields), _read_options(fields)
    problems.raise_if_any()
    repository_id = str(uuid.uuid4())
    row = {
        "itwin_id": itwin["id"],
        "id": repository_id,
        "class": class_name,
        "sub_class": sub_class,
        "uri": uri,
        # Every repository has a name (get-repositories-by-itwin-id), but the request may omit it.
        "display_name": display_name or sub_class or class_name,
        "authentication_json": authentication,
        "options_json": options,
    }
    _check_unique(call, row)
    insert_row(call.sql, "repositories", row)
    return created({"repository": _render_registered(call, _find_by_id(call, itwin["id"], repository_id))})


def update_repository(call: Call) -> Answer:
    """Change a registered repository. `options` and `authentication` are replaced as a whole, or removed by null."""
    itwin_id = access.require_itwin(call, call.slots["iTwinId"], access.ITWINS_MODIFY)["id"]
    problems = make_itwins_problems("Cannot update iTwin Repository.")
    row = _find_registered(call, itwin_id, problems)
    fields = call.read_fields(problems)
    for name, column in (("id", "id"), ("class", "class"), ("subClass", "sub_class")):
        if name in fields and fields.values[name] != row[column]:
            problems.add("InvalidChange", f"Property '{name}' cannot be changed.", name)
    changes: dict[str, Any] = {}
    if "uri" in fields:
        changes["uri"] = _read_uri(fields)
    if "displayName" in fields:
        changes["display_name"] = fields.get_text("displayName", required=True, limit=_MAX_NAME)
    if "authentication" in fields:
        changes["authentication_json"] = _read_authentication(fields)
    if "options" in fields:
        changes["options_json"] = _read_options(fields)
    problems.raise_if_any()
    _check_unique(call, dict(row) | changes)
    if changes:
        columns = ", ".join(f"{column} = ?" for column in changes)
        statement = f"UPDATE repositories SET {columns} WHERE itwin_id = ? AND id = ?"
        call.sql.execute(statement, (*changes.values(), itwin_id, row["id"]))
    return ok({"repository": _render_registered(call, _find_by_id(call, itwin_id, row["id"]))})


def delete_repository(call: Call) -> Answer:
    """Delete a registered repository and its resources. Generated ones cannot be deleted."""
    itwin_id = access.require_itwin(call, call.slots["iTwinId"], access.ITWINS_MODIFY)["id"]
    row = _find_registered(call, itwin_id, make_itwins_problems("Cannot delete iTwin Repository."))
    for table, column in (("repository_resources", "repository_id"), ("repositories", "id")):
        call.sql.execute(f"DELETE FROM {table} WHERE itwin_id = ? AND {column} = ?", (itwin_id, row["id"]))
    return no_content()


def has_data(call: Call, itwin_id: str, name: str) -> bool:
    """Return whether the generated repository of class `name` exists.

    Cesium's exists in every iTwin (Bentley's integration test), the others while the iTwin has data for them.
    """
    if name == "CesiumCuratedContent":
        return True
    if name == "iModels":
        return call.fetch_one("SELECT 1 FROM imodels WHERE itwin_id = ? LIMIT 1", itwin_id) is not None
    statement = "SELECT 1 FROM repository_resources WHERE itwin_id = ? AND repository_id = ? LIMIT 1"
    return call.fetch_one(statement, itwin_id, name.lower()) is not None


def find_repository(call: Call, itwin_id: str) -> tuple[str, str, sqlite3.Row | None]:
    """Return the id and class of the repository in the path, and its row if it is a registered one.

    Raises:
        ApiError: `iTwinRepositoryNotFound`.
    """
    name = GENERATED_IDS.get(call.slots["repositoryId"].lower())
    if name is None:
        row = _find_by_id(call, itwin_id, call.slots["repositoryId"].lower())
        return row["id"], row["class"], row
    if not has_data(call, itwin_id, name):
        raise ApiError("iTwinRepositoryNotFound")
    return name.lower(), name, None


def read_itwin_id(call: Call) -> str:
    """Return the id of the iTwin in the path. Lists and graphics reject a malformed id with 422 (their definition)."""
    itwin_id = call.slots["iTwinId"]
    if not _ITWIN_ID.fullmatch(itwin_id):
        problems = make_itwins_problems("Cannot query iTwin Repositories.")
        problems.fail("InvalidValue", "iTwinId contains an invalid value.", "iTwinId")
    return itwin_id


def _find_registered(call: Call, itwin_id: str, problems: Problems) -> sqlite3.Row:
    """Return the registered repository in the path, in order to change it.

    Raises:
        ApiError: `iTwinRepositoryNotFound`, or the detail `InvalidChange` for a generated repository.
    """
    _, _, row = find_repository(call, itwin_id)
    if row is None:
        problems.fail("InvalidChange", "An automatically generated repository cannot be changed.", "repositoryId")
    return row


def _find_by_id(call: Call, itwin_id: str, repository_id: str) -> sqlite3.Row:
    statement = "SELECT * FROM repositories WHERE itwin_id = ? AND id = ?"
    return call.require_one("iTwinRepositoryNotFound", statement, itwin_id, repository_id)


def _read_class_filter(call: Call, problems: Problems) -> tuple[str | None, str | None]:
    """Return class and subclass from the query. A subclass needs the class that it belongs to."""
    class_text, sub_text = call.query.get("class"), call.query.get("subClass")
    name = _CLASSES.get((class_text or "").lower())
    if class_text is not None and name is None:
        problems.add("InvalidValue", "A valid Repository class was not specified in the query.", "class")
    if sub_text is None:
        return name, None
    if class_text is None:
        problems.add("MissingRequiredParameter", "The subClass parameter requires the class parameter.", "class")
    sub_classes = REGISTERED_CLASSES.get(name or "", ())
    sub_class = next((item for item in sub_classes if item.lower() == sub_text.lower()), None)
    if name is not None and sub_class is None:
        problems.add("InvalidValue", f"The subClass is not valid for a Repository of class {name}.", "subClass")
    return name, sub_class


def _read_uri(fields: Fields) -> str | None:
    text = fields.values.get("uri")
    if text is None or text == "":
        fields.problems.add_missing("uri")  # an empty one counts as missing (Bentley's integration test)
        return None
    uri = fields.get_text("uri", limit=_MAX_URI)
    if uri is not None and not uri.lower().startswith(("http://", "https://")):
        fields.problems.add_invalid("uri", "The value must be an absolute http or https address.")
    return uri


def _read_authentication(fields: Fields) -> str | None:
    authentication = fields.get_object("authentication")
    if authentication is None:
        return None
    kind = authentication.get_choice("type", tuple(_AUTHENTICATIONS), required=True)
    names = _AUTHENTICATIONS[kind] if kind else ()
    values = {name: authentication.get_text(name, required=True, limit=4096) for name in names}
    return json.dumps({"type": kind} | values)


def _read_options(fields: Fields) -> str | None:
    options = fields.get_object("options")
    if options is None:
        return None
    levels = {"minimumLevel", "maximumLevel"}
    names = set(options.values)
    if not (names - levels <= {"queryParameters"} and names and names & levels in (set(), levels)):
        why = "Give queryParameters, minimumLevel together with maximumLevel, or all three."
        fields.problems.add_invalid("options", why)
    parameters = options.get_object("queryParameters")
    for name, value in parameters.values.items() if parameters else ():
        if not isinstance(value, str):
            fields.problems.add_invalid("options", f"Query parameter '{name}' must be a string.")
    minimum, maximum = options.get_integer("minimumLevel", 0, 30), options.get_integer("maximumLevel", 0, 30)
    if minimum is not None and maximum is not None and minimum > maximum:
        fields.problems.add_invalid("options", "The minimumLevel must not exceed the maximumLevel.")
    return json.dumps(options.values)


def _check_unique(call: Call, row: Mapping[str, Any]) -> None:
    """Check that no other repository has the same class, subclass and URI (assumed, reference section 11, item 8)."""
    duplicate = call.fetch_one(
        "SELECT 1 FROM repositories WHERE itwin_id = ? AND class = ? AND sub_class IS ? AND uri = ? AND id <> ?",
        row["itwin_id"],
        row["class"],
        row["sub_class"],
        row["uri"],
        row["id"],
    )
    if duplicate:
        raise ApiError("iTwinRepositoryExists")


def _render_registered(call: Call, row: sqlite3.Row) -> Json:
    """Render a registered repository without absent members, like the examples of the page."""
    body: Json = {
        "id": row["id"],
        "class": row["class"],
        "subClass": row["sub_class"],
        "displayName": row["display_name"],
        "uri": row["uri"],
        "authentication": json.loads(row["authentication_json"] or "null"),
        "options": json.loads(row["options_json"] or "null"),
        **_render_capabilities(call, row["itwin_id"], row["id"], row["class"]),
    }
    return {name: value for name, value in body.items() if value is not None}


def _render_generated(call: Call, itwin_id: str, name: str) -> Json:
    return {
        "id": name.lower(),
        "class": name,
        "displayName": name,
        "uri": call.base_url + GENERATED_CLASSES[name].format(itwin_id),
        **_render_capabilities(call, itwin_id, name.lower(), name),
    }


def _render_capabilities(call: Call, itwin_id: str, repository_id: str, name: str) -> Json:
    """Render the member `capabilities`, which only repositories with resources have."""
    if name not in CLASSES_WITH_RESOURCES:
        return {}
    uri = f"{call.base_url}/itwins/{itwin_id}/repositories/{repository_id}/resources"
    return {"capabilities": {"resources": {"uri": uri}}}
