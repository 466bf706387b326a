"""What an answer says: its JSON read once and defensively, and its error envelope with every shape that lacks one."""

from __future__ import annotations

import email.utils
import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from http import HTTPStatus
from typing import Any, NoReturn

from itwin_mcp.errors import CallError, NotSignedIn, PlatformError, UnexpectedAnswer
from itwin_mcp.upstream import hints
from itwin_mcp.upstream.auth.source import Token
from itwin_mcp.upstream.redaction import clean_text, foreign_text
from itwin_mcp.upstream.wire import Request, Response

MAX_DEPTH = 64
MAX_DETAILS = 50
_OURS = frozenset(
    {"code", "message", "status", "target", "details", "operation", "retryable", "retryAfterSeconds", "correlationId"}
    | {"hint", "completed", "outcomeUnknown", "job", "found", "candidates"}
)
"""Members of our own error object, which a foreign one must not overwrite."""
_UNSENDABLE = re.compile(rb"\\u[dD][89a-fA-F]|[0-9][eE]\+?[0-9]{3}|[0-9]{300}")
"""Where an answer may have half a character, or a number that is too large for a float."""
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})


def read_json(response: Response) -> Any:
    """The body as a JSON value; None for 204 and 205, which have none.

    UnexpectedAnswer, in words, for what is not JSON by the book: HTML, nothing, half a value, NaN, bytes that are
    not UTF-8, values nested deeper than 64.
    """
    if response.status in (204, 205):
        return None
    try:
        value = json.loads(response.content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UnexpectedAnswer(
            f"The answer ({response.status}) is not JSON: {_what_it_is(response, error)}.",
            hint="Other arguments would not change that: call again in a while, and tell support if it stays.",
            status=response.status,
            correlation_id=correlation_id(response),
        ) from None
    if _deeper_than(value, MAX_DEPTH):
        raise UnexpectedAnswer(
            f"The answer ({response.status}) is nested deeper than {MAX_DEPTH} levels.",
            hint="The answer was not read. Report it: the platform gives no such answers.",
            status=response.status,
            correlation_id=correlation_id(response),
        )
    if _UNSENDABLE.search(response.content):
        value = _make_sendable(value)
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _what_it_is(response: Response, error: ValueError | RecursionError) -> str:
    content = response.content.strip()
    if not content:
        return "its body is empty"
    if looks_like_html(response):
        return f"it is an HTML page{_title(content)}, perhaps from a proxy or a sign-in page on the way"
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos} of {len(content)} bytes"
    return clean_text(str(error), 200)


def looks_like_html(response: Response) -> bool:
    kind = response.headers.get("content-type", "").lower()
    return "html" in kind or response.content.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html"))


def _title(content: bytes) -> str:
    found = re.search(rb"<title[^<>]{0,200}>([^<]{1,200})", content[:20_000], re.IGNORECASE)
    if found is None:
        return ""
    return f" titled “{foreign_text(found[1].decode('utf-8', 'replace').strip(), 100)}”"


