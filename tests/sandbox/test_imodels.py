"""iModels: creation, update, deletion, changesets, named versions and users."""

from collections.abc import Callable

import httpx2
import pytest

from itwin_mcp.sandbox.seed import seeded_id
from tests.sandbox.conftest import Clock

pytestmark = pytest.mark.anyio
Connect = Callable[[str | None], httpx2.AsyncClient]
ITWIN = seeded_id("itwin", "interchange")
ROADS = seeded_id("imodel", "roads")
SURVEY = seeded_id("imodel", "survey")
WHOLE = {"Prefer": "return=representation"}


async def create_imodel(http: httpx2.AsyncClient, **body: object) -> httpx2.Response:
    return await http.post("/imodels", json={"iTwinId": ITWIN, "name": "Quay"} | body)


async def get_states(http: httpx2.AsyncClient, imodel_id: str) -> tuple[str, str]:
    operation = (await http.get(f"/imodels/{imodel_id}/operations/create")).json()["createOperation"]
    return (await http.get(f"/imodels/{imodel_id}")).json()["iModel"]["state"], operation["state"]


async def test_imodel_list_requires_itwin_id_and_honours_prefer(http: httpx2.AsyncClient) -> None:
    missing = (await http.get("/imodels")).json()["error"]
    assert [(detail["code"], detail["target"]) for detail in missing["details"]] == [
        ("MissingRequiredParameter", "iTwinId")
    ]
    minimal = (await http.get(f"/imodels?iTwinId={ITWIN}")).json()["iModels"]
    assert [set(item) for item in minimal] == [{"id", "displayName"}] * 2
    whole = (await http.get(f"/imodels?iTwinId={ITWIN}&$orderBy=name desc", headers=WHOLE)).json()["iModels"]
    assert [item["name"] for item in whole] == ["A12 Interchange - Structures", "A12 Interchange - Roads"]
    assert {"lastChangesetPushDateTime", "extent", "containersEnabled", "isSecured", "_links"} <= set(whole[0])


async def test_imodel_list_filters_by_name_search_and_state(http: httpx2.AsyncClient) -> None:
    for query, count in (("$search=viaduct", 1), ("name=A12 Interchange - Roads", 1), ("state=notInitialized", 0)):
        assert len((await http.get(f"/imodels?iTwinId={ITWIN}&{query}")).json()["iModels"]) == count


async def test_create_imodel_without_mode_initializes_at_once(http: httpx2.AsyncClient) -> None:
    answer = await create_imodel(http)
    imodel = answer.json()["iModel"]
    assert (answer.status_code, imodel["state"], imodel["description"]) == (201, "initialized", None)
    assert await get_states(http, imodel["id"]) == ("initialized", "successful")


async def test_create_imodel_with_mode_empty_takes_time(http: httpx2.AsyncClient, clock: Clock) -> None:
    imodel = (await create_imodel(http, creationMode="empty")).json()["iModel"]
    assert await get_states(http, imodel["id"]) == ("notInitialized", "scheduled")
    clock.forward(10)
    assert await get_states(http, imodel["id"]) == ("initialized", "successful")


async def test_imodel_name_is_unique_in_its_itwin(http: httpx2.AsyncClient) -> None:
    await create_imodel(http)
    again = await create_imodel(http)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "iModelExists")
    assert (await create_imodel(http, iTwinId=seeded_id("itwin", "deck"))).status_code == 201


async def test_create_imodel_reports_errors_with_the_platforms_messages(http: httpx2.AsyncClient) -> None:
    corner = {"latitude": 91, "longitude": 0}
    extent = {"southWest": corner, "northEast": corner}
    answer = await http.post("/imodels", json={"iTwinId": ITWIN, "description": "x" * 256, "extent": extent})
    assert answer.json()["error"]["details"] == [
        {"code": "MissingRequiredProperty", "message": "Required property is missing.", "target": "name"},
        {
            "code": "InvalidValue",
            "message": "Provided 'description' value is not valid. The value exceeds allowed 255 characters.",
            "target": "description",
        },
        {
            "code": "InvalidValue",
            "message": "Provided 'extent' value is not valid. Valid 'latitude' value range is -90 to 90.",
            "target": "extent",
        },
    ]


