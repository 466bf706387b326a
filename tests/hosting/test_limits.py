"""Limits of callers: exact rates, bounded queues, and floods that do not affect others."""

import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from starlette.types import Message

from itwin_mcp.hosting import authentication
from itwin_mcp.hosting.caller_limits import Admission, CallerLimits, CallerSessions, LimitExceeded
from itwin_mcp.runtime import read_all
from itwin_mcp.settings import read_settings
from tests.hosting.issuer import Clock, token
from tests.hosting.served import HELLO, serve

pytestmark = pytest.mark.anyio


def build_limits(**changed: Any) -> CallerLimits:
    """Return limits with some values changed; the others are never reached."""
    return CallerLimits(
        **{"caller_rate": 10**6, "total_rate": 10**6, "caller_at_once": 8, "total_at_once": 64} | changed
    )


def count_admitted(admission: Admission, caller: str, times: int) -> int:
    count = 0
    for _ in range(times):
        try:
            admission.count_request(caller)
            count += 1
        except LimitExceeded:
            continue
    return count


def test_caller_rate_is_exact_and_says_when_to_retry() -> None:
    clock = Clock()
    admission = Admission(build_limits(caller_rate=60, total_rate=10_000), clock=clock)
    assert count_admitted(admission, "ada", 50) == 6, "a burst is a tenth of a minute's requests"
    with pytest.raises(LimitExceeded) as caught:
        admission.count_request("ada")
    assert (caught.value.reason, caught.value.retry_after) == ("caller-rate", 1)
    assert count_admitted(admission, "eve", 50) == 6, "other callers are not affected"
    total = 0
    for _ in range(480):
        clock.now += 0.125
        total += count_admitted(admission, "ada", 5)
    assert total == 60
    clock.now += 3600
    assert count_admitted(admission, "ada", 50) == 6, "unused requests do not add up"


def test_total_rate_ignores_refused_requests() -> None:
    clock = Clock()
    admission = Admission(build_limits(caller_rate=600, total_rate=120), clock=clock)
    assert count_admitted(admission, "ada", 7) == 7
    assert count_admitted(admission, "eve", 20) == 5
    with pytest.raises(LimitExceeded) as caught:
        admission.count_request("bob")
    assert caught.value.reason == "total-rate"
    clock.now += 0.5
    assert count_admitted(admission, "bob", 5) == 1


def test_admission_forgets_idle_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("itwin_mcp.upstream.rate_limit.MAX_KEYS", 100)
    clock = Clock()
    admission = Admission(build_limits(caller_rate=600, total_rate=1_000_000), clock=clock)
    for number in range(1000):
        clock.now += 1
        admission.count_request(f"caller-{number}")
    assert len(admission._caller_rate._due) <= 101


