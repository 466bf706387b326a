"""Which sign-in is in use: a source of tokens chosen from the settings, and words that fit how we were started."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.abc

from itwin_mcp import __version__
from itwin_mcp.capability.catalog import Tool
from itwin_mcp.errors import CallError, NotSignedIn, PlatformError, SettingsError
from itwin_mcp.settings import Settings
from itwin_mcp.upstream.auth.claims import read_claims
from itwin_mcp.upstream.auth.login_store import LoginStore
from itwin_mcp.upstream.auth.loopback_login import DEFAULT_REDIRECT, LOGIN_SECONDS, LoopbackLogin
from itwin_mcp.upstream.auth.saved_login import DEFAULT_CLIENT_ID, LOGIN_SCOPE, SavedLoginTokens
from itwin_mcp.upstream.auth.service_application import ServiceApplication, member_address
from itwin_mcp.upstream.auth.sign_in_server import SignInServer
from itwin_mcp.upstream.auth.source import Token, TokenSource
from itwin_mcp.upstream.auth.static import StaticToken
from itwin_mcp.upstream.auth.token_file import TokenFile
from itwin_mcp.upstream.client import DECLARED_PLATFORM, UpstreamClient
from itwin_mcp.upstream.envelope import read_json
from itwin_mcp.upstream.origin import parse_origin
from itwin_mcp.upstream.redaction import clean_text
from itwin_mcp.upstream.wire import Request

PORTAL = "https://developer.bentley.com/my-apps"
PLATFORM_JSON = "application/vnd.bentley.itwin-platform.v1+json"
USER_AGENT = f"itwin-mcp/{__version__}"


class Started(Enum):
    """How we were started, which decides what a person can do about a sign-in."""

    SHELL = "shell"
    STDIO = "stdio"
    HTTP = "http"


class Way(Enum):
    """The ways to get a token, in the order in which they are tried."""

    SANDBOX = "sandbox"
    ACCESS_TOKEN = "access-token"  # noqa: S105 - the name of a way
    ACCESS_TOKEN_FILE = "access-token-file"  # noqa: S105
    SERVICE_APPLICATION = "service-application"
    LOGIN = "login"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class NativeLogin:
    """What a person signs in with: a native application at a sign-in server, and where the login is kept."""

    server: SignInServer
    client_id: str
    store: LoginStore
    tokens: SavedLoginTokens
    redirect_uri: str

    def attempt(self) -> AbstractAsyncContextManager[LoopbackLogin]:
        """One attempt to sign in; see LoopbackLogin.open."""
        return LoopbackLogin.open(self.server, self.client_id, self.tokens, redirect_uri=self.redirect_uri)


@dataclass(frozen=True, slots=True)
class SignIn:
    """The sign-in in use. `told` says it to people, without the value of anything secret."""

    way: Way
    told: str
    tokens: TokenSource | None
    remedy: str
    """What to do when the platform does not take it."""
    login: NativeLogin | None = None
    """Set when this is a person's login."""


def choose(settings: Settings, started: Started, *, sandbox_token: str | None = None, has_tool: bool = False) -> SignIn:
    """The sign-in that the settings mean. Raises SettingsError.

    `has_tool` when the tool `sign-in` is served, so that the remedy may name it.
    """
    way = way_of(settings)
    remedy = _remedy(way, settings, started, has_tool=has_tool)
    if way is Way.SANDBOX:
        told = "the embedded sandbox, which needs no sign-in"
        return SignIn(way, told, StaticToken(sandbox_token) if sandbox_token else None, remedy)
    if way is Way.ACCESS_TOKEN:
        assert settings.access_token is not None
        try:
            static = StaticToken(settings.access_token.get_secret_value())
        except ValueError as error:
            raise SettingsError(f"ITWIN_ACCESS_TOKEN cannot be used: {error}.") from None
        return SignIn(way, "the access token in ITWIN_ACCESS_TOKEN", static, remedy)
    if way is Way.ACCESS_TOKEN_FILE:
        assert settings.access_token_file is not None
        told = f"the access token in the file {settings.access_token_file} (ITWIN_ACCESS_TOKEN_FILE)"
        return SignIn(way, told, TokenFile(settings.access_token_file), remedy)
    if way is Way.SERVICE_APPLICATION:
        assert settings.client_id is not None
        assert settings.client_secret is not None
        secret = settings.client_secret.get_secret_value()
        application = ServiceApplication(sign_in_server(settings, remedy), settings.client_id, secret)
        told = f"the service application {settings.client_id} ({settings.origins.get('client_id', 'ITWIN_CLIENT_ID')})"
        return SignIn(way, told, application, remedy)
    login = native_login(settings, remedy)
    if login is None:
        return SignIn(Way.NONE, "nothing: no access token and no application is configured", None, remedy)
    told = f"the login kept for application {login.client_id}, profile {settings.profile}"
    return SignIn(way, told, login.tokens, remedy, login)


