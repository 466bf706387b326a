"""The storage service that links lead to: Azure Blob Storage's requests, headers and XML errors, by signed URL only.

Served are Put Blob, Put Block, Put Block List, Get Blob and Get Blob Properties, which is what the Azure SDK beneath
Bentley's @itwin/object-storage-azure needs (learn.microsoft.com/rest/api/storageservices). Limits: a blob is at most 2
GiB, a block list names only blocks staged since the last commit, metadata, tags and leases do not exist, and while a
body is being stored every other request waits.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import sqlite3
import uuid
from collections.abc import Callable, Mapping
from email.utils import format_datetime
from functools import wraps
from typing import Final
from xml.sax.saxutils import escape

from itwin_mcp.sandbox import files
from itwin_mcp.sandbox.store import moment_of
from itwin_mcp.sandbox.wire import Answer, Call, Route, Stream

MOST_BYTES: Final = 2 << 30
_MOST_LIST: Final = 8 << 20
_NOT_XML: Final = re.compile(r"[^\t\n\x20-\ud7ff]")  # what a header of the request may hold, but no XML
_FAILED: Final = (
    "Server failed to authenticate the request. Make sure the value of Authorization header is formed correctly "
    "including the signature."
)
# code -> (HTTP status, message), the storage service's own
_ERRORS: Final[Mapping[str, tuple[int, str]]] = {
    "AuthenticationFailed": (403, _FAILED),
    "AuthorizationPermissionMismatch": (
        403,
        "This request is not authorized to perform this operation using this permission.",
    ),
    "BlobAlreadyExists": (409, "The specified blob already exists."),
    "BlobNotFound": (404, "The specified blob does not exist."),
    "ConditionNotMet": (412, "The condition specified using HTTP conditional header(s) is not met."),
    "InvalidAuthenticationInfo": (
        401,
        "Authentication information is not given in the correct format. Check the value of Authorization header.",
    ),
    "InvalidBlockId": (400, "The specified block ID is invalid. The block ID must be Base64-encoded."),
    "InvalidBlockList": (400, "The specified block list is invalid."),
    "InvalidHeaderValue": (400, "The value for one of the HTTP headers is not in the correct format."),
    "InvalidRange": (416, "The range specified is invalid for the current size of the resource."),
    "Md5Mismatch": (
        400,
        "The MD5 value specified in the request did not match with the MD5 value calculated by the server.",
    ),
    "MissingContentLengthHeader": (411, "Content-Length HTTP header is required for this request."),
    "MissingRequiredHeader": (400, "An HTTP header that's mandatory for this request is not specified."),
    "NotImplemented": (501, "The requested operation is not implemented on the specified resource."),
    "RequestBodyTooLarge": (413, "The request body is too large and exceeds the maximum permissible limit."),
}


class StorageError(Exception):
    """A refusal in the storage service's XML; `members` are further elements, such as the name of a header."""

    def __init__(self, code: str, **members: str) -> None:
        self.code = code
        self.status, self.message = _ERRORS[code]
        self.members = members
        super().__init__(f"{self.status} {code}: {self.message}")


def _served(handler: Callable[[Call], Answer]) -> Callable[[Call], Answer]:
    """The headers that every answer of the service has, and its refusals; handlers write only after their checks."""

    @wraps(handler)
    def serve(call: Call) -> Answer:
        request_id = str(uuid.uuid4())
        headers = {"x-ms-request-id": request_id, "x-ms-version": call.headers.get("x-ms-version", files.VERSION)}
        if client_id := call.headers.get("x-ms-client-request-id"):
            headers["x-ms-client-request-id"] = client_id
        try:
            answer = handler(call)
        except StorageError as error:
            headers["x-ms-error-code"] = error.code
            return Answer(error.status, _xml(call, error, request_id), headers, "application/xml")
        return Answer(answer.status, answer.body, headers | dict(answer.headers), answer.media_type)

    return serve