class HeldRequests:
    """Holds requests until the test releases them."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.held: Counter[str] = Counter()
        self.refused: list[tuple[str, str]] = []
        self.releases: dict[str, anyio.Event] = {}
        self.two_refused = anyio.Event()

    async def hold(self, caller: str) -> None:
        try:
            async with self.admission.hold_request(caller):
                self.held[caller] += 1
                try:
                    await self.releases.setdefault(caller, anyio.Event()).wait()
                finally:
                    self.held[caller] -= 1
        except LimitExceeded as error:
            self.refused.append((caller, error.reason))
            if len(self.refused) == 2:
                self.two_refused.set()


async def wait_until_blocked() -> None:
    await anyio.wait_all_tasks_blocked()


async def test_flood_of_one_caller_does_not_block_others() -> None:
    requests = HeldRequests(Admission(build_limits(caller_at_once=4, total_at_once=20, caller_waiting=8)))
    async with anyio.create_task_group() as tasks:
        for _ in range(500):
            tasks.start_soon(requests.hold, "flood")
        await wait_until_blocked()
        assert requests.held["flood"] == 4
        assert requests.refused == [("flood", "caller-concurrency")] * (500 - 4 - 8)
        for number in range(4):
            for _ in range(4):
                tasks.start_soon(requests.hold, f"other-{number}")
        await wait_until_blocked()
        assert [requests.held[f"other-{number}"] for number in range(4)] == [4] * 4, "other callers do not wait"
        for caller in requests.releases:
            requests.releases[caller].set()
    assert requests.admission.in_progress == 0
    assert requests.admission._requests == {}


async def test_total_concurrency_is_limited_and_waiting_times_out() -> None:
    requests = HeldRequests(Admission(build_limits(caller_at_once=2, total_at_once=3, total_seconds=0.05)))
    async with anyio.create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(requests.hold, f"caller-{number}")
        await wait_until_blocked()
        assert requests.admission.in_progress == 3
        with anyio.fail_after(5):
            await requests.two_refused.wait()
        assert {reason for _, reason in requests.refused} == {"total-concurrency"}
        for caller in list(requests.releases):
            requests.releases[caller].set()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(requests.hold, "late")
        await wait_until_blocked()
        assert requests.held["late"] == 1
        requests.releases["late"].set()


async def test_cancelled_request_releases_its_slot() -> None:
    requests = HeldRequests(Admission(build_limits(caller_at_once=1, total_at_once=1, caller_waiting=5)))
    async with anyio.create_task_group() as first:
        first.start_soon(requests.hold, "ada")
        await wait_until_blocked()
        async with anyio.create_task_group() as second:
            second.start_soon(requests.hold, "ada")
            second.start_soon(requests.hold, "eve")
            await wait_until_blocked()
            second.cancel_scope.cancel()
        assert requests.held == {"ada": 1}
        first.cancel_scope.cancel()
    assert (requests.admission.in_progress, requests.admission._requests) == (0, {})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(requests.hold, "bob")
        await wait_until_blocked()
        assert requests.held["bob"] == 1
        tasks.cancel_scope.cancel()


def test_open_streams_are_limited_per_caller() -> None:
    admission = Admission(build_limits(caller_streams=2))
    with admission.hold_stream("ada"), admission.hold_stream("ada"), admission.hold_stream("eve"):
        with pytest.raises(LimitExceeded) as caught:
            with admission.hold_stream("ada"):
                pass
        assert caught.value.reason == "caller-streams"
    with admission.hold_stream("ada"):
        pass
    assert admission._streams == {}


def test_sessions_are_limited_per_caller_until_they_end_or_idle() -> None:
    clock = Clock()
    sessions = CallerSessions(2, clock=clock)
    sessions.note_used("ada", "one")
    clock.now += 1000
    sessions.note_used("ada", "two")
    with pytest.raises(LimitExceeded) as caught:
        sessions.check_room("ada")
    assert (caught.value.reason, caught.value.retry_after) == ("caller-sessions", 800)
    sessions.check_room("eve")
    sessions.end("ada", "two")
    sessions.check_room("ada")
    sessions.note_used("ada", "three")
    clock.now += 801
    sessions.check_room("ada")
    clock.now += 1801
    sessions.check_room("ada")
    assert sessions._last_used == {}


async def test_exceeded_rate_is_429_with_retry_after(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(monkeypatch, {"ITWIN_MCP_CALLER_RATE_PER_MINUTE": "30"}) as served:
        async with served.http(token(sub="flood")) as flood, served.http(token(sub="other")) as other:
            answers = [await served.post(flood, "tools/list") for _ in range(6)]
            assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429, 429]
            assert answers[-1].headers["retry-after"] in ("1", "2")
            assert answers[-1].json()["error"] == "too_many_requests"
            assert (await served.post(other, "tools/list")).status_code == 200


async def test_replies_are_accepted_beyond_the_rate_until_they_are_a_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    reply = {"jsonrpc": "2.0", "id": 1, "result": {"action": "decline"}}
    async with serve(monkeypatch, {"ITWIN_MCP_CALLER_RATE_PER_MINUTE": "30"}) as served, served.http(token()) as http:
        headers = {"accept": "application/json, text/event-stream", "mcp-session-id": "unknown"}
        hello = [(await http.post("/mcp", json=HELLO, headers=headers)).status_code for _ in range(6)]
        assert hello[3:] == [429, 429, 429]
        replies = [(await http.post("/mcp", json=reply, headers=headers)).status_code for _ in range(40)]
        assert 429 not in replies[:25]
        assert replies[-1] == 429


async def test_hanging_calls_of_one_caller_do_not_block_others(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(monkeypatch, {"ITWIN_MCP_CALLER_CONCURRENCY": "3", "ITWIN_MCP_TOTAL_CONCURRENCY": "8"}) as served:
        original_call, release = served.runtime.executor.call, anyio.Event()
        calls = Counter[str]()

        async def call(tool: Any, arguments: Any, conversation: Any, caller: Any, *more: Any) -> Any:
            calls[caller.subject] += 1
            if caller.subject == "flood":
                await release.wait()
            return await original_call(tool, arguments, conversation, caller, *more)

        monkeypatch.setattr(served.runtime.executor, "call", call)
        statuses: list[int] = []
        refused = anyio.Event()
        async with served.http(token(sub="flood")) as flood, anyio.create_task_group() as tasks:

            async def call_once() -> None:
                statuses.append((await served.call(flood, "list-itwins")).status_code)
                if len(statuses) == 60 - 3 - 32:
                    refused.set()

            for _ in range(60):
                tasks.start_soon(call_once)
            with anyio.fail_after(20):
                await refused.wait()
            assert set(statuses) == {429}
            assert calls["flood"] == 3
            for number in range(9):
                async with served.http(token(sub=f"caller-{number}")) as http:
                    answers = [await served.call(http, "list-itwins", limit=1) for _ in range(2)]
                    assert [answer.status_code for answer in answers] == [200, 200]
            assert calls["flood"] == 3
            release.set()
        assert Counter(statuses) == {429: 25, 200: 35}


async def test_too_many_sessions_are_429(monkeypatch: pytest.MonkeyPatch) -> None:
    accept = {"accept": "application/json, text/event-stream"}
    async with serve(monkeypatch) as served:
        async with served.http(token(sub="greedy"), **accept) as greedy, served.http(token(sub="b"), **accept) as other:
            statuses = [(await greedy.post("/mcp", json=HELLO)).status_code for _ in range(51)]
            assert Counter(statuses) == {200: 50, 429: 1}
            escaped = json.dumps(HELLO).replace("initialize", "initi\\u0061lize")
            response = await greedy.post("/mcp", content=escaped, headers={"content-type": "application/json"})
            assert response.status_code == 429, "an escaped method name counts too"
            opened = await other.post("/mcp", json=HELLO)
            assert opened.status_code == 200
            ended = await other.delete("/mcp", headers={"mcp-session-id": opened.headers["mcp-session-id"]})
            assert ended.status_code == 200


def build_nested_call(values: int) -> bytes:
    """Return a call whose argument is a list of many values."""
    call = {"name": "acquire-locks", "arguments": {"objectIds": [[]] * values}}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}).encode()


async def test_body_with_too_many_values_is_refused_before_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[int] = []
    loads = json.loads
    async with serve(monkeypatch) as served, served.http(token()) as http:
        headers = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
        monkeypatch.setattr(json, "loads", lambda text, **more: parsed.append(len(text)) or loads(text, **more))
        refused = await http.post("/mcp", headers=headers, content=build_nested_call(120_000))
        assert refused.status_code == 413
        assert max(parsed, default=0) < 100_000
        text = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"_meta": {"a": ",[{" * 100_000}}})
        assert (await http.post("/mcp", headers=headers, content=text)).status_code != 413, (
            "brackets inside a string do not count"
        )
        unterminated = b'"' + b'\\"' * 250_000
        assert (await http.post("/mcp", headers=headers, content=unterminated)).status_code == 400


def test_longest_arguments_of_every_tool_fit_into_a_body() -> None:
    for tool in read_all(read_settings({})).tools.values():
        longest = [part.get("maxLength", 0) for part in tool.input_schema["properties"].values()]
        assert 2 * sum(longest) < authentication.MAX_BODY, tool.name


async def test_large_or_slow_body_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "BODY_SECONDS", 0.1)
    async with serve(monkeypatch) as served:
        async with served.http(token()) as http:
            headers = {"accept": "application/json, text/event-stream", "content-type": "application/json"}

            async def large() -> AsyncIterator[bytes]:
                for _ in range(5):
                    yield b"x" * 256 * 1024

            assert (await http.post("/mcp", headers=headers, content=large())).status_code == 413
            for size, status in ((512 * 1024, 400), (512 * 1024 + 1, 413)):
                assert (await http.post("/mcp", headers=headers, content=b"x" * size)).status_code == status

        # httpx2's transport in memory cannot send slowly, so the app is called directly.
        sent: list[Message] = []
        parts = iter([{"type": "http.request", "body": b"{", "more_body": True}])

        async def receive() -> Message:
            for part in parts:
                return part
            await anyio.sleep_forever()
            raise AssertionError

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/mcp",
            "query_string": b"",
            "headers": [(b"host", b"127.0.0.1:8000"), (b"authorization", b"Bearer " + token().encode())],
        }
        with anyio.fail_after(5):
            await served.app(scope, receive, send)
        assert sent[0]["status"] == 408
        assert json.loads(sent[1]["body"])["error"] == "timeout"


async def test_slow_reader_is_disconnected_and_releases_its_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "WRITE_SECONDS", 0.1)
    ended = anyio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"x"})
            raise AssertionError("the response was sent")
        finally:
            ended.set()

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send_slowly(message: Message) -> None:
        if message["type"] == "http.response.body":
            await anyio.sleep_forever()

    with anyio.fail_after(5):
        await authentication._run_unless_slow(app, {}, receive, send_slowly)
    assert ended.is_set()
