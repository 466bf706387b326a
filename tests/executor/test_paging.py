"""Lists take few requests, report completeness truthfully and lose no item."""

import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from itwin_mcp.executor import paging
from tests.executor.bench import IMODEL, Bench, Clock, answer_of, bench, hang_up, in_turn, query_of, saying
from tests.upstream.loopback import Asked

pytestmark = pytest.mark.anyio

PLATFORM = "https://api.bentley.com"


def make_things(start: int, count: int, padding: str = "") -> list[dict[str, Any]]:
    return [{"id": f"t{n}", "name": f"Thing {n}", "padding": padding} for n in range(start, start + count)]


class Store:
    """A list on the platform with next links that count. A test sets the answers of `broken` pages by their offset."""

    def __init__(self, total: int, *, most: int = 1000, padding: str = "", counted: bool = False) -> None:
        self.total = total
        self.most = most
        self.padding = padding
        self.counted = counted
        self.broken: dict[int, Callable[[Asked], Awaitable[None]]] = {}
        self.odd: dict[int, Any] = {}
        """Replacements of items, by their index."""
        self.skips: list[int] = []

    async def __call__(self, request: Asked) -> None:
        query = query_of(request)
        skip, top = int(query.get("$skip", 0)), min(int(query.get("$top", 100)), self.most)
        self.skips.append(skip)
        if skip in self.broken:
            await self.broken[skip](request)
            return
        count = max(0, min(top, self.total - skip))
        more = skip + count < self.total
        kind = f"&kind={query['kind']}" if "kind" in query else ""
        href = f"{PLATFORM}/Things?$skip={skip + count}&$top={top}{kind}"
        rows = enumerate(make_things(skip, count, self.padding), skip)
        body: dict[str, Any] = {
            "things": [self.odd.get(number, thing) for number, thing in rows],
            "_links": {"next": {"href": href} if more else None},
        }
        if self.counted:
            body["total"] = self.total
        await request.json(200, body)


async def read_rest(harness: Bench, tool: str, limit: int, cursor: str | None) -> tuple[list[str], dict[str, Any]]:
    """Return the ids of all items from a cursor on, and the last `page`."""
    later_ids: list[str] = []
    while cursor:
        answer = await harness.call(tool, limit=limit, cursor=cursor)
        later_ids += [item["id"] for item in answer["things"]]
        cursor = answer["page"].get("cursor")
    return later_ids, answer["page"]


def make_ids(count: int, start: int = 0) -> list[str]:
    return [f"t{n}" for n in range(start, start + count)]


# --- limits and completeness ------------------------------------------------------------------------------------


async def test_list_within_the_limit_is_complete_with_its_total() -> None:
    async with bench("things.yaml", Store(3)) as harness:
        answer = await harness.call("list-things")
    assert answer["things"][0] == {"id": "t0", "name": "Thing 0"}
    assert answer["page"] == {"returned": 3, "complete": True, "total": 3}
    assert harness.asked == ["GET /things?$top=50"]


async def test_cursor_continues_a_list_with_any_later_limit() -> None:
    async with bench("things.yaml", Store(100)) as harness:
        first = await harness.call("list-things", limit=7)
        assert first["page"] == {"returned": 7, "complete": False, "cursor": first["page"]["cursor"], "total": 100}
        second = await harness.call("list-things", limit=60, cursor=first["page"]["cursor"])
        third, last = await read_rest(harness, "list-things", 13, second["page"]["cursor"])
    assert [item["id"] for item in second["things"]] == make_ids(60, 7)
    assert third == make_ids(33, 67)
    assert last["complete"]
    assert last["total"] == 100


async def test_ten_thousand_items_take_ten_requests() -> None:
    store = Store(10_000)
    async with bench("things.yaml", store) as harness:
        answer = await harness.call("list-things", limit=10_000)
        assert [item["id"] for item in answer["things"]] == make_ids(10_000)
        assert answer["page"] == {"returned": 10_000, "complete": True, "total": 10_000}
        assert len(store.skips) == 10
        assert harness.listener.told[-1] == (9_000, 10_000, "9000 items read so far")


