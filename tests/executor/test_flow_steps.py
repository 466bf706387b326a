"""Flows run their steps in order, and errors always report what was already written."""

from dataclasses import replace
from typing import Any

import anyio
import pytest

from itwin_mcp.capability.tool_actions import Steps
from itwin_mcp.errors import InvalidArguments
from itwin_mcp.executor import flow_steps
from tests.executor.bench import bench, hang_up, query_of, saying
from tests.upstream.loopback import Asked

pytestmark = pytest.mark.anyio

REFUSED = {"error": {"code": "InsufficientPermissions", "message": "No."}}


class Teams:
    """Teams on the platform. `faults` replaces the answer of a method and path."""

    def __init__(self, count: int = 5, members: Any = None) -> None:
        self.count = count
        self.members = members if members is not None else [{"id": f"m{n}"} for n in range(3)]
        self.faults: dict[str, Any] = {}
        self.under_way = 0
        self.most_under_way = 0

    async def __call__(self, request: Asked) -> None:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.faults.get(f"{request.method} {request.path}", self.answer)(request)
        finally:
            self.under_way -= 1

    async def answer(self, request: Asked) -> None:
        parts = request.path.split("/")[1:]
        if parts == ["teams"] and request.method == "GET":
            query = query_of(request)
            skip, top = int(query.get("$skip", 0)), int(query["$top"])
            rows = [{"id": f"i{n}", "name": f"Team {n}"} for n in range(skip, min(skip + top, self.count))]
            more = skip + top < self.count
            href = f"https://api.bentley.com/teams?$skip={skip + top}&$top={top}" if more else None
            await request.json(200, {"teams": rows, "_links": {"next": {"href": href}}})
        elif parts == ["teams"]:
            await request.json(201, {"team": {"id": "new"}})
        elif request.method == "DELETE":
            await request.answer(204)
        elif len(parts) == 2:
            await request.json(200, {"team": {"id": parts[1], "name": "Team", "members": self.members}})
        else:
            # Later members answer first.
            for _ in range(30 - int(parts[3].lstrip("m")) % 30):
                await anyio.lowlevel.checkpoint()
            await request.json(200, {"id": parts[3]})


# --- order, lookup, require, when -------------------------------------------------------------------------------


async def test_lookup_step_finds_the_exact_value_in_all_pages() -> None:
    async with bench("flows.yaml", Teams(2_500)) as harness:
        answer = await harness.call("find-team", name="Team 2400")
    assert answer == {"team": {"id": "i2400", "name": "Team 2400"}, "details": None}
    assert len(harness.asked) == 3


async def test_x_when_runs_a_step_only_if_its_path_is_not_empty() -> None:
    async with bench("flows.yaml", Teams()) as harness:
        answer = await harness.call("find-team", name="Team 2", members=True)
        assert answer["details"] == {"members": [{"id": "m0"}, {"id": "m1"}, {"id": "m2"}]}
        await harness.call("find-team", name="Team 2", members=False)
        await harness.call("find-team", name="Team 2")
    assert harness.asked.count("GET /teams/i2") == 1


async def test_x_require_raises_the_error_of_the_file() -> None:
    async with bench("flows.yaml", Teams()) as harness:
        error = await harness.refused("find-team", name="Team 99", members=True)
    assert (error["code"], error["message"], error["hint"]) == (
        "TeamNotFound",
        "There is no such team.",
        "List the teams.",
    )
    assert "completed" not in error
    assert len(harness.asked) == 1


async def test_step_that_cuts_its_list_reports_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_steps, "MAX_ITEMS", 1_500)
    async with bench("flows.yaml", Teams(2_500)) as harness:
        answer = await harness.call("find-team", name="Team 1")
        error = await harness.refused("find-team", name="Team 2400")
    assert answer["page"] == {
        "returned": 1_500,
        "complete": False,
        "stoppedBecause": "all: only the first 1500 items are read here",
    }
    assert error["code"] == "TeamNotFound"
    assert "all: only the first 1500 items are read here" in error["hint"]


