"""`itwin-mcp auth`: sign in, see who is signed in, sign out."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from itwin_mcp.cli.options import account_options, make_settings
from itwin_mcp.cli.output import json_option, print_json
from itwin_mcp.errors import CallError, NotSignedIn, SettingsError
from itwin_mcp.settings import Settings

if TYPE_CHECKING:
    from itwin_mcp.upstream.sign_in.credential_choice import NativeLogin, SignIn


@click.group("auth")
def command() -> None:
    """Sign in to the iTwin Platform with the browser, see who is signed in, sign out.

    \b
    Examples:
      ITWIN_CLIENT_ID=native-… itwin-mcp auth login
      itwin-mcp auth status
      itwin-mcp auth logout
    """


_json = json_option("Print the result as JSON.")


@command.command("login")
@account_options
@click.option("--no-browser", is_flag=True, help="Only print the link; open it in a browser on this computer.")
@_json
def log_in(no_browser: bool, as_json: bool, **flags: Any) -> None:
    """Sign in with the browser. The login is stored and renewed until `auth logout`.

    The link is printed on standard error. ITWIN_CLIENT_ID must be set to the id of a native application.

    \b
    Examples:
      itwin-mcp auth login
      itwin-mcp auth login --no-browser
      itwin-mcp auth login --profile qa
    """
    settings = make_settings(**flags)
    native = _get_native_login(settings)
    login = _run(as_json, lambda: _login(settings, native, browser=not no_browser))
    if as_json:
        print_json(login)
    else:
        user = login["name"] or login["email"]
        click.echo(f"Signed in{f' as {user}' if user else ''}; the login is stored in {login['keptIn']}.")
        click.echo("Sign out with `itwin-mcp auth logout`.")
    if login["inUse"] != "login":
        other = login["inUse"].replace("-", " ")
        click.echo(f"This login will not be used, because the {other} is configured and takes precedence.", err=True)


@command.command("status")
@account_options
@_json
def status(as_json: bool, **flags: Any) -> None:
    """Show which sign-in is in use, never its value. Sends nothing. Exits with 1 if there is none or it has expired.

    \b
    Examples:
      itwin-mcp auth status
      itwin-mcp auth status --profile qa --json
    """
    from itwin_mcp.upstream.sign_in.credential_choice import Launcher, choose_sign_in

    settings = make_settings(**flags)
    sign_in = choose_sign_in(settings, Launcher.SHELL)
    state = _run(as_json, lambda: _status(settings, sign_in))
    if as_json:
        print_json(state)
    else:
        rows = {
            "Sign-in": state["told"],
            "User": state["user"],
            "Environment": state["environment"] + (f" ({state['platform']})" if state["platform"] else ""),
            "Server": state["signInServer"],
            "Stored in": state["keptIn"],
            "Expires": state["expiresAt"],
            "State": "ready" if state["ready"] else f"not signed in. {state['hint']}",
        }
        for label, value in rows.items():
            if value:
                click.echo(f"{label + ':':<12} {value}")
    sys.exit(0 if state["ready"] else 1)


@command.command("logout")
@account_options
@_json
def logout(as_json: bool, **flags: Any) -> None:
    """Sign out: revoke the login at the sign-in server and delete it here.

    \b
    Examples:
      itwin-mcp auth logout
      itwin-mcp auth logout --profile qa
    """
    from itwin_mcp.upstream.sign_in.credential_choice import build_native_login, format_login_command

    settings = make_settings(**flags)
    native = build_native_login(settings, f"Sign in with `{format_login_command(settings)}`, then try again.")
    # Without a native application no login can exist.
    result: dict[str, Any] = {"wasSignedIn": False, "revoked": False, "because": None}
    if native is not None:
        result = _run(as_json, lambda: _logout(native))
    if as_json:
        print_json(result)
    elif not result["wasSignedIn"]:
        click.echo("Nobody was signed in.")
    elif result["revoked"]:
        click.echo("Signed out: the login was revoked at the sign-in server and deleted here.")
    else:
        click.echo("The login was deleted here.")
    if result["wasSignedIn"] and not result["revoked"]:
        click.echo(f"The sign-in server did not revoke it: {result['because']}", err=True)
        sys.exit(1)


def _get_native_login(settings: Settings) -> NativeLogin:
    """Return the login of the native application. Raises SettingsError, with the steps to register one."""
    from itwin_mcp.upstream.sign_in.credential_choice import (
        build_native_login,
        explain_registration,
        format_login_command,
    )

    if settings.sandbox:
        raise SettingsError("The embedded sandbox needs no sign-in. Unset ITWIN_MCP_SANDBOX to sign in.")
    if settings.client_secret is not None:
        raise SettingsError(
            f"{settings.client_id} is a service application, which signs in with its secret. To sign in yourself, "
            "unset the secret and set ITWIN_CLIENT_ID to a native application."
        )
    native = build_native_login(settings, f"Sign in with `{format_login_command(settings)}`, then try again.")
    if native is None:
        raise SettingsError(explain_registration(settings))
    return native


async def _login(settings: Settings, native: NativeLogin, *, browser: bool) -> dict[str, Any]:
    from itwin_mcp.upstream.sign_in.credential_choice import AuthMethod, choose_method
    from itwin_mcp.upstream.sign_in.identity import read_identity

    async with native.attempt() as attempt:
        opened = browser and _open_browser(attempt.url, settings.issuer_url)
        click.echo("Your browser opens. If it does not, open:" if opened else "Open this link to sign in:", err=True)
        click.echo(f"\n  {attempt.url}\n", err=True)
        await attempt.wait()
    identity = read_identity(await native.tokens.get_token(), AuthMethod.LOGIN)
    return {
        "signedIn": True,
        **{name: identity[name] for name in ("name", "email", "scopes")},
        "application": native.client_id,
        "profile": settings.profile,
        "environment": settings.environment,
        "keptIn": native.store.describe(),
        "inUse": choose_method(settings).value,
    }


def _open_browser(url: str, issuer: str) -> bool:
    """Open the user's browser at the sign-in server, over https or on this computer; return whether it opened.

    Other links are refused, because a server chooses the link.
    """
    import webbrowser

    link, server = urlsplit(url), urlsplit(issuer)
    is_local = link.scheme == "http" and link.hostname in ("localhost", "127.0.0.1", "::1")
    if not (link.scheme == "https" or is_local) or link.hostname != server.hostname:
        return False
    try:
        return webbrowser.open(url)
    except webbrowser.Error:
        return False


async def _status(settings: Settings, sign_in: SignIn) -> dict[str, Any]:
    from itwin_mcp.upstream.sign_in.credential_choice import AuthMethod
    from itwin_mcp.upstream.sign_in.identity import describe_sign_in, format_time, read_identity
    from itwin_mcp.upstream.sign_in.token import read_claims

    expires_at, user, hint = None, None, sign_in.remedy if sign_in.method is AuthMethod.NONE else ""
    if sign_in.method in (AuthMethod.ACCESS_TOKEN, AuthMethod.ACCESS_TOKEN_FILE):
        assert sign_in.tokens is not None
        try:
            token = await sign_in.tokens.get_token()
            expires_at, identity = token.expires_at, read_identity(token, sign_in.method)
            user = identity["name"] or identity["email"]
            if not read_claims(token.value):
                hint = f"The access token is invalid: it is not a JSON Web Token. {sign_in.remedy}"
        except NotSignedIn as error:
            hint = f"{error.message} {error.hint}"
        if expires_at is not None and expires_at <= time.time():
            hint = f"The access token has expired. {sign_in.remedy}"
    elif sign_in.login is not None:
        if await sign_in.login.tokens.has_login():
            user = await sign_in.login.tokens.read_user()
        else:
            hint = sign_in.remedy
    return {
        "ready": not hint,
        "told": sign_in.description,
        "user": user,
        **describe_sign_in(settings, sign_in),
        "application": settings.client_id
        if sign_in.method in (AuthMethod.LOGIN, AuthMethod.SERVICE_APPLICATION)
        else None,
        "keptIn": sign_in.login.store.describe() if sign_in.login is not None else None,
        "expiresAt": format_time(expires_at) if expires_at is not None else None,
        "hint": hint or None,
    }


async def _logout(native: NativeLogin) -> dict[str, Any]:
    from itwin_mcp.errors import Unreachable

    was_signed_in, revoked, because = True, False, "it has no endpoint for that."
    try:
        was_signed_in = await native.tokens.has_login()
    except NotSignedIn as error:
        because = error.message  # the stored login is damaged or readable by others; delete it all the same
    try:
        revoked = await native.tokens.sign_out()
    except Unreachable as error:
        because = error.message
    return {
        "wasSignedIn": was_signed_in,
        "revoked": revoked,
        "because": because if was_signed_in and not revoked else None,
    }


def _run(as_json: bool, work: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    """Run `work` and return its result. If it fails, print the error with what to do, and exit with 1."""
    import anyio

    try:
        return anyio.run(work)
    except CallError as error:
        if as_json:
            print_json({"error": error.to_json("auth")})
        else:
            click.echo(f"{error.message}\n{error.hint}", err=True)
    except KeyboardInterrupt:
        click.echo("Cancelled; nobody signed in.", err=True)
    sys.exit(1)
