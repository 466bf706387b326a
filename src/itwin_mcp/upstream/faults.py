"""What went wrong on the wire, told as an error of ours and whether the server may have acted all the same."""

from __future__ import annotations

import httpx2

from itwin_mcp.errors import CallError, InvalidArguments, UnexpectedAnswer, Unreachable
from itwin_mcp.upstream import hints
from itwin_mcp.upstream.redaction import foreign_text
from itwin_mcp.upstream.retry import AttemptError
from itwin_mcp.upstream.wire import Request

_NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)


def failure_from(error: httpx2.RequestError, request: Request, origin: str) -> AttemptError:
    """One failed attempt from what httpx2 raised; `origin` is where it was really sent."""
    if isinstance(error, httpx2.LocalProtocolError | httpx2.UnsupportedProtocol):
        return AttemptError(
            InvalidArguments(
                f"The request cannot be sent: {_said(error)}.", hint="Correct the argument, then call again."
            ),
            transient=False,
            maybe_executed=False,
        )
    if isinstance(error, _NEVER_SENT):
        return AttemptError(_never_sent(error, origin), transient=True, maybe_executed=False)
    if isinstance(error, httpx2.DecodingError):
        unreadable = UnexpectedAnswer(
            f"{origin} answered with a body that cannot be decompressed.",
            hint="Call again in a while." if request.method == "GET" else hints.for_unknown_outcome(request.path),
        )
        if request.method != "GET":
            unreadable.members["outcomeUnknown"] = True
        return AttemptError(unreadable, transient=True, maybe_executed=True)
    if isinstance(error, httpx2.TimeoutException):
        return AttemptError(silent(request, f"{origin} stayed silent too long"), transient=True, maybe_executed=True)
    return AttemptError(
        _unfinished(
            "ConnectionLost", f"The connection to {origin} broke before the answer was whole: {_said(error)}.", request
        ),
        transient=True,
        maybe_executed=True,
    )


def silent(request: Request, what: str) -> Unreachable:
    """No whole answer in time."""
    return _unfinished("TimedOut", f"{what}.", request)


def timed_out(request: Request, seconds: float, *, in_flight: bool) -> Unreachable:
    """The call's deadline passed; `in_flight` when the request may have reached the server."""
    message = f"No whole answer from {request.origin} within {seconds:.0f} seconds."
    if in_flight:
        return _unfinished("TimedOut", message, request)
    return Unreachable(
        "TimedOut", message, hint="The request was not sent: waiting took too long. Call again in a while."
    )


def _unfinished(code: str, message: str, request: Request) -> Unreachable:
    if request.method == "GET":
        return Unreachable(code, message, hint="Nothing was changed. Call again in a while, or ask for less at once.")
    return Unreachable(code, message, hint=hints.for_unknown_outcome(request.path), outcome_unknown=True)


def _never_sent(error: httpx2.RequestError, origin: str) -> CallError:
    said = _said(error)
    if isinstance(error, httpx2.PoolTimeout):
        return Unreachable(
            "Busy", "All connections are in use.", hint="Call again in a moment, with fewer calls at once."
        )
    if isinstance(error, httpx2.ProxyError):
        hint = "Nothing was sent. The proxy refused: check HTTPS_PROXY and NO_PROXY."
        return Unreachable("ConnectionFailed", f"The proxy on the way to {origin} refused: {said}.", hint=hint)
    if "CERTIFICATE_VERIFY_FAILED" in said:
        hint = "Nothing was sent. If your network inspects TLS, set SSL_CERT_FILE to its certificate authority."
        return Unreachable("ConnectionFailed", f"The certificate of {origin} is not trusted: {said}.", hint=hint)
    return Unreachable(
        "ConnectionFailed",
        f"Could not connect to {origin}: {said}.",
        hint="Nothing was sent. Check the network and the proxy variables (HTTPS_PROXY, NO_PROXY), then call again.",
    )


def _said(error: Exception) -> str:
    """The library's own words; it never quotes headers or bodies, but a URL may hold a signature."""
    return foreign_text(str(error) or type(error).__name__, 300).rstrip(".")
