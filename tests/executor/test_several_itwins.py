"""Tools that read several iTwins or iModels: how many requests they send, what they leave out, and how to continue."""

import csv
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from itwin_mcp.capability.parameters import Preset, apply_presets
from itwin_mcp.executor.flow_steps import MAX_READS
from tests.executor.bench import Bench, bench, query_of
from tests.upstream.loopback import Asked

pytestmark = pytest.mark.anyio

NO = {"error": {"code": "InsufficientPermissions", "message": "No."}}
ME = "aaaaaaaa-0000-4000-8000-000000000001"
OTHER = "aaaaaaaa-0000-4000-8000-000000000002"
NAMES = {ME: "Anna", OTHER: "Tomasz"}


def itwin(number: int) -> str:
    return f"11111111-0000-4000-8000-{number:012}"


def imodel(number: int, part: int = 0) -> str:
    return f"22222222-{part:04}-4000-8000-{number:012}"


class Platform:
    """iTwins with some iModels each. In each iModel the caller pushed one changeset and a colleague two.

    Both have a briefcase with the same numbers in every iModel, and hold a lock with it, except those in `unlocked`.
    """

    def __init__(
        self,
        itwins: int,
        imodels: int = 1,
        *,
        hidden: tuple[str, ...] = (),
        changesets: int = 3,
        unlocked: tuple[tuple[str, int], ...] = (),
        description: str = "",
    ) -> None:
        self.itwins = [itwin(number) for number in range(itwins)]
        self.imodels = {itwin(n): [imodel(n, part) for part in range(imodels)] for n in range(itwins)}
        self.hidden = hidden
        self.changesets = changesets
        self.unlocked = unlocked
        self.description = description
        """Description of the iModels in the second iTwin."""

    @property
    def every(self) -> list[str]:
        return [imodel for several in self.imodels.values() for imodel in several]

    async def __call__(self, asked: Asked) -> None:
        query = query_of(asked)
        parts = asked.path.strip("/").split("/")
        around = query.get("iTwinId", parts[1] if len(parts) > 1 else "")
        if around in self.hidden:
            await asked.json(403, NO)
        elif parts == ["users", "getbyidlist"]:
            await asked.json(200, {"users": []})
        elif parts == ["itwins"]:
            named = query.get("displayName", query.get("number"))
            known = [{"id": itwin, "displayName": f"Site {self.itwins.index(itwin)}"} for itwin in self.itwins]
            found = [entry for entry in known if named is None or entry["displayName"] == named]
            await asked.json(200, {"iTwins": found, "_links": {}})
        elif parts == ["imodels"]:
            found = [self._imodel(imodel, around) for imodel in self.imodels[around]]
            await self._page(asked, "iModels", found)
        elif parts[2:] == ["changesets"]:
            await self._page(asked, "changesets", [self._changeset(index) for index in range(self.changesets)])
        elif parts[2:] == ["namedversions"]:
            await self._page(asked, "namedVersions", [{"id": imodel(9), "name": "Tender"}])
        elif parts[2:] == ["users"]:
            await asked.json(200, {"users": [{"id": user, "displayName": name} for user, name in NAMES.items()]})
        elif parts[2:] == ["briefcases"]:
            both = {"deviceName": parts[1], "application": {"id": "bridge", "name": "OpenBridge Modeler"}}
            mine = [{"id": "2", "briefcaseId": 2, "ownerId": ME, **both}]
            theirs = [{"id": "3", "briefcaseId": 3, "ownerId": OTHER, **both}]
            await asked.json(200, {"briefcases": mine + theirs * (query.get("ownerId") != "me")})
        elif parts[2:] == ["locks"]:
            numbers = [int(query["briefcaseId"])] if "briefcaseId" in query else [2, 3]
            numbers = [number for number in numbers if (parts[1], number) not in self.unlocked]
            held = [{"lockLevel": "shared", "objectIds": ["0x1"]}]
            await asked.json(200, {"locks": [{"briefcaseId": number, "lockedObjects": held} for number in numbers]})
        else:
            raise AssertionError(asked.target)

    def _imodel(self, identifier: str, around: str) -> dict[str, Any]:
        pushed = None if identifier.endswith("1") else "2026-05-01T00:00:00Z"
        text = self.description if around == itwin(1) else ""
        brief = {"id": identifier, "name": identifier, "iTwinId": around, "description": text}
        return {**brief, "lastChangesetPushDateTime": pushed}

    def _changeset(self, index: int) -> dict[str, Any]:
        return {
            "id": f"{index:040x}",
            "index": index,
            "creatorId": ME if index % 3 == 0 else OTHER,
            "pushDateTime": f"2026-0{index % 3 + 1}-15T12:00:00Z",
            "description": f"Moved PIER {index}" if index % 3 == 1 else None,
        }

    async def _page(self, asked: Asked, name: str, rows: list[dict[str, Any]]) -> None:
        query = query_of(asked)
        skip, top = int(query.get("$skip", 0)), int(query["$top"])
        more = "&".join(f"{key}={value}" for key, value in query.items() if key not in ("$skip", "$top"))
        href = f"https://api.bentley.com{asked.path}?{more}&$skip={skip + top}&$top={top}"
        following = {"next": {"href": href}} if skip + top < len(rows) else {}
        await asked.json(200, {name: rows[skip : skip + top], "_links": following})


