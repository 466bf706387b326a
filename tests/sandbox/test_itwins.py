"""iTwins: creation, update, deletion and lists."""

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from itwin_mcp.sandbox.seed import seeded_id

pytestmark = pytest.mark.anyio
Connect = Callable[[str | None], httpx2.AsyncClient]
ITWIN = seeded_id("itwin", "interchange")
ACCOUNT = seeded_id("itwin", "meridian")
PROJECT = {"class": "Endeavor", "subClass": "Project", "displayName": "New Quay Wall"}


def read_details(answer: httpx2.Response) -> list[tuple[str, str | None]]:
    return [(detail["code"], detail.get("target")) for detail in answer.json()["error"]["details"]]


async def list_numbers(http: httpx2.AsyncClient, query: str, **headers: str) -> list[str]:
    answer = await http.get(f"/itwins?{query}", headers=headers)
    assert answer.status_code == 200, answer.text
    return [itwin["number"] for itwin in answer.json()["iTwins"]]


async def test_get_itwin_returns_all_fields_and_shows_nulls(http: httpx2.AsyncClient) -> None:
    itwin = (await http.get(f"/itwins/{ITWIN.upper()}")).json()["iTwin"]
    assert len(itwin) == 20
    assert (itwin["number"], itwin["lastModifiedBy"] is not None) == ("NL-A12-0042", True)
    plain = (await http.get(f"/itwins/{seeded_id('itwin', 'drainage')}")).json()["iTwin"]
    assert (plain["imageName"], plain["image"]) == (None, None)
    assert itwin["createdDateTime"].endswith("0Z")
    assert len(itwin["createdDateTime"]) == 28


async def test_create_itwin_defaults_parent_to_account_and_number_to_id(http: httpx2.AsyncClient) -> None:
    answer = await http.post("/itwins", json=PROJECT)
    assert answer.status_code == 201
    itwin = answer.json()["iTwin"]
    assert itwin["number"] == itwin["id"]
    assert itwin["parentId"] == itwin["iTwinAccountId"] == ACCOUNT
    assert (itwin["status"], itwin["dataCenterLocation"], itwin["type"]) == ("Active", "East US", None)


async def test_create_itwin_reports_all_errors_at_once(http: httpx2.AsyncClient) -> None:
    answer = await http.post("/itwins", json={"subClass": "Nope", "latitude": 91, "ianaTimeZone": "Mars/Base"})
    assert (answer.status_code, answer.json()["error"]["message"]) == (422, "Cannot create iTwin.")
    assert read_details(answer) == [
        ("MissingRequiredProperty", "class"),
        ("InvalidValue", "subClass"),
        ("MissingRequiredProperty", "displayName"),
        ("InvalidValue", "latitude"),
        ("InvalidValue", "ianaTimeZone"),
    ]


async def test_create_itwin_rejects_subclass_of_another_class(http: httpx2.AsyncClient) -> None:
    answer = await http.post("/itwins", json=PROJECT | {"class": "Thing"})
    assert (answer.status_code, read_details(answer)) == (422, [("InvalidValue", "subClass")])


async def test_itwin_number_is_unique_within_account_and_subclass(http: httpx2.AsyncClient) -> None:
    taken = await http.post("/itwins", json=PROJECT | {"number": "NL-A12-0042"})
    assert (taken.status_code, taken.json()["error"]["code"]) == (409, "iTwinExists")
    assert read_details(taken) == [("InvalidValue", "number")]
    other_kind = {"class": "Thing", "subClass": "Asset", "displayName": "x", "number": "NL-A12-0042"}
    assert (await http.post("/itwins", json=other_kind)).status_code == 201


async def test_update_itwin_changes_only_the_given_properties(http: httpx2.AsyncClient) -> None:
    before = (await http.get(f"/itwins/{ITWIN}")).json()["iTwin"]
    same = {name: before[name] for name in ("id", "class", "subClass")}
    answer = await http.patch(f"/itwins/{ITWIN}", json=same | {"latitude": None, "status": "inactive"})
    changed = {"latitude": None, "status": "Inactive", "image": answer.json()["iTwin"]["image"]}
    changed |= {"lastModifiedDateTime": "2026-11-20T08:00:00.0000000Z", "lastModifiedBy": seeded_id("user", "anna")}
    assert (answer.status_code, answer.json()["iTwin"]) == (200, before | changed)


async def test_update_itwin_rejects_read_only_properties(http: httpx2.AsyncClient) -> None:
    fixed = {"id": "x", "class": "Thing", "subClass": "Asset"}
    answer = await http.patch(f"/itwins/{ITWIN}", json=fixed | {"createdDateTime": "2026-01-01", "parentId": ACCOUNT})
    assert (answer.status_code, answer.json()["error"]["message"]) == (422, "Cannot update iTwin.")
    names = [*fixed, "parentId", "createdDateTime"]
    assert read_details(answer) == [("ReadOnlyProperty", name) for name in names]
    messages = [detail["message"] for detail in answer.json()["error"]["details"]]
    assert messages[2] == "SubClass is read only and cannot be modified."
    assert messages[4] == "CreatedDateTime is read only and should not be set."


