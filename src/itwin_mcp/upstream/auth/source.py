"""What every way to sign in gives: a token, and a new one when the platform refused it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token and what is known about it; neither `repr` nor `str` shows its value."""

    value: str = field(repr=False)
    expires_at: float | None = None
    """Seconds since 1970 by the wall clock; None when unknown."""
    issuer: str | None = None
    """Who issued it, as far as it says so itself; for messages, never for trust."""
    member: str | None = None
    """For a service application: the address by which an iTwin invites it."""


class TokenSource(Protocol):
    """One way to get a token. Safe to share between any number of concurrent callers."""

    async def token(self, stale: Token | None = None) -> Token:
        """The token to send now; `stale` is the one that the platform just refused.

        A source that cannot renew gives the same token again. Raises NotSignedIn when there is none to give
        and Unreachable when the sign-in server did not answer.
        """
        ...
