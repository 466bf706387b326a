"""Checks of the platform and the sign-in: the servers answer, the clock is right, and the user can read."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from itwin_mcp.cli.doctor.check import FAILED, NOTED, OK, SKIPPED, Check
from itwin_mcp.errors import CallError, ConfigurationError, FileRefused
from itwin_mcp.settings import Settings

if TYPE_CHECKING:
    from itwin_mcp.runtime import Runtime
    from itwin_mcp.upstream.sign_in.token import Token

MAX_SKEW = 60.0
"""Seconds by which clocks may differ; beyond that, tokens look expired or not yet valid."""


async def check_network(settings: Settings) -> AsyncIterator[Check]:
    """Check that both servers answer over TLS, and that their clocks agree with ours."""
    from itwin_mcp.upstream.plain_requests import probe
    from itwin_mcp.upstream.sign_in.credential_choice import USER_AGENT, build_sign_in_server

    skews: list[float] = []
    for name, url, path, variable in (
        ("platform", settings.api_url, "/", "ITWIN_API_URL"),
        ("sign-in server", settings.issuer_url, "/.well-known/openid-configuration", "ITWIN_ISSUER_URL"),
    ):
        try:
            result = await probe(f"{url}{path}", user_agent=USER_AGENT)
            if result.clock is not None:
                skews.append(result.clock)
            if name == "sign-in server":
                await build_sign_in_server(settings, "").discover()
            yield Check(name, OK, f"{url} answers ({result.milliseconds:.0f} ms)")
        except CallError as error:
            yield Check(name, FAILED, error.message, f"{error.hint} Is {variable} right?")
    if not skews:
        yield Check("clock", SKIPPED, "no server reported the time")
    elif abs(skews[0]) > MAX_SKEW:
        direction = "behind" if skews[0] > 0 else "ahead"
        finding = f"this computer's clock is {abs(skews[0]):.0f} seconds {direction}"
        yield Check("clock", FAILED, finding, "Turn on automatic time: tokens are checked against the clock.")
    else:
        yield Check("clock", OK, f"within {max(1, abs(round(skews[0])))} s of the server's")


async def check_account(settings: Settings) -> AsyncIterator[Check]:
    """Check that the sign-in works, whose it is, and what it can read."""
    from itwin_mcp.runtime import open_runtime

    try:
        async with open_runtime(settings, os.environ) as runtime:
            async for check in _check_sign_in(settings, runtime):
                yield check
    except FileRefused as error:
        yield Check("sign-in", FAILED, str(error), "Correct the file.")
    except ConfigurationError as error:
        yield Check("sign-in", FAILED, str(error), "Correct the variable.")


async def _check_sign_in(settings: Settings, runtime: Runtime) -> AsyncIterator[Check]:
    from itwin_mcp.upstream.sign_in.credential_choice import AuthMethod
    from itwin_mcp.upstream.sign_in.identity import read_identity

    sign_in = runtime.sign_in
    if sign_in.tokens is None:
        yield Check("sign-in", FAILED, sign_in.description, sign_in.remedy)
        return
    try:
        token = await sign_in.tokens.get_token()
    except CallError as error:
        yield Check("sign-in", FAILED, f"{sign_in.description}: {error.message}", error.hint)
        return
    yield Check("sign-in", OK, sign_in.description)
    yield _check_token(settings, read_identity(token, sign_in.method), token, sign_in.remedy)
    try:
        response = await runtime.upstream.send(_build_read(runtime, "/itwins/recents", ("$top", "1")))
    except CallError as error:
        yield Check("read", FAILED, f"list-recent-itwins: {error.message}", error.hint)
        return
    yield Check("read", OK, f"list-recent-itwins answered {response.status}")
    if sign_in.method is AuthMethod.SERVICE_APPLICATION:
        yield await _check_membership(runtime, token.member)
    yield await _check_default_itwin(settings, runtime, token.member)


def _check_token(settings: Settings, identity: Mapping[str, Any], token: Token, remedy: str) -> Check:
    from itwin_mcp.upstream.hints import read_environment

    scopes, expires = identity["scopes"], identity["expiresAt"]
    name = identity["name"] or identity["email"] or "(unnamed)"
    finding = f"{identity['kind'] or 'user or application'} {name}, issued by {token.issuer or 'an unnamed server'}"
    finding += f", scopes {' '.join(scopes)}" if scopes else ""
    finding += f", until {expires}" if expires else ""
    if token.expires_at is not None and token.expires_at <= time.time():
        return Check("token", FAILED, f"{finding}: it has expired", remedy)
    issued_for, platform = read_environment(token.issuer or ""), read_environment(settings.api_url)
    if issued_for and platform and issued_for != platform:
        fix = f"Use a token of the environment of {settings.api_url}, or set ITWIN_API_URL to the token's own. {remedy}"
        return Check("token", FAILED, f"{finding}: that is another environment", fix)
    if scopes and "itwin-platform" not in scopes:
        fix = f"Give the application the scope `itwin-platform` in the developer portal. {remedy}"
        return Check("token", FAILED, finding, fix)
    return Check("token", OK, finding)


async def _check_membership(runtime: Runtime, member: str | None) -> Check:
    """Check that a service application is a member of an iTwin; otherwise it sees nothing."""
    from itwin_mcp.upstream.wire_format import read_json

    try:
        body = read_json(await runtime.upstream.send(_build_read(runtime, "/itwins", ("$top", "1"))))
    except CallError as error:
        return Check("membership", NOTED, f"list-itwins: {error.message}", error.hint)
    if isinstance(body, dict) and body.get("iTwins"):
        return Check("membership", OK, "the service application is a member of at least one iTwin")
    fix = f"Have an administrator add {member or 'it'} to the iTwins that it should work in, with a role."
    return Check("membership", NOTED, "the service application is a member of no iTwin", fix)


async def _check_default_itwin(settings: Settings, runtime: Runtime, member: str | None) -> Check:
    if settings.itwin_id is None:
        return Check("default iTwin", SKIPPED, "ITWIN_ID is not set")
    try:
        await runtime.upstream.send(_build_read(runtime, f"/itwins/{quote(settings.itwin_id, safe='')}"))
    except CallError as error:
        invite = f"Have {member or 'the account above'} added to the iTwin as a member, or correct ITWIN_ID."
        fix = invite if error.status in (403, 404) else error.hint
        return Check("default iTwin", FAILED, f"{settings.itwin_id}: {error.message}", fix)
    return Check("default iTwin", OK, f"{settings.itwin_id} can be read")


def _build_read(runtime: Runtime, path: str, *query: tuple[str, str]) -> Any:
    from itwin_mcp.upstream.messages import Request
    from itwin_mcp.upstream.sign_in.identity import PLATFORM_JSON

    return Request("GET", runtime.upstream.platform, path, query=query, headers=(("Accept", PLATFORM_JSON),))
