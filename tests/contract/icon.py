"""The desktop extension's icon, drawn: a cube and, behind it, the outline of its twin."""

import math
from collections.abc import Iterator

from itwin_mcp.sandbox.canvas import Canvas, Point

SIZE = 512
GROUND, TWIN = "#10354a", "#f2a65a"
TOP, LEFT, RIGHT = "#ffffff", "#9fd3e0", "#5aa9bf"
RADIUS, STROKE = 150, 32
CUBE, BEHIND = (200, 288), (312, 224)


def draw() -> bytes:
    """The png."""
    canvas = Canvas(SIZE, SIZE)
    canvas.polygon(GROUND, [(0, 0), (SIZE, 0), (SIZE, SIZE), (0, SIZE)])
    outline = list(corners(BEHIND, RADIUS - STROKE / 2))
    canvas.line(TWIN, STROKE, [*outline, *outline[:2]])
    canvas.polygon(GROUND, list(corners(CUBE, RADIUS + STROKE * 0.75)))
    top, upper_right, lower_right, bottom, lower_left, upper_left = corners(CUBE, RADIUS)
    canvas.polygon(TOP, [top, upper_right, CUBE, upper_left])
    canvas.polygon(LEFT, [upper_left, CUBE, bottom, lower_left])
    canvas.polygon(RIGHT, [upper_right, lower_right, bottom, CUBE])
    return canvas.png()


def corners(centre: Point, radius: float) -> Iterator[Point]:
    """Of a hexagon that stands on a corner, clockwise from the top: a cube seen along its diagonal."""
    for number in range(6):
        turn = math.pi / 3 * number
        yield centre[0] + radius * math.sin(turn), centre[1] - radius * math.cos(turn)
