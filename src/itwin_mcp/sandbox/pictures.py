"""Pictures in flat colours, drawn from a recipe and the same every time, and the reading of pictures that are uploaded.

Pillow reads them, and is imported when the first comes: most sandboxes need none, and the desktop extension's has none.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from itwin_mcp.sandbox.canvas import Canvas, Point
from itwin_mcp.sandbox.errors import ApiError

if TYPE_CHECKING:
    from PIL.Image import Image

SMALL: Final = (400, 250)
LARGE: Final = (800, 500)
MOST_BYTES: Final = 5 << 20  # upload-imodel-thumbnail and upload-itwin-image
MEDIA_TYPES: Final = ("image/jpeg", "image/png")
# What a name speaks of -> what is drawn; the first that matches wins.
_MOTIFS: Final = (
    ("tunnel", r"tunnel|lining|shaft"),
    ("bridge", r"bridge|crossing|deck|viaduct|structure"),
    ("works", r"water|wtw|plant|drain|pump|harbour|process"),
    ("rails", r"rail|track|metro|station"),
    ("road", r"road|motorway|interchange|ramp|highway|corridor|noise|a\d+\b"),
)
# sky, sun, far, middle, near, structure, accent
_PALETTES: Final = (
    ("#cfe8f3", "#fff3c4", "#a9cbd8", "#7fae9b", "#56876d", "#33475b", "#f2a65a"),
    ("#fde4cf", "#ffd6a5", "#d8b4a0", "#a98c7d", "#7a6a5d", "#43423e", "#e76f51"),
    ("#dcd6f7", "#fdf6e3", "#b8b5e0", "#8d93c4", "#5d6d9e", "#2d3250", "#f6b17a"),
    ("#e3f2e1", "#fffbe0", "#b9d8b4", "#8fb996", "#5f8d6e", "#2f4f4a", "#d9a441"),
)


class PictureError(Exception):
    """The bytes are no picture that can be read."""


def recipe(key: str, words: str, size: tuple[int, int]) -> str:
    """What to draw for an entity: its key picks the colours, its name and description the motif."""
    motif = next((name for name, pattern in _MOTIFS if re.search(pattern, words.lower())), "towers")
    number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")
    return f"picture:{motif}:{number}:{size[0]}x{size[1]}"


@lru_cache(maxsize=128)
def draw(text: str) -> bytes:
    """The png of a recipe."""
    _, motif, number, size = text.split(":")
    width, height = (int(part) for part in size.split("x"))
    canvas = Canvas(width, height)
    scene = _Scene(canvas, width, height, int(number), detailed=width > SMALL[0])
    _landscape(scene)
    _DRAWN[motif](scene)
    return canvas.png()


def read(content: bytes) -> tuple[Image, str]:
    """An uploaded picture and its format, "png" or "jpeg"."""
    try:
        from PIL import Image
    except ImportError:
        message = "This sandbox reads no uploaded pictures: Pillow is not installed beside it (pip install pillow)."
        raise ApiError("NotEmulated", message) from None

    try:
        with warnings.catch_warnings():
            # A picture that unpacks to gigabytes is refused, not only warned about.
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


def fitted(image: Image, size: tuple[int, int]) -> bytes:
    """The picture as png in exactly that size, cut at its edges where its shape differs."""
    from PIL import Image, ImageOps

    return _png(ImageOps.fit(image.convert("RGBA"), size, Image.Resampling.LANCZOS))


def reduced(image: Image, kind: str, within: tuple[int, int]) -> bytes:
    """The picture in its own format and shape, no larger than that."""
    small = image.convert("RGB" if kind == "jpeg" else "RGBA")
    small.thumbnail(within)
    into = io.BytesIO()
    small.save(into, kind)
    return into.getvalue()


def _png(image: Image) -> bytes:
    into = io.BytesIO()
    image.save(into, "png", optimize=True)
    return into.getvalue()


class _Scene:
    """A canvas with shares of its width and height as coordinates, and a palette."""

    def __init__(self, canvas: Canvas, width: int, height: int, number: int, *, detailed: bool) -> None:
        self._canvas, self._width, self._height = canvas, width, height
        self.number, self.detailed = number, detailed
        self.sky, self.sun, self.far, self.middle, self.near, self.structure, self.accent = _PALETTES[
            number % len(_PALETTES)
        ]

    def _at(self, x: float, y: float) -> Point:
        return x * self._width, y * self._height

    def shape(self, colour: str, *points: Point) -> None:
        self._canvas.polygon(colour, [self._at(*point) for point in points])

    def box(self, colour: str, left: float, top: float, right: float, bottom: float) -> None:
        self.shape(colour, (left, top), (right, top), (right, bottom), (left, bottom))

    def disc(self, colour: str, x: float, y: float, radius: float) -> None:
        self._canvas.disc(colour, self._at(x, y), radius * self._height)

    def line(self, colour: str, thickness: float, *points: Point) -> None:
        self._canvas.line(colour, max(1, thickness * self._height), [self._at(*point) for point in points])


def _landscape(scene: _Scene) -> None:
    scene.box(scene.sky, 0, 0, 1, 1)
    scene.disc(scene.sun, 0.2 + (scene.number >> 4) % 60 / 100, 0.24, 0.1)
    shift = (scene.number >> 8) % 100 / 100
    for colour, base, rise, waves in ((scene.far, 0.52, 0.1, 1.4), (scene.middle, 0.63, 0.06, 2.1)):
        steps = [(i / 40, base + rise * math.sin(waves * math.pi * (i / 40 + shift))) for i in range(41)]
        scene.shape(colour, *steps, (1, 1), (0, 1))
    scene.box(scene.near, 0, 0.78, 1, 1)
    if scene.detailed:
        for i in range(3):  # birds
            x, y = 0.55 + 0.07 * i, 0.16 + 0.04 * (i % 2)
            scene.line(scene.structure, 0.005, (x - 0.015, y - 0.01), (x, y), (x + 0.015, y - 0.01))


def _bridge(scene: _Scene) -> None:
    scene.box(scene.sky, 0, 0.82, 1, 1)
    for pylon in (0.3, 0.7):
        for i in range(1, 9 if scene.detailed else 6):
            reach = 0.19 * i / (8 if scene.detailed else 5)
            for side in (-reach, reach):
                scene.line(scene.accent, 0.006, (pylon, 0.2 + 0.01 * i), (pylon + side, 0.66))
        scene.shape(
            scene.structure, (pylon - 0.018, 0.9), (pylon - 0.008, 0.16), (pylon + 0.008, 0.16), (pylon + 0.018, 0.9)
        )
    scene.box(scene.structure, 0, 0.65, 1, 0.69)
    scene.box(scene.accent, 0, 0.645, 1, 0.655)
    if scene.detailed:
        for i in range(6):
            scene.line(
                scene.far, 0.006, (0.08 + 0.16 * i, 0.88 + 0.03 * (i % 3)), (0.16 + 0.16 * i, 0.88 + 0.03 * (i % 3))
            )


def _road(scene: _Scene) -> None:
    scene.shape(scene.structure, (0.46, 0.56), (0.54, 0.56), (0.9, 1), (0.1, 1))
    for i in range(6):
        top, bottom = 0.58 + 0.07 * i, 0.61 + 0.072 * i
        wide = 0.002 + 0.004 * i
        scene.shape(
            scene.sun, (0.5 - wide, top), (0.5 + wide, top), (0.5 + wide * 1.2, bottom), (0.5 - wide * 1.2, bottom)
        )
    scene.box(scene.accent, 0.18, 0.44, 0.82, 0.475)
    for x in (0.22, 0.35, 0.65, 0.78):
        scene.box(scene.structure, x - 0.012, 0.475, x + 0.012, 0.8)
    if scene.detailed:
        for x in (0.3, 0.62):
            scene.box(scene.sun, x, 0.4, x + 0.06, 0.44)
            scene.disc(scene.structure, x + 0.015, 0.442, 0.012)
            scene.disc(scene.structure, x + 0.045, 0.442, 0.012)


def _works(scene: _Scene) -> None:
    for x, radius in ((0.2, 0.13), (0.42, 0.13), (0.64, 0.13)):
        scene.box(scene.structure, x - radius * 0.62, 0.66, x + radius * 0.62, 0.84)
        scene.box(scene.sky, x - radius * 0.55, 0.66, x + radius * 0.55, 0.69)
    scene.box(scene.accent, 0.77, 0.4, 0.92, 0.84)
    scene.shape(scene.structure, (0.76, 0.4), (0.845, 0.3), (0.93, 0.4))
    scene.line(scene.accent, 0.02, (0.1, 0.9), (0.7, 0.9), (0.7, 0.76), (0.78, 0.76))
    if scene.detailed:
        for row in range(3):
            for column in range(3):
                left, top = 0.79 + 0.04 * column, 0.46 + 0.11 * row
                scene.box(scene.sun, left, top, left + 0.022, top + 0.06)


def _rails(scene: _Scene) -> None:
    scene.shape(scene.middle, (0.44, 0.56), (0.56, 0.56), (0.98, 1), (0.02, 1))
    for i in range(14 if scene.detailed else 9):
        y = 0.57 + 0.43 * (i / (14 if scene.detailed else 9)) ** 1.6
        half = 0.05 + 0.4 * (y - 0.56) / 0.44
        scene.line(scene.structure, 0.008 + 0.02 * (y - 0.56), (0.5 - half, y), (0.5 + half, y))
    for side in (-1, 1):
        scene.line(scene.accent, 0.014, (0.5 + 0.03 * side, 0.56), (0.5 + 0.3 * side, 1))
    for x in (0.12, 0.88):
        scene.line(scene.structure, 0.012, (x, 0.84), (x, 0.3), (0.5 + (x - 0.5) * 0.5, 0.3))


def _tunnel(scene: _Scene) -> None:
    scene.shape(scene.far, (0, 0.9), (0.12, 0.4), (0.5, 0.12), (0.88, 0.4), (1, 0.9))
    for colour, radius in ((scene.accent, 0.36), (scene.structure, 0.32), ("#1d2230", 0.27)):
        scene.disc(colour, 0.5, 0.72, radius)
    scene.box(scene.near, 0, 0.86, 1, 1)
    scene.shape(scene.structure, (0.42, 0.86), (0.58, 0.86), (0.8, 1), (0.2, 1))
    for i in range(5 if scene.detailed else 3):
        scene.disc(scene.sun, 0.5 + (i - (2 if scene.detailed else 1)) * 0.06, 0.55, 0.012)


def _towers(scene: _Scene) -> None:
    for i in range(9 if scene.detailed else 6):
        wide = 0.86 / (9 if scene.detailed else 6)
        left = 0.07 + wide * i
        top = 0.28 + 0.34 * ((scene.number >> (3 * i)) % 8) / 8
        scene.box(scene.structure if i % 2 else scene.accent, left, top, left + wide * 0.8, 0.84)
        for row in range(int((0.8 - top) / 0.08)):
            for column in range(2):
                x, y = left + wide * (0.16 + 0.32 * column), top + 0.04 + 0.08 * row
                scene.box(scene.sun, x, y, x + wide * 0.16, y + 0.04)


_DRAWN: Final[Mapping[str, Callable[[_Scene], None]]] = {
    "bridge": _bridge,
    "road": _road,
    "works": _works,
    "rails": _rails,
    "tunnel": _tunnel,
    "towers": _towers,
}
