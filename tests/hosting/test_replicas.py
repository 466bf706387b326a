"""Two replicas behind a proxy are one server: whichever answers, and while one is killed, rolled or given new keys.

The tests share one deployment and go on from where the one before left it, with both replicas up.
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
from tests.hosting.replicas import FIRST_SECRET, READERS, Deployment, call, deployment, told, under_load, until

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM for another process"),
]
BROKEN_OFF = ("502 ", "RemoteProtocolError", "ReadError")
"""What a client sees of a call whose replica is gone, before or amid its answer."""
NEXT_SECRET = "the next secret that is longer than 32 bytes"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def whole(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    async with deployment(tmp_path_factory.mktemp("deployment")) as one:
        yield one


async def ask(whole: Deployment, replica: int | None, tool: str, **arguments: Any) -> dict[str, Any]:
    """The structured answer of one replica, or of whichever the proxy takes."""
    at = whole.replicas[replica] if replica is not None else None
    async with whole.http(at) as http:
        return dict(told(await call(http, tool, arguments))["structuredContent"])


async def a_briefcase(whole: Deployment) -> dict[str, Any]:
    """One of the service application's own, with a lock: the arguments of the tools that are about it."""
    itwin = (await ask(whole, None, "list-itwins", limit=1))["iTwins"][0]["id"]
    imodel = (await ask(whole, None, "list-imodels", iTwinId=itwin, limit=1))["iModels"][0]["id"]
    acquired = await ask(whole, None, "acquire-briefcase", iModelId=imodel, deviceName="Agent")
    one = {"iModelId": imodel, "briefcaseId": acquired["briefcase"]["briefcaseId"]}
    await ask(whole, None, "acquire-locks", **one, objectIds=["0x100"])
    return one


async def gone(whole: Deployment, briefcase: dict[str, Any]) -> bool:
    read = await ask(whole, None, "get-briefcase", **briefcase)
    return "error" in read and read["error"]["status"] == 404


def name_in(message: str) -> str:
    """What a person is asked to type."""
    return message.rpartition("To confirm, type: ")[2]


async def agrees(_: Any, asked: t.ElicitRequestParams) -> t.ElicitResult:
    """A person who types the name that is asked for."""
    assert isinstance(asked, t.ElicitRequestFormParams)
    return t.ElicitResult(action="accept", content={"name": name_in(asked.message)})


@pytest.mark.parametrize("other", [1, 0])
async def test_a_list_that_one_replica_began_the_other_goes_on_with(whole: Deployment, other: int) -> None:
    first = await ask(whole, 1 - other, "list-itwins", limit=1)
    second = await ask(whole, other, "list-itwins", limit=1, cursor=first["page"]["cursor"])
    assert second["page"]["returned"] == 1
    assert first["iTwins"] != second["iTwins"]


@pytest.mark.parametrize("other", [1, 0])
async def test_a_confirmation_that_one_replica_asked_for_the_other_takes(whole: Deployment, other: int) -> None:
    arguments = await a_briefcase(whole)
    can = {"elicitation": {"form": {}}}
    async with whole.http(whole.replicas[1 - other]) as http:
        asked = told(await call(http, "release-briefcase", arguments, capabilities=can))
    assert asked["resultType"] == "input_required"
    typed = {"name": name_in(asked["inputRequests"]["confirm"]["params"]["message"])}
    answers = {"confirm": {"action": "accept", "content": typed}}
    given = {"capabilities": can, "inputResponses": answers, "requestState": asked["requestState"]}
    async with whole.http(whole.replicas[other], sub="eve") as http:
        refused = told(await call(http, "release-briefcase", arguments, **given))
    assert refused["structuredContent"]["error"]["code"] == "ConfirmationInvalid", "it is another's"
    assert not await gone(whole, arguments)
    async with whole.http(whole.replicas[other]) as http:
        done = told(await call(http, "release-briefcase", arguments, **given))
    assert not done["isError"], done
    assert await gone(whole, arguments)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_person_confirms_by_way_of_the_proxy_in_both_eras(whole: Deployment, mode: str) -> None:
    briefcase = await a_briefcase(whole)
    async with whole.client(mode, agrees) as client:
        result = await client.call_tool("release-briefcase", briefcase)
    assert not result.is_error, result.structured_content
    assert await gone(whole, briefcase)


async def test_fifty_callers_never_cross_whichever_replica_answers(whole: Deployment) -> None:
    chance = random.Random(7)
    cursors: dict[tuple[str, str], list[str]] = defaultdict(list)
    crossings: list[Any] = []
    tried = {"own": 0, "foreign": 0}
    before = [seen.sent for seen in await whole.seen_by_proxy()]

    async def live(me: tuple[str, str]) -> None:
        async with whole.http(sub=me[0], client_id=me[1], scope="itwin:read") as http:
            for _ in range(8):
                known = [(owner, cursor) for owner, given in cursors.items() for cursor in given]
                if cursors[me] and chance.random() < 0.3:
                    known = [(me, cursor) for cursor in cursors[me]]
                if not known or chance.random() < 0.3:
                    answer = told(await call(http, "list-itwins", {"limit": 1}))
                    cursors[me].append(answer["structuredContent"]["page"]["cursor"])
                    continue
                owner, cursor = chance.choice(known)
                answer = told(await call(http, "list-itwins", {"limit": 1, "cursor": cursor}))
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


async def test_one_is_killed_and_one_is_rolled_and_no_read_fails(whole: Deployment) -> None:
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


async def test_an_older_clients_session_stays_with_its_replica_and_ends_with_it(whole: Deployment) -> None:
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
        assert 0 < sum(living) < len(clients), "those of the other replica go on"
    async with whole.client("legacy") as anew:
        assert not (await anew.call_tool("list-itwins", {"limit": 1})).is_error


async def test_signing_keys_are_turned_under_load_and_no_read_fails(whole: Deployment) -> None:
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
        await until(taken, "both replicas know the new key", patience=90)
        issuer.signing = "two"
        await load.more()
        issuer.keys = [rsa("two")]
        await load.more()
    assert load.failed == []


async def test_secrets_are_turned_in_three_steps_under_load_and_no_cursor_is_lost(whole: Deployment) -> None:
    given: list[str] = []
    lost: list[Any] = []

    async def both_ways() -> None:
        """What either replica gives now, and all that was given before, is good on both."""
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


async def test_without_sessions_older_clients_are_rolled_as_well_and_a_kill_breaks_off_only_what_was_under_way(
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
    briefcase = await a_briefcase(whole)
    async with whole.client("legacy", agrees) as client:
        result = await client.call_tool("release-briefcase", briefcase)
    assert result.structured_content is not None
    assert "preview" in result.structured_content, "nobody can be asked without a session"
    assert not await gone(whole, briefcase)
