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
CONNECTION_ERRORS = ("502 ", "RemoteProtocolError", "ReadError")
"""The start of the errors that a client gets if its replica is killed before or during a response."""
NEXT_SECRET = "the next secret that is longer than 32 bytes"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    async with deployment(tmp_path_factory.mktemp("deployment")) as running:
        yield running


async def ask(cluster: Deployment, replica: int | None, tool: str, **arguments: Any) -> dict[str, Any]:
    """Return the structured answer of a replica; None lets the proxy choose."""
    target = cluster.replicas[replica] if replica is not None else None
    async with cluster.http(target) as http:
        return dict(read_result(await call(http, tool, arguments))["structuredContent"])


async def create_briefcase(cluster: Deployment) -> dict[str, Any]:
    """Create a briefcase of the service application, with a lock; return the arguments of its tools."""
    itwin = (await ask(cluster, None, "list-itwins", limit=1))["iTwins"][0]["id"]
    imodel = (await ask(cluster, None, "list-imodels", iTwinId=itwin, limit=1))["iModels"][0]["id"]
    acquired = await ask(cluster, None, "acquire-briefcase", iModelId=imodel, deviceName="Agent")
    briefcase = {"iModelId": imodel, "briefcaseId": acquired["briefcase"]["briefcaseId"]}
    await ask(cluster, None, "acquire-locks", **briefcase, objectIds=["0x100"])
    return briefcase


async def is_released(cluster: Deployment, briefcase: dict[str, Any]) -> bool:
    answer = await ask(cluster, None, "get-briefcase", **briefcase)
    return "error" in answer and answer["error"]["status"] == 404


def find_name(message: str) -> str:
    """Return the name that a user is asked to type."""
    return message.rpartition("To confirm, type: ")[2]


async def confirm(_: Any, question: t.ElicitRequestParams) -> t.ElicitResult:
    """Answer as a user who types the requested name."""
    assert isinstance(question, t.ElicitRequestFormParams)
    return t.ElicitResult(action="accept", content={"name": find_name(question.message)})


@pytest.mark.parametrize("other", [1, 0])
async def test_list_is_continued_on_another_replica(cluster: Deployment, other: int) -> None:
    first = await ask(cluster, 1 - other, "list-itwins", limit=1)
    second = await ask(cluster, other, "list-itwins", limit=1, cursor=first["page"]["cursor"])
    assert second["page"]["returned"] == 1
    assert first["iTwins"] != second["iTwins"]


@pytest.mark.parametrize("other", [1, 0])
async def test_confirmation_is_accepted_by_another_replica(cluster: Deployment, other: int) -> None:
    arguments = await create_briefcase(cluster)
    capabilities = {"elicitation": {"form": {}}}
    async with cluster.http(cluster.replicas[1 - other]) as http:
        question = read_result(await call(http, "release-briefcase", arguments, capabilities=capabilities))
    assert question["resultType"] == "input_required"
    typed = {"name": find_name(question["inputRequests"]["confirm"]["params"]["message"])}
    answers = {"confirm": {"action": "accept", "content": typed}}
    answer_params = {"capabilities": capabilities, "inputResponses": answers, "requestState": question["requestState"]}
    async with cluster.http(cluster.replicas[other], sub="eve") as http:
        refused = read_result(await call(http, "release-briefcase", arguments, **answer_params))
    assert refused["structuredContent"]["error"]["code"] == "ConfirmationInvalid", "it belongs to another caller"
    assert not await is_released(cluster, arguments)
    async with cluster.http(cluster.replicas[other]) as http:
        result = read_result(await call(http, "release-briefcase", arguments, **answer_params))
    assert not result["isError"], result
    assert await is_released(cluster, arguments)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_confirmation_through_the_proxy_in_both_eras(cluster: Deployment, mode: str) -> None:
    briefcase = await create_briefcase(cluster)
    async with cluster.client(mode, confirm) as client:
        result = await client.call_tool("release-briefcase", briefcase)
    assert not result.is_error, result.structured_content
    assert await is_released(cluster, briefcase)


async def test_callers_are_isolated_across_replicas(cluster: Deployment) -> None:
    rng = random.Random(7)
    cursors: dict[tuple[str, str], list[str]] = defaultdict(list)
    violations: list[Any] = []
    attempts = {"own": 0, "foreign": 0}
    before = [view.sent for view in await cluster.seen_by_proxy()]

    async def run_caller(caller: tuple[str, str]) -> None:
        async with cluster.http(sub=caller[0], client_id=caller[1], scope="itwin:read") as http:
            for _ in range(8):
                all_cursors = [(owner, cursor) for owner, owned in cursors.items() for cursor in owned]
                if cursors[caller] and rng.random() < 0.3:
                    all_cursors = [(caller, cursor) for cursor in cursors[caller]]
                if not all_cursors or rng.random() < 0.3:
                    answer = read_result(await call(http, "list-itwins", {"limit": 1}))
                    cursors[caller].append(answer["structuredContent"]["page"]["cursor"])
                    continue
                owner, cursor = rng.choice(all_cursors)
                answer = read_result(await call(http, "list-itwins", {"limit": 1, "cursor": cursor}))
                attempts["own" if owner == caller else "foreign"] += 1
                if ("error" in answer["structuredContent"]) is (owner == caller):
                    violations.append((owner, caller, answer))

    async with anyio.create_task_group() as tasks:
        for number in range(25):
            for application in ("a", "b"):
                tasks.start_soon(run_caller, (f"person-{number}", application))
    assert violations == []
    assert min(attempts.values()) > 20
    sent = [view.sent - count for view, count in zip(await cluster.seen_by_proxy(), before, strict=True)]
    assert min(sent) > 100, f"both replicas answered: {sent}"


