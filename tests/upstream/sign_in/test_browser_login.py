"""Signing in with a browser, played by the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from errno import EADDRNOTAVAIL
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import pytest
from anyio.abc import SocketAttribute

from itwin_mcp.errors import CallError, NotSignedIn, Unreachable
from itwin_mcp.settings import DEFAULT_REDIRECT_URI
from itwin_mcp.upstream.sign_in.browser_login import BrowserLogin
from itwin_mcp.upstream.sign_in.login_store import LoginStore
from itwin_mcp.upstream.sign_in.saved_login import SavedLoginTokens
from itwin_mcp.upstream.sign_in.sign_in_server import SignInServer
from tests.sandbox_process import free_port

from ..loopback import Asked  # noqa: TID252
from .identity import USER_AGENT, Identity, identity  # noqa: TID252

pytestmark = pytest.mark.anyio

NATIVE = "native-x"


class Attempt:
    """One sign-in under way, the browser's side of it, and how it ended."""

    def __init__(self, state: Identity, login: BrowserLogin, port: int, tokens: SavedLoginTokens) -> None:
        self.state = state
        self.login = login
        self.port = port
        self.tokens = tokens
        self.error: CallError | None = None

    async def wait(self) -> None:
        try:
            await self.login.wait()
        except CallError as error:
            self.error = error

    async def browse(self, target: str, *, method: str = "GET", host: str | None = None) -> str:
        return await self.send(
            f"{method} {target} HTTP/1.1\r\nHost: {host or f'localhost:{self.port}'}\r\n\r\n".encode()
        )

    async def send(self, content: bytes, address: str = "127.0.0.1") -> str:
        async with await anyio.connect_tcp(address, self.port) as stream:
            await stream.send(content)
            answer = b""
            try:
                while True:
                    answer += await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return answer.decode()

    def callback(self, **overrides: str) -> str:
        return "/signin-callback" + self.state.authorize(self.login.url, **overrides)


@asynccontextmanager
async def attempt(folder: Path, *, seconds: float = 20.0, **knobs: Any) -> AsyncIterator[Attempt]:
    async with identity(**knobs) as state:
        port = free_port()
        server = SignInServer(state.issuer, user_agent=USER_AGENT)
        tokens = SavedLoginTokens(server, NATIVE, LoginStore(folder, use_keyring=False))
        redirect = f"http://localhost:{port}/signin-callback"
        async with BrowserLogin.open(server, NATIVE, tokens, redirect_uri=redirect, seconds=seconds) as login:
            yield Attempt(state, login, port, tokens)


async def play(it: Attempt, *steps: Callable[[], Awaitable[str]]) -> list[str]:
    """Wait for the sign-in while the browser does its steps; the answers that it saw."""
    seen = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(it.wait)
        for step in steps:
            seen.append(await step())
    return seen


async def test_login_gives_a_token_for_the_next_call(tmp_path: Path) -> None:
    async with attempt(tmp_path) as it:
        (page,) = await play(it, lambda: it.browse(it.callback()))
        assert it.error is None
        assert (await it.tokens.get_token()).value == "access-2-canary"
    assert page.startswith("HTTP/1.1 200")
    assert "Signed in" in page
    for part in ('<html lang="en">', '<meta name="viewport"', "<main", "<style>", "color-scheme: light dark"):
        assert part in page, "it looks like a page, in a dark room and on a telephone too"


async def test_login_url_has_pkce_state_scope_and_redirect_uri(tmp_path: Path) -> None:
    async with attempt(tmp_path) as it:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(it.login.url).query).items()}
        assert it.login.url.startswith(f"{it.state.issuer}/connect/authorize?")
    assert asked["code_challenge_method"] == "S256"
    assert len(asked["code_challenge"]) == 43
    assert len(asked["state"]) >= 43
    assert asked["scope"] == "itwin-platform offline_access"
    assert asked["redirect_uri"] == f"http://localhost:{it.port}/signin-callback"
    assert "resource" not in asked


async def test_callback_page_repeats_and_loads_nothing(tmp_path: Path) -> None:
    async with attempt(tmp_path) as it:
        pages = await play(
            it,
            lambda: it.browse("/signin-callback?state=<script>x</script>&error_description=<b>"),
            lambda: it.browse(it.callback()),
        )
    for page in pages:
        assert "<script>" not in page
        assert "canary" not in page
        assert "Referrer-Policy: no-referrer" in page
        assert "default-src 'none'" in page
        assert "no-store" in page


