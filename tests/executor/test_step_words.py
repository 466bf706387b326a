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

    async def __call__(self, asked: Asked) -> None:
        if asked.path in self.lists:
            await asked.json(200, {"teams": [{"id": team} for team in self.lists[asked.path]]})
            return
        _, _, team, *more = asked.path.split("/")
        if team not in self.parts:
            await asked.json(404 if team == "gone" else 403, NO)
        elif not more:
            await asked.json(200, {"id": team, "name": f"Team {team}"})
        else:
            skip, top = int(query_of(asked).get("$skip", 0)), int(query_of(asked)["$top"])
            rows = self.parts[team]
            more_there = skip + top < len(rows)
            href = f"https://api.bentley.com{asked.path}?$skip={skip + top}&$top={top}" if more_there else None
            await asked.json(200, {"parts": rows[skip : skip + top], "next": href})


def named(*names: str) -> list[dict[str, Any]]:
    return [{"id": f"id-{name}", "name": name} for name in names]


def ids(*teams: str) -> list[dict[str, str]]:
    return [{"id": team} for team in teams]


async def find(teams: Teams, **arguments: Any) -> tuple[dict[str, Any], list[str]]:
    async with bench("words.yaml", teams) as it:
        return await it.call("find-part", name="bolt", **arguments), it.asked


# --- x-unless, the long x-each, x-tolerate, x-most, [*] ----------------------------------------------------------


async def test_x_each_merges_several_lists_without_duplicates() -> None:
    answer, asked = await find(Teams(["a", "b"], ["b", "c", "a"], a=named("bolt", "nut"), b=[], c=named("bolts")))
    assert answer == {
        "exact": [{"id": "id-bolt", "name": "bolt"}],
        "all": named("bolt", "nut", "bolts"),
        "searched": ids("a", "b", "c"),
    }
    assert len(asked) == 5


async def test_x_each_of_a_read_sends_at_most_25_requests() -> None:
    teams = [f"t{n:02}" for n in range(40)]
    parts = Teams(teams, [], **{team: named(team) for team in teams})
    async with bench("words.yaml", parts, replacing={"most: 3, as": "most: 100, as"}) as it:
        answer = await it.call("find-part", name="bolt")
        assert len(it.asked) == 25
        assert answer["searched"] == ids(*teams[:23])
        assert answer["page"]["stoppedBecause"] == "found: only the first 23 of 40 are read here"


async def test_pages_of_a_read_count_towards_its_25_requests() -> None:
    parts = Teams(["a", "b"], [], a=named(*(f"a{n}" for n in range(400))), b=named(*(f"b{n}" for n in range(400))))
    async with bench("words.yaml", parts, replacing={"            x-most: 10\n": ""}) as it:
        answer = await it.call("find-part", name="bolt")
        assert len(it.asked) == 24  # two lists, and eleven pages of each team
        assert len(answer["all"]) == 220
        assert answer["page"]["complete"] is False


async def test_x_unless_skips_a_step_if_its_path_has_a_value() -> None:
    answer, asked = await find(Teams(["a"], ["a"], a=named("bolt"), z=named("nut")), team="z")
    assert (answer["all"], answer["searched"]) == (named("nut"), ids("z"))
    assert asked == ["GET /teams/z", "GET /teams/z/parts?$top=10"]


async def test_x_each_reports_elements_beyond_most() -> None:
    parts = {team: named(team) for team in "abcde"}
    answer, asked = await find(Teams(["a", "b", "c"], ["d", "e"], **parts))
    assert answer["searched"] == ids("a", "b", "c")
    assert len(asked) == 5
    assert answer["page"] == {
        "returned": 3,
        "complete": False,
        "stoppedBecause": "found: only the first 3 of 5 are read here",
    }


async def test_x_tolerate_leaves_out_refused_elements_and_reports_them() -> None:
    answer, _ = await find(Teams(["closed", "a"], ["gone"], a=named("bolt")))
    assert answer["searched"] == ids("a")
    assert answer["all"] == named("bolt")
    assert answer["page"] == {
        "returned": 1,
        "complete": False,
        "stoppedBecause": "found: 2 of 3 could not be read (403, 404)",
    }


async def test_x_tolerate_does_not_cover_other_statuses() -> None:
    async with bench("words.yaml", in_turn(saying(200, {"teams": [{"id": "a"}]}), saying(422, NO))) as it:
        error = await it.refused("find-part", name="bolt")
    assert error["status"] == 422


