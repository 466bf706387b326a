"""A Request as bytes for the wire: the path byte for byte, the query encoded, the body as what it is."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote, unquote, urlencode

import anyio
import httpx2

from itwin_mcp.errors import InvalidArguments
from itwin_mcp.upstream.origin import Origin
from itwin_mcp.upstream.wire import FileBody, FormBody, JsonBody, Request, TextBody

_PATH = re.compile(r"/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*", re.ASCII)
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)
_HEADER_VALUE = re.compile(r"[\t -~]*", re.ASCII)
CHUNK = 256 * 1024


def build_url(origin: Origin, request: Request) -> httpx2.URL:
    """The URL to call; InvalidArguments when the path would not arrive exactly as it is.

    httpx2 resolves `..` and encodes what was left raw; both would make another path of it, so such a path is refused.
    """
    if not _PATH.fullmatch(request.path):
        raise refused("the path is not percent-encoded")
    if any(unquote(segment) in (".", "..") for segment in request.path.split("/")):
        raise refused("the path climbs")
    try:
        query = "&".join(f"{quote(name, safe='$')}={quote(value, safe='')}" for name, value in request.query)
        target = f"{request.path}?{query}" if query else request.path
        url = httpx2.URL(f"{origin}{target}")
    except (UnicodeEncodeError, httpx2.InvalidURL) as error:
        raise refused(str(error)[:200]) from None
    if url.raw_path != target.encode("ascii"):
        raise refused("the path would be changed on its way")
    return url


def build_headers(request: Request) -> list[tuple[str, str]]:
    """The request's own headers; InvalidArguments when a value could end its line."""
    for name, value in request.headers:
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise refused(f"the header {name[:100]!r} has a value that no header can have")
    return list(request.headers)


def build_body(request: Request) -> tuple[bytes | AsyncIterator[bytes] | None, dict[str, str]]:
    """The content and the headers that describe it; a file is read while it is sent, anew for each attempt."""
    body = request.body
    if body is None:
        return None, {}
    if isinstance(body, JsonBody):
        try:
            text = json.dumps(body.value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            return text.encode("utf-8"), {"Content-Type": "application/json"}
        except (ValueError, TypeError, RecursionError) as error:
            raise refused(f"the body cannot be written as JSON ({type(error).__name__})") from None
    if isinstance(body, FormBody):
        try:
            form = urlencode(body.fields).encode("ascii")
        except UnicodeEncodeError:
            raise refused("the form holds half a character") from None
        return form, {"Content-Type": "application/x-www-form-urlencoded"}
    if isinstance(body, TextBody):
        try:
            return body.text.encode("utf-8"), {"Content-Type": body.media_type}
        except UnicodeEncodeError:
            raise refused("the text holds half a character") from None
    return file_chunks(body.path), {"Content-Type": body.media_type, "Content-Length": str(file_size(body))}


def file_size(body: FileBody) -> int:
    """Bytes of the file; InvalidArguments when it cannot be read or is no file."""
    try:
        if not body.path.is_file():
            raise refused(f"{body.path} is not a file")
        return body.path.stat().st_size
    except OSError as error:
        raise refused(f"{body.path} cannot be read ({error.strerror})") from None


async def file_chunks(path: Path) -> AsyncIterator[bytes]:
    """The file, 256 KiB at a time, read outside of the event loop."""
    try:
        async with await anyio.open_file(path, "rb") as file:
            while chunk := await file.read(CHUNK):
                yield chunk
    except OSError as error:
        raise refused(f"{path} cannot be read ({error.strerror})") from None


def refused(what: str) -> InvalidArguments:
    """The error for a request that cannot be put on the wire."""
    return InvalidArguments(f"The request cannot be sent: {what}.", hint="Correct the argument, then call again.")