@pytest.mark.parametrize(
    ("target", "method", "host", "status"),
    [
        ("/favicon.ico", "GET", None, 404),
        ("/", "GET", None, 404),
        ("/signin-callback/", "GET", None, 404),
        ("/signin-callback?code=x&state=y", "POST", None, 400),
        ("/signin-callback?code=x&state=y", "GET", None, 400),
        ("/signin-callback?code=x", "GET", None, 400),
        ("/signin-callback", "GET", None, 400),
        ("/signin-callback?state=é", "GET", None, 400),
        ("/signin-callback?code=x&state=y", "GET", "evil.example", 400),
        ("/signin-callback?code=x&state=y", "GET", "localhost:1", 400),
    ],
)
async def test_callback_with_wrong_state_is_ignored(
    tmp_path: Path, target: str, method: str, host: str | None, status: int
) -> None:
    async with attempt(tmp_path) as it:
        page, done = await play(
            it, lambda: it.browse(target, method=method, host=host), lambda: it.browse(it.callback())
        )
        assert it.error is None
    assert page.startswith(f"HTTP/1.1 {405 if method == 'POST' else status}")
    assert done.startswith("HTTP/1.1 200")


@pytest.mark.parametrize(
    "content", [b"\r\n\r\n", b"\x16\x03\x01\r\n\r\n", b"GET\r\n\r\n", b"x" * 20_000, b"GET / HTTP/1.1\r\n\r\n"]
)
async def test_malformed_request_is_ignored(tmp_path: Path, content: bytes) -> None:
    async with attempt(tmp_path) as it:
        await play(it, lambda: it.send(content), lambda: it.browse(it.callback()))
        assert it.error is None


async def test_silent_connection_does_not_block_the_login(tmp_path: Path) -> None:
    async with attempt(tmp_path) as it:
        async with await anyio.connect_tcp("127.0.0.1", it.port):
            await play(it, lambda: it.browse(it.callback()))
        assert it.error is None


async def test_duplicate_state_is_ignored(tmp_path: Path) -> None:
    async with attempt(tmp_path) as it:
        page, _ = await play(it, lambda: it.browse(it.callback() + "&state=x"), lambda: it.browse(it.callback()))
    assert page.startswith("HTTP/1.1 400")


@pytest.mark.parametrize(
    ("named", "iss", "works"),
    [
        (True, "own", True),
        (True, None, False),
        (True, "https://evil.example", False),
        (None, None, True),
        (None, "own", True),
        (None, "https://evil.example", False),
        (None, "", False),
    ],
)
async def test_callback_issuer_is_checked(tmp_path: Path, named: bool | None, iss: str | None, works: bool) -> None:
    async with attempt(tmp_path, discovery={"authorization_response_iss_parameter_supported": named}) as it:
        extra = {} if iss is None else {"iss": it.state.issuer if iss == "own" else iss}
        await play(it, lambda: it.browse(it.callback(**extra)))
        assert (it.error is None) is works
        assert len(it.state.token_requests) == (1 if works else 0)
        assert await it.tokens.has_login() is works


async def test_callback_of_another_issuer_is_not_quoted(tmp_path: Path) -> None:
    async with attempt(tmp_path) as it:
        bad = it.callback(iss="https://evil.example", error="x", error_description="call-this-number")
        (page,) = await play(it, lambda: it.browse(bad))
    assert "call-this-number" not in f"{page}{it.error}"
    assert it.error is not None


@pytest.mark.parametrize(("code", "words"), [("access_denied", "was declined"), ("server_error", "did not succeed")])
async def test_declined_login_raises_not_signed_in(tmp_path: Path, code: str, words: str) -> None:
    async with attempt(tmp_path) as it:
        (page,) = await play(it, lambda: it.browse(it.callback(error=code)))
    assert isinstance(it.error, NotSignedIn)
    assert words in it.error.message
    assert "Not signed in" in page


async def test_wrong_verifier_is_refused(tmp_path: Path) -> None:
    async with attempt(tmp_path) as it:
        back = it.callback()
        it.state.challenges = dict.fromkeys(it.state.challenges, "another")
        await play(it, lambda: it.browse(back))
        assert isinstance(it.error, NotSignedIn)
        assert "invalid_grant" in it.error.message
        assert "canary" not in str(it.error.to_json("x"))


async def test_login_without_refresh_token_hints_at_registration(tmp_path: Path) -> None:
    async with attempt(tmp_path, rotate=False) as it:
        await play(it, lambda: it.browse(it.callback()))
        assert isinstance(it.error, NotSignedIn)
        assert "offline_access" in it.error.hint


