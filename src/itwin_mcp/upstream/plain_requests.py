"""Plain requests without a credential: whether a server answers, and a small JSON document that one publishes."""

from __future__ import annotations

import email.utils
import json
import time
from dataclasses import dataclass
from typing import Any

import anyio
import httpx2

from itwin_mcp.errors import CallError, ErrorCode, UnexpectedAnswer, Unreachable
from itwin_mcp.upstream.messages import Request
from itwin_mcp.upstream.network_errors import build_failure
from itwin_mcp.upstream.origin import split_url
from itwin_mcp.upstream.transport import BodyTooLargeError, build_http, read_bounded

PROBE_SECONDS = 15.0
MAX_DOCUMENT = 64 * 1024
"""Bytes."""
DOCUMENT_SECONDS = 5.0
_HINT = "Check the address and the network."


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The answer of a server; any status means that it can be reached."""

    status: int
    clock: float | None
    """Its clock minus ours in seconds, to about a second; None if it has no `Date` header."""
    milliseconds: float


async def probe(url: str, *, user_agent: str) -> ProbeResult:
    """GET `url` to see whether its server can be reached. Raises CallError if there is no answer."""
    origin, path = split_url(url)
    request = Request("GET", str(origin), path)
    failure: CallError | None = None
    with anyio.move_on_after(PROBE_SECONDS):
        async with build_http(connections=1, user_agent=user_agent) as http:
            began = anyio.current_time()
            try:
                async with http.stream("GET", url) as answer:
                    milliseconds = (anyio.current_time() - began) * 1000
                    return ProbeResult(answer.status_code, _compute_skew(answer.headers.get("date")), milliseconds)
            except httpx2.RequestError as error:
                failure = build_failure(error, request, str(origin)).error
    raise failure or Unreachable(
        ErrorCode.TIMED_OUT,
        f"No answer from {origin} within {PROBE_SECONDS:.0f} seconds.",
        hint="Check the network and the proxy variables (HTTPS_PROXY, NO_PROXY).",
    )


def _compute_skew(date: str | None) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(date or "").timestamp() - time.time()
    except ValueError:
        return None


async def fetch_document(url: str, *, user_agent: str) -> Any:
    """Return the JSON at `url`: at most 64 KiB, by https (http on this machine), without following redirects.

    Raises: CallError.
    """
    try:
        origin, path = split_url(url)
    except ValueError:
        raise UnexpectedAnswer("The address of the document is not a URL.", hint=_HINT) from None
    if not origin.is_private:
        raise UnexpectedAnswer(f"A document of {origin} must be read by https.", hint=_HINT)
    failure: CallError = Unreachable(
        ErrorCode.TIMED_OUT, f"No answer from {origin} within {DOCUMENT_SECONDS:.0f} s.", hint=_HINT
    )
    with anyio.move_on_after(DOCUMENT_SECONDS):
        async with build_http(connections=1, user_agent=user_agent) as http:
            try:
                async with http.stream("GET", url, headers={"Accept": "application/json"}) as answer:
                    if answer.status_code != 200:
                        raise UnexpectedAnswer(f"{origin} answered {answer.status_code}.", hint=_HINT)
                    return json.loads(await read_bounded(answer.aiter_bytes(), MAX_DOCUMENT))
            except httpx2.RequestError as error:
                failure = build_failure(error, Request("GET", str(origin), path), str(origin)).error
            except BodyTooLargeError:
                failure = UnexpectedAnswer(f"The document of {origin} is larger than 64 KiB.", hint=_HINT)
            except (ValueError, RecursionError):
                failure = UnexpectedAnswer(f"The document of {origin} is not JSON.", hint=_HINT)
    raise failure
