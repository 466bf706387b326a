"""Destructive tools in a server process, over stdio and HTTP, in both eras, run only if the user confirms.

One server takes the calls of all tools, because it takes longer to start than to answer. The platform is a sandbox of
this process on loopback, so that its requests are recorded outside the server.
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

Transport = Literal["stdio", "HTTP"]
TRANSPORTS: list[Transport] = ["stdio", "HTTP"]
SHARED = [tool for tool in TOOLS if all(argument.name != "filePath" for argument in DESTRUCTIVE[tool].arguments)]
"""The tools of a hosted server, which has no files."""
WRITING = [tool for tool in TOOLS if DESTRUCTIVE[tool].writes and tool != "delete-itwin"]
"""The tools of the policy tests. delete-itwin is left out: its target is created after the policy has been read."""
OTHER_ITWIN = "00000000-0000-4000-8000-00000000e15e"
ALL_TOOLS = {"tools": {"allow": ["all"]}}


@dataclass(frozen=True)
class Case:
    """A destructive tool, and its arguments for two targets."""

    tool: str
    arguments: Arguments
    other_arguments: Arguments


@dataclass
class Platform:
    """A sandbox on loopback, and the environment of server processes that use it."""

    listening: Sandbox
    sandbox: Sandbox
    """The sandbox that answers. Each tool has its own."""
    record: Record
    maker: Client
    environment: dict[str, str]
    itwins: list[str]
    """The iTwins that contain the targets."""

    @asynccontextmanager
    async def prepare(self, tool: str) -> AsyncIterator[Case]:
        """Reset the content of the sandbox and the folder of files, and create two targets for a tool."""
        for file in self.record.root.iterdir():
            file.unlink()
        with Sandbox.open(job_seconds=0, storage_url=self.environment["ITWIN_API_URL"]) as sandbox:
            self.listening.app.default = sandbox.app.default
            self.sandbox = sandbox
            arguments, other_arguments, _ = await two_targets(tool, Desk(self.maker), self.record.root)
            self.record.changes.clear()
            yield Case(tool, arguments, other_arguments)

    @asynccontextmanager
    async def connect(
        self, transport: Transport, mode: str, person: Any, *flags: str, **environment: str
    ) -> AsyncIterator[Client]:
        """Connect a client to a server process of its own."""
        arguments = ["serve", "--toolsets", "all", "--files-root", str(self.record.root), *flags]
        streams: Any
        async with AsyncExitStack() as stack:
            if transport == "stdio":
                streams = stdio_client(
                    StdioServerParameters(
                        command=sys.executable,
                        args=["-m", "tests.scenarios.impatient", *arguments],
                        env=os.environ | self.environment | environment,
                    )
                )
            else:
                streams = streamable_http_client(stack.enter_context(self.serve_http(*arguments, **environment)).url)
            yield await stack.enter_async_context(Client(streams, mode=mode, elicitation_callback=person))

    @contextmanager
    def serve_http(self, *arguments: str, **environment: str) -> Iterator[Served]:
        command = [*arguments, "--http", "127.0.0.1:0"]
        with serving("tests.scenarios.impatient", *command, environment=self.environment | environment) as served:
            yield served

    def write_policy(self, rules: dict[str, Any]) -> str:
        """Write a policy file and return its path."""
        file = self.record.root.parent / "policy.yaml"
        # One entry a line: calls are counted by the line of the entry that pre-approves them.
        file.write_text(json.dumps({"itwin-mcp-policy": 1} | rules, indent=1), encoding="utf-8")
        return str(file)

    @contextmanager
    def short_patience(self) -> Iterator[None]:
        """Let questions expire early inside the block."""
        process = int(Path(self.environment["PID_FILE"]).read_text())
        os.kill(process, signal.SIGUSR1)
        try:
            yield
        finally:
            os.kill(process, signal.SIGUSR1)


@asynccontextmanager
async def open_platform(record: Record, tmp_path: Path) -> AsyncIterator[Platform]:
    record.root = tmp_path / "files"
    record.root.mkdir()
    with Sandbox.open() as sandbox, pytest.MonkeyPatch.context() as patched:
        async with anyio.create_task_group() as tasks:
            url = f"http://127.0.0.1:{await tasks.start(_listen, sandbox)}"
            environment = {
                "ITWIN_API_URL": url,
                "ITWIN_ISSUER_URL": url,
                "ITWIN_ACCESS_TOKEN": sandbox.token(),
                "NO_PROXY": "127.0.0.1",
                "PID_FILE": str(tmp_path / "pid"),
            }
            for name, value in environment.items():
                patched.setenv(name, value)
            async with connect(sandbox=False, job_seconds=1.0, files_root=[record.root]) as maker:
                itwins = [await Desk(maker).itwin(number) for number in ("NL-A12-0042", "NL-MAAS-0017")]
                yield Platform(sandbox, sandbox, record, maker, environment, itwins)
            tasks.cancel_scope.cancel()


async def _listen(sandbox: Sandbox, *, task_status: anyio.abc.TaskStatus[int]) -> None:
    await listener.serve(sandbox, "127.0.0.1", 0, started=task_status.started)


def pre_approve_each(tools: list[str], itwins: list[str]) -> dict[str, Any]:
    """Return the policy rule that pre-approves one call an hour of each tool."""
    return {"pre-approved": [{"tools": [tool], "itwins": itwins, "per-hour": 1} for tool in tools]}


async def check_success(client: Client, tool: str, arguments: Arguments, record: Record) -> None:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.structured_content
    assert record.something_happened()


async def check_every_refusal(platform: Platform, client: Client, case: Case, person: Person, mode: str) -> None:
    """Check that a decline, a cancel, a wrong name and a late answer change nothing and are reported."""
    confirm = person.answer
    for answer, code in (
        (does("decline"), "Declined"),
        (does("cancel"), "Cancelled"),
        (does("accept"), "NameMismatch"),
        (lambda questions: typing(name_in(questions) + "?"), "NameMismatch"),
    ):
        person.answer = answer
        assert await code_of(client, case.tool, case.arguments) == code
        assert platform.record.nothing_happened()
    person.answer = confirm if mode == "auto" else lambda _: None
    with platform.short_patience():
        assert await code_of(client, case.tool, case.arguments) == "ConfirmationExpired"
    assert platform.record.nothing_happened()
    person.answer = confirm


class Question:
    """A question of protocol 2026-07-28 and the answer that confirms it, which tests send with other calls."""

    def __init__(self, tool: str, result: t.InputRequiredResult) -> None:
        form = (result.input_requests or {})["confirm"].params
        assert isinstance(form, t.ElicitRequestFormParams)
        self.tool = tool
        self.state = str(result.request_state)
        self.answers: Any = {"confirm": typing(name_in(form))}

    @classmethod
    async def receive(cls, client: Client, case: Case) -> Question:
        result = await client.session.call_tool(case.tool, case.arguments, allow_input_required=True)
        assert isinstance(result, t.InputRequiredResult)
        return cls(case.tool, result)

    async def confirm(self, client: Client, arguments: Arguments, state: str | None = None) -> t.CallToolResult:
        result = await client.session.call_tool(
            self.tool, arguments, input_responses=self.answers, request_state=state or self.state
        )
        assert isinstance(result, t.CallToolResult)
        return result

    async def error_code(self, client: Client, arguments: Arguments, state: str | None = None) -> str:
        result = await self.confirm(client, arguments, state)
        assert result.is_error
        return str((result.structured_content or {})["error"]["code"])


async def check_answer_is_bound_to_its_call(record: Record, client: Client, stranger: Client, case: Case) -> None:
    """Check that an answer is valid only for its call and caller, unaltered. Needs protocol 2026-07-28."""
    question = await Question.receive(client, case)
    assert await question.error_code(client, case.other_arguments) == "ConfirmationInvalid"
    assert await question.error_code(client, case.arguments, question.state[:-4] + "AAAA") == "ConfirmationInvalid"
    assert await question.error_code(stranger, case.arguments) == "ConfirmationInvalid"
    assert record.nothing_happened()


async def check_answer_counts_once(record: Record, client: Client, case: Case) -> None:
    question = await Question.receive(client, case)
    result = await question.confirm(client, case.arguments)
    assert not result.is_error, result.structured_content
    assert record.something_happened()
    changes = list(record.changes)
    if case.tool not in WHEN_SOMETHING_IS_LOST:  # those tools ask nobody the second time, because nothing is left
        assert (await question.confirm(client, case.arguments)).is_error
        assert record.changes == changes


@pytest.mark.parametrize("mode", ERAS)
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_destructive_tools_run_in_a_process_only_if_confirmed(
    transport: Transport, mode: str, record: Record, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    person = Person()
    async with AsyncExitStack() as stack:
        platform = await stack.enter_async_context(open_platform(record, tmp_path))
        client = await stack.enter_async_context(platform.connect(transport, mode, person))
        # Another person of the same machine: their server seals with keys of their own.
        other_home = {"ITWIN_MCP_STATE_DIR": str(tmp_path / "theirs"), "PID_FILE": os.devnull}
        stranger = await stack.enter_async_context(platform.connect(transport, mode, agrees, **other_home))
        for tool in TOOLS:
            with subtests.test(tool=tool):
                async with platform.prepare(tool) as case:
                    await check_every_refusal(platform, client, case, person, mode)
                    if mode == "auto":
                        await check_answer_is_bound_to_its_call(record, client, stranger, case)
                        await check_answer_counts_once(record, client, case)
                    else:
                        await check_success(client, tool, case.arguments, record)


@pytest.mark.parametrize("mode", ERAS)
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_policy_refuses_or_pre_approves_up_to_its_cap(
    transport: Transport, mode: str, record: Record, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    person = Person()
    person.answer = does("decline")
    async with AsyncExitStack() as stack:
        platform = await stack.enter_async_context(open_platform(record, tmp_path))
        refusing = platform.write_policy({"default": ALL_TOOLS | {"itwins": [OTHER_ITWIN]}})
        outsider = await stack.enter_async_context(platform.connect(transport, mode, person, "--policy", refusing))
        rule = ALL_TOOLS | {"itwins": platform.itwins} | pre_approve_each(WRITING, platform.itwins)
        approving = platform.write_policy({"default": rule})
        client = await stack.enter_async_context(platform.connect(transport, mode, person, "--policy", approving))
        for tool in WRITING:
            with subtests.test(tool=tool):
                async with platform.prepare(tool) as case:
                    person.asked.clear()
                    assert await code_of(outsider, tool, case.arguments) == "PolicyRefused"
                    assert record.nothing_happened()
                    await check_success(client, tool, case.other_arguments, record)
                    assert person.asked == []
                    record.changes.clear()
                    assert await code_of(client, tool, case.arguments) == "Declined"
                    assert len(person.asked) == 1
                    assert record.nothing_happened()


@pytest.mark.parametrize("mode", ERAS)
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_read_only_server_has_no_destructive_tools(
    transport: Transport, mode: str, record: Record, tmp_path: Path
) -> None:
    async with (
        open_platform(record, tmp_path) as platform,
        platform.connect(transport, mode, agrees, "--read-only") as client,
        platform.prepare("delete-imodel") as case,
    ):
        assert not {tool.name for tool in (await client.list_tools()).tools} & set(TOOLS)
        for tool in TOOLS:
            with pytest.raises(MCPError, match="Unknown tool"):
                await client.call_tool(tool, case.arguments)
        assert record.nothing_happened()


# --- hosted servers ---------------------------------------------------------------------------------------------


@dataclass
class HostedServer:
    """A hosted server whose callers are in groups with separate policy entries."""

    platform: Platform
    url: str
    issuer: Issuer

    @asynccontextmanager
    async def connect(self, mode: str, person: Any, group: str, **claims: Any) -> AsyncIterator[Client]:
        async with self.open_http(mode, group, **claims) as http:
            streams = streamable_http_client(self.url, http_client=http)
            async with Client(streams, mode=mode, elicitation_callback=person) as client:
                yield client

    def open_http(self, mode: str, group: str, **claims: Any) -> httpx2.AsyncClient:
        bearer = self.issuer.bearer(groups=[group], sub=f"{group}-{mode}", **claims)
        return httpx2.AsyncClient(headers={"authorization": f"Bearer {bearer}"}, timeout=60, trust_env=False)

    @asynccontextmanager
    async def prepare(self, tool: str) -> AsyncIterator[Case]:
        async with self.platform.prepare(tool) as case:
            _let_service_do_what_owner_may(self.platform.sandbox)
            yield case


@asynccontextmanager
async def open_hosted_server(record: Record, tmp_path: Path) -> AsyncIterator[HostedServer]:
    async with open_platform(record, tmp_path) as platform:
        with sign_in_server() as issuer:
            issuer.audience = "https://mcp.example/mcp"
            rule = ALL_TOOLS | {"issuer": issuer.url, "itwins": "all"}
            rules = {
                "engineers": rule,
                "others": rule,
                "outsiders": rule | {"itwins": [OTHER_ITWIN]},
                "machines": rule | pre_approve_each(SHARED, platform.itwins),
            }
            policy = platform.write_policy({"callers": [rule | {"groups": [group]} for group, rule in rules.items()]})
            environment = {
                "ITWIN_ACCESS_TOKEN": "",
                "ITWIN_CLIENT_ID": SERVICE,
                "ITWIN_CLIENT_SECRET": SERVICE_SECRET,
                "ITWIN_MCP_POLICY": policy,
                "ITWIN_MCP_AUTH_ISSUER": issuer.url,
                "ITWIN_MCP_AUTH_AUDIENCE": issuer.audience,
                "ITWIN_MCP_STATE_SECRET": FIRST_SECRET,
                "ITWIN_MCP_NOTICE_SECONDS": "0",
                "ITWIN_MCP_CALLER_RATE_PER_MINUTE": "100000",
                "ITWIN_MCP_TOTAL_RATE_PER_MINUTE": "1000000",
            }
            with platform.serve_http("serve", "--toolsets", "all", **environment) as served:
                yield HostedServer(platform, served.url, issuer)


def _let_service_do_what_owner_may(sandbox: Sandbox) -> None:
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
async def test_hosted_server_accepts_only_the_confirmation_of_the_asked_caller(
    mode: str, record: Record, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    person, refused_person, refuser = Person(), Person(), Person()
    refuser.answer = does("decline")
    async with (
        open_hosted_server(record, tmp_path) as server,
        server.connect(mode, person, "engineers") as client,
        server.connect(mode, refused_person, "outsiders") as outsider,
        server.connect(mode, refused_person, "others", scope="itwin:read") as reader,
        server.connect(mode, agrees, "others") as stranger,
        server.connect(mode, refuser, "machines") as machine,
    ):
        assert not {tool.name for tool in (await reader.list_tools()).tools} & set(SHARED)
        for tool in SHARED:
            with subtests.test(tool=tool):
                async with server.prepare(tool) as case:
                    assert await code_of(outsider, tool, case.arguments) == "PolicyRefused"
                    with pytest.raises(MCPError, match="Server returned an error response"):
                        await reader.call_tool(tool, case.arguments)
                    assert refused_person.asked == []
                    assert record.nothing_happened()
                    await check_every_refusal(server.platform, client, case, person, mode)
                    if mode == "auto":
                        await check_answer_is_bound_to_its_call(record, client, stranger, case)
                    refuser.asked.clear()
                    await check_success(machine, tool, case.other_arguments, record)
                    assert refuser.asked == []
                    record.changes.clear()
                    assert await code_of(machine, tool, case.arguments) == "Declined"
                    assert record.nothing_happened()
                    if mode == "auto":
                        await check_answer_counts_once(record, client, case)
                    else:
                        await check_success(client, tool, case.arguments, record)


async def test_legacy_session_rejects_the_confirmation_of_another_caller(
    record: Record, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    sessions: list[str] = []

    async def remember_session(response: httpx2.Response) -> None:
        sessions.extend(response.headers.get_list("mcp-session-id"))

    async with (
        open_hosted_server(record, tmp_path) as server,
        server.open_http("legacy", "others") as stranger,
        server.open_http("legacy", "engineers") as http,
    ):

        async def confirm_as_stranger(context: Any, question: t.ElicitRequestParams) -> t.ElicitResult:
            assert isinstance(question, t.ElicitRequestFormParams)
            answer = {"action": "accept", "content": {"name": name_in(question)}}
            response = await stranger.post(
                server.url,
                headers={
                    "accept": "application/json, text/event-stream",
                    "mcp-session-id": sessions[0],
                    "mcp-protocol-version": "2025-11-25",
                },
                json={"jsonrpc": "2.0", "id": context.request_id, "result": answer},
            )
            assert response.status_code == 404
            assert record.nothing_happened()
            return t.ElicitResult(action="decline")

        http.event_hooks = {"request": [], "response": [remember_session]}
        streams = streamable_http_client(server.url, http_client=http)
        async with Client(streams, mode="legacy", elicitation_callback=confirm_as_stranger) as client:
            for tool in SHARED:
                with subtests.test(tool=tool):
                    async with server.prepare(tool) as case:
                        assert await code_of(client, tool, case.arguments) == "Declined"
                        assert record.nothing_happened()