async def test_failing_token_endpoint_is_reported(tmp_path: Path) -> None:
    async def broken(asked: Asked) -> bool:
        await asked.answer(500, b"<html>")
        return True

    async with attempt(tmp_path, misbehave=broken) as it:
        await play(it, lambda: it.browse(it.callback()))
    assert isinstance(it.error, Unreachable)


async def test_port_is_closed_after_one_callback(tmp_path: Path) -> None:
    async with attempt(tmp_path) as it:
        await play(it, lambda: it.browse(it.callback()))
    with pytest.raises(OSError, match=r"."):
        await anyio.connect_tcp("127.0.0.1", it.port)


async def test_login_times_out(tmp_path: Path) -> None:
    async with attempt(tmp_path, seconds=0.05) as it:
        with pytest.raises(NotSignedIn, match="Nobody signed in"):
            await it.login.wait()


async def test_port_in_use_is_reported(tmp_path: Path) -> None:
    async with attempt(tmp_path) as it:
        server = SignInServer(it.state.issuer, user_agent=USER_AGENT)
        again = BrowserLogin.open(server, NATIVE, it.tokens, redirect_uri=f"http://localhost:{it.port}/signin-callback")
        with pytest.raises(NotSignedIn, match=f"Port {it.port}"):
            async with again:
                pass


async def test_sign_in_server_without_pkce_is_refused() -> None:
    async with identity(discovery={"code_challenge_methods_supported": ["plain"]}) as state:
        with pytest.raises(Unreachable, match="PKCE"):
            await SignInServer(state.issuer, user_agent=USER_AGENT).prepare_login(NATIVE, DEFAULT_REDIRECT_URI, "s")


async def test_pkce_is_used_if_the_server_does_not_mention_it(tmp_path: Path) -> None:
    async with attempt(tmp_path, discovery={"code_challenge_methods_supported": None}) as it:
        assert "code_challenge=" in it.login.url


@pytest.mark.parametrize(
    "redirect",
    ["https://localhost:3301/x", "http://example.com:3301/x", "http://localhost/x", "http://localhost:3301", "x"],
)
async def test_redirect_uri_must_be_on_this_machine(tmp_path: Path, redirect: str) -> None:
    async with attempt(tmp_path) as it:
        server = SignInServer(it.state.issuer, user_agent=USER_AGENT)
        with pytest.raises(ValueError, match="redirect URI"):
            async with BrowserLogin.open(server, NATIVE, it.tokens, redirect_uri=redirect):
                pass


def test_default_redirect_uri_is_fixed() -> None:
    assert DEFAULT_REDIRECT_URI == "http://localhost:3301/signin-callback"


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_callback_is_answered_on_ipv4_and_ipv6(tmp_path: Path, address: str) -> None:
    async with attempt(tmp_path) as it:
        request = f"GET {it.callback()} HTTP/1.1\r\nHost: localhost:{it.port}\r\n\r\n".encode()
        (page,) = await play(it, lambda: it.send(request, address))
        assert page.startswith("HTTP/1.1 200")
        assert it.error is None


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "0.0.0.0", "::"])
async def test_another_program_on_either_address_is_port_in_use(tmp_path: Path, address: str) -> None:
    async with identity() as state:
        server = SignInServer(state.issuer, user_agent=USER_AGENT)
        tokens = SavedLoginTokens(server, NATIVE, LoginStore(tmp_path, use_keyring=False))
        async with await anyio.create_tcp_listener(local_host=address) as other:
            port = other.extra(SocketAttribute.local_port)
            redirect = f"http://localhost:{port}/signin-callback"
            with pytest.raises(NotSignedIn, match=f"Port {port} of this computer is in use"):
                async with BrowserLogin.open(server, NATIVE, tokens, redirect_uri=redirect):
                    raise AssertionError("the port is not ours")


async def test_machine_without_ipv6_listens_on_ipv4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listen = anyio.create_tcp_listener

    async def without_ipv6(*, local_host: str, local_port: int = 0) -> Any:
        if local_host == "::1":
            raise OSError(EADDRNOTAVAIL, "Cannot assign requested address")
        return await listen(local_host=local_host, local_port=local_port)

    monkeypatch.setattr(anyio, "create_tcp_listener", without_ipv6)
    async with attempt(tmp_path) as it:
        (page,) = await play(it, lambda: it.browse(it.callback()))
    assert page.startswith("HTTP/1.1 200")
