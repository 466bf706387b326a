"""`itwin-mcp auth` as a process: the sign-in in use, login and logout, and secrets that are never printed."""

import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from itwin_mcp.settings import read_settings
from itwin_mcp.upstream.sign_in.credential_choice import Launcher, choose_sign_in
from tests.network import UNUSABLE, unusable_value
from tests.sandbox_process import free_port
from tests.upstream.loopback import Asked, loopback
from tests.upstream.sign_in.identity import CLIENT_ID, CLIENT_SECRET, Identity, identity, jwt

pytestmark = pytest.mark.anyio


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "itwin_mcp", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ | environment)


async def run_in_thread(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return await anyio.to_thread.run_sync(lambda: run(*arguments, **environment))


def test_login_without_client_id_prints_the_registration_steps() -> None:
    process = run("auth", "login", ITWIN_REDIRECT_URI="http://localhost:3399/back")
    assert (process.returncode, process.stdout) == (2, "")
    for words in (
        "https://developer.bentley.com/my-apps",
        "Native",
        "http://localhost:3399/back",
        "itwin-platform offline_access",
        "ITWIN_CLIENT_ID",
    ):
        assert words in process.stderr


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"ITWIN_CLIENT_ID": "service-x", "ITWIN_CLIENT_SECRET": "canary"}, "service-x is a service application"),
        ({"ITWIN_MCP_SANDBOX": "1"}, "The embedded sandbox needs no sign-in"),
    ],
)
def test_login_rejects_the_sandbox_and_service_applications(environment: dict[str, str], words: str) -> None:
    process = run("auth", "login", **environment)
    assert (process.returncode, process.stdout) == (2, "")
    assert words in process.stderr


NATIVE = {"ITWIN_CLIENT_ID": "native-x"}


@pytest.mark.parametrize(("variable", "value", "words"), UNUSABLE[:3])
def test_login_reports_an_unusable_network_variable(variable: str, value: str, words: str, tmp_path: Path) -> None:
    process = run("auth", "login", "--no-browser", **NATIVE, **{variable: unusable_value(value, tmp_path)})
    assert (process.returncode, process.stdout) == (1, "")
    assert f"{variable} " in process.stderr
    assert words in process.stderr
    assert "Traceback" not in process.stderr
    assert "canary" not in process.stderr


SERVICE = {"ITWIN_CLIENT_ID": "service-x", "ITWIN_CLIENT_SECRET": "canary-secret"}
EXPIRED = jwt(exp=1_000_000_000, scope=["itwin-platform"], canary="canary")
VALID = jwt(exp=4_000_000_000, scope="itwin-platform", email="x@y.example", canary="canary")


@pytest.mark.parametrize(
    ("environment", "method", "ready"),
    [
        ({}, "none", False),
        (NATIVE, "login", False),
        (SERVICE, "service-application", True),
        (SERVICE | {"ITWIN_ACCESS_TOKEN": VALID}, "access-token", True),
        (NATIVE | {"ITWIN_ACCESS_TOKEN": f"Bearer {VALID}"}, "access-token", True),
        ({"ITWIN_ACCESS_TOKEN": EXPIRED}, "access-token", False),
        ({"ITWIN_ACCESS_TOKEN": "garbage-canary"}, "access-token", False),
        ({"ITWIN_ACCESS_TOKEN": VALID, "ITWIN_ACCESS_TOKEN_FILE": "/no/such"}, "access-token", True),
        (NATIVE | {"ITWIN_ACCESS_TOKEN_FILE": "/no/such/file"}, "access-token-file", False),
        (NATIVE | {"ITWIN_ACCESS_TOKEN": VALID, "ITWIN_MCP_SANDBOX": "1"}, "sandbox", True),
    ],
)
def test_auth_status_reports_the_method_without_secrets(environment: dict[str, str], method: str, ready: bool) -> None:
    process = run("auth", "status", "--json", "--log-level", "debug", **environment)
    state = json.loads(process.stdout)
    assert (state["signedInWith"], state["ready"], process.returncode) == (method, ready, 0 if ready else 1)
    assert bool(state["hint"]) != ready
    plain = run("auth", "status", **environment)
    assert state["told"] in plain.stdout
    for secret in ("canary", EXPIRED, VALID):
        assert secret not in process.stdout + process.stderr + plain.stdout + plain.stderr


def test_auth_status_reports_the_user_and_an_invalid_token() -> None:
    named = run("auth", "status", ITWIN_ACCESS_TOKEN=VALID)
    assert re.search(r"^User: +x@y\.example$", named.stdout, re.MULTILINE)
    assert "is invalid" in run("auth", "status", ITWIN_ACCESS_TOKEN="garbage").stdout


