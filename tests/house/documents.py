"""The documents that people read, and the blocks of code in them."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from itwin_mcp.sandbox.errors import ERRORS

ROOT = Path(__file__).parents[2]
PAGES = tuple(file.relative_to(ROOT).as_posix() for file in sorted(ROOT.glob("docs/*.md")))
DOCUMENTS = ("README.md", "PRIVACY.md", "CONTRIBUTING.md", "benchmarks/README.md", "capabilities/README.md", *PAGES)


@dataclass(frozen=True)
class Block:
    """A fenced block of code. `line` is the number of its first line; `words` follow the language in the fence."""

    document: str
    line: int
    language: str
    words: str
    text: str


@cache
def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


@cache
def blocks(document: str) -> tuple[Block, ...]:
    """Return every fenced block of a document."""
    found = []
    fence: tuple[int, str, str] | None = None
    lines: list[str] = []
    for number, line in enumerate(text_of(document).splitlines(), 1):
        if fence is not None:
            if line == "```":
                found.append(Block(document, *fence, "\n".join(lines) + "\n"))
                fence, lines = None, []
            else:
                lines.append(line)
        elif opened := re.fullmatch(r"```(\S*) ?(.*)", line):
            fence = (number + 1, opened[1], opened[2])
    assert fence is None, f"{document}: a block is not closed"
    return tuple(found)


def read_prose(document: str) -> str:
    """Return the running text of a document. Blocks become empty lines, so that line numbers stay the same."""
    lines = text_of(document).splitlines()
    for block in blocks(document):
        for number in range(block.line - 2, block.line + block.text.count("\n")):
            lines[number] = ""
    return "\n".join(lines)


def shell_lines(block: Block) -> list[str]:
    """Return the commands of a shell block, without their comments."""
    lines = [re.sub(r"\s+# .*$", "", line).strip() for line in block.text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def read_section(marker: str) -> str:
    """Return the text between `<!-- marker: … -->` and `<!-- /marker -->`, in the only document that has the marker."""
    (text,) = [text for document in DOCUMENTS if f"<!-- {marker}:" in (text := text_of(document))]
    return text[text.index(f"<!-- {marker}:") : text.index(f"<!-- /{marker} -->")]


def find_codes(text: str) -> set[str]:
    """Return the error codes in the first column of a Markdown table."""
    return set(re.findall(r"`([A-Za-z]+)`", re.sub(r"^(\|[^|]*\|).*$", r"\1", text, flags=re.MULTILINE)))


def list_error_codes() -> set[str]:
    """Return every code that an `error` of a tool may have.

    These are our own codes and those of the platform. A 401 or 501 of the platform becomes one of our own codes.
    """
    platforms = {code for code, (status, _) in ERRORS.items() if status not in (401, 501)}
    return platforms | find_codes(read_section("codes"))
