"""Encodes requests as HTTP, and reads the JSON and headers of answers defensively."""

from __future__ import annotations

import email.utils
import json
import math
import re
from collections.abc import AsyncIterator, Mapping
from datetime import UTC
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote, urlencode

import anyio
import httpx2

from itwin_mcp.errors import InvalidArguments, UnexpectedAnswer
from itwin_mcp.text import clean_text
from itwin_mcp.upstream.messages import FileUpload, FormBody, JsonBody, Request, Response
from itwin_mcp.upstream.origin import Origin
from itwin_mcp.upstream.redaction import redact

# --- requests -----------------------------------------------------------------------------------------------------

_DOTS = re.compile(r"/(?:\.|%2[eE]){1,2}(?:/|$)")
"""A segment that is `.` or `..`, encoded or not."""
_PATH = re.compile(r"/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*", re.ASCII)
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)
_HEADER_VALUE = re.compile(r"[\t -~]*", re.ASCII)
CHUNK = 256 * 1024


def build_url(origin: Origin, request: Request) -> httpx2.URL:
    """Return the URL of a request.

    httpx2 resolves `..` and encodes raw characters. The path that is sent would differ from the one that the policy
    checked, so such paths are refused.

    Raises: InvalidArguments.
    """
    if not _PATH.fullmatch(request.path):
        raise build_unsendable("the path is not percent-encoded")
    if _DOTS.search(request.path):
        raise build_unsendable("the path contains `.` or `..`")
    try:
        query = "&".join(f"{quote(name, safe='$')}={quote(value, safe='')}" for name, value in request.query)
        target = f"{request.path}?{query}" if query else request.path
        url = httpx2.URL(f"{origin.text}{target}")
    except (UnicodeEncodeError, httpx2.InvalidURL) as error:
        raise build_unsendable(str(error)[:200]) from None
    if url.raw_path != target.encode("ascii"):
        raise build_unsendable("the path would be changed on its way")
    return url


def build_headers(request: Request) -> list[tuple[str, str]]:
    """Return the request's own headers. Raises InvalidArguments if a name or value is not allowed in HTTP."""
    for name, value in request.headers:
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise build_unsendable(f"the header {name[:100]!r} has a value that no header can have")
    return list(request.headers)


