"""The name that a person types to confirm, compared with the name of the thing."""

from __future__ import annotations

import re
import unicodedata

from itwin_mcp.text import clean

_QUOTES = re.compile("[\"'`\u00b4\u2018-\u201f\u2039\u203a\u00ab\u00bb\u2032\u2033\u300c-\u300f\uff02\uff07]")


def normalize_name(text: str) -> str:
    """Return a name in the form in which the shown and the typed one are compared: one line, one kind of quote."""
    return _QUOTES.sub("'", " ".join(unicodedata.normalize("NFC", clean(text)).split()))
