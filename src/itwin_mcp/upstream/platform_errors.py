"""Turns error answers of the platform, of a proxy or of another server into errors for the agent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.client import responses
from typing import Any

from itwin_mcp.errors import CallError, NotSignedIn, PlatformError, UnexpectedAnswer
from itwin_mcp.settings import PLATFORM_ORIGIN
from itwin_mcp.text import clean_text
from itwin_mcp.upstream import hints
from itwin_mcp.upstream.messages import Request, Response
from itwin_mcp.upstream.redaction import redact
from itwin_mcp.upstream.sign_in.token import Token
from itwin_mcp.upstream.wire_format import (
    is_html,
    read_correlation_id,
    read_json,
    read_rate_tier,
    read_retry_after,
    read_title,
)

MAX_DETAILS = 50
_OURS = frozenset(
    {"code", "message", "status", "target", "details", "operation", "retryable", "retryAfterSeconds", "correlationId"}
    | {"hint", "completed", "outcomeUnknown", "job", "found", "candidates"}
)
"""Members of our own error object. An error body must not overwrite them."""
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """What an error answer says, in one form for all servers."""

    code: str
    message: str
    target: str | None
    details: tuple[dict[str, Any], ...]
    members: dict[str, Any]
    """Further members of the platform's error object, such as `conflictingLocks`."""
    is_page: bool = False
    """True for a web page, which the platform's APIs never return."""


def read_refusal(response: Response, *secrets: str) -> ErrorBody:
    """Read the platform's `{"error": {…}}`, its gateway's bare `{code, message}`, or a body of any other form.

    `secrets` are removed from all texts.
    """
    try:
        body = read_json(response)
    except UnexpectedAnswer:
        body = None
    error = body.get("error", body) if isinstance(body, dict) else None
    if isinstance(body, dict) and isinstance(error, str):  # the form of OAuth servers
        error = {"code": error, "message": body.get("error_description") or error}
    if isinstance(error, dict) and ("code" in error or "message" in error):
        details = error.get("details")
        return ErrorBody(
            code=_redact_text(error.get("code"), secrets, 200) or _derive_code(response.status),
            message=_redact_text(error.get("message"), secrets) or _format_status(response.status),
            target=_redact_text(error.get("target"), secrets, 200) or None,
            details=tuple(
                _redact_all(detail, secrets)
                for detail in (details if isinstance(details, list) else [])[:MAX_DETAILS]
                if isinstance(detail, dict)
            ),
            members={
                _redact_text(name, secrets, 200): _redact_all(value, secrets)
                for name, value in error.items()
                if name not in _OURS and value is not None
            },
        )
    content, is_page = response.content.strip(), is_html(response)
    if not content:
        message = f"answered {_format_status(response.status)}, without a body"
    elif is_page:
        message = f"answered {_format_status(response.status)} with an HTML page{read_title(content)}"
    else:
        text = content[:8000].decode("utf-8", "replace")
        message = f"answered {_format_status(response.status)}: {_redact_text(text, secrets)}"
    return ErrorBody(_derive_code(response.status), f"The server {clean_text(message)}", None, (), {}, is_page)


def _redact_text(value: Any, secrets: tuple[str, ...], limit: int = 2000) -> str:
    return redact(value, limit, *secrets) if isinstance(value, str) else ""


def _redact_all(value: Any, secrets: tuple[str, ...]) -> Any:
    if isinstance(value, list):
        return [_redact_all(item, secrets) for item in value]
    if isinstance(value, dict):
        return {_redact_text(key, secrets, 200): _redact_all(item, secrets) for key, item in value.items()}
    return _redact_text(value, secrets) if isinstance(value, str) else value


def _format_status(status: int) -> str:
    return f"{status} {responses.get(status, '')}".rstrip()


def _derive_code(status: int) -> str:
    """Return a code for a body without one, such as `BadGateway` for 502."""
    try:
        return "".join(word.capitalize() for word in HTTPStatus(status).name.split("_"))
    except ValueError:
        return f"Status{status}"


