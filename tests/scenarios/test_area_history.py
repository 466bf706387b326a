"""The history of an iModel: changesets, groups, extended data, named versions, checkpoints."""

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


async def version(desk: Desk, imodel: str, name: str) -> str:
    answer = await desk.ask("list-named-versions", iModelId=imodel, name=name)
    return str(answer["namedVersions"][0]["id"])


async def test_changesets_are_listed_by_index_and_read_by_id_index_and_link(desk: Desk) -> None:
    imodel = await desk.roads()
    latest = (await desk.ask("list-changesets", iModelId=imodel, limit=1))["changesets"][0]
    assert latest["index"] == 12
    between = await desk.ask("list-changesets", iModelId=imodel, afterIndex=3, lastIndex=5, orderBy="index")
    assert [changeset["index"] for changeset in between["changesets"]] == [4, 5]
    assert between["changesets"][1]["application"]["name"] == "Meridian Design Sync"
    link = f"https://api.bentley.com/imodels/{imodel}/changesets/{latest['id']}"
    for arguments in (latest["id"], "12", link):
        read = (await desk.ask("get-changeset", iModelId=imodel, changeset=arguments))["changeset"]
        assert read["id"] == latest["id"]
        assert "_links" not in read
    assert (await desk.read(f"itwin://imodels/{imodel}/changesets/12"))["changeset"] == read
    assert (await desk.refused("get-changeset", iModelId=imodel, changeset="99"))["code"] == "ChangesetNotFound"
    assert (await desk.refused("list-changesets", iModelId=NOBODY))["code"] == "iModelNotFound"
    assert (await desk.refused("list-changesets", iModelId=imodel, afterIndex=-1))["code"] == "InvalidArguments"


async def test_changeset_group_is_created_read_and_completed_once(desk: Desk) -> None:
    imodel = await desk.roads()
    listed = (await desk.ask("list-changeset-groups", iModelId=imodel))["changesetGroups"]
    assert [item["description"] for item in listed] == ["Design Sync, run 118", "Design Sync, run 131"]
    made = (await desk.ask("create-changeset-group", iModelId=imodel, description="Run 1"))["changesetGroup"]
    ids = {"iModelId": imodel, "changesetGroupId": made["id"]}
    assert (await desk.ask("get-changeset-group", **ids))["changesetGroup"]["state"] == "inProgress"
    assert (await desk.ask("complete-changeset-group", **ids))["changesetGroup"]["state"] == "completed"
    assert (await desk.refused("complete-changeset-group", **ids))["code"] == "InvalidiModelsRequest"
    resource = await desk.read(f"itwin://imodels/{imodel}/changesetgroups/{made['id']}")
    assert resource["changesetGroup"]["state"] == "completed"
    absent = {"iModelId": imodel, "changesetGroupId": NOBODY}
    assert (await desk.refused("get-changeset-group", **absent))["code"] == "ChangesetGroupNotFound"
    assert (await desk.refused("create-changeset-group", iModelId=imodel))["code"] == "InvalidArguments"
    assert (await desk.refused("list-changeset-groups", iModelId=NOBODY))["code"] == "iModelNotFound"


async def test_extended_data_is_read_and_created_once_by_the_pusher(desk: Desk) -> None:
    imodel = await desk.roads()
    listed = (await desk.ask("list-extended-data", iModelId=imodel))["extendedData"]
    assert [item["changesetIndex"] for item in listed] == [5, 11]
    read = (await desk.ask("get-extended-data", iModelId=imodel, changeset="5"))["extendedData"]
    assert read["data"]["run"] == 118
    assert (await desk.read(f"itwin://imodels/{imodel}/changesets/5/extendeddata"))["extendedData"] == read
    own = {"iModelId": imodel, "changeset": "8", "data": {"checked": True}}
    assert (await desk.ask("create-extended-data", **own))["extendedData"]["changesetIndex"] == 8
    assert (await desk.refused("create-extended-data", **own))["status"] == 409
    assert (await desk.refused("create-extended-data", **own | {"changeset": "9"}))["code"] == "InsufficientPermissions"
    assert (await desk.refused("create-extended-data", **own | {"data": "[1]"}))["code"] == "InvalidArguments"
    absent = await desk.refused("get-extended-data", iModelId=imodel, changeset="1")
    assert absent["code"] == "ChangesetExtendedDataNotFound"
    assert (await desk.refused("list-extended-data", iModelId=NOBODY))["code"] == "iModelNotFound"


