"""A service application: client credentials, and the address by which iTwins invite it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from itwin_mcp.upstream.auth.renewal import Renewal
from itwin_mcp.upstream.auth.sign_in_server import PLATFORM_SCOPE, SignInServer
from itwin_mcp.upstream.auth.source import Token


def member_address(client_id: str) -> str:
    """The e-mail address of a service application; an iTwin that shall be open to it must have it as a member."""
    return f"{client_id}@apps.imsoidc.bentley.com"


class ServiceApplication:
    """`ITWIN_CLIENT_ID` with `ITWIN_CLIENT_SECRET`. The token lives in memory only."""

    def __init__(
        self,
        server: SignInServer,
        client_id: str,
        client_secret: str,
        *,
        scope: str = PLATFORM_SCOPE,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._server = server
        self._client_id = client_id
        self._client_secret = client_secret
        self._scope = scope
        # What the server refuses today it refuses in half a minute too; a person has to correct it.
        self._renewal = Renewal(self._fetch, remember_refusal=30.0, now=now, monotonic=monotonic)

    def __repr__(self) -> str:
        return f"ServiceApplication({self._client_id!r})"

    async def token(self, stale: Token | None = None) -> Token:
        """See TokenSource; its `member` is set."""
        return await self._renewal.token(stale)

    async def _fetch(self) -> Token:
        grant = await self._server.client_credentials(self._client_id, self._client_secret, self._scope)
        return replace(grant.token, member=member_address(self._client_id))