async def test_reads_survive_a_killed_and_a_restarted_replica(cluster: Deployment) -> None:
    killed, restarted = cluster.replicas
    async with under_load(cluster) as load:
        await cluster.kill_first(load)
        await load.wait_for_reads()
        killed.start()
        await killed.ready()
        await cluster.served_by_both()
        await load.wait_for_reads()
        await cluster.roll(restarted)
        await load.wait_for_reads()
    assert load.failed == []


async def test_legacy_session_stays_with_its_replica(cluster: Deployment) -> None:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(cluster.client("legacy", sub=f"old-{n}")) for n in range(6)]

        async def is_alive(client: Client) -> bool:
            try:
                return not (await client.call_tool("list-itwins", {"limit": 1})).is_error
            except MCPError:
                return False

        for _ in range(4):
            assert all([await is_alive(client) for client in clients]), "every call reaches the right replica"
        await cluster.roll(cluster.replicas[0])
        results = [await is_alive(client) for client in clients]
        assert 0 < sum(results) < len(clients), "sessions of the other replica continue"
    async with cluster.client("legacy") as new_client:
        assert not (await new_client.call_tool("list-itwins", {"limit": 1})).is_error


async def test_reads_survive_signing_key_rotation(cluster: Deployment) -> None:
    issuer = cluster.issuer
    async with under_load(cluster) as load:
        issuer.keys = [rsa("one"), rsa("two")]

        async def is_accepted() -> bool:
            statuses = []
            for replica in cluster.replicas:
                async with cluster.http(replica, signing="two") as http:
                    statuses.append((await call(http, "list-itwins", {"limit": 1})).status_code)
            assert set(statuses) <= {200, 401}
            return statuses == [200, 200]

        # A replica fetches keys for an unknown key at most once a minute.
        await wait_until(is_accepted, "both replicas know the new key", patience=90)
        issuer.signing = "two"
        await load.wait_for_reads()
        issuer.keys = [rsa("two")]
        await load.wait_for_reads()
    assert load.failed == []


async def test_cursors_survive_secret_rotation(cluster: Deployment) -> None:
    cursors: list[str] = []
    lost: list[Any] = []

    async def check_cursors() -> None:
        """Check that new and old cursors of either replica are valid on both."""
        for replica in (0, 1):
            cursors.append((await ask(cluster, replica, "list-itwins", limit=1))["page"]["cursor"])
        for replica in (0, 1):
            answers = [await ask(cluster, replica, "list-itwins", limit=1, cursor=cursor) for cursor in cursors]
            lost.extend(answer["error"] for answer in answers if "error" in answer)

    async with under_load(cluster) as load:
        for secrets in (f"{FIRST_SECRET},{NEXT_SECRET}", f"{NEXT_SECRET},{FIRST_SECRET}"):
            for replica in cluster.replicas:
                await cluster.roll(replica, ITWIN_MCP_STATE_SECRET=secrets)
                await check_cursors()
        assert lost == []
        new_cursors = cursors[-2:]
        for replica in cluster.replicas:
            await cluster.roll(replica, ITWIN_MCP_STATE_SECRET=NEXT_SECRET)
    assert load.failed == []
    for replica in (0, 1):
        assert "error" not in await ask(cluster, replica, "list-itwins", limit=1, cursor=new_cursors[0])
        assert "error" in await ask(cluster, replica, "list-itwins", limit=1, cursor=cursors[0]), (
            "the first secret is no longer accepted"
        )
        async with cluster.http(cluster.replicas[replica], signing="one") as http:
            assert (await call(http, "list-itwins", {})).status_code == 401, "the withdrawn key is no longer accepted"


async def test_stateless_legacy_clients_survive_restarts(cluster: Deployment) -> None:
    for replica in cluster.replicas:
        await cluster.roll(replica, ITWIN_MCP_STATELESS="true")
    async with under_load(cluster, legacy=True) as load:
        for replica in cluster.replicas:
            await cluster.roll(replica)
        assert load.failed == []
        await cluster.kill_first(load)
        await load.wait_for_reads()
        # Legacy requests have no headers that show the proxy what they ask, so it does not retry possible writes.
        assert [failure for failure in load.failed if not failure.startswith(CONNECTION_ERRORS)] == []
        assert 0 < len(load.failed) <= READERS, "only requests in progress fail"
        before = len(load.failed)
        await load.wait_for_reads()
        assert len(load.failed) == before
    async with cluster.client("legacy") as client:
        for _ in range(4):
            assert not (await client.call_tool("list-itwins", {"limit": 1})).is_error
    briefcase = await create_briefcase(cluster)
    async with cluster.client("legacy", confirm) as client:
        result = await client.call_tool("release-briefcase", briefcase)
    assert result.structured_content is not None
    assert "preview" in result.structured_content, "the user cannot be asked without a session"
    assert not await is_released(cluster, briefcase)
