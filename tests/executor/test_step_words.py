"""The `x-` words on steps: limits, tolerated refusals, dates, counts and repetitions."""

from pathlib import Path
from typing import Any

import pytest

from itwin_mcp.errors import CallError
from tests.executor.bench import ITWIN, bench, in_turn, query_of, saying
from tests.upstream.loopback import Asked

pytestmark = pytest.mark.anyio

NO = {"error": {"code": "InsufficientPermissions", "message": "No."}}


class Teams:
    """Teams with parts. Unknown teams are refused; the caller's own teams are in two lists."""

    def __init__(self, mine: list[str], starred: list[str], **parts: list[dict[str, Any]]) -> None:
        self.lists = {"/mine": mine, "/starred": starred}
        self.parts = parts

    async def __call__(self, request: Asked) -> None:
        if request.path in self.lists:
            await request.json(200, {"teams": [{"id": team} for team in self.lists[request.path]]})
            return
        _, _, team, *more = request.path.split("/")
        if team not in self.parts:
            await request.json(404 if team == "gone" else 403, NO)
        elif not more:
            await request.json(200, {"id": team, "name": f"Team {team}"})
        else:
            skip, top = int(query_of(request).get("$skip", 0)), int(query_of(request)["$top"])
            rows = self.parts[team]
            more_there = skip + top < len(rows)
            href = f"https://api.bentley.com{request.path}?$skip={skip + top}&$top={top}" if more_there else None
            await request.json(200, {"parts": rows[skip : skip + top], "next": href})


def make_parts(*names: str) -> list[dict[str, Any]]:
    return [{"id": f"id-{name}", "name": name} for name in names]


def make_ids(*teams: str) -> list[dict[str, str]]:
    return [{"id": team} for team in teams]


async def find(teams: Teams, **arguments: Any) -> tuple[dict[str, Any], list[str]]:
    async with bench("words.yaml", teams) as harness:
        return await harness.call("find-part", name="bolt", **arguments), harness.asked


# --- x-unless, the long x-each, x-tolerate, x-most, [*] ----------------------------------------------------------


async def test_x_each_merges_several_lists_without_duplicates() -> None:
    answer, requests = await find(
        Teams(["a", "b"], ["b", "c", "a"], a=make_parts("bolt", "nut"), b=[], c=make_parts("bolts"))
    )
    assert answer == {
        "exact": [{"id": "id-bolt", "name": "bolt"}],
        "all": make_parts("bolt", "nut", "bolts"),
        "searched": make_ids("a", "b", "c"),
    }
    assert len(requests) == 5


async def test_x_each_of_a_read_sends_at_most_25_requests() -> None:
    teams = [f"t{n:02}" for n in range(40)]
    parts = Teams(teams, [], **{team: make_parts(team) for team in teams})
    async with bench("words.yaml", parts, replacing={"most: 3, as": "most: 100, as"}) as harness:
        answer = await harness.call("find-part", name="bolt")
        assert len(harness.asked) == 25
        assert answer["searched"] == make_ids(*teams[:23])
        assert answer["page"]["stoppedBecause"] == "found: only the first 23 of 40 are read here"


async def test_pages_of_a_read_count_towards_its_25_requests() -> None:
    parts = Teams(
        ["a", "b"], [], a=make_parts(*(f"a{n}" for n in range(400))), b=make_parts(*(f"b{n}" for n in range(400)))
    )
    async with bench("words.yaml", parts, replacing={"            x-most: 10\n": ""}) as harness:
        answer = await harness.call("find-part", name="bolt")
        assert len(harness.asked) == 24  # two lists, and eleven pages of each team
        assert len(answer["all"]) == 220
        assert answer["page"]["complete"] is False


async def test_x_unless_skips_a_step_if_its_path_has_a_value() -> None:
    answer, requests = await find(Teams(["a"], ["a"], a=make_parts("bolt"), z=make_parts("nut")), team="z")
    assert (answer["all"], answer["searched"]) == (make_parts("nut"), make_ids("z"))
    assert requests == ["GET /teams/z", "GET /teams/z/parts?$top=10"]


