"""Chooses the credential from the settings, and the hint for signing in that fits the way of launching."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum

from itwin_mcp import __version__
from itwin_mcp.errors import SettingsError
from itwin_mcp.settings import Settings
from itwin_mcp.upstream.sign_in.browser_login import BrowserLogin
from itwin_mcp.upstream.sign_in.login_store import LoginStore
from itwin_mcp.upstream.sign_in.saved_login import DEFAULT_CLIENT_ID, LOGIN_SCOPE, SavedLoginTokens
from itwin_mcp.upstream.sign_in.service_application import build_application_tokens
from itwin_mcp.upstream.sign_in.sign_in_server import SignInServer
from itwin_mcp.upstream.sign_in.static_token import StaticToken
from itwin_mcp.upstream.sign_in.token import TokenSource
from itwin_mcp.upstream.sign_in.token_file import TokenFile

PORTAL = "https://developer.bentley.com/my-apps"
USER_AGENT = f"itwin-mcp/{__version__}"


class Launcher(Enum):
    """The way in which this process was launched. It decides how the user can sign in."""

    SHELL = "shell"
    STDIO = "stdio"
    HTTP = "http"


class AuthMethod(Enum):
    """The ways to get a token, in the order in which they are tried."""

    SANDBOX = "sandbox"
    ACCESS_TOKEN = "access-token"  # noqa: S105 - the name of a method
    ACCESS_TOKEN_FILE = "access-token-file"  # noqa: S105
    SERVICE_APPLICATION = "service-application"
    LOGIN = "login"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class NativeLogin:
    """A native application for the login of a user, with its sign-in server and the store of the login."""

    server: SignInServer
    client_id: str
    store: LoginStore
    tokens: SavedLoginTokens
    redirect_uri: str

    def attempt(self) -> AbstractAsyncContextManager[BrowserLogin]:
        """Open an attempt to sign in with the browser; see BrowserLogin.open."""
        return BrowserLogin.open(self.server, self.client_id, self.tokens, redirect_uri=self.redirect_uri)


@dataclass(frozen=True, slots=True)
class SignIn:
    """The sign-in in use."""

    method: AuthMethod
    description: str
    """Text for people, without secrets."""
    tokens: TokenSource | None
    remedy: str
    """The hint for the case that the platform refuses the credential."""
    login: NativeLogin | None = None
    """Set if the method is the login of a user."""


def choose_sign_in(
    settings: Settings, launcher: Launcher, *, sandbox_token: str | None = None, has_tool: bool = False
) -> SignIn:
    """Return the sign-in for the settings.

    `sandbox_token` is the token of the embedded sandbox. `has_tool` says that the tool `sign-in` is served, so that the
    remedy can name it.

    Raises: SettingsError if a setting cannot be used.
    """
    method = choose_method(settings)
    remedy = _explain_remedy(method, settings, launcher, has_tool=has_tool)
    if method is AuthMethod.SANDBOX:
        static = StaticToken(sandbox_token) if sandbox_token else None
        return SignIn(method, "the embedded sandbox, which needs no sign-in", static, remedy)
    if method is AuthMethod.ACCESS_TOKEN:
        assert settings.access_token is not None
        try:
            static = StaticToken(settings.access_token.get_secret_value())
        except ValueError as error:
            raise SettingsError(f"ITWIN_ACCESS_TOKEN cannot be used: {error}.") from None
        return SignIn(method, "the access token in ITWIN_ACCESS_TOKEN", static, remedy)
    if method is AuthMethod.ACCESS_TOKEN_FILE:
        assert settings.access_token_file is not None
        description = f"the access token in the file {settings.access_token_file} (ITWIN_ACCESS_TOKEN_FILE)"
        return SignIn(method, description, TokenFile(settings.access_token_file), remedy)
    if method is AuthMethod.SERVICE_APPLICATION:
        assert settings.client_id is not None
        assert settings.client_secret is not None
        secret = settings.client_secret.get_secret_value()
        tokens = build_application_tokens(build_sign_in_server(settings, remedy), settings.client_id, secret)
        setting = settings.origins.get("client_id", "ITWIN_CLIENT_ID")
        return SignIn(method, f"the service application {settings.client_id} ({setting})", tokens, remedy)
    login = build_native_login(settings, remedy)
    if login is None:
        return SignIn(AuthMethod.NONE, "nothing: no access token and no application is configured", None, remedy)
    description = f"the login kept for application {login.client_id}, profile {settings.profile}"
    return SignIn(method, description, login.tokens, remedy, login)


def choose_method(settings: Settings) -> AuthMethod:
    """Return the first of the configured methods."""
    is_configured = {
        AuthMethod.SANDBOX: settings.sandbox,
        AuthMethod.ACCESS_TOKEN: settings.access_token is not None,
        AuthMethod.ACCESS_TOKEN_FILE: settings.access_token_file is not None,
        AuthMethod.SERVICE_APPLICATION: settings.client_secret is not None,
        AuthMethod.LOGIN: bool(settings.client_id or DEFAULT_CLIENT_ID),
        AuthMethod.NONE: True,
    }
    return next(method for method in AuthMethod if is_configured[method])


def build_native_login(settings: Settings, remedy: str) -> NativeLogin | None:
    """Return the native application of the settings, even if another method is in use; None if there is none."""
    client_id = settings.client_id or DEFAULT_CLIENT_ID
    if not client_id or settings.client_secret is not None:
        return None
    server = build_sign_in_server(settings, remedy)
    store = LoginStore(settings.state_dir / "logins")
    tokens = SavedLoginTokens(server, client_id, store, profile=settings.profile, remedy=remedy)
    return NativeLogin(server, client_id, store, tokens, settings.redirect_uri)


def format_login_command(settings: Settings) -> str:
    """Return the command for signing in with the profile of the settings."""
    profile = "" if settings.profile == "default" else f" --profile {settings.profile}"
    return f"itwin-mcp auth login{profile}"


def explain_registration(settings: Settings) -> str:
    """Return the steps for registering an application in the developer portal."""
    return (
        "There is no application to sign in with. Register one, once:\n"
        f"  1. Open {PORTAL} and choose “Register New”.\n"
        "  2. Application type: Native\n"
        f"  3. Redirect URI:     {settings.redirect_uri}\n"
        f"  4. Scopes:           {LOGIN_SCOPE}\n"
        f"  5. Set ITWIN_CLIENT_ID to the client id that it shows, and run `{format_login_command(settings)}` again."
    )


def build_sign_in_server(settings: Settings, remedy: str) -> SignInServer:
    """Return the sign-in server of the settings. Raises SettingsError if its URL cannot be used."""
    try:
        return SignInServer(settings.issuer_url, user_agent=USER_AGENT, remedy=remedy)
    except ValueError as error:
        name = settings.origins.get("issuer_url", "ITWIN_ISSUER_URL")
        raise SettingsError(f"{name} is {settings.issuer_url!r}, which cannot be used: {error}.") from None


def _explain_remedy(method: AuthMethod, settings: Settings, launcher: Launcher, *, has_tool: bool) -> str:
    """Return the hint for signing in again, which depends on what the user can change."""
    again = {
        Launcher.SHELL: "then call again.",
        Launcher.STDIO: "then restart the program that starts itwin-mcp, such as Claude Desktop or VS Code.",
        Launcher.HTTP: "then restart itwin-mcp.",
    }[launcher]
    if method in (AuthMethod.SANDBOX, AuthMethod.ACCESS_TOKEN):
        if settings.bundle:
            return "Put a fresh access token into the extension's settings."
        return f"Set ITWIN_ACCESS_TOKEN to a fresh access token, {again}"
    if method is AuthMethod.ACCESS_TOKEN_FILE:
        return f"Have the program that writes {settings.access_token_file} write a fresh access token, then call again."
    if method is AuthMethod.SERVICE_APPLICATION:
        where = "in the extension's settings" if settings.bundle else "in ITWIN_CLIENT_ID and ITWIN_CLIENT_SECRET"
        return f"Check the id and the secret of the service application {where}, {again}"
    command = format_login_command(settings)
    if method is AuthMethod.LOGIN:
        if has_tool:
            shell = "" if settings.bundle else f" (Or in a shell: `{command}`.)"
            return f"Call the tool `sign-in`, give the person its link, and call again when they have signed in.{shell}"
        if settings.bundle:
            return "Put an access token into the extension's settings, or let it serve the tool `sign-in`."
        if launcher is Launcher.HTTP:
            return f"Whoever runs this server signs in with `{command}` on its machine; then call again."
        return f"Sign in with `{command}`, then call again."
    application = f"a native application, registered at {PORTAL} with the redirect URI {settings.redirect_uri}"
    if settings.bundle:
        return (
            "Open the extension's settings (in Claude Desktop: Settings, Extensions) and enter an access token, or the "
            f"client id of {application}; or turn on “Try it without an account” there."
        )
    sandbox = "call with `--sandbox`" if launcher is Launcher.SHELL else "start it with `--sandbox`"
    return (
        f"Set ITWIN_ACCESS_TOKEN to an access token, or ITWIN_CLIENT_ID to the id of {application}, {again} "
        f"To try it without an account, {sandbox}: the sandbox emulates the platform."
    )
