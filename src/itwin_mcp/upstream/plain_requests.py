"""Requests without a credential: probe whether a server answers, and fetch a small public JSON document."""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
_HINT = "Check the address, the network and the proxy variables (HTTPS_PROXY, NO_PROXY)."


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The answer of a server that can be reached. Its status may be any."""

    status: int
    clock: float | None
    """The server's clock minus ours, in seconds, to about a second; None without a `Date` header."""
    milliseconds: float
    """The time until the answer began."""


async def probe(url: str, *, user_agent: str) -> ProbeResult:
    """GET `url` to see whether its server can be reached. Raises CallError if there is no answer."""
    async with _get(url, seconds=PROBE_SECONDS, user_agent=user_agent) as (answer, milliseconds):
        return ProbeResult(answer.status_code, _compute_skew(answer.headers.get("date")), milliseconds)


def _compute_skew(date: str | None) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(date or "").timestamp() - time.time()
    except ValueError:
        return None


async def fetch_document(url: str, *, user_agent: str) -> Any:
    """Return the JSON document at `url`.

    The document may have at most 64 KiB. The URL must be https, or http on this machine. Redirects are not followed.

    Raises: CallError if there is no such document.
    """
    try:
        origin, _ = split_url(url)
    except ValueError:
        raise UnexpectedAnswer("The address of the document is not a URL.", hint=_HINT) from None
    if not origin.is_private:
        raise UnexpectedAnswer(f"A document of {origin} must be read by https.", hint=_HINT)
    try:
        async with _get(url, seconds=DOCUMENT_SECONDS, user_agent=user_agent) as (answer, _):
            if answer.status_code != 200:
                raise UnexpectedAnswer(f"{origin} answered {answer.status_code}.", hint=_HINT)
            return json.loads(await read_bounded(answer.aiter_bytes(), MAX_DOCUMENT))
    except BodyTooLargeError:
        raise UnexpectedAnswer(f"The document of {origin} is larger than 64 KiB.", hint=_HINT) from None
    except (ValueError, RecursionError):
        raise UnexpectedAnswer(f"The document of {origin} is not JSON.", hint=_HINT) from None


@asynccontextmanager
async def _get(url: str, *, seconds: float, user_agent: str) -> AsyncIterator[tuple[httpx2.Response, float]]:
    """GET `url`, and yield the answer with the milliseconds until it began.

    Raises: CallError if the answer has not come, or the block has not read it, within `seconds`.
    """
    origin, path = split_url(url)
    failure: CallError = Unreachable(
        ErrorCode.TIMED_OUT, f"No answer from {origin} within {seconds:.0f} seconds.", hint=_HINT
    )
    with anyio.move_on_after(seconds):
        async with build_http(connections=1, user_agent=user_agent) as http:
            began = anyio.current_time()
            try:
                async with http.stream("GET", url, headers={"Accept": "application/json"}) as answer:
                    yield answer, (anyio.current_time() - began) * 1000
                    return
            except httpx2.RequestError as error:
                failure = build_failure(error, Request("GET", str(origin), path), str(origin)).error
    raise failure
