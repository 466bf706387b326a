"""The documents that people read, and the blocks of code in them."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from itwin_mcp.sandbox.errors import ERRORS

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "HOSTING.md", "PRIVACY.md", "CONTRIBUTING.md", "capabilities/TUTORIAL.md")


@dataclass(frozen=True)
class Block:
    """One block of code; `line` is that of its first line, `words` what stands behind the language."""

    document: str
    line: int
    language: str
    words: str
    text: str


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


@cache
def blocks(document: str) -> tuple[Block, ...]:
    """Every fenced block; indented ones are shell, and nothing else in our documents is indented by four."""
    found = []
    fence: tuple[int, str, str] | None = None
    held: list[str] = []
    for number, line in enumerate([*text_of(document).splitlines(), ""], 1):
        if fence is not None:
            if line == "```":
                found.append(Block(document, fence[0], fence[1], fence[2], "\n".join(held) + "\n"))
                fence, held = None, []
            else:
                held.append(line)
        elif opened := re.fullmatch(r"```(\S*) ?(.*)", line):
            fence = (number + 1, opened[1], opened[2])
        elif line.startswith("    "):
            held.append(line[4:])
        elif held:
            found.append(Block(document, number - len(held), "sh", "", "\n".join(held) + "\n"))
            held = []
    return tuple(found)


def prose(document: str) -> str:
    """The document without its blocks, line by line where it was."""
    kept = text_of(document).splitlines()
    for block in blocks(document):
        for number in range(block.line - 1, block.line - 1 + block.text.count("\n")):
            kept[number] = ""
    return "\n".join(kept)


def shell_lines(block: Block) -> list[str]:
    """The commands of a shell block, without their comments."""
    lines = [re.sub(r"\s+# .*$", "", line).strip() for line in block.text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def between(marker: str) -> str:
    """What the README has between two of its markers."""
    readme = text_of("README.md")
    return readme[readme.index(f"<!-- {marker}:") : readme.index(f"<!-- /{marker} -->")]


def codes_in(text: str) -> set[str]:
    """The codes in the first column of a table."""
    return set(re.findall(r"`([A-Za-z]+)`", re.sub(r"^(\|[^|]*\|).*$", r"\1", text, flags=re.MULTILINE)))


def coming_codes() -> set[str]:
    """Every code that an answer's `error` may have: ours, and the sandbox's but for those that become one of ours."""
    platforms = {code for code, (status, _) in ERRORS.items() if status not in (401, 501)}
    return platforms | codes_in(between("codes"))
