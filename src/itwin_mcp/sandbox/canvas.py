"""A canvas of flat colours with smooth edges, and the png of it: all that the sandbox's own pictures need."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, TypeAlias

Point: TypeAlias = tuple[float, float]

_FINER: Final = 2  # each pixel is drawn as 2 by 2, and is their mean
_CORNERS: Final = 48  # of what stands for a disc


class Canvas:
    """Polygons are drawn over each other, in pixels from the top left; what is outside is cut off."""

    def __init__(self, width: int, height: int) -> None:
        self._width, self._height = width, height
        self._rows = [bytearray(width * _FINER) for _ in range(height * _FINER)]
        self._colours: list[bytes] = [b"\0\0\0"]

    def polygon(self, colour: str, points: Sequence[Point]) -> None:
        """Fill what lies between the points; `colour` is #rrggbb."""
        paint = self._paint(colour)
        corners = [(x * _FINER, y * _FINER) for x, y in points]
        sides = [(*one, *other) for one, other in zip(corners, [*corners[1:], corners[0]], strict=True)]
        top = max(0, math.floor(min(y for _, y in corners)))
        bottom = min(len(self._rows), math.ceil(max(y for _, y in corners)))
        for number in range(top, bottom):
            row, level = self._rows[number], number + 0.5
            crossings = sorted(
                ax + (level - ay) * (bx - ax) / (by - ay) for ax, ay, bx, by in sides if (ay <= level) != (by <= level)
            )
            for start, end in zip(crossings[::2], crossings[1::2], strict=True):
                left, right = max(0, math.ceil(start - 0.5)), min(len(row), math.ceil(end - 0.5))
                if left < right:
                    row[left:right] = paint * (right - left)

    def disc(self, colour: str, centre: Point, radius: float) -> None:
        """Fill a circle."""
        turns = [2 * math.pi * corner / _CORNERS for corner in range(_CORNERS)]
        self.polygon(colour, [(centre[0] + radius * math.cos(t), centre[1] + radius * math.sin(t)) for t in turns])

    def line(self, colour: str, thickness: float, points: Sequence[Point]) -> None:
        """Draw through the points, round where it bends."""
        half = thickness / 2
        for (ax, ay), (bx, by) in pairwise(points):
            length = math.hypot(bx - ax, by - ay)
            dx, dy = (by - ay) / length * half, (ax - bx) / length * half
            self.polygon(colour, [(ax + dx, ay + dy), (bx + dx, by + dy), (bx - dx, by - dy), (ax - dx, ay - dy)])
        for point in points[1:-1]:
            self.disc(colour, point, half)

    def png(self) -> bytes:
        """The picture as a png of 8 bits a channel."""
        mean = _Mean(self._colours)
        lines = []
        for upper, lower in zip(self._rows[::2], self._rows[1::2], strict=True):
            pixels = map(mean.__getitem__, zip(upper[::2], upper[1::2], lower[::2], lower[1::2], strict=True))
            lines.append(b"\0" + b"".join(pixels))  # 0: the line is written as it is
        header = struct.pack(">IIBBBBB", self._width, self._height, 8, 2, 0, 0, 0)
        chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"".join(lines), 9)), (b"IEND", b""))
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )

    def _paint(self, colour: str) -> bytes:
        channels = bytes.fromhex(colour.removeprefix("#"))
        if channels not in self._colours:
            self._colours.append(channels)
        return bytes([self._colours.index(channels)])


class _Mean(dict[tuple[int, ...], bytes]):
    """The colour of a pixel from the colours of its parts, reckoned once for each combination."""

    def __init__(self, colours: Sequence[bytes]) -> None:
        self._colours = colours

    def __missing__(self, parts: tuple[int, ...]) -> bytes:
        channels = zip(*(self._colours[part] for part in parts), strict=True)
        self[parts] = mixed = bytes(round(sum(channel) / len(parts)) for channel in channels)
        return mixed
