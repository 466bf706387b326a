"""Access tokens for a service application, by client credentials."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from itwin_mcp.upstream.sign_in.renewal import Renewal
from itwin_mcp.upstream.sign_in.sign_in_server import PLATFORM_SCOPE, SignInServer
from itwin_mcp.upstream.sign_in.token import Token


def format_member_address(client_id: str) -> str:
    """Return the e-mail address for adding a service application to an iTwin as a member."""
    return f"{client_id}@apps.imsoidc.bentley.com"


def build_application_tokens(
    server: SignInServer,
    client_id: str,
    client_secret: str,
    *,
    now: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> Renewal:
    """Return the TokenSource for `ITWIN_CLIENT_ID` with `ITWIN_CLIENT_SECRET`. It keeps the token in memory only.

    Its tokens have the application's address as their `member`. `now` and `monotonic` are clocks for tests.
    """

    async def fetch() -> Token:
        grant = await server.sign_in_application(client_id, client_secret, PLATFORM_SCOPE)
        return replace(grant.token, member=format_member_address(client_id))

    # Only a person can correct a wrong secret, so a refusal is remembered for half a minute.
    return Renewal(fetch, remember_refusal=30.0, now=now, monotonic=monotonic)
