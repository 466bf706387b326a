"""The words on steps: bounded lists of lists, tolerated refusals, dates, counts, repetitions; and what each says."""

from typing import Any

import pytest

from tests.executor.bench import ITWIN, bench, in_turn, query_of, saying
from tests.upstream.loopback import Asked

pytestmark = pytest.mark.anyio

NO = {"error": {"code": "InsufficientPermissions", "message": "No."}}


class Teams:
    """Teams with parts; a team that is not among them is refused, and the caller's own come in two lists."""

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


async def test_elements_of_several_lists_are_taken_once_in_order_and_their_answers_are_one_list() -> None:
    answer, asked = await find(Teams(["a", "b"], ["b", "c", "a"], a=named("bolt", "nut"), b=[], c=named("bolts")))
    assert answer == {
        "exact": [{"id": "id-bolt", "name": "bolt"}],
        "all": named("bolt", "nut", "bolts"),
        "searched": ids("a", "b", "c"),
    }
    assert len(asked) == 5


async def test_a_call_that_only_reads_sends_at_most_25_requests_and_says_what_it_left_out() -> None:
    teams = [f"t{n:02}" for n in range(40)]
    parts = Teams(teams, [], **{team: named(team) for team in teams})
    async with bench("words.yaml", parts, replacing={"most: 3, as": "most: 100, as"}) as it:
        answer = await it.call("find-part", name="bolt")
        assert len(it.asked) == 25
        assert answer["searched"] == ids(*teams[:23])
        assert answer["page"]["stoppedBecause"] == "found: only the first 23 of 40 are read here"


async def test_pages_of_a_call_that_only_reads_count_towards_its_25_requests() -> None:
    parts = Teams(["a", "b"], [], a=named(*(f"a{n}" for n in range(400))), b=named(*(f"b{n}" for n in range(400))))
    async with bench("words.yaml", parts, replacing={"            x-most: 10\n": ""}) as it:
        answer = await it.call("find-part", name="bolt")
        assert len(it.asked) == 24  # two lists, and eleven pages of each team
        assert len(answer["all"]) == 220
        assert answer["page"]["complete"] is False


async def test_a_step_is_left_out_where_x_unless_finds_something() -> None:
    answer, asked = await find(Teams(["a"], ["a"], a=named("bolt"), z=named("nut")), team="z")
    assert (answer["all"], answer["searched"]) == (named("nut"), ids("z"))
    assert asked == ["GET /teams/z", "GET /teams/z/parts?$top=10"]


async def test_what_is_beyond_the_bound_is_not_read_and_said() -> None:
    parts = {team: named(team) for team in "abcde"}
    answer, asked = await find(Teams(["a", "b", "c"], ["d", "e"], **parts))
    assert answer["searched"] == ids("a", "b", "c")
    assert len(asked) == 5
    assert answer["page"] == {
        "returned": 0,
        "complete": False,
        "stoppedBecause": "found: only the first 3 of 5 are read here",
    }


async def test_a_tolerated_refusal_leaves_its_element_out_and_is_said() -> None:
    answer, _ = await find(Teams(["closed", "a"], ["gone"], a=named("bolt")))
    assert answer["searched"] == ids("a")
    assert answer["all"] == named("bolt")
    assert answer["page"] == {
        "returned": 1,
        "complete": False,
        "stoppedBecause": "found: 2 of 3 could not be read (403, 404)",
    }


async def test_another_failure_is_not_tolerated() -> None:
    async with bench("words.yaml", in_turn(saying(200, {"teams": [{"id": "a"}]}), saying(422, NO))) as it:
        error = await it.refused("find-part", name="bolt")
    assert error["status"] == 422


async def test_a_list_is_read_up_to_its_bound_in_one_request_and_says_that_there_is_more() -> None:
    answer, asked = await find(Teams(["a"], ["b"], a=named(*(f"p{n}" for n in range(25))), b=named("bolt")))
    assert len(answer["all"]) == 11
    assert len(asked) == 4
    assert answer["page"] == {
        "returned": 11,
        "complete": False,
        "stoppedBecause": "found: only the first 10 items are read here",
    }


async def test_a_bounded_list_takes_no_more_requests_because_its_pages_are_short() -> None:
    short = saying(200, {"parts": [{"id": "1"}], "next": "https://api.bentley.com/teams/a/parts?$skip=1&$top=10"})
    async with bench("words.yaml", short) as it:
        answer = await it.call("list-stale-parts", team="a", since="2026-02-01")
        assert len(it.asked) == 1
    assert answer["page"]["stoppedBecause"] == "every: only the first 1 items are read here"


async def test_the_exact_name_is_found_in_an_itwin_with_more_imodels_of_such_a_name_than_are_searched() -> None:
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