async def test_clone_is_initialized_before_its_operation_succeeds(http: httpx2.AsyncClient, clock: Clock) -> None:
    answer = await http.post(f"/imodels/{ROADS}/clone", json={"iTwinId": ITWIN, "name": "Copy", "changesetIndex": 4})
    assert (answer.status_code, answer.content) == (202, b"")
    location = answer.headers["location"]
    assert answer.headers["create-imodel-operation"] == f"{location}/operations/create"
    imodel_id = location.rsplit("/", 1)[1]
    states = []
    for _ in range(3):
        states.append(await get_states(http, imodel_id))
        clock.forward(5)
    assert states == [("notInitialized", "scheduled"), ("initialized", "scheduled"), ("initialized", "successful")]
    changesets = (await http.get(f"/imodels/{imodel_id}/changesets")).json()["changesets"]
    source = (await http.get(f"/imodels/{ROADS}/changesets?$top=4")).json()["changesets"]
    assert [changeset["id"] for changeset in changesets] == [changeset["id"] for changeset in source]
    operation = (await http.get(f"{location}/operations/create")).json()["createOperation"]
    assert operation["clonedFrom"] == {"iModelId": ROADS, "changesetId": changesets[3]["id"]}
    assert operation["forkedFrom"] is None


async def test_fork_squashes_history_without_preserve_history(http: httpx2.AsyncClient, clock: Clock) -> None:
    counts = {}
    for preserve in (False, True):
        body = {"iTwinId": ITWIN, "name": f"Fork {preserve}", "preserveHistory": preserve}
        location = (await http.post(f"/imodels/{ROADS}/fork", json=body)).headers["location"]
        clock.forward(10)
        operation = (await http.get(f"{location}/operations/create")).json()["createOperation"]
        assert set(operation["forkedFrom"]) == {"iModelId", "changesetId", "relationshipId"}
        counts[preserve] = len((await http.get(f"{location}/changesets")).json()["changesets"])
    assert counts == {False: 0, True: 12}


async def test_imodel_without_federation_guids_cannot_be_forked(http: httpx2.AsyncClient, clock: Clock) -> None:
    body = {"iTwinId": ITWIN, "name": "Fork"}
    location = (await http.post(f"/imodels/{SURVEY}/fork", json=body)).headers["location"]
    clock.forward(10)
    assert await get_states(http, location.rsplit("/", 1)[1]) == (
        "notInitialized",
        "mainIModelIsMissingFederationGuids",
    )


async def test_clone_without_name_conflicts_with_its_source(http: httpx2.AsyncClient) -> None:
    answer = await http.post(f"/imodels/{ROADS}/clone", json={"iTwinId": ITWIN})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "iModelExists")


async def test_update_imodel_requires_at_least_one_property(http: httpx2.AsyncClient) -> None:
    assert (await http.patch(f"/imodels/{ROADS}", json={"other": 1})).status_code == 422
    answer = await http.patch(f"/imodels/{ROADS}", json={"description": None})
    assert (answer.status_code, answer.json()["iModel"]["description"]) == (200, None)


async def test_delete_imodel_requires_imodels_delete_on_the_itwin(http_as: Connect) -> None:
    assert (await http_as("service-meridian-design-sync").delete(f"/imodels/{ROADS}")).status_code == 403
    assert (await http_as("luca").delete(f"/imodels/{ROADS}")).status_code == 404
    assert (await http_as("tomasz").delete(f"/imodels/{ROADS}")).status_code == 204


@pytest.mark.parametrize(
    ("user", "permissions"),
    [
        ("anna", ["imodels_webview", "imodels_read", "imodels_write", "imodels_manage"]),
        ("priya", ["imodels_webview"]),
    ],
)
async def test_imodel_permissions_are_those_of_the_caller(http_as: Connect, user: str, permissions: list[str]) -> None:
    assert (await http_as(user).get(f"/imodels/{ROADS}/permissions")).json() == {"permissions": permissions}


async def test_changesets_are_read_by_index_or_id_and_form_a_chain(http: httpx2.AsyncClient) -> None:
    path = f"/imodels/{ROADS}/changesets"
    changesets = (await http.get(f"{path}?afterIndex=2&lastIndex=5")).json()["changesets"]
    assert [changeset["index"] for changeset in changesets] == [3, 4, 5]
    assert changesets[1]["parentId"] == changesets[0]["id"]
    by_index = (await http.get(f"{path}/3")).json()["changeset"]
    by_id = (await http.get(f"{path}/{changesets[0]['id']}")).json()["changeset"]
    assert by_index["_links"].pop("download") != by_id["_links"].pop("download")
    assert by_index == by_id
    assert by_index["_links"]["namedVersion"]["href"].startswith("https://api.bentley.com/imodels/")
    newest = (await http.get(f"{path}?$orderBy=index desc&$top=1")).json()["changesets"]
    assert newest[0]["index"] == 12
    for missing in ("0", "13", "9" * 39, "no"):
        assert (await http.get(f"{path}/{missing}")).json()["error"]["code"] == "ChangesetNotFound"


