"""Destructive tools in a real process, over stdio and HTTP, in both eras, run only if the user confirms.

The platform is a separate sandbox on loopback, so that the requests are recorded outside the server.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import anyio
import httpx2
import mcp.types as t
import pytest
from mcp import Client, MCPError, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from itwin_mcp.sandbox import Sandbox, listener
from itwin_mcp.sandbox.identity.users import find_user
from tests.conftest import agrees, connect, name_in
from tests.hosting.replicas import FIRST_SECRET, SERVICE, SERVICE_SECRET, Issuer, sign_in_server
from tests.scenarios.destructive import DESTRUCTIVE, Arguments, two_targets
from tests.scenarios.test_area_tools import Desk
from tests.scenarios.test_confirming import (
    ERAS,
    TOOLS,
    WHEN_SOMETHING_IS_LOST,
    Person,
    Record,
    code_of,
    does,
    files_are_linked_once,
    record,
    typing,
)
from tests.server.processes import Served, serving

__all__ = ["files_are_linked_once", "record"]

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="a signal shortens how long an answer is good"),
]

Way = Literal["stdio", "HTTP"]
WAYS: list[Way] = ["stdio", "HTTP"]
WRITING = [name for name in TOOLS if DESTRUCTIVE[name].writes]
MOVING = [name for name in TOOLS if any(one.name == "filePath" for one in DESTRUCTIVE[name].arguments)]
SHARED = [name for name in TOOLS if name not in MOVING]
"""The tools of a hosted server, which has no files."""
ELSEWHERE = "00000000-0000-4000-8000-00000000e15e"


@dataclass
class Place:
    """A platform with two targets, and the environment of a server process for it."""

    sandbox: Sandbox
    root: Path
    record: Record
    one: Arguments
    other: Arguments
    homes: list[str]
    environment: dict[str, str]
    patience: Path

    @asynccontextmanager
    async def agent(self, way: Way, mode: str, person: Any, *flags: str, **more: str) -> AsyncIterator[Client]:
        """Connect a client to a server process of its own."""
        environment = self.environment | more
        arguments = ["serve", "--toolsets", "all", "--files-root", str(self.root), *flags]
        async with AsyncExitStack() as stack:
            transport: Any
            if way == "stdio":
                command = ["-m", "tests.scenarios.impatient", *arguments]
                parameters = StdioServerParameters(command=sys.executable, args=command, env=os.environ | environment)
                transport = stdio_client(parameters)
            else:
                transport = streamable_http_client(stack.enter_context(self.served(*arguments, **environment)).url)
            yield await stack.enter_async_context(Client(transport, mode=mode, elicitation_callback=person))

    @contextmanager
    def served(self, *arguments: str, **environment: str) -> Iterator[Served]:
        command = [*arguments, "--http", "127.0.0.1:0"]
        with serving("tests.scenarios.impatient", *command, environment=environment) as served:
            yield served

    def policy(self, text: Any) -> str:
        """Write a policy file and return its path."""
        file = self.root.parent / f"{self.root.name}-policy.yaml"
        file.write_text(json.dumps({"itwin-mcp-policy": 1} | text), encoding="utf-8")
        return str(file)

    @contextmanager
    def short_patience(self) -> Iterator[None]:
        """Let questions expire early inside the block."""
        process = int(self.patience.read_text())
        os.kill(process, signal.SIGUSR1)
        yield
        os.kill(process, signal.SIGUSR1)


@asynccontextmanager
async def place(tool: str, mode: str, record: Record, tmp_path: Path) -> AsyncIterator[Place]:
    record.root = tmp_path / "files"
    record.root.mkdir()
    with Sandbox.open(job_seconds=0) as sandbox:
        async with anyio.create_task_group() as tasks:
            port = await tasks.start(_listen, sandbox)
            url = f"http://127.0.0.1:{port}"
            environment = {
                "ITWIN_API_URL": url,
                "ITWIN_ISSUER_URL": url,
                "NO_PROXY": "127.0.0.1",
                "PROCESS_FILE": str(tmp_path / "process"),
                "SHORT_SECONDS": "-1" if mode == "auto" else "0.05",
            }
            mine = {"ITWIN_ACCESS_TOKEN": sandbox.token()}
            with pytest.MonkeyPatch.context() as patched:
                for name, value in (environment | mine).items():
                    patched.setenv(name, value)
                async with connect(sandbox=False, job_seconds=1.0, files_root=[record.root]) as maker:
                    one, other, homes = await two_targets(tool, Desk(maker), record.root)
            record.changes.clear()
            patience = tmp_path / "process"
            yield Place(sandbox, record.root, record, one, other, homes, environment | mine, patience)
            tasks.cancel_scope.cancel()


async def _listen(sandbox: Sandbox, *, task_status: anyio.abc.TaskStatus[int]) -> None:
    await listener.serve(sandbox, "127.0.0.1", 0, started=task_status.started)


async def check_every_refusal(it: Place, client: Client, tool: str, person: Person, mode: str) -> None:
    """Check that a decline, a cancel, a wrong name and a late answer change nothing and are reported."""
    yes = person.answer
    for answer, code in (
        (does("decline"), "Declined"),
        (does("cancel"), "Cancelled"),
        (does("accept"), "NameMismatch"),
        (lambda asked: typing(name_in(asked) + "?"), "NameMismatch"),
    ):
        person.answer = answer
        assert await code_of(client, tool, it.one) == code
        assert it.record.nothing_happened()
    person.answer = yes if mode == "auto" else lambda _: None
    with it.short_patience():
        assert await code_of(client, tool, it.one) == "ConfirmationExpired"
    assert it.record.nothing_happened()
    person.answer = yes


class Rounds:
    """A question of protocol 2026-07-28 and its answer, taken apart so that a test can mix them up."""

    def __init__(self, tool: str, asked: t.InputRequiredResult) -> None:
        question = (asked.input_requests or {})["confirm"].params
        assert isinstance(question, t.ElicitRequestFormParams)
        self.tool = tool
        self.state = str(asked.request_state)
        self.answers: Any = {"confirm": typing(name_in(question))}

    @classmethod
    async def asked(cls, client: Client, tool: str, arguments: Arguments) -> Rounds:
        result = await client.session.call_tool(tool, arguments, allow_input_required=True)
        assert isinstance(result, t.InputRequiredResult)
        return cls(tool, result)

    async def give(self, client: Client, arguments: Arguments, state: str | None = None) -> t.CallToolResult:
        result = await client.session.call_tool(
            self.tool, arguments, input_responses=self.answers, request_state=state or self.state
        )
        assert isinstance(result, t.CallToolResult)
        return result

    async def refused(self, client: Client, arguments: Arguments, state: str | None = None) -> str:
        result = await self.give(client, arguments, state)
        assert result.is_error
        return str((result.structured_content or {})["error"]["code"])


async def check_answer_is_bound_to_its_call(it: Place, client: Client, stranger: Client, tool: str) -> None:
    """Check that an answer is valid only for its call and caller, unaltered. Needs protocol 2026-07-28."""
    rounds = await Rounds.asked(client, tool, it.one)
    assert await rounds.refused(client, it.other) == "ConfirmationInvalid"
    assert await rounds.refused(client, it.one, rounds.state[:-4] + "AAAA") == "ConfirmationInvalid"
    assert await rounds.refused(stranger, it.one) == "ConfirmationInvalid"
    assert it.record.nothing_happened()


async def check_answer_counts_once(it: Place, client: Client, tool: str) -> None:
    rounds = await Rounds.asked(client, tool, it.one)
    done = await rounds.give(client, it.one)
    assert not done.is_error, done.structured_content
    assert it.record.something_happened()
    before = list(it.record.changes)
    if tool not in WHEN_SOMETHING_IS_LOST:  # there a thing is left, which the answer of before must not take
        assert (await rounds.give(client, it.one)).is_error
        assert it.record.changes == before


@pytest.mark.parametrize("mode", ERAS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("tool", TOOLS)
async def test_destructive_tool_runs_in_a_process_only_if_the_user_confirms(
    tool: str, way: Way, mode: str, record: Record, tmp_path: Path
) -> None:
    person = Person()
    async with place(tool, mode, record, tmp_path) as it, it.agent(way, mode, person) as client:
        await check_every_refusal(it, client, tool, person, mode)
        if mode == "auto":
            # Another person of the same machine: their server seals with keys of their own.
            elsewhere = {"ITWIN_MCP_STATE_DIR": str(tmp_path / "theirs"), "PROCESS_FILE": os.devnull}
            async with it.agent(way, mode, agrees, **elsewhere) as stranger:
                await check_answer_is_bound_to_its_call(it, client, stranger, tool)
            await check_answer_counts_once(it, client, tool)
        else:
            done = await client.call_tool(tool, it.one)
            assert not done.is_error, done.structured_content
            assert record.something_happened()


@pytest.mark.parametrize("mode", ERAS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("tool", WRITING)
async def test_policy_refuses_or_pre_approves_up_to_its_cap(
    tool: str, way: Way, mode: str, record: Record, tmp_path: Path
) -> None:
    person = Person()
    person.answer = does("decline")
    everything = {"tools": {"allow": ["all"]}}
    async with place(tool, mode, record, tmp_path) as it:
        outside = it.policy({"default": everything | {"itwins": [ELSEWHERE]}})
        async with it.agent(way, mode, person, "--policy", outside) as client:
            assert await code_of(client, tool, it.one) == "PolicyRefused"
            assert record.nothing_happened()
        approved = {"pre-approved": [{"tools": [tool], "itwins": it.homes, "per-hour": 1}]}
        inside = it.policy({"default": everything | approved | {"itwins": it.homes}})
        async with it.agent(way, mode, person, "--policy", inside) as client:
            done = await client.call_tool(tool, it.other)
            assert not done.is_error, done.structured_content
            assert person.asked == []
            assert record.something_happened()
            record.changes.clear()
            assert await code_of(client, tool, it.one) == "Declined"
    assert len(person.asked) == 1
    assert record.nothing_happened()


@pytest.mark.parametrize("mode", ERAS)
@pytest.mark.parametrize("way", WAYS)
async def test_read_only_server_destroys_nothing(way: Way, mode: str, record: Record, tmp_path: Path) -> None:
    async with place("delete-imodel", mode, record, tmp_path) as it:
        async with it.agent(way, mode, agrees, "--read-only") as client:
            assert not {tool.name for tool in (await client.list_tools()).tools} & set(TOOLS)
            for tool in TOOLS:
                with pytest.raises(MCPError, match="Unknown tool"):
                    await client.call_tool(tool, it.one)
    assert record.nothing_happened()


# --- hosted servers ---------------------------------------------------------------------------------------------


@dataclass
class Hosted:
    """A hosted server whose callers are in groups with separate policy entries."""

    place: Place
    url: str
    issuer: Issuer

    @asynccontextmanager
    async def client(self, mode: str, person: Any, group: str, **claims: Any) -> AsyncIterator[Client]:
        async with self.http(group, **claims) as http:
            transport = streamable_http_client(self.url, http_client=http)
            async with Client(transport, mode=mode, elicitation_callback=person) as client:
                yield client

    def http(self, group: str, **claims: Any) -> httpx2.AsyncClient:
        bearer = self.issuer.bearer(groups=[group], sub=group, **claims)
        return httpx2.AsyncClient(headers={"authorization": f"Bearer {bearer}"}, timeout=60, trust_env=False)


@asynccontextmanager
async def hosted(tool: str, mode: str, record: Record, tmp_path: Path) -> AsyncIterator[Hosted]:
    async with place(tool, mode, record, tmp_path) as it:
        with sign_in_server() as issuer:
            issuer.audience = "https://mcp.example/mcp"
            everything = {"issuer": issuer.url, "itwins": "all", "tools": {"allow": ["all"]}}
            cap = {"pre-approved": [{"tools": [tool], "itwins": it.homes, "per-hour": 1}]}
            rules = {
                "engineers": everything,
                "others": everything,
                "outsiders": everything | {"itwins": [ELSEWHERE]},
                "machines": everything | cap,
            }
            policy = it.policy({"callers": [rule | {"groups": [group]} for group, rule in rules.items()]})
            environment = it.environment | {
                "ITWIN_ACCESS_TOKEN": "",
                "ITWIN_CLIENT_ID": SERVICE,
                "ITWIN_CLIENT_SECRET": SERVICE_SECRET,
                "ITWIN_MCP_POLICY": policy,
                "ITWIN_MCP_AUTH_ISSUER": issuer.url,
                "ITWIN_MCP_AUTH_AUDIENCE": issuer.audience,
                "ITWIN_MCP_STATE_SECRET": FIRST_SECRET,
                "ITWIN_MCP_NOTICE_SECONDS": "0",
            }
            _may_do_what_its_makers_may(it.sandbox)
            with it.served("serve", "--toolsets", "all", **environment) as served:
                yield Hosted(it, served.url, issuer)


def _may_do_what_its_makers_may(sandbox: Sandbox) -> None:
    """Make the service application a member wherever the owner is one, as administrators do in Bentley's portal."""
    with sandbox._store.transaction(write=True) as sql:
        owner = find_user(sql, None)["id"]
        service = find_user(sql, SERVICE)["id"]
        sql.execute(
            "INSERT OR IGNORE INTO itwin_members SELECT itwin_id, ?, role_id FROM itwin_members WHERE user_id = ?",
            (service, owner),
        )
        sql.execute("UPDATE shares SET creator_id = ? WHERE creator_id = ?", (service, owner))
        # Releasing an own briefcase asks nobody.
        sql.execute("UPDATE briefcases SET owner_id = ? WHERE owner_id = ?", (owner, service))