async def test_failed_page_of_a_step_fails_the_call() -> None:
    teams = Teams(2_500)

    async def second_fails(request: Asked) -> None:
        await (saying(403, REFUSED) if "skip" in request.target else teams.answer)(request)

    teams.faults["GET /teams"] = second_fails
    async with bench("flows.yaml", teams) as harness:
        assert (await harness.refused("find-team", name="Team 1"))["code"] == "InsufficientPermissions"


# --- each -------------------------------------------------------------------------------------------------------


async def test_x_each_keeps_the_order_and_runs_at_most_eight_at_a_time() -> None:
    teams = Teams(members=[{"id": f"m{n}"} for n in range(24)])
    async with bench("flows.yaml", teams) as harness:
        answer = await harness.call("read-members", team="i1")
    assert [item["id"] for item in answer["members"]] == [f"m{n}" for n in range(24)]
    assert 2 <= teams.most_under_way <= 8


@pytest.mark.parametrize("members", [[], None])
async def test_x_each_of_an_empty_list_sends_nothing(members: Any) -> None:
    teams = Teams()
    teams.members = members
    async with bench("flows.yaml", teams) as harness:
        assert (await harness.call("read-members", team="i1"))["members"] == []
    assert harness.asked == ["GET /teams/i1"]


async def test_x_each_of_something_other_than_a_list_is_reported_in_page() -> None:
    async with bench("flows.yaml", Teams(members={"id": "m1"})) as harness:
        answer = await harness.call("read-members", team="i1")
    assert answer["members"] == []
    assert answer["page"]["complete"] is False
    assert "one-by-one: what it goes through is not a list" in answer["page"]["stoppedBecause"]


@pytest.mark.parametrize(
    "odd", [{}, {"id": None}, {"id": ""}, {"id": ["x"]}, {"id": True}, {"id": "a/../b"}, None, "x", 7]
)
async def test_x_each_skips_elements_without_an_id(odd: Any) -> None:
    async with bench("flows.yaml", Teams(members=[{"id": "m1"}, odd, {"id": 2}])) as harness:
        answer = await harness.call("read-members", team="i1")
    assert answer["members"] == [{"id": "m1"}, {"id": "2"}]
    assert answer["page"] == {
        "returned": 0,
        "complete": False,
        "stoppedBecause": "one-by-one: 1 of 3 have no id",
    }


# --- odd answers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "path", "expected"),
    [
        ([], "whole", "object"),
        ("x", "whole", "object"),
        (7, "whole", "object"),
        ({"team": "x"}, "whole.team", "object"),
        ({"team": []}, "whole.team", "object"),
    ],
)
async def test_step_answer_of_another_type_gives_a_warning(body: Any, path: str, expected: str) -> None:
    teams = Teams()
    teams.faults["GET /teams/i1"] = saying(200, body)
    async with bench("flows.yaml", teams) as harness:
        answer = await harness.call("read-members", team="i1")
    assert answer["name"] is None
    assert {(warning["path"], warning["expected"]) for warning in answer["warnings"]} == {(path, expected)}


@pytest.mark.parametrize("body", [["x"], "x", 7])
async def test_mapping_into_an_answer_of_another_type_gives_a_warning(body: Any) -> None:
    teams = Teams()
    teams.faults["POST /teams"] = saying(201, body)
    async with bench("flows.yaml", teams) as harness:
        answer = await harness.call("replace-team", team="i1", name="Pier")
    assert answer["id"] is None
    assert [(warning["path"], warning["expected"]) for warning in answer["warnings"]] == [("make", "object")]


@pytest.mark.parametrize("body", [{}, {"team": None}, {"team": {"name": None}}])
async def test_missing_or_null_in_a_step_answer_gives_no_warning(body: Any) -> None:
    teams = Teams()
    teams.faults["GET /teams/i1"] = saying(200, body)
    async with bench("flows.yaml", teams) as harness:
        assert "warnings" not in await harness.call("read-members", team="i1")


# --- what was written -------------------------------------------------------------------------------------------


