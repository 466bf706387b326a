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
from itwin_mcp.upstream.auth.login_store import LoginStore
from itwin_mcp.upstream.auth.loopback_login import DEFAULT_REDIRECT, LoopbackLogin
from itwin_mcp.upstream.auth.saved_login import SavedLoginTokens
from itwin_mcp.upstream.auth.sign_in_server import SignInServer
from tests.sandbox_process import free_port

from ..loopback import Asked  # noqa: TID252
from .identity import USER_AGENT, Identity, identity  # noqa: TID252

pytestmark = pytest.mark.anyio

NATIVE = "native-x"


class Attempt:
    """One sign-in under way, the browser's side of it, and how it ended."""

    def __init__(self, state: Identity, login: LoopbackLogin, port: int, tokens: SavedLoginTokens) -> None:
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
        async with LoopbackLogin.open(server, NATIVE, tokens, redirect_uri=redirect, seconds=seconds) as login:
            yield Attempt(state, login, port, tokens)


async def play(it: Attempt, *steps: Callable[[], Awaitable[str]]) -> list[str]:
    """Wait for the sign-in while the browser does its steps; the answers that it saw."""
    seen = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(it.wait)
        for step in steps:
            seen.append(await step())
    return seen


async def test_a_person_signs_in_and_the_next_call_works(tmp_path: Path) -> None:
    async with attempt(tmp_path) as it:
        (page,) = await play(it, lambda: it.browse(it.callback()))
        assert it.error is None
        assert (await it.tokens.token()).value == "access-2-canary"
    assert page.startswith("HTTP/1.1 200")
    assert "Signed in" in page
    for part in ('<html lang="en">', '<meta name="viewport"', "<main", "<style>", "color-scheme: light dark"):
        assert part in page, "it looks like a page, in a dark room and on a telephone too"


async def test_the_link_asks_with_pkce_state_scope_and_the_registered_address(tmp_path: Path) -> None:
    async with attempt(tmp_path) as it:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(it.login.url).query).items()}
        assert it.login.url.startswith(f"{it.state.issuer}/connect/authorize?")
    assert asked["code_challenge_method"] == "S256"
    assert len(asked["code_challenge"]) == 43
    assert len(asked["state"]) >= 43
    assert asked["scope"] == "itwin-platform offline_access"
    assert asked["redirect_uri"] == f"http://localhost:{it.port}/signin-callback"
    assert "resource" not in asked