def list_requests(it: Bench) -> list[str]:
    """Return the requests that were not for the names of people."""
    return [request for request in it.asked if "/users/getbyidlist" not in request]


def count_requests(it: Bench, path: str) -> int:
    return sum(path in unquote(request) for request in it.asked)


# --- limits, and how they are reported ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("list-imodels", {"limit": 1000}),
        ("list-stale-imodels", {}),
        ("list-lock-holders", {}),
        ("list-lock-holders", {"mine": True}),
        ("count-pushes", {}),
        ("list-changesets", {"limit": 1000}),
        ("list-changesets", {"limit": 1000, "search": "pier"}),
        ("list-named-versions", {"limit": 1000, "search": "Tender"}),
    ],
)
async def test_call_over_all_itwins_sends_at_most_25_requests(tool: str, arguments: dict[str, Any]) -> None:
    async with bench("", Platform(40, 3), shipped_files=True) as it:
        answer = await it.call(tool, **arguments)
    assert len(it.asked) <= MAX_READS
    page = answer["page"]
    assert page["complete"] is False
    assert page["stoppedBecause"]
    assert page.get("notRead") or page.get("cursor")


@pytest.mark.parametrize("tool", ["list-stale-imodels", "list-lock-holders", "count-pushes"])
async def test_page_not_read_passed_back_reads_every_imodel(tool: str) -> None:
    platform = Platform(23, 2)
    seen: list[str] = []
    async with bench("", platform, shipped_files=True) as it:
        left: dict[str, list[str]] = {}
        for _ in range(20):
            before = len(it.asked)
            answer = await it.call(tool, **left)
            assert len(it.asked) - before <= MAX_READS
            found = answer["searched"]
            if tool == "list-stale-imodels":
                found = [imodel for several in answer["iModels"].values() for imodel in several or ()]
                pushed = [identity for identity in platform.every if not identity.endswith("1")]
                seen += [] if seen else pushed
            seen += [item["id"] for item in found]
            left = answer.get("page", {}).get("notRead", {})
            if not left:
                break
    assert sorted(seen) == sorted(platform.every)


async def test_page_reports_that_not_read_is_shortened() -> None:
    async with bench("", Platform(200), shipped_files=True) as it:
        page = (await it.call("count-pushes"))["page"]
    assert len(page["notRead"]["iTwinIds"]) == 100
    assert "page.notRead names only the first 100 of 192 iTwinIds" in page["stoppedBecause"]


async def test_list_imodels_reads_all_itwins_with_one_cursor() -> None:
    platform = Platform(40, 3)
    async with bench("", platform, shipped_files=True) as it:
        seen, cursor = list[str](), {}
        for _ in range(20):
            before = len(it.asked)
            answer = await it.call("list-imodels", limit=50, **cursor)
            assert len(it.asked) - before <= MAX_READS
            seen += [imodel["id"] for imodel in answer["iModels"]]
            if "cursor" not in answer["page"]:
                break
            cursor = {"cursor": answer["page"]["cursor"]}
    assert seen == platform.every
    assert answer["page"]["complete"]


