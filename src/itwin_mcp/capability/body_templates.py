"""Bodies that the file writes as JSON text with slots. They become values, so that no argument can break the JSON."""

from __future__ import annotations

import json
import re
from typing import Any

TYPED = "\0"
"""Precedes a slot that is not in quotes: its value keeps its type."""

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\{\{[^{}]*\}\}', re.DOTALL)


def parse_json_template(text: str) -> Any:
    """Return the values of a JSON text with slots. A slot outside of quotes is a text that begins with `TYPED`.

    Raises:
        ValueError: The text is not JSON with slots.
    """

    def quote(match: re.Match[str]) -> str:
        return match[0] if match[0].startswith('"') else json.dumps(TYPED + match[0])

    try:
        return json.loads(_TOKEN.sub(quote, text))
    except RecursionError:
        raise ValueError("the text is nested too deeply") from None
