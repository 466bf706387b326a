"""The saved login of a user, renewed with its refresh token and shared between processes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from itwin_mcp.errors import NotSignedIn
from itwin_mcp.text import clean_text
from itwin_mcp.upstream.hints import DEFAULT_REMEDY
from itwin_mcp.upstream.sign_in.login_store import LoginKey, LoginStore, SavedLogin
from itwin_mcp.upstream.sign_in.renewal import Renewal
from itwin_mcp.upstream.sign_in.sign_in_server import OFFLINE_SCOPE, PLATFORM_SCOPE, Grant, SignInServer
from itwin_mcp.upstream.sign_in.token import Token, read_claims

DEFAULT_CLIENT_ID = ""
"""The project's own native application; empty until its owner registers one."""
LOGIN_SCOPE = f"{PLATFORM_SCOPE} {OFFLINE_SCOPE}"

_log = logging.getLogger("itwin_mcp.upstream")


class SavedLoginTokens:
    """A TokenSource over the login that `sign-in` or `auth login` saved.

    The sign-in server replaces the refresh token at each renewal and may end the login when an old one is used again.
    So a renewal holds the store's lock from reading the refresh token until its successor is saved, and a successor
    that cannot be saved is kept in memory.
    """

    def __init__(
        self,
        server: SignInServer,
        client_id: str,
        store: LoginStore,
        *,
        profile: str = "default",
        scope: str = LOGIN_SCOPE,
        remedy: str = DEFAULT_REMEDY,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`remedy` says how to sign in; `now` and `monotonic` are the clocks, see Renewal."""
        self.key = LoginKey(server.issuer, client_id, scope, profile)
        self._server = server
        self._client_id = client_id
        self._store = store
        self._scope = scope
        self._remedy = remedy
        self._now = now
        self._unsaved: SavedLogin | None = None
        # A refusal is not remembered: the store is empty then, and a new login must work at once.
        self._renewal = Renewal(self._fetch, now=now, monotonic=monotonic)

    def __repr__(self) -> str:
        return f"SavedLoginTokens({self._client_id!r})"

    async def get_token(self, stale: Token | None = None) -> Token:
        """See TokenSource. Raises NotSignedIn if nobody has signed in or the sign-in server ended the login."""
        return await self._renewal.get_token(stale)

    async def save_grant(self, grant: Grant) -> None:
        """Save a new login. Raises NotSignedIn if it has no refresh token."""
        if grant.refresh_token is None:
            raise NotSignedIn(
                "The sign-in server gave no refresh token.",
                hint=f"Register the application as a native one with the scopes `{self._scope}`, then sign in again.",
            )
        async with self._store.lock(self.key):
            await self._save(SavedLogin(grant.refresh_token, self._now(), _read_user(grant)))

    async def has_login(self) -> bool:
        """Return whether a login is saved."""
        return await self._store.load(self.key) is not None

    async def read_user(self) -> str | None:
        """Return the name or address of the user, if the sign-in server reported one."""
        login = await self._store.load(self.key)
        return login.user if login is not None else None

    async def sign_out(self) -> bool:
        """Sign out: delete the login here, then revoke it at the server. Return whether the server confirmed.

        Raises: Unreachable, after the deletion, if the server does not answer.
        """
        async with self._store.lock(self.key):
            try:
                login = self._unsaved or await self._store.load(self.key)
            except NotSignedIn:
                login = None  # damaged or readable by others: not to be used, only to be deleted
            await self._store.delete(self.key)
            self._unsaved = None
        if login is None:
            return False
        return await self._server.revoke(self._client_id, login.refresh_token)

    async def _fetch(self) -> Token:
        """Renew under the lock. The refresh token is read inside, because another process may have replaced it."""
        async with self._store.lock(self.key):
            login = self._unsaved or await self._store.load(self.key)
            if login is None:
                raise NotSignedIn("Nobody has signed in to the iTwin Platform here.", hint=self._remedy)
            try:
                grant = await self._server.refresh(self._client_id, login.refresh_token, self._scope)
            except NotSignedIn as error:
                if any(detail.get("code") == "invalid_grant" for detail in error.details):
                    await self._store.delete(self.key)
                    self._unsaved = None
                raise
            if grant.refresh_token is not None and grant.refresh_token != login.refresh_token:
                await self._save(SavedLogin(grant.refresh_token, self._now(), _read_user(grant) or login.user))
        return grant.token

    async def _save(self, login: SavedLogin) -> None:
        """Save before use. If the disk refuses, this process keeps the only copy and tries again next time."""
        self._unsaved = login
        try:
            await self._store.save(self.key, login)
        except OSError as error:
            _log.warning("the sign-in could not be saved (%s); it lasts until this process ends", error.strerror)
        else:
            self._unsaved = None


def _read_user(grant: Grant) -> str | None:
    claims = read_claims(grant.token.value)
    named = [claims[name] for name in ("name", "email") if isinstance(claims.get(name), str) and claims[name]]
    return clean_text(named[0], 200) if named else None