async def test_compare_named_versions_lists_changesets_authors_and_applications(desk: Desk) -> None:
    imodel = await desk.roads()
    older, newer = await version(desk, imodel, "30% Design"), await version(desk, imodel, "60% Design")
    answer = await desk.ask("compare-named-versions", iModelId=imodel, olderVersionId=older, newerVersionId=newer)
    comparison = answer["comparison"]
    assert [changeset["index"] for changeset in comparison["changesets"]] == [4, 5, 6, 7, 8]
    assert {item["givenName"] for item in comparison["authors"]} == {"Anna", "Tomasz", "Design"}
    assert sum(item["changesets"] for item in comparison["authors"]) == 5
    assert sum(application["changesets"] for application in comparison["applications"]) == 5
    assert "Meridian Design Sync" in {application["name"] for application in comparison["applications"]}
    assert (comparison["older"]["id"], comparison["newer"]["id"]) == (older, newer)
    swapped = await desk.refused("compare-named-versions", iModelId=imodel, olderVersionId=newer, newerVersionId=older)
    assert swapped["code"] == "NoChanges"
    assert "swap" in swapped["hint"]
    absent = await desk.refused("compare-named-versions", iModelId=imodel, olderVersionId=NOBODY, newerVersionId=older)
    assert absent["code"] == "NamedVersionNotFound"
    assert (await desk.read(f"itwin://imodels/{imodel}/namedversions/{older}"))["namedVersion"]["id"] == older


async def test_checkpoints_are_read_without_storage_keys(desk: Desk) -> None:
    imodel = await desk.roads()
    latest = (await desk.ask("get-latest-checkpoint", iModelId=imodel))["checkpoint"]
    assert (latest["changesetIndex"], latest["state"]) == (12, "successful")
    assert set(latest) == {"changesetId", "changesetIndex", "state", "size", "dbName"}
    of_changeset = await desk.ask("get-changeset-checkpoint", iModelId=imodel, changeset="12")
    assert of_changeset["checkpoint"] == latest
    ids = {"iModelId": imodel, "namedVersionId": await version(desk, imodel, "Tender Draft")}
    for tool in ("get-named-version-checkpoint", "wait-for-checkpoint", "update-named-version-checkpoint"):
        assert (await desk.ask(tool, **ids))["checkpoint"] == latest
        absent = await desk.refused(tool, iModelId=imodel, namedVersionId=NOBODY)
        assert absent["code"] == "NamedVersionNotFound"
    for path in ("", "changesets/12/", f"namedversions/{ids['namedVersionId']}/"):
        assert (await desk.read(f"itwin://imodels/{imodel}/{path}checkpoint"))["checkpoint"] == latest
    none = await desk.refused("get-changeset-checkpoint", iModelId=imodel, changeset="1")
    assert none["code"] == "CheckpointNotFound"
    assert (await desk.refused("get-latest-checkpoint", iModelId=NOBODY))["code"] == "iModelNotFound"


async def test_failed_checkpoint_is_reported_and_generated_again(desk: Desk) -> None:
    imodel = await desk.imodel("NL-MAAS-0017", "Maas Crossing - Existing Condition")
    ids = {"iModelId": imodel, "namedVersionId": await version(desk, imodel, "Condition 2025")}
    failed = await desk.refused("wait-for-checkpoint", **ids)
    assert failed["code"] == "JobFailed"
    assert "failed" in failed["message"]
    assert (await desk.ask("update-named-version-checkpoint", **ids))["checkpoint"]["state"] == "successful"


async def test_update_named_version_checkpoint_without_waiting_returns_a_job() -> None:
    async with connect(toolsets="all", job_seconds=3600.0) as client:
        desk = Desk(client)
        imodel = await desk.imodel("NL-MAAS-0017", "Maas Crossing - Existing Condition")
        ids = {"iModelId": imodel, "namedVersionId": await version(desk, imodel, "Condition 2025")}
        job = (await desk.ask("update-named-version-checkpoint", **ids, wait=0))["job"]
        assert job["checkWith"] == "wait-for-checkpoint"


async def test_named_versions_are_listed_with_checkpoint_states_on_request(desk: Desk) -> None:
    imodel = await desk.roads()
    plain = (await desk.ask("list-named-versions", iModelId=imodel))["namedVersions"]
    assert not any("checkpointState" in version for version in plain)
    listed = await desk.ask("list-named-versions", iModelId=imodel, checkpoints=True)
    assert [version["id"] for version in listed["namedVersions"]] == [version["id"] for version in plain]
    for version in listed["namedVersions"]:
        alone = await desk.ask("get-named-version-checkpoint", iModelId=imodel, namedVersionId=version["id"])
        assert version["checkpointState"] == alone["checkpoint"]["state"]