def build_body(request: Request) -> tuple[bytes | AsyncIterator[bytes] | None, dict[str, str]]:
    """Return the content and the headers that describe it. A file is read while it is sent, again for each attempt.

    Raises: InvalidArguments if the body cannot be encoded or its file cannot be read.
    """
    body = request.body
    if body is None:
        return None, {}
    if isinstance(body, FileUpload):
        return read_chunks(body.path), {"Content-Type": body.media_type, "Content-Length": str(measure_file(body.path))}
    try:
        if isinstance(body, JsonBody):
            text = json.dumps(body.value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            return text.encode("utf-8"), {"Content-Type": "application/json"}
        if isinstance(body, FormBody):
            return urlencode(body.fields).encode("ascii"), {"Content-Type": "application/x-www-form-urlencoded"}
        return body.text.encode("utf-8"), {"Content-Type": body.media_type}
    except UnicodeEncodeError:
        raise build_unsendable("the body contains half a character (a lone surrogate)") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise build_unsendable(f"the body cannot be written as JSON ({type(error).__name__})") from None


def measure_file(path: Path) -> int:
    """Return the size of the file in bytes. Raises InvalidArguments if it cannot be read or is not a file."""
    try:
        if not path.is_file():
            raise build_unsendable(f"{path} is not a file")
        return path.stat().st_size
    except OSError as error:
        raise build_unsendable(f"{path} cannot be read ({error.strerror})") from None


async def read_chunks(path: Path) -> AsyncIterator[bytes]:
    """Yield the file 256 KiB at a time, without blocking the event loop. Raises InvalidArguments."""
    try:
        async with await anyio.open_file(path, "rb") as file:
            while chunk := await file.read(CHUNK):
                yield chunk
    except OSError as error:
        raise build_unsendable(f"{path} cannot be read ({error.strerror})") from None


def build_unsendable(what: str) -> InvalidArguments:
    """Return the error for a request that cannot be sent."""
    return InvalidArguments(f"The request cannot be sent: {what}.", hint="Correct the argument, then call again.")


# --- answers ------------------------------------------------------------------------------------------------------

MAX_DEPTH = 64
_MAYBE_UNSENDABLE = re.compile(rb"\\u[dD][89a-fA-F]")
"""Matches every body with half a surrogate pair, and a few others."""


def read_json(response: Response) -> Any:
    """Return the body as a JSON value, or None for 204 and 205, which have no body.

    Half a surrogate pair becomes `?`, and a number too large for a float becomes null, because neither can be sent to
    clients.

    Raises: UnexpectedAnswer if the body is not strict JSON (HTML, empty, cut off, NaN, not UTF-8), or is nested deeper
    than 64 levels.
    """
    if response.status in (204, 205):
        return None
    try:
        value = json.loads(response.content, parse_float=_read_float, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UnexpectedAnswer(
            f"The answer ({response.status}) is not JSON: {_describe_body(response, error)}.",
            hint="Other arguments would not change that: call again in a while, and tell support if it stays.",
            status=response.status,
            correlation_id=read_correlation_id(response),
        ) from None
    opened = response.content.count(b"{") + response.content.count(b"[")
    if opened > MAX_DEPTH and _is_deeper_than(value, MAX_DEPTH):
        raise UnexpectedAnswer(
            f"The answer ({response.status}) is nested deeper than {MAX_DEPTH} levels.",
            hint="The answer was not read. Report it: the platform gives no such answers.",
            status=response.status,
            correlation_id=read_correlation_id(response),
        )
    if b"\\u" in response.content and _MAYBE_UNSENDABLE.search(response.content):
        value = _make_sendable(value)
    return value


def _read_float(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _describe_body(response: Response, error: ValueError | RecursionError) -> str:
    content = response.content.strip()
    if not content:
        return "its body is empty"
    if is_html(response):
        return f"it is an HTML page{read_title(content)}, perhaps from a proxy or a sign-in page on the way"
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos} of {len(content)} bytes"
    return clean_text(str(error), 200)


def is_html(response: Response) -> bool:
    kind = response.headers.get("content-type", "").lower()
    return "html" in kind or response.content.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html"))


def read_title(content: bytes) -> str:
    """Return the title of an HTML page as ` titled “…”`, or an empty text if it has none."""
    match = re.search(rb"<title[^<>]{0,200}>([^<]{1,200})", content[:20_000], re.IGNORECASE)
    if match is None:
        return ""
    return f" titled “{redact(match[1].decode('utf-8', 'replace').strip(), 100)}”"


_NESTED = frozenset({dict, list})


def _is_deeper_than(value: Any, limit: int) -> bool:
    # One level after the other, because recursion would fail where the value is nested very deep.
    level = [value] if type(value) in _NESTED else []
    for _ in range(limit):
        level = [
            child
            for parent in level
            for child in (parent.values() if type(parent) is dict else parent)
            if type(child) in _NESTED
        ]
        if not level:
            return False
    return True


def _make_sendable(value: Any) -> Any:
    """Replace half surrogate pairs, which are not valid UTF-8, by `?`."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, list):
        return [_make_sendable(item) for item in value]
    if isinstance(value, dict):
        return {_make_sendable(key): _make_sendable(item) for key, item in value.items()}
    return value


def read_correlation_id(response: Response) -> str | None:
    """Return the id by which the platform's support finds the call; None if the answer has no usable one."""
    value = response.headers.get("x-correlation-id", "").strip()
    return value if re.fullmatch(r"[!-~]{1,200}", value) else None


def read_retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds after which to retry; None if there is no usable header.

    Reads both forms of `Retry-After`, seconds and a date (UTC if it has no zone), and an older header of the platform.
    `now` is seconds since 1970.
    """
    value = headers.get("retry-after") or headers.get("itwinplatform-ratelimit-retry-after-seconds") or ""
    value = value.strip()
    if re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", value):
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, moment.timestamp() - now)


def read_rate_tier(headers: Mapping[str, str]) -> str | None:
    """Return the subscription's tier, which the platform names in a 429; None if it is missing or malformed."""
    tier = headers.get("itwinplatform-ratelimited-tier", "").strip()
    return tier if re.fullmatch(r"[A-Za-z][\w -]{0,39}", tier) else None