async def test_small_first_limit_does_not_make_later_pages_small() -> None:
    store = Store(5_000)
    async with bench("things.yaml", store) as harness:
        first = await harness.call("list-things", limit=10)
        later = await harness.call("list-things", limit=10_000, cursor=first["page"]["cursor"])
    assert len(later["things"]) == 4_990
    assert len(store.skips) == 1 + 1 + 5  # the second one counts


async def test_cursor_continues_inside_a_page() -> None:
    store = Store(2_500)
    async with bench("things.yaml", store) as harness:
        first = await harness.call("list-things", limit=1_500)
        later_ids, last = await read_rest(harness, "list-things", 1_000, first["page"]["cursor"])
    assert later_ids == make_ids(1_000, 1_500)
    assert last == {"returned": 1_000, "complete": True, "total": 2_500}
    assert store.skips == [0, 1000, 2000, 1000, 2000]  # the first 2000 counts


async def test_failed_later_page_returns_items_cursor_and_error() -> None:
    store = Store(10_000)
    store.broken[5_000] = saying(500, {"error": {"code": "Unknown", "message": "Out of order."}})
    async with bench("things.yaml", store) as harness:
        answer = await harness.call("list-things", limit=10_000)
        page = answer["page"]
        assert [item["id"] for item in answer["things"]] == make_ids(5_000)
        assert (page["returned"], page["complete"]) == (5_000, False)
        assert page["stoppedBecause"] == "the next page failed (Unknown): continue with the cursor"
        assert page["error"]["message"] == "Out of order."
        assert page["error"]["operation"] == "list-things"
        assert page["error"]["status"] == 500
        store.broken.clear()
        later_ids, last = await read_rest(harness, "list-things", 10_000, page["cursor"])
    assert later_ids == make_ids(5_000, 5_000)
    assert last == {"returned": 5_000, "complete": True, "total": 10_000}


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (hang_up, "ConnectionLost"),
        (saying(200, "<html>"), "UnexpectedAnswer"),
        (saying(200, {"others": []}), "UnexpectedAnswer"),
        (saying(200, {"things": {"id": 1}}), "UnexpectedAnswer"),
        (saying(404, {"error": {"code": "Gone", "message": "Gone."}}), "Gone"),
    ],
)
async def test_any_failure_of_a_later_page_keeps_the_earlier_items(
    fault: Callable[[Asked], Awaitable[None]], code: str
) -> None:
    store = Store(3_000)
    store.broken[2_000] = fault
    async with bench("things.yaml", store) as harness:
        answer = await harness.call("list-things", limit=3_000)
    assert len(answer["things"]) == 2_000
    assert answer["page"]["error"]["code"] == code
    assert "cursor" in answer["page"]


async def test_failed_first_page_fails_the_call() -> None:
    store = Store(30)
    store.broken[0] = saying(403, {"error": {"code": "InsufficientPermissions", "message": "No."}})
    async with bench("things.yaml", store) as harness:
        assert (await harness.refused("list-things"))["code"] == "InsufficientPermissions"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"others": [{"id": "1"}]}, "$.things is missing"),
        ({"things": {"id": "1"}}, "$.things is not a list"),
        ([{"id": "1"}], "$.things is missing"),
    ],
)
async def test_answer_without_its_list_is_an_error_that_names_the_path(body: Any, words: str) -> None:
    async with bench("things.yaml", saying(200, body)) as harness:
        error = await harness.refused("list-things")
    assert error["code"] == "UnexpectedAnswer"
    assert words in error["message"]