async def test_the_page_repeats_nothing_loads_nothing_and_tells_nobody_the_address(tmp_path: Path) -> None:
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
async def test_whoever_does_not_know_the_state_changes_nothing(
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
async def test_what_is_no_request_changes_nothing(tmp_path: Path, content: bytes) -> None:
    async with attempt(tmp_path) as it:
        await play(it, lambda: it.send(content), lambda: it.browse(it.callback()))
        assert it.error is None


async def test_a_browser_that_connects_and_says_nothing_does_not_block_the_sign_in(tmp_path: Path) -> None:
    async with attempt(tmp_path) as it:
        async with await anyio.connect_tcp("127.0.0.1", it.port):
            await play(it, lambda: it.browse(it.callback()))
        assert it.error is None


async def test_a_state_given_twice_is_no_state(tmp_path: Path) -> None:
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
async def test_the_issuer_of_the_answer_is_checked(
    tmp_path: Path, named: bool | None, iss: str | None, works: bool
) -> None:
    async with attempt(tmp_path, discovery={"authorization_response_iss_parameter_supported": named}) as it:
        extra = {} if iss is None else {"iss": it.state.issuer if iss == "own" else iss}
        await play(it, lambda: it.browse(it.callback(**extra)))
        assert (it.error is None) is works
        assert len(it.state.token_requests) == (1 if works else 0)
        assert await it.tokens.exists() is works


async def test_an_answer_from_elsewhere_shows_nothing_of_what_it_says(tmp_path: Path) -> None:
    async with attempt(tmp_path) as it:
        bad = it.callback(iss="https://evil.example", error="x", error_description="call-this-number")
        (page,) = await play(it, lambda: it.browse(bad))
    assert "call-this-number" not in f"{page}{it.error}"
    assert it.error is not None


@pytest.mark.parametrize(("code", "words"), [("access_denied", "was declined"), ("server_error", "did not succeed")])
async def test_a_person_who_declines_ends_the_sign_in(tmp_path: Path, code: str, words: str) -> None:
    async with attempt(tmp_path) as it:
        (page,) = await play(it, lambda: it.browse(it.callback(error=code)))
    assert isinstance(it.error, NotSignedIn)
    assert words in it.error.message
    assert "Not signed in" in page


async def test_a_verifier_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    async with attempt(tmp_path) as it:
        back = it.callback()
        it.state.challenges = dict.fromkeys(it.state.challenges, "another")
        await play(it, lambda: it.browse(back))
        assert isinstance(it.error, NotSignedIn)
        assert "invalid_grant" in it.error.message
        assert "canary" not in str(it.error.to_json("x"))


async def test_a_sign_in_without_a_refresh_token_says_what_to_register(tmp_path: Path) -> None:
    async with attempt(tmp_path, rotate=False) as it:
        await play(it, lambda: it.browse(it.callback()))
        assert isinstance(it.error, NotSignedIn)
        assert "offline_access" in it.error.hint


async def test_a_token_endpoint_that_fails_is_told(tmp_path: Path) -> None:
    async def broken(asked: Asked) -> bool:
        await asked.answer(500, b"<html>")
        return True

    async with attempt(tmp_path, misbehave=broken) as it:
        await play(it, lambda: it.browse(it.callback()))
    assert isinstance(it.error, Unreachable)


async def test_after_one_answer_the_port_is_closed(tmp_path: Path) -> None:
    async with attempt(tmp_path) as it:
        await play(it, lambda: it.browse(it.callback()))
    with pytest.raises(OSError, match=r"."):
        await anyio.connect_tcp("127.0.0.1", it.port)


async def test_the_sign_in_ends_when_nobody_comes(tmp_path: Path) -> None:
    async with attempt(tmp_path, seconds=0.05) as it:
        with pytest.raises(NotSignedIn, match="Nobody signed in"):
            await it.login.wait()


async def test_a_port_in_use_is_told_in_words(tmp_path: Path) -> None:
    async with attempt(tmp_path) as it:
        server = SignInServer(it.state.issuer, user_agent=USER_AGENT)
        again = LoopbackLogin.open(
            server, NATIVE, it.tokens, redirect_uri=f"http://localhost:{it.port}/signin-callback"
        )
        with pytest.raises(NotSignedIn, match=f"Port {it.port}"):
            async with again:
                pass


async def test_a_server_without_pkce_is_refused() -> None:
    async with identity(discovery={"code_challenge_methods_supported": ["plain"]}) as state:
        with pytest.raises(Unreachable, match="PKCE"):
            await SignInServer(state.issuer, user_agent=USER_AGENT).prepare_login(NATIVE, DEFAULT_REDIRECT, "s")


async def test_a_server_that_does_not_say_is_asked_with_pkce_all_the_same(tmp_path: Path) -> None:
    async with attempt(tmp_path, discovery={"code_challenge_methods_supported": None}) as it:
        assert "code_challenge=" in it.login.url


@pytest.mark.parametrize(
    "redirect",
    ["https://localhost:3301/x", "http://example.com:3301/x", "http://localhost/x", "http://localhost:3301", "x"],
)
async def test_a_redirect_that_does_not_come_back_here_is_refused(tmp_path: Path, redirect: str) -> None:
    async with attempt(tmp_path) as it:
        server = SignInServer(it.state.issuer, user_agent=USER_AGENT)
        with pytest.raises(ValueError, match="redirect URI"):
            async with LoopbackLogin.open(server, NATIVE, it.tokens, redirect_uri=redirect):
                pass


def test_the_address_to_register_is_fixed() -> None:
    assert DEFAULT_REDIRECT == "http://localhost:3301/signin-callback"


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
                async with LoopbackLogin.open(server, NATIVE, tokens, redirect_uri=redirect):
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