async def test_x_each_reports_elements_beyond_most() -> None:
    parts = {team: make_parts(team) for team in "abcde"}
    answer, requests = await find(Teams(["a", "b", "c"], ["d", "e"], **parts))
    assert answer["searched"] == make_ids("a", "b", "c")
    assert len(requests) == 5
    assert answer["page"] == {
        "returned": 3,
        "complete": False,
        "stoppedBecause": "found: only the first 3 of 5 are read here",
    }


async def test_x_tolerate_leaves_out_refused_elements_and_reports_them() -> None:
    answer, _ = await find(Teams(["closed", "a"], ["gone"], a=make_parts("bolt")))
    assert answer["searched"] == make_ids("a")
    assert answer["all"] == make_parts("bolt")
    assert answer["page"] == {
        "returned": 1,
        "complete": False,
        "stoppedBecause": "found: 2 of 3 could not be read (403, 404)",
    }


async def test_x_tolerate_does_not_cover_other_statuses() -> None:
    async with bench("words.yaml", in_turn(saying(200, {"teams": [{"id": "a"}]}), saying(422, NO))) as harness:
        error = await harness.refused("find-part", name="bolt")
    assert error["status"] == 422


async def test_x_most_reads_a_list_in_one_request_and_reports_more() -> None:
    answer, requests = await find(
        Teams(["a"], ["b"], a=make_parts(*(f"p{n}" for n in range(25))), b=make_parts("bolt"))
    )
    assert len(answer["all"]) == 11
    assert len(requests) == 4
    assert answer["page"] == {
        "returned": 11,
        "complete": False,
        "stoppedBecause": "found: only the first 10 items are read here",
    }


async def test_x_most_takes_one_request_even_for_short_pages() -> None:
    short = saying(200, {"parts": [{"id": "1"}], "next": "https://api.bentley.com/teams/a/parts?$skip=1&$top=10"})
    async with bench("words.yaml", short) as harness:
        answer = await harness.call("list-stale-parts", team="a", since="2026-02-01")
        assert len(harness.asked) == 1
    assert answer["page"]["stoppedBecause"] == "every: only the first 1 items are read here"


async def test_find_imodel_finds_the_exact_name_among_many_similar() -> None:
    async def platform(request: Asked) -> None:
        if request.path.startswith("/itwins/"):
            await request.json(200, {"iTwin": {"id": ITWIN, "displayName": "Corridor"}})
            return
        names = ["A"] if "name" in query_of(request) else [f"Model A {number}" for number in range(100)]
        more = None if "name" in query_of(request) else {"href": "https://api.bentley.com/imodels?$continuationToken=x"}
        listed = [{"id": f"id-{name}", "name": name} for name in names]
        await request.json(200, {"iModels": listed, "_links": {"next": more}})

    async with bench("", platform, shipped_files=True) as harness:
        matches = (await harness.call("find-imodel", iTwinId=ITWIN, name="A"))["matches"]
        assert len(harness.asked) == 3
    assert [item["name"] for item in matches["byName"]] == ["A"]
    assert len(matches["containing"]) == 100


async def test_x_tolerate_skips_steps_that_need_the_refused_one() -> None:
    async with bench("words.yaml", Teams([], [], a=make_parts("bolt"))) as harness:
        whole = await harness.call("read-team", team="a")
        without = await harness.call("read-team", team="gone")
        refused = await harness.refused("read-team", team="closed")
    assert whole == {"team": {"name": "Team a"}, "parts": [{"id": "id-bolt"}]}
    assert without == {
        "team": None,
        "parts": None,
        "page": {"returned": 0, "complete": False, "stoppedBecause": "whole: could not be read (404)"},
    }
    assert refused["status"] == 403


# --- x-compare --------------------------------------------------------------------------------------------------

