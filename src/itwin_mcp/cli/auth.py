"""`itwin-mcp auth`: sign in, see who is signed in, sign out."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from itwin_mcp.cli.options import account_options, make_settings
from itwin_mcp.errors import CallError, NotSignedIn, SettingsError
from itwin_mcp.settings import Settings

if TYPE_CHECKING:
    from itwin_mcp.sign_in import NativeLogin, SignIn


@click.group("auth")
def command() -> None:
    """Sign in to the iTwin Platform with the browser, see who is signed in, sign out.

    \b
    Examples:
      ITWIN_CLIENT_ID=native-… itwin-mcp auth login
      itwin-mcp auth status
      itwin-mcp auth logout
    """


_json = click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")


@command.command("login")
@account_options
@click.option("--no-browser", is_flag=True, help="Only print the link, to open in a browser of this computer.")
@_json
def login(no_browser: bool, as_json: bool, **flags: Any) -> None:
    """Sign in with the browser, once: the login is kept and renewed until `auth logout`.

    The link is printed on standard error. It needs ITWIN_CLIENT_ID, the id of a native application.

    \b
    Examples:
      itwin-mcp auth login
      itwin-mcp auth login --no-browser
      itwin-mcp auth login --profile qa
    """
    settings = make_settings(**flags)
    native = _native(settings)
    done = _run(as_json, lambda: _login(settings, native, browser=not no_browser))
    if as_json:
        _print(done)
    else:
        who = done["name"] or done["email"]
        click.echo(f"Signed in{f' as {who}' if who else ''}; kept in {done['keptIn']}.")
        click.echo("Sign out with `itwin-mcp auth logout`.")
    if done["inUse"] != "login":
        told = done["inUse"].replace("-", " ")
        click.echo(f"This login is not what will be used: the {told} is configured, and comes first.", err=True)


@command.command("status")
@account_options
@_json
def status(as_json: bool, **flags: Any) -> None:
    """Tell which sign-in is in use, never its value. Nobody is asked; exits with 1 if there is none or it is over.

    \b
    Examples:
      itwin-mcp auth status
      itwin-mcp auth status --profile qa --json
    """
    from itwin_mcp.sign_in import Started, choose

    settings = make_settings(**flags)
    sign_in = choose(settings, Started.SHELL)
    state = _run(as_json, lambda: _status(settings, sign_in))
    if as_json:
        _print(state)
    else:
        click.echo(f"Sign-in:     {state['told']}")
        if state["user"]:
            click.echo(f"User:        {state['user']}")
        click.echo(f"Environment: {state['environment']}" + (f" ({state['platform']})" if state["platform"] else ""))
        if state["signInServer"]:
            click.echo(f"Signed by:   {state['signInServer']}")
        if state["keptIn"]:
            click.echo(f"Kept in:     {state['keptIn']}")
        if state["expiresAt"]:
            click.echo(f"Expires:     {state['expiresAt']}")
        click.echo("State:       " + ("ready" if state["ready"] else f"not signed in. {state['hint']}"))
    sys.exit(0 if state["ready"] else 1)


@command.command("logout")
@account_options
@_json
def logout(as_json: bool, **flags: Any) -> None:
    """Sign out: the login is revoked at the sign-in server and forgotten here.

    \b
    Examples:
      itwin-mcp auth logout
      itwin-mcp auth logout --profile qa
    """
    from itwin_mcp.sign_in import login_command, native_login

    settings = make_settings(**flags)
    native = native_login(settings, f"Sign in with `{login_command(settings)}`, then try again.")
    if native is None:  # without a native application nobody can have signed in
        done: dict[str, Any] = {"wasSignedIn": False, "revoked": False, "because": None}
    else:
        done = _run(as_json, lambda: _logout(native))
    if as_json:
        _print(done)
    elif not done["wasSignedIn"]:
        click.echo("Nobody was signed in.")
    elif done["revoked"]:
        click.echo("Signed out: revoked at the sign-in server and forgotten here.")
    else:
        click.echo("Forgotten here.")
    if done["wasSignedIn"] and not done["revoked"]:
        click.echo(f"The sign-in server did not revoke it: {done['because']}", err=True)
        sys.exit(1)


def _native(settings: Settings) -> NativeLogin:
    """The application that a person signs in with. SettingsError, with everything to paste, when there is none."""
    from itwin_mcp.sign_in import application_needed, login_command, native_login

    if settings.sandbox:
        raise SettingsError("The embedded sandbox needs no sign-in: leave ITWIN_MCP_SANDBOX away to sign in.")
    if settings.client_secret is not None:
        raise SettingsError(
            f"{settings.client_id} is a service application: it signs in by itself, with its secret. "
            "For a login of your own leave the secret away and set ITWIN_CLIENT_ID to a native application."
        )
    native = native_login(settings, f"Sign in with `{login_command(settings)}`, then try again.")
    if native is None:
        raise SettingsError(application_needed(settings))
    return native


async def _login(settings: Settings, native: NativeLogin, *, browser: bool) -> dict[str, Any]:
    from itwin_mcp.sign_in import Way, read_identity, way_of

    async with native.attempt() as attempt:
        opened = browser and _open_browser(attempt.url, settings.issuer_url)
        click.echo("Your browser opens. If it does not, open:" if opened else "Open this link to sign in:", err=True)
        click.echo(f"\n  {attempt.url}\n", err=True)
        await attempt.wait()
    identity = read_identity(await native.tokens.token(), Way.LOGIN)
    return {
        "signedIn": True,
        **{name: identity[name] for name in ("name", "email", "scopes")},
        "application": native.client_id,
        "profile": settings.profile,
        "environment": settings.environment,
        "keptIn": native.store.describe(),
        "inUse": way_of(settings).value,
    }


def _open_browser(url: str, issuer: str) -> bool:
    """Open the person's browser, and only at the sign-in server: https, or this machine for a sandbox."""
    import webbrowser

    asked, own = urlsplit(url), urlsplit(issuer)
    local = asked.scheme == "http" and asked.hostname in ("localhost", "127.0.0.1", "::1")
    if not (asked.scheme == "https" or local) or asked.hostname != own.hostname:
        return False
    try:
        return webbrowser.open(url)
    except webbrowser.Error:
        return False


