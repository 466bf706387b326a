"""`itwin-mcp doctor`: everything between here and the platform, each with a line and a fix."""

from __future__ import annotations

import json
import os
import platform as machine
import re
import ssl
import sys
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from itwin_mcp import __version__
from itwin_mcp.cli.options import account_options, make_settings
from itwin_mcp.errors import CallError, ConfigurationError, FileRefused, SettingsError
from itwin_mcp.settings import Settings

if TYPE_CHECKING:
    from itwin_mcp.runtime import Runtime
    from itwin_mcp.upstream.auth.source import Token
    from itwin_mcp.upstream.probe import Seen

OK, FAILED, NOTED, SKIPPED = "ok", "failed", "noted", "skipped"
_COLOURS = {OK: "green", FAILED: "red", NOTED: "yellow", SKIPPED: "bright_black"}
MOST_SKEW = 60.0
"""Seconds; beyond that tokens look expired, or not yet valid."""
SECRETS = ("access_token", "client_secret", "http_token")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: what was found and, unless all is well, what to do."""

    name: str
    status: str
    said: str
    fix: str = ""


@click.command("doctor")
@account_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON, without anything secret, to send to support.")
def command(as_json: bool, **flags: Any) -> None:
    """Check everything between here and the platform, and say what to do about what is wrong.

    Exits with 1 if a check failed. Nothing is changed; no secret is printed.

    \b
    Examples:
      itwin-mcp doctor
      itwin-mcp doctor --profile qa
      itwin-mcp doctor --json
    """
    import anyio

    failed = anyio.run(_show, flags, as_json)
    sys.exit(1 if failed else 0)


async def _show(flags: Mapping[str, Any], as_json: bool) -> bool:
    checks = []
    async for check in _examine(flags):
        checks.append(check)
        if not as_json:
            click.echo(f"{click.style(check.status.ljust(8), fg=_COLOURS[check.status])}{check.name}: {check.said}")
            if check.fix:
                click.echo(f"        → {check.fix}")
    failed = [check.name for check in checks if check.status == FAILED]
    if as_json:
        shown = {"ok": not failed, "version": __version__, "checks": [asdict(check) for check in checks]}
        click.echo(json.dumps(shown, indent=2, ensure_ascii=False))
    else:
        click.echo(f"\nFailed: {', '.join(failed)}." if failed else "\nNothing failed.")
    return bool(failed)


async def _examine(flags: Mapping[str, Any]) -> AsyncIterator[Check]:
    yield _python()
    settings: Settings | None = None
    try:
        settings = make_settings(**flags)
    except SettingsError as error:
        yield Check("configuration", FAILED, str(error), "Correct the variable or the flag.")
    else:
        yield _configuration(settings)
    proxy, certificates = _proxy(os.environ), _certificates(os.environ)
    yield proxy
    yield certificates
    if settings is None:
        yield Check("network", SKIPPED, "nothing can be asked before the configuration is right")
    elif settings.sandbox:
        yield Check("network", SKIPPED, "the embedded sandbox needs none")
    elif FAILED in (proxy.status, certificates.status):
        yield Check("network", SKIPPED, "nothing can be asked before the proxies and certificates are right")
    else:
        async for check in _network(settings):
            yield check
    if settings is not None:
        async for check in _account(settings):
            yield check
    for check in _clients(os.environ):
        yield check


def _python() -> Check:
    declared = [one for one in metadata.requires("itwin-mcp") or () if "extra ==" not in one]
    required = [re.split(r"[ <>=!~;\[]", one)[0] for one in declared]
    versions, missing = [], []
    for name in required:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    said = f"{machine.python_version()} on {machine.system()}, itwin-mcp {__version__}, {', '.join(versions)}"
    if missing:
        fix = "Install itwin-mcp again, into an environment of its own."
        return Check("Python", FAILED, f"{said}; missing: {', '.join(missing)}", fix)
    return Check("Python", OK, said)


def _configuration(settings: Settings) -> Check:
    """What is set, and by what; the rest has its default."""
    told = []
    for name, origin in sorted(settings.origins.items()):
        value = getattr(settings, name, None)
        shown = "set" if name in SECRETS else ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        told.append(f"{name.replace('_', ' ')} = {shown} ({origin})")
    told.append(f"platform {settings.api_url}, sign-in server {settings.issuer_url}, state in {settings.state_dir}")
    return Check("configuration", OK, "; ".join(told))


def _proxy(environment: Mapping[str, str]) -> Check:
    from itwin_mcp.upstream.network_settings import find_proxy_problem
    from itwin_mcp.upstream.redaction import hide_secrets

    problem = find_proxy_problem(environment)
    if problem is not None:
        return Check("proxy", FAILED, str(problem), problem.fix)
    names = [name for name in environment if name.lower() in ("http_proxy", "https_proxy", "all_proxy", "no_proxy")]
    if not names:
        return Check("proxy", OK, "none is set")
    return Check("proxy", OK, ", ".join(f"{name}={hide_secrets(environment[name])}" for name in sorted(names)))


def _certificates(environment: Mapping[str, str]) -> Check:
    """The certificate store that TLS stands on."""
    from itwin_mcp.upstream.network_settings import find_certificate_problem

    problem = find_certificate_problem(environment)
    if problem is not None:
        return Check("certificates", FAILED, str(problem), problem.fix)
    names = [name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if environment.get(name)]
    used = f"{names[0]}={environment[names[0]]}" if names else "the system's"
    return Check("certificates", OK, f"{used}, {ssl.OPENSSL_VERSION}")


async def _network(settings: Settings) -> AsyncIterator[Check]:
    """Whether both servers answer at all, over TLS, and whether we agree on the time."""
    from itwin_mcp.sign_in import USER_AGENT, sign_in_server
    from itwin_mcp.upstream.probe import probe

    seen: list[Seen] = []
    try:
        seen.append(await probe(f"{settings.api_url}/", user_agent=USER_AGENT))
        yield Check("platform", OK, f"{settings.api_url} answers ({seen[-1].milliseconds:.0f} ms)")
    except CallError as error:
        yield Check("platform", FAILED, error.message, _address(error, "ITWIN_API_URL"))
    discovery = f"{settings.issuer_url}/.well-known/openid-configuration"
    try:
        seen.append(await probe(discovery, user_agent=USER_AGENT))
        await sign_in_server(settings, "").endpoints()
        yield Check("sign-in server", OK, f"{settings.issuer_url} answers ({seen[-1].milliseconds:.0f} ms)")
    except CallError as error:
        yield Check("sign-in server", FAILED, error.message, _address(error, "ITWIN_ISSUER_URL"))
    skews = [one.clock for one in seen if one.clock is not None]
    if not skews:
        yield Check("clock", SKIPPED, "nobody told the time")
    elif abs(skews[0]) > MOST_SKEW:
        direction = "behind" if skews[0] > 0 else "ahead"
        yield Check(
            "clock",
            FAILED,
            f"this computer's is {abs(skews[0]):.0f} seconds {direction}",
            "Set it by network time: tokens are judged by the clock.",
        )
    else:
        yield Check("clock", OK, f"within {max(1, abs(round(skews[0])))} s of the server's")


def _address(error: CallError, variable: str) -> str:
    return f"{error.hint} Is {variable} right?"


async def _account(settings: Settings) -> AsyncIterator[Check]:
    """The sign-in, who it is, and a real read with it."""
    from itwin_mcp.runtime import open_runtime

    try:
        async with open_runtime(settings, os.environ) as runtime:
            async for check in _signed_in(settings, runtime):
                yield check
    except FileRefused as error:
        yield Check("sign-in", FAILED, str(error), "Correct the file.")
    except ConfigurationError as error:
        yield Check("sign-in", FAILED, str(error), "Correct the variable.")


async def _signed_in(settings: Settings, runtime: Runtime) -> AsyncIterator[Check]:
    from itwin_mcp.sign_in import read_identity

    sign_in = runtime.sign_in
    if sign_in.tokens is None:
        yield Check("sign-in", FAILED, sign_in.told, sign_in.remedy)
        return
    try:
        token = await sign_in.tokens.token()
    except CallError as error:
        yield Check("sign-in", FAILED, f"{sign_in.told}: {error.message}", error.hint)
        return
    yield Check("sign-in", OK, sign_in.told)
    yield _token(settings, read_identity(token, sign_in.way), token, sign_in.remedy)
    try:
        answer = await runtime.upstream.send(_read(runtime, "/itwins/recents", ("$top", "1")))
    except CallError as error:
        yield Check("read", FAILED, f"list-recent-itwins: {error.message}", error.hint)
        return
    yield Check("read", OK, f"list-recent-itwins answered {answer.status}")
    yield await _default_itwin(settings, runtime, token.member)


def _token(settings: Settings, identity: Mapping[str, Any], token: Token, remedy: str) -> Check:
    from itwin_mcp.upstream.hints import environment_of

    scopes, expires = identity["scopes"], identity["expiresAt"]
    whose = identity["name"] or identity["email"] or "somebody whom it does not name"
    said = f"{identity['kind'] or 'user or application'} {whose}, issued by {token.issuer or 'whom it does not say'}"
    said += f", scopes {' '.join(scopes)}" if scopes else ""
    said += f", until {expires}" if expires else ""
    if token.expires_at is not None and token.expires_at <= time.time():
        return Check("token", FAILED, f"{said}: it is over", remedy)
    issued, used = environment_of(token.issuer or ""), environment_of(settings.api_url)
    if issued and used and issued != used:
        fix = f"Use a token of the environment of {settings.api_url}, or set ITWIN_API_URL to the token's own. {remedy}"
        return Check("token", FAILED, f"{said}: that is another environment", fix)
    if scopes and "itwin-platform" not in scopes:
        fix = f"Give the application the scope `itwin-platform` in the developer portal. {remedy}"
        return Check("token", FAILED, said, fix)
    return Check("token", OK, said)


async def _default_itwin(settings: Settings, runtime: Runtime, member: str | None) -> Check:
    if settings.itwin_id is None:
        return Check("default iTwin", SKIPPED, "ITWIN_ID is not set")
    try:
        await runtime.upstream.send(_read(runtime, f"/itwins/{quote(settings.itwin_id, safe='')}"))
    except CallError as error:
        invite = f"Have {member or 'the account above'} added to the iTwin as a member, or correct ITWIN_ID."
        fix = invite if error.status in (403, 404) else error.hint
        return Check("default iTwin", FAILED, f"{settings.itwin_id}: {error.message}", fix)
    return Check("default iTwin", OK, f"{settings.itwin_id} can be read")


def _read(runtime: Runtime, path: str, *query: tuple[str, str]) -> Any:
    from itwin_mcp.sign_in import PLATFORM_JSON
    from itwin_mcp.upstream.wire import Request

    return Request("GET", runtime.upstream.platform, path, query=query, headers=(("Accept", PLATFORM_JSON),))


def _clients(environment: Mapping[str, str]) -> list[Check]:
    from itwin_mcp.cli.desktop_clients import look

    checks = []
    for found in look(environment):
        if found.problem:
            fix = f"Correct {found.file}; the client starts no server while it is so."
            checks.append(Check(found.client.title, FAILED, found.problem, fix))
        elif found.entries:
            checks.append(Check(found.client.title, OK, f"{', '.join(found.entries)} in {found.file}"))
        else:
            said = f"{found.file} does not name itwin-mcp"
            checks.append(Check(found.client.title, NOTED, said, _joining(found.client.key)))
    return checks or [Check("desktop clients", SKIPPED, "no configuration file of one is found")]


def _joining(client: str) -> str:
    from itwin_mcp.cli.install import INSTALLABLE

    if client in INSTALLABLE:
        return f"To use it there, run `itwin-mcp install {client}`."
    return "To use it there, add it as the README says."