def way_of(settings: Settings) -> Way:
    """Which way the settings mean; the first that is configured wins."""
    if settings.sandbox:
        return Way.SANDBOX
    if settings.access_token is not None:
        return Way.ACCESS_TOKEN
    if settings.access_token_file is not None:
        return Way.ACCESS_TOKEN_FILE
    if settings.client_secret is not None:
        return Way.SERVICE_APPLICATION
    return Way.LOGIN if settings.client_id or DEFAULT_CLIENT_ID else Way.NONE


def native_login(settings: Settings, remedy: str) -> NativeLogin | None:
    """The login that a person can make, whatever is in use; None without a native application."""
    client_id = settings.client_id or DEFAULT_CLIENT_ID
    if not client_id or settings.client_secret is not None:
        return None
    server = sign_in_server(settings, remedy)
    store = LoginStore(settings.state_dir / "logins")
    tokens = SavedLoginTokens(server, client_id, store, profile=settings.profile, remedy=remedy)
    return NativeLogin(server, client_id, store, tokens, settings.redirect_uri or DEFAULT_REDIRECT)


def login_command(settings: Settings) -> str:
    """What to type to sign in."""
    profile = "" if settings.profile == "default" else f" --profile {settings.profile}"
    return f"itwin-mcp auth login{profile}"


def application_needed(settings: Settings) -> str:
    """How to get an application to sign in with: everything to paste into the developer portal."""
    return (
        "There is no application to sign in with. Register one, once:\n"
        f"  1. Open {PORTAL} and choose “Register New”.\n"
        "  2. Application type: Native\n"
        f"  3. Redirect URI:     {settings.redirect_uri or DEFAULT_REDIRECT}\n"
        f"  4. Scopes:           {LOGIN_SCOPE}\n"
        f"  5. Set ITWIN_CLIENT_ID to the client id that it shows, and run `{login_command(settings)}` again."
    )


def sign_in_server(settings: Settings, remedy: str) -> SignInServer:
    """The sign-in server that the settings name. Raises SettingsError."""
    try:
        return SignInServer(settings.issuer_url, user_agent=USER_AGENT, remedy=remedy)
    except ValueError as error:
        name = settings.origins.get("issuer_url", "ITWIN_ISSUER_URL")
        raise SettingsError(f"{name} is {settings.issuer_url!r}, which cannot be used: {error}.") from None


