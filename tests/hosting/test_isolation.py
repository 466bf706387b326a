"""Callers are isolated in cursors, names, completions and lists, also under a thousand concurrent calls."""

import random
from collections import defaultdict
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.types import PromptReference

from itwin_mcp.executor.confirmation.seals import SealError, Seals, derive_keys
from itwin_mcp.executor.context import Caller
from itwin_mcp.hosting.authentication import get_caller
from tests.hosting.issuer import token
from tests.hosting.served import Served, serve

pytestmark = pytest.mark.anyio

OTHERS: dict[str, dict[str, Any]] = {
    "another subject": {"sub": "eve"},
    "the same subject in another application": {"client_id": "other"},
    "the same subject in no application": {"client_id": None},
}


async def ask(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert result.structured_content is not None
    return result.structured_content


async def test_cursor_is_valid_only_for_its_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(monkeypatch) as served:
        async with served.client() as mine:
            cursor = (await ask(mine, "list-itwins", limit=1))["page"]["cursor"]
            for claims in OTHERS.values():
                async with served.client(**claims) as theirs:
                    refused = await ask(theirs, "list-itwins", limit=1, cursor=cursor)
                    assert refused["error"]["code"] == "InvalidArguments"
                    assert "another caller" in refused["error"]["message"]
            assert (await ask(mine, "list-itwins", limit=1, cursor=cursor))["page"]["returned"] == 1
        async with served.client(jti="a later token") as later:
            assert (await ask(later, "list-itwins", limit=1, cursor=cursor))["page"]["returned"] == 1


async def test_names_and_completions_are_cached_per_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(monkeypatch) as served:
        sent: list[str] = []
        send_request = served.runtime.upstream.send

        async def send(request: Any) -> Any:
            if request.path != "/users/getbyidlist":  # names of people: tests/executor/test_thing_names.py
                sent.append(request.path)
            return await send_request(request)

        monkeypatch.setattr(served.runtime.upstream, "send", send)
        async with served.client() as mine:
            itwin = (await ask(mine, "list-recent-itwins", limit=1))["iTwins"][0]

            async def lookups(client: Client) -> int:
                sent.clear()
                listed = await ask(client, "list-imodels", iTwinId=itwin["displayName"], limit=1)
                assert listed["resolved"][0]["id"] == itwin["id"]
                return len(sent)

            async def completions(client: Client) -> int:
                sent.clear()
                completion = await client.complete(
                    PromptReference(name="review-project"), {"name": "iTwinId", "value": ""}
                )
                assert completion.completion.values
                return len(sent)

            for count in (lookups, completions):
                first, again = await count(mine), await count(mine)
                assert again < first, "this caller's own are remembered"
                for claims in OTHERS.values():
                    async with served.client(**claims) as theirs:
                        assert await count(theirs) == first, "nothing of another caller is used"
                assert await count(mine) == again


def test_seals_open_on_other_replicas_and_survive_key_rotation() -> None:
    old, new = "o" * 32, "n" * 40
    ada, eve = Caller("ada"), Caller("eve")

    def replica(*secrets: str) -> Seals:
        return Seals(lambda: derive_keys(secrets))

    sealed = replica(old).seal("cursor", ada, {"x": 1})
    for step in ((old,), (old, new), (new, old)):
        assert replica(*step).open(sealed, "cursor", ada, seconds=60) == {"x": 1}
    newer = replica(new, old).seal("cursor", ada, {"x": 2})
    assert replica(old, new).open(newer, "cursor", ada, seconds=60) == {"x": 2}
    for wrong in ((new,), ("other" * 10,)):
        with pytest.raises(SealError) as caught:
            replica(*wrong).open(sealed, "cursor", ada, seconds=60)
        assert caught.value.flaw == "unreadable"
    with pytest.raises(SealError) as caught:
        replica(old).open(sealed, "cursor", eve, seconds=60)
    assert caught.value.flaw == "of another caller"


async def test_cursor_is_valid_on_replicas_with_the_same_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = {"ITWIN_MCP_STATE_SECRET": "s" * 32, "ITWIN_MCP_REPLICAS": "2"}
    async with serve(monkeypatch, secret) as one, serve(monkeypatch, secret) as two:
        async with one.client() as first, two.client() as second:
            cursor = (await ask(first, "list-itwins", limit=2))["page"]["cursor"]
            assert (await ask(second, "list-itwins", limit=2, cursor=cursor))["page"]["returned"] == 2
        async with two.client(sub="eve") as other:
            assert "error" in await ask(other, "list-itwins", limit=2, cursor=cursor)


def test_get_caller_raises_outside_of_a_request() -> None:
    with pytest.raises(RuntimeError):
        get_caller()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
async def test_concurrent_callers_never_see_each_others_answers(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call runs as the caller of its own token, and each cursor opens only for that caller."""
    chance = random.Random(seed)
    people = [f"person-{number}" for number in range(25)]
    callers = [(person, application) for person in people for application in ("a", "b")]
    cursors: dict[tuple[str, str], list[str]] = defaultdict(list)
    keys: dict[tuple[str, str], set[str]] = defaultdict(set)
    crossings: list[Any] = []
    tried = {"own": 0, "foreign": 0}

    async with serve(monkeypatch, {"ITWIN_MCP_TOTAL_CONCURRENCY": "32"}) as served:
        call_tool = served.runtime.executor.call

        async def call(tool: Any, arguments: Any, conversation: Any, caller: Caller, *more: Any) -> Any:
            await anyio.lowlevel.checkpoint()
            if get_caller() is not caller or caller.subject != arguments.get("search", caller.subject):
                crossings.append((caller, arguments))
            running.add((caller.subject, caller.key))
            return await call_tool(tool, arguments, conversation, caller, *more)

        running: set[tuple[str | None, str]] = set()
        monkeypatch.setattr(served.runtime.executor, "call", call)

        async def live(me: tuple[str, str]) -> None:
            bearer = token(sub=me[0], client_id=me[1], scope="itwin:read")
            async with served.http(bearer) as http:
                for _ in range(20):
                    await one(served, http, me)

        async def one(served: Served, http: Any, me: tuple[str, str]) -> None:
            owned_cursors = [(owner, cursor) for owner, issued in cursors.items() for cursor in issued]
            if owned_cursors and chance.random() < 0.6:
                owner, cursor = chance.choice(owned_cursors)
                if chance.random() < 0.3 and cursors[me]:
                    owner, cursor = me, chance.choice(cursors[me])
                answer = await served.call(http, "list-itwins", limit=1, cursor=cursor)
                refused = "error" in answer.json()["result"]["structuredContent"]
                tried["own" if owner == me else "foreign"] += 1
                if refused is (owner == me):
                    crossings.append((owner, me))
            elif chance.random() < 0.3:
                # The name of the caller as the search: whoever runs it must be the one who asked.
                await served.call(http, "list-itwins", limit=1, search=me[0])
            else:
                answer = await served.call(http, "list-itwins", limit=1)
                cursors[me].append(answer.json()["result"]["structuredContent"]["page"]["cursor"])

        with anyio.fail_after(120):
            async with anyio.create_task_group() as tasks:
                for me in callers:
                    tasks.start_soon(live, me)
        assert crossings == []
        for subject, key in running:
            keys[subject or "", ""].add(key)
    assert tried["own"] > 50 and tried["foreign"] > 50
    assert len(running) == 50, "each caller had one key"
    assert all(len(found) == 2 for found in keys.values()), "and each application of a person another one"