async def test_x_each_sends_writes_one_by_one_and_stops_at_a_failure() -> None:
    teams = Teams()
    teams.faults["PUT /teams/new/members/m1"] = saying(403, REFUSED)
    async with bench("flows.yaml", teams) as harness:
        error = await harness.refused("make-team", name="Pier", members=["m0", "m1", "m2"])
    assert error["code"] == "InsufficientPermissions"
    assert error["completed"][0] == {"step": "make", "ids": ["new"]}
    assert error["completed"][1:] == [{"step": "add", "ids": ["m0"]}]
    assert teams.most_under_way == 1
    assert not any("m2" in request for request in harness.asked)
    assert "What completed names is done and stays" in error["hint"]


async def test_x_each_starts_no_element_after_a_failure() -> None:
    teams = Teams(members=[{"id": f"m{n}"} for n in range(24)])
    teams.faults["GET /teams/i1/members/m0"] = saying(403, REFUSED)
    async with bench("flows.yaml", teams) as harness:
        await harness.refused("read-members", team="i1")
    assert len(harness.asked) < 24


async def test_write_that_fails_x_require_is_in_completed() -> None:
    teams = Teams()
    teams.faults["POST /teams"] = saying(201, {"team": {"name": "x"}})
    async with bench("flows.yaml", teams) as harness:
        error = await harness.refused("make-team", name="Pier")
    assert error["code"] == "NoId"
    assert error["completed"] == [{"step": "make", "ids": []}]


async def test_earlier_write_is_in_completed_with_the_id_of_its_path() -> None:
    teams = Teams()
    teams.faults["POST /teams"] = hang_up
    async with bench("flows.yaml", teams) as harness:
        error = await harness.refused("replace-team", team="i7", name="Pier")
    assert error["code"] == "ConnectionLost"
    assert error["outcomeUnknown"] is True
    assert error["completed"] == [{"step": "drop", "ids": ["i7"]}]


async def test_flow_uses_a_written_id_of_another_type() -> None:
    teams = Teams()
    teams.faults["POST /teams"] = saying(201, {"team": {"id": 7}})
    async with bench("flows.yaml", teams) as harness:
        answer = await harness.call("replace-team", team="i7", name="Pier")
    assert answer == {"id": "7"}


@pytest.mark.parametrize("odd", [{}, {"id": None}, {"id": []}, {"id": "../x"}, "x", None])
async def test_write_without_the_id_for_a_later_step_is_in_completed(odd: Any) -> None:
    teams = Teams()
    teams.faults["POST /teams"] = saying(201, {"team": odd})
    text = ', x-require: {path: "$.team.id", code: NoId, message: "The team has no id.", hint: "Look."}'
    async with bench("flows.yaml", teams, replacing={text: ""}) as harness:
        error = await harness.refused("make-team", name="Pier", members=["m1"])
        assert harness.asked == ["POST /teams"]
    assert (error["code"], error["retryable"]) == ("UnexpectedAnswer", False)
    assert "no id at make.team.id" in error["message"]
    assert [step["step"] for step in error["completed"]] == ["make"]
    assert "Look at what is there before you call again" in error["hint"]


async def test_cancelled_flow_ends_promptly() -> None:
    async def cancel(request: Asked) -> None:
        scope.cancel()
        await request.until_closed()

    teams = Teams()
    teams.faults["GET /teams/i1/members/m1"] = cancel
    async with bench("flows.yaml", teams) as harness:
        with anyio.fail_after(5), anyio.CancelScope() as scope:
            await harness.call("read-members", team="i1")
    assert scope.cancelled_caught


async def test_first_request_of_a_flow_is_that_of_its_first_step() -> None:
    async with bench("flows.yaml", Teams()) as harness:
        request = harness.executor.first_request(harness.catalog.tools["find-team"], {"name": "Team 1"})
        assert (request.method, request.path, request.query) == ("GET", "/teams", (("$top", "1000"),))
        tool = harness.catalog.tools["find-team"]
        assert isinstance(tool.action, Steps)
        only_details = replace(tool, action=replace(tool.action, steps=tool.action.steps[2:]))
        with pytest.raises(InvalidArguments, match="With these arguments find-team sends nothing"):
            harness.executor.first_request(only_details, {"name": "Team 1"})
        assert harness.asked == []