def _remedy(way: Way, settings: Settings, started: Started, *, has_tool: bool) -> str:
    again = {
        Started.SHELL: "then call again.",
        Started.STDIO: "then restart the program that starts itwin-mcp, such as Claude Desktop or VS Code.",
        Started.HTTP: "then restart itwin-mcp.",
    }[started]
    if way in (Way.SANDBOX, Way.ACCESS_TOKEN):
        if settings.bundle:
            return "Put a fresh access token into the extension's settings."
        return f"Set ITWIN_ACCESS_TOKEN to a fresh access token, {again}"
    if way is Way.ACCESS_TOKEN_FILE:
        return f"Have the program that writes {settings.access_token_file} write a fresh access token, then call again."
    if way is Way.SERVICE_APPLICATION:
        where = "in the extension's settings" if settings.bundle else "in ITWIN_CLIENT_ID and ITWIN_CLIENT_SECRET"
        return f"Check the id and the secret of the service application {where}, {again}"
    command = login_command(settings)
    if way is Way.LOGIN:
        if has_tool:
            shell = "" if settings.bundle else f" (Or in a shell: `{command}`.)"
            return f"Call the tool `sign-in`, give the person its link, and call again when they have signed in.{shell}"
        if settings.bundle:
            return "Put an access token into the extension's settings, or let it serve the tool `sign-in`."
        if started is Started.HTTP:
            return f"Whoever runs this server signs in with `{command}` on its machine; then call again."
        return f"Sign in with `{command}`, then call again."
    application = f"a native application, registered at {PORTAL} with the redirect URI {DEFAULT_REDIRECT}"
    if settings.bundle:
        return (
            "Open the extension's settings (in Claude Desktop: Settings, Extensions) and enter an access token, or the "
            f"client id of {application}; or turn on “Try it without an account” there."
        )
    sandbox = "call with `--sandbox`" if started is Started.SHELL else "start it with `--sandbox`"
    return (
        f"Set ITWIN_ACCESS_TOKEN to an access token, or ITWIN_CLIENT_ID to the id of {application}, {again} "
        f"To try it without an account, {sandbox}: the sandbox emulates the platform."
    )


class Pending:
    """A sign-in that waits for the person."""

    def __init__(self, attempt: LoopbackLogin) -> None:
        self.url = attempt.url
        self._attempt = attempt
        self.ends = anyio.current_time() + LOGIN_SECONDS
        self.done = anyio.Event()
        self.failure: CallError | None = None
        self.scope = anyio.CancelScope()

    def __repr__(self) -> str:
        return f"Pending(done={self.done.is_set()})"

    @property
    def is_answered(self) -> bool:
        """Whether the person has signed in or declined: the link is of no use any more."""
        return self._attempt.is_answered

    @property
    def seconds_left(self) -> float:
        """How long the link is good."""
        return max(0.0, self.ends - anyio.current_time())


class BackgroundLogin:
    """Signing in while the server serves: one attempt at a time, waited for by a task of its own."""

    def __init__(self, login: NativeLogin, tasks: anyio.abc.TaskGroup) -> None:
        self._login = login
        self._tasks = tasks
        self._lock = anyio.Lock()
        self.last: Pending | None = None
        """The attempt under way, or one that ended and that nobody has been told of."""

    async def begin(self) -> Pending:
        """The attempt under way, or a new one. Raises an error of the CallError family."""
        async with self._lock:
            if self.last is not None and self.last.is_answered:
                await self.last.done.wait()  # the page is still being sent; then the port is free
            if self.last is None or self.last.done.is_set():
                self.last = await self._tasks.start(self._run)
            return self.last

    async def exists(self) -> bool:
        """Whether somebody signed in before; a login that cannot be used is as good as none."""
        try:
            return await self._login.tokens.exists()
        except NotSignedIn:
            return False

    async def give_up(self) -> None:
        """End the attempt under way: the person does not want to."""
        pending, self.last = self.last, None
        if pending is not None:
            pending.scope.cancel()
            await pending.done.wait()

    async def _run(self, *, task_status: anyio.abc.TaskStatus[Pending]) -> None:
        pending: Pending | None = None
        try:
            async with self._login.attempt() as attempt:
                pending = Pending(attempt)
                task_status.started(pending)
                with pending.scope:
                    await attempt.wait()
        except CallError as error:
            if pending is None:
                raise  # to whoever wanted to begin
            pending.failure = error
        finally:
            if pending is not None:
                pending.done.set()  # only now is the port free for another attempt


@asynccontextmanager
async def background() -> AsyncIterator[anyio.abc.TaskGroup]:
    """Tasks that end with the block. What the block raises comes out as it was, not in a group."""
    tasks = anyio.create_task_group()
    await tasks.__aenter__()
    try:
        yield tasks
    finally:
        tasks.cancel_scope.cancel()
        await tasks.__aexit__(None, None, None)


