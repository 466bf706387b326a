"""What a token says about itself, read without proof: for messages, never for decisions."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

MAX_TOKEN = 128 * 1024
"""Characters; a header longer than this is refused by every server anyway."""


def read_claims(value: str) -> Mapping[str, Any]:
    """The claims of a JWT (`exp`, `iss`, `scope`, `client_id`, `email` …), or nothing when it is opaque."""
    parts = value.split(".")
    if len(parts) != 3 or len(value) > MAX_TOKEN:
        return {}
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def expiry_of(claims: Mapping[str, Any]) -> float | None:
    """`exp` as seconds since 1970, if it is a sane number."""
    expiry = claims.get("exp")
    if isinstance(expiry, bool) or not isinstance(expiry, int | float) or not 0 < expiry < 1e11:
        return None
    return float(expiry)


def issuer_of(claims: Mapping[str, Any]) -> str | None:
    """`iss`, if it is a text of a sane length."""
    issuer = claims.get("iss")
    return issuer if isinstance(issuer, str) and 0 < len(issuer) < 500 else None
