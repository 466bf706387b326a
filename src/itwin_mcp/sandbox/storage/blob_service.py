"""The storage service's HTTP interface: Azure Blob Storage, authorized by signed URLs only.

It serves Put Blob, Put Block, Put Block List, Get Blob and Get Blob Properties, which is what the Azure SDK in
Bentley's @itwin/object-storage-azure needs (learn.microsoft.com/rest/api/storageservices). A blob has at most 2 GiB. A
block list may only name blocks staged since the last commit. Metadata, tags and leases are not supported. Other
requests wait while a body is being stored.
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

from itwin_mcp.sandbox.storage import blobs
from itwin_mcp.sandbox.store import parse_timestamp
from itwin_mcp.sandbox.wire import Answer, Call, Stream

MAX_BLOB_BYTES: Final = 2 << 30
_MAX_BLOCK_LIST_BYTES: Final = 8 << 20
_NOT_XML: Final = re.compile(r"[^\t\n\x20-\ud7ff]")  # allowed in a request header, but not in XML
_FAILED: Final = (
    "Server failed to authenticate the request. Make sure the value of Authorization header is formed correctly "
    "including the signature."
)
# The storage service's own codes -> (HTTP status, message)
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
    """An error answer in the storage service's XML. `members` are further elements, such as `HeaderName`."""

    def __init__(self, code: str, **members: str) -> None:
        self.code = code
        self.status, self.message = _ERRORS[code]
        self.members = members
        super().__init__(f"{self.status} {code}: {self.message}")


def _with_service_headers(handler: Callable[[Call], Answer]) -> Callable[[Call], Answer]:
    """Add the service's headers to a handler's answer, and turn a StorageError into an answer.

    The transaction is committed even after a StorageError, so a handler must make all of its checks before it writes.
    """

    @wraps(handler)
    def serve(call: Call) -> Answer:
        request_id = str(uuid.uuid4())
        headers = {
            "x-ms-request-id": request_id,
            "x-ms-version": call.headers.get("x-ms-version", blobs.SERVICE_VERSION),
        }
        if client_id := call.headers.get("x-ms-client-request-id"):
            headers["x-ms-client-request-id"] = client_id
        try:
            answer = handler(call)
        except StorageError as error:
            headers["x-ms-error-code"] = error.code
            return Answer(error.status, _render_error(call, error, request_id), headers, "application/xml")
        return Answer(answer.status, answer.body, headers | dict(answer.headers), answer.media_type)

    return serve


@_with_service_headers
def get_blob(call: Call) -> Answer:
    """Serve Get Blob and Get Blob Properties, with ranges and entity tags."""
    blob_id = _authorize(call, blobs.READ_PERMISSION)
    if call.query.get("comp"):
        raise StorageError("NotImplemented")
    content = blobs.find_content(call.sql, blob_id)
    if content is None:
        raise StorageError("BlobNotFound")
    headers = _make_validators(content) | {
        "Accept-Ranges": "bytes",
        "x-ms-blob-type": "BlockBlob",
        "x-ms-server-encrypted": "true",
        "x-ms-lease-state": "available",
        "x-ms-lease-status": "unlocked",
    }
    if _matches_etag(call, "if-none-match", content):
        return Answer(304, None, headers)
    if "if-match" in call.headers and not _matches_etag(call, "if-match", content):
        raise StorageError("ConditionNotMet")
    if call.method == "HEAD":
        headers |= _make_digest_header("Content-MD5", content)
        return Answer(200, None, headers | {"Content-Length": str(content.size), "Content-Type": content.content_type})
    byte_range = _read_range(call)
    first, length = byte_range or (0, content.size)
    if byte_range and first >= content.size:
        raise StorageError("InvalidRange")
    length = min(length, content.size - first)
    # With a range, the digest of the whole blob has another header.
    headers |= _make_digest_header("x-ms-blob-content-md5" if byte_range else "Content-MD5", content)
    if byte_range:
        headers["Content-Range"] = f"bytes {first}-{first + length - 1}/{content.size}"

    def read(sql: sqlite3.Connection, offset: int, size: int) -> bytes:
        return blobs.read_content(sql, content, first + offset, size)

    return Answer(206 if byte_range else 200, Stream(length, read), headers, content.content_type)


