"""One small JSON document of another server, without any credential: what a sign-in server publishes."""

from __future__ import annotations

import json
from typing import Any

import anyio
import httpx2

from itwin_mcp.errors import CallError, UnexpectedAnswer, Unreachable
from itwin_mcp.upstream.faults import failure_from
from itwin_mcp.upstream.origin import split_url
from itwin_mcp.upstream.transport import BodyTooLargeError, build_http, read_bounded
from itwin_mcp.upstream.wire import Request

MOST_BYTES = 64 * 1024
MOST_SECONDS = 5.0
_HINT = "Check the address and the network."


async def fetch_document(url: str, *, user_agent: str) -> Any:
    """The JSON at `url`, 64 KiB at most, by https (http on this machine); no redirect is followed.

    Raises an error of the CallError family.
    """
    try:
        origin, path = split_url(url)
    except ValueError:
        raise UnexpectedAnswer("The address of the document is none.", hint=_HINT) from None
    if not origin.is_private:
        raise UnexpectedAnswer(f"A document of {origin} must be read by https.", hint=_HINT)
    failure: CallError = Unreachable("TimedOut", f"No answer from {origin} within {MOST_SECONDS:.0f} s.", hint=_HINT)
    with anyio.move_on_after(MOST_SECONDS):
        async with build_http(connections=1, user_agent=user_agent) as http:
            try:
                async with http.stream("GET", url, headers={"Accept": "application/json"}) as answer:
                    if answer.status_code != 200:
                        raise UnexpectedAnswer(f"{origin} answered {answer.status_code}.", hint=_HINT)
                    return json.loads(await read_bounded(answer.aiter_bytes(), MOST_BYTES))
            except httpx2.RequestError as error:
                failure = failure_from(error, Request("GET", str(origin), path), str(origin)).error
            except BodyTooLargeError:
                failure = UnexpectedAnswer(f"The document of {origin} is larger than 64 KiB.", hint=_HINT)
            except (ValueError, RecursionError):
                failure = UnexpectedAnswer(f"The document of {origin} is no JSON.", hint=_HINT)
    raise failure
