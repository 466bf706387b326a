"""Prose linter: texts for people and models follow the word list of docs/writing.md."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

from tests.house.documents import ROOT, read_prose, text_of

ENFORCED = (
    "README.md",
    "CONTRIBUTING.md",
    "PRIVACY.md",
    "benchmarks/README.md",
    "capabilities",
    "docs",
    "scripts",
    "tests/cli",
    "tests/hosting",
    "tests/house",
    "src/itwin_mcp/capability",
    "src/itwin_mcp/cli",
    "src/itwin_mcp/hosted_server.py",
    "src/itwin_mcp/hosting",
    "src/itwin_mcp/runtime.py",
    "src/itwin_mcp/server",
    "src/itwin_mcp/setting_parsers.py",
    "src/itwin_mcp/skills",
    "tests/capability",
    "tests/contract",
    "src/itwin_mcp/text.py",
    "tests/interop/test_sign_in_server.py",
    "tests/sandbox",
    "tests/server",
    "tests/skills",
)
"""Files and folders that have been rewritten. Add yours when it passes."""
EXCEPT = (
    "capabilities/search/vocabulary.yaml",
    "docs/writing.md",
    "tests/house/test_prose.py",
    "tests/server/test_finding.py",
)
"""Files that quote bad examples or the questions of users."""

# A label of up to five words, such as "What was changed.", is left alone.
RELATIVE_CLAUSE = re.compile(r"(?:^|[.!:] )(?P<found>(?:Who|What|Whoever|Whatever) [^.?!]*[.!](?= |$))")
WORTH_READING = re.compile(r"\S+ \S+ \S+")
"""Matches texts of at least three words. Shorter texts are names and codes."""
GENERATED = re.compile(r"<!-- (\S+): generated .*?<!-- /\1 -->", re.DOTALL)


@cache
def word_list() -> list[tuple[re.Pattern[str], str]]:
    """Return each pattern of the table with its replacement."""
    rows = re.findall(r"^\| (\w[^|]+) \| (`[^|]+`) \|$", text_of("docs/writing.md"), re.MULTILINE)
    return [
        (re.compile(rf"(?<![\w-])(?:{pattern})(?![\w-])", re.IGNORECASE), write)
        for write, patterns in rows
        for pattern in re.findall(r"`([^`]+)`", patterns)
    ]


def find_faults(text: str) -> list[str]:
    """Report the words of the list and the sentences that begin with a relative clause."""
    plain = " ".join(re.sub(r"`[^`]*`", "`…`", text).split())
    faults = [f"“{found[0]}”: write {write}" for pattern, write in word_list() for found in pattern.finditer(plain)]
    clauses = [found["found"] for found in RELATIVE_CLAUSE.finditer(plain) if found["found"].count(" ") > 4]
    return faults + [f"“{clause[:60]}”: begin with a verb or a noun" for clause in clauses]


def read_texts(file: Path) -> Iterator[tuple[int, str]]:
    """Yield each paragraph, description, docstring, comment and message with its line."""
    if file.suffix == ".md":
        # The texts of generated tables are checked in their sources.
        text = GENERATED.sub(lambda table: "\n" * table[0].count("\n"), read_prose(file.relative_to(ROOT).as_posix()))
        line = 1
        for paragraph in re.split(r"(\n(?:\n|(?=[|#-]|\d+\. )))", text):
            yield line, re.sub(r"^(?:[#|*-]+|\d+\.) |(?<= )\|(?= |$)", "", paragraph.strip())
            line += paragraph.count("\n")
    elif file.suffix == ".yaml":
        for node in yaml.compose_all(file.read_text(encoding="utf-8"), yaml.SafeLoader):
            yield from _scalars(node)
    elif file.suffix == ".py":
        source = file.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.lineno, node.value
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string.lstrip("# ")


def _scalars(node: yaml.Node | None) -> Iterator[tuple[int, str]]:
    if isinstance(node, yaml.ScalarNode):
        yield node.start_mark.line + 1, node.value
    elif isinstance(node, yaml.CollectionNode):
        for part in node.value:
            for child in part if isinstance(part, tuple) else (part,):
                yield from _scalars(child)


def list_files(name: str) -> list[Path]:
    path = ROOT / name
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [
        file
        for file in files
        if file.suffix in (".md", ".yaml", ".py") and file.relative_to(ROOT).as_posix() not in EXCEPT
    ]


@pytest.mark.parametrize("name", ENFORCED)
def test_find_faults_reports_nothing_in_enforced_files(name: str) -> None:
    files = list_files(name)
    assert files
    faults = [
        f"{file.relative_to(ROOT)}:{line}: {fault}"
        for file in files
        for line, text in read_texts(file)
        if WORTH_READING.search(text)
        for fault in find_faults(text)
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("The previous file is backed up. There is none.", 0),
        ("What happens to a call? It returns.", 0),
        ("What was changed.", 0),
        ("Two digital twins stand side by side; a class stands for one.", 0),
        ("It is over 5 MB, besides. `told` is a name. The value is None.", 0),
        ("The file that stands beside it goes\non.", 3),
        ("Who has an account can hold it to the platform.", 1),
        ("It ends. What destroys something asks the person first.", 2),
        ("A wish is none, and is over.", 2),
    ],
)
def test_find_faults_reports_listed_words_and_relative_clauses(text: str, faults: int) -> None:
    assert len(find_faults(text)) == faults


def test_word_list_reads_every_row_of_the_table() -> None:
    assert len(word_list()) > 20