MADE = ["2026-01-31T23:59:59.9990000Z", "2026-02-01T00:00:00Z", "2026-02-01T00:30:00+01:00", None, "2026-03-01"]


@pytest.mark.parametrize(
    ("since", "old"),
    [
        ("2026-02-01", "023"),
        ("2026-02-01T00:00:00Z", "023"),
        ("2026-02-01T00:00:01Z", "0123"),
        ("2026-02-01T00:30:00+01:00", "3"),
        ("2020-01-01", "3"),
    ],
)
async def test_x_compare_compares_moments_and_puts_missing_dates_first(since: str, old: str) -> None:
    parts = [{"id": str(n), "made": made} for n, made in enumerate(MADE)]
    async with bench("words.yaml", Teams([], [], a=parts)) as harness:
        answer = await harness.call("list-stale-parts", team="a", since=since)
    assert "".join(item["id"] for item in answer["old"]) == old
    assert "".join(item["id"] for item in answer["new"]) == "".join(sorted(set("01234") - set(old)))


async def test_x_compare_rejects_an_invalid_date() -> None:
    async with bench("words.yaml", Teams([], [], a=[])) as harness:
        error = await harness.refused("list-stale-parts", team="a", since="2026-02-30")
        assert harness.asked == []
    assert error["code"] == "InvalidArguments"
    assert error["message"] == "since is not a date that exists; nothing was sent."
    assert "2026-01-31" in error["hint"]


async def test_x_compare_reports_an_invalid_date_of_the_platform() -> None:
    async with bench("words.yaml", Teams([], [], a=[{"id": "0", "made": "yesterday"}, {"id": "1"}])) as harness:
        answer = await harness.call("list-stale-parts", team="a", since="2026-02-01")
    assert [item["id"] for item in answer["old"]] == ["0", "1"]
    assert [(warning["expected"], warning["got"]) for warning in answer["warnings"]] == [("date", "yesterday")]


# --- x-count ----------------------------------------------------------------------------------------------------


async def test_x_count_counts_matches_and_distinct_objects() -> None:
    saw, file = {"name": "saw"}, {"name": "file"}
    makers = [("x", saw), ("y", file), ("x", file), ("x", file), ("unknown", None)]
    parts = [{"id": str(n), "maker": maker, "tool": tool} for n, (maker, tool) in enumerate(makers)]
    async with bench("words.yaml", Teams(["y", "x", "z"], [], a=parts)) as harness:
        answer = await harness.call("list-makers", team="a")
    assert [(item["id"], item["parts"]) for item in answer["makers"]] == [("x", 3), ("y", 1), ("unknown", 1)]
    assert answer["makers"][2] == {"id": "unknown", "name": None, "parts": 1}
    assert answer["tools"] == [{"name": "file", "parts": 3}, {"name": "saw", "parts": 1}]


# --- x-repeat ---------------------------------------------------------------------------------------------------


async def test_x_repeat_repeats_until_the_last_answer_and_reports_progress() -> None:
    chunks = in_turn(saying(200, {"last": False}), saying(200, {"last": False}), saying(200, {"last": True}))
    async with bench("words.yaml", chunks) as harness:
        assert await harness.call("release-all", team="a") == {"last": True}
        assert harness.asked == ["POST /teams/a/release"] * 3
        assert harness.listener.told == [
            (1, 4, "release: 1 requests done, at most 4"),
            (2, 4, "release: 2 requests done, at most 4"),
        ]


async def test_x_repeat_stops_at_its_limit_and_says_how_to_continue() -> None:
    async with bench("words.yaml", saying(200, {"last": False})) as harness:
        answer = await harness.call("release-all", team="a")
        assert len(harness.asked) == 4
    assert answer["last"] is False
    assert answer["page"] == {
        "returned": 1,
        "complete": False,
        "stoppedBecause": "release: not all is done after 4 requests, call again to continue",
    }


