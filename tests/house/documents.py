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
    """A block of code. `line` is its first line; `words` follow the language in the opening fence."""

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
    held: list[str] = []
    for number, line in enumerate(text_of(document).splitlines(), 1):
        if fence is not None:
            if line == "```":
                found.append(Block(document, *fence, "\n".join(held) + "\n"))
                fence, held = None, []
            else:
                held.append(line)
        elif opened := re.fullmatch(r"```(\S*) ?(.*)", line):
            fence = (number + 1, opened[1], opened[2])
    assert fence is None, f"{document}: a block is not closed"
    return tuple(found)


def prose(document: str) -> str:
    """Return the document with its blocks emptied, so that line numbers stay."""
    kept = text_of(document).splitlines()
    for block in blocks(document):
        for number in range(block.line - 2, block.line + block.text.count("\n")):
            kept[number] = ""
    return "\n".join(kept)


def shell_lines(block: Block) -> list[str]:
    """Return the commands of a shell block, without their comments."""
    lines = [re.sub(r"\s+# .*$", "", line).strip() for line in block.text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def between(marker: str) -> str:
    """Return what the one document that has this marker contains between its two ends."""
    (text,) = [text for document in DOCUMENTS if f"<!-- {marker}:" in (text := text_of(document))]
    return text[text.index(f"<!-- {marker}:") : text.index(f"<!-- /{marker} -->")]


def codes_in(text: str) -> set[str]:
    """Return the codes in the first column of a table."""
    return set(re.findall(r"`([A-Za-z]+)`", re.sub(r"^(\|[^|]*\|).*$", r"\1", text, flags=re.MULTILINE)))


def coming_codes() -> set[str]:
    """Return every code that an `error` may have: ours, and the sandbox's except those that become one of ours."""
    platforms = {code for code, (status, _) in ERRORS.items() if status not in (401, 501)}
    return platforms | codes_in(between("codes"))
