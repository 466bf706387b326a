"""BrowserLogin, with the test in the place of the browser."""

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
    """An attempt to sign in, with the requests of the browser and the error that ended it."""

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
async def open_attempt(folder: Path, *, seconds: float = 20.0, **knobs: Any) -> AsyncIterator[Attempt]:
    async with identity(**knobs) as state:
        port = free_port()
        server = SignInServer(state.issuer, user_agent=USER_AGENT)
        tokens = SavedLoginTokens(server, NATIVE, LoginStore(folder, use_keyring=False))
        redirect = f"http://localhost:{port}/signin-callback"
        async with BrowserLogin.open(server, NATIVE, tokens, redirect_uri=redirect, seconds=seconds) as login:
            yield Attempt(state, login, port, tokens)


async def run_browser(attempt: Attempt, *steps: Callable[[], Awaitable[str]]) -> list[str]:
    """Run the steps of the browser while the attempt waits, and return the pages that it received."""
    pages = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(attempt.wait)
        for step in steps:
            pages.append(await step())
    return pages


async def test_wait_saves_login_for_get_token(tmp_path: Path) -> None:
    async with open_attempt(tmp_path) as attempt:
        (page,) = await run_browser(attempt, lambda: attempt.browse(attempt.callback()))
        assert attempt.error is None
        assert (await attempt.tokens.get_token()).value == "access-2-canary"
    assert page.startswith("HTTP/1.1 200")
    assert "Signed in" in page
    for part in ('<html lang="en">', '<meta name="viewport"', "<main", "<style>", "color-scheme: light dark"):
        assert part in page


async def test_login_url_has_pkce_state_scope_and_redirect_uri(tmp_path: Path) -> None:
    async with open_attempt(tmp_path) as attempt:
        query = {name: values[0] for name, values in parse_qs(urlsplit(attempt.login.url).query).items()}
        assert attempt.login.url.startswith(f"{attempt.state.issuer}/connect/authorize?")
    assert query["code_challenge_method"] == "S256"
    assert len(query["code_challenge"]) == 43
    assert len(query["state"]) >= 43
    assert query["scope"] == "itwin-platform offline_access"
    assert query["redirect_uri"] == f"http://localhost:{attempt.port}/signin-callback"
    assert "resource" not in query