def build_platform_error(
    response: Response,
    request: Request,
    *,
    token: Token | None = None,
    remedy: str = hints.DEFAULT_REMEDY,
    platform: str = PLATFORM_ORIGIN,
    nouns: Sequence[hints.Noun] = (),
    now: float,
) -> CallError:
    """Return the error for a refusal of the platform (status 400 and above), with a hint about the next step.

    Args:
        token: The token that was sent. It shows whether it expired or is of another environment.
        remedy: How to sign in.
        nouns: The kinds of things that a hint can name.
        now: Seconds since 1970.
    """
    refusal = read_refusal(response, token.value if token else "")
    status = response.status
    noun = hints.find_noun(nouns, PLATFORM_ORIGIN, request.path, refusal.code)
    after = read_retry_after(response.headers, now)
    if status == 401:
        return NotSignedIn(
            f"The platform does not accept the sign-in: {refusal.message}",
            hint=_explain_401(refusal, token, remedy=remedy, platform=platform, now=now),
            status=status,
            details=({"code": refusal.code, "message": refusal.message}, *refusal.details),
            correlation_id=read_correlation_id(response),
        )
    unknown = _is_outcome_unknown(response, request, after)
    if "ResourceQuotaExceeded" in (refusal.code, *(detail.get("code") for detail in refusal.details)):
        hint = hints.explain_quota(noun)
    elif noun is not None and refusal.code in noun.refusals:
        hint = noun.refusals[refusal.code]
    elif refusal.is_page and status < 500 and status not in _TRANSIENT:
        hint = hints.explain_gateway(platform)
    elif status == 403:
        hint = hints.explain_forbidden(request.permission, token.member if token else None)
    elif status == 404:
        hint = hints.explain_not_found(noun, refusal.code)
    elif status == 409:
        hint = hints.explain_conflict(noun, refusal.code, refusal.target, refusal.details)
    elif status in (400, 422):
        hint = hints.explain_refused_values(refusal.target, refusal.details)
    elif status == 413:
        hint = "Send less: smaller files or fewer items at once."
    elif status == 429:
        hint = hints.explain_too_many(after, read_rate_tier(response.headers))
    elif unknown:
        hint = hints.explain_unknown_outcome(noun)
    elif status in _TRANSIENT:
        hint = hints.explain_server_fault(after)
    else:
        hint = "Calling again unchanged will not help; read the message, and tell support the correlation id."
    return _build_error(response, refusal, hint, after, unknown)


def _explain_401(refusal: ErrorBody, token: Token | None, *, remedy: str, platform: str, now: float) -> str:
    if refusal.is_page:
        return hints.explain_gateway(platform)
    if "UnknownClient" in (refusal.code, *(detail.get("code") for detail in refusal.details)):
        return hints.explain_unknown_client(remedy)
    return hints.explain_not_signed_in(
        remedy,
        expires_at=token.expires_at if token else None,
        issuer=token.issuer if token else None,
        platform=platform,
        now=now,
    )


def build_foreign_error(
    response: Response, request: Request, *, nouns: Sequence[hints.Noun] = (), now: float
) -> CallError:
    """Build the error for an error response of a server other than the platform. Its hint does not mention iTwins.

    `nouns` are the kinds of things that a hint can name. `now` is seconds since 1970.
    """
    refusal = read_refusal(response)
    after = read_retry_after(response.headers, now)
    unknown = _is_outcome_unknown(response, request, after)
    noun = hints.find_noun(nouns, request.origin, request.path, refusal.code)
    if noun is not None and refusal.code in noun.refusals:
        hint = noun.refusals[refusal.code]
    elif noun is not None and response.status == 404:
        hint = f"It does not exist, or you may not see it. Find {hints.name_listing(noun)}, then call again."
    elif unknown:
        hint = hints.explain_unknown_outcome(noun)
    elif response.status in _TRANSIENT:
        hint = "Call again in a while." if after is None else f"Call again in {after:.0f} seconds."
    else:
        hint = f"{request.origin} refused this call; other arguments may be accepted."
    return _build_error(response, refusal, hint, after, unknown)


def _build_error(
    response: Response, refusal: ErrorBody, hint: str, after: float | None, unknown: bool
) -> PlatformError:
    return PlatformError(
        refusal.code,
        refusal.message,
        hint=hint,
        status=response.status,
        target=refusal.target,
        details=refusal.details,
        retryable=response.status in _TRANSIENT and not unknown,
        retry_after=after,
        correlation_id=read_correlation_id(response),
        members=refusal.members | ({"outcomeUnknown": True} if unknown else {}),
    )


def _is_outcome_unknown(response: Response, request: Request, after: float | None) -> bool:
    """Return whether a write may have been carried out although the answer is an error.

    429 and 503 with Retry-After come from the platform's gateway; other 5xx may come after the work was done.
    """
    if request.method == "GET" or response.status not in _TRANSIENT or response.status in (425, 429):
        return False
    return response.status != 503 or after is None
