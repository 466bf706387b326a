"""`capability check`: every problem of a file at once, the lint rules, and which host receives which key."""

from __future__ import annotations

from pathlib import Path

import pytest

from itwin_mcp.capability import checker
from itwin_mcp.capability.checker import PLATFORM_KEY, CheckResult, SentKeys, check_capabilities
from itwin_mcp.capability.documents import find_shipped_files
from tests.capability.files import GOOD

SOUND = GOOD.replace(
    'namespace: parts-api\n    baseUri: "https://parts.example.org/v1"',
    'namespace: parts-api\n    description: "The service of parts."\n    baseUri: "https://parts.example.org/v1"',
)
for name, text in {
    "List parts.": "List the parts of a machine.",
    "Read a part.": "Read one part of a machine.",
}.items():
    SOUND = SOUND.replace(name, text)


@pytest.fixture
def link_few_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Link one of our own files instead of all, which takes a second."""
    monkeypatch.setattr(checker, "find_shipped_files", lambda: find_shipped_files()[:1])


def check_text(folder: Path, text: str) -> CheckResult:
    file = folder / "parts.yaml"
    file.write_text(text, encoding="utf-8")
    return check_capabilities([file])


def edit(*edits: tuple[str, str]) -> str:
    text = SOUND
    for old, new in edits:
        assert text.count(old) >= 1, old
        text = text.replace(old, new, 1)
    return text


def list_rules(result: CheckResult, text: str) -> list[tuple[str, str]]:
    """Return the rule of each problem, and the line of the file that it names."""
    lines = text.splitlines()
    return [(problem.rule, lines[problem.line - 1].strip()) for problem in result.problems]


pytestmark = pytest.mark.usefixtures("link_few_files")


def test_sound_file_has_tools_and_no_problems_or_warnings(tmp_path: Path) -> None:
    result = check_text(tmp_path, SOUND)
    assert (result.problems, result.warnings) == ((), ())
    assert result.tools == ("list-parts", "get-part", "find-part")
    assert result.credentials == (SentKeys("https://parts.example.org", ("PARTS_TOKEN",)),)


def test_misspelled_key_hides_no_other_problem(tmp_path: Path) -> None:
    text = edit(
        (
            "            inputParameters:\n              kind: {in: query}",
            "            inputParametrs:\n              kind: {in: query}",
        ),
        (
            "call: parts-api.get-part\n        with: {id: parts.partId}",
            "call: parts-api.get-prt\n        with: {id: parts.partId}",
        ),
        ("with: {kind: parts.kind}", "with: {kind: parts.knd}"),
    )
    result = check_text(tmp_path, text)
    assert list_rules(result, text) == [
        ("known-key", "inputParametrs:"),
        ("slot-without-value", "with: {kind: parts.knd}"),
        ("unresolved-call", "call: parts-api.get-prt"),
    ]
    assert [warning.rule for warning in result.warnings] == ["unused-input"]


def test_problems_in_different_tools_hide_nothing(tmp_path: Path) -> None:
    text = edit(
        ('required: false, description: "Kind."', 'required: perhaps, description: "Kind."'),
        ("partId: {type: string", "partId: {type: strng"),
        (
            "call: parts-api.get-part\n        with: {id: parts.partId}",
            "call: parts-api.get-part\n        with: {id: parts.part}",
        ),
        ("{role: user, content:", "{role: usr, content:"),
    )
    rules = [rule for rule, _ in list_rules(check_text(tmp_path, text), text)]
    assert sorted(rules) == ["known-word", "known-word", "slot-without-value", "type"]


def test_what_follows_from_a_broken_operation_is_not_reported(tmp_path: Path) -> None:
    text = edit(("get-part: {method: GET, inputParameters: {id: {in: path}}}", "get-part: 5"))
    result = check_text(tmp_path, text)
    assert [problem.rule for problem in result.problems] == ["type"]
    assert result.tools == ()


@pytest.mark.parametrize("value", ["5", "[[]]"])
@pytest.mark.parametrize(
    "key", ["capability:", "  consumes:", "  exposes:", "    resources:", "    tools:", "binds:", "info:"]
)
def test_file_with_a_broken_section_has_problems(key: str, value: str, tmp_path: Path) -> None:
    lines = SOUND.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith(key))
    indent = len(key) - len(key.lstrip())
    end = next(
        (
            index
            for index in range(start + 1, len(lines))
            if len(lines[index]) - len(lines[index].lstrip()) <= indent and not lines[index].lstrip().startswith("-")
        ),
        len(lines),
    )
    text = "\n".join([*lines[:start], f"{key} {value}", *lines[end:]])
    result = check_text(tmp_path, text)
    assert result.problems
    assert all(problem.line <= len(text.splitlines()) for problem in result.problems)


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ('display: "Parts"', 'display: "Parts <script>"', "no-script"),
        ('"Describe {{part}}."', '"Describe {{part}}, eval(1)."', "no-eval"),
        ('"Kind."', '"Kind, such as ghp_0123456789abcdef0123."', "no-secret"),
    ],
)
def test_dangerous_text_is_a_problem(old: str, new: str, rule: str, tmp_path: Path) -> None:
    assert rule in {problem.rule for problem in check_text(tmp_path, edit((old, new))).problems}


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("org/v1", "org/v1/", "trailing-slash"),
        ('path: "/parts"', 'path: "/parts/"', "trailing-slash"),
        ("https://parts.example.org/v1", "http://parts.example.org/v1", "https"),
        ("https://parts.example.org/v1", "https://api.example.com/v1", "example-host"),
        ("{{PARTS_TOKEN}}", "literal", "no-secret"),
        (
            '{type: bearer, token: "{{PARTS_TOKEN}}"}',
            '{type: basic, username: a, password: "{{PARTS_TOKEN}}"}',
            "basic-authentication",
        ),
        ('    description: "The service of parts."\n', "", "description"),
        ("Read one part of a machine.", "Read a part.", "description"),
        ("Read one part of a machine.", "TODO: describe this tool.", "placeholder"),
        ("namespace: parts-env", "namespace: parts", "namespaces-unique"),
        ("namespace: parts-env", "namespace: Parts-Env", "kebab-case"),
        ('description: "Parts of a machine."', 'description: "Parts of a machine.", version: next', "semver"),
    ],
)
def test_broken_lint_rule_is_a_warning(old: str, new: str, rule: str, tmp_path: Path) -> None:
    result = check_text(tmp_path, edit((old, new)))
    assert result.problems == ()
    assert rule in {warning.rule for warning in result.warnings}


def test_our_own_files_break_no_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checker, "find_shipped_files", find_shipped_files)
    result = check_capabilities(find_shipped_files())
    assert (result.problems, result.warnings) == ((), ())
    assert result.credentials == (SentKeys("https://api.bentley.com", (PLATFORM_KEY,)),)