async def test_odd_list_items_are_reported_in_warnings() -> None:
    odd_entries = [{"id": 7, "name": ["x"]}, {"name": "no id"}, None, "x", [], {"id": {}, "name": True}]
    body = {"things": [*make_things(0, 3, ""), *odd_entries, *make_things(3, 3, "")]}
    async with bench("things.yaml", saying(200, body)) as harness:
        answer = await harness.call("list-things")
    odd = [{"id": "7", "name": None}, {"id": None, "name": "no id"}, {"id": None, "name": "true"}]
    assert [item for item in answer["things"] if item in odd] == odd
    assert answer["page"] == {"returned": 9, "complete": True, "total": 9}
    assert answer["warnings"] == [
        {"path": "$.things[*]", "expected": "object", "got": "null", "count": 3},
        {"path": "$.things[*].name", "expected": "string", "got": '["x"]', "count": 1},
        {"path": "$.things[*].id", "expected": "string", "got": "{}", "count": 1},
    ]


@pytest.mark.parametrize("tool", ["list-things", "list-by-skip"])
async def test_paging_skips_items_that_are_not_objects(tool: str) -> None:
    store = Store(2_500)
    for row in (3, 999, 1_000, 2_400):
        store.odd[row] = None
    async with bench("things.yaml", store) as harness:
        first = await harness.call(tool, limit=1_200)
        second = await harness.call(tool, limit=10_000, cursor=first["page"]["cursor"])
    expected = [item for number, item in enumerate(make_ids(2_500)) if number not in store.odd]
    assert [item["id"] for item in first["things"] + second["things"]] == expected
    assert second["page"]["complete"] is True


@pytest.mark.parametrize(
    "links", ["x", 7, {"next": "x"}, {"next": ["x"]}, {"next": {"href": 7}}, {"next": {"href": {"a": 1}}}]
)
async def test_list_with_an_unreadable_next_link_is_not_complete(links: Any) -> None:
    async with bench("things.yaml", saying(200, {"things": [{"id": "1"}], "_links": links})) as harness:
        page = (await harness.call("list-things"))["page"]
    assert page["complete"] is False
    assert "is not a link" in page["stoppedBecause"]


async def test_null_list_is_empty() -> None:
    async with bench("things.yaml", saying(200, {"things": None})) as harness:
        assert await harness.call("list-things") == {
            "things": [],
            "page": {"returned": 0, "complete": True, "total": 0},
        }


async def test_list_whose_output_omits_the_items_still_returns_page() -> None:
    async with bench("things.yaml", Store(60)) as harness:
        answer = await harness.call("list-names", limit=2)
    assert answer["first"] == "Thing 0"
    assert (answer["page"]["returned"], answer["page"]["complete"]) == (2, False)


# --- next links -------------------------------------------------------------------------------------------------

ELSEWHERE = "the platform's link to the next page is not a link to this list and was not followed"
BACK = "the platform's link to the next page leads back to a page that was read"


@pytest.mark.parametrize(
    ("link", "words"),
    [
        ("https://evil.example/things?$skip=1", ELSEWHERE),
        ("https://api.bentley.com.evil.example/things?$skip=1", ELSEWHERE),
        ("https://api.bentley.com@evil.example/things?$skip=1", ELSEWHERE),
        ("https://user@api.bentley.com/things?$skip=1", ELSEWHERE),
        ("http://api.bentley.com/things?$skip=1", ELSEWHERE),
        ("https://api.bentley.com:444/things?$skip=1", ELSEWHERE),
        ("//evil.example/things?$skip=1", ELSEWHERE),
        ("https://api.bentley.com/others?$skip=1", ELSEWHERE),
        ("https://api.bentley.com/things/../secrets?$skip=1", ELSEWHERE),
        ("https://api.bentley.com/things%2f..%2fsecrets?$skip=1", ELSEWHERE),
        ("/things?$skip=1", ELSEWHERE),
        ("https://[/things", ELSEWHERE),
        ("no link at all", ELSEWHERE),
        ("file:///etc/passwd", ELSEWHERE),
        (7, "what the platform gives as the next page is not a link"),
        (["x"], "what the platform gives as the next page is not a link"),
        (True, "what the platform gives as the next page is not a link"),
        ("https://api.bentley.com/things?$top=5", BACK),
        ("https://api.bentley.com/things", BACK),
    ],
)
async def test_invalid_next_link_is_not_followed_and_reported(link: Any, words: str) -> None:
    body = {"things": make_things(0, 3), "_links": {"next": {"href": link}}}
    async with bench("things.yaml", saying(200, body)) as harness:
        answer = await harness.call("list-things", limit=5)
    assert answer["page"] == {"returned": 3, "complete": False, "stoppedBecause": words}
    assert len(harness.asked) == 1


