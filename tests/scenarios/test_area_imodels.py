"""iModels, their templates and baselines, and overviews of them: each tool once, with its main error."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from itwin_mcp.sandbox.storage import imodel_file
from tests.conftest import connect
from tests.scenarios.test_area_tools import Desk

pytestmark = pytest.mark.anyio
NOBODY = "1c4b1d5e-0000-4000-8000-000000000000"


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with connect(toolsets="all") as client:
        yield Desk(client)


async def test_find_imodel_matches_a_name_or_a_part_of_it(desk: Desk) -> None:
    itwin = await desk.itwin("NL-A12-0042")
    exact = (await desk.ask("find-imodel", iTwinId=itwin, name="A12 Interchange - Roads"))["matches"]
    assert [match["iTwinId"] for match in exact["byName"]] == [itwin]
    part = (await desk.ask("find-imodel", iTwinId=itwin, name="viaduct"))["matches"]
    assert part["byName"] == []
    assert [match["name"] for match in part["containing"]] == ["A12 Interchange - Structures"]
    assert (await desk.refused("find-imodel", iTwinId=NOBODY, name="x"))["code"] == "iTwinNotFound"


async def test_list_imodels_filters_by_state_and_orders(desk: Desk) -> None:
    itwin = await desk.itwin("NL-A12-0042")
    listed = (await desk.ask("list-imodels", iTwinId=itwin, state="initialized", orderBy="name desc"))["iModels"]
    assert [item["name"] for item in listed] == ["A12 Interchange - Structures", "A12 Interchange - Roads"]
    assert (await desk.refused("list-imodels", iTwinId=NOBODY))["code"] == "iTwinNotFound"
    assert (await desk.refused("list-imodels", iTwinId=itwin, orderBy="size"))["code"] == "InvalidArguments"


async def test_creator_of_an_imodel_and_a_named_version_is_in_every_answer(desk: Desk) -> None:
    itwin, imodel = await desk.itwin("NL-A12-0042"), await desk.roads()
    listed = (await desk.ask("list-imodels", iTwinId=itwin, name="A12 Interchange - Roads"))["iModels"][0]
    read = (await desk.ask("get-imodel", iModelId=imodel))["iModel"]
    overview = (await desk.ask("describe-imodel", iModelId=imodel))["overview"]
    creators = {item["creatorId"] for item in (listed, read, overview["iModel"])}
    assert creators <= {user["id"] for user in overview["users"]}
    assert len(creators) == 1
    assert listed["dataCenterLocation"] == read["dataCenterLocation"] == "West Europe"
    latest = (await desk.ask("list-named-versions", iModelId=imodel, limit=1))["namedVersions"][0]
    version = (await desk.ask("get-named-version", iModelId=imodel, namedVersionId=latest["id"]))["namedVersion"]
    assert latest["creatorId"] == version["creatorId"] == overview["latestNamedVersion"]["creatorId"]
    assert latest["creatorId"] in {user["id"] for user in overview["users"]}


async def test_itwin_lists_show_location_data_center_image_and_dates(desk: Desk) -> None:
    identity = await desk.itwin("NL-A12-0042")
    whole = (await desk.ask("get-itwin", iTwinId=identity))["iTwin"]
    shown = ("geographicLocation", "dataCenterLocation", "imageName", "createdDateTime", "createdBy")
    for tool, more in (("list-itwins", {"number": "NL-A12-0042"}), ("list-recent-itwins", {})):
        (arguments,) = [itwin for itwin in (await desk.ask(tool, **more))["iTwins"] if itwin["id"] == identity]
        assert {name: arguments[name] for name in shown} == {name: whole[name] for name in shown}
        assert arguments["createdBy"]
        assert arguments["dataCenterLocation"]


@pytest.mark.parametrize(
    ("tool", "more"),
    [
        ("get-imodel", {}),
        ("get-imodel-creation", {}),
        ("wait-for-imodel", {}),
        ("update-imodel", {"name": "x"}),
        ("delete-imodel", {}),
        ("clone-imodel", {"iTwinId": NOBODY}),
        ("fork-imodel", {"iTwinId": NOBODY}),
        ("list-named-versions", {}),
        ("get-named-version", {"namedVersionId": NOBODY}),
        ("create-named-version", {"name": "x"}),
        ("update-named-version", {"namedVersionId": NOBODY, "name": "x"}),
    ],
)
async def test_tools_report_a_missing_imodel(desk: Desk, tool: str, more: dict[str, Any]) -> None:
    error = await desk.refused(tool, iModelId=NOBODY, **more)
    assert (error["code"], error["status"]) == ("iModelNotFound", 404)


async def test_fork_imodel_without_federation_guids_reports_job_failed(desk: Desk) -> None:
    itwin = await desk.itwin("NL-MAAS-0017")
    old = await desk.imodel("NL-MAAS-0017", "Maas Crossing - Existing Condition")
    error = await desk.refused("fork-imodel", iModelId=old, iTwinId=itwin, name="Fork")
    assert error["code"] == "JobFailed"
    assert "mainIModelIsMissingFederationGuids" in error["message"]


async def test_describe_imodel_summarizes_an_imodel(desk: Desk) -> None:
    imodel = await desk.roads()
    page = (await desk.ask("describe-imodel", iModelId=imodel))["overview"]
    assert page["iModel"]["id"] == imodel
    assert page["latestChangeset"]["index"] == 12
    assert page["latestNamedVersion"]["name"] == "Tender Draft"
    assert {user["givenName"] for user in page["users"]} == {"Anna", "Tomasz", "Design"}
    levels = {
        briefcase["briefcaseId"]: [lock["lockLevel"] for lock in briefcase["lockedObjects"]]
        for briefcase in page["briefcasesWithLocks"]
    }
    assert levels == {2: ["exclusive", "shared"], 4: ["shared"]}
    assert "imodels_manage" in page["my"]["permissions"]
    assert (await desk.refused("describe-imodel", iModelId=NOBODY))["code"] == "iModelNotFound"


async def test_describe_imodel_without_history(desk: Desk) -> None:
    imodel = await desk.imodel("NL-A12-0042-WP03", "WP-03 Drainage")
    page = (await desk.ask("describe-imodel", iModelId=imodel))["overview"]
    assert page["latestChangeset"] is page["latestNamedVersion"] is None
    assert page["briefcasesWithLocks"] == []


async def test_list_stale_imodels_separates_stale_active_and_never_pushed(desk: Desk) -> None:
    itwin = await desk.itwin("NL-A12-0042")
    every = (await desk.ask("list-imodels", iTwinId=itwin))["iModels"]
    pushed = sorted(imodel["lastChangesetPushDateTime"] for imodel in every if imodel["lastChangesetPushDateTime"])
    answer = (await desk.ask("list-stale-imodels", iTwinId=itwin, since=pushed[-1]))["iModels"]
    assert [imodel["lastChangesetPushDateTime"] for imodel in answer["active"]] == [pushed[-1]]
    assert len(answer["stale"]) == len(every) - 1 > 0
    assert answer["neverPushed"] == []
    drainage = await desk.itwin("NL-A12-0042-WP03")
    answer = (await desk.ask("list-stale-imodels", iTwinId=drainage, since="2000-01-01"))["iModels"]
    assert [imodel["lastChangesetPushDateTime"] for imodel in answer["neverPushed"]] == [None]
    assert answer["stale"] == answer["active"] == []
    assert (await desk.refused("list-stale-imodels", iTwinId=NOBODY, since="2026-01-01"))["code"] == "iTwinNotFound"
    for since in ("2026-02-30", "spring"):
        assert (await desk.refused("list-stale-imodels", iTwinId=itwin, since=since))["code"] == "InvalidArguments"


async def test_list_stale_imodels_reads_all_itwins_of_the_caller(desk: Desk) -> None:
    mine = (await desk.ask("list-itwins", limit=1000, includeInactive=True))["iTwins"]
    answer = await desk.ask("list-stale-imodels", since="2100-01-01")
    assert [itwin["id"] for itwin in answer["searched"]] == [itwin["id"] for itwin in mine][:20]
    assert answer["iModels"]["active"] == []
    homes = {imodel["iTwinId"] for imodel in (*answer["iModels"]["stale"], *answer["iModels"]["neverPushed"])}
    assert homes <= {itwin["id"] for itwin in answer["searched"]}
    assert len(homes) > 1
    if len(mine) > 20:
        assert f"only the first 20 of {len(mine)} are read here" in answer["page"]["stoppedBecause"]
    else:
        assert "page" not in answer


async def test_list_stale_imodels_without_a_date_lists_never_pushed_ones(desk: Desk) -> None:
    every = (await desk.ask("list-imodels"))["iModels"]
    answer = (await desk.ask("list-stale-imodels"))["iModels"]
    never = {imodel["id"] for imodel in every if imodel["lastChangesetPushDateTime"] is None}
    assert {imodel["id"] for imodel in answer["neverPushed"]} == never != set()
    assert answer["stale"] is answer["active"] is None


async def test_find_imodel_without_an_itwin_searches_recents_and_favorites(desk: Desk) -> None:
    itwin = await desk.itwin("NL-A12-0042")
    await desk.ask("add-itwin-to-recents", iTwinId=itwin)
    answer = await desk.ask("find-imodel", name="A12 Interchange - Roads")
    assert [match["iTwinId"] for match in answer["matches"]["byName"]] == [itwin]
    searched = answer["matches"]["searched"]
    recents = (await desk.ask("list-recent-itwins"))["iTwins"]
    favorites = (await desk.ask("list-favorite-itwins"))["iTwins"]
    wanted = list(dict.fromkeys(itwin["id"] for itwin in (*recents, *favorites)))
    assert [itwin["id"] for itwin in searched] == [
        itwin for itwin in wanted[:10] if itwin in {itwin["id"] for itwin in searched}
    ]
    assert searched[0] == {"id": itwin, "displayName": recents[0]["displayName"], "number": "NL-A12-0042"}
    assert answer["page"]["complete"] is False
    assert "only iTwins that you used last or made favorites are searched" in answer["page"]["stoppedBecause"]


async def test_find_imodel_without_an_itwin_reports_an_incomplete_search(desk: Desk) -> None:
    answer = await desk.ask("find-imodel", name="WP-03 Drainage")
    assert answer["matches"]["byName"] == answer["matches"]["containing"] == []
    assert answer["page"]["complete"] is False
    assert "pass iTwinId, from find-itwin" in answer["page"]["stoppedBecause"]
    itwin = await desk.itwin("NL-A12-0042-WP03")
    within = await desk.ask("find-imodel", iTwinId=itwin, name="WP-03 Drainage")
    assert len(within["matches"]["byName"]) == 1
    assert "page" not in within


async def test_create_imodel_from_template(desk: Desk) -> None:
    itwin, roads = await desk.itwin("NL-A12-0042"), await desk.roads()
    created = await desk.ask("create-imodel-from-template", iTwinId=itwin, name="From roads", templateIModelId=roads)
    assert created["iModel"]["state"] == "initialized"
    assert (await desk.ask("list-changesets", iModelId=created["iModel"]["id"]))["changesets"] == []
    creation = await desk.read(f"itwin://imodels/{created['iModel']['id']}/operations/create")
    assert creation["createOperation"]["state"] == "successful"
    absent = await desk.refused("create-imodel-from-template", iTwinId=itwin, name="From none", templateIModelId=NOBODY)
    assert absent["code"] == "iModelNotFound"


async def test_containers_enabled_accepts_only_known_words(desk: Desk) -> None:
    itwin = await desk.itwin("NL-A12-0042")
    created = (await desk.ask("create-imodel", iTwinId=itwin, name="Codes", containersEnabled=["codes", "schemas"]))[
        "iModel"
    ]
    assert (await desk.ask("get-imodel", iModelId=created["id"]))["iModel"]["containersEnabled"] == ["schemas", "codes"]
    for tool in ("clone-imodel", "fork-imodel"):
        copy = await desk.ask(
            tool, iModelId=created["id"], iTwinId=itwin, name=f"Codes, {tool}", containersEnabled=["schemas"]
        )
        assert copy["iModel"]["id"] != created["id"]
    wrong = await desk.refused("create-imodel", iTwinId=itwin, name="Codes 2", containersEnabled=["drawings"])
    assert wrong["code"] == "InvalidArguments"


async def test_clone_and_fork_report_the_latest_changeset_of_the_copy(desk: Desk) -> None:
    source, itwin = await desk.roads(), await desk.itwin("NL-A12-0042")
    copies = {
        (tool, *options): await desk.ask(tool, iModelId=source, iTwinId=itwin, name=f"{tool} {options}", **options)
        for tool, options in (
            ("clone-imodel", {"changeset": "7"}),
            ("fork-imodel", {"preserveHistory": True}),
            ("fork-imodel", {}),
        )
    }
    indexes = [(copy["iModel"]["latestChangeset"] or {}).get("index") for copy in copies.values()]
    assert indexes == [7, 12, None]
    awaited = await desk.ask("wait-for-imodel", iModelId=copies["clone-imodel", "changeset"]["iModel"]["id"])
    assert awaited["iModel"]["latestChangeset"]["index"] == 7


async def test_baseline_file_is_read_awaited_and_completed_only_if_expected(desk: Desk) -> None:
    imodel = await desk.roads()
    for tool in ("get-baseline-file", "wait-for-baseline-file"):
        assert (await desk.ask(tool, iModelId=imodel))["baselineFile"]["state"] == "initialized"
        assert (await desk.refused(tool, iModelId=NOBODY))["code"] == "iModelNotFound"
    assert (await desk.read(f"itwin://imodels/{imodel}/baselinefile"))["baselineFile"]["fileSize"] == imodel_file.SIZE
    assert (await desk.refused("complete-baseline-file", iModelId=imodel))["code"] == "InvalidiModelsRequest"


async def test_thumbnail_resource_has_two_sizes(desk: Desk) -> None:
    uri = f"itwin://imodels/{await desk.roads()}/thumbnail"
    pictures = [(await desk.client.read_resource(address)).contents[0] for address in (uri, f"{uri}/large")]
    assert [picture.mime_type for picture in pictures] == ["image/png", "image/png"]
    assert all(picture.blob.startswith("iVBORw0KGgo") for picture in pictures)  # type: ignore[union-attr]
    assert pictures[0] != pictures[1]


async def test_get_imodel_thumbnail_reports_media_type_and_size(desk: Desk) -> None:
    itwin = await desk.itwin("NL-A12-0042")
    identity = (await desk.ask("list-imodels", iTwinId=itwin, limit=1))["iModels"][0]["id"]
    picture = await desk.client.call_tool("get-imodel-thumbnail", {"iModelId": identity})
    assert picture.structured_content is not None
    assert picture.structured_content["content"]["mediaType"] == "image/png"
    assert picture.structured_content["content"]["bytes"] > 1_000
    assert (await desk.refused("get-imodel-thumbnail", iModelId=NOBODY))["code"] == "iModelNotFound"
