"""The tools `sign-in` and `who-am-i`, called by stdio clients of both eras against a real sign-in server."""

import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import mcp.types as t
import pytest
from mcp import Client, StdioServerParameters, stdio_client

from itwin_mcp.sandbox.seed import seeded_id
from tests.conftest import connect
from tests.sandbox_process import Platform, follow, running_platform
from tests.server.processes import serve_http

pytestmark = pytest.mark.anyio

ERAS = ["legacy", "2026-07-28"]


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with running_platform(tmp_path) as platform:
        yield platform


PROGRAM = "itwin_mcp"


@asynccontextmanager
async def connect_stdio(
    platform: Platform,
    mode: str,
    *flags: str,
    log: Any = None,
    ask: Any = None,
    program: str = PROGRAM,
    **environment: str,
) -> AsyncIterator[Client]:
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", program, "serve", *flags],
        env=dict(os.environ) | platform.environment | environment,
    )
    with anyio.fail_after(60):
        async with Client(
            stdio_client(server, errlog=log or sys.stderr), mode=mode, elicitation_callback=ask
        ) as client:
            yield client


async def call(client: Client, tool: str) -> dict[str, Any]:
    result = await client.call_tool(tool, {})
    return dict(result.structured_content or {})


async def browse(link: str, **options: str) -> int:
    return await anyio.to_thread.run_sync(lambda: follow(link, **options))


@pytest.mark.parametrize("mode", ERAS)
async def test_sign_in_returns_a_link_and_then_calls_work(platform: Platform, mode: str, tmp_path: Path) -> None:
    opened = tmp_path / "browser-was-opened"
    flags, browser = ("--log-level", "debug"), f"touch '{opened}' #%s"
    with (tmp_path / "log").open("w") as log:
        await sign_in_and_check(platform, mode, flags, log, browser)
    log_text = (tmp_path / "log").read_text()
    stored = platform.saved_refresh_token()
    assert "/itwins/recents 200" in log_text
    assert stored is not None
    for secret in (stored, "Bearer ", "eyJ", "code=", "state="):
        assert secret not in log_text
    assert not opened.exists(), "the server never opens a browser"


async def sign_in_and_check(platform: Platform, mode: str, flags: tuple[str, ...], log: Any, browser: str) -> None:
    async with connect_stdio(platform, mode, *flags, log=log, BROWSER=browser) as client:
        refused = await call(client, "list-recent-itwins")
        assert refused["error"]["code"] == "NotSignedIn"
        assert "Call the tool `sign-in`" in refused["error"]["hint"]

        first = (await call(client, "sign-in"))["signIn"]
        assert first["state"] == "waiting"
        assert 290 <= first["secondsLeft"] <= 300
        assert first["url"].startswith(f"{platform.url}/connect/authorize?")
        repeated = (await call(client, "sign-in"))["signIn"]
        assert repeated["url"] == first["url"]

        assert await browse(first["url"], person="Tomasz") == 200
        assert (await call(client, "list-recent-itwins"))["iTwins"]
        assert (await call(client, "sign-in"))["signIn"]["state"] == "signed-in"
        session = (await call(client, "who-am-i"))["session"]
        assert session["kind"] == "user"
        assert session["name"].startswith("Tomasz")
        assert session["userId"] == seeded_id("user", "tomasz")
        assert session["organization"] == "Meridian Infrastructure Group"
        assert session["signedInWith"] == "login"
        assert session["scopes"] == ["itwin-platform", "offline_access"]


@pytest.mark.parametrize("mode", ERAS)
async def test_sign_in_uses_url_elicitation_if_supported(platform: Platform, mode: str) -> None:
    requests: list[t.ElicitRequestParams] = []

    async def ask(_: Any, params: t.ElicitRequestParams) -> t.ElicitResult:
        requests.append(params)
        assert isinstance(params, t.ElicitRequestURLParams)
        assert await browse(params.url) == 200
        return t.ElicitResult(action="accept")

    async with connect_stdio(platform, mode, ask=ask) as client:
        assert (await call(client, "sign-in"))["signIn"]["state"] == "signed-in"
        assert (await call(client, "list-recent-itwins"))["iTwins"]
    assert len(requests) == 1


