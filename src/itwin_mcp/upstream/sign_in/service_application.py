"""Signs in a service application by client credentials."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from itwin_mcp.upstream.sign_in.renewal import Renewal
from itwin_mcp.upstream.sign_in.sign_in_server import PLATFORM_SCOPE, SignInServer
from itwin_mcp.upstream.sign_in.token import Token


def format_member_address(client_id: str) -> str:
    """Return the e-mail address by which an iTwin adds a service application as a member."""
    return f"{client_id}@apps.imsoidc.bentley.com"


class ServiceApplication:
    """A TokenSource for `ITWIN_CLIENT_ID` with `ITWIN_CLIENT_SECRET`. The token is in memory only."""

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
        # Only a person can correct a wrong secret, so a refusal is remembered for half a minute.
        self._renewal = Renewal(self._fetch, remember_refusal=30.0, now=now, monotonic=monotonic)

    def __repr__(self) -> str:
        return f"ServiceApplication({self._client_id!r})"

    async def get_token(self, stale: Token | None = None) -> Token:
        """Return a token to send now, as `TokenSource.get_token` describes. `member` is the application's address."""
        return await self._renewal.get_token(stale)

    async def _fetch(self) -> Token:
        grant = await self._server.sign_in_application(self._client_id, self._client_secret, self._scope)
        return replace(grant.token, member=format_member_address(self._client_id))
