"""What must never be read in a message: secrets and invisible characters, taken out of foreign text."""

from __future__ import annotations

import re
import unicodedata

MAX_MESSAGE = 2000
"""Characters of foreign text that an error carries."""

SHORTEST_SECRET = 8
"""Characters; a shorter value would be found in ordinary words."""

_SECRETS = (
    (re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9+/=._~-]{8,}", re.IGNORECASE), r"\1 [hidden]"),
    (re.compile(r"://[^/@\s]+@"), "://[hidden]@"),
    (re.compile(r"\beyJ[\w-]{5,}\.[\w-]+\.[\w-]*"), "[hidden]"),
    (
        re.compile(
            r"\b(sig|x-goog-signature|x-amz-signature|client_secret|refresh_token|access_token|id_token|code|"
            r"code_verifier|password)(=|%3d|\"\s*:\s*\")[^&\s\"'<>]+",
            re.IGNORECASE,
        ),
        r"\1\2[hidden]",
    ),
)


def hide_secrets(text: str, *known: str) -> str:
    """Replace `known` values and everything shaped like a credential."""
    for value in known:
        if len(value) >= SHORTEST_SECRET:
            text = text.replace(value, "[hidden]")
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def clean_text(text: str, limit: int = MAX_MESSAGE) -> str:
    """Foreign text as a person would see it: no control or invisible characters, at most `limit` characters."""
    if not (text.isascii() and text.isprintable()):
        text = "".join(character for character in text if _visible(character))
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _visible(character: str) -> bool:
    if character in "\n\t":
        return True
    if "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef":
        return False  # variation selectors can carry hidden bytes
    return unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Co", "Cn"}