@pytest.mark.parametrize("limit", [1, 2, 5])
async def test_cursor_continues_inside_one_of_several_itwins(limit: int) -> None:
    platform = Platform(3, 4)
    async with bench("", platform, shipped_files=True) as it:
        seen, cursor = list[tuple[str, str]](), {}
        for _ in range(20):
            answer = await it.call("list-imodels", limit=limit, iTwinIds=platform.itwins[1:], **cursor)
            assert len(answer["iModels"]) <= limit
            seen += [(imodel["iTwinId"], imodel["id"]) for imodel in answer["iModels"]]
            if "cursor" not in answer["page"]:
                break
            cursor = {"cursor": answer["page"]["cursor"]}
    assert seen == [(itwin, model) for itwin in platform.itwins[1:] for model in platform.imodels[itwin]]


async def test_answer_of_several_itwins_keeps_to_its_bytes_and_continues() -> None:
    platform = Platform(12, 2)
    async with bench("", platform, shipped_files=True, max_result_bytes=4_000) as it:
        first = await it.call("list-imodels", limit=100)
        assert "bytes" in first["page"]["stoppedBecause"]
        rest = await it.call("list-imodels", limit=100, cursor=first["page"]["cursor"])
    got = [imodel["id"] for imodel in (*first["iModels"], *rest["iModels"])]
    assert got == platform.every[: len(got)]
    assert len(got) > len(first["iModels"])


async def test_large_item_of_a_later_itwin_waits_for_the_next_answer() -> None:
    async with bench("", Platform(2, description="x" * 2_500), shipped_files=True, max_result_bytes=4_000) as it:
        first = await it.call("list-imodels")
        assert [imodel["iTwinId"] for imodel in first["iModels"]] == [itwin(0)]
        rest = await it.call("list-imodels", cursor=first["page"]["cursor"])
    assert [len(imodel["description"]) for imodel in rest["iModels"]] == [2_500]


async def test_cursor_into_a_deleted_itwin_is_rejected() -> None:
    platform = Platform(5)
    async with bench("", platform, shipped_files=True) as it:
        cursor = (await it.call("list-imodels", limit=2))["page"]["cursor"]
        del platform.itwins[2]
        error = await it.refused("list-imodels", limit=2, cursor=cursor)
    assert (error["code"], error["details"][0]["target"]) == ("InvalidArguments", "cursor")


async def test_total_of_several_itwins_is_returned_if_one_call_reads_all() -> None:
    platform = Platform(3, 2)
    async with bench("", platform, shipped_files=True) as it:
        assert (await it.call("list-imodels"))["page"] == {"returned": 6, "complete": True, "total": 6}
        part = await it.call("list-imodels", limit=4)
        assert "total" not in part["page"]
        assert "total" not in (await it.call("list-imodels", limit=4, cursor=part["page"]["cursor"]))["page"]


async def test_list_imodels_without_any_itwin_returns_an_empty_list() -> None:
    async with bench("", Platform(0), shipped_files=True) as it:
        answer = await it.call("list-imodels")
    assert answer == {"iModels": [], "page": {"returned": 0, "complete": True, "total": 0}}


# --- a single iTwin or iModel -------------------------------------------------------------------------------------


async def test_one_itwin_or_imodel_takes_no_extra_requests() -> None:
    async with bench("", Platform(5, 2), shipped_files=True) as it:
        for tool, given, requests in (
            ("list-imodels", {"iTwinId": itwin(1)}, 1),
            ("list-stale-imodels", {"iTwinId": itwin(1)}, 1),
            ("list-changesets", {"iModelId": imodel(1)}, 1),
            ("list-named-versions", {"iModelId": imodel(1)}, 1),
            ("list-lock-holders", {"iModelId": imodel(1)}, 3),
            ("count-pushes", {"iModelId": imodel(1)}, 2),
        ):
            before = len(list_requests(it))
            answer = await it.call(tool, **given)
            assert len(list_requests(it)) - before == requests, tool
            assert answer.get("page", {"complete": True})["complete"], tool