@pytest.mark.parametrize("mode", ERAS)
@pytest.mark.parametrize("tool", SHARED)
async def test_hosted_server_accepts_only_the_confirmation_of_the_asked_caller(
    tool: str, mode: str, record: Record, tmp_path: Path
) -> None:
    person, nobody, refuser = Person(), Person(), Person()
    refuser.answer = does("decline")
    async with hosted(tool, mode, record, tmp_path) as it, it.client(mode, person, "engineers") as client:
        one = it.place.one
        async with it.client(mode, nobody, "outsiders") as outsider:
            assert await code_of(outsider, tool, one) == "PolicyRefused"
        async with it.client(mode, nobody, "others", scope="itwin:read") as reader:
            assert tool not in {each.name for each in (await reader.list_tools()).tools}
            with pytest.raises(MCPError, match="Server returned an error response"):
                await reader.call_tool(tool, one)
        assert nobody.asked == []
        assert record.nothing_happened()
        await check_every_refusal(it.place, client, tool, person, mode)
        if mode == "auto":
            async with it.client(mode, agrees, "others") as stranger:
                await check_answer_is_bound_to_its_call(it.place, client, stranger, tool)
        async with it.client(mode, refuser, "machines") as machine:
            done = await machine.call_tool(tool, it.place.other)
            assert not done.is_error, done.structured_content
            assert refuser.asked == []
            assert record.something_happened()
            record.changes.clear()
            assert await code_of(machine, tool, one) == "Declined"
            assert record.nothing_happened()
        if mode == "auto":
            await check_answer_counts_once(it.place, client, tool)
            return
        done = await client.call_tool(tool, one)
        assert not done.is_error, done.structured_content
        assert record.something_happened()


