"""The image of an iTwin: the one that was uploaded and a small one made from it, both by signed links."""

from __future__ import annotations

import sqlite3
import uuid
from typing import Final

from itwin_mcp.sandbox import access, files, pictures
from itwin_mcp.sandbox.errors import ApiError, itwins_problems
from itwin_mcp.sandbox.wire import Answer, Call, Json, Route, created, no_content, ok

MOST_ASPECT: Final = 5
LINK_SECONDS: Final = 24 * 3600  # "valid for a minimum of 1 hour" (get-itwin-image)


def get(call: Call) -> Answer:
    """get-itwin-image: for every member."""
    return ok({"image": _render(call, _row(call, access.itwin(call, call.slots["iTwinId"])["id"]))})


def upload(call: Call) -> Answer:
    """upload-itwin-image: png or jpeg of at most 5 MB, neither side longer than five times the other."""
    itwin = access.itwin_for(call, call.slots["iTwinId"], access.ITWINS_MODIFY)
    problems = itwins_problems("Cannot create iTwin Image.")
    if len(call.body) > pictures.MOST_BYTES:
        raise ApiError("RequestTooLarge")
    media_type = call.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not media_type:
        problems.add("MissingRequiredHeader", "Required header is missing.", "Content-Type")
    elif media_type not in pictures.MEDIA_TYPES:
        problems.add("InvalidHeaderValue", "The Content-Type must be image/png or image/jpeg.", "Content-Type")
    if not call.body:
        problems.add("MissingRequestBody", "Request body was not provided.")
    problems.refuse()
    try:
        image, kind = pictures.read(call.body)
    except pictures.PictureError:
        problems.add("InvalidRequestBody", "The request body is not a valid png or jpeg image.")
        problems.refuse()
        raise
    if max(image.size) > MOST_ASPECT * min(image.size):
        message = "The width or height dimensions of the image cannot be greater than 5 times the size of each other."
        problems.add("InvalidValue", message, "image")
        problems.refuse()
    forget(call, itwin["id"])
    image_id = str(uuid.uuid4())
    small = files.put(call, pictures.reduced(image, kind, pictures.SMALL), f"image/{kind}")
    large = files.put(call, call.body, f"image/{kind}")
    call.sql.execute(
        "INSERT INTO itwin_images (itwin_id, id, small_name, small_blob, large_name, large_blob) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (itwin["id"], image_id, f"small_{image_id}.{kind}", small, f"large_{image_id}.{kind}", large),
    )
    return created({"image": _render(call, _row(call, itwin["id"]))})


def delete(call: Call) -> Answer:
    """delete-itwin-image."""
    itwin = access.itwin_for(call, call.slots["iTwinId"], access.ITWINS_MODIFY)
    _row(call, itwin["id"])
    forget(call, itwin["id"])
    return no_content()


def _row(call: Call, itwin_id: str) -> sqlite3.Row:
    row = call.one("SELECT * FROM itwin_images WHERE itwin_id = ?", itwin_id)
    if row is None:
        raise ApiError("ImageNotFound")
    return row


def forget(call: Call, itwin_id: str) -> None:
    """Remove the image, if there is one, and its files."""
    row = call.one("SELECT * FROM itwin_images WHERE itwin_id = ?", itwin_id)
    if row is not None:
        files.delete(call, row["small_blob"])
        files.delete(call, row["large_blob"])
        call.sql.execute("DELETE FROM itwin_images WHERE itwin_id = ?", (itwin_id,))


def _render(call: Call, row: sqlite3.Row) -> Json:
    return {
        "id": row["id"],
        "smallImageName": row["small_name"],
        "smallImageUrl": files.link(call, row["small_blob"], seconds=LINK_SECONDS)["href"],
        "largeImageName": row["large_name"],
        "largeImageUrl": files.link(call, row["large_blob"], seconds=LINK_SECONDS)["href"],
    }


_PATH: Final = "/itwins/{iTwinId}/image"
ROUTES: Final = (
    Route("GET", _PATH, get, slug="get-itwin-image"),
    Route("PUT", _PATH, upload, slug="upload-itwin-image"),
    Route("DELETE", _PATH, delete, slug="delete-itwin-image"),
)