async def test_items_of_several_imodels_have_their_imodel_id() -> None:
    async with bench("", Platform(2), shipped_files=True) as it:
        for tool, member in (("list-changesets", "changesets"), ("list-named-versions", "namedVersions")):
            found = (await it.call(tool, iModelIds=[imodel(0), imodel(1)]))[member]
            assert {item["iModelId"] for item in found} == {imodel(0), imodel(1)}, tool


@pytest.mark.parametrize(
    "tool", ["list-imodels", "list-stale-imodels", "list-lock-holders", "count-pushes", "list-changesets"]
)
async def test_all_that_the_caller_can_see_includes_inactive_itwins(tool: str) -> None:
    async with bench("", Platform(1), shipped_files=True) as it:
        await it.call(tool)
    assert [query.split("?")[1] for query in it.asked if query.startswith("GET /itwins?")] == [
        "includeInactive=true&$top=1000"
    ]


# --- iTwins that cannot be read -----------------------------------------------------------------------------------


async def test_forbidden_itwin_is_left_out_and_reported() -> None:
    async with bench("", Platform(3, hidden=(itwin(1),)), shipped_files=True) as it:
        for tool in ("list-imodels", "list-stale-imodels"):
            answer = await it.call(tool, iTwinIds=[itwin(0), itwin(1)])
            assert answer["page"]["complete"] is False
            assert "1 of 2 could not be read (403)" in answer["page"]["stoppedBecause"]
            for given in ({"iTwinId": itwin(1)}, {"iTwinIds": [itwin(1)]}):
                assert (await it.refused(tool, **given))["code"] == "InsufficientPermissions"


async def test_failure_after_some_itwins_were_read_keeps_them_and_gives_a_cursor() -> None:
    platform = Platform(3)

    async def failing(asked: Asked) -> None:
        if query_of(asked).get("iTwinId") == itwin(1):
            await asked.json(400, {"error": {"code": "InvalidRequest", "message": "No."}})
        else:
            await platform(asked)

    async with bench("", failing, shipped_files=True) as it:
        answer = await it.call("list-imodels")
    assert [imodel["iTwinId"] for imodel in answer["iModels"]] == [itwin(0)]
    assert answer["page"]["error"]["code"] == "InvalidRequest"
    assert answer["page"]["cursor"]


async def test_itwin_without_an_id_is_left_out_and_reported() -> None:
    platform = Platform(2)

    async def nameless(asked: Asked) -> None:
        if asked.path == "/itwins":
            await asked.json(200, {"iTwins": [{"id": itwin(0)}, {"displayName": "None"}, {"id": 7}], "_links": {}})
        else:
            await platform(asked)

    platform.imodels["7"] = []
    async with bench("", nameless, shipped_files=True) as it:
        for tool in ("list-imodels", "list-stale-imodels"):
            page = (await it.call(tool))["page"]
            assert page["complete"] is False
            assert "1 of 3 have no id" in page["stoppedBecause"]


@pytest.mark.parametrize("odd", [b"[]", b"<html>"])
async def test_itwin_with_an_unexpected_answer_is_left_out_and_reported(odd: bytes) -> None:
    platform = Platform(3)

    async def answering(asked: Asked) -> None:
        if query_of(asked).get("iTwinId") == itwin(1):
            await asked.answer(200, odd, {"Content-Type": "application/json"})
        else:
            await platform(asked)

    async with bench("", answering, shipped_files=True) as it:
        answer = await it.call("list-imodels")
    assert [imodel["iTwinId"] for imodel in answer["iModels"]] == [itwin(0), itwin(2)]
    assert answer["page"]["complete"] is False
    assert f"1 of 3 could not be read (UnexpectedAnswer): {itwin(1)}" in answer["page"]["stoppedBecause"]


# --- lists of entities --------------------------------------------------------------------------------------------


