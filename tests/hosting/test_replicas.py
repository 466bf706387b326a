"""Two replicas behind a proxy act as one server, also while one is killed, restarted or given new keys.

The tests share one deployment. Each starts where the previous one ended, with both replicas up.
"""

import random
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import anyio
import mcp.types as t
import pytest
from mcp import Client, MCPError

from tests.hosting.issuer import rsa
from tests.hosting.replicas import (
    FIRST_SECRET,
    READERS,
    Deployment,
    call,
    deployment,
    read_result,
    under_load,
    wait_until,
)

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM for another process"),
]
BROKEN_OFF = ("502 ", "RemoteProtocolError", "ReadError")
"""Errors of a client whose replica is killed before or during its response."""
NEXT_SECRET = "the next secret that is longer than 32 bytes"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def whole(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    async with deployment(tmp_path_factory.mktemp("deployment")) as one:
        yield one


async def ask(whole: Deployment, replica: int | None, tool: str, **arguments: Any) -> dict[str, Any]:
    """Return the structured answer of one replica, or of the one that the proxy chooses."""
    at = whole.replicas[replica] if replica is not None else None
    async with whole.http(at) as http:
        return dict(read_result(await call(http, tool, arguments))["structuredContent"])


async def create_briefcase(whole: Deployment) -> dict[str, Any]:
    """Create a briefcase of the service application, with a lock; return the arguments of its tools."""
    itwin = (await ask(whole, None, "list-itwins", limit=1))["iTwins"][0]["id"]
    imodel = (await ask(whole, None, "list-imodels", iTwinId=itwin, limit=1))["iModels"][0]["id"]
    acquired = await ask(whole, None, "acquire-briefcase", iModelId=imodel, deviceName="Agent")
    briefcase = {"iModelId": imodel, "briefcaseId": acquired["briefcase"]["briefcaseId"]}
    await ask(whole, None, "acquire-locks", **briefcase, objectIds=["0x100"])
    return briefcase


async def is_released(whole: Deployment, briefcase: dict[str, Any]) -> bool:
    read = await ask(whole, None, "get-briefcase", **briefcase)
    return "error" in read and read["error"]["status"] == 404


def read_requested_name(message: str) -> str:
    """Return the name that a user is asked to type."""
    return message.rpartition("To confirm, type: ")[2]


async def agrees(_: Any, question: t.ElicitRequestParams) -> t.ElicitResult:
    """Answer as a user who types the requested name."""
    assert isinstance(question, t.ElicitRequestFormParams)
    return t.ElicitResult(action="accept", content={"name": read_requested_name(question.message)})


@pytest.mark.parametrize("other", [1, 0])
async def test_list_is_continued_on_another_replica(whole: Deployment, other: int) -> None:
    first = await ask(whole, 1 - other, "list-itwins", limit=1)
    second = await ask(whole, other, "list-itwins", limit=1, cursor=first["page"]["cursor"])
    assert second["page"]["returned"] == 1
    assert first["iTwins"] != second["iTwins"]


@pytest.mark.parametrize("other", [1, 0])
async def test_confirmation_is_accepted_by_another_replica(whole: Deployment, other: int) -> None:
    arguments = await create_briefcase(whole)
    can = {"elicitation": {"form": {}}}
    async with whole.http(whole.replicas[1 - other]) as http:
        question = read_result(await call(http, "release-briefcase", arguments, capabilities=can))
    assert question["resultType"] == "input_required"
    typed = {"name": read_requested_name(question["inputRequests"]["confirm"]["params"]["message"])}
    answers = {"confirm": {"action": "accept", "content": typed}}
    confirmation = {"capabilities": can, "inputResponses": answers, "requestState": question["requestState"]}
    async with whole.http(whole.replicas[other], sub="eve") as http:
        refused = read_result(await call(http, "release-briefcase", arguments, **confirmation))
    assert refused["structuredContent"]["error"]["code"] == "ConfirmationInvalid", "it is another's"
    assert not await is_released(whole, arguments)
    async with whole.http(whole.replicas[other]) as http:
        done = read_result(await call(http, "release-briefcase", arguments, **confirmation))
    assert not done["isError"], done
    assert await is_released(whole, arguments)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_confirmation_through_the_proxy_in_both_eras(whole: Deployment, mode: str) -> None:
    briefcase = await create_briefcase(whole)
    async with whole.client(mode, agrees) as client:
        result = await client.call_tool("release-briefcase", briefcase)
    assert not result.is_error, result.structured_content
    assert await is_released(whole, briefcase)


async def test_callers_are_isolated_across_replicas(whole: Deployment) -> None:
    chance = random.Random(7)
    cursors: dict[tuple[str, str], list[str]] = defaultdict(list)
    crossings: list[Any] = []
    tried = {"own": 0, "foreign": 0}
    before = [seen.sent for seen in await whole.seen_by_proxy()]

    async def live(me: tuple[str, str]) -> None:
        async with whole.http(sub=me[0], client_id=me[1], scope="itwin:read") as http:
            for _ in range(8):
                owned_cursors = [(owner, cursor) for owner, issued in cursors.items() for cursor in issued]
                if cursors[me] and chance.random() < 0.3:
                    owned_cursors = [(me, cursor) for cursor in cursors[me]]
                if not owned_cursors or chance.random() < 0.3:
                    answer = read_result(await call(http, "list-itwins", {"limit": 1}))
                    cursors[me].append(answer["structuredContent"]["page"]["cursor"])
                    continue
                owner, cursor = chance.choice(owned_cursors)
                answer = read_result(await call(http, "list-itwins", {"limit": 1, "cursor": cursor}))
                tried["own" if owner == me else "foreign"] += 1
                if ("error" in answer["structuredContent"]) is (owner == me):
                    crossings.append((owner, me, answer))

    async with anyio.create_task_group() as tasks:
        for number in range(25):
            for application in ("a", "b"):
                tasks.start_soon(live, (f"person-{number}", application))
    assert crossings == []
    assert min(tried.values()) > 20
    sent = [seen.sent - then for seen, then in zip(await whole.seen_by_proxy(), before, strict=True)]
    assert min(sent) > 100, f"both replicas answered: {sent}"


async def test_reads_survive_a_killed_and_a_restarted_replica(whole: Deployment) -> None:
    killed, rolled = whole.replicas
    async with under_load(whole) as load:
        await whole.kill_first(load)
        await load.more()
        killed.start()
        await killed.ready()
        await whole.served_by_both()
        await load.more()
        await whole.roll(rolled)
        await load.more()
    assert load.failed == []


async def test_legacy_session_stays_with_its_replica(whole: Deployment) -> None:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(whole.client("legacy", sub=f"old-{n}")) for n in range(6)]

        async def alive(client: Client) -> bool:
            try:
                return not (await client.call_tool("list-itwins", {"limit": 1})).is_error
            except MCPError:
                return False

        for _ in range(4):
            assert all([await alive(client) for client in clients]), "no call went to the wrong replica"
        await whole.roll(whole.replicas[0])
        living = [await alive(client) for client in clients]
        assert 0 < sum(living) < len(clients), "sessions of the other replica continue"
    async with whole.client("legacy") as anew:
        assert not (await anew.call_tool("list-itwins", {"limit": 1})).is_error