@_with_service_headers
def put_blob(call: Call) -> Answer:
    """Serve Put Blob, Put Block or Put Block List, depending on the query parameter `comp`."""
    blob_id = _authorize(call, blobs.WRITE_PERMISSION)
    if "content-length" not in call.headers:
        raise StorageError("MissingContentLengthHeader")
    if not blobs.blob_exists(call.sql, blob_id):
        raise StorageError("BlobNotFound")
    comp = (call.query.get("comp") or "").lower()
    if comp == "block":
        return _put_block(call, blob_id)
    if comp == "blocklist":
        return _put_block_list(call, blob_id)
    if comp:
        raise StorageError("NotImplemented")
    blob_type = call.headers.get("x-ms-blob-type")
    if blob_type is None:
        raise StorageError("MissingRequiredHeader", HeaderName="x-ms-blob-type")
    if blob_type != "BlockBlob":
        raise StorageError("InvalidHeaderValue", HeaderName="x-ms-blob-type", HeaderValue=blob_type)
    _check_conditions(call, blob_id)
    content_id, size, md5 = _store_body(call)
    content_type = call.headers.get("x-ms-blob-content-type") or call.headers.get("content-type")
    blobs.replace_content(call.sql, blob_id, content_id, size, md5, content_type, call.timestamp)
    return _answer_written(call, blob_id, {"Content-MD5": base64.b64encode(md5).decode("ascii")})


def _put_block(call: Call, blob_id: str) -> Answer:
    block_id = call.query.get("blockid") or ""
    if not 0 < len(_decode_base64(block_id)) <= 64:
        raise StorageError("InvalidBlockId")
    content_id, size, md5 = _store_body(call)
    previous = call.fetch_one(
        "SELECT content_id FROM blob_blocks WHERE blob_id = ? AND block_id = ?", blob_id, block_id
    )
    if previous is not None:
        blobs.delete_content(call.sql, previous["content_id"])
    call.sql.execute(
        "INSERT OR REPLACE INTO blob_blocks (blob_id, block_id, content_id, size) VALUES (?, ?, ?, ?)",
        (blob_id, block_id, content_id, size),
    )
    headers = {"Content-MD5": base64.b64encode(md5).decode("ascii"), "x-ms-request-server-encrypted": "true"}
    return Answer(201, None, headers)


def _put_block_list(call: Call, blob_id: str) -> Answer:
    _check_conditions(call, blob_id)
    text = call.upload.read(_MAX_BLOCK_LIST_BYTES).decode("utf-8", "replace") if call.upload else ""
    if "<BlockList" not in text:
        raise StorageError("InvalidBlockList")
    pieces: list[tuple[str, int]] = []
    for block_id in re.findall(r"<(?:Latest|Uncommitted|Committed)>\s*([^<]*?)\s*</", text):
        row = call.fetch_one("SELECT * FROM blob_blocks WHERE blob_id = ? AND block_id = ?", blob_id, block_id)
        if row is None:
            raise StorageError("InvalidBlockList")
        pieces.append((row["content_id"], row["size"]))
    if sum(size for _, size in pieces) > MAX_BLOB_BYTES:
        raise _make_too_large_error()
    content_id, size = blobs.join_contents(call.sql, pieces)
    md5 = _read_md5_header(call, "x-ms-blob-content-md5")  # stored unchecked, as Azure does
    blobs.replace_content(
        call.sql, blob_id, content_id, size, md5, call.headers.get("x-ms-blob-content-type"), call.timestamp
    )
    return _answer_written(call, blob_id, {})


def _authorize(call: Call, permission: str) -> str:
    """Return the blob id of a signed link that grants the permission.

    Raises:
        StorageError: If the link is not ours, has expired or grants something else, or a bearer token is sent along.
    """
    if "authorization" in call.headers:
        # Azure checks this header first. A client that sends its bearer token here leaks it, so reject the request.
        raise StorageError("InvalidAuthenticationInfo")
    blob_id, expires = call.slots["blob"], call.query.get("se") or ""
    permissions = call.query.get("sp") or ""
    signature = blobs.sign_link(call.sql, blob_id, permissions, expires)
    if call.slots["container"] != blobs.CONTAINER or not hmac.compare_digest(
        signature.encode(), (call.query.get("sig") or "").encode()
    ):
        raise StorageError("AuthenticationFailed", AuthenticationErrorDetail="Signature did not match.")
    if f"{call.now:%Y-%m-%dT%H:%M:%SZ}" >= expires:
        detail = f"Signature not valid in the specified time frame: Expiry [{expires}] - Current [{call.timestamp}]"
        raise StorageError("AuthenticationFailed", AuthenticationErrorDetail=detail)
    if permissions != permission:
        raise StorageError("AuthorizationPermissionMismatch")
    return blob_id


