"""Defaults that a new iTwin takes from its parent and its subclass, and how the answer reports them."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.conftest import connect
from tests.scenarios.test_area_tools import Desk

pytestmark = pytest.mark.anyio

PLACE = {"dataCenterLocation": "UK South", "ianaTimeZone": "Europe/London"}


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with connect(toolsets="all") as client:
        yield Desk(client)


async def make(desk: Desk, tool: str, **arguments: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Create an iTwin; return it as the platform stores it, with the reported defaults."""
    answer = await desk.ask(tool, **arguments, **({} if tool == "create-itwin" else {"iModelName": "Model"}))
    answer = answer if tool == "create-itwin" else answer["project"]
    return (await desk.ask("get-itwin", iTwinId=answer["iTwin"]["id"]))["iTwin"], answer["defaults"]


@pytest.mark.parametrize("tool", ["create-itwin", "provision-project"])
async def test_new_itwin_takes_data_centre_and_time_zone_from_its_parent(desk: Desk, tool: str) -> None:
    parent, _ = await make(desk, "create-itwin", displayName="Programme", subClass="Program", **PLACE)
    made, defaults = await make(desk, tool, displayName="Part", subClass="Project", parentId=parent["id"])
    assert {name: made[name] for name in PLACE} == PLACE
    assert defaults == PLACE | {"class": "Endeavor"}


@pytest.mark.parametrize("tool", ["create-itwin", "provision-project"])
async def test_given_data_centre_and_time_zone_override_the_parents(desk: Desk, tool: str) -> None:
    parent, _ = await make(desk, "create-itwin", displayName="Programme", subClass="Program", **PLACE)
    own = {"dataCenterLocation": "japan east", "ianaTimeZone": "Asia/Tokyo", "class": "Endeavor"}
    made, defaults = await make(desk, tool, displayName="Part", subClass="Project", parentId=parent["id"], **own)
    assert (made["dataCenterLocation"], made["ianaTimeZone"]) == ("Japan East", "Asia/Tokyo")
    assert defaults == {}


@pytest.mark.parametrize("tool", ["create-itwin", "provision-project"])
@pytest.mark.parametrize(
    ("sub_class", "class_"),
    [("Portfolio", "Thing"), ("Asset", "Thing"), ("Program", "Endeavor"), ("WorkPackage", "Endeavor")],
)
async def test_class_follows_from_subclass(desk: Desk, tool: str, sub_class: str, class_: str) -> None:
    made, defaults = await make(desk, tool, displayName="New", subClass=sub_class)
    assert (made["class"], made["subClass"]) == (class_, sub_class)
    assert defaults == {"class": class_}


async def test_class_that_contradicts_subclass_is_refused(desk: Desk) -> None:
    for tool in ("create-itwin", "provision-project"):
        arguments = {"displayName": "New", "class": "Thing", "subClass": "Project"}
        error = await desk.refused(tool, **arguments, **({} if tool == "create-itwin" else {"iModelName": "Model"}))
        assert "class Thing and subClass Project cannot be given together" in error["message"]


async def test_unreadable_parent_stops_create_itwin(desk: Desk) -> None:
    nobody = "1c4b1d5e-0000-4000-8000-000000000000"
    error = await desk.refused("create-itwin", displayName="New", subClass="Asset", parentId=nobody)
    assert error["code"] == "iTwinNotFound"
    assert (await desk.ask("find-itwin", name="New"))["matches"]["byName"] == []