async def test_reads_survive_signing_key_rotation(whole: Deployment) -> None:
    issuer = whole.issuer
    async with under_load(whole) as load:
        issuer.keys = [rsa("one"), rsa("two")]

        async def taken() -> bool:
            statuses = []
            for replica in whole.replicas:
                async with whole.http(replica, signing="two") as http:
                    statuses.append((await call(http, "list-itwins", {"limit": 1})).status_code)
            assert set(statuses) <= {200, 401}
            return statuses == [200, 200]

        # A key that nobody knows makes a replica ask at most once a minute.
        await wait_until(taken, "both replicas know the new key", patience=90)
        issuer.signing = "two"
        await load.more()
        issuer.keys = [rsa("two")]
        await load.more()
    assert load.failed == []


async def test_cursors_survive_secret_rotation(whole: Deployment) -> None:
    given: list[str] = []
    lost: list[Any] = []

    async def both_ways() -> None:
        """Check that new and old cursors of either replica are valid on both."""
        for replica in (0, 1):
            given.append((await ask(whole, replica, "list-itwins", limit=1))["page"]["cursor"])
        for replica in (0, 1):
            answers = [await ask(whole, replica, "list-itwins", limit=1, cursor=cursor) for cursor in given]
            lost.extend(answer["error"] for answer in answers if "error" in answer)

    async with under_load(whole) as load:
        for secrets in (f"{FIRST_SECRET},{NEXT_SECRET}", f"{NEXT_SECRET},{FIRST_SECRET}"):
            for replica in whole.replicas:
                await whole.roll(replica, ITWIN_MCP_STATE_SECRET=secrets)
                await both_ways()
        assert lost == []
        of_the_new = given[-2:]
        for replica in whole.replicas:
            await whole.roll(replica, ITWIN_MCP_STATE_SECRET=NEXT_SECRET)
    assert load.failed == []
    for replica in (0, 1):
        assert "error" not in await ask(whole, replica, "list-itwins", limit=1, cursor=of_the_new[0])
        assert "error" in await ask(whole, replica, "list-itwins", limit=1, cursor=given[0]), "the first is forgotten"
        async with whole.http(whole.replicas[replica], signing="one") as http:
            assert (await call(http, "list-itwins", {})).status_code == 401, "and so is the key that was taken back"


async def test_stateless_legacy_clients_survive_restarts(
    whole: Deployment,
) -> None:
    for replica in whole.replicas:
        await whole.roll(replica, ITWIN_MCP_STATELESS="true")
    async with under_load(whole, legacy=True) as load:
        for replica in whole.replicas:
            await whole.roll(replica)
        assert load.failed == []
        await whole.kill_first(load)
        await load.more()
        # They do not say what they ask where a proxy could read it: what may have been a write is not sent again.
        assert [failure for failure in load.failed if not failure.startswith(BROKEN_OFF)] == []
        assert 0 < len(load.failed) <= READERS, "one for each that was under way"
        before = len(load.failed)
        await load.more()
        assert len(load.failed) == before
    async with whole.client("legacy") as client:
        for _ in range(4):
            assert not (await client.call_tool("list-itwins", {"limit": 1})).is_error
    briefcase = await create_briefcase(whole)
    async with whole.client("legacy", agrees) as client:
        result = await client.call_tool("release-briefcase", briefcase)
    assert result.structured_content is not None
    assert "preview" in result.structured_content, "nobody can be asked without a session"
    assert not await is_released(whole, briefcase)