async def test_names_in_a_list_are_resolved_and_duplicates_read_once() -> None:
    async with bench("", Platform(4), shipped_files=True) as it:
        answer = await it.call(
            "list-imodels", iTwinIds=["Site 2", itwin(1), f"https://api.bentley.com/itwins/{itwin(2)}"]
        )
    assert [imodel["iTwinId"] for imodel in answer["iModels"]] == [itwin(2), itwin(1)]
    assert {entry["argument"]: entry["id"] for entry in answer["resolved"]} == {
        "iTwinIds[0]": itwin(2),
        "iTwinIds[2]": itwin(2),
    }


async def test_single_name_instead_of_a_list_is_accepted() -> None:
    async with bench("", Platform(4), shipped_files=True) as it:
        answer = await it.call("list-imodels", iTwinIds="Site 2")
    assert [imodel["iTwinId"] for imodel in answer["iModels"]] == [itwin(2)]


@pytest.mark.parametrize("wrong", [[], ["x"] * 101, ["\x00"], [""], [3.5, None]])
async def test_invalid_list_of_itwins_is_rejected_before_any_request(wrong: list[Any]) -> None:
    async with bench("", Platform(4), shipped_files=True) as it:
        assert (await it.refused("list-imodels", iTwinIds=wrong))["code"] == "InvalidArguments"
    assert it.asked == []


async def test_more_than_ten_names_in_a_list_are_rejected() -> None:
    async with bench("", Platform(4), shipped_files=True) as it:
        error = await it.refused("list-imodels", iTwinIds=[f"Site {n}" for n in range(11)])
    assert error["message"].startswith("iTwinIds has 11 names, but at most 10 are looked up")
    assert it.asked == []


async def test_name_look_ups_count_towards_the_25_requests() -> None:
    async with bench("", Platform(12, 2), shipped_files=True) as it:
        answer = await it.call("count-pushes", iTwinIds=[f"Site {n}" for n in range(10)])
    assert len(it.asked) <= MAX_READS
    assert answer["page"]["notRead"]


async def test_list_argument_replaces_a_preset() -> None:
    presets = {"iTwinId": Preset("ITWIN_ID", itwin(0)), "iModelId": Preset("IMODEL_ID", imodel(0))}
    async with bench("", Platform(3), shipped_files=True) as it:
        it.catalog = apply_presets(it.catalog, presets)
        for tool, member, around, ids in (
            ("list-imodels", "iModels", "iTwinId", (itwin(0), itwin(2))),
            ("list-changesets", "changesets", "iModelId", (imodel(0), imodel(2))),
        ):
            usual = (await it.call(tool))[member]
            several = (await it.call(tool, iTwinIds=[itwin(2)]))[member]
            assert ({item[around] for item in usual}, {item[around] for item in several}) == ({ids[0]}, {ids[1]})


# --- locks and pushes ---------------------------------------------------------------------------------------------


async def test_list_lock_holders_mine_returns_the_callers_briefcases() -> None:
    async with bench("", Platform(3), shipped_files=True) as it:
        holders = (await it.call("list-lock-holders", mine=True, iModelIds=[imodel(0), imodel(2)]))["holders"]
    assert [(lock["iModelId"], lock["briefcaseId"]) for lock in holders["locks"]] == [(imodel(0), 2), (imodel(2), 2)]
    assert [(briefcase["iModelId"], briefcase["ownerId"]) for briefcase in holders["briefcases"]] == [
        (imodel(0), ME),
        (imodel(2), ME),
    ]
    assert not any("/users" in request for request in list_requests(it))


async def test_list_lock_holders_separates_equal_briefcase_ids_of_imodels() -> None:
    async with bench("", Platform(2, unlocked=((imodel(1), 2),)), shipped_files=True) as it:
        holders = (await it.call("list-lock-holders", iTwinIds=[itwin(0), itwin(1)]))["holders"]
    held = [(lock["iModelId"], lock["briefcaseId"]) for lock in holders["locks"]]
    assert held == [(briefcase["iModelId"], briefcase["briefcaseId"]) for briefcase in holders["briefcases"]]
    assert [briefcase["deviceName"] for briefcase in holders["briefcases"]] == [imodel(0), imodel(0), imodel(1)]
    assert {user["id"]: user["briefcases"] for user in holders["users"]} == {ME: 1, OTHER: 2}
    assert {briefcase["application"]["name"] for briefcase in holders["briefcases"]} == {"OpenBridge Modeler"}