@pytest.mark.parametrize(
    "ending", [None, {}, {"next": None}, {"next": {}}, {"next": {"href": None}}, {"next": {"href": ""}}]
)
async def test_list_without_a_next_link_is_complete(ending: Any) -> None:
    async with bench("things.yaml", saying(200, {"things": [], "_links": ending})) as harness:
        assert (await harness.call("list-things"))["page"]["complete"]


async def test_circular_next_links_stop_even_across_calls() -> None:
    async def circle(request: Asked) -> None:
        here = int(query_of(request).get("at", 0))
        href = f"{PLATFORM}/things?at={(here + 1) % 3}" if here < 2 else f"{PLATFORM}/things?at=1"
        await request.json(200, {"things": make_things(here * 10, 2), "_links": {"next": {"href": href}}})

    async with bench("things.yaml", circle) as harness:
        at_once = (await harness.call("list-things", limit=100))["page"]
        assert at_once == {"returned": 6, "complete": False, "stoppedBecause": BACK}
        assert len(harness.asked) == 3
        cursor, calls = None, 0
        while True:
            page = (await harness.call("list-things", limit=2, **({"cursor": cursor} if cursor else {})))["page"]
            calls += 1
            if "cursor" not in page:
                break
            cursor = page["cursor"]
    assert calls == 3
    assert page["stoppedBecause"] == BACK


async def test_repeated_page_under_new_links_stops_the_list() -> None:
    turn = iter(range(1000))

    async def stuck(request: Asked) -> None:
        href = f"{PLATFORM}/things?at={next(turn)}"
        await request.json(200, {"things": make_things(0, 2), "_links": {"next": {"href": href}}})

    async with bench("things.yaml", stuck) as harness:
        page = (await harness.call("list-things", limit=100))["page"]
    assert page == {"returned": 2, "complete": False, "stoppedBecause": "the platform gave the same page again"}


async def test_empty_pages_are_followed_up_to_max_pages() -> None:
    turn = iter(range(1000))

    async def hollow(request: Asked) -> None:
        href = f"{PLATFORM}/things?at={next(turn)}"
        await request.json(200, {"things": [], "_links": {"next": {"href": href}}})

    async with bench("things.yaml", hollow) as harness:
        page = (await harness.call("list-things", limit=100))["page"]
        assert len(harness.asked) == paging.MAX_PAGES
        assert (page["returned"], page["complete"]) == (0, False)
        assert "share of requests and time" in page["stoppedBecause"]
        await harness.call("list-things", limit=100, cursor=page["cursor"])


async def test_list_out_of_time_between_pages_returns_a_cursor() -> None:
    clock, store = Clock(), Store(5_000)

    async def slow(request: Asked) -> None:
        clock.time += 20
        await store(request)

    async with bench("things.yaml", slow, clock=clock) as harness:
        page = (await harness.call("list-things", limit=5_000))["page"]
        assert page["returned"] == 3_000
        assert "share of requests and time" in page["stoppedBecause"]
        assert len((await read_rest(harness, "list-things", 1_000, page["cursor"]))[0]) == 2_000