async def test_a_single_step_that_is_refused_has_no_value_and_the_steps_that_need_it_are_left_out() -> None:
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
async def test_dates_are_compared_as_moments_and_what_has_none_lies_before(since: str, old: str) -> None:
    parts = [{"id": str(n), "made": made} for n, made in enumerate(MADE)]
    async with bench("words.yaml", Teams([], [], a=parts)) as it:
        answer = await it.call("list-stale-parts", team="a", since=since)
    assert "".join(one["id"] for one in answer["old"]) == old
    assert "".join(one["id"] for one in answer["new"]) == "".join(sorted(set("01234") - set(old)))


async def test_what_is_no_date_is_refused_in_words() -> None:
    async with bench("words.yaml", Teams([], [], a=[])) as it:
        error = await it.refused("list-stale-parts", team="a", since="2026-02-30")
        assert it.asked == []
    assert error["code"] == "InvalidArguments"
    assert error["message"] == "since is not a date that exists; nothing was sent."
    assert "2026-01-31" in error["hint"]


async def test_a_field_of_the_platform_that_is_no_date_counts_as_none_and_is_reported() -> None:
    async with bench("words.yaml", Teams([], [], a=[{"id": "0", "made": "yesterday"}, {"id": "1"}])) as it:
        answer = await it.call("list-stale-parts", team="a", since="2026-02-01")
    assert [one["id"] for one in answer["old"]] == ["0", "1"]
    assert [(one["expected"], one["got"]) for one in answer["warnings"]] == [("date", "yesterday")]


# --- x-count ----------------------------------------------------------------------------------------------------


async def test_matches_and_distinct_objects_are_counted() -> None:
    saw, file = {"name": "saw"}, {"name": "file"}
    makers = [("x", saw), ("y", file), ("x", file), ("x", file), ("unknown", None)]
    parts = [{"id": str(n), "maker": maker, "tool": tool} for n, (maker, tool) in enumerate(makers)]
    async with bench("words.yaml", Teams(["y", "x", "z"], [], a=parts)) as it:
        answer = await it.call("list-makers", team="a")
    assert [(one["id"], one["parts"]) for one in answer["makers"]] == [("y", 1), ("x", 3), ("unknown", 1)]
    assert answer["makers"][2] == {"id": "unknown", "name": None, "parts": 1}
    assert answer["tools"] == [{"name": "file", "parts": 3}, {"name": "saw", "parts": 1}]


# --- x-repeat ---------------------------------------------------------------------------------------------------


async def test_a_request_is_repeated_until_its_answer_says_that_it_was_the_last_and_progress_is_told() -> None:
    chunks = in_turn(saying(200, {"last": False}), saying(200, {"last": False}), saying(200, {"last": True}))
    async with bench("words.yaml", chunks) as it:
        assert await it.call("release-all", team="a") == {"last": True}
        assert it.asked == ["POST /teams/a/release"] * 3
        assert it.listener.told == [
            (1, 4, "release: 1 requests done, at most 4"),
            (2, 4, "release: 2 requests done, at most 4"),
        ]


async def test_a_repetition_ends_at_its_bound_and_says_how_to_go_on() -> None:
    async with bench("words.yaml", saying(200, {"last": False})) as it:
        answer = await it.call("release-all", team="a")
        assert len(it.asked) == 4
    assert answer["last"] is False
    assert answer["page"] == {
        "returned": 1,
        "complete": False,
        "stoppedBecause": "release: not all is done after 4 requests, call again to go on",
    }


async def test_a_repetition_that_fails_names_what_it_did_before() -> None:
    async with bench("words.yaml", in_turn(saying(200, {"last": False}), saying(403, NO))) as it:
        error = await it.refused("release-all", team="a")
    assert error["code"] == "InsufficientPermissions"
    assert error["completed"] == [{"step": "release", "ids": ["a"]}]


async def test_an_answer_that_does_not_say_whether_it_was_the_last_ends_a_repetition() -> None:
    async with bench("words.yaml", saying(200, {"done": True})) as it:
        error = await it.refused("release-all", team="a")
        assert len(it.asked) == 1
    assert error["code"] == "UnexpectedAnswer"
    assert "do not repeat it" in error["hint"]
    assert error["completed"] == [{"step": "release", "ids": ["a"]}]


async def test_what_a_step_requires_and_finds_false_ends_the_flow() -> None:
    async with bench("words.yaml", saying(200, {"last": False})) as it:
        error = await it.refused("end-session", team="a")
        assert it.asked == ["POST /teams/a/release"] * 2
    assert (error["code"], error["completed"]) == ("Left", [{"step": "release", "ids": ["a"]}])