@_served
def get(call: Call) -> Answer:
    """Get Blob and Get Blob Properties: whole or a range, unless a condition says otherwise."""
    blob_id = _admitted(call, files.READ)
    if call.query.get("comp"):
        raise StorageError("NotImplemented")
    content = files.find(call.sql, blob_id)
    if content is None:
        raise StorageError("BlobNotFound")
    headers = _validators(content) | {
        "Accept-Ranges": "bytes",
        "x-ms-blob-type": "BlockBlob",
        "x-ms-server-encrypted": "true",
        "x-ms-lease-state": "available",
        "x-ms-lease-status": "unlocked",
    }
    if _matches(call, "if-none-match", content):
        return Answer(304, None, headers)
    if "if-match" in call.headers and not _matches(call, "if-match", content):
        raise StorageError("ConditionNotMet")
    if call.method == "HEAD":
        headers |= _digest("Content-MD5", content)
        return Answer(200, None, headers | {"Content-Length": str(content.size), "Content-Type": content.content_type})
    asked = _range(call)
    first, length = asked or (0, content.size)
    if asked and first >= content.size:
        raise StorageError("InvalidRange")
    length = min(length, content.size - first)
    # The whole blob's digest travels under another name with a part of it.
    headers |= _digest("x-ms-blob-content-md5" if asked else "Content-MD5", content)
    if asked:
        headers["Content-Range"] = f"bytes {first}-{first + length - 1}/{content.size}"

    def read(sql: sqlite3.Connection, offset: int, size: int) -> bytes:
        return files.read(sql, content, first + offset, size)

    return Answer(206 if asked else 200, Stream(length, read), headers, content.content_type)


@_served
def put(call: Call) -> Answer:
    """Put Blob, Put Block or Put Block List, as `comp` says."""
    blob_id = _admitted(call, files.WRITE)
    if "content-length" not in call.headers:
        raise StorageError("MissingContentLengthHeader")
    if not files.exists(call.sql, blob_id):
        raise StorageError("BlobNotFound")
    comp = (call.query.get("comp") or "").lower()
    if comp == "block":
        return _put_block(call, blob_id)
    if comp == "blocklist":
        return _put_block_list(call, blob_id)
    if comp:
        raise StorageError("NotImplemented")
    kind = call.headers.get("x-ms-blob-type")
    if kind is None:
        raise StorageError("MissingRequiredHeader", HeaderName="x-ms-blob-type")
    if kind != "BlockBlob":
        raise StorageError("InvalidHeaderValue", HeaderName="x-ms-blob-type", HeaderValue=kind)
    _check_absent(call, blob_id)
    content_id, size, md5 = _receive(call)
    given = call.headers.get("x-ms-blob-content-type") or call.headers.get("content-type")
    files.replace(call.sql, blob_id, content_id, size, md5, given, call.stamp)
    return _written(call, blob_id, {"Content-MD5": base64.b64encode(md5).decode("ascii")})


def _put_block(call: Call, blob_id: str) -> Answer:
    block_id = call.query.get("blockid") or ""
    try:
        known = 0 < len(base64.b64decode(block_id, validate=True)) <= 64
    except (binascii.Error, ValueError):
        known = False
    if not known:
        raise StorageError("InvalidBlockId")
    content_id, size, md5 = _receive(call)
    earlier = call.one("SELECT content_id FROM blob_blocks WHERE blob_id = ? AND block_id = ?", blob_id, block_id)
    files.forget(call.sql, [earlier["content_id"]] if earlier else [])
    call.sql.execute(
        "INSERT OR REPLACE INTO blob_blocks (blob_id, block_id, content_id, size) VALUES (?, ?, ?, ?)",
        (blob_id, block_id, content_id, size),
    )
    headers = {"Content-MD5": base64.b64encode(md5).decode("ascii"), "x-ms-request-server-encrypted": "true"}
    return Answer(201, None, headers)


def _put_block_list(call: Call, blob_id: str) -> Answer:
    _check_absent(call, blob_id)
    text = call.upload.read(_MOST_LIST).decode("utf-8", "replace") if call.upload else ""
    if "<BlockList" not in text:
        raise StorageError("InvalidBlockList")
    pieces: list[tuple[str, int]] = []
    for block_id in re.findall(r"<(?:Latest|Uncommitted|Committed)>\s*([^<]*?)\s*</", text):
        row = call.one("SELECT * FROM blob_blocks WHERE blob_id = ? AND block_id = ?", blob_id, block_id)
        if row is None:
            raise StorageError("InvalidBlockList")
        pieces.append((row["content_id"], row["size"]))
    if sum(size for _, size in pieces) > MOST_BYTES:
        raise _too_large()
    content_id, size = files.join(call.sql, pieces)
    md5 = _md5_header(call, "x-ms-blob-content-md5")  # kept as given, the service does not check it
    files.replace(call.sql, blob_id, content_id, size, md5, call.headers.get("x-ms-blob-content-type"), call.stamp)
    return _written(call, blob_id, {})


