"""The scopes of callers' tokens: `itwin:read`, `itwin:write`, `itwin:delete`, each including the ones before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from itwin_mcp.capability.access import Access

PREFIX = "itwin:"
SCOPES: Mapping[str, Access] = {f"{PREFIX}{one.name.lower()}": one for one in Access if one is not Access.NONE}


def access_of(granted: Iterable[str]) -> Access:
    """What scopes allow together; those of others mean nothing here."""
    return max((SCOPES.get(one, Access.NONE) for one in granted), default=Access.NONE)


def words(access: Access) -> str:
    """The scopes of a challenge: all that are included, so that a sign-in server need not know our order."""
    return " ".join(name for name, one in SCOPES.items() if one <= access)


def granted(claims: Mapping[str, Any]) -> frozenset[str]:
    """The scopes in a token's claims: `scope` or `scp`, as text with spaces or as an array."""
    found: set[str] = set()
    for name in ("scope", "scp"):
        value = claims.get(name)
        if isinstance(value, str):
            found.update(value.split())
        elif isinstance(value, list):
            found.update(one for one in value if isinstance(one, str))
    return frozenset(found)
