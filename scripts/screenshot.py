"""Draw the terminal of `itwin-mcp demo` as an SVG: `python scripts/screenshot.py [FILE]`.

The text is the demo's real output, except for the random ids of the iModels that the demo creates. They are replaced by
fixed ids, so that each run draws the same picture.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from xml.sax.saxutils import escape

from itwin_mcp.cli.demo import command as demo

PICTURE = Path(__file__).parents[1] / "docs/images/demo.svg"
STEPS = 3
"""The number of steps of the demo that the picture shows. More would not be readable in the README."""
COLUMNS = 96
CELL_WIDTH, LINE_HEIGHT, MARGIN, TITLE_BAR = 8.4, 20, 18, 36

COLOURS = {"31": "#ff7b72", "32": "#7ee787", "36": "#79c0ff"}
PLAIN, BRIGHT, FAINT, BACKGROUND, BAR = "#c9d1d9", "#ffffff", "#8b949e", "#0d1117", "#161b22"
_STYLE = re.compile(r"\x1b\[(\d+)m")
_RANDOM_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Run:
    """Consecutive characters of one style."""

    text: str
    colour: str
    bold: bool


def run_demo() -> str:
    """Return the prompt and the demo's first steps, as printed on a terminal with colours."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        demo.main([], standalone_mode=False, color=True)
    output = printed.getvalue()
    shown = output[: output.index(f"\x1b[1m{STEPS + 1}. ")].rstrip()
    return f"\x1b[2m$\x1b[0m \x1b[1mitwin-mcp demo\x1b[0m\n{fix_ids(shown)}"


def fix_ids(text: str) -> str:
    """Replace random ids, in the order in which they first appear."""
    numbers = count(1)
    fixed: dict[str, str] = {}

    def replace(found: re.Match[str]) -> str:
        if found[0] not in fixed:
            fixed[found[0]] = f"8f0e3c5a-7b1d-4e2f-9a6c-{next(numbers):012x}"
        return fixed[found[0]]

    return _RANDOM_ID.sub(replace, text)


def split_runs(line: str) -> Iterator[Run]:
    """Split a line with escape sequences into runs of one style."""
    colour, bold = PLAIN, False
    for number, part in enumerate(_STYLE.split(line)):
        if number % 2 == 0:
            if part:
                yield Run(part, colour, bold)
        elif part == "0":
            colour, bold = PLAIN, False
        elif part == "1":
            colour, bold = BRIGHT if colour == PLAIN else colour, True
        elif part == "2":
            colour = FAINT
        else:
            colour = COLOURS[part]


def wrap(line: list[Run]) -> Iterator[list[Run]]:
    """Break a line between words at the terminal's width. Continuation lines are indented."""
    row: list[Run] = []
    width = 0
    for run in line:
        for word in re.findall(r"\S+\s*|\s+", run.text):
            if width + len(word.rstrip()) > COLUMNS:
                yield row
                row, width = [Run("     ", PLAIN, False)], 5
            row.append(Run(word, run.colour, run.bold))
            width += len(word)
    yield row


def draw(output: str) -> str:
    """Draw a terminal that shows this output."""
    rows = [row for line in output.splitlines() for row in wrap(list(split_runs(line)))]
    width = round(COLUMNS * CELL_WIDTH + 2 * MARGIN)
    height = TITLE_BAR + len(rows) * LINE_HEIGHT + 2 * MARGIN
    plain = _STYLE.sub("", output)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
        ' role="img" aria-labelledby="title text">',
        '<title id="title">A terminal that runs itwin-mcp demo</title>',
        f'<desc id="text">{escape(plain)}</desc>',
        f'<rect width="{width}" height="{height}" rx="10" fill="{BACKGROUND}"/>',
        f'<path d="M0 {TITLE_BAR}V10a10 10 0 0 1 10-10H{width - 10}a10 10 0 0 1 10 10v{TITLE_BAR - 10}z"'
        f' fill="{BAR}"/>',
        *(
            f'<circle cx="{20 + 20 * number}" cy="{TITLE_BAR / 2:g}" r="6" fill="{colour}"/>'
            for number, colour in enumerate(("#ff5f57", "#febc2e", "#28c840"))
        ),
        '<g font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,\'DejaVu Sans Mono\',monospace" font-size="14">',
    ]
    for number, row in enumerate(rows):
        y = TITLE_BAR + MARGIN + number * LINE_HEIGHT + 14
        column = 0
        for run in row:
            if text := run.text.rstrip():
                weight = ' font-weight="bold"' if run.bold else ""
                blanks = len(text) - len(text.lstrip())
                x = MARGIN + (column + blanks) * CELL_WIDTH
                # Set the length, so that columns are aligned with any monospaced font.
                length = len(text.strip()) * CELL_WIDTH
                parts.append(
                    f'<text x="{x:g}" y="{y}" textLength="{length:g}" lengthAdjust="spacingAndGlyphs"'
                    f' fill="{run.colour}"{weight}>{escape(text.strip())}</text>'
                )
            column += len(run.text)
    return "\n".join([*parts, "</g>", "</svg>", ""])


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURE
    target.write_text(draw(run_demo()), encoding="utf-8")