@pytest.mark.parametrize("environment", [{}, NATIVE, SERVICE], ids=["nothing", "native", "service"])
def test_logout_without_login_reports_nobody_signed_in(environment: dict[str, str]) -> None:
    process = run("auth", "logout", **environment)
    assert (process.returncode, process.stdout, process.stderr) == (0, "Nobody was signed in.\n", "")


@pytest.mark.parametrize(
    ("environment", "launcher", "has_tool", "words"),
    [
        (NATIVE, Launcher.SHELL, False, "Sign in with `itwin-mcp auth login`, then call again."),
        (NATIVE | {"ITWIN_PROFILE": "qa"}, Launcher.SHELL, False, "`itwin-mcp auth login --profile qa`"),
        (NATIVE, Launcher.STDIO, True, "Call the tool `sign-in`"),
        (NATIVE, Launcher.STDIO, False, "Sign in with `itwin-mcp auth login`"),
        (NATIVE, Launcher.HTTP, False, "Whoever runs this server"),
        (NATIVE | {"ITWIN_MCP_BUNDLE": "true"}, Launcher.STDIO, True, "Call the tool `sign-in`"),
        ({"ITWIN_MCP_BUNDLE": "true"}, Launcher.STDIO, False, "Open the extension's settings (in Claude Desktop:"),
        ({"ITWIN_MCP_BUNDLE": "true"}, Launcher.STDIO, False, "turn on “Try it without an account” there"),
        ({"ITWIN_MCP_BUNDLE": "true", "ITWIN_ACCESS_TOKEN": VALID}, Launcher.STDIO, False, "the extension's settings"),
        (SERVICE, Launcher.STDIO, False, "then restart the program that starts itwin-mcp"),
        (SERVICE, Launcher.HTTP, False, "then restart itwin-mcp."),
        ({}, Launcher.STDIO, False, "then restart the program that starts itwin-mcp, such as Claude Desktop"),
        ({}, Launcher.STDIO, False, "start it with `--sandbox`"),
        ({}, Launcher.SHELL, False, "call with `--sandbox`"),
        ({}, Launcher.SHELL, False, "https://developer.bentley.com/my-apps"),
    ],
)
def test_sign_in_remedy_depends_on_the_launcher(
    environment: dict[str, str], launcher: Launcher, has_tool: bool, words: str
) -> None:
    remedy = choose_sign_in(read_settings(environment), launcher, has_tool=has_tool).remedy
    assert words in remedy
    if "ITWIN_MCP_BUNDLE" in environment:
        assert "auth login" not in remedy, "there is no shell"


@pytest.fixture
async def sign_in_server() -> AsyncIterator[Identity]:
    """Run a sign-in server whose secrets all contain `canary`, and a platform that echoes its caller's token."""
    async with identity() as running:
        yield running


@pytest.fixture
async def echo() -> AsyncIterator[str]:
    async def handle(request: Asked) -> None:
        message = f"You sent {request.headers.get('authorization')}"
        await request.json(422, {"error": {"code": "InvalidiTwinsRequest", "message": message, "target": message}})

    async with loopback(handle) as running:
        yield running.origin


@pytest.mark.slow
async def test_login_prints_no_secret_at_debug_level(sign_in_server: Identity, echo: str) -> None:
    environment = {
        "ITWIN_API_URL": echo,
        "ITWIN_ISSUER_URL": sign_in_server.issuer,
        "ITWIN_CLIENT_ID": "native-x",
        "ITWIN_REDIRECT_URI": f"http://localhost:{free_port()}/back",
    }
    outputs = [await log_in(sign_in_server, environment)]
    verbs = (("auth", "status"), ("call", "list-recent-itwins"), ("call", "who-am-i"), ("doctor",), ("auth", "logout"))
    for verb in verbs:
        process = await run_in_thread(*verb, "--log-level", "debug", **environment)
        outputs.append(process.stdout + process.stderr)
    assert sign_in_server.issued >= 4, "the platform was called with real tokens"
    assert len(sign_in_server.revoked) == 1
    assert "You sent" in outputs[2], "the echo was printed"
    assert [text for text in outputs if "canary" in text] == []