async def who_am_i(settings: Settings, sign_in: SignIn, upstream: UpstreamClient) -> dict[str, Any]:
    """Who acts on which platform until when. Raises an error of the CallError family."""
    account = await _account(upstream)  # first: a token that the platform does not take says nothing
    assert sign_in.tokens is not None
    token = await sign_in.tokens.token()
    return {
        **facts(settings, sign_in),
        **read_identity(token, sign_in.way),
        "account": account,
    }


async def introduce(settings: Settings, sign_in: SignIn, tool: Tool) -> str:
    """Say where a tool acts and as whom, for the beginning of a question: `On api.bentley.com, as Anna de Vries:`."""
    writes = [operation for operation in tool.operations if operation.method != "GET"]
    origins = {operation.origin for operation in writes or tool.operations}
    platform = (parse_origin(DECLARED_PLATFORM), parse_origin(settings.api_url))
    hosts = {urlsplit(origin).netloc for origin in origins if parse_origin(origin) not in platform}
    if hosts:
        return f"On {', '.join(sorted(hosts))}:"
    if settings.sandbox:
        return "In the sandbox:"
    who = None
    with suppress(CallError):  # without a sign-in the call itself says so
        if sign_in.tokens is not None:
            who = _named(settings, read_identity(await sign_in.tokens.token(), sign_in.way))
    return f"On {urlsplit(settings.api_url).netloc}" + (f", as {who}:" if who else ":")


def _named(settings: Settings, identity: Mapping[str, Any]) -> str | None:
    """What a person calls whoever acts; None where the token does not say."""
    if identity["kind"] == "application":
        return f"the application {identity['application'] or settings.client_id or identity['email'] or '(unnamed)'}"
    name: str | None = identity["name"] or identity["email"]
    return name


def facts(settings: Settings, sign_in: SignIn) -> dict[str, Any]:
    """What is known without asking anybody."""
    return {
        "environment": settings.environment,
        "platform": None if settings.sandbox else settings.api_url,
        "signInServer": None if settings.sandbox else settings.issuer_url,
        "signedInWith": sign_in.way.value,
        "profile": settings.profile,
    }


def read_identity(token: Token, way: Way) -> dict[str, Any]:
    """What a token says about itself; an opaque one says little."""
    claims = read_claims(token.value)
    said = claims.get("scope")
    scopes = said.split() if isinstance(said, str) else said if isinstance(said, list) else None
    return {
        "kind": _kind(claims, way),
        "name": _text(claims, "name"),
        "email": _text(claims, "email") or token.member,
        "application": _text(claims, "client_id"),
        "scopes": None if scopes is None else [clean_text(one, 100) for one in scopes if isinstance(one, str)][:50],
        "expiresAt": None if token.expires_at is None else stamp(token.expires_at),
        "renewed": way in (Way.LOGIN, Way.SERVICE_APPLICATION, Way.ACCESS_TOKEN_FILE),
    }


def stamp(seconds: float) -> str:
    """Seconds since 1970 as people and programs read them."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _kind(claims: Mapping[str, Any], way: Way) -> str | None:
    if way is Way.SERVICE_APPLICATION:
        return "application"
    if way is Way.LOGIN:
        return "user"
    if not claims:
        return None
    # A service application is a member by an address of its own; without any person in the token it is one too.
    application = str(claims.get("email", "")).endswith(member_address("")) or not {"sub", "email"} & claims.keys()
    return "application" if application else "user"


def _text(claims: Mapping[str, Any], name: str) -> str | None:
    value = claims.get(name)
    return clean_text(value, 200) if isinstance(value, str) and value else None


async def _account(upstream: UpstreamClient) -> dict[str, Any] | None:
    """The caller's own Account, get-my-primary-account; some have none, and some may not see it."""
    path = "/itwins/myprimaryaccount"
    try:
        answer = await upstream.send(Request("GET", upstream.platform, path, headers=(("Accept", PLATFORM_JSON),)))
    except PlatformError as error:
        if error.status in (403, 404):
            return None
        raise
    body = read_json(answer)
    found = body.get("iTwin") if isinstance(body, dict) else None
    if not isinstance(found, dict) or not isinstance(found.get("id"), str):
        return None
    return {"id": found["id"]} | {name: _text(found, name) for name in ("displayName", "number")}
