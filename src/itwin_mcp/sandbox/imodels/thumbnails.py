"""Thumbnails of iModels: a small and a large PNG, uploaded or a placeholder."""

from __future__ import annotations

from typing import Final

from itwin_mcp.sandbox import access
from itwin_mcp.sandbox.errors import ApiError, make_imodels_problems
from itwin_mcp.sandbox.pictures import placeholders, uploads
from itwin_mcp.sandbox.wire import Answer, Call

_SIZES: Final = {"small": placeholders.SMALL, "large": placeholders.LARGE}


def get_thumbnail(call: Call) -> Answer:
    """Return the thumbnail as PNG, in the size that the query names. The default is small."""
    imodel = access.require_imodel(call, access.WEBVIEW)
    problems = make_imodels_problems("Cannot get Thumbnail.")
    size = (call.query.get("size") or "small").lower()
    if size not in _SIZES:
        problems.add_invalid("size", "Valid values are small, large.")
    problems.raise_if_any()
    row = call.fetch_one("SELECT small, large FROM thumbnails WHERE imodel_id = ?", imodel["id"])
    if row is not None:
        return Answer(200, bytes(row[size]), media_type="image/png")
    words = f"{imodel['name']} {imodel['description'] or ''}"
    return Answer(
        200,
        placeholders.read_placeholder(placeholders.choose_placeholder(imodel["id"], words, _SIZES[size])),
        media_type="image/png",
    )


def upload_thumbnail(call: Call) -> Answer:
    """Store a PNG or JPEG of at most 5 MB as a PNG of both sizes. The answer is 201 without a body."""
    imodel = access.require_imodel(call, access.MANAGE)
    if len(call.body) > uploads.MAX_BYTES:
        raise ApiError("RequestTooLarge")
    problems = make_imodels_problems("Cannot upload Thumbnail.")
    media_type = call.headers.get("content-type", "").partition(";")[0].strip().lower()
    supported = "'image/jpeg', 'image/png'"
    if not media_type:
        problems.add("MissingRequiredHeader", "Required header is missing.", "content-type")
    elif media_type not in uploads.MEDIA_TYPES:
        message = f"'{media_type}' is not supported 'content-type'. Supported media types are {supported}."
        problems.add("InvalidHeaderValue", message, "content-type")
    problems.raise_if_any()
    try:
        image, _ = uploads.read_picture(call.body)
    except uploads.PictureError:
        message = f"Invalid Thumbnail format. Please use one of the supported media formats: {supported}."
        problems.fail("InvalidRequestBody", message, inner_code="InvalidThumbnailFormat")
    call.sql.execute(
        "INSERT OR REPLACE INTO thumbnails (imodel_id, small, large) VALUES (?, ?, ?)",
        (imodel["id"], uploads.fit_to_png(image, placeholders.SMALL), uploads.fit_to_png(image, placeholders.LARGE)),
    )
    return Answer(201)