async def test_x_most_reads_a_list_in_one_request_and_reports_more() -> None:
    answer, asked = await find(Teams(["a"], ["b"], a=named(*(f"p{n}" for n in range(25))), b=named("bolt")))
    assert len(answer["all"]) == 11
    assert len(asked) == 4
    assert answer["page"] == {
        "returned": 11,
        "complete": False,
        "stoppedBecause": "found: only the first 10 items are read here",
    }


async def test_x_most_takes_one_request_even_for_short_pages() -> None:
    short = saying(200, {"parts": [{"id": "1"}], "next": "https://api.bentley.com/teams/a/parts?$skip=1&$top=10"})
    async with bench("words.yaml", short) as it:
        answer = await it.call("list-stale-parts", team="a", since="2026-02-01")
        assert len(it.asked) == 1
    assert answer["page"]["stoppedBecause"] == "every: only the first 1 items are read here"


async def test_find_imodel_finds_the_exact_name_among_many_similar() -> None:
    async def platform(asked: Asked) -> None:
        if asked.path.startswith("/itwins/"):
            await asked.json(200, {"iTwin": {"id": ITWIN, "displayName": "Corridor"}})
            return
        names = ["A"] if "name" in query_of(asked) else [f"Model A {number}" for number in range(100)]
        more = None if "name" in query_of(asked) else {"href": "https://api.bentley.com/imodels?$continuationToken=x"}
        listed = [{"id": f"id-{name}", "name": name} for name in names]
        await asked.json(200, {"iModels": listed, "_links": {"next": more}})

    async with bench("", platform, shipped_files=True) as it:
        matches = (await it.call("find-imodel", iTwinId=ITWIN, name="A"))["matches"]
        assert len(it.asked) == 3
    assert [one["name"] for one in matches["byName"]] == ["A"]
    assert len(matches["containing"]) == 100


async def test_x_tolerate_skips_steps_that_need_the_refused_one() -> None:
    async with bench("words.yaml", Teams([], [], a=named("bolt"))) as it:
        whole = await it.call("read-team", team="a")
        without = await it.call("read-team", team="gone")
        refused = await it.refused("read-team", team="closed")
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
    async with bench("words.yaml", Teams([], [], a=parts)) as it:
        answer = await it.call("list-stale-parts", team="a", since=since)
    assert "".join(one["id"] for one in answer["old"]) == old
    assert "".join(one["id"] for one in answer["new"]) == "".join(sorted(set("01234") - set(old)))


async def test_x_compare_rejects_an_invalid_date() -> None:
    async with bench("words.yaml", Teams([], [], a=[])) as it:
        error = await it.refused("list-stale-parts", team="a", since="2026-02-30")
        assert it.asked == []
    assert error["code"] == "InvalidArguments"
    assert error["message"] == "since is not a date that exists; nothing was sent."
    assert "2026-01-31" in error["hint"]


async def test_x_compare_reports_an_invalid_date_of_the_platform() -> None:
    async with bench("words.yaml", Teams([], [], a=[{"id": "0", "made": "yesterday"}, {"id": "1"}])) as it:
        answer = await it.call("list-stale-parts", team="a", since="2026-02-01")
    assert [one["id"] for one in answer["old"]] == ["0", "1"]
    assert [(one["expected"], one["got"]) for one in answer["warnings"]] == [("date", "yesterday")]


# --- x-count ----------------------------------------------------------------------------------------------------


async def test_x_count_counts_matches_and_distinct_objects() -> None:
    saw, file = {"name": "saw"}, {"name": "file"}
    makers = [("x", saw), ("y", file), ("x", file), ("x", file), ("unknown", None)]
    parts = [{"id": str(n), "maker": maker, "tool": tool} for n, (maker, tool) in enumerate(makers)]
    async with bench("words.yaml", Teams(["y", "x", "z"], [], a=parts)) as it:
        answer = await it.call("list-makers", team="a")
    assert [(one["id"], one["parts"]) for one in answer["makers"]] == [("x", 3), ("y", 1), ("unknown", 1)]
    assert answer["makers"][2] == {"id": "unknown", "name": None, "parts": 1}
    assert answer["tools"] == [{"name": "file", "parts": 3}, {"name": "saw", "parts": 1}]


# --- x-repeat ---------------------------------------------------------------------------------------------------


async def test_x_repeat_repeats_until_the_last_answer_and_reports_progress() -> None:
    chunks = in_turn(saying(200, {"last": False}), saying(200, {"last": False}), saying(200, {"last": True}))
    async with bench("words.yaml", chunks) as it:
        assert await it.call("release-all", team="a") == {"last": True}
        assert it.asked == ["POST /teams/a/release"] * 3
        assert it.listener.told == [
            (1, 4, "release: 1 requests done, at most 4"),
            (2, 4, "release: 2 requests done, at most 4"),
        ]