async def test_page_timeout_returns_the_earlier_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "MAX_SECONDS", 0.2)
    store = Store(3_000)
    store.broken[1_000] = Asked.until_closed
    async with bench("things.yaml", store) as harness:
        with anyio.fail_after(10):
            page = (await harness.call("list-things", limit=3_000))["page"]
    assert page["returned"] == 1_000
    assert page["stoppedBecause"] == "the next page took too long: continue with the cursor"
    assert "cursor" in page


async def test_next_link_too_long_for_a_cursor_is_reported() -> None:
    async def long(request: Asked) -> None:
        more = "token" not in request.target
        href = f"{PLATFORM}/things?token={'x' * 5000}" if more else None
        await request.json(200, {"things": make_things(0 if more else 2, 2), "_links": {"next": {"href": href}}})

    async with bench("things.yaml", long) as harness:
        assert (await harness.call("list-things", limit=10))["page"] == {"returned": 4, "complete": True, "total": 4}
        page = (await harness.call("list-things", limit=2))["page"]
    assert page["complete"] is False
    assert "cursor" not in page
    assert "too long" in page["stoppedBecause"]


# --- totals and caps --------------------------------------------------------------------------------------------


async def test_total_is_returned_if_the_platform_counts() -> None:
    async with bench("things.yaml", Store(70, counted=True)) as harness:
        assert (await harness.call("list-things", limit=5))["page"]["total"] == 70
    for nonsense in (1, True, "70", 70.5, None):
        async with bench(
            "things.yaml", saying(200, {"things": make_things(0, 3), "total": nonsense, "_links": {}})
        ) as harness:
            assert (await harness.call("list-things", limit=2))["page"]["total"] == 3


@pytest.mark.parametrize(("total", "shown"), [(51, 51), (1_050, 1_050), (1_051, None)])
async def test_first_answer_has_total_if_one_more_page_ends_the_list(total: int, shown: int) -> None:
    async with bench("things.yaml", Store(total)) as harness:
        first = (await harness.call("list-things"))["page"]
        await harness.call("list-things", limit=1, cursor=first["cursor"])
        assert harness.asked == [
            "GET /things?$top=50",
            "GET /things?$skip=50&$top=1000",
            "GET /things?$skip=50&$top=1",
        ]
    assert first.get("total") == shown
    assert not first["complete"]


async def test_total_is_omitted_if_one_more_page_fails_or_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(request: Asked) -> None:
        await anyio.sleep_forever()

    monkeypatch.setattr(paging, "MAX_COUNT_SECONDS", 0.05)
    for fault in (never, hang_up, saying(200, {"things": None}), saying(500, {}), saying(200, {"others": []})):
        store = Store(100)
        store.broken[50] = fault
        async with bench("things.yaml", store) as harness:
            page = (await harness.call("list-things"))["page"]
        assert page == {"returned": 50, "complete": False, "cursor": page["cursor"]}


async def test_total_at_or_beyond_the_limit_of_the_platform_is_omitted() -> None:
    for total in (3_000, 5_000):
        async with bench("things.yaml", Store(total)) as harness:
            page = (await harness.call("list-within", limit=2_500))["page"]
        assert "total" not in page


@pytest.mark.parametrize("limits", [[10_000], [3_000], [1_000, 2_000], [1_500, 1_500], [2_999, 1]])
async def test_list_at_the_limit_of_the_platform_is_not_complete(limits: list[int]) -> None:
    for total in (3_000, 5_000):
        async with bench("things.yaml", Store(total)) as harness:
            cursor = {}
            for limit in limits:
                page = (await harness.call("list-within", limit=limit, **cursor))["page"]
                cursor = {"cursor": page["cursor"]} if "cursor" in page else {}
        assert page["complete"] is False
        assert page["stoppedBecause"] == "the platform lists at most 3000 items: narrow the list with its filters"
        assert "cursor" not in page
        assert "total" not in page


