"""The caller of a request: a user, a service application or the anonymous holder of a share key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class ShareGrant:
    """The permission on one iModel that a share key gives to its holder."""

    imodel_id: str
    permission: str


@dataclass(frozen=True, slots=True)
class Caller:
    """The authenticated caller of one request."""

    id: str
    email: str
    given_name: str
    surname: str
    account_id: str
    is_admin: bool  # Organization Administrator: has all permissions on the iTwins of their account
    client_id: str
    share: ShareGrant | None = None


ANONYMOUS: Final = Caller("", "", "", "", "", False, "")