async def test_empty_continuation_token_starts_paging_by_token(http: httpx2.AsyncClient) -> None:
    indexes: list[int] = []
    url: str | None = f"/imodels/{ROADS}/changesets?$top=5&$continuationToken="
    while url:
        page = (await http.get(url)).json()
        indexes += [changeset["index"] for changeset in page["changesets"]]
        url = page["_links"]["next"] and page["_links"]["next"]["href"]
        assert url is None or ("$continuationToken=" in url and "$skip" not in url)
    assert indexes == list(range(1, 13))
    assert (await http.get(f"/imodels/{ROADS}/changesets?$continuationToken=zzz")).status_code == 422


async def test_create_named_version_on_a_changeset_or_the_baseline(http: httpx2.AsyncClient) -> None:
    path = f"/imodels/{ROADS}/namedversions"
    changeset = (await http.get(f"/imodels/{ROADS}/changesets/5")).json()["changeset"]
    answer = await http.post(path, json={"name": "Gate 3", "changesetId": changeset["id"]})
    version = answer.json()["namedVersion"]
    assert (answer.status_code, version["changesetIndex"], version["state"]) == (201, 5, "visible")
    assert version["application"] == {"id": "native-itwin-sandbox", "name": "iTwin Sandbox"}
    baseline = (await http.post(path, json={"name": "Start"})).json()["namedVersion"]
    assert (baseline["changesetId"], baseline["changesetIndex"]) == (None, 0)
    assert baseline["_links"]["changeset"] is None


async def test_named_version_is_unique_by_name_and_by_changeset(http: httpx2.AsyncClient) -> None:
    path = f"/imodels/{ROADS}/namedversions"
    by_name = await http.post(path, json={"name": "30% Design"})
    assert (by_name.status_code, by_name.json()["error"]["code"]) == (409, "NamedVersionExists")
    changeset = (await http.get(f"/imodels/{ROADS}/changesets/3")).json()["changeset"]
    by_changeset = await http.post(path, json={"name": "Other", "changesetId": changeset["id"]})
    assert by_changeset.json()["error"]["code"] == "NamedVersionOnChangesetExists"
    unknown = await http.post(path, json={"name": "Other", "changesetId": "0" * 40})
    assert unknown.json()["error"]["code"] == "ChangesetNotFound"


async def test_update_named_version_renames_and_hides(http: httpx2.AsyncClient) -> None:
    path = f"/imodels/{ROADS}/namedversions"
    version = (await http.get(f"{path}?name=60% Design")).json()["namedVersions"][0]
    answer = await http.patch(f"{path}/{version['id']}", json={"name": "DO", "state": "hidden"})
    assert (answer.status_code, answer.json()["namedVersion"]["displayName"]) == (200, "DO")
    assert [version["displayName"] for version in (await http.get(f"{path}?state=hidden")).json()["namedVersions"]] == [
        "DO"
    ]
    assert (await http.patch(f"{path}/{version['id']}", json={"name": "30% Design"})).status_code == 409
    answer = await http.patch(f"{path}/{version['id']}", json={"name": "IFC"})
    assert answer.json()["namedVersion"]["state"] == "visible", "an update without a state makes it visible again"
    assert (await http.patch(f"{path}/{version['id']}", json={})).status_code == 422


async def test_create_named_version_is_refused_to_viewers(http_as: Connect) -> None:
    answer = await http_as("priya").post(f"/imodels/{ROADS}/namedversions", json={"name": "x"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "InsufficientPermissions")


async def test_imodel_users_are_listed_with_their_statistics(http: httpx2.AsyncClient, http_as: Connect) -> None:
    users = (await http.get(f"/imodels/{ROADS}/users?$orderBy=surname desc", headers=WHOLE)).json()["users"]
    # The order ignores case, as the tests of Bentley's client expect.
    assert [user["surname"] for user in users] == ["Sync", "Nowak", "de Vries"]
    assert users[1]["statistics"]["pushedChangesetsCount"] == 8
    assert users[1]["statistics"]["createdVersionsCount"] == 3
    missing = await http.get(f"/imodels/{ROADS}/users/{seeded_id('user', 'priya')}")
    assert missing.json()["error"]["code"] == "UserNotFound"
    minimal = (await http.get(f"/imodels/{ROADS}/users")).json()["users"][0]
    assert set(minimal) == {"id", "displayName", "_links"}