async def test_update_itwin_to_a_taken_number_is_422(http: httpx2.AsyncClient) -> None:
    answer = await http.patch(f"/itwins/{ITWIN}", json={"number": "NL-A12-0051"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "InvalidiTwinsRequest")
    assert read_details(answer) == [("InvalidValue", "number")]


async def test_delete_itwin_deletes_imodels_and_moves_children_up(http: httpx2.AsyncClient) -> None:
    assert (await http.delete(f"/itwins/{ITWIN}")).status_code == 204
    assert (await http.get(f"/itwins/{ITWIN}")).status_code == 404
    assert (await http.get(f"/imodels/{seeded_id('imodel', 'roads')}")).status_code == 404
    child = (await http.get(f"/itwins/{seeded_id('itwin', 'drainage')}")).json()["iTwin"]
    assert child["parentId"] == seeded_id("itwin", "a12")


async def test_itwin_is_404_for_strangers_and_403_for_unauthorized_members(http_as: Connect) -> None:
    stranger = await http_as("luca").get(f"/itwins/{ITWIN}")
    assert (stranger.status_code, stranger.json()["error"]["code"]) == (404, "iTwinNotFound")
    viewer = await http_as("priya").patch(f"/itwins/{ITWIN}", json={"type": "x"})
    assert (viewer.status_code, viewer.json()["error"]["code"]) == (403, "InsufficientPermissions")
    assert (await http_as("tomasz").delete(f"/itwins/{ITWIN}")).status_code == 403
    assert (await http_as("priya").post("/itwins", json=PROJECT)).status_code == 403


async def test_account_has_minimal_properties_without_prefer(http: httpx2.AsyncClient) -> None:
    account = (await http.get("/itwins/myprimaryaccount")).json()["iTwin"]
    assert account == (await http.get(f"/itwins/{ITWIN}/account")).json()["iTwin"]
    assert (account["id"], account["class"], account["subClass"], len(account)) == (ACCOUNT, "Account", "Account", 6)
    whole = await http.get(f"/itwins/{ITWIN}/account", headers={"Prefer": "return=representation"})
    assert len(whole.json()["iTwin"]) == 20
    assert whole.json()["iTwin"]["createdBy"] == seeded_id("user", "anna")


async def test_itwin_list_order_ignores_case(http: httpx2.AsyncClient) -> None:
    await http.post("/itwins", json=PROJECT | {"displayName": "a12 feeder"})
    query = "subClass=Project&$orderby=displayName&$top=3"
    itwins = (await http.get(f"/itwins?{query}")).json()["iTwins"]
    assert [itwin["displayName"] for itwin in itwins] == [
        "a12 feeder",
        "A12 Interchange Reconstruction",
        "A12 Noise Barrier Study",
    ]


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("subClass=Portfolio", ["MER-PF-001"]),
        ("subClass=Account", ["Meridian Infrastructure Group"]),
        ("status=Inactive", ["NL-A12-0029"]),
        ("number=NL-A12", ["NL-A12"]),
        ("$search=wtw", ["UK-HWTW", "UK-HWTW-0008"]),
        (f"parentId={ITWIN}", ["NL-A12-0042-WP03", "NL-A12-0042-WP05"]),
        ("subClass=Project&$orderby=number desc&$top=1", ["UK-HWTW-0008"]),
        ("$filter=contains('noise',displayName)", ["NL-A12-0051"]),
        ("$filter=contains(displayName,'noise')", ["NL-A12-0051"]),
        ("$filter=startswith('UK',number) and subClass eq 'Asset'", ["UK-HWTW"]),
        ("$filter=(number eq 'NL-A12' or number eq 'UK-HWTW')", ["NL-A12", "UK-HWTW"]),
        ("$filter=number+in+['NL-A12','NL-MAAS-B07']", ["NL-A12", "NL-MAAS-B07"]),
        ("$filter=createdDateTime ge 2026-06-01", ["NL-A12-0051"]),
        ("$filter=latitude gt 53 and not subClass eq 'Asset'", ["UK-HWTW-0008"]),
        ("$filter=status eq 'Inactive'", ["NL-A12-0029"]),
    ],
)
async def test_itwin_list_applies_its_parameters(http: httpx2.AsyncClient, query: str, numbers: list[str]) -> None:
    assert await list_numbers(http, query) == numbers


async def test_itwin_list_hides_inactive_itwins_by_default(http: httpx2.AsyncClient) -> None:
    assert "NL-A12-0029" not in await list_numbers(http, "")
    assert "NL-A12-0029" in await list_numbers(http, "includeInactive=true")


