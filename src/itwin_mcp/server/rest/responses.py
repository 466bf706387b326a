"""Converts the outcome of a call into an HTTP response."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from itwin_mcp.capability.catalog import Tool
from itwin_mcp.capability.routes import Route
from itwin_mcp.capability.tool_actions import RESULT, BuiltIn, Call
from itwin_mcp.errors import CallError, ErrorCode
from itwin_mcp.executor.outcome import Failure, JobPending, Outcome, Preview, Question, Result

_HEADERS = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    # Bytes of another API must never run as a page of this origin.
    "content-security-policy": "default-src 'none'; sandbox",
}
_STATUS: Mapping[str, int] = {
    ErrorCode.INVALID_ARGUMENTS: 400,
    ErrorCode.AMBIGUOUS_NAME: 400,
    ErrorCode.NAME_NOT_FOUND: 404,
    ErrorCode.KEPT_ELSEWHERE: 501,
    ErrorCode.POLICY_REFUSED: 403,
    ErrorCode.INSUFFICIENT_SCOPE: 403,
    ErrorCode.BUDGET_SPENT: 429,
    ErrorCode.RATE_LIMITED: 429,
    ErrorCode.BUSY: 503,
    ErrorCode.TIMED_OUT: 504,
    ErrorCode.DECLINED: 409,
    ErrorCode.CANCELLED: 409,
    ErrorCode.NAME_MISMATCH: 409,
    ErrorCode.CONFIRMATION_EXPIRED: 409,
    ErrorCode.CONFIRMATION_USED: 409,
    ErrorCode.CONFIRMATION_INVALID: 409,
    ErrorCode.AUDIT_FAILED: 500,
    ErrorCode.STATE_UNUSABLE: 500,
    ErrorCode.INTERNAL_ERROR: 500,
}
"""The status of our own errors. All others mean that the API behind this server could not be used: 502."""
_PASSED_ON = frozenset({400, 403, 404, 405, 409, 410, 412, 413, 415, 422, 423, 429, 501, 503, 504})
"""Statuses of the API behind that mean the same to the caller. A 401 does not: it is about our credential."""


def to_response(route: Route, outcome: Outcome) -> Response:
    """Return the response to a request of this route."""
    if isinstance(outcome, Failure):
        return _build_failure(outcome)
    if isinstance(outcome, Question):
        return build_json(409, {"preview": {"question": outcome.message}})
    if isinstance(outcome, Preview):
        return build_json(409, outcome.answer)
    if isinstance(outcome, JobPending):
        return build_json(202, outcome.answer)
    if returns_bytes(route.tool) and outcome.blobs:
        blob = outcome.blobs[0]
        return Response(blob.content, route.status, _HEADERS, route.media_type or blob.media_type)
    if route.status in (204, 205):
        return Response(status_code=route.status, headers=_HEADERS)
    return build_json(route.status, find_root(route.tool, outcome))


def find_root(tool: Tool, result: Result) -> Any:
    """Return the root of an answer as the API has it: a list or a scalar is not wrapped in an object."""
    return result.answer[RESULT] if wraps_root(tool) and RESULT in result.answer else result.answer


def wraps_root(tool: Tool) -> bool:
    """Return whether the structured answer of a tool holds its root in a member of its own."""
    # `wraps` says so of an output that is compiled under a member of its own.
    return not isinstance(tool.action, BuiltIn) and tool.action.output.wraps


def returns_bytes(tool: Tool) -> bool:
    """Return whether the answer is a file and not JSON."""
    return isinstance(tool.action, Call) and tool.action.operation.binary


def build_json(status: int, content: Any, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response with JSON, which no cache stores."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), default=_to_json)
    return Response(text, status, {**_HEADERS, **(headers or {})}, "application/json")


def build_refusal(
    status: int, code: str, message: str, hint: str = "", headers: Mapping[str, str] | None = None
) -> Response:
    """Return a response to a request that never became a call."""
    error = {"code": code, "message": message, **({"hint": hint} if hint else {})}
    return build_json(status, {"error": error}, headers)


def _build_failure(outcome: Failure) -> Response:
    retry = outcome.error.retry_after
    headers = {} if retry is None else {"retry-after": str(max(1, math.ceil(retry)))}
    return build_json(find_status(outcome.error), outcome.answer, headers)


def find_status(error: CallError) -> int:
    """Return the status of a failed call."""
    if error.code in _STATUS:
        return _STATUS[error.code]
    return error.status if error.status in _PASSED_ON else 502


def _to_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
