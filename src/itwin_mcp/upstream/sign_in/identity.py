"""Who acts: what the token says, and what the platform says about the account."""

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
    """Return who acts on which platform, and until when. Raises CallError."""
    account = await _read_account(upstream)  # first: what a token says counts only if the platform accepts it
    assert sign_in.tokens is not None
    identity = read_identity(await sign_in.tokens.get_token(), sign_in.method)
    profile = await _read_profile(upstream)
    known = {name: identity[name] or profile[name] for name in ("name", "email")}
    others = {name: profile[name] for name in ("userId", "organization")}
    return {**describe_sign_in(settings, sign_in), **identity, **known, **others, "account": account}


async def describe_actor(settings: Settings, sign_in: SignIn, origins: Iterable[str]) -> str:
    """Return where a call acts and as whom, to begin a question: `On api.bentley.com, as Anna de Vries:`.

    `origins` are those that the call changes something on.
    """
    platform = (parse_origin(PLATFORM_ORIGIN), parse_origin(settings.api_url))
    hosts = {urlsplit(origin).netloc for origin in origins if parse_origin(origin) not in platform}
    if hosts:
        return f"On {', '.join(sorted(hosts))}:"
    if settings.sandbox:
        return "In the sandbox:"
    who = None
    with suppress(CallError):  # without a sign-in the call itself says so
        if sign_in.tokens is not None:
            who = _named(settings, read_identity(await sign_in.tokens.get_token(), sign_in.method))
    return f"On {urlsplit(settings.api_url).netloc}" + (f", as {who}:" if who else ":")


def _named(settings: Settings, identity: Mapping[str, Any]) -> str | None:
    """Return what people call the user or application; None if the token does not say."""
    if identity["kind"] == "application":
        return f"the application {identity['application'] or settings.client_id or identity['email'] or '(unnamed)'}"
    name: str | None = identity["name"] or identity["email"]
    return name


def describe_sign_in(settings: Settings, sign_in: SignIn) -> dict[str, Any]:
    """Return what is known about the sign-in without a request."""
    return {
        "environment": settings.environment,
        "platform": None if settings.sandbox else settings.api_url,
        "signInServer": None if settings.sandbox else settings.issuer_url,
        "signedInWith": sign_in.method.value,
        "profile": settings.profile,
    }


def read_identity(token: Token, method: AuthMethod) -> dict[str, Any]:
    """Return what a token says about itself; an opaque one says little."""
    claims = read_claims(token.value)
    scope = claims.get("scope")
    scopes = scope.split() if isinstance(scope, str) else scope if isinstance(scope, list) else None
    return {
        "kind": _kind(claims, method),
        "name": _text(claims, "name"),
        "email": _text(claims, "email") or token.member,
        "application": _text(claims, "client_id"),
        "scopes": None if scopes is None else [clean_text(each, 100) for each in scopes if isinstance(each, str)][:50],
        "expiresAt": None if token.expires_at is None else format_time(token.expires_at),
        "renewed": method in (AuthMethod.LOGIN, AuthMethod.SERVICE_APPLICATION, AuthMethod.ACCESS_TOKEN_FILE),
    }


def format_time(seconds: float) -> str:
    """Return seconds since 1970 as an ISO 8601 text in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _kind(claims: Mapping[str, Any], method: AuthMethod) -> str | None:
    if method is AuthMethod.SERVICE_APPLICATION:
        return "application"
    if method is AuthMethod.LOGIN:
        return "user"
    if not claims:
        return None
    # A service application is a member by an address of its own; a token that names no user is one's, too.
    application = (
        str(claims.get("email", "")).endswith(format_member_address("")) or not {"sub", "email"} & claims.keys()
    )
    return "application" if application else "user"


def _text(claims: Mapping[str, Any], name: str) -> str | None:
    value = claims.get(name)
    return clean_text(value, 200) if isinstance(value, str) and value else None


async def _read_profile(upstream: UpstreamClient) -> dict[str, str | None]:
    """Return what the platform says about the caller (`GET /users/me`); all of it is None if it says nothing.

    A token need not say who the caller is, and it never says under which id answers name them.
    """
    user: dict[str, Any] = {}
    with suppress(CallError):
        request = Request("GET", upstream.platform, "/users/me", headers=(("Accept", PLATFORM_JSON),))
        body = read_json(await upstream.send(request))
        member = body.get("user") if isinstance(body, dict) else None
        user = member if isinstance(member, dict) else {}
    names = [text for text in (_text(user, "givenName"), _text(user, "surname")) if text]
    return {
        "userId": _text(user, "id"),
        "name": " ".join(names) or None,
        "email": _text(user, "email"),
        "organization": _text(user, "organizationName"),
    }


async def _read_account(upstream: UpstreamClient) -> dict[str, Any] | None:
    """Return the caller's own account (get-my-primary-account); some have none, and some may not see it."""
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
