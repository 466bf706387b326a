"""What the sandbox draws its own pictures with, seen through an independent reader of png files."""

import io

from PIL import Image

from itwin_mcp.sandbox.canvas import Canvas

BLACK, RED, BLUE = (0, 0, 0), (255, 0, 0), (0, 0, 255)


def seen(canvas: Canvas) -> Image.Image:
    image = Image.open(io.BytesIO(canvas.png()))
    image.load()
    assert (image.format, image.mode) == ("PNG", "RGB")
    return image


def test_what_is_drawn_later_covers_what_was_there_and_what_is_outside_is_cut_off() -> None:
    canvas = Canvas(8, 6)
    canvas.polygon("#ff0000", [(-5, -5), (4, -5), (4, 50), (-5, 50)])
    canvas.polygon("#0000ff", [(2, 0), (6, 0), (6, 3), (2, 3)])
    image = seen(canvas)
    assert image.size == (8, 6)
    assert [image.getpixel(at) for at in ((0, 0), (3, 5), (1, 2))] == [RED] * 3
    assert [image.getpixel(at) for at in ((2, 0), (5, 2))] == [BLUE] * 2
    assert [image.getpixel(at) for at in ((6, 2), (4, 3), (7, 5))] == [BLACK] * 3


def test_an_edge_through_a_pixel_is_mixed() -> None:
    canvas = Canvas(2, 1)
    canvas.polygon("#ff0000", [(0, 0), (0.5, 0), (0.5, 1), (0, 1)])
    assert [seen(canvas).getpixel((x, 0)) for x in (0, 1)] == [(128, 0, 0), BLACK]


def test_a_dented_shape_is_empty_in_its_dent() -> None:
    canvas = Canvas(9, 9)
    canvas.polygon("#ff0000", [(0, 0), (3, 0), (3, 6), (6, 6), (6, 0), (9, 0), (9, 9), (0, 9)])
    image = seen(canvas)
    assert [image.getpixel(at) for at in ((1, 1), (7, 1), (4, 7))] == [RED] * 3
    assert image.getpixel((4, 2)) == BLACK


def test_discs_and_lines_have_their_size() -> None:
    canvas = Canvas(40, 40)
    canvas.disc("#ff0000", (20, 20), 10)
    canvas.line("#0000ff", 4, [(0, 4), (36, 4), (36, 40)])
    image = seen(canvas)
    assert [image.getpixel(at) for at in ((20, 20), (20, 11), (28, 20))] == [RED] * 3
    assert [image.getpixel(at) for at in ((20, 8), (12, 12))] == [BLACK] * 2
    assert [image.getpixel(at) for at in ((1, 3), (35, 5), (36, 38))] == [BLUE] * 3
    assert [image.getpixel(at) for at in ((1, 1), (33, 30))] == [BLACK] * 2
