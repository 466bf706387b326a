"""iTwins, accounts, images, exports and the caller's own lists, each tool once, with its main error."""

from collections.abc import AsyncIterator

import pytest

from tests.conftest import connect
from tests.scenarios.test_area_tools import Desk

pytestmark = pytest.mark.anyio
NOBODY = "1c4b1d5e-0000-4000-8000-000000000000"


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with connect(toolsets="all") as client:
        yield Desk(client)


async def test_find_itwin_matches_number_name_and_part_also_if_inactive(desk: Desk) -> None:
    by_number = (await desk.ask("find-itwin", name="NL-A12-0042"))["matches"]
    assert [match["displayName"] for match in by_number["byNumber"]] == ["A12 Interchange Reconstruction"]
    by_name = (await desk.ask("find-itwin", name="A12 Ramp Resurfacing 2024"))["matches"]
    assert [match["status"] for match in by_name["byName"]] == ["Inactive"]
    part = (await desk.ask("find-itwin", name="Maas"))["matches"]
    assert part["byNumber"] == part["byName"] == []
    assert len(part["containing"]) == 2


async def test_list_itwins_filters_and_rejects_conflicting_filters(desk: Desk) -> None:
    listed = await desk.ask("list-itwins", filter="contains('A12',displayName)", orderBy="displayName desc")
    names = [itwin["displayName"] for itwin in listed["iTwins"]]
    assert len(names) >= 3
    assert names == sorted(names, reverse=True)
    inactive = await desk.ask("list-itwins", search="Resurfacing", includeInactive=True)
    assert len(inactive["iTwins"]) == 1
    assert len((await desk.ask("list-itwins", queryScope="all", limit=100))["iTwins"]) >= len(names)
    for together in ({"status": "Active", "includeInactive": True}, {"search": "A12", "number": "NL-A12"}):
        assert (await desk.refused("list-itwins", **together))["code"] == "InvalidArguments"
    malformed = await desk.refused("list-itwins", filter="displayName eq")
    assert malformed["code"] == "InvalidiTwinsRequest"


async def test_provision_project_creates_itwin_imodel_and_named_version(desk: Desk) -> None:
    project = (await desk.ask("provision-project", displayName="Lock 12", iModelName="Gate", versionName="Start"))[
        "project"
    ]
    assert project["iTwin"]["subClass"] == "Project"
    assert project["iModel"]["iTwinId"] == project["iTwin"]["id"]
    assert project["namedVersion"]["name"] == "Start"
    refused = await desk.refused(
        "provision-project", displayName="Lock 13", **{"class": "Endeavor"}, subClass="Asset", iModelName="Gate"
    )
    assert refused["code"] == "InvalidArguments"
    refusal = await desk.refused("provision-project", displayName="Lock 14", number="NL-A12-0042", iModelName="Gate")
    assert refusal["code"] == "iTwinExists"


async def test_provision_project_out_of_time_returns_a_job_with_remaining_steps() -> None:
    async with connect(toolsets="all", job_seconds=3600.0) as client:
        desk = Desk(client)
        job = (await desk.ask("provision-project", displayName="Lock 15", iModelName="Gate", wait=1))["job"]
        assert (job["checkWith"], job["remaining"]) == ("wait-for-imodel", ["named-version"])
        (done,) = job["completed"]
        assert done["step"] == "itwin"
        assert (await desk.ask("get-itwin", iTwinId=done["ids"][0]))["iTwin"]["displayName"] == "Lock 15"
        assert (await desk.ask("get-imodel", iModelId=job["iModelId"]))["iModel"]["name"] == "Gate"


async def test_accounts_are_read(desk: Desk) -> None:
    mine = (await desk.ask("get-my-account"))["iTwin"]
    itwin = await desk.itwin("NL-A12-0042")
    assert (await desk.ask("get-itwin-account", iTwinId=itwin))["iTwin"]["id"] == mine["id"]
    assert (await desk.read(f"itwin://itwins/{itwin}/account"))["iTwin"]["id"] == mine["id"]
    assert (await desk.refused("get-itwin-account", iTwinId=NOBODY))["code"] == "iTwinNotFound"