async def test_x_repeat_stops_at_its_limit_and_says_how_to_continue() -> None:
    async with bench("words.yaml", saying(200, {"last": False})) as it:
        answer = await it.call("release-all", team="a")
        assert len(it.asked) == 4
    assert answer["last"] is False
    assert answer["page"] == {
        "returned": 1,
        "complete": False,
        "stoppedBecause": "release: not all is done after 4 requests, call again to continue",
    }


async def test_x_repeat_that_fails_reports_completed() -> None:
    async with bench("words.yaml", in_turn(saying(200, {"last": False}), saying(403, NO))) as it:
        error = await it.refused("release-all", team="a")
    assert error["code"] == "InsufficientPermissions"
    assert error["completed"] == [{"step": "release", "ids": ["a"]}]


async def test_x_repeat_stops_at_an_answer_without_its_condition() -> None:
    async with bench("words.yaml", saying(200, {"done": True})) as it:
        error = await it.refused("release-all", team="a")
        assert len(it.asked) == 1
    assert error["code"] == "UnexpectedAnswer"
    assert "do not repeat it" in error["hint"]
    assert error["completed"] == [{"step": "release", "ids": ["a"]}]


async def test_x_require_ends_the_flow_on_false() -> None:
    async with bench("words.yaml", saying(200, {"last": False})) as it:
        error = await it.refused("end-session", team="a")
        assert it.asked == ["POST /teams/a/release"] * 2
    assert (error["code"], error["completed"]) == ("Left", [{"step": "release", "ids": ["a"]}])


# --- x-read -----------------------------------------------------------------------------------------------------


async def test_x_read_is_sent_only_on_request() -> None:
    async with bench("words.yaml", Teams([], [], a=named("bolt"))) as it:
        answer = await it.call("list-parts", team="a")
        assert answer["parts"] == [{"id": "id-bolt"}]
        assert it.asked == ["GET /teams/a/parts?$top=10"]


async def test_x_read_of_a_list_returns_at_most_24_items_and_a_cursor() -> None:
    parts = {f"t{n:02}": [] for n in range(60)}
    teams = Teams([], [], a=ids(*parts), **parts)
    async with bench("words.yaml", teams) as it:
        first = await it.call("list-parts", team="a", names=True)
        assert [part["fullName"] for part in first["parts"]] == [f"Team t{n:02}" for n in range(24)]
        assert first["page"]["stoppedBecause"] == (
            "with fullName at most 24 items are returned at a time: continue with the cursor"
        )
        second = await it.call("list-parts", team="a", names=True, cursor=first["page"]["cursor"])
        third = await it.call("list-parts", team="a", names=True, cursor=second["page"]["cursor"])
    assert [part["id"] for part in second["parts"] + third["parts"]] == [f"t{n:02}" for n in range(24, 60)]
    assert third["page"] == {"returned": 12, "complete": True, "total": 60}


async def test_x_read_that_fails_gives_null_and_a_warning() -> None:
    teams = Teams([], [], a=[*ids("b", "gone", "secret"), {"name": "without id"}], b=[])
    async with bench("words.yaml", teams) as it:
        answer = await it.call("list-parts", team="a", names=True)
    assert [part["fullName"] for part in answer["parts"]] == ["Team b", None, None, None]
    assert answer["warnings"] == [
        {"path": "$.parts[*].fullName", "expected": "string", "got": "InvalidArguments", "count": 3}
    ]
    assert answer["page"]["complete"]


@pytest.mark.parametrize("fault", [saying(403, NO), saying(200, "no JSON"), saying(200, {"name": {"odd": 1}})])
async def test_x_read_after_a_write_never_fails_the_call(fault: Any) -> None:
    async with bench("words.yaml", in_turn(saying(200, {"released": {"id": "a"}}), fault)) as it:
        answer = await it.call("release", team="a")
        assert it.asked == ["POST /teams/a/release", "GET /teams/a"]
    assert answer["released"]["id"] == "a"
    assert answer["released"]["team"] in (None, {"name": None})
    assert answer["warnings"]


async def test_save_list_rejects_fields_that_need_a_request_per_item(tmp_path: Path) -> None:
    async with bench("words.yaml", Teams([], [], a=named("bolt")), roots=[tmp_path]) as it:
        with pytest.raises(CallError, match="cannot save fullName"):
            await it.save("list-parts", "parts.csv", team="a", names=True)
        assert (await it.save("list-parts", "parts.csv", team="a"))["saved"]["items"] == 1