def _deeper_than(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


def _make_sendable(value: Any) -> Any:
    """Replace what JSON for the agent cannot hold: half a character, which is no UTF-8, and a number beyond a float."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [_make_sendable(item) for item in value]
    if isinstance(value, dict):
        return {_make_sendable(key): _make_sendable(item) for key, item in value.items()}
    return value


def correlation_id(response: Response) -> str | None:
    """The id by which the platform's support finds the call."""
    given = response.headers.get("x-correlation-id", "").strip()
    return given if re.fullmatch(r"[!-~]{1,200}", given) else None


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds until a repeat is welcome; None when not said, or said in a way that makes no sense.

    Both forms of `Retry-After` are read (a date without a zone is UTC), and the older header of the platform's.
    """
    given = headers.get("retry-after") or headers.get("itwinplatform-ratelimit-retry-after-seconds") or ""
    given = given.strip()
    if re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", given):
        return float(given)
    try:
        moment = email.utils.parsedate_to_datetime(given)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, moment.timestamp() - now)


def rate_tier(headers: Mapping[str, str]) -> str | None:
    """The subscription's tier, which the platform names when its rate limit is reached."""
    tier = headers.get("itwinplatform-ratelimited-tier", "").strip()
    return tier if re.fullmatch(r"[A-Za-z][\w -]{0,39}", tier) else None


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error body, read whatever its shape."""

    code: str
    message: str
    target: str | None
    details: tuple[dict[str, Any], ...]
    members: dict[str, Any]
    is_page: bool = False
    """Whether it is a web page, which the platform's APIs never answer with."""


def read_refusal(response: Response, *secrets: str) -> Refusal:
    """Read the platform's envelope, the gateway's bare `{code, message}`, or what stands in their place."""
    try:
        body = read_json(response)
    except UnexpectedAnswer:
        body = None
    error = body.get("error", body) if isinstance(body, dict) else None
    if isinstance(error, str):  # as sign-in servers write it
        described = body.get("error_description") if isinstance(body, dict) else None
        error = {"code": error, "message": described or error}
    if isinstance(error, dict) and ("code" in error or "message" in error):
        code, message, target = error.get("code"), error.get("message"), error.get("target")
        details = error.get("details")
        return Refusal(
            code=_text(code, secrets, 200) or _code_of(response.status),
            message=_text(message, secrets) or _phrase(response.status),
            target=_text(target, secrets, 200) or None,
            details=tuple(
                _cleaned(detail, secrets)
                for detail in (details if isinstance(details, list) else [])[:MAX_DETAILS]
                if isinstance(detail, dict)
            ),
            members={
                _text(name, secrets, 200): _cleaned(value, secrets)
                for name, value in error.items()
                if name not in _OURS and value is not None
            },
        )
    content, is_page = response.content.strip(), looks_like_html(response)
    if not content:
        said = f"answered {_phrase(response.status)}, without a body"
    elif is_page:
        said = f"answered {_phrase(response.status)} with an HTML page{_title(content)}"
    else:
        text = content[:8000].decode("utf-8", "replace")
        said = f"answered {_phrase(response.status)}: {_text(text, secrets)}"
    return Refusal(_code_of(response.status), f"The server {clean_text(said)}", None, (), {}, is_page)


def _text(value: Any, secrets: tuple[str, ...], limit: int = 2000) -> str:
    return foreign_text(value, limit, *secrets) if isinstance(value, str) else ""


def _cleaned(value: Any, secrets: tuple[str, ...]) -> Any:
    if isinstance(value, str):
        return _text(value, secrets)
    if isinstance(value, list):
        return [_cleaned(item, secrets) for item in value]
    if isinstance(value, dict):
        return {_text(key, secrets, 200): _cleaned(item, secrets) for key, item in value.items()}
    return value


def _phrase(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _code_of(status: int) -> str:
    """A code for an answer that brings none: `BadGateway` for 502, and so on."""
    try:
        return "".join(word.capitalize() for word in HTTPStatus(status).name.split("_"))
    except ValueError:
        return f"Status{status}"


def error_from(
    response: Response,
    request: Request,
    *,
    token: Token | None = None,
    remedy: str = hints.DEFAULT_REMEDY,
    platform: str = "https://api.bentley.com",
    now: float | None = None,
) -> CallError:
    """The platform's refusal (status 400 and above) as the error that the agent reads, with its next step.

    `token` is what was sent, for telling expired from wrong environment; `remedy` is how to sign in as we were started;
    `now` is seconds since 1970.
    """
    moment = time.time() if now is None else now
    refusal = read_refusal(response, token.value if token else "")
    status, path = response.status, request.path
    after = retry_after(response.headers, moment)
    if status == 401:
        return NotSignedIn(
            f"The platform does not accept the sign-in: {refusal.message}",
            hint=_hint_for_401(refusal, token, remedy=remedy, platform=platform, now=moment),
            status=status,
            details=({"code": refusal.code, "message": refusal.message}, *refusal.details),
            correlation_id=correlation_id(response),
        )
    unknown = outcome_unknown(response, request, moment)
    if "ResourceQuotaExceeded" in (refusal.code, *(detail.get("code") for detail in refusal.details)):
        hint = hints.for_quota(path)
    elif refusal.is_page and status < 500 and status not in _TRANSIENT:
        hint = hints.for_gateway(platform)
    elif status == 403:
        hint = hints.for_forbidden(request.permission, token.member if token else None)
    elif status == 404:
        hint = hints.for_not_found(path, refusal.code)
    elif status == 409:
        hint = hints.for_conflict(path, refusal.code, refusal.target, refusal.details)
    elif status in (400, 422):
        hint = hints.for_refused_values(refusal.target, refusal.details)
    elif status == 413:
        hint = "Send less: smaller files or fewer items at once."
    elif status == 429:
        hint = hints.for_too_many(after, rate_tier(response.headers))
    elif unknown:
        hint = hints.for_unknown_outcome(path)
    elif status in _TRANSIENT:
        hint = hints.for_server_fault(after)
    else:
        hint = "Calling again unchanged will not help; read the message, and tell support the correlation id."
    return _platform_error(response, refusal, hint, after, unknown)


def _hint_for_401(refusal: Refusal, token: Token | None, *, remedy: str, platform: str, now: float) -> str:
    if refusal.is_page:
        return hints.for_gateway(platform)
    if "UnknownClient" in (refusal.code, *(detail.get("code") for detail in refusal.details)):
        return hints.for_unknown_client(remedy)
    return hints.for_not_signed_in(
        remedy,
        expires_at=token.expires_at if token else None,
        issuer=token.issuer if token else None,
        platform=platform,
        now=now,
    )


def foreign_error_from(response: Response, request: Request, *, now: float | None = None) -> CallError:
    """The refusal of another server than the platform, without a word about iTwins."""
    moment = time.time() if now is None else now
    refusal = read_refusal(response)
    after = retry_after(response.headers, moment)
    unknown = outcome_unknown(response, request, moment)
    if unknown:
        hint = "The change may have been made or not. Read what it concerns before you try again."
    elif response.status in _TRANSIENT:
        hint = "Call again in a while." if after is None else f"Call again in {after:.0f} seconds."
    else:
        hint = f"{request.origin} refused this call; other arguments may be accepted."
    return _platform_error(response, refusal, hint, after, unknown)


def _platform_error(
    response: Response, refusal: Refusal, hint: str, after: float | None, unknown: bool
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
        correlation_id=correlation_id(response),
        members=refusal.members | ({"outcomeUnknown": True} if unknown else {}),
    )


def outcome_unknown(response: Response, request: Request, now: float) -> bool:
    """Whether a write may have been carried out although the answer is an error.

    429 and 503 with Retry-After come from the gate in front; other 5xx may come after the work was done.
    """
    if request.method == "GET" or response.status not in _TRANSIENT or response.status in (425, 429):
        return False
    return not (response.status == 503 and retry_after(response.headers, now) is not None)