async def test_itwin_list_errors_are_those_of_the_documentation(http: httpx2.AsyncClient) -> None:
    answer = await http.get("/itwins/recents?$top=1001&$skip=-1&subClass=x&status=y&includeInactive=true")
    assert answer.status_code == 422
    assert answer.json()["error"] == {
        "code": "InvalidiTwinsRequest",
        "message": "Cannot query iTwins.",
        "details": [
            {
                "code": "InvalidValue",
                "message": "The $top query option must be a positive integer that does not exceed 1000.",
                "target": "$top",
            },
            {
                "code": "InvalidValue",
                "message": "The $skip query option must be a non-negative integer.",
                "target": "$skip",
            },
            {
                "code": "InvalidValue",
                "message": "A valid iTwin SubClass was not specified in the query.",
                "target": "subClass",
            },
            {
                "code": "InvalidValue",
                "message": "Status value is incorrect. Valid values are Active, Inactive and Trial.",
                "target": "status",
            },
            {
                "code": "InvalidParameter",
                "message": "The includeInactive parameter should not be used at the same time as the status parameter.",
                "target": "includeInactive",
            },
        ],
    }


async def test_itwin_list_reports_the_position_of_a_filter_error(http: httpx2.AsyncClient) -> None:
    answer = await http.get("/itwins?$filter=number eq 'a' what")
    assert answer.status_code == 422
    assert answer.json()["error"]["message"] == "Syntax error at position 18 in 'number eq 'a' what'."


async def test_itwin_list_names_an_unknown_selected_property(http: httpx2.AsyncClient) -> None:
    answer = await http.get("/itwins?$select=id,nope")
    assert answer.json()["error"]["details"] == [
        {
            "code": "InvalidValue",
            "message": "The $select string contains an unknown property 'nope'.",
            "target": "$select",
        }
    ]
    itwins = (await http.get("/itwins?$select=id,displayName")).json()["iTwins"]
    assert all(set(itwin) == {"id", "displayName"} for itwin in itwins)


async def test_next_links_of_itwin_list_lead_through_all_pages(http: httpx2.AsyncClient) -> None:
    numbers, url = [], "/itwins?$top=5"
    while url:
        page = (await http.get(url)).json()
        numbers += [itwin["number"] for itwin in page["iTwins"]]
        url = page["_links"].get("next", {}).get("href")
    assert numbers == await list_numbers(http, "")
    assert set(page["_links"]) == {"self", "prev"}
    assert set((await http.get("/itwins")).json()["_links"]) == {"self"}


async def test_max_return_header_limits_the_list_and_is_echoed(http: httpx2.AsyncClient) -> None:
    answer = await http.get("/itwins?$top=2&$skip=2", headers={"X-Max-Return": "3"})
    assert answer.headers["x-max-return"] == "3"
    assert len(answer.json()["iTwins"]) == 1
    assert "next" not in answer.json()["_links"]
    assert (await http.get("/itwins", headers={"X-Max-Return": "0"})).status_code == 422


async def test_query_scope_lists_the_organization_for_administrators(http_as: Connect) -> None:
    created = await http_as("tomasz").post("/itwins", json=PROJECT | {"parentId": ITWIN, "number": "T-1"})
    assert created.status_code == 201
    assert "T-1" not in await list_numbers(http_as("anna"), "")
    assert "T-1" in await list_numbers(http_as("anna"), "", **{"X-iTwin-Query-Scope": "OrganizationAdmin"})
    assert "T-1" not in await list_numbers(http_as("priya"), "", **{"X-iTwin-Query-Scope": "all"})


async def test_recent_itwins_are_the_latest_25_in_reverse_order(http: httpx2.AsyncClient) -> None:
    created: list[dict[str, Any]] = []
    for number in range(26):
        itwin = (await http.post("/itwins", json=PROJECT | {"number": f"R-{number}"})).json()["iTwin"]
        created.append(itwin)
        assert (await http.post(f"/itwins/recents/{itwin['id']}")).status_code == 204
    await http.post(f"/itwins/recents/{created[5]['id']}")
    recents = [itwin["number"] for itwin in (await http.get("/itwins/recents")).json()["iTwins"]]
    assert recents[:2] == ["R-5", "R-25"]
    assert len(recents) == 25
    assert "R-0" not in recents


async def test_favorite_itwins_are_per_user_and_added_once(http_as: Connect) -> None:
    priya = http_as("priya")
    for _ in range(2):
        assert (await priya.post(f"/itwins/favorites/{ITWIN}")).status_code == 204
    assert [itwin["id"] for itwin in (await priya.get("/itwins/favorites")).json()["iTwins"]] == [ITWIN]
    assert (await priya.delete(f"/itwins/favorites/{ITWIN}")).status_code == 204
    assert (await priya.get("/itwins/favorites")).json()["iTwins"] == []
    assert len((await http_as("anna").get("/itwins/favorites")).json()["iTwins"]) == 2