async def test_list_below_the_limit_of_the_platform_is_complete() -> None:
    async with bench("things.yaml", Store(2_999)) as harness:
        page = (await harness.call("list-within", limit=10_000))["page"]
    assert page == {"returned": 2_999, "complete": True, "total": 2_999}


# --- other styles -----------------------------------------------------------------------------------------------


class Tokens:
    """A list by opaque continuation tokens."""

    def __init__(self, total: int) -> None:
        self.total = total

    async def __call__(self, request: Asked) -> None:
        query = query_of(request)
        token = query["$continuationToken"]
        skip, top = (int(token.removeprefix("é&=")) if token else 0), int(query["$top"])
        count = min(top, self.total - skip)
        more = skip + count < self.total
        await request.json(
            200, {"things": make_things(skip, count), "continuationToken": f"é&={skip + count}" if more else None}
        )


async def test_continuation_token_list_continues_from_the_cursor() -> None:
    async with bench("things.yaml", Tokens(2_500)) as harness:
        answer = await harness.call("list-by-token", limit=1_200)
        assert harness.asked[0] == "GET /things?$top=1000&$continuationToken="
        later_ids, last = await read_rest(harness, "list-by-token", 700, answer["page"]["cursor"])
    assert [item["id"] for item in answer["things"]] + later_ids == make_ids(2_500)
    assert last["complete"]


async def test_invalid_continuation_token_stops_the_list() -> None:
    async with bench("things.yaml", saying(200, {"things": make_things(0, 3), "continuationToken": 5})) as harness:
        assert "not a link" in (await harness.call("list-by-token"))["page"]["stoppedBecause"]


async def test_list_by_skip_continues() -> None:
    async with bench("things.yaml", Store(2_500)) as harness:
        answer = await harness.call("list-by-skip", limit=1_200)
        later_ids, last = await read_rest(harness, "list-by-skip", 700, answer["page"]["cursor"])
    assert [item["id"] for item in answer["things"]] + later_ids == make_ids(2_500)
    assert last == {"returned": 600, "complete": True, "total": 2_500}


async def test_list_by_skip_stops_if_the_server_ignores_skip() -> None:
    async def same(request: Asked) -> None:
        await request.json(200, {"things": make_things(0, int(query_of(request)["$top"]))})

    async with bench("things.yaml", same) as harness:
        page = (await harness.call("list-by-skip", limit=2_000))["page"]
    assert page == {"returned": 1_000, "complete": False, "stoppedBecause": "the platform gave the same page again"}


# --- memory -----------------------------------------------------------------------------------------------------


async def test_paging_drops_undeclared_fields_from_memory() -> None:
    store = Store(10_000, padding="x" * 3_000)
    async with bench("things.yaml", store, max_body=20 * 1024 * 1024) as harness:
        await harness.call("list-things", limit=1_000)
        tracemalloc.start()
        try:
            answer = await harness.call("list-things", limit=10_000)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert len(answer["things"]) == 10_000
    assert peak < 30 * 1024 * 1024, f"{peak / 1024 / 1024:.0f} MiB for 10 pages of 3 MiB"


@pytest.mark.slow
async def test_list_that_is_read_through_with_cursors_takes_flat_memory() -> None:
    store = Store(10_000, padding="x" * 500)
    peaks: list[int] = []
    read_ids: list[str] = []
    async with bench("things.yaml", store) as harness:
        cursor: dict[str, Any] = {}
        tracemalloc.start()
        try:
            while not peaks or cursor:
                tracemalloc.reset_peak()
                answer = await harness.call("list-things", limit=1_000, **cursor)
                peaks.append(tracemalloc.get_traced_memory()[1])
                read_ids += [item["id"] for item in answer["things"]]
                cursor = {name: value for name, value in answer["page"].items() if name == "cursor"}
        finally:
            tracemalloc.stop()
    assert read_ids == make_ids(10_000)
    assert len(peaks) == 10
    assert max(peaks[2:]) < max(peaks[:2]) * 1.3, peaks


