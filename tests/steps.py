"""Count the work of a function in steps instead of seconds, independent of the load of the machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

from itwin_mcp.errors import CallError


def steps_of(work: Callable[[], Any]) -> int:
    """Return the number of executed lines plus the characters of JSON written or read."""
    steps = 0

    def trace(frame: FrameType, event: str, result: Any) -> Any:
        nonlocal steps
        steps += event == "line"
        if event == "return" and frame.f_code in (json.dumps.__code__, json.loads.__code__):
            steps += len(result if isinstance(result, str) else frame.f_locals.get("s", ""))
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        with suppress(CallError):
            work()
    finally:
        sys.settrace(previous)
    return steps
