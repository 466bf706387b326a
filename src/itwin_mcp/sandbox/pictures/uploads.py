"""Read and resize the pictures that users upload.

Pillow is imported with the first upload, because the desktop extension does not install it.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from typing import TYPE_CHECKING, Final

from itwin_mcp.sandbox.errors import ApiError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_BYTES: Final = 5 << 20  # upload-imodel-thumbnail and upload-itwin-image
MEDIA_TYPES: Final = ("image/jpeg", "image/png")


class PictureError(Exception):
    """The bytes are not a PNG or JPEG that can be read."""


def read_picture(content: bytes) -> tuple[Image, str]:
    """Return an uploaded picture and its format, "png" or "jpeg".

    Raises:
        PictureError: If it cannot be read.
        ApiError: `NotEmulated`, if Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError:
        message = "This sandbox cannot read uploaded pictures because Pillow is not installed (pip install pillow)."
        raise ApiError("NotEmulated", message) from None

    try:
        with warnings.catch_warnings():
            # Reject a picture that decompresses to gigabytes. By default Pillow only warns.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=("PNG", "JPEG"))
            image.load()
    except (
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        struct.error,
        zlib.error,
    ) as error:
        raise PictureError from error
    return image, (image.format or "").lower()


def fit_to_png(image: Image, size: tuple[int, int]) -> bytes:
    """Return the picture as a PNG of exactly that size. A picture of another shape is cropped."""
    from PIL import Image, ImageOps

    return _encode(ImageOps.fit(image.convert("RGBA"), size, Image.Resampling.LANCZOS), "png")


def reduce_picture(image: Image, kind: str, within: tuple[int, int]) -> bytes:
    """Return the picture in its own format and shape, reduced to fit into `within`."""
    small = image.convert("RGB" if kind == "jpeg" else "RGBA")
    small.thumbnail(within)
    return _encode(small, kind)


def _encode(image: Image, kind: str) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, optimize=True)
    return content.getvalue()