def _admitted(call: Call, permission: str) -> str:
    """The blob of a link that we signed, that has not expired and that is for this; otherwise 401 or 403."""
    if "authorization" in call.headers:
        # The service looks at the header first: whoever sends the platform's bearer here leaks it, and is refused.
        raise StorageError("InvalidAuthenticationInfo")
    blob_id, expires = call.slots["blob"], call.query.get("se") or ""
    granted = call.query.get("sp") or ""
    expected = files.signature(call.sql, blob_id, granted, expires)
    if call.slots["container"] != files.CONTAINER or not hmac.compare_digest(
        expected.encode(), (call.query.get("sig") or "").encode()
    ):
        raise StorageError("AuthenticationFailed", AuthenticationErrorDetail="Signature did not match.")
    if f"{call.now:%Y-%m-%dT%H:%M:%SZ}" >= expires:
        detail = f"Signature not valid in the specified time frame: Expiry [{expires}] - Current [{call.stamp}]"
        raise StorageError("AuthenticationFailed", AuthenticationErrorDetail=detail)
    if granted != permission:
        raise StorageError("AuthorizationPermissionMismatch")
    return blob_id


def _receive(call: Call) -> tuple[str, int, bytes]:
    """Store the request's body as a new content, unless its size or digest is not what it must be."""
    upload, wanted = call.upload, _md5_header(call, "content-md5")
    content_id, size, md5 = files.write(call.sql, iter(lambda: upload.read(files.CHUNK) if upload else b"", b""))
    if size > MOST_BYTES or wanted not in (None, md5):
        files.forget(call.sql, [content_id])
        raise StorageError("Md5Mismatch") if size <= MOST_BYTES else _too_large()
    return content_id, size, md5


def _too_large() -> StorageError:
    return StorageError("RequestBodyTooLarge", MaxLimit=str(MOST_BYTES))


def _check_absent(call: Call, blob_id: str) -> None:
    content = files.find(call.sql, blob_id)
    if content is None:
        if "if-match" in call.headers:
            raise StorageError("ConditionNotMet")
        return
    if call.headers.get("if-none-match") == "*":
        raise StorageError("BlobAlreadyExists")
    if "if-match" in call.headers and not _matches(call, "if-match", content):
        raise StorageError("ConditionNotMet")


def _written(call: Call, blob_id: str, headers: Mapping[str, str]) -> Answer:
    content = files.find(call.sql, blob_id)
    assert content is not None
    return Answer(201, None, _validators(content) | {"x-ms-request-server-encrypted": "true"} | dict(headers))


def _validators(content: files.Content) -> dict[str, str]:
    modified = format_datetime(moment_of(content.modified_at).replace(microsecond=0), usegmt=True)
    return {"ETag": content.etag, "Last-Modified": modified}


def _digest(name: str, content: files.Content) -> dict[str, str]:
    return {} if content.md5 is None else {name: base64.b64encode(content.md5).decode("ascii")}


def _matches(call: Call, header: str, content: files.Content) -> bool:
    given = [tag.strip().removeprefix("W/") for tag in call.headers.get(header, "").split(",")]
    return "*" in given or content.etag in given


def _md5_header(call: Call, name: str) -> bytes | None:
    text = call.headers.get(name)
    if text is None:
        return None
    try:
        digest = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != 16:
        raise StorageError("InvalidHeaderValue", HeaderName=name, HeaderValue=text)
    return digest


def _range(call: Call) -> tuple[int, int] | None:
    """First byte and length; the service knows `bytes=a-` and `bytes=a-b`, and ignores whatever else there is."""
    text = call.headers.get("x-ms-range") or call.headers.get("range") or ""
    found = re.fullmatch(r"bytes=([0-9]{1,15})-([0-9]{1,15})?", text.strip())
    if found is None:
        return None
    first = int(found[1])
    last = int(found[2]) if found[2] else MOST_BYTES
    return (first, last - first + 1) if last >= first else None


def _xml(call: Call, error: StorageError, request_id: str) -> bytes | None:
    if call.method == "HEAD":
        return None
    message = f"{error.message}\nRequestId:{request_id}\nTime:{call.stamp}"
    elements = {"Code": error.code, "Message": message} | error.members
    inner = "".join(f"<{name}>{escape(_NOT_XML.sub('?', text))}</{name}>" for name, text in elements.items())
    return f'<?xml version="1.0" encoding="utf-8"?><Error>{inner}</Error>'.encode()


_PATH: Final = "/storage/{container}/{blob}"
ROUTES: Final = (
    Route("GET", _PATH, get, signed_in=False),
    Route("HEAD", _PATH, get, signed_in=False, writes=False),
    Route("PUT", _PATH, put, signed_in=False, streams=True),
)
