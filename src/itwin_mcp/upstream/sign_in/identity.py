"""Reports the user or application that is signed in, from the token's claims and from the platform."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from itwin_mcp.errors import CallError, PlatformError
from itwin_mcp.settings import PLATFORM_ORIGIN, Settings
from itwin_mcp.text import clean_text
from itwin_mcp.upstream.client import UpstreamClient
from itwin_mcp.upstream.messages import Request
from itwin_mcp.upstream.origin import parse_origin
from itwin_mcp.upstream.sign_in.credential_choice import AuthMethod, SignIn
from itwin_mcp.upstream.sign_in.service_application import format_member_address
from itwin_mcp.upstream.sign_in.token import Token, read_claims
from itwin_mcp.upstream.wire_format import read_json

PLATFORM_JSON = "application/vnd.bentley.itwin-platform.v1+json"


async def who_am_i(settings: Settings, sign_in: SignIn, upstream: UpstreamClient) -> dict[str, Any]:
    """Return the user or application, the platform, the account, and when the token expires. Raises CallError."""
    account = await _read_account(upstream)  # first, because an invalid token's claims must not be reported
    assert sign_in.tokens is not None
    identity = read_identity(await sign_in.tokens.get_token(), sign_in.method)
    profile = await _read_profile(upstream)
    from_either = {name: identity[name] or profile[name] for name in ("name", "email")}
    return {**describe_sign_in(settings, sign_in), **identity, **profile, **from_either, "account": account}


async def describe_actor(settings: Settings, sign_in: SignIn, origins: Iterable[str]) -> str:
    """Return the beginning of a question about a call, such as `On api.bentley.com, as Anna de Vries:`.

    `origins` are those of the servers on which the call changes something.
    """
    platform = (parse_origin(PLATFORM_ORIGIN), parse_origin(settings.api_url))
    hosts = {urlsplit(origin).netloc for origin in origins if parse_origin(origin) not in platform}
    if hosts:
        return f"On {', '.join(sorted(hosts))}:"
    if settings.sandbox:
        return "In the sandbox:"
    actor = None
    with suppress(CallError):  # the call itself will fail and report that there is no sign-in
        if sign_in.tokens is not None:
            actor = _name_actor(settings, read_identity(await sign_in.tokens.get_token(), sign_in.method))
    return f"On {urlsplit(settings.api_url).netloc}" + (f", as {actor}:" if actor else ":")


def _name_actor(settings: Settings, identity: Mapping[str, Any]) -> str | None:
    """Return the name of the user or application for people; None if the token does not say."""
    if identity["kind"] == "application":
        return f"the application {identity['application'] or settings.client_id or identity['email'] or '(unnamed)'}"
    name: str | None = identity["name"] or identity["email"]
    return name


def describe_sign_in(settings: Settings, sign_in: SignIn) -> dict[str, Any]:
    """Return the environment, platform and method of the sign-in, without a request."""
    return {
        "environment": settings.environment,
        "platform": None if settings.sandbox else settings.api_url,
        "signInServer": None if settings.sandbox else settings.issuer_url,
        "signedInWith": sign_in.method.value,
        "profile": settings.profile,
    }


def read_identity(token: Token, method: AuthMethod) -> dict[str, Any]:
    """Return the user or application in a token's claims. Values that an opaque token does not say are None."""
    claims = read_claims(token.value)
    scope = claims.get("scope")
    scopes = scope.split() if isinstance(scope, str) else scope if isinstance(scope, list) else None
    return {
        "kind": _classify_actor(claims, method),
        "name": _read_text(claims, "name"),
        "email": _read_text(claims, "email") or token.member,
        "application": _read_text(claims, "client_id"),
        "scopes": None if scopes is None else [clean_text(name, 100) for name in scopes if isinstance(name, str)][:50],
        "expiresAt": None if token.expires_at is None else format_time(token.expires_at),
        "renewed": method in (AuthMethod.LOGIN, AuthMethod.SERVICE_APPLICATION, AuthMethod.ACCESS_TOKEN_FILE),
    }


def format_time(seconds: float) -> str:
    """Return seconds since 1970 as an ISO 8601 text in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _classify_actor(claims: Mapping[str, Any], method: AuthMethod) -> str | None:
    """Return `user` or `application`; None for an opaque token."""
    if method is AuthMethod.SERVICE_APPLICATION:
        return "application"
    if method is AuthMethod.LOGIN:
        return "user"
    if not claims:
        return None
    # A token is an application's if its address is that of one, or if it names no user.
    has_member_address = str(claims.get("email", "")).endswith(format_member_address(""))
    return "application" if has_member_address or not {"sub", "email"} & claims.keys() else "user"


def _read_text(members: Mapping[str, Any], name: str) -> str | None:
    value = members.get(name)
    return clean_text(value, 200) if isinstance(value, str) and value else None


async def _read_profile(upstream: UpstreamClient) -> dict[str, str | None]:
    """Return the profile of the caller (`GET /users/me`). All values are None if the platform does not return it.

    A token need not contain the caller's name, and never contains the id by which answers refer to the caller.
    """
    user: Mapping[str, Any] = {}
    with suppress(CallError):
        user = await _fetch_member(upstream, "/users/me", "user")
    names = [name for name in (_read_text(user, "givenName"), _read_text(user, "surname")) if name]
    return {
        "userId": _read_text(user, "id"),
        "name": " ".join(names) or None,
        "email": _read_text(user, "email"),
        "organization": _read_text(user, "organizationName"),
    }


async def _read_account(upstream: UpstreamClient) -> dict[str, Any] | None:
    """Return the caller's primary account; None if there is none or the caller may not read it."""
    try:
        account = await _fetch_member(upstream, "/itwins/myprimaryaccount", "iTwin")
    except PlatformError as error:
        if error.status in (403, 404):
            return None
        raise
    if not isinstance(account.get("id"), str):
        return None
    return {"id": account["id"]} | {name: _read_text(account, name) for name in ("displayName", "number")}


async def _fetch_member(upstream: UpstreamClient, path: str, name: str) -> Mapping[str, Any]:
    """Return the object that the platform answers with under `name`; an empty one if it is missing."""
    request = Request("GET", upstream.platform, path, headers=(("Accept", PLATFORM_JSON),))
    body = read_json(await upstream.send(request))
    member = body.get(name) if isinstance(body, dict) else None
    return member if isinstance(member, dict) else {}
