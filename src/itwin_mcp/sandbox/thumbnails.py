"""Thumbnails of iModels, always png: small and large, drawn by the sandbox until somebody uploads one."""

from __future__ import annotations

from typing import Final

from itwin_mcp.sandbox import access, pictures
from itwin_mcp.sandbox.errors import ApiError, imodels_problems
from itwin_mcp.sandbox.wire import Answer, Call, Route

_SIZES: Final = {"small": pictures.SMALL, "large": pictures.LARGE}


def get(call: Call) -> Answer:
    """get-imodel-thumbnail: small unless `size` says large."""
    imodel = access.imodel(call, access.WEBVIEW)
    problems = imodels_problems("Cannot get Thumbnail.")
    size = (call.query.get("size") or "small").lower()
    if size not in _SIZES:
        problems.invalid("size", "Valid values are small, large.")
    problems.refuse()
    row = call.one("SELECT small, large FROM thumbnails WHERE imodel_id = ?", imodel["id"])
    if row is not None:
        return Answer(200, bytes(row[size]), media_type="image/png")
    words = f"{imodel['name']} {imodel['description'] or ''}"
    return Answer(200, pictures.draw(pictures.recipe(imodel["id"], words, _SIZES[size])), media_type="image/png")


def upload(call: Call) -> Answer:
    """upload-imodel-thumbnail: png or jpeg of at most 5 MB, stored as png; 201 without a body."""
    imodel = access.imodel(call, access.MANAGE)
    if len(call.body) > pictures.MOST_BYTES:
        raise ApiError("RequestTooLarge")
    problems = imodels_problems("Cannot upload Thumbnail.")
    media_type = call.headers.get("content-type", "").partition(";")[0].strip().lower()
    known = "'image/jpeg', 'image/png'"
    if not media_type:
        problems.add("MissingRequiredHeader", "Required header is missing.", "content-type")
    elif media_type not in pictures.MEDIA_TYPES:
        message = f"'{media_type}' is not supported 'content-type'. Supported media types are {known}."
        problems.add("InvalidHeaderValue", message, "content-type")
    problems.refuse()
    try:
        image, _ = pictures.read(call.body)
    except pictures.PictureError:
        message = f"Invalid Thumbnail format. Please use one of the supported media formats: {known}."
        problems.add("InvalidRequestBody", message, inner_code="InvalidThumbnailFormat")
        problems.refuse()
        raise
    call.sql.execute(
        "INSERT OR REPLACE INTO thumbnails (imodel_id, small, large) VALUES (?, ?, ?)",
        (imodel["id"], pictures.fitted(image, pictures.SMALL), pictures.fitted(image, pictures.LARGE)),
    )
    return Answer(201)


_PATH: Final = "/imodels/{iModelId}/thumbnail"
ROUTES: Final = (
    Route("GET", _PATH, get, slug="get-imodel-thumbnail"),
    Route("PUT", _PATH, upload, slug="upload-imodel-thumbnail"),
)