async def test_itwin_image_is_read_and_deleted(desk: Desk) -> None:
    itwin = await desk.itwin("NL-A12-0042")
    image = (await desk.ask("get-itwin-image", iTwinId=itwin))["image"]
    assert image["smallImageUrl"].startswith("http")
    assert await desk.ask("delete-itwin-image", iTwinId=itwin) == {"deleted": True}
    assert (await desk.refused("get-itwin-image", iTwinId=itwin))["status"] == 404
    assert (await desk.refused("delete-itwin-image", iTwinId=itwin))["status"] == 404


async def test_favorite_and_recent_itwins_are_listed_added_and_removed(desk: Desk) -> None:
    itwin = await desk.itwin("UK-HWTW-0008")
    await desk.ask("remove-itwin-from-favorites", iTwinId=itwin)
    before = [itwin["id"] for itwin in (await desk.ask("list-favorite-itwins"))["iTwins"]]
    assert itwin not in before
    assert await desk.ask("add-itwin-to-favorites", iTwinId=itwin) == {"added": True}
    listed = (await desk.ask("list-favorite-itwins", subClass=["Project"], type="Expansion"))["iTwins"]
    assert [item["id"] for item in listed] == [itwin]
    assert (await desk.refused("add-itwin-to-favorites", iTwinId=NOBODY))["code"] == "iTwinNotFound"
    assert (await desk.refused("list-favorite-itwins", status="Active", includeInactive=True))[
        "code"
    ] == "InvalidArguments"
    assert await desk.ask("add-itwin-to-recents", iTwinId=itwin) == {"added": True}
    assert (await desk.ask("list-recent-itwins", limit=1))["iTwins"][0]["id"] == itwin
    assert len((await desk.ask("list-recent-itwins", type="Expansion", includeInactive=True))["iTwins"]) == 1
    assert (await desk.refused("add-itwin-to-recents", iTwinId=NOBODY))["code"] == "iTwinNotFound"


async def test_favorite_and_recent_imodels_are_listed_added_and_removed(desk: Desk) -> None:
    itwin, imodel = await desk.itwin("NL-A12-0042"), await desk.roads()
    for add, remove, listing in (
        ("add-imodel-to-favorites", "remove-imodel-from-favorites", "list-favorite-imodels"),
        ("add-imodel-to-recents", "remove-imodel-from-recents", "list-recent-imodels"),
    ):
        assert await desk.ask(add, iModelId=imodel) == {"added": True}
        assert imodel in [imodel["id"] for imodel in (await desk.ask(listing, iTwinId=itwin))["iModels"]]
        assert await desk.ask(remove, iModelId=imodel) == {"removed": True}
        assert imodel not in [imodel["id"] for imodel in (await desk.ask(listing, iTwinId=itwin))["iModels"]]
        assert (await desk.refused(add, iModelId=NOBODY))["code"] == "iModelNotFound"
        assert (await desk.refused(remove, iModelId=NOBODY))["code"] == "iModelNotFound"
        assert (await desk.refused(listing, iTwinId=NOBODY))["code"] == "iTwinNotFound"


async def test_export_shows_its_link_only_in_get_export(desk: Desk) -> None:
    made = (
        await desk.ask("create-export", outputFormat="Csv", subClass=["Asset", "Project"], select=["id", "displayName"])
    )["export"]
    assert made["status"] == "Completed"
    assert "outputUrl" not in made
    assert (await desk.ask("wait-for-export", exportId=made["id"]))["export"]["status"] == "Completed"
    assert (await desk.ask("get-export", exportId=made["id"]))["export"]["outputUrl"].startswith("http")
    assert [export["id"] for export in (await desk.ask("list-exports"))["exports"]] == [made["id"]]
    assert (await desk.read(f"itwin://exports/{made['id']}"))["export"]["status"] == "Completed"
    assert (await desk.refused("create-export", outputFormat="Xml"))["code"] == "InvalidArguments"
    assert (await desk.refused("create-export", outputFormat="Csv", filter="status eq"))[
        "code"
    ] == "InvalidiTwinsRequest"
    for tool in ("get-export", "wait-for-export"):
        assert (await desk.refused(tool, exportId=NOBODY))["status"] == 404


async def test_create_export_without_waiting_returns_a_job() -> None:
    async with connect(toolsets="all", job_seconds=3600.0) as client:
        job = (await Desk(client).ask("create-export", outputFormat="JsonGZip", wait=0))["job"]
        assert job["checkWith"] == "wait-for-export"
