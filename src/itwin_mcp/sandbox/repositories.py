"""Repositories of an iTwin: those that are registered by hand, and those that are there because the iTwin has data."""

from __future__ import annotations

import json
import re
import sqlite3
import uuid
from collections.abc import Mapping
from typing import Any, Final

from itwin_mcp.sandbox import access
from itwin_mcp.sandbox.errors import ApiError, Problems, itwins_problems
from itwin_mcp.sandbox.wire import Answer, Call, Fields, Json, Route, created, no_content, ok

# What may be registered by hand, with its subClasses (create-repository).
REGISTERED: Final[Mapping[str, tuple[str, ...]]] = {
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
# What appears by itself, with the address of the API that holds the data; its id is the lower-case class. The page
# prints only the one of Forms, the others follow the APIs' own bases.
GENERATED: Final[Mapping[str, str]] = {
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
IDS: Final[Mapping[str, str]] = {name.lower(): name for name in GENERATED}
# Only these have a list of resources (get-repository-resources).
WITH_RESOURCES: Final = frozenset(
    {
        "iModels",
        "RealityData",
        "GeospatialFeatures",
        "CesiumCuratedContent",
        "PdfPlansets",
        "GeographicInformationSystem",
    }
)
_CLASSES: Final = {name.lower(): name for name in (*GENERATED, *REGISTERED)}
_ID: Final = re.compile("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_AUTHENTICATIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "Header": ("key", "value"),
    "QueryParameter": ("key", "value"),
    "Basic": ("username", "password"),
    "OAuth2AuthorizationCodePKCE": ("clientId", "scopes", "authorizationEndpoint", "tokenEndpoint", "redirectUri"),
}
_MOST_URI: Final = 2000
_MOST_NAME: Final = 200


def list_all(call: Call) -> Answer:
    """get-repositories-by-itwin-id: the generated ones first, the registered ones in the order of their coming."""
    owner = access.itwin(call, itwin_id(call))
    problems = itwins_problems("Cannot query iTwin Repositories.")
    wanted, sub_class = _wanted(call, problems)
    problems.refuse()
    shown = [
        _render_generated(call, owner["id"], name)
        for name in GENERATED
        if wanted in (None, name) and has_data(call, owner["id"], name)
    ]
    rows = call.sql.execute(
        "SELECT * FROM repositories WHERE itwin_id = ? AND (? IS NULL OR class = ?) AND (? IS NULL OR sub_class = ?) "
        "ORDER BY seq",
        (owner["id"], wanted, wanted, sub_class, sub_class),
    )
    return ok({"repositories": shown + [_render(call, row) for row in rows.fetchall()]})


def get(call: Call) -> Answer:
    """get-repository: a generated one is only there while it has data."""
    itwin_id = access.itwin(call, call.slots["iTwinId"])["id"]
    name = IDS.get(call.slots["repositoryId"].lower())
    if name is not None:
        if not has_data(call, itwin_id, name):
            raise ApiError("iTwinRepositoryNotFound")
        return ok({"repository": _render_generated(call, itwin_id, name)})
    return ok({"repository": _render(call, _registered(call, itwin_id))})


def create(call: Call) -> Answer:
    """create-repository."""
    owner = access.itwin_for(call, call.slots["iTwinId"], access.ITWINS_MODIFY)
    problems = itwins_problems("Cannot add iTwin Repository.")
    fields = call.fields(problems)
    name = fields.choice("class", tuple(REGISTERED), required=True)
    sub_class = fields.choice("subClass", REGISTERED[name]) if name else None
    uri = _uri(fields)
    display_name = fields.text("displayName", blank=False, limit=_MOST_NAME)
    authentication, options = _authentication(fields), _options(fields)
    problems.refuse()
    row = {
        "itwin_id": owner["id"],
        "id": str(uuid.uuid4()),
        "class": name,
        "sub_class": sub_class,
        "uri": uri,
        # Every repository has a name (get-repositories-by-itwin-id), though none has to be given.
        "display_name": display_name or sub_class or name,
        "authentication_json": authentication,
        "options_json": options,
    }
    _check_unique(call, row)
    names, slots = ", ".join(row), ", ".join("?" * len(row))
    call.sql.execute(f"INSERT INTO repositories ({names}) VALUES ({slots})", tuple(row.values()))
    return created({"repository": _render(call, _by_id(call, owner["id"], row["id"]))})


def update(call: Call) -> Answer:
    """update-itwin-repository: options and authentication are replaced whole, or removed by null."""
    itwin_id = access.itwin_for(call, call.slots["iTwinId"], access.ITWINS_MODIFY)["id"]
    problems = itwins_problems("Cannot update iTwin Repository.")
    row = _registered(call, itwin_id, problems)
    fields = call.fields(problems)
    for name, column in (("id", "id"), ("class", "class"), ("subClass", "sub_class")):
        if name in fields and fields.values[name] != row[column]:
            problems.add("InvalidChange", f"Property '{name}' cannot be changed.", name)
    changes: dict[str, Any] = {}
    if "uri" in fields:
        changes["uri"] = _uri(fields)
    if "displayName" in fields:
        changes["display_name"] = fields.text("displayName", required=True, limit=_MOST_NAME)
    if "authentication" in fields:
        changes["authentication_json"] = _authentication(fields)
    if "options" in fields:
        changes["options_json"] = _options(fields)
    problems.refuse()
    _check_unique(call, dict(row) | changes)
    if changes:
        columns = ", ".join(f"{column} = ?" for column in changes)
        statement = f"UPDATE repositories SET {columns} WHERE itwin_id = ? AND id = ?"
        call.sql.execute(statement, (*changes.values(), itwin_id, row["id"]))
    return ok({"repository": _render(call, _by_id(call, itwin_id, row["id"]))})


def delete(call: Call) -> Answer:
    """delete-repository: with its resources; a generated one cannot be deleted."""
    itwin_id = access.itwin_for(call, call.slots["iTwinId"], access.ITWINS_MODIFY)["id"]
    row = _registered(call, itwin_id, itwins_problems("Cannot delete iTwin Repository."))
    for table, column in (("repository_resources", "repository_id"), ("repositories", "id")):
        call.sql.execute(f"DELETE FROM {table} WHERE itwin_id = ? AND {column} = ?", (itwin_id, row["id"]))
    return no_content()


def has_data(call: Call, itwin_id: str, name: str) -> bool:
    """Whether a generated repository is there. Every iTwin has Cesium's content (integration test of a new iTwin)."""
    if name == "CesiumCuratedContent":
        return True
    if name == "iModels":
        return call.one("SELECT 1 FROM imodels WHERE itwin_id = ? LIMIT 1", itwin_id) is not None
    statement = "SELECT 1 FROM repository_resources WHERE itwin_id = ? AND repository_id = ? LIMIT 1"
    return call.one(statement, itwin_id, name.lower()) is not None


def find(call: Call, itwin_id: str) -> tuple[str, str, sqlite3.Row | None]:
    """The repository in the path: its id, its class, and its row if it was registered by hand."""
    name = IDS.get(call.slots["repositoryId"].lower())
    if name is None:
        row = _by_id(call, itwin_id, call.slots["repositoryId"].lower())
        return row["id"], row["class"], row
    if not has_data(call, itwin_id, name):
        raise ApiError("iTwinRepositoryNotFound")
    return name.lower(), name, None


def itwin_id(call: Call) -> str:
    """Return the id of the iTwin in the path. Lists and graphics refuse a malformed one with 422 (their definition)."""
    given = call.slots["iTwinId"]
    if not _ID.fullmatch(given):
        problems = itwins_problems("Cannot query iTwin Repositories.")
        problems.add("InvalidValue", "iTwinId contains an invalid value.", "iTwinId")
        problems.refuse()
    return given


def _registered(call: Call, itwin_id: str, problems: Problems | None = None) -> sqlite3.Row:
    """The registered repository in the path; with `problems` to tell that a generated one cannot be changed."""
    repository_id = call.slots["repositoryId"].lower()
    name = IDS.get(repository_id)
    if name is not None and problems is not None and has_data(call, itwin_id, name):
        problems.add("InvalidChange", "An automatically generated repository cannot be changed.", "repositoryId")
        problems.refuse()
    return _by_id(call, itwin_id, repository_id)


def _by_id(call: Call, itwin_id: str, repository_id: Any) -> sqlite3.Row:
    row = call.one("SELECT * FROM repositories WHERE itwin_id = ? AND id = ?", itwin_id, repository_id)
    if row is None:
        raise ApiError("iTwinRepositoryNotFound")
    return row


def _wanted(call: Call, problems: Problems) -> tuple[str | None, str | None]:
    """The class and subClass of the query; a subClass needs its class, and must be one of it."""
    class_text, sub_text = call.query.get("class"), call.query.get("subClass")
    name = _CLASSES.get((class_text or "").lower())
    if class_text is not None and name is None:
        problems.add("InvalidValue", "A valid Repository class was not specified in the query.", "class")
    if sub_text is None:
        return name, None
    if class_text is None:
        problems.add("MissingRequiredParameter", "The subClass parameter requires the class parameter.", "class")
    known = {one.lower(): one for one in REGISTERED.get(name or "", ())}
    sub_class = known.get(sub_text.lower())
    if name is not None and sub_class is None:
        problems.add("InvalidValue", f"The subClass is not valid for a Repository of class {name}.", "subClass")
    return name, sub_class


def _uri(fields: Fields) -> str | None:
    text = fields.values.get("uri")
    if text is None or text == "":
        fields.problems.missing("uri")  # an empty one counts as none (integration test)
        return None
    uri = fields.text("uri", limit=_MOST_URI)
    if uri is not None and not uri.lower().startswith(("http://", "https://")):
        fields.problems.invalid("uri", "The value must be an absolute http or https address.")
    return uri


def _authentication(fields: Fields) -> str | None:
    given = fields.object("authentication")
    if given is None:
        return None
    kind = given.choice("type", tuple(_AUTHENTICATIONS), required=True)
    names = _AUTHENTICATIONS[kind] if kind else ()
    values = {name: given.text(name, required=True, limit=4096) for name in names}
    return json.dumps({"type": kind} | values)


def _options(fields: Fields) -> str | None:
    given = fields.object("options")
    if given is None:
        return None
    levels = {"minimumLevel", "maximumLevel"}
    names = set(given.values)
    if not (names - levels <= {"queryParameters"} and names and names & levels in (set(), levels)):
        why = "Give queryParameters, minimumLevel together with maximumLevel, or all three."
        fields.problems.invalid("options", why)
    parameters = given.object("queryParameters")
    for name, value in parameters.values.items() if parameters else ():
        if not isinstance(value, str):
            fields.problems.invalid("options", f"Query parameter '{name}' must be a string.")
    low, high = given.integer("minimumLevel", 0, 30), given.integer("maximumLevel", 0, 30)
    if low is not None and high is not None and low > high:
        fields.problems.invalid("options", "The minimumLevel must not exceed the maximumLevel.")
    return json.dumps(given.values)


def _check_unique(call: Call, row: Mapping[str, Any]) -> None:
    """Class, subClass and uri together tell repositories apart (assumed, reference 11.8)."""
    taken = call.one(
        "SELECT 1 FROM repositories WHERE itwin_id = ? AND class = ? AND sub_class IS ? AND uri = ? AND id <> ?",
        row["itwin_id"],
        row["class"],
        row["sub_class"],
        row["uri"],
        row["id"],
    )
    if taken:
        raise ApiError("iTwinRepositoryExists")


def _render(call: Call, row: sqlite3.Row) -> Json:
    """A registered repository; what it does not have is left out, as in the page's examples."""
    body: Json = {
        "id": row["id"],
        "class": row["class"],
        "subClass": row["sub_class"],
        "displayName": row["display_name"],
        "uri": row["uri"],
        "authentication": json.loads(row["authentication_json"] or "null"),
        "options": json.loads(row["options_json"] or "null"),
        "capabilities": _capabilities(call, row["itwin_id"], row["id"], row["class"]),
    }
    return {name: value for name, value in body.items() if value is not None}


def _render_generated(call: Call, itwin_id: str, name: str) -> Json:
    body: Json = {
        "id": name.lower(),
        "class": name,
        "displayName": name,
        "uri": call.base_url + GENERATED[name].format(itwin_id),
        "capabilities": _capabilities(call, itwin_id, name.lower(), name),
    }
    return {name: value for name, value in body.items() if value is not None}


def _capabilities(call: Call, itwin_id: str, repository_id: str, name: str) -> Json | None:
    if name not in WITH_RESOURCES:
        return None
    return {"resources": {"uri": f"{call.base_url}/itwins/{itwin_id}/repositories/{repository_id}/resources"}}


_ONE: Final = "/itwins/{iTwinId}/repositories/{repositoryId}"

ROUTES: Final = (
    Route("GET", "/itwins/{iTwinId}/repositories", list_all, slug="get-repositories-by-itwin-id"),
    Route("POST", "/itwins/{iTwinId}/repositories", create, slug="create-repository"),
    Route("GET", _ONE, get, slug="get-repository"),
    Route("PATCH", _ONE, update, slug="update-itwin-repository"),
    Route("DELETE", _ONE, delete, slug="delete-repository"),
)
