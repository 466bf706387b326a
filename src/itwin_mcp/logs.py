"""Logs on standard error: one JSON object per line, without secrets."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from itwin_mcp.upstream.redaction import hide_secrets


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON. Known secrets, and texts that look like secrets, are removed."""

    def __init__(self, secrets: Sequence[str]) -> None:
        super().__init__()
        self._secrets = tuple(secret for secret in secrets if secret)

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = record.stack_info
        return json.dumps({key: hide_secrets(value, *self._secrets) for key, value in line.items()}, ensure_ascii=False)


def set_up_logs(level: str, secrets: Sequence[str] = ()) -> None:
    """Write all logs and Python's warnings to standard error, without the values in `secrets`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(secrets))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.captureWarnings(True)