# --- cursors ----------------------------------------------------------------------------------------------------


async def test_cursor_is_stale_if_an_earlier_item_was_deleted() -> None:
    answers = in_turn(saying(200, {"things": make_things(0, 9)}), saying(200, {"things": make_things(1, 9)}))
    async with bench("things.yaml", answers) as harness:
        cursor = (await harness.call("list-things", limit=4))["page"]["cursor"]
        error = await harness.refused("list-things", limit=4, cursor=cursor)
    assert error["code"] == "InvalidArguments"
    assert "The list has changed since the cursor was given" in error["message"]
    assert "start over" in error["hint"]


async def test_cursor_stays_valid_if_an_earlier_item_was_renamed() -> None:
    renamed = [{**item, "name": "Renamed"} for item in make_things(0, 9)]
    answers = in_turn(saying(200, {"things": make_things(0, 9)}), saying(200, {"things": renamed}))
    async with bench("things.yaml", answers) as harness:
        cursor = (await harness.call("list-things", limit=4))["page"]["cursor"]
        assert (await harness.call("list-things", limit=4, cursor=cursor))["things"][0]["id"] == "t4"


# --- pages whose size counts what is in the items ----------------------------------------------------------------


async def answer_locks(request: Asked) -> None:
    """40 briefcases, each with 80 locked elements; the size of a page counts the elements, as the platform's does."""
    if request.path.endswith("/locks"):
        query = query_of(request)
        skip, top = int(query.get("$skip", 0)), int(query["$top"])
        held: dict[int, list[str]] = {}
        for element in range(skip, min(skip + top, 3_200)):
            held.setdefault(2 + element // 80, []).append(f"0x{element:x}")
        href = f"{PLATFORM}/imodels/{IMODEL}/locks?$skip={skip + top}&$top={top}"
        listed = [
            {"briefcaseId": number, "lockedObjects": [{"lockLevel": "exclusive", "objectIds": elements}]}
            for number, elements in held.items()
        ]
        await request.json(200, {"locks": listed, "_links": {"next": {"href": href} if skip + top < 3_200 else None}})
    else:
        await request.json(200, {request.path.rpartition("/")[2]: [], "_links": {}})


async def test_list_locks_limit_counts_briefcases() -> None:
    async with bench("", answer_locks, shipped_files=True) as harness:
        first = await harness.call("list-locks", iModelId=IMODEL, limit=1)
        assert harness.asked == [f"GET /imodels/{IMODEL}/locks?$top=1000"]
        assert len(first["locks"][0]["lockedObjects"][0]["objectIds"]) == 80
        following = await harness.call("list-locks", iModelId=IMODEL, limit=1, cursor=first["page"]["cursor"])
        assert following["locks"][0]["briefcaseId"] == 3
        whole = await harness.call("list-locks", iModelId=IMODEL, limit=100)
        assert len(harness.asked) == 2 + 4
    assert {lock["briefcaseId"] for lock in whole["locks"]} == set(range(2, 42))
    assert whole["page"]["complete"]


async def test_list_lock_holders_reads_every_holder_of_many_locks() -> None:
    async with bench("", answer_locks, shipped_files=True) as harness:
        holders = (await harness.call("list-lock-holders", iModelId=IMODEL))["holders"]
        assert {lock["briefcaseId"] for lock in holders["locks"]} == set(range(2, 42))
        assert len(harness.asked) == 4 + 2
    async with bench("", answer_locks, shipped_files=True) as harness:
        resource = next(resource for resource in harness.catalog.resources if resource.name == "locks")
        locks = answer_of(await harness.executor.read(resource, {"iModelId": IMODEL}))
    assert isinstance(locks, dict)
    assert locks["page"]["stoppedBecause"] == "held: only the first 1000 objectIds in 13 items are read here"
