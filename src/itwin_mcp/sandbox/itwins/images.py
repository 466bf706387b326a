"""Images of iTwins: the uploaded image and a small one made from it, both behind signed links."""

from __future__ import annotations

import sqlite3
import uuid
from typing import Final

from itwin_mcp.sandbox import access
from itwin_mcp.sandbox.errors import ApiError, make_itwins_problems
from itwin_mcp.sandbox.pictures import placeholders, uploads
from itwin_mcp.sandbox.storage import blobs
from itwin_mcp.sandbox.wire import Answer, Call, Json, created, no_content, ok

MAX_ASPECT: Final = 5
LINK_SECONDS: Final = 24 * 3600  # "valid for a minimum of 1 hour" (get-itwin-image)


def get_image(call: Call) -> Answer:
    return ok({"image": _render_image(call, _find_image(call, access.find_itwin(call, call.slots["iTwinId"])["id"]))})


def upload_image(call: Call) -> Answer:
    """Store a PNG or JPEG of at most 5 MB. Neither side may be longer than five times the other."""
    itwin = access.require_itwin(call, call.slots["iTwinId"], access.ITWINS_MODIFY)
    problems = make_itwins_problems("Cannot create iTwin Image.")
    if len(call.body) > uploads.MAX_BYTES:
        raise ApiError("RequestTooLarge")
    media_type = call.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not media_type:
        problems.add("MissingRequiredHeader", "Required header is missing.", "Content-Type")
    elif media_type not in uploads.MEDIA_TYPES:
        problems.add("InvalidHeaderValue", "The Content-Type must be image/png or image/jpeg.", "Content-Type")
    if not call.body:
        problems.add("MissingRequestBody", "Request body was not provided.")
    problems.raise_if_any()
    try:
        image, kind = uploads.read_picture(call.body)
    except uploads.PictureError:
        problems.fail("InvalidRequestBody", "The request body is not a valid png or jpeg image.")
    if max(image.size) > MAX_ASPECT * min(image.size):
        message = "The width or height dimensions of the image cannot be greater than 5 times the size of each other."
        problems.fail("InvalidValue", message, "image")
    remove_image(call, itwin["id"])
    image_id = str(uuid.uuid4())
    small = blobs.store_blob(call, uploads.reduce_picture(image, kind, placeholders.SMALL), f"image/{kind}")
    large = blobs.store_blob(call, call.body, f"image/{kind}")
    call.sql.execute(
        "INSERT INTO itwin_images (itwin_id, id, small_name, small_blob, large_name, large_blob) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (itwin["id"], image_id, f"small_{image_id}.{kind}", small, f"large_{image_id}.{kind}", large),
    )
    return created({"image": _render_image(call, _find_image(call, itwin["id"]))})


def delete_image(call: Call) -> Answer:
    itwin = access.require_itwin(call, call.slots["iTwinId"], access.ITWINS_MODIFY)
    _find_image(call, itwin["id"])
    remove_image(call, itwin["id"])
    return no_content()


def _find_image(call: Call, itwin_id: str) -> sqlite3.Row:
    return call.require_one("ImageNotFound", "SELECT * FROM itwin_images WHERE itwin_id = ?", itwin_id)


def remove_image(call: Call, itwin_id: str) -> None:
    """Delete the image of an iTwin and its files, if there is one."""
    row = call.fetch_one("SELECT * FROM itwin_images WHERE itwin_id = ?", itwin_id)
    if row is not None:
        blobs.delete_blob(call, row["small_blob"])
        blobs.delete_blob(call, row["large_blob"])
        call.sql.execute("DELETE FROM itwin_images WHERE itwin_id = ?", (itwin_id,))


def _render_image(call: Call, row: sqlite3.Row) -> Json:
    return {
        "id": row["id"],
        "smallImageName": row["small_name"],
        "smallImageUrl": blobs.make_link(call, row["small_blob"], seconds=LINK_SECONDS)["href"],
        "largeImageName": row["large_name"],
        "largeImageUrl": blobs.make_link(call, row["large_blob"], seconds=LINK_SECONDS)["href"],
    }
