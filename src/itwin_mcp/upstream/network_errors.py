"""Turns network failures into errors that say whether the server may have carried out the request."""

from __future__ import annotations

import httpx2

from itwin_mcp.errors import CallError, ErrorCode, UnexpectedAnswer, Unreachable
from itwin_mcp.upstream import hints
from itwin_mcp.upstream.messages import Request
from itwin_mcp.upstream.redaction import redact
from itwin_mcp.upstream.retry import AttemptError
from itwin_mcp.upstream.wire_format import build_unsendable

_NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)


def build_failure(
    error: httpx2.RequestError, request: Request, origin: str, noun: hints.Noun | None = None
) -> AttemptError:
    """Return the failed attempt for an exception of httpx2.

    `origin` is where the request was sent. `noun` is the kind of thing that the request is about.
    """
    if isinstance(error, httpx2.LocalProtocolError | httpx2.UnsupportedProtocol):
        return AttemptError(build_unsendable(_describe(error)), transient=False, maybe_executed=False)
    if isinstance(error, _NEVER_SENT):
        return AttemptError(_build_unsent(error, origin), transient=True, maybe_executed=False)
    failure: CallError
    if isinstance(error, httpx2.DecodingError):
        failure = UnexpectedAnswer(
            f"{origin} answered with a body that cannot be decompressed.",
            hint="Call again in a while." if request.method == "GET" else hints.explain_unknown_outcome(noun),
        )
        if request.method != "GET":
            failure.members["outcomeUnknown"] = True
    elif isinstance(error, httpx2.TimeoutException):
        failure = _build_unfinished(ErrorCode.TIMED_OUT, f"{origin} did not answer in time.", request, noun)
    else:
        message = f"The connection to {origin} broke before the answer was whole: {_describe(error)}."
        failure = _build_unfinished(ErrorCode.CONNECTION_LOST, message, request, noun)
    return AttemptError(failure, transient=True, maybe_executed=True)


def build_timeout(request: Request, seconds: float, noun: hints.Noun | None, *, in_flight: bool) -> Unreachable:
    """Return the error for a call whose deadline of `seconds` passed.

    `in_flight` says that the server may be carrying out the request.
    """
    message = f"No whole answer from {request.origin} within {seconds:.0f} seconds."
    if in_flight:
        return _build_unfinished(ErrorCode.TIMED_OUT, message, request, noun)
    return Unreachable(
        ErrorCode.TIMED_OUT, message, hint="The request was not sent: waiting took too long. Call again in a while."
    )


def _build_unfinished(code: str, message: str, request: Request, noun: hints.Noun | None) -> Unreachable:
    if request.method == "GET":
        return Unreachable(code, message, hint="Nothing was changed. Call again in a while, or ask for less at once.")
    return Unreachable(code, message, hint=hints.explain_unknown_outcome(noun), outcome_unknown=True)


def _build_unsent(error: httpx2.RequestError, origin: str) -> CallError:
    reason = _describe(error)
    if isinstance(error, httpx2.PoolTimeout):
        return Unreachable(
            ErrorCode.BUSY, "All connections are in use.", hint="Call again in a moment, with fewer calls at once."
        )
    if isinstance(error, httpx2.ProxyError):
        return Unreachable(
            ErrorCode.CONNECTION_FAILED,
            f"The proxy on the way to {origin} refused: {reason}.",
            hint="Nothing was sent. The proxy refused: check HTTPS_PROXY and NO_PROXY.",
        )
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return Unreachable(
            ErrorCode.CONNECTION_FAILED,
            f"The certificate of {origin} is not trusted: {reason}.",
            hint="Nothing was sent. If your network inspects TLS, set SSL_CERT_FILE to its certificate authority.",
        )
    return Unreachable(
        ErrorCode.CONNECTION_FAILED,
        f"Could not connect to {origin}: {reason}.",
        hint="Nothing was sent. Check the network and the proxy variables (HTTPS_PROXY, NO_PROXY), then call again.",
    )


def _describe(error: Exception) -> str:
    """Return the message of httpx2. It quotes no headers or bodies, but is redacted because it may contain a URL."""
    return redact(str(error) or type(error).__name__, 300).rstrip(".")