async def test_steps_ruled_out_by_arguments_reserve_no_requests() -> None:
    async with bench("", Platform(10), shipped_files=True) as it:
        await it.call("list-lock-holders", iModelIds=[imodel(n) for n in range(10)])
    assert (count_requests(it, "/locks"), count_requests(it, "/briefcases"), count_requests(it, "/users")) == (
        10,
        10,
        5,
    )


async def test_count_pushes_counts_per_person_and_imodel_in_a_period() -> None:
    async with bench("", Platform(2), shipped_files=True) as it:
        whole = (await it.call("count-pushes"))["pushes"]
        part = (await it.call("count-pushes", since="2026-02-01", before="2026-03-15"))["pushes"]
        nothing = (await it.call("count-pushes", since="2027-01-01"))["pushes"]
    assert [(person["displayName"], person["changesets"]) for person in whole["people"]] == [("Tomasz", 4), ("Anna", 2)]
    assert {(row["iModelId"], row["creatorId"]): row["changesets"] for row in whole["byIModel"]} == {
        (imodel(n), person): times for n in (0, 1) for person, times in ((ME, 1), (OTHER, 2))
    }
    assert [(person["displayName"], person["changesets"]) for person in part["people"]] == [("Tomasz", 2)]
    assert nothing == {"people": [], "byIModel": []}


# --- text search --------------------------------------------------------------------------------------------------


async def test_search_reads_large_pages_and_continues_after_the_last_match() -> None:
    async with bench("", Platform(1, changesets=30), shipped_files=True) as it:
        first = await it.call("list-changesets", iModelId=imodel(0), search="pier", limit=4)
        assert [changeset["index"] for changeset in first["changesets"]] == [1, 4, 7, 10]
        assert "total" not in first["page"]
        rest = await it.call(
            "list-changesets", iModelId=imodel(0), search="pier", limit=40, cursor=first["page"]["cursor"]
        )
    assert [changeset["index"] for changeset in rest["changesets"]] == list(range(13, 30, 3))
    assert rest["page"] == {"returned": 6, "complete": True}
    assert all("$top=1000" in request for request in list_requests(it))


async def test_search_without_a_match_reserves_a_request_and_gives_a_cursor() -> None:
    async with bench("", Platform(1, changesets=30_000), shipped_files=True) as it:
        first = await it.call("list-changesets", iModelId=imodel(0), search="tunnel")
        assert (first["changesets"], len(it.asked)) == ([], MAX_READS - 1)
        rest = await it.call("list-changesets", iModelId=imodel(0), search="tunnel", cursor=first["page"]["cursor"])
    assert rest["page"]["complete"]
    assert len(it.asked) == 30


async def test_search_in_several_imodels_reports_the_imodel_of_each_match() -> None:
    async with bench("", Platform(3), shipped_files=True) as it:
        found = (await it.call("list-changesets", search="Pier", iTwinIds=[itwin(0), itwin(2)]))["changesets"]
    assert [(element["iModelId"], element["description"]) for element in found] == [
        (imodel(0), "Moved PIER 1"),
        (imodel(2), "Moved PIER 1"),
    ]


# --- saving -------------------------------------------------------------------------------------------------------


async def test_save_list_saves_the_lists_of_all_itwins(tmp_path: Path) -> None:
    platform = Platform(40, 2)
    async with bench("", platform, shipped_files=True, roots=[tmp_path]) as it:
        saved = await it.save("list-imodels", "all.csv")
    assert saved["page"] == {"returned": 80, "complete": True, "total": 80}
    assert len(saved["first"]) == 3
    with (tmp_path / "all.csv").open(encoding="utf-8", newline="") as text:
        assert [row["id"] for row in csv.DictReader(text)] == platform.every