def _store_body(call: Call) -> tuple[str, int, bytes]:
    """Store the request's body as new content and return its id, size and MD5.

    Raises:
        StorageError: If the body is too large or differs from its Content-MD5.
    """
    upload, expected_md5 = call.upload, _read_md5_header(call, "content-md5")
    content_id, size, md5 = blobs.write_content(
        call.sql, iter(lambda: upload.read(blobs.CHUNK_BYTES) if upload else b"", b"")
    )
    if size > MAX_BLOB_BYTES or expected_md5 not in (None, md5):
        blobs.delete_content(call.sql, content_id)
        raise StorageError("Md5Mismatch") if size <= MAX_BLOB_BYTES else _make_too_large_error()
    return content_id, size, md5


def _make_too_large_error() -> StorageError:
    return StorageError("RequestBodyTooLarge", MaxLimit=str(MAX_BLOB_BYTES))


def _check_conditions(call: Call, blob_id: str) -> None:
    """Check the headers If-None-Match and If-Match of an upload."""
    content = blobs.find_content(call.sql, blob_id)
    if content is not None and call.headers.get("if-none-match") == "*":
        raise StorageError("BlobAlreadyExists")
    if "if-match" in call.headers and (content is None or not _matches_etag(call, "if-match", content)):
        raise StorageError("ConditionNotMet")


def _answer_written(call: Call, blob_id: str, headers: Mapping[str, str]) -> Answer:
    content = blobs.find_content(call.sql, blob_id)
    assert content is not None
    return Answer(201, None, _make_validators(content) | {"x-ms-request-server-encrypted": "true"} | dict(headers))


def _make_validators(content: blobs.BlobContent) -> dict[str, str]:
    modified = format_datetime(parse_timestamp(content.modified_at).replace(microsecond=0), usegmt=True)
    return {"ETag": content.etag, "Last-Modified": modified}


def _make_digest_header(name: str, content: blobs.BlobContent) -> dict[str, str]:
    return {} if content.md5 is None else {name: base64.b64encode(content.md5).decode("ascii")}


def _matches_etag(call: Call, header: str, content: blobs.BlobContent) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in call.headers.get(header, "").split(",")]
    return "*" in tags or content.etag in tags


def _read_md5_header(call: Call, name: str) -> bytes | None:
    text = call.headers.get(name)
    if text is None:
        return None
    digest = _decode_base64(text)
    if len(digest) != 16:
        raise StorageError("InvalidHeaderValue", HeaderName=name, HeaderValue=text)
    return digest


def _decode_base64(text: str) -> bytes:
    """Return the decoded bytes, or none if the text is malformed."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _read_range(call: Call) -> tuple[int, int] | None:
    """Return the first byte and the length of the requested range, or None.

    Like Azure, accept `bytes=a-` and `bytes=a-b` and ignore other forms.
    """
    text = call.headers.get("x-ms-range") or call.headers.get("range") or ""
    match = re.fullmatch(r"bytes=([0-9]{1,15})-([0-9]{1,15})?", text.strip())
    if match is None:
        return None
    first = int(match[1])
    last = int(match[2]) if match[2] else MAX_BLOB_BYTES
    return (first, last - first + 1) if last >= first else None


def _render_error(call: Call, error: StorageError, request_id: str) -> bytes | None:
    if call.method == "HEAD":
        return None
    message = f"{error.message}\nRequestId:{request_id}\nTime:{call.timestamp}"
    elements = {"Code": error.code, "Message": message} | error.members
    inner = "".join(f"<{name}>{escape(_NOT_XML.sub('?', text))}</{name}>" for name, text in elements.items())
    return f'<?xml version="1.0" encoding="utf-8"?><Error>{inner}</Error>'.encode()