async def _status(settings: Settings, sign_in: SignIn) -> dict[str, Any]:
    from itwin_mcp.sign_in import Way, facts, read_identity, stamp
    from itwin_mcp.upstream.auth.claims import read_claims

    expires_at, user, ready = None, None, sign_in.way is not Way.NONE
    hint = "" if ready else sign_in.remedy
    if sign_in.way in (Way.ACCESS_TOKEN, Way.ACCESS_TOKEN_FILE):
        assert sign_in.tokens is not None
        try:
            token = await sign_in.tokens.token()
            expires_at, identity = token.expires_at, read_identity(token, sign_in.way)
            user = identity["name"] or identity["email"]
            if not read_claims(token.value):
                ready, hint = False, f"The access token is invalid: it is not a JSON Web Token. {sign_in.remedy}"
        except NotSignedIn as error:
            ready, hint = False, f"{error.message} {error.hint}"
        if expires_at is not None and expires_at <= time.time():
            ready, hint = False, f"The access token has expired. {sign_in.remedy}"
    elif sign_in.login is not None:
        if await sign_in.login.tokens.exists():
            user = await sign_in.login.tokens.user()
        else:
            ready, hint = False, sign_in.remedy
    return {
        "ready": ready,
        "told": sign_in.told,
        "user": user,
        **facts(settings, sign_in),
        "application": settings.client_id if sign_in.way in (Way.LOGIN, Way.SERVICE_APPLICATION) else None,
        "keptIn": sign_in.login.store.describe() if sign_in.login is not None else None,
        "expiresAt": stamp(expires_at) if expires_at is not None else None,
        "hint": hint or None,
    }


async def _logout(native: NativeLogin) -> dict[str, Any]:
    from itwin_mcp.errors import Unreachable

    was, revoked, because = True, False, "it offers no way to."
    try:
        was = await native.tokens.exists()
    except NotSignedIn as error:
        because = error.message  # damaged or open to others: it is only to be deleted
    try:
        revoked = await native.tokens.forget()
    except Unreachable as error:
        because = error.message
    return {"wasSignedIn": was, "revoked": revoked, "because": None if revoked or not was else because}


def _run(as_json: bool, work: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    """What `work` gives; its error is told, with what to do, and ends the command with 1."""
    import anyio

    try:
        return anyio.run(work)
    except CallError as error:
        if as_json:
            _print({"error": error.to_json("auth")})
        else:
            click.echo(f"{error.message}\n{error.hint}", err=True)
    except KeyboardInterrupt:
        click.echo("Ended before anybody signed in.", err=True)
    sys.exit(1)


def _print(value: dict[str, Any]) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