async def test_x_repeat_that_fails_reports_completed() -> None:
    async with bench("words.yaml", in_turn(saying(200, {"last": False}), saying(403, NO))) as harness:
        error = await harness.refused("release-all", team="a")
    assert error["code"] == "InsufficientPermissions"
    assert error["completed"] == [{"step": "release", "ids": ["a"]}]


async def test_x_repeat_stops_at_an_answer_without_its_condition() -> None:
    async with bench("words.yaml", saying(200, {"done": True})) as harness:
        error = await harness.refused("release-all", team="a")
        assert len(harness.asked) == 1
    assert error["code"] == "UnexpectedAnswer"
    assert "do not repeat it" in error["hint"]
    assert error["completed"] == [{"step": "release", "ids": ["a"]}]


async def test_x_require_ends_the_flow_on_false() -> None:
    async with bench("words.yaml", saying(200, {"last": False})) as harness:
        error = await harness.refused("end-session", team="a")
        assert harness.asked == ["POST /teams/a/release"] * 2
    assert (error["code"], error["completed"]) == ("Left", [{"step": "release", "ids": ["a"]}])


# --- x-read -----------------------------------------------------------------------------------------------------


async def test_x_read_is_sent_only_on_request() -> None:
    async with bench("words.yaml", Teams([], [], a=make_parts("bolt"))) as harness:
        answer = await harness.call("list-parts", team="a")
        assert answer["parts"] == [{"id": "id-bolt"}]
        assert harness.asked == ["GET /teams/a/parts?$top=10"]


async def test_x_read_of_a_list_returns_at_most_24_items_and_a_cursor() -> None:
    parts = {f"t{n:02}": [] for n in range(60)}
    teams = Teams([], [], a=make_ids(*parts), **parts)
    async with bench("words.yaml", teams) as harness:
        first = await harness.call("list-parts", team="a", names=True)
        assert [part["fullName"] for part in first["parts"]] == [f"Team t{n:02}" for n in range(24)]
        assert first["page"]["stoppedBecause"] == (
            "with fullName at most 24 items are returned at a time: continue with the cursor"
        )
        second = await harness.call("list-parts", team="a", names=True, cursor=first["page"]["cursor"])
        third = await harness.call("list-parts", team="a", names=True, cursor=second["page"]["cursor"])
    assert [part["id"] for part in second["parts"] + third["parts"]] == [f"t{n:02}" for n in range(24, 60)]
    assert third["page"] == {"returned": 12, "complete": True, "total": 60}


async def test_x_read_that_fails_gives_null_and_a_warning() -> None:
    teams = Teams([], [], a=[*make_ids("b", "gone", "secret"), {"name": "without id"}], b=[])
    async with bench("words.yaml", teams) as harness:
        answer = await harness.call("list-parts", team="a", names=True)
    assert [part["fullName"] for part in answer["parts"]] == ["Team b", None, None, None]
    assert answer["warnings"] == [
        {"path": "$.parts[*].fullName", "expected": "string", "got": "InvalidArguments", "count": 3}
    ]
    assert answer["page"]["complete"]


@pytest.mark.parametrize("fault", [saying(403, NO), saying(200, "no JSON"), saying(200, {"name": {"odd": 1}})])
async def test_x_read_after_a_write_never_fails_the_call(fault: Any) -> None:
    async with bench("words.yaml", in_turn(saying(200, {"released": {"id": "a"}}), fault)) as harness:
        answer = await harness.call("release", team="a")
        assert harness.asked == ["POST /teams/a/release", "GET /teams/a"]
    assert answer["released"]["id"] == "a"
    assert answer["released"]["team"] in (None, {"name": None})
    assert answer["warnings"]


async def test_save_list_rejects_fields_that_need_a_request_per_item(tmp_path: Path) -> None:
    async with bench("words.yaml", Teams([], [], a=make_parts("bolt")), roots=[tmp_path]) as harness:
        with pytest.raises(CallError, match="cannot save fullName"):
            await harness.save("list-parts", "parts.csv", team="a", names=True)
        assert (await harness.save("list-parts", "parts.csv", team="a"))["saved"]["items"] == 1