@pytest.mark.parametrize("tool", SHARED)
async def test_legacy_session_rejects_the_confirmation_of_another_caller(
    tool: str, record: Record, tmp_path: Path
) -> None:
    sessions: list[str] = []

    async def remember(response: httpx2.Response) -> None:
        sessions.extend(response.headers.get_list("mcp-session-id"))

    async with hosted(tool, "legacy", record, tmp_path) as it, it.http("others") as stranger:

        async def person(context: Any, asked: t.ElicitRequestParams) -> t.ElicitResult:
            assert isinstance(asked, t.ElicitRequestFormParams)
            yes = {"action": "accept", "content": {"name": name_in(asked)}}
            answer = await stranger.post(
                it.url,
                headers={
                    "accept": "application/json, text/event-stream",
                    "mcp-session-id": sessions[0],
                    "mcp-protocol-version": "2025-11-25",
                },
                json={"jsonrpc": "2.0", "id": context.request_id, "result": yes},
            )
            assert answer.status_code == 404
            assert record.nothing_happened()
            return t.ElicitResult(action="decline")

        async with it.http("engineers") as http:
            http.event_hooks = {"request": [], "response": [remember]}
            transport = streamable_http_client(it.url, http_client=http)
            async with Client(transport, mode="legacy", elicitation_callback=person) as client:
                assert await code_of(client, tool, it.place.one) == "Declined"
    assert record.nothing_happened()