async def log_in(sign_in_server: Identity, environment: dict[str, str]) -> str:
    """Run `auth login` while the test plays the browser; return its output."""
    command = [sys.executable, "-m", "itwin_mcp", "auth", "login", "--no-browser", "--log-level", "debug"]
    output = ""
    with anyio.fail_after(30):
        async with await anyio.open_process(command, env=os.environ | environment) as process:
            assert process.stderr is not None
            assert process.stdout is not None
            while not (link := re.search(r"http\S+/connect/authorize\S+\n", output)):
                output += (await process.stderr.receive()).decode()
            redirect = environment["ITWIN_REDIRECT_URI"] + sign_in_server.authorize(link[0].strip())
            await anyio.to_thread.run_sync(lambda: open_redirect(redirect))
            async for part in process.stderr:
                output += part.decode()
            async for part in process.stdout:
                output += part.decode()
            assert await process.wait() == 0, output
    return output


def open_redirect(url: str) -> None:
    from urllib.request import ProxyHandler, build_opener

    with build_opener(ProxyHandler({})).open(url, timeout=20) as page:
        assert page.status == 200


@pytest.mark.slow
async def test_service_application_prints_no_secret_at_debug_level(sign_in_server: Identity, echo: str) -> None:
    environment = {
        "ITWIN_API_URL": echo,
        "ITWIN_ISSUER_URL": sign_in_server.issuer,
        "ITWIN_CLIENT_ID": CLIENT_ID,
        "ITWIN_CLIENT_SECRET": CLIENT_SECRET,
    }
    outputs = []
    for verb in (("auth", "status"), ("call", "list-recent-itwins"), ("doctor", "--json")):
        process = await run_in_thread(*verb, "--log-level", "debug", **environment)
        outputs.append(process.stdout + process.stderr)
    wrong = await run_in_thread("call", "list-recent-itwins", **environment | {"ITWIN_CLIENT_SECRET": "canary-wrong"})
    outputs.append(wrong.stdout + wrong.stderr)
    assert json.loads(wrong.stdout)["error"]["code"] == "NotSignedIn"
    assert sign_in_server.issued >= 2
    assert [text for text in outputs if "canary" in text or CLIENT_SECRET in text] == []


async def test_repr_of_sign_in_and_token_hides_secrets(sign_in_server: Identity) -> None:
    settings = read_settings(
        {"ITWIN_ISSUER_URL": sign_in_server.issuer, "ITWIN_CLIENT_ID": CLIENT_ID, "ITWIN_CLIENT_SECRET": CLIENT_SECRET}
    )
    sign_in = choose_sign_in(settings, Launcher.SHELL)
    assert sign_in.tokens is not None
    token = await sign_in.tokens.get_token()
    assert "canary" in token.value
    assert "canary" not in f"{settings!r} {sign_in!r} {sign_in.tokens!r} {token!r} {token}"


def test_open_browser_opens_only_the_sign_in_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import webbrowser

    from itwin_mcp.cli.auth import _open_browser

    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or True)
    issuer = "https://ims.bentley.com"
    assert _open_browser("https://ims.bentley.com/connect/authorize?x", issuer)
    assert _open_browser("http://127.0.0.1:8080/connect/authorize?x", "http://127.0.0.1:8080")
    for url in (
        "http://ims.bentley.com/connect/authorize",
        "https://evil.example/connect/authorize",
        "https://ims.bentley.com@evil.example/",
        "file:///etc/passwd",
        "javascript:alert(1)",
    ):
        assert not _open_browser(url, issuer)
    assert len(opened) == 2


async def test_logout_without_revocation_endpoint_deletes_the_login(sign_in_server: Identity) -> None:
    environment = {
        "ITWIN_ISSUER_URL": sign_in_server.issuer,
        "ITWIN_CLIENT_ID": "native-x",
        "ITWIN_REDIRECT_URI": f"http://localhost:{free_port()}/back",
    }
    await log_in(sign_in_server, environment)
    sign_in_server.discovery["revocation_endpoint"] = None
    process = await run_in_thread("auth", "logout", **environment)
    assert (process.returncode, process.stdout) == (1, "The login was deleted here.\n")
    assert "did not revoke it" in process.stderr
    again = await run_in_thread("auth", "status", **environment)
    assert again.returncode == 1


def test_login_reports_an_unreachable_sign_in_server() -> None:
    port = free_port()
    process = run("auth", "login", "--json", "--no-browser", **NATIVE, ITWIN_ISSUER_URL=f"http://127.0.0.1:{port}")
    assert process.returncode == 1
    error = json.loads(process.stdout)["error"]
    assert error["code"] == "SignInUnreachable"
    assert "ITWIN_ISSUER_URL" in error["hint"]