@pytest.mark.parametrize("mode", ERAS)
async def test_declined_sign_in_can_be_started_again(platform: Platform, mode: str) -> None:
    answers = ["decline", "accept"]
    links: list[str] = []

    async def ask(_: Any, params: t.ElicitRequestParams) -> t.ElicitResult:
        assert isinstance(params, t.ElicitRequestURLParams)
        links.append(params.url)
        if answers[0] == "accept":
            await browse(params.url)
        return t.ElicitResult(action=answers.pop(0))

    async with connect_stdio(platform, mode, ask=ask) as client:
        declined = (await call(client, "sign-in"))["signIn"]
        assert (declined["state"], declined["url"]) == ("declined", None)
        assert (await call(client, "sign-in"))["signIn"]["state"] == "signed-in"
    assert links[0] != links[1]


@pytest.mark.parametrize("mode", ERAS)
async def test_refused_consent_is_an_error(platform: Platform, mode: str) -> None:
    async def ask(_: Any, params: t.ElicitRequestParams) -> t.ElicitResult:
        assert isinstance(params, t.ElicitRequestURLParams)
        assert await browse(params.url, decision="deny") == 400
        return t.ElicitResult(action="accept")

    async with connect_stdio(platform, mode, ask=ask) as client:
        error = (await call(client, "sign-in"))["error"]
    assert (error["code"], error["message"]) == ("NotSignedIn", "The sign-in was declined.")


@pytest.mark.parametrize("program", [PROGRAM, "tests.server.slow_sign_in"])
async def test_failed_sign_in_is_reported_with_the_next_link(platform: Platform, program: str) -> None:
    async with connect_stdio(platform, "auto", program=program) as client:
        first = (await call(client, "sign-in"))["signIn"]
        assert await browse(first["url"], decision="deny") == 400
        second = (await call(client, "sign-in"))["signIn"]
    assert second["url"] != first["url"]
    assert second["message"].startswith("The sign-in was declined. This is a new link.")


async def test_sign_in_reports_a_taken_port(platform: Platform) -> None:
    port = int(platform.environment["ITWIN_REDIRECT_URI"].split(":")[2].partition("/")[0])
    async with await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port):
        async with connect_stdio(platform, "auto") as client:
            error = (await call(client, "sign-in"))["error"]
    assert f"Port {port} of this computer is in use" in error["message"]


async def list_tools(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], **flags: Any) -> set[str]:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    async with connect(sandbox=False, **flags) as client:
        return {tool.name for tool in (await client.list_tools()).tools}


NATIVE = {"ITWIN_CLIENT_ID": "native-x"}


@pytest.mark.parametrize(
    ("environment", "flags", "listed"),
    [
        (NATIVE, {}, {"sign-in", "who-am-i"}),
        ({}, {}, {"who-am-i"}),
        (NATIVE | {"ITWIN_ACCESS_TOKEN": "canary-token"}, {}, {"who-am-i"}),
        ({"ITWIN_CLIENT_ID": "service-x", "ITWIN_CLIENT_SECRET": "canary"}, {}, {"who-am-i"}),
        (NATIVE, {"read_only": True}, {"sign-in", "who-am-i"}),
        (NATIVE, {"exclude_tools": "sign-in"}, {"who-am-i"}),
        (NATIVE, {"toolsets": "session"}, {"sign-in", "who-am-i"}),
        (NATIVE, {"toolsets": "itwins"}, set()),
        (NATIVE, {"toolsets": "itwins", "tools": "sign-in"}, {"sign-in"}),
    ],
)
async def test_sign_in_is_listed_only_where_a_user_can_sign_in(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], flags: dict[str, Any], listed: set[str]
) -> None:
    assert await list_tools(monkeypatch, environment, **flags) & {"sign-in", "who-am-i"} == listed


async def test_sign_in_is_not_served_over_http(platform: Platform) -> None:
    with serve_http(environment=platform.environment) as served:
        async with Client(served.url) as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
            error = (await call(client, "who-am-i"))["error"]
    assert "who-am-i" in names
    assert "sign-in" not in names
    assert error["hint"].startswith("Whoever runs this server signs in with `itwin-mcp auth login`")


async def test_session_tools_refuse_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ITWIN_CLIENT_ID", "native-x")
    async with connect(sandbox=False) as client:
        for tool in ("sign-in", "who-am-i"):
            result = await client.call_tool(tool, {"as": "admin"})
            assert result.is_error
            assert (result.structured_content or {})["error"]["code"] == "InvalidArguments"
