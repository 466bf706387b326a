"""One plain request without any credential, to see whether a server can be reached and what time it has."""

from __future__ import annotations

import email.utils
import time
from dataclasses import dataclass

import anyio
import httpx2

from itwin_mcp.errors import CallError, Unreachable
from itwin_mcp.upstream.faults import failure_from
from itwin_mcp.upstream.origin import split_url
from itwin_mcp.upstream.transport import build_http
from itwin_mcp.upstream.wire import Request

PROBE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What a server showed of itself; any status means that it can be reached."""

    status: int
    clock: float | None
    """Its clock minus ours in seconds, if it told the time; good to a second."""
    milliseconds: float


async def probe(url: str, *, user_agent: str) -> Seen:
    """Ask for `url`. Raises an error of the CallError family, in words, when no answer came."""
    origin, path = split_url(url)
    request = Request("GET", str(origin), path)
    failure: CallError | None = None
    with anyio.move_on_after(PROBE_SECONDS):
        async with build_http(connections=1, user_agent=user_agent) as http:
            began = anyio.current_time()
            try:
                async with http.stream("GET", url) as answer:
                    milliseconds = (anyio.current_time() - began) * 1000
                    return Seen(answer.status_code, _difference(answer.headers.get("date")), milliseconds)
            except httpx2.RequestError as error:
                failure = failure_from(error, request, str(origin)).error
    raise failure or Unreachable(
        "TimedOut",
        f"No answer from {origin} within {PROBE_SECONDS:.0f} seconds.",
        hint="Check the network and the proxy variables (HTTPS_PROXY, NO_PROXY).",
    )


def _difference(date: str | None) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(date or "").timestamp() - time.time()
    except ValueError:
        return None
