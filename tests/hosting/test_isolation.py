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
        async with served.client() as own_client:
            cursor = (await ask(own_client, "list-itwins", limit=1))["page"]["cursor"]
            for claims in OTHERS.values():
                async with served.client(**claims) as other_client:
                    refused = await ask(other_client, "list-itwins", limit=1, cursor=cursor)
                    assert refused["error"]["code"] == "InvalidArguments"
                    assert "another caller" in refused["error"]["message"]
            assert (await ask(own_client, "list-itwins", limit=1, cursor=cursor))["page"]["returned"] == 1
        async with served.client(jti="a later token") as later_client:
            assert (await ask(later_client, "list-itwins", limit=1, cursor=cursor))["page"]["returned"] == 1


async def test_names_and_completions_are_cached_per_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(monkeypatch) as served:
        sent: list[str] = []
        original_send = served.runtime.upstream.send

        async def send(request: Any) -> Any:
            # This path reads names of users, which tests/executor/test_thing_names.py covers.
            if request.path != "/users/getbyidlist":
                sent.append(request.path)
            return await original_send(request)

        monkeypatch.setattr(served.runtime.upstream, "send", send)
        async with served.client() as own_client:
            itwin = (await ask(own_client, "list-recent-itwins", limit=1))["iTwins"][0]

            async def lookups(client: Client) -> int:
                sent.clear()
                answer = await ask(client, "list-imodels", iTwinId=itwin["displayName"], limit=1)
                assert answer["resolved"][0]["id"] == itwin["id"]
                return len(sent)

            async def completions(client: Client) -> int:
                sent.clear()
                result = await client.complete(PromptReference(name="review-project"), {"name": "iTwinId", "value": ""})
                assert result.completion.values
                return len(sent)

            for count in (lookups, completions):
                first, repeated = await count(own_client), await count(own_client)
                assert repeated < first, "the caller's own values are cached"
                for claims in OTHERS.values():
                    async with served.client(**claims) as other_client:
                        assert await count(other_client) == first, "another caller's cache is not used"
                assert await count(own_client) == repeated


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


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3, 4))])
async def test_concurrent_callers_never_see_each_others_answers(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call runs as the caller of its own token, and each cursor opens only for that caller."""
    rng = random.Random(seed)
    people = [f"person-{number}" for number in range(25)]
    callers = [(person, application) for person in people for application in ("a", "b")]
    cursors: dict[tuple[str, str], list[str]] = defaultdict(list)
    keys: dict[tuple[str, str], set[str]] = defaultdict(set)
    violations: list[Any] = []
    attempts = {"own": 0, "foreign": 0}

    async with serve(monkeypatch, {"ITWIN_MCP_TOTAL_CONCURRENCY": "32"}) as served:
        original_call = served.runtime.executor.call

        async def call(tool: Any, arguments: Any, conversation: Any, caller: Caller, *more: Any) -> Any:
            await anyio.lowlevel.checkpoint()
            if get_caller() is not caller or caller.subject != arguments.get("search", caller.subject):
                violations.append((caller, arguments))
            running.add((caller.subject, caller.key))
            return await original_call(tool, arguments, conversation, caller, *more)

        running: set[tuple[str | None, str]] = set()
        monkeypatch.setattr(served.runtime.executor, "call", call)

        async def run_caller(caller_id: tuple[str, str]) -> None:
            bearer = token(sub=caller_id[0], client_id=caller_id[1], scope="itwin:read")
            async with served.http(bearer) as http:
                for _ in range(20):
                    await call_once(served, http, caller_id)

        async def call_once(served: Served, http: Any, caller_id: tuple[str, str]) -> None:
            all_cursors = [(owner, cursor) for owner, owned in cursors.items() for cursor in owned]
            if all_cursors and rng.random() < 0.6:
                owner, cursor = rng.choice(all_cursors)
                if rng.random() < 0.3 and cursors[caller_id]:
                    owner, cursor = caller_id, rng.choice(cursors[caller_id])
                answer = await served.call(http, "list-itwins", limit=1, cursor=cursor)
                refused = "error" in answer.json()["result"]["structuredContent"]
                attempts["own" if owner == caller_id else "foreign"] += 1
                if refused is (owner == caller_id):
                    violations.append((owner, caller_id))
            elif rng.random() < 0.3:
                # The search is the caller's name, which `call` compares with the caller it runs as.
                await served.call(http, "list-itwins", limit=1, search=caller_id[0])
            else:
                answer = await served.call(http, "list-itwins", limit=1)
                cursors[caller_id].append(answer.json()["result"]["structuredContent"]["page"]["cursor"])

        with anyio.fail_after(120):
            async with anyio.create_task_group() as tasks:
                for caller_id in callers:
                    tasks.start_soon(run_caller, caller_id)
        assert violations == []
        for subject, key in running:
            keys[subject or "", ""].add(key)
    assert attempts["own"] > 50 and attempts["foreign"] > 50
    assert len(running) == 50, "each caller has one key"
    assert all(len(caller_keys) == 2 for caller_keys in keys.values()), "a person has one key per application"