async def test_callback_page_is_static_and_not_cached(tmp_path: Path) -> None:
    async with open_attempt(tmp_path) as attempt:
        pages = await run_browser(
            attempt,
            lambda: attempt.browse("/signin-callback?state=<script>x</script>&error_description=<b>"),
            lambda: attempt.browse(attempt.callback()),
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
async def test_request_other_than_the_callback_is_ignored(
    tmp_path: Path, target: str, method: str, host: str | None, status: int
) -> None:
    async with open_attempt(tmp_path) as attempt:
        page, last_page = await run_browser(
            attempt,
            lambda: attempt.browse(target, method=method, host=host),
            lambda: attempt.browse(attempt.callback()),
        )
        assert attempt.error is None
    assert page.startswith(f"HTTP/1.1 {405 if method == 'POST' else status}")
    assert last_page.startswith("HTTP/1.1 200")


@pytest.mark.parametrize(
    "content", [b"\r\n\r\n", b"\x16\x03\x01\r\n\r\n", b"GET\r\n\r\n", b"x" * 20_000, b"GET / HTTP/1.1\r\n\r\n"]
)
async def test_malformed_request_is_ignored(tmp_path: Path, content: bytes) -> None:
    async with open_attempt(tmp_path) as attempt:
        await run_browser(attempt, lambda: attempt.send(content), lambda: attempt.browse(attempt.callback()))
        assert attempt.error is None


async def test_silent_connection_does_not_block_the_login(tmp_path: Path) -> None:
    async with open_attempt(tmp_path) as attempt:
        async with await anyio.connect_tcp("127.0.0.1", attempt.port):
            await run_browser(attempt, lambda: attempt.browse(attempt.callback()))
        assert attempt.error is None


async def test_duplicate_state_is_ignored(tmp_path: Path) -> None:
    async with open_attempt(tmp_path) as attempt:
        page, _ = await run_browser(
            attempt, lambda: attempt.browse(attempt.callback() + "&state=x"), lambda: attempt.browse(attempt.callback())
        )
    assert page.startswith("HTTP/1.1 400")


@pytest.mark.parametrize(
    ("announced", "iss", "works"),
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
async def test_callback_issuer_is_checked(tmp_path: Path, announced: bool | None, iss: str | None, works: bool) -> None:
    async with open_attempt(
        tmp_path, discovery={"authorization_response_iss_parameter_supported": announced}
    ) as attempt:
        extra = {} if iss is None else {"iss": attempt.state.issuer if iss == "own" else iss}
        await run_browser(attempt, lambda: attempt.browse(attempt.callback(**extra)))
        assert (attempt.error is None) is works
        assert len(attempt.state.token_requests) == (1 if works else 0)
        assert await attempt.tokens.has_login() is works


async def test_error_for_another_issuer_does_not_quote_callback(tmp_path: Path) -> None:
    async with open_attempt(tmp_path) as attempt:
        target = attempt.callback(iss="https://evil.example", error="x", error_description="call-this-number")
        (page,) = await run_browser(attempt, lambda: attempt.browse(target))
    assert "call-this-number" not in f"{page}{attempt.error}"
    assert attempt.error is not None


@pytest.mark.parametrize(("code", "words"), [("access_denied", "was declined"), ("server_error", "did not succeed")])
async def test_declined_login_raises_not_signed_in(tmp_path: Path, code: str, words: str) -> None:
    async with open_attempt(tmp_path) as attempt:
        (page,) = await run_browser(attempt, lambda: attempt.browse(attempt.callback(error=code)))
    assert isinstance(attempt.error, NotSignedIn)
    assert words in attempt.error.message
    assert "Not signed in" in page


async def test_wrong_verifier_raises_not_signed_in(tmp_path: Path) -> None:
    async with open_attempt(tmp_path) as attempt:
        target = attempt.callback()
        attempt.state.challenges = dict.fromkeys(attempt.state.challenges, "another")
        await run_browser(attempt, lambda: attempt.browse(target))
        assert isinstance(attempt.error, NotSignedIn)
        assert "invalid_grant" in attempt.error.message
        assert "canary" not in str(attempt.error.to_json("x"))


async def test_login_without_refresh_token_hints_at_registration(tmp_path: Path) -> None:
    async with open_attempt(tmp_path, rotate=False) as attempt:
        await run_browser(attempt, lambda: attempt.browse(attempt.callback()))
        assert isinstance(attempt.error, NotSignedIn)
        assert "offline_access" in attempt.error.hint


async def test_failing_token_endpoint_raises_unreachable(tmp_path: Path) -> None:
    async def broken(query: Asked) -> bool:
        await query.answer(500, b"<html>")
        return True

    async with open_attempt(tmp_path, misbehave=broken) as attempt:
        await run_browser(attempt, lambda: attempt.browse(attempt.callback()))
    assert isinstance(attempt.error, Unreachable)


async def test_port_is_closed_after_one_callback(tmp_path: Path) -> None:
    async with open_attempt(tmp_path) as attempt:
        await run_browser(attempt, lambda: attempt.browse(attempt.callback()))
    with pytest.raises(OSError, match=r"."):
        await anyio.connect_tcp("127.0.0.1", attempt.port)


async def test_login_times_out(tmp_path: Path) -> None:
    async with open_attempt(tmp_path, seconds=0.05) as attempt:
        with pytest.raises(NotSignedIn, match="Nobody signed in"):
            await attempt.login.wait()


async def test_port_in_use_raises_not_signed_in(tmp_path: Path) -> None:
    async with open_attempt(tmp_path) as attempt:
        server = SignInServer(attempt.state.issuer, user_agent=USER_AGENT)
        again = BrowserLogin.open(
            server, NATIVE, attempt.tokens, redirect_uri=f"http://localhost:{attempt.port}/signin-callback"
        )
        with pytest.raises(NotSignedIn, match=f"Port {attempt.port}"):
            async with again:
                pass


async def test_prepare_login_without_pkce_raises_unreachable() -> None:
    async with identity(discovery={"code_challenge_methods_supported": ["plain"]}) as state:
        with pytest.raises(Unreachable, match="PKCE"):
            await SignInServer(state.issuer, user_agent=USER_AGENT).prepare_login(NATIVE, DEFAULT_REDIRECT_URI, "s")


async def test_pkce_is_used_if_the_server_does_not_mention_it(tmp_path: Path) -> None:
    async with open_attempt(tmp_path, discovery={"code_challenge_methods_supported": None}) as attempt:
        assert "code_challenge=" in attempt.login.url


@pytest.mark.parametrize(
    "redirect",
    ["https://localhost:3301/x", "http://example.com:3301/x", "http://localhost/x", "http://localhost:3301", "x"],
)
async def test_redirect_uri_must_be_on_this_machine(tmp_path: Path, redirect: str) -> None:
    async with open_attempt(tmp_path) as attempt:
        server = SignInServer(attempt.state.issuer, user_agent=USER_AGENT)
        with pytest.raises(ValueError, match="redirect URI"):
            async with BrowserLogin.open(server, NATIVE, attempt.tokens, redirect_uri=redirect):
                pass


def test_default_redirect_uri_is_fixed() -> None:
    assert DEFAULT_REDIRECT_URI == "http://localhost:3301/signin-callback"


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_callback_is_answered_on_ipv4_and_ipv6(tmp_path: Path, address: str) -> None:
    async with open_attempt(tmp_path) as attempt:
        request = f"GET {attempt.callback()} HTTP/1.1\r\nHost: localhost:{attempt.port}\r\n\r\n".encode()
        (page,) = await run_browser(attempt, lambda: attempt.send(request, address))
        assert page.startswith("HTTP/1.1 200")
        assert attempt.error is None


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "0.0.0.0", "::"])
async def test_port_in_use_on_any_address_raises_not_signed_in(tmp_path: Path, address: str) -> None:
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
    async with open_attempt(tmp_path) as attempt:
        (page,) = await run_browser(attempt, lambda: attempt.browse(attempt.callback()))
    assert page.startswith("HTTP/1.1 200")
