"""Access tokens from the saved login of a user, which several processes may share."""

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
    """A TokenSource for the login that `sign-in` or `auth login` saved.

    The sign-in server replaces the refresh token at each renewal, and may end the login if an old one is used again.
    A renewal therefore holds the store's lock from reading the refresh token until the new one is saved. If the new one
    cannot be saved, it is kept in memory.
    """

    def __init__(
        self,
        server: SignInServer,
        client_id: str,
        store: LoginStore,
        *,
        profile: str = "default",
        remedy: str = DEFAULT_REMEDY,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`remedy` says how to sign in. `now` and `monotonic` are clocks for tests; see Renewal."""
        self.key = LoginKey(server.issuer, client_id, LOGIN_SCOPE, profile)
        self._server = server
        self._store = store
        self._remedy = remedy
        self._now = now
        self._unsaved: SavedLogin | None = None
        """The login that is newer than the saved one, because saving it failed."""
        # A refusal is not remembered: it deletes the login, and a new login must work at once.
        self._renewal = Renewal(self._fetch, now=now, monotonic=monotonic)

    async def get_token(self, stale: Token | None = None) -> Token:
        """Return the token to send; see TokenSource. Raises NotSignedIn if there is no login or it was ended."""
        return await self._renewal.get_token(stale)

    async def save_grant(self, grant: Grant) -> None:
        """Save a new login. Raises NotSignedIn if the grant has no refresh token."""
        if grant.refresh_token is None:
            raise NotSignedIn(
                "The sign-in server gave no refresh token.",
                hint=f"Register the application as a native one with the scopes `{LOGIN_SCOPE}`, then sign in again.",
            )
        async with self._store.lock(self.key):
            await self._save(SavedLogin(grant.refresh_token, self._now(), _read_user(grant)))

    async def has_login(self) -> bool:
        """Return whether a login is saved. Raises NotSignedIn if its file cannot be used."""
        return await self._store.load(self.key) is not None

    async def read_user(self) -> str | None:
        """Return the name or address of the user, if the sign-in server reported one."""
        login = await self._store.load(self.key)
        return login.user if login is not None else None

    async def sign_out(self) -> bool:
        """Delete the saved login, then revoke it at the sign-in server. Return whether the server confirmed.

        Raises: Unreachable if the server does not answer. The login is deleted nevertheless.
        """
        async with self._store.lock(self.key):
            try:
                login = self._unsaved or await self._store.load(self.key)
            except NotSignedIn:
                login = None  # damaged or readable by others, so it is only deleted
            await self._store.delete(self.key)
            self._unsaved = None
        if login is None:
            return False
        return await self._server.revoke(self.key.client_id, login.refresh_token)

    async def _fetch(self) -> Token:
        # The login is read while the lock is held, because another process may have replaced its refresh token.
        async with self._store.lock(self.key):
            login = self._unsaved or await self._store.load(self.key)
            if login is None:
                raise NotSignedIn("Nobody has signed in to the iTwin Platform here.", hint=self._remedy)
            try:
                grant = await self._server.refresh(self.key.client_id, login.refresh_token, LOGIN_SCOPE)
            except NotSignedIn as error:
                if any(detail.get("code") == "invalid_grant" for detail in error.details):
                    await self._store.delete(self.key)
                    self._unsaved = None
                raise
            if grant.refresh_token is not None and grant.refresh_token != login.refresh_token:
                await self._save(SavedLogin(grant.refresh_token, self._now(), _read_user(grant) or login.user))
        return grant.token

    async def _save(self, login: SavedLogin) -> None:
        """Save the login. If that fails, keep it in memory; the next renewal uses it and saves its successor."""
        self._unsaved = login
        try:
            await self._store.save(self.key, login)
        except OSError as error:
            _log.warning("the sign-in could not be saved (%s); it lasts until this process ends", error.strerror)
        else:
            self._unsaved = None


def _read_user(grant: Grant) -> str | None:
    """Return the name or else the address in the access token's claims, or None."""
    claims = read_claims(grant.token.value)
    names = [claims[name] for name in ("name", "email") if isinstance(claims.get(name), str) and claims[name]]
    return clean_text(names[0], 200) if names else None
